"""Figures of patterns: to scale, legible, and of equal bytes when drawn again."""

import errno
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from lettering import assert_filled, assert_legible
from matplotlib.figure import Figure

from pacbed.engines import SimulationRequest, ThermalMotion
from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.examples.augment import AugmentationSettings
from pacbed.examples.camera import CameraSettings
from pacbed.exceptions import PacbedError, RequestError
from pacbed.figures.patterns import (
    compare_patterns,
    crop,
    dose_gallery,
    draw_scale_bar,
    draw_split_pattern,
    show_patterns,
    strain_gallery,
    tilt_gallery,
    turned,
    undeformed_gallery,
)
from pacbed.figures.style import PAGE, PAGE_HEIGHT, SYMBOLS, save
from pacbed.patterns.store import PatternStore
from pacbed.specimen.crystal import MATERIALS
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture, Detector, wavelength_A
from pacbed.storage.zipped import plain

PIXEL_MRAD = 2.0


def store(pixels=48, layers=(1, 2, 5), spot=None, pixel_mrad=PIXEL_MRAD):
    """Patterns of a broad hump, or of a single bright pixel at angles `spot`."""
    axis = (np.arange(pixels) - pixels // 2) * pixel_mrad
    if spot is None:
        one = np.exp(-(axis[None, :] ** 2 + axis[:, None] ** 2) / 800)
    else:
        one = np.outer(axis == spot[1], axis == spot[0]).astype(float)
    patterns = np.stack([one] * len(layers)).astype(np.float32)
    return PatternStore(patterns, np.array(layers), axis, axis, {})


def drawn(one, field):
    axes = Figure().subplots()
    draw_split_pattern(axes, one, 1, field)
    return axes


def lines(axes):
    return {
        round(float(np.ptp(line.get_xdata())), 6): line
        for line in axes.lines
        if np.ptp(line.get_ydata()) == 0 and np.ptp(line.get_xdata()) > 0
    }


# Patterns


@pytest.mark.parametrize("pixels", [48, 49])
@pytest.mark.parametrize("field", [40.0, 60.0])
def test_a_crop_is_square_and_keeps_zero_angle_in_its_middle(pixels, field):
    one = store(pixels, spot=(0, 0))
    pattern, _ = crop(one, 1, field)
    n = pattern.shape[0]
    assert pattern.shape == (n, n)
    assert pattern[n // 2, n // 2] == 1
    assert n * PIXEL_MRAD == pytest.approx(field, abs=PIXEL_MRAD)


@pytest.mark.parametrize("field", [40.0, 60.0, 94.0, 96.0])
@pytest.mark.parametrize("spot", [(0.0, 0.0), (10.0, -6.0)])
def test_angles_are_to_scale(spot, field):
    axes = drawn(store(spot=spot), field)
    [image] = axes.images
    pattern = image.get_array()
    [[row, column]] = np.argwhere(pattern > 0.5)
    left, right, bottom, top = image.get_extent()
    x = left + (column + 0.5) * (right - left) / pattern.shape[1]
    y = bottom + (row + 0.5) * (top - bottom) / pattern.shape[0]
    assert (x, y) == pytest.approx(spot, abs=1e-6)
    assert image.origin == "lower"


def test_the_scale_bar_is_as_long_as_it_says():
    axes = drawn(store(), 80)
    draw_scale_bar(axes, 20, 80)
    assert [text.get_text() for text in axes.texts] == ["20 mrad"]
    x = lines(axes)[20].get_xdata()
    assert axes.get_xlim()[0] < x[0] < x[1] < axes.get_xlim()[1]


def test_the_left_half_is_linear_and_the_right_half_cube_root():
    one = store(49)
    pattern, _ = crop(one, 1, 90)
    [image] = drawn(one, 90).images
    shown, middle = np.asarray(image.get_array()), pattern.shape[1] // 2
    np.testing.assert_allclose(shown[:, :middle], pattern[:, :middle] / pattern.max(), rtol=1e-5)
    np.testing.assert_allclose(
        shown[:, middle + 1 :] ** 3, pattern[:, middle + 1 :] / pattern.max(), rtol=1e-4
    )
    assert image.get_clim() == (0, 1)


def test_there_is_a_panel_for_every_thickness_that_is_asked_for_and_it_shows_it():
    one = store(layers=(1, 2, 5))
    one.patterns[2, 0, 0] = 3
    for figure in (show_patterns(one, [1, 5], 200), undeformed_gallery({6.35: one}, [1, 5], 200)):
        names = [axes.get_title() or axes.get_ylabel() for axes in figure.axes]
        assert [name.replace("6.35 mrad", "1 layer") for name in names] == ["1 layer", "5 layers"]
        assert sum(bool(20 in lines(axes) or lines(axes)) for axes in figure.axes) == 1
        brightest = [
            np.unravel_index(np.argmax(axes.images[0].get_array()), (48, 48))
            for axes in figure.axes
        ]
        assert brightest == [(24, 24), (0, 0)]


def test_figure_1_has_thicknesses_as_rows_and_semiangles_as_columns():
    stores = {6.35: store(), 18.13: store(), 32.94: store()}
    figure = undeformed_gallery(stores, [1, 5], 80)
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 6
    assert [axes.get_title() for axes in panels[:3]] == ["6.35 mrad", "18.13 mrad", "32.94 mrad"]
    assert [axes.get_ylabel() for axes in panels[::3]] == ["1 layer", "5 layers"]
    words = [[text.get_text() for text in axes.texts] for axes in panels]
    assert words[3] == ["20 mrad"]
    assert words[5] == ["left half: linear,\nright half: cube root"]
    assert words[:3] + words[4:5] == [[]] * 4
    [bar] = panels[-1].child_axes  # explains the colours
    assert [text.get_text() for text in bar.texts] == ["0", "max"]
    assert {c.get_cmap().name for c in bar.collections if c.get_array() is not None} == {
        panels[-1].images[0].get_cmap().name
    }


# Strain


LAMBDA_A = wavelength_A(80)
SEMIANGLES = (3.0, 5.0)
STATES = {
    "undeformed": (Deformation(), (0.0, 0.0)),
    "gallery_strain_xx": (Deformation.from_strain(0.1, 0, 0), (0.0, 0.0)),
    "gallery_strain_yy": (Deformation.from_strain(0, -0.1, 0), (0.0, 0.0)),
    "gallery_strain_xy": (Deformation.from_strain(0, 0, 0.06), (0.0, 0.0)),
    "gallery_tilt_x": (Deformation(), (4.5, 0.0)),
    "gallery_tilt_y": (Deformation(), (0.0, -3.0)),
    "gallery_tilt_xy": (Deformation(), (5.0, 2.0)),
}


def asked(state, semiangle):
    deformation, tilt = STATES[state]
    return SimulationRequest(
        MATERIALS["MoS2"],
        deformation,
        tilt,
        2,
        80.0,
        Aperture(semiangle),
        Detector((90, 90), (180, 180)),
        ThermalMotion("coherent"),
    )


@pytest.fixture(scope="module")
def simulated():
    """Patterns of all states at two semi-angles."""
    engine = PlaneWaveEngine(PlaneWaveSettings(incident_step_mrad=2))
    stores = {state: {} for state in STATES}
    for state in STATES:
        requests = [asked(state, semiangle) for semiangle in SEMIANGLES]
        for one, result in zip(requests, engine.simulate_together(requests), strict=True):
            axes = one.detector.kx_mrad, one.detector.ky_mrad
            stores[state][one.aperture.semiangle_mrad] = PatternStore(
                result.patterns, np.array([1, 2]), *axes, {"request": plain(one.to_dict())}
            )
    return stores


@pytest.fixture(scope="module")
def strained(simulated):
    return strain_gallery(simulated, 1, 60)


@pytest.fixture(scope="module")
def tilted(simulated):
    return tilt_gallery(simulated, 2, 60)


def rows_of(figure, columns=5):
    """The drawings, and the panels with patterns."""
    grid = np.array(figure.axes).reshape(-1, columns)
    return grid[0], grid[1:]


def drawn_cell(panel):
    """Vectors of the deformed cell in a drawing, as rows."""
    [outline] = [p for p in panel.patches if p.get_label() == "deformed cell"]
    corners = outline.get_xy()
    return np.array([corners[1] - corners[0], corners[3] - corners[0]])


@pytest.mark.parametrize("column", range(5))
@pytest.mark.parametrize("order", [(1, 1), (-1, 1), (2, 0), (0, 2)])
def test_discs_lie_on_the_reciprocal_lattice_of_the_cell_that_is_drawn_above(
    strained, column, order
):
    drawings, patterns = rows_of(strained)
    expected = 1e3 * LAMBDA_A * np.array(order) @ np.linalg.inv(drawn_cell(drawings[column])).T
    [image] = patterns[0, column].images
    shown = np.asarray(image.get_array()) ** 3
    left, right, bottom, top = image.get_extent()
    n = len(shown)
    x, y = (a + (np.arange(n) + 0.5) * (b - a) / n for a, b in ((left, right), (bottom, top)))
    near = np.hypot(x - expected[0], y[:, None] - expected[1]) < 4
    disc = shown * near
    centre = np.array([(disc * x).sum(), (disc * y[:, None]).sum()]) / disc.sum()
    np.testing.assert_allclose(centre, expected, atol=0.1)


def test_a_pattern_turned_by_a_right_angle_is_exact():
    one = store(49, spot=(10.0, -6.0))
    pattern, extent = turned(one, 1, 60, 90)
    straight, same = crop(one, 1, 60)
    assert extent == pytest.approx(same)
    assert pattern.shape == straight.shape
    [[row, column]] = np.argwhere(pattern > 0.5)
    pixel = (extent[1] - extent[0]) / len(pattern)
    assert extent[0] + (column + 0.5) * pixel == pytest.approx(6)
    assert extent[2] + (row + 0.5) * pixel == pytest.approx(10)


@pytest.mark.parametrize("pixels", [48, 49])
def test_a_pattern_that_is_not_turned_is_as_cut(pixels):
    found, expected = turned(store(pixels), 1, 60, 0), crop(store(pixels), 1, 60)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    assert found[1] == pytest.approx(expected[1])


def test_strains_and_rotation_are_those_of_the_requests(strained):
    drawings, _ = rows_of(strained)
    expected = [(0, 0, 0, 0), (10, 0, 0, 0), (0, "−10", 0, 0), (0, 0, 6, 0), (0, 0, 0, 15)]
    for panel, values in zip(drawings, expected, strict=True):
        words = panel.get_xlabel()
        for symbol, value in zip(SYMBOLS.values(), values[:3], strict=False):
            assert f"{symbol} = {value} %" in words
        assert words.endswith(f"= {values[3]}°")


def test_the_cell_has_metal_and_chalcogen_where_the_crystal_has_them(strained):
    panel = strained.axes[0]
    metal, chalcogen = ({tuple(p) for p in one.get_offsets().round(3)} for one in panel.collections)
    a, b = 3.1613, 5.4755
    corners = {(x, y) for x in (-a / 2, a / 2) for y in (-b / 2, b / 2)}
    assert chalcogen == {tuple(np.round(p, 3)) for p in corners} | {(0, 0)}
    assert metal == {
        tuple(np.round(p, 3)) for p in ((-a / 2, -b / 6), (a / 2, -b / 6), (0.0, b / 3))
    }
    assert [one.get_label() for one in panel.collections] == ["Mo", "S"]
    [legend] = panel.figure.legends
    words = {text.get_text() for text in legend.get_texts()}
    assert words == {"original cell", "deformed cell", "Mo", "S"}


def test_all_cells_are_drawn_to_one_scale_over_the_original(strained):
    drawings, _ = rows_of(strained)
    seen = [(*p.get_xlim(), *p.get_ylim(), *p.bbox.size) for p in drawings]
    np.testing.assert_allclose(seen, [seen[0]] * 5)
    for panel in drawings:
        assert panel.bbox.width / panel.bbox.height == pytest.approx(
            np.ptp(panel.get_xlim()) / np.ptp(panel.get_ylim())
        )
        [original] = [p for p in panel.patches if p.get_label() == "original cell"]
        assert np.ptp(original.get_xy(), axis=0) == pytest.approx([3.1613, 5.4755])


def test_a_thickness_that_is_missing_is_named(simulated):
    for draw in (strain_gallery, tilt_gallery):
        with pytest.raises(RequestError, match="the patterns have 1, 2 layers, not 10"):
            draw(simulated, 10, 60)


# Tilt


def test_tilts_are_those_of_the_requests_and_the_last_is_of_the_thin_sample(tilted):
    drawings, _ = rows_of(tilted)
    words = [panel.get_xlabel() for panel in drawings]
    expected = [(0, 0), (4.5, 0), (0, "−3"), (5, 2), (5, 2)]
    phi_x, phi_y = (SYMBOLS[p] for p in ("tilt_x_mrad", "tilt_y_mrad"))
    assert words == [f"{phi_x} = {x}, {phi_y} = {y} mrad" for x, y in expected]
    titles = [panel.get_title(loc="left") for panel in drawings]
    assert titles == [*(f"({letter}) 2 layers" for letter in "abcd"), "(e) 1 layer"]
    arrows = [[a.xy for a in panel.texts if a.get_text() == ""] for panel in drawings]
    assert arrows == [[], [(4.5, 0)], [(0, -3)], [(5, 2)], [(5, 2)]]


def test_tilted_patterns_are_of_the_state_and_thickness_named(tilted, simulated):
    _, patterns = rows_of(tilted)
    for row, semiangle in zip(patterns, SEMIANGLES, strict=True):
        states = ["undeformed", "gallery_tilt_x", "gallery_tilt_y", *["gallery_tilt_xy"] * 2]
        for panel, state, layers in zip(row, states, (2, 2, 2, 2, 1), strict=True):
            pattern, _ = crop(simulated[state][semiangle], layers, 60)
            np.testing.assert_allclose(
                np.asarray(panel.images[0].get_array()) ** 3,
                np.maximum(pattern, 0) / pattern.max(),
                atol=1e-5,
            )


def test_galleries_have_semiangles_as_rows_and_one_scale_bar(strained, tilted):
    for gallery in (strained, tilted):
        _, patterns = rows_of(gallery)
        assert [row[0].get_ylabel() for row in patterns] == ["3 mrad", "5 mrad"]
        bars = np.array([[20 in lines(panel) for panel in row] for row in patterns])
        assert bars[-1, 0]
        assert bars.sum() == 1


# Dose


def augmentation(noise="lognormal", electrons=(1e4, 1e7)):
    return AugmentationSettings(48, 80, 0.02, (-10, 10), 1, noise, electrons, (0.2, 0.3))


def dose_image(figure):
    return np.asarray(figure.axes[0].images[0].get_array()) ** 3


@pytest.mark.parametrize("noise", ["lognormal", "poisson"])
def test_the_left_half_has_more_noise_than_the_right_and_both_one_brightness(noise):
    one = store(64, pixel_mrad=1.5)
    noisy = dose_image(dose_gallery({6.35: one}, 5, augmentation(noise), 1))
    clean = dose_image(dose_gallery({6.35: one}, 5, augmentation(noise, (1e12, 1e12)), 1))
    few, many = np.abs(noisy / clean - 1)[:, :24], np.abs(noisy / clean - 1)[:, 24:]
    assert few.mean() > 5 * many.mean()
    assert noisy[:, :24].mean() == pytest.approx(clean[:, :24].mean(), rel=0.1)


def test_figure_4_shows_the_camera():
    camera = CameraSettings(beam_stop_mrad=(4, 8), dead_pixels=(0.1, 0.1))
    settings = augmentation(electrons=(1e9, 1e9))
    make = partial(dose_gallery, {6.35: store(64, pixel_mrad=1.5)}, 5)
    perfect, shown = (
        dose_image(make(one, 1)) for one in (settings, replace(settings, camera=camera))
    )
    axis = (np.arange(48) - 24) * settings.pixel_mrad
    behind = np.hypot(axis, axis[:, None]) < 6
    assert shown[behind].max() == 0 < perfect[behind].min()
    assert (shown[~behind] == 0).mean() == pytest.approx(0.1, abs=0.03)


def test_the_doses_are_named_and_the_noise_is_that_of_the_seed():
    make = partial(dose_gallery, {6.35: store(), 12.65: store()}, 5, augmentation())
    first = make(7)
    words = [[t.get_text() for t in axes.texts] for axes in first.axes]
    doses = ["$10^{4}$ electrons", "$10^{7}$ electrons"]
    assert words == [[*doses, "20 mrad"], [*doses, "cube root of the intensity"]]
    titles = [axes.get_title() for axes in first.axes]
    assert titles == ["6.35 mrad, 5 layers", "12.65 mrad, 5 layers"]
    np.testing.assert_array_equal(dose_image(make(7)), dose_image(first))
    assert (dose_image(make(8)) != dose_image(first)).any()


def test_figure_4_is_to_scale_and_writes_any_dose():
    figure = dose_gallery({6.35: store()}, 5, augmentation(electrons=(2.5e6, 5e7)), 1)
    words = [t.get_text() for t in figure.axes[0].texts]
    assert r"$2.5\times10^{6}$ electrons" in words
    assert r"$5\times10^{7}$ electrons" in words
    assert 20 in lines(figure.axes[0])
    assert np.ptp(figure.axes[0].images[0].get_extent()[:2]) == pytest.approx(80)


# Legibility


STORES = {a: store() for a in (6.35, 12.65, 18.13, 25.44, 32.94)}
FIGURES = {
    "1, one": lambda _: undeformed_gallery({6.35: store()}, [1], 80),
    "1, paper": lambda _: undeformed_gallery(STORES, [1, 2, 5] * 2 + [1, 2], 80),
    "2": lambda simulated: strain_gallery(simulated, 1, 60),
    "3": lambda simulated: tilt_gallery(simulated, 1, 60),
    "compare": lambda _: compare_patterns(
        store(), store(spot=(0, 0)), [1, 2, 5], 58, ("a.zarr.zip", f"{'long' * 50}.zarr.zip")
    ),
    "4, one": lambda _: dose_gallery({6.35: store()}, 5, augmentation(), 1),
    "4, five": lambda _: dose_gallery(STORES, 5, augmentation(), 1),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_legible_and_fit_a_page(name, simulated):
    figure = FIGURES[name](simulated)
    assert_legible(figure)
    assert_filled(figure)
    width, height = figure.get_size_inches()
    assert width <= PAGE + 1e-6
    assert height <= PAGE_HEIGHT + 1e-6


# Files


@pytest.mark.parametrize(("name", "kind"), [("2", "png"), ("compare", "png"), ("4, one", "pdf")])
def test_a_figure_that_is_drawn_again_has_the_same_bytes(tmp_path, simulated, name, kind):
    first, again = tmp_path / f"first.{kind}", tmp_path / f"again.{kind}"
    save(FIGURES[name](simulated), first)
    save(FIGURES[name](simulated), again)
    assert first.stat().st_size > 5000
    assert first.read_bytes() == again.read_bytes()


def test_a_figure_is_saved_under_all_names_and_leaves_nothing_else(tmp_path):
    paths = [tmp_path / "new" / name for name in ("fig.png", "fig.pdf", "other.PDF")]
    save(drawn(store(), 80).figure, *paths)
    assert set((tmp_path / "new").iterdir()) == set(paths)
    written = [path.read_bytes() for path in paths]
    assert [content[:4] for content in written] == [b"\x89PNG", b"%PDF", b"%PDF"]
    assert written[1] == written[2]


def test_an_unknown_format_is_named(tmp_path):
    with pytest.raises(RequestError, match=r"fig\.xyz"):
        save(drawn(store(), 80).figure, tmp_path / "fig.xyz")
    assert list(tmp_path.iterdir()) == []


def test_a_figure_on_a_read_only_disk_is_one_message(tmp_path, monkeypatch):
    """There even removing a file that does not exist fails."""

    def read_only(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "write_bytes", read_only)
    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(PacbedError, match=r"^cannot write .*fig\.png: Read-only file system$"):
        save(drawn(store(), 80).figure, tmp_path / "fig.png")
