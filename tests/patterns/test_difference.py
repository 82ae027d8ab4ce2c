"""Comparing two stores: how far apart, whether they should be equal, and how that looks."""

from dataclasses import replace

import numpy as np
import pytest

from pacbed.cli import main
from pacbed.engines import SimulationRequest, SimulationResult, ThermalMotion
from pacbed.exceptions import PacbedError
from pacbed.figures.patterns import compare_patterns
from pacbed.figures.style import save
from pacbed.patterns.difference import compare, simulated_differently
from pacbed.patterns.store import PatternStore, read_patterns, write_patterns
from pacbed.specimen.crystal import MATERIALS
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture, Detector

REQUEST = SimulationRequest(
    MATERIALS["MoS2"],
    Deformation(1, 1, 0),
    (0, 0),
    3,
    80.0,
    Aperture(10),
    Detector((80, 60), (40, 24)),
)


def humps(request=REQUEST):
    """Patterns that broaden with thickness; 99.9, 99.8, 99.7 % of the electrons in the field."""
    x, y = request.detector.kx_mrad, request.detector.ky_mrad
    n = np.arange(1, request.layers + 1)[:, None, None]
    patterns = np.exp(-(x**2 + y[:, None] ** 2) / (150 * n))
    return (1 - n / 1000) * patterns / patterns.sum(axis=(1, 2), keepdims=True)


def stored(path, patterns=None, request=REQUEST, **provenance):
    patterns = humps(request) if patterns is None else patterns
    provenance = {"engine": "planewave", **provenance}
    write_patterns(path, request, SimulationResult(patterns.astype(np.float32), provenance))
    return path


@pytest.fixture
def made(tmp_path):
    """Make a store and read it."""
    return lambda *args, **more: read_patterns(stored(tmp_path / "x.zarr.zip", *args, **more))


def with_moved(patterns, share):
    """Move a share of all electrons from the brightest pixel to a dark one."""
    moved = patterns.copy()
    moved[:, 12, 20] -= share * patterns.sum(axis=(1, 2))
    moved[:, 0, 0] += share * patterns.sum(axis=(1, 2))
    return moved


# How far apart


def test_equal_patterns_are_not_apart(made):
    found = compare(made(), made())
    np.testing.assert_array_equal(found.layers, [1, 2, 3])
    np.testing.assert_array_equal(found.change, 0)
    np.testing.assert_array_equal(found.change_of_shape, 0)
    np.testing.assert_allclose(found.sum_a, [0.999, 0.998, 0.997], rtol=1e-6)
    np.testing.assert_array_equal(found.sum_b, found.sum_a)


def test_electrons_that_move_count_where_they_leave_and_where_they_arrive(made):
    found = compare(made(with_moved(humps(), 0.002)), made())
    np.testing.assert_allclose(found.change, 0.004, rtol=1e-4)
    half = compare(made(0.5 * with_moved(humps(), 0.002)), made())
    for one in (found, half):
        np.testing.assert_allclose(one.change_of_shape, 0.004, rtol=1e-4)


@pytest.mark.parametrize(("factor", "change"), [(0.5, 0.5), (1.25, 0.25)])
def test_a_factor_changes_patterns_but_not_their_shape(made, factor, change):
    found = compare(made(factor * humps()), made())
    np.testing.assert_allclose(found.change, change, rtol=1e-5)
    np.testing.assert_allclose(found.change_of_shape, 0, atol=1e-6)
    np.testing.assert_allclose(found.sum_a, factor * found.sum_b, rtol=1e-6)


def test_patterns_of_the_same_thickness_are_compared(tmp_path):
    path = stored(tmp_path / "a.zarr.zip")
    for a, b, common in (([2, 3], [3], [3]), ([1, 3], None, [1, 3])):
        found = compare(read_patterns(path, a), read_patterns(path, b))
        np.testing.assert_array_equal(found.layers, common)
        np.testing.assert_array_equal(found.change, 0)


def test_stores_without_a_common_layer_are_refused(tmp_path):
    path = stored(tmp_path / "a.zarr.zip")
    with pytest.raises(PacbedError, match=r"common to both: A has \[1\], B has \[2, 3\]"):
        compare(read_patterns(path, [1]), read_patterns(path, [2, 3]))


@pytest.mark.parametrize(
    ("detector", "described"),
    [
        (Detector((80, 60), (40, 20)), "40 × 20 pixels, kx -40 to 38 mrad, ky -30 to 27 mrad"),
        (Detector((70, 60), (40, 24)), "40 × 24 pixels, kx -35 to 33.25 mrad, ky -30 to 27.5 mrad"),
    ],
)
def test_patterns_on_different_detectors_are_refused_with_both_described(made, detector, described):
    told = f"A has 40 × 24 pixels, kx -40 to 38 mrad, ky -30 to 27.5 mrad; B has {described}"
    with pytest.raises(PacbedError, match=told):
        compare(made(), made(request=replace(REQUEST, detector=detector)))


# Whether they should be equal


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"deformation": Deformation(1.02, 1, 0)}, ["deformation.stretch_1 1.0 in A, 1.02 in B"]),
        ({"tilt_mrad": (0, 3.5)}, ["tilt_mrad [0, 0] in A, [0, 3.5] in B"]),
        ({"energy_keV": 60.0}, ["energy_keV 80.0 in A, 60.0 in B"]),
        ({"aperture": Aperture(10, 2)}, ["aperture.edge_mrad 0.0 in A, 2 in B"]),
        (
            {"thermal": ThermalMotion("coherent")},
            ["thermal motion frozen phonons in A, without diffuse scattering in B"],
        ),
        (
            {"thermal": ThermalMotion("none")},
            ["thermal motion frozen phonons in A, static atoms in B"],
        ),
        (
            {"tilt_mrad": (1, 0), "energy_keV": 60.0},
            ["tilt_mrad [0, 0] in A, [1, 0] in B", "energy_keV 80.0 in A, 60.0 in B"],
        ),
    ],
)
def test_what_was_simulated_differently_is_told_with_both_values(made, change, told):
    found = simulated_differently(made(), made(request=replace(REQUEST, **change)))
    # An undeformed stretch may be written 1 or 1.0.
    assert [line.replace(" 1 in A", " 1.0 in A") for line in found] == told


def test_another_material_is_told_constant_by_constant(made):
    found = simulated_differently(
        made(), made(request=replace(REQUEST, material=MATERIALS["WSe2"]))
    )
    assert "material.formula MoS2 in A, WSe2 in B" in found
    assert "material.rms_displacement_A.Mo 0.07535 in A, not there in B" in found


@pytest.mark.parametrize("motion", [2, "full"])
def test_how_it_was_computed_does_not_count(made, motion):
    other = replace(REQUEST, layers=2, seed=7, thermal=ThermalMotion(8))
    shaking = replace(REQUEST, thermal=ThermalMotion(motion))
    mine = made(request=shaking, settings={"band_limit": "converged"})
    theirs = made(request=other, engine="prismatic", settings={"probes": 16})
    assert simulated_differently(mine, theirs) == []


# How it looks


def on_figure(a, b, layers=(1, 3), field=40.0, names=("a", "b")):
    return compare_patterns(a, b, layers, field, names)


def panels(figure):
    return [axes for axes in figure.axes if axes.images]


def test_rows_are_thicknesses_and_columns_are_a_b_and_their_difference(made):
    grid = panels(on_figure(made(0.5 * humps()), made()))
    # Both patterns have one scale.
    for a, b in zip(grid[::3], grid[1::3], strict=True):
        assert a.images[0].get_clim() == b.images[0].get_clim() == (0, 1)
        [left_a, left_b] = [np.asarray(p.images[0].get_array())[:, :5] for p in (a, b)]
        np.testing.assert_allclose(left_a, 0.5 * left_b, rtol=1e-5)
    assert [axes.get_title() for axes in grid] == ["A", "B", "A − B", "", "", ""]
    assert [axes.get_ylabel().split("\n")[0] for axes in grid[::3]] == ["1 layer", "3 layers"]


def test_the_difference_is_in_percent_of_the_brightest_of_b_about_zero(made):
    patterns = humps()
    [_, _, panel] = panels(on_figure(made(with_moved(patterns, 0.002)), made(), [3], 60.0))
    shown = np.asarray(panel.images[0].get_array())
    expected = -100 * 0.002 * patterns[2].sum() / patterns[2].max()
    row, column = np.unravel_index(np.abs(shown).argmax(), shown.shape)
    assert shown[row, column] == pytest.approx(expected, rel=1e-3)
    left, right, bottom, top = panel.images[0].get_extent()
    assert left + (column + 0.5) * (right - left) / shown.shape[1] == pytest.approx(0, abs=1e-6)
    assert bottom + (row + 0.5) * (top - bottom) / shown.shape[0] == pytest.approx(0, abs=1e-6)
    low, high = panel.images[0].get_clim()
    assert high == -low == pytest.approx(-expected, rel=1e-3)
    assert panel.images[0].origin == "lower"


def test_all_panels_show_the_same_angles(made):
    for panel in panels(on_figure(made(), made(), field=30.0)):
        assert panel.get_xlim() == panel.get_ylim() == (-15, 15)


@pytest.mark.parametrize("field", [50.0, 60.0])
def test_no_panel_shows_angles_that_the_detector_does_not_have(made, field):
    for panel in panels(on_figure(made(), made(), field=field)):
        left, right, bottom, top = panel.images[0].get_extent()
        assert left <= panel.get_xlim()[0] < -24
        assert right >= panel.get_xlim()[1] > 24
        assert bottom <= panel.get_ylim()[0] < -24
        assert top >= panel.get_ylim()[1] > 24


def test_dollars_in_names_are_no_formulae(made, tmp_path):
    figure = on_figure(made(), made(), names=("$a_b.zip", "c_$d.zip"))
    save(figure, tmp_path / "compare.png")
    assert (tmp_path / "compare.png").stat().st_size > 10_000
    assert "$a_b.zip" in figure._suptitle.get_text()
    assert not figure._suptitle.get_parse_math()


# pacbed compare


@pytest.fixture
def two(tmp_path):
    """Two stores, the second of 2 layers."""
    noise = {"phonon_noise": [0.001, 0.0123, 0.05]}
    a = stored(tmp_path / "a.zarr.zip", with_moved(humps(), 0.0025), **noise)
    b = stored(tmp_path / "b.zarr.zip", request=replace(REQUEST, layers=2), engine="prismatic")
    return str(a), str(b)


def rows(printed):
    table = [line.split("│")[1:-1] for line in printed.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in row] for row in table]


def test_compare_prints_a_row_for_every_common_layer_and_draws(two, tmp_path, capsys):
    figure = tmp_path / "out" / "compare.png"
    assert main(["compare", *two, "--output", str(figure)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.splitlines()[:2] == [
        f"A: {two[0]}: engine planewave, phonon noise 1.2 % at 2 layers",
        f"B: {two[1]}: engine prismatic",
    ]
    assert rows(captured.out) == [
        ["1", "0.500", "0.500", "99.900", "99.900"],
        ["2", "0.500", "0.500", "99.800", "99.800"],
    ]
    assert captured.out.strip().splitlines()[-1] == str(figure)
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_compare_warns_in_one_line_of_what_was_simulated_differently(tmp_path, capsys):
    a = stored(tmp_path / "a.zarr.zip")
    other = replace(REQUEST, deformation=Deformation(1.02, 0.99, 0), tilt_mrad=(0, 2))
    b = stored(tmp_path / "b.zarr.zip", request=other)
    assert main(["compare", str(a), str(b), "--output", str(tmp_path / "c.png")]) == 0
    captured = capsys.readouterr()
    [line] = captured.err.strip().splitlines()
    assert line.startswith("warning: they differ in what was simulated: ")
    for part in ("1.02 in B", "0.99 in B", "[0, 2] in B"):
        assert part in line
    assert [row[1] for row in rows(captured.out)] == ["0.000"] * 3


def test_compare_draws_where_it_is_run_unless_told_otherwise(two, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert main(["compare", *two]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "compare.png"
    assert [p.name for p in folder.iterdir()] == ["compare.png"]


def test_compare_draws_the_layers_and_the_field_asked_for(two, tmp_path, monkeypatch):
    asked = []

    def drawn(a, b, layers, field, names):
        asked.append((list(layers), field))
        return compare_patterns(a, b, layers, field, names)

    monkeypatch.setattr("pacbed.figures.patterns.compare_patterns", drawn)
    output = ["--output", str(tmp_path / "c.png")]
    for options in ([], ["--layers", "2"], ["--fov", "30"]):
        assert main(["compare", *two, *options, *output]) == 0
    assert asked == [([1, 2], 60.0), ([2], 60.0), ([1, 2], 30.0)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layers", "2", "3"], "both stores have layers 1 to 2: [3]?"),
        (["--fov", "61"], "--fov must be between 0 and 60 mrad, not 61"),
        (["--fov", "0"], "--fov must be between 0 and 60 mrad, not 0"),
        (["--output", "{folder}/c.docx"], "cannot draw {folder}/c.docx"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(two, tmp_path, capsys, options, message):
    before = sorted(tmp_path.iterdir())
    output = ["--output", str(tmp_path / "c.png")]
    options = [o.format(folder=tmp_path) for o in options]
    assert main(["compare", *two, *output, *options]) == 1
    captured = capsys.readouterr()
    [line] = captured.err.strip().splitlines()
    assert f"error: {message.format(folder=tmp_path)}" in line
    assert captured.out == ""
    assert sorted(tmp_path.iterdir()) == before


def test_compare_names_a_store_that_is_not_there(two, tmp_path, capsys):
    assert main(["compare", two[0], str(tmp_path / "absent.zarr.zip")]) == 1
    assert "absent.zarr.zip does not exist" in capsys.readouterr().err


def test_compare_takes_a_store_that_does_not_say_what_was_asked_for(made):
    axis = REQUEST.detector
    bare = PatternStore(humps(), np.arange(1, 4), axis.kx_mrad, axis.ky_mrad, {})
    assert "energy_keV not there in A, 80.0 in B" in simulated_differently(bare, made())
    np.testing.assert_allclose(compare(bare, made()).change, 0, atol=1e-6)
