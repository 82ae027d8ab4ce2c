"""The planner: which semi-angle, thickness and dose reach a precision, in one sentence."""

import math
import re

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from pacbed.cli import main
from pacbed.precision import design as bound_simulation
from pacbed.precision.bound_table import COLUMNS, probe_nm, read_bounds
from pacbed.precision.steps import Steps
from pacbed.study.configuration import load

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


@pytest.fixture
def answer(capsys, bounds):
    """Run the planner on a table; return all that it prints."""

    def run(precision, probe, *words):
        asked = "--precision", precision, "--probe", probe, "--bounds", bounds
        assert main(["design", *asked, *words]) == 0
        return capsys.readouterr().out

    return run


def sentence(text):
    return next(line for line in text.splitlines() if line.startswith(("Yes", "No")))


# What is asked


@pytest.mark.parametrize(
    ("precision", "probe"),
    [("0.05 %", "0.15 nm"), ("5e-4", "1.5A"), ("0.0005", "1.5Å"), (".05%", "150 PM")],
)
def test_a_precision_is_per_cent_or_a_fraction_and_a_length_has_its_unit(answer, precision, probe):
    assert answer(precision, probe) == answer("0.05%", "0.15nm")


@pytest.mark.parametrize(
    ("option", "text", "hint"),
    [
        ("--precision", "-0.05%", "write 0.05%"),
        ("--precision", "5", "write 0.05%"),
        ("--precision", "0.05mm", "write 0.05%"),
        ("--probe", "0.15", "its unit"),
        ("--probe", "-1A", "its unit"),
        ("--phonons", "1", "2 or more"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_hint(complaint, option, text, hint):
    given = {"--precision": "0.05%", "--probe": "0.15nm", option: text}
    line = complaint("design", *(word for pair in given.items() for word in pair), status=2)
    assert option in line
    assert hint in line


# What is answered


@pytest.mark.parametrize(
    ("precision", "probe", "start", "parts"),
    [
        # The fewest electrons among small enough probes.
        ("0.05%", "0.15nm", "Yes: 18.13 mrad", ("with 1 layer ", "4e+06")),
        # A larger probe may do with less: sigma of the worst strain is 1e-4 at a million electrons.
        ("0.05%", "4A", "Yes: 6.35 mrad", ("5 layers", "4e+04", "fewer than")),
        (
            "0.05%",
            "0.1nm",
            "No: a probe of 0.1 nm takes a semi-angle of 21.5 mrad",
            ("go up to 18.13",),
        ),
        (
            "0.005%",
            "0.15nm",
            "No, not with up to 1e+08 electrons",
            ("18.13 mrad with 1 layer", "0.01 %", "4e+08"),
        ),
    ],
)
def test_a_sentence_names_what_reaches_it_or_comes_nearest(answer, precision, probe, start, parts):
    text = sentence(answer(precision, probe))
    assert text.startswith(start)
    assert all(part in text for part in parts)


def test_a_table_names_every_semiangle_and_thickness(answer):
    text = answer("0.05%", "0.15nm")
    assert re.search(r"6\.35 .* 0\.338 .* no .* 6\.4e\+05\* .* 4e\+04\*", text)
    assert re.search(r"18\.13 .* 0\.118 .* yes .* 4e\+06 .* 1\.6e\+07", text)
    assert "beyond the doses" in text


def test_strain_that_cannot_be_read_is_said_so(capsys, tmp_path):
    path = tmp_path / "never.csv"
    table({(6.35, 1): math.inf}).to_csv(path, index=False)
    assert main(["design", "--precision", "1%", "--probe", "1nm", "--bounds", path]) == 0
    said = capsys.readouterr()
    assert "never" in said.out
    assert sentence(said.out).startswith("No: strain cannot be read")
    assert said.err.startswith("note: 1 % is as wide as the strains of a study")


def test_thicknesses_can_be_chosen_and_the_answer_drawn(answer, tmp_path):
    figure = tmp_path / "design.png"
    text = answer("0.05%", "0.15nm", "--layers", "5", "--figure", figure)
    assert "1 layer " not in text
    assert "5 layers" in sentence(text)
    assert str(figure) in text
    assert matplotlib.image.imread(figure).std() > 0.05


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--layers 5 7", "has 1, 5"),
        # What is for simulating, though there is a table.
        ("--save b.csv", "leave out --bounds or --save"),
        ("--config config/config.yaml", "leave out --bounds or --config"),
        ("--threads 1 --phonons 2", "leave out --bounds or --phonons and --threads"),
    ],
)
def test_what_cannot_be_answered_is_reported(bounds, complaint, words, message):
    asked = "--precision", "1%", "--probe", "1nm", "--bounds", bounds
    assert complaint("design", *asked, *words.split()).endswith(message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--phonons 0", "leave out --series or --phonons"),
        ("--phonons 2 --threads 1", "leave out --series or --phonons and --threads"),
    ],
)
def test_with_a_series_nothing_is_simulated(complaint, words, message):
    asked = "--precision", "1%", "--probe", "1nm", "--series", "mos2.series.zarr.zip"
    assert complaint("design", *asked, *words.split()).endswith(message)


# Without a table


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(
        "microscope: {semiangles_mrad: [6.35]}\n"
        "simulation: {engine: planewave, layers: 2, pixels: 192}\n"
        "dataset: {layers: [1, 2], pixels: 64, field_of_view_variation: 0.02, translation_px: 1}\n"
        "variants: [{outputs: strain-rotation-tilt, intensity: linear, semiangles_mrad: all, "
        "layers: all}]\n"
    )
    return path


def test_without_a_table_one_is_simulated_and_can_be_kept(capsys, config, tmp_path):
    kept = tmp_path / "bounds.csv"
    asked = "design", "--precision", "0.1%", "--probe", "4A"
    assert main([*asked, "--config", config, "--threads", 1, "--save", kept]) == 0
    text = capsys.readouterr().out
    assert sentence(text).startswith("Yes: 6.35 mrad")
    found = read_bounds(kept)
    assert set(found["layers"]) == {1, 2}
    strains = found[found["parameter"].isin(STRAINS)]
    assert np.isfinite(strains["sigma"]).all()
    assert main([*asked, "--bounds", kept]) == 0
    assert sentence(capsys.readouterr().out) == sentence(text)


@pytest.mark.parametrize(
    ("words", "asked"), [("", "full"), ("--phonons 0", "coherent"), ("--phonons 2", 2)]
)
def test_the_bound_is_simulated_with_full_thermal_motion_or_what_is_asked_for(
    config, monkeypatch, words, asked
):
    motions = []

    def simulated(experiment, layers, motion, *others):
        motions.append(motion)
        return table({(6.35, 1): 1e-4})

    monkeypatch.setattr(bound_simulation, "simulated_bounds", simulated)
    command = ["design", "--precision", "0.1%", "--probe", "4A", "--config", config]
    assert main([*command, *words.split()]) == 0
    assert motions == [asked]


def test_the_steps_are_those_of_the_configuration_and_hardly_matter(config, monkeypatch):
    steps = []
    differences = bound_simulation.differences

    def recorded(*arguments):
        steps.append(arguments[2])
        return differences(*arguments)

    monkeypatch.setattr(bound_simulation, "differences", recorded)
    usual = load([config])
    other = usual.changed({"bound": {"strain_step": 0.003, "tilt_step_mrad": 0.4}})
    experiments = [one.experiment() for one in (usual, other)]
    found = [bound_simulation.simulated_bounds(one, [2])["sigma"] for one in experiments]
    assert [(one.strain, one.tilt_mrad) for one in steps] == [(0.002, 0.2), (0.003, 0.4)]
    # With steps for the slopes that are not those of the patterns, half as large or twice.
    np.testing.assert_allclose(found[1], found[0], rtol=0.1)
    assert not np.allclose(found[1], found[0], rtol=1e-5)


@pytest.mark.parametrize(("pixels", "expected"), [(640, 133.6 / 640), ("native", 0.104)])
def test_pixels_are_as_fine_as_those_of_the_stores(pixels, expected):
    paper = load().changed({"simulation": {"pixels": pixels, "field_of_view_mrad": 133.6}})
    pixel, detector = bound_simulation._camera(paper.detector(), paper.augmentation(), Steps())
    assert pixel == pytest.approx(expected, rel=0.01)
    # Half of the field of the examples, and what differences of shift, scale and rotation add.
    assert 50.5 < detector.field_of_view_mrad[0] / 2 < 52
    assert detector.field_of_view_mrad[0] == pytest.approx(pixel * detector.pixels[0])


# What is unknown of the camera


def test_the_price_of_nuisances_takes_a_series(complaint):
    asked = "--precision", "1%", "--probe", "1nm", "--nuisances"
    assert complaint("design", *asked).endswith("give --series")


def test_prices_are_shown_by_semiangle_and_thickness(capsys, config, tmp_path):
    path = tmp_path / "small.series.zarr.zip"
    words = (
        "--stretch 0.98 1.02 --states 6 --degree 1 --layers 2 --tilt 0.5 --fov 108 "
        "--incident-step 2.5 --supercell 2 2 --diffuse-waves 16"
    )
    assert main(["scatter", "--config", config, "--output", path, *words.split()]) == 0
    asked = "--precision", "1%", "--probe", "1nm", "--series", path, "--config", config
    assert main(["design", *asked]) == 0
    assert "ellipticity" not in capsys.readouterr().out
    assert main(["design", *asked, "--nuisances"]) == 0
    text = capsys.readouterr().out
    rows = [line for line in text.splitlines() if re.match(r"\W+6\.35 \W+[12] ", line)]
    assert len(rows) == 2
    cells = [[float(one) for one in re.findall(r"[\d.]+", row)] for row in rows]
    # Semi-angle, layers, bound; then a known scale, and what is unknown.
    assert all(row[3] <= 1 <= min(row[4:]) for row in cells)
