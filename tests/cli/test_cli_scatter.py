"""``pacbed scatter``, and what takes a series."""

import re

import pytest

from pacbed.cli import main
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.exceptions import PacbedError
from pacbed.patterns.difference import relative_l1
from pacbed.patterns.store import read_patterns
from pacbed.precision.bound_table import read_bounds
from pacbed.scattering import fit as module

RANGE = ["--layers", "2", "--semiangle", "6.35", "--tilt", "2", "--fov", "120", "--states", "6"]
COARSE = ["--supercell", "3", "2", "--diffuse-waves", "16", "--incident-step", "3"]
CRYSTAL = ["--stretch", "1.01", "0.99", "--theta", "30", "--semiangle", "6.35", "--tilt", "1", "1"]


NARROW = ["--stretch", "0.98", "1.02"]


def scatter(output, *options):
    return main(["scatter", "--output", output, *RANGE, *NARROW, *COARSE, *options])


@pytest.fixture
def requested(monkeypatch, tmp_path):
    """Return what would be made of a configuration and options."""

    def stop(path, request, *others):
        asked.append(request)
        raise PacbedError("enough")

    asked = []
    monkeypatch.setattr(module, "write_state", stop)

    def run(configuration, *options):
        overlay = tmp_path / "study.yaml"
        overlay.write_text(configuration)
        words = ["scatter", "--output", tmp_path / "none.zarr.zip", "--config", overlay, *options]
        assert main(words) == 1
        return asked.pop()

    return run


STUDY = """
seed: 7
deformation: {principal_stretch: [1.0, 1.0], tilt_mrad: [-3, 3]}
microscope: {semiangles_mrad: [6.35]}
simulation: {engine: planewave, layers: 2, thermal_motion: coherent}
dataset: {layers: [1, 2]}
variants: [{outputs: strain-rotation, intensity: sqrt, semiangles_mrad: all, layers: all}]
"""


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    path = tmp_path_factory.mktemp("scatter") / "mos2.series.zarr.zip"
    assert scatter(path) == 0
    return path


def test_a_series_leaves_one_file_and_says_how_exact_it_is(tmp_path, capsys):
    path = tmp_path / "small.zarr.zip"
    assert scatter(path, "--phonons", "0") == 0
    assert list(tmp_path.iterdir()) == [path]
    said = capsys.readouterr()
    assert "2 layers from 6 strain states" in said.out
    assert "6 strain states take about 1 min" in said.err


def test_what_is_not_given_is_as_in_the_configuration(requested):
    usual = requested(STUDY.replace("1.0, 1.0", "0.98, 1.02"))
    assert (usual.seed, usual.motion, usual.layers) == (7, "coherent", 2)
    assert (usual.states, usual.degree) == (50, 3)
    assert usual.strain.stretch == (0.98, 1.02)
    assert usual.tilt_mrad == pytest.approx(3 * 2**0.5)


def test_options_replace_what_the_configuration_says(requested):
    # Its stretch does not vary: without the option it has no series.
    given = requested(STUDY, *NARROW, "--states", "20", "--seed", "0", "--no-debye-waller")
    assert given.strain.stretch == (0.98, 1.02)
    assert (given.states, given.degree) == (20, 2)
    assert (given.seed, given.motion) == (0, "none")


def test_a_configuration_has_a_number_of_states(requested):
    configured = STUDY.replace("1.0, 1.0", "0.98, 1.02").replace(
        "thermal_motion: coherent", "planewave: {strain_states: 15}"
    )
    found = requested(configured)
    assert (found.states, found.degree, found.motion) == (15, 2, "full")


def test_a_series_that_is_there_is_not_made_again(series, capsys, monkeypatch):
    monkeypatch.setattr(module, "write_state", None)
    before = series.stat()
    assert scatter(series) == 0
    assert f"{series} is this series already: up to 2 layers from" in capsys.readouterr().out
    assert series.stat() == before
    assert list(series.parent.iterdir()) == [series]


@pytest.mark.parametrize("option", ["--seed 9", "--diffuse-waves 17"])
def test_another_series_that_is_there_is_not_replaced(series, monkeypatch, capsys, option):
    monkeypatch.setattr(module, "write_state", None)
    before = series.stat()
    assert scatter(series, *option.split()) == 1
    assert "not the series that is asked for" in capsys.readouterr().err
    assert series.stat() == before


def test_a_series_that_was_stopped_continues(tmp_path, monkeypatch, series):
    made = []

    original = module.write_state

    def stopping(path, request, number, engine):
        if made == [0, 1, 2]:
            raise KeyboardInterrupt
        made.append(number)
        original(path, request, number, engine)

    monkeypatch.setattr(module, "write_state", stopping)
    path = tmp_path / "again.zarr.zip"
    assert scatter(path) == 130
    made.append(None)
    assert scatter(path) == 0
    assert made == [0, 1, 2, None, 3, 4, 5]
    assert path.read_bytes() == series.read_bytes()


def test_patterns_of_a_series_are_those_of_a_simulation(series, tmp_path):
    field = ["--fov", "60", "--pixels", "96"]
    a, b = tmp_path / "a.zarr.zip", tmp_path / "b.zarr.zip"
    assert main(["simulate", "--series", series, *CRYSTAL, *field, "--output", a]) == 0
    direct = [*CRYSTAL, *field, "--layers", "2", *COARSE]
    assert main(["simulate", *direct, "--output", b]) == 0
    one, other = read_patterns(a), read_patterns(b)
    assert one.attributes["engine"] == "series"
    assert relative_l1(one.patterns, other.patterns).max() < 3e-3


def test_several_patterns_of_a_series_are_counted_and_their_times_added(
    series, tmp_path, capsys, monkeypatch
):
    seconds = iter([100, 130, 200, 270])
    monkeypatch.setattr("pacbed.scattering.engine.time.perf_counter", lambda: next(seconds))
    asked = ["--semiangle", "3", "6.35", "--fov", "40", "--pixels", "32", "--layers", "1"]
    assert main(["simulate", "--series", series, *asked, "--output", tmp_path / "a.zarr.zip"]) == 0
    said = capsys.readouterr()
    assert "patterns: 2 of 2" in said.err
    assert "100.0 s. Look at them" in said.out
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--material", "WS2"], "is of MoS2, not of WS2"),
        (["--energy", "60"], r"beam energy \(keV\) 80.*not 60"),
        (["--layers", "3"], "1 to 2 layers, not 3"),
        (["--phonons", "2"], "thermal motion full, not 2"),
        (["--engine", "prismatic", "--box", "auto"], "leave out --engine prismatic and --box, or"),
        (
            ["--slices", "3", "--seed", "0", "--device", "gpu", "--diffuse-waves", "99"],
            "leave out --slices, --device, --seed and --diffuse-waves, or --series",
        ),
        (["--fov", "150"], "beyond the series"),
    ],
)
def test_what_a_series_does_not_hold_is_named(series, complaint, tmp_path, options, message):
    words = ["--semiangle", "6.35", "--output", tmp_path / "none.zarr.zip", *options]
    said = complaint("simulate", "--series", series, *words)
    assert re.search(message, said), said
    assert not (tmp_path / "none.zarr.zip").exists()


def test_bounds_of_a_series(series, tmp_path, capsys):
    overlay = tmp_path / "study.yaml"
    overlay.write_text(
        "microscope: {semiangles_mrad: [6.35]}\n"
        "simulation: {layers: 2}\n"
        "dataset: {layers: [1, 2], pixels: 64, translation_px: 1}\n"
        "variants: [{outputs: strain-rotation, intensity: sqrt, semiangles_mrad: all, layers: all}]"
        "\n"
    )
    saved = tmp_path / "bounds.csv"
    question = ["design", "--precision", "0.05%", "--probe", "0.4nm", "--series", series]
    assert main([*question, "--config", overlay, "--save", saved]) == 0
    assert "6.35 mrad" in capsys.readouterr().out
    bounds = read_bounds(saved)
    assert set(bounds["layers"]) == {1, 2}
    capsys.readouterr()
    assert main([*question, "--bounds", saved]) == 1
    assert "leave out --bounds or --series" in capsys.readouterr().err


@pytest.mark.parametrize("options", ["--fov 3000", "--fov 120 --band-limit 1.2"])
def test_a_field_that_is_too_wide_is_refused_with_one_that_is_not(
    complaint, tmp_path, monkeypatch, options
):
    monkeypatch.setattr(PlaneWaveEngine, "_multislice", None)  # what takes time comes later
    command = ["scatter", "--output", tmp_path / "none.zarr.zip", "--quiet"]
    command += [*RANGE, *NARROW, *COARSE]
    line = complaint(*command, *options.split())
    too_wide = float(re.search(r"field of view \(--fov.* that is ([\d.]+) mrad narrower", line)[1])
    fov = float(options.split()[1]) - too_wide
    with pytest.raises(TypeError, match="not callable"):
        main([*command, *options.split(), "--fov", f"{fov:g}"])


def test_what_cannot_be_a_series_is_refused(complaint, tmp_path):
    output = ["--output", tmp_path / "none.zarr.zip"]
    few = complaint("scatter", *output, "--states", "10", "--degree", "3")
    assert "10 strain states are too few" in few
    assert "full, coherent or none" in complaint("scatter", *output, "--phonons", "2")
    assert not list(tmp_path.iterdir())
