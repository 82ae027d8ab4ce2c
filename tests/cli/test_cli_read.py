"""``pacbed read``."""

import itertools
import json
from dataclasses import replace

import keras
import numpy as np
import pytest
from mtf_tables import gaussian_mtf

from pacbed.cli import main
from pacbed.cli.read import (
    CameraOptions,
    FitOptions,
    _as_recorded,
    _predicted,
    _read,
    _said_of_scales,
    _scale_from,
    _with_error,
    layer_numbers,
)
from pacbed.examples.labels import LabelScaling
from pacbed.exceptions import PacbedError
from pacbed.learning.network import NetworkSettings, build_network
from pacbed.reading.patterns import Pattern
from pacbed.reading.window import Window
from pacbed.scattering.image import Camera
from pacbed.scattering.mtf import MTF
from pacbed.scattering.series import ScatteringSeries
from pacbed.specimen.microscope import Aperture

# What they share takes longer than they do: all in one process.
pytestmark = pytest.mark.xdist_group("pacbed read")

RANGE = ["--layers", "1", "--semiangle", "6", "--tilt", "5", "--fov", "64", "--states", "6"]
COARSE = ["--supercell", "3", "2", "--incident-step", "2.5", "--phonons", "0"]
TRUTH = (0.008, -0.006, 0.005)


@pytest.fixture(autouse=True)
def _threads(monkeypatch):
    """TensorFlow takes a number of threads once only; other tests may have used it."""
    monkeypatch.setattr("pacbed.learning.training.configure", lambda *_, **__: None)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    path = tmp_path_factory.mktemp("read") / "mos2.series.zarr.zip"
    narrow = ["--stretch", "0.97", "1.03"]
    assert main(["scatter", "--output", path, *RANGE, *narrow, *COARSE]) == 0
    return path


def expected(series):
    """Return the expected electrons of a pattern, shifted by (4, -3) pixels."""
    camera = Camera(96, 48.0, 2.0, (4.0, -3.0))
    image = ScatteringSeries(series).image(TRUTH, (1.0, -0.5), Aperture(6.0), 1, camera)
    return 3e6 * np.maximum(image, 0)


@pytest.fixture(scope="module")
def measured(series):
    """Return a file with a pattern."""
    path = series.parent / "measured.npy"
    np.save(path, np.random.default_rng(0).poisson(expected(series)))
    return path


def test_a_pattern_is_read_and_all_is_written(measured, series, tmp_path, capsys):
    broken = tmp_path / "broken.npy"
    np.save(broken, np.zeros((96, 96)))
    words = ["read", measured, broken, "--series", series, "--semiangle", "6", "--layers", "1"]
    outputs = ["--json", tmp_path / "read.json", "--figure", tmp_path / "read.png"]
    assert main([*words, "--pixel-mrad", "0.5", "--electrons", "3e6", *outputs]) == 0
    said = capsys.readouterr()
    assert f"warning: not read: {broken} is empty" in said.err
    assert "ε_xx" in said.out
    assert "not mirrored" in said.out
    assert "turned (°)" in " ".join(said.out.split())
    found = json.loads((tmp_path / "read.json").read_text())
    [one] = found["patterns"]
    for name, truth in zip(("strain_xx", "strain_yy", "strain_xy"), TRUTH, strict=True):
        assert abs(one[name] - truth) < 5 * one[f"{name}_sigma"]
    assert one["rotation_deg"] == pytest.approx(2, abs=0.1)
    assert one["centre_px"] == pytest.approx([52, 45], abs=0.1)
    assert one["counts_per_electron"] == pytest.approx(1, rel=0.02)
    assert one["pixel_from"] == "given"
    assert abs(one["semiangle_mrad"] - 6) < 5 * one["semiangle_mrad_sigma"]
    assert "semi-angle: 6 mrad (fitted: " in " ".join(said.out.split())
    assert (one["layers"], one["probability_of_layers"]) == (1, {"1": 1.0})
    assert found["assumed"]["mirrored"] is False
    assert list(found["not_read"]) == [str(broken)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken.npy", "read.json", "read.png"]


def test_a_given_mtf_is_that_of_the_fit(measured, series, tmp_path, capsys):
    mtf = MTF(gaussian_mtf(0.8))
    blurred, table = tmp_path / "blurred.npy", tmp_path / "mtf.csv"
    np.save(blurred, np.random.default_rng(1).poisson(np.maximum(mtf.blurred(expected(series)), 0)))
    table.write_text("\n".join(f"{f},{value}" for f, value in mtf.points))
    words = ["read", blurred, "--series", series, "--semiangle", "6", "--layers", "1"]
    words += ["--pixel-mrad", "0.5", "--electrons", "3e6", "--json", tmp_path / "read.json"]
    left = []
    for options in ([], ["--mtf", table]):
        assert main([*words, *options]) == 0
        found = json.loads((tmp_path / "read.json").read_text())
        left.append(found["patterns"][0]["chi2_per_pixel"])
    assert left[1] < 1.1
    assert left[0] > 10
    assert found["assumed"]["mtf"]["points"] == [list(point) for point in mtf.points]
    for name, truth in zip(("strain_xx", "strain_yy", "strain_xy"), TRUTH, strict=True):
        assert abs(found["patterns"][0][name] - truth) < 5 * found["patterns"][0][f"{name}_sigma"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mtf", "none.txt"], "cannot read none.txt"),
        (["--layers", "x"], "write a number such as 5, or a range"),
        (["--layers", "3-1"], "write a number such as 5, or a range"),
        (["--layers", "1-2"], "the series holds 1 to 1 layers, not 2"),
        (["--material", "MoS2"], "only for a new series; leave out --material or --series"),
        (["--keep-series", "kept.zarr.zip", "--energy", "80"], "--energy, --keep-series: only for"),
        (["--pixel-mrad", "0.1"], "shows 9.6 × 9.6 mrad"),
        (["--pixel-mrad", "5"], "a radius of 1.2 pixels"),
        (["--fit-semiangle"], "cannot both be unknown"),
        (["--mask", "none.npy"], "none.npy does not exist"),
        (["--mask", "none.png"], "a mask comes as .npy, .tif or .tiff"),
        (["--only", "4"], "has patterns 0 to 0, not 4"),
        (["--centre", "200", "3", "--pixel-mrad", "0.5"], "lies outside of its pixels"),
        (["--centre", "nan", "3", "--pixel-mrad", "0.5"], "lies outside of its pixels"),
        (["--json", "nowhere/read.json"], "there is no folder nowhere"),
        (["--json", "measured.npy"], "--json measured.npy: name the file .json"),
        (["--figure", "read.xyz"], "cannot draw read.xyz: name a figure .png or .pdf"),
        (["--network", "nowhere"], "--network nowhere: there is no trained network"),
    ],
)
def test_what_cannot_be_done_is_said(measured, series, complaint, options, message):
    given = ["--layers", "1"] if "--layers" not in options else []
    words = ["read", measured, "--series", series, "--semiangle", "6", *given, *options]
    assert message in complaint(*words)


@pytest.mark.parametrize("option", ["--rotation", "--semiangle", "--pixel-mrad", "--electrons"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_what_is_no_number_is_refused(complaint, option, value):
    options = {"--semiangle": "6", option: value}
    said = complaint("read", "measured.npy", *itertools.chain(*options.items()), status=2)
    assert f'Invalid value "{value}" for {option}' in said


def test_it_is_said_how_the_scale_of_each_pattern_is_known():
    known, unknown = (
        Pattern(name, np.ones((2, 2)), np.ones((2, 2), bool), pixel)
        for name, pixel in (("a.zarr.zip", 0.5), ("b.npy", None))
    )
    given = CameraOptions(pixel_mrad=0.4)
    assert [_scale_from(one, given) for one in (known, unknown)] == ["given"] * 2
    scales = {one.name: _scale_from(one, CameraOptions()) for one in (known, unknown)}
    assert scales == {"a.zarr.zip": "file", "b.npy": "discs"}
    assert _said_of_scales({"a": "given"}, given) == "0.4 mrad per pixel (± 0.2 %)"
    assert _said_of_scales({"a": "discs"}, CameraOptions()) == "from the radius of the discs"
    assert (
        _said_of_scales(scales, CameraOptions())
        == "of the file (a.zarr.zip); from the radius of the discs (b.npy)"
    )


def test_a_centre_lies_in_the_image_as_it_was_recorded():
    one = Pattern("a.npy", np.ones((3, 10)), np.ones((3, 10), bool))
    assert _as_recorded((4, 1), one, CameraOptions()) == (4, 1)
    assert _as_recorded((4, 1), one, CameraOptions(mirrored=True)) == (5, 1)


def test_a_network_is_read_once_and_what_it_cannot_read_begins_with_a_dictionary(
    monkeypatch, tmp_path, capsys
):
    network = build_network(16, 4, NetworkSettings(filters=(2,), dense=()), seed=3)
    network.save(tmp_path / "model.keras")
    scaling = LabelScaling.from_ranges("strain-rotation", (0.95, 1.05), (-10, 10), (-5, 5))
    augmentation = {"pixels": 16, "field_of_view_mrad": 32.0, "image_mean": [0.2, 0.4]}
    settings = {
        "scaling": vars(scaling),
        "data": {"augmentation": augmentation, "semiangle_mrad": 6.35},
    }
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    load, loaded = keras.saving.load_model, []
    monkeypatch.setattr(
        keras.saving, "load_model", lambda *a, **k: loaded.append(a) or load(*a, **k)
    )
    starts = _predicted(tmp_path, [shown("wide.npy", 1.0), shown("narrow.npy", 0.5)])
    assert len(loaded) == 1
    assert np.isfinite(starts[0]).all()
    assert np.isnan(starts[1]).all()
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("narrow.npy: begins with a dictionary, not with the network: the patter")


def test_what_is_fitted_of_a_pattern_does_not_depend_on_others(monkeypatch):
    windows = [shown(name, 0.5) for name in ("first.npy", "second.hspy", "third.npy")]
    windows[1] = replace(windows[1], pattern=replace(windows[1].pattern, pixel_mrad=0.5))
    fitted = {}

    def read_patterns(series, some, settings, starts, report):
        fitted.update((one.pattern.name, settings.free) for one in some)
        return [one.pattern.name for one in some]

    monkeypatch.setattr("pacbed.reading.reading.read_patterns", read_patterns)
    options = FitOptions(), None, CameraOptions(), None, 1
    assert _read(None, windows, (1,), 6.0, 0.0, *options) == [one.pattern.name for one in windows]
    assert fitted == {"first.npy": (), "second.hspy": ("semiangle",), "third.npy": ()}


def shown(name, pixel_mrad):
    """Return a window of 48 pixels."""
    y, x = np.indices((48, 48))
    image, whole = np.where(np.hypot(x - 24, y - 24) < 9, 3.0, 0.1), np.ones((48, 48), bool)
    pattern = Pattern(name, image, whole)
    return Window(pattern, image, whole, pixel_mrad, (0, 0), 1, np.array([[24.0, 24.0]]))


def test_a_pattern_is_not_overwritten(complaint, tmp_path):
    pattern = tmp_path / "a.tif"
    pattern.write_bytes(b"a pattern")
    said = complaint("read", pattern, "--semiangle", "6", "--figure", f"{tmp_path}/./a.tif")
    assert "a.tif is read, and would be overwritten" in said
    assert pattern.read_bytes() == b"a pattern"


def test_a_figure_that_cannot_be_drawn_is_refused_before_anything_is_read(complaint):
    said = complaint("read", "no.npy", "--semiangle", "6", "--figure", "read.xyz")
    assert "cannot draw read.xyz" in said
    assert "no.npy" not in said


def test_an_option_that_takes_the_file_is_named(measured, series, complaint):
    words = ["--series", series, "--semiangle", "6", "--layers", "1", measured]
    said = complaint("read", *words, status=2)
    assert f"--layers takes all values that follow it, {measured} too: write PATTERN first" in said


def test_a_store_without_patterns_is_named(series, complaint):
    said = complaint("read", series, "--series", series, "--semiangle", "6")
    assert f"{series} is neither a pattern store nor a dataset" in said


def test_nothing_that_can_be_read_is_an_error(series, complaint, tmp_path):
    words = [tmp_path / "no.npy", tmp_path / "no.tif", "--series", series, "--semiangle", "6"]
    said = complaint("read", *words)
    assert said.splitlines() == [
        f"error: {tmp_path}/no.npy does not exist",
        f"{tmp_path}/no.tif does not exist",
    ]


def test_without_a_series_the_crystal_must_be_named(measured, complaint):
    said = complaint("read", measured, "--semiangle", "6", "--layers", "1")
    assert "--material, --energy and --layers" in said


def test_without_a_series_one_is_made_and_may_be_kept(measured, tmp_path, monkeypatch, capsys):
    def stop(series, windows, *others):
        seen.append(series.request)
        return []

    seen = []
    monkeypatch.setattr("pacbed.cli.read._read", stop)
    crystal = ["--material", "WS2", "--energy", "60", "--layers", "1", "--states", "6"]
    kept = tmp_path / "ws2.zarr.zip"
    words = ["read", measured, "--semiangle", "6", "--pixel-mrad", "0.5", *crystal]
    assert main([*words, "--keep-series", kept, "--stretch", "0.98", "1.02"]) == 0
    assert "the scattering series took" in capsys.readouterr().err
    assert main([*words, "--keep-series", kept, "--stretch", "0.98", "1.02"]) == 0
    assert "the scattering series took" not in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [kept]
    assert (seen[0].material.formula, seen[0].energy_keV) == ("WS2", 60)
    assert seen[0].field_of_view_mrad == 48


def test_layers_are_numbers_and_ranges():
    assert layer_numbers(["5"]) == (5,)
    assert layer_numbers(["3-5", "1", "4"]) == (1, 3, 4, 5)
    with pytest.raises(PacbedError, match="--layers 1-1000000000: write"):
        layer_numbers(["1-1000000000"])


def test_two_digits_of_an_error_are_shown():
    assert _with_error(1.23456, 0.0234) == "1.235 ± 0.023"
    assert _with_error(12.3, 4.2) == "12.3 ± 4.2"
    assert _with_error(-123.0, 45.0) == "-123 ± 45"
