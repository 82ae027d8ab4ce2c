"""The planner: which semi-angle, thickness and dose reach a precision, said in a sentence."""

import argparse
import copy
import math
import re
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import yaml

from pacbed.cli.design import add_design
from pacbed.exceptions import PacbedError
from pacbed.precision import design as bound_simulation
from pacbed.precision.bound_table import COLUMNS, probe_nm, read_bounds
from pacbed.precision.steps import Steps
from pacbed.study.configuration import canonical, load

ROOT = Path(__file__).resolve().parents[2]
STRAINS = ("strain_xx", "strain_yy", "strain_xy")


def table(sigma_at_1e6):
    """Bounds by (semi-angle, layers)."""
    doses = np.geomspace(1e6, 1e8, 5)
    frames = [
        pd.DataFrame(
            {
                "semiangle_mrad": angle,
                "layers": layers,
                "state": "undeformed",
                "parameter": parameter,
                "unit": "1",
                "electrons": doses,
                **dict.fromkeys(COLUMNS, sigma * share / np.sqrt(doses / 1e6)),
                "probe_nm": probe_nm(angle, 80),
            }
        )
        for (angle, layers), sigma in sigma_at_1e6.items()
        for parameter, share in zip(STRAINS, (0.5, 1, 0.3), strict=True)
    ]
    return pd.concat(frames, ignore_index=True)


@pytest.fixture
def bounds(tmp_path):
    path = tmp_path / "bounds.parquet"
    found = {(6.35, 1): 4e-4, (6.35, 5): 1e-4, (18.13, 1): 1e-3, (18.13, 5): 2e-3}
    table(found).to_parquet(path)
    return path


def parse(*words):
    parser = argparse.ArgumentParser(prog="pacbed")
    add_design(parser.add_subparsers(required=True))
    return parser.parse_args(["design", *map(str, words)])


def design(*words):
    options = parse(*words)
    options.run(options)


@pytest.fixture
def answer(capsys, bounds):
    """Run the planner on a table; return all that it prints, lines broken by none."""

    def run(precision, probe, *words):
        design("--precision", precision, "--probe", probe, "--bounds", bounds, *words)
        return capsys.readouterr().out

    return run


def sentence(text):
    return next(line for line in text.splitlines() if line.startswith(("Yes", "No")))


# What is asked


@pytest.mark.parametrize("text", ["0.05%", "0.05 %", "5e-4", "0.0005", ".05%"])
def test_a_precision_is_per_cent_or_a_fraction(text):
    assert parse("--precision", text, "--probe", "1nm").precision == pytest.approx(5e-4)


@pytest.mark.parametrize("text", ["0.15nm", "0.15 nm", "1.5A", "1.5Å", "150pm", "150 PM"])
def test_a_length_has_its_unit(text):
    assert parse("--precision", "5e-4", "--probe", text).probe == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("option", "text", "hint"),
    [
        ("--precision", "small", "write 0.05%"),
        ("--precision", "-0.05%", "write 0.05%"),
        ("--precision", "0", "write 0.05%"),
        ("--precision", "5", "write 0.05%"),
        ("--precision", "0.05mm", "write 0.05%"),
        ("--probe", "0.15", "its unit"),
        ("--probe", "0nm", "its unit"),
        ("--probe", "-1A", "its unit"),
        ("--probe", "1km", "its unit"),
        ("--phonons", "1", "2 or more"),
        ("--phonons", "some", "2 or more"),
        ("--layers", "0", ""),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_hint(capsys, option, text, hint):
    given = {"--precision": "0.05%", "--probe": "0.15nm", option: text}
    with pytest.raises(SystemExit):
        parse(*(f"{name}={value}" for name, value in given.items()))
    error = capsys.readouterr().err
    assert option in error
    assert hint in error


def test_the_help_can_be_printed(capsys):
    with pytest.raises(SystemExit) as end:
        parse("--help")
    assert end.value.code == 0
    assert "0.05% or 5e-4" in capsys.readouterr().out


# What is answered


def test_the_fewest_electrons_among_small_enough_probes_are_named(answer):
    text = sentence(answer("0.05%", "0.15nm"))
    assert text.startswith("Yes: 18.13 mrad")
    assert "with 1 layer " in text
    assert "4e+06" in text


def test_a_larger_probe_may_do_with_less(answer):
    text = sentence(answer("0.05%", "4A"))
    assert text.startswith("Yes: 6.35 mrad")
    assert "5 layers" in text
    # Sigma of the worst strain is 1e-4 at a million electrons.
    assert "4e+04" in text
    assert "fewer than" in text


def test_a_table_names_every_semiangle_and_thickness(answer):
    text = answer("0.05%", "0.15nm")
    assert re.search(r"6\.35 .* 0\.338 .* no .* 6\.4e\+05\* .* 4e\+04\*", text)
    assert re.search(r"18\.13 .* 0\.118 .* yes .* 4e\+06 .* 1\.6e\+07", text)
    assert "beyond the doses" in text


def test_too_small_a_probe_is_told_which_semiangle_it_takes(answer):
    text = sentence(answer("0.05%", "0.1nm"))
    assert text.startswith("No: a probe of 0.1 nm takes a semi-angle of 21.5 mrad")
    assert "go up to 18.13" in text


def test_too_high_a_precision_is_told_what_is_reached_and_what_it_takes(answer):
    text = sentence(answer("0.005%", "0.15nm"))
    assert text.startswith("No, not with up to 1e+08 electrons")
    assert "18.13 mrad with 1 layer" in text
    assert "0.01 %" in text
    assert "4e+08" in text


def test_strain_that_cannot_be_read_is_said_so(capsys, tmp_path):
    path = tmp_path / "never.csv"
    table({(6.35, 1): math.inf}).to_csv(path, index=False)
    design("--precision", "1%", "--probe", "1nm", "--bounds", path)
    text = capsys.readouterr().out
    assert "never" in text
    assert sentence(text).startswith("No: strain cannot be read")


def test_thicknesses_can_be_chosen(answer):
    text = answer("0.05%", "0.15nm", "--layers", "5")
    assert "1 layer " not in text
    assert "5 layers" in sentence(text)


def test_a_thickness_that_the_table_lacks_is_named(answer):
    with pytest.raises(PacbedError, match=r"--layers 7: .* has 1, 5"):
        answer("0.05%", "0.15nm", "--layers", "5", "7")


def test_the_answer_can_be_drawn(answer, tmp_path):
    figure = tmp_path / "design.png"
    assert str(figure) in answer("0.05%", "0.15nm", "--figure", figure)
    assert matplotlib.image.imread(figure).std() > 0.05


def test_a_missing_folder_is_named_before_anything_is_computed(bounds, tmp_path):
    for option in ("--figure", "--save"):
        with pytest.raises(PacbedError, match=f"{option} .* no folder"):
            design("--precision=1%", "--probe=1nm", option, tmp_path / "none" / "x.png")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--save", "b.csv"], "--save"),
        (["--config", "config/config.yaml"], "--config"),
        (["--phonons", "0"], "--phonons"),
        (["--threads", "1", "--phonons", "2"], "--phonons and --threads"),
    ],
)
def test_with_a_table_what_is_for_simulating_is_refused(bounds, words, named):
    with pytest.raises(PacbedError, match=f"leave out --bounds or {named}$"):
        design("--precision=1%", "--probe=1nm", "--bounds", bounds, *words)


# Without a table


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    complete = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    complete["microscope"]["semiangles_mrad"] = [6.35]
    complete["simulation"].update(engine="planewave", layers=2, pixels=192)
    complete["dataset"].update(
        layers=[1, 2], pixels=64, field_of_view_variation=0.02, translation_px=1
    )
    complete["variants"] = [{**complete["variants"][0], "layers": "all"}]
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(complete), encoding="utf-8")
    return path


def test_without_a_table_one_is_simulated_and_can_be_kept(capsys, config, tmp_path):
    kept = tmp_path / "bounds.csv"
    design("--precision=0.1%", "--probe=4A", "--config", config, "--threads", 1, "--save", kept)
    text = capsys.readouterr().out
    assert sentence(text).startswith("Yes: 6.35 mrad")
    found = read_bounds(kept)
    assert set(found["layers"]) == {1, 2}
    strains = found[found["parameter"].isin(STRAINS)]
    assert np.isfinite(strains["sigma"]).all()
    design("--precision=0.1%", "--probe=4A", "--bounds", kept)
    assert sentence(capsys.readouterr().out) == sentence(text)


def test_the_steps_are_those_of_the_configuration_and_hardly_matter(config, monkeypatch):
    steps = []
    differences = bound_simulation.differences

    def recorded(*arguments):
        states = differences(*arguments)
        steps.append(
            (
                states["strain_xx_plus"].deformation.strain[0, 0],
                states["tilt_y_mrad_plus"].tilt_mrad[1],
            )
        )
        return states

    monkeypatch.setattr(bound_simulation, "differences", recorded)
    usual = canonical(load([config], ROOT / "src/pacbed/study/config.schema.yaml"))
    other = copy.deepcopy(usual)
    other["bound"].update(strain_step=0.003, tilt_step_mrad=0.4)
    found = [bound_simulation.simulated_bounds(one, [2])["sigma"] for one in (usual, other)]
    np.testing.assert_allclose(steps, [(0.002, 0.2), (0.003, 0.4)])
    # With steps for the slopes that are not those of the patterns, half as large or twice.
    np.testing.assert_allclose(found[1], found[0], rtol=0.1)
    assert not np.allclose(found[1], found[0], rtol=1e-5)


@pytest.mark.parametrize(("pixels", "expected"), [(640, 133.6 / 640), ("native", 0.104)])
def test_pixels_are_as_fine_as_those_of_the_stores(pixels, expected):
    paper = load([ROOT / "config/config.yaml"])
    paper["simulation"].update(engine="prismatic", pixels=pixels, field_of_view_mrad=133.6)
    pixel, detector = bound_simulation._camera(paper, Steps())
    assert pixel == pytest.approx(expected, rel=0.01)
    # Half of the field of the examples, and what differences of shift, scale and rotation add.
    assert 50.5 < detector.field_of_view_mrad[0] / 2 < 52
    assert detector.field_of_view_mrad[0] == pytest.approx(pixel * detector.pixels[0])
