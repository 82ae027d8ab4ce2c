"""The page about a map stands alone, and says what may be wrong."""

import re

import numpy as np
import pytest
from reading.synthetic_map import synthetic_map

from pacbed.figures.map_report import warnings, write_map_report
from pacbed.reading.maps.store import StrainMap


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "map.html"
    write_map_report(path, synthetic_map(12, 16, warnings=["The camera is <not> known."]))
    return path.read_text(encoding="utf-8")


def test_the_page_needs_nothing_but_itself(page):
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "url(" not in page
    assert page.count("data:image/png;base64,") == 1


def test_the_page_names_scan_sample_and_settings(page):
    for words in ("Strain map of ripple.hspy", "MoS<sub>2</sub>", "80 keV", "6.35 mrad", "window"):
        assert words in page


def test_values_stand_with_their_errors(page):
    one = synthetic_map(12, 16)
    middle = 100 * np.nanmedian(one.values["strain_yy"])
    assert f"<td>{middle:.3f}</td>" in page
    assert "common σ" in page
    assert "3 layers" in page
    assert "5 layers" in page


def test_the_calibration_says_where_it_comes_from(page):
    row = page[page.index("pixel (mrad)") :].split("</tr>")[0]
    assert "0.52" in row
    assert "file" in row


def test_words_of_others_are_no_html(page):
    assert "&lt;not&gt;" in page


def test_nothing_is_said_of_a_map_that_is_well():
    assert warnings(synthetic_map(12, 16, common_sigma={})) == []


def test_bad_fits_an_unknown_hand_and_a_common_error_are_said():
    one = synthetic_map(12, 16, mirrored=None)
    one.values["flags"][:] |= 4
    said = " ".join(warnings(one))
    for words in ("bad χ²", "mirror images", "all points share"):
        assert words in said


def test_a_turn_that_is_undetermined_leaves_the_sign_of_the_tilt_open():
    one = synthetic_map(12, 16, common_sigma={})
    one.values["flags"][3, 4:6] |= 32
    [said] = warnings(one)
    assert said == "At 2 points a turn by 180° is undetermined, and with it the sign of the tilt."


def test_a_map_of_vacuum_is_said_to_be_one(tmp_path):
    nothing = np.full((4, 5), np.nan)
    values = {"strain_xx": nothing, "layers": np.zeros((4, 5)), "flags": np.full((4, 5), 8)}
    vacuum = StrainMap(values, np.arange(5.0), np.arange(4.0))
    assert "vacuum" in warnings(vacuum)[0]
    write_map_report(tmp_path / "map.html", vacuum)
    assert "0 of 20" in (tmp_path / "map.html").read_text(encoding="utf-8")
