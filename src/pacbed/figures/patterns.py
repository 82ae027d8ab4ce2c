"""Figures of patterns, from pattern stores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pacbed.examples.augment import (
    DARK,
    AugmentationSettings,
    average_over_pixels,
    reaching_camera,
    read_out,
    record,
    resample,
)
from pacbed.examples.camera import CameraSettings
from pacbed.exceptions import RequestError
from pacbed.figures.cell import deformed_cell_A, draw_cell, draw_directions, draw_tilt
from pacbed.figures.style import PAGE, PAGE_HEIGHT, SYMBOLS, layers_label, nice_length, paper_style
from pacbed.patterns.store import PatternStore
from pacbed.scattering.image import Camera
from pacbed.seeding import stream
from pacbed.specimen.crystal import crystal_of
from pacbed.specimen.deformation import Deformation

Extent = tuple[float, float, float, float]
"""Edges of the outer pixels (left, right, bottom, top) in mrad."""

SCALE_BAR_mrad = 20
UNDEFORMED = "undeformed"
STRAINED = ("gallery_strain_xx", "gallery_strain_yy", "gallery_strain_xy")
TILTED = ("gallery_tilt_x", "gallery_tilt_y", "gallery_tilt_xy")


def crop(store: PatternStore, layers: int, field_mrad: float) -> tuple[np.ndarray, Extent]:
    """Cut the pixels of the pattern of some layers that a central square field shows in part.

    Returns
    -------
    tuple
        The pattern, shape (ny, nx), and the edges of its outer pixels (left, right, bottom, top)
        in mrad.
    """
    edges, chosen = [], []
    for axis in (store.kx_mrad, store.ky_mrad):
        pixel = (axis[-1] - axis[0]) / (len(axis) - 1)
        inside = np.flatnonzero(np.abs(axis) < (field_mrad + pixel) / 2)
        chosen.append(inside)
        edges += [axis[inside[0]] - pixel / 2, axis[inside[-1]] + pixel / 2]
    x, y = chosen
    left, right, bottom, top = (float(e) for e in edges)
    return _pattern(store, layers)[np.ix_(y, x)], (left, right, bottom, top)


def _pattern(store: PatternStore, layers: int) -> np.ndarray:
    available = store.layers.tolist()
    if layers not in available:
        raise RequestError(
            f"the patterns have {', '.join(map(str, available))} layers, not {layers}"
        )
    return store.patterns[available.index(layers)]


def draw_split_pattern(
    axes: Axes,
    store: PatternStore,
    layers: int,
    field_mrad: float,
    brightest: float | None = None,
) -> None:
    """Draw a pattern, left half on a linear and right half on a cube-root intensity scale.

    The scales end at the brightest value given, or at that of the pattern.
    """
    pattern, extent = crop(store, layers, field_mrad)
    pattern = np.maximum(pattern, 0) / (pattern.max() if brightest is None else brightest)
    shown = pattern.copy()
    # The half-scales meet at zero angle, the middle of pixel n // 2 of the store.
    middle = round(-extent[0] / (extent[1] - extent[0]) * pattern.shape[1] - 0.5)
    shown[:, middle:] = np.cbrt(shown[:, middle:])
    _show(axes, shown, extent, field_mrad)
    axes.axvline(0, color="white", lw=0.4, alpha=0.6)


def _show(axes: Axes, shown: np.ndarray, extent: Extent, field_mrad: float) -> None:
    """Draw a pattern of values from 0 to 1."""
    half = field_mrad / 2
    axes.imshow(shown, origin="lower", extent=extent, vmin=0, vmax=1, interpolation="nearest")
    axes.set(xlim=(-half, half), ylim=(-half, half), xticks=[], yticks=[])
    axes.set_facecolor("black")  # on one side a store ends half a pixel short of the field


def draw_scale_bar(axes: Axes, length_mrad: float, field_mrad: float) -> None:
    """Draw a scale bar in the lower left corner of a pattern."""
    half = field_mrad / 2
    left, bottom = -0.92 * half, -0.88 * half
    ends = [left, left + length_mrad]
    # Other caps would make it longer than it says.
    axes.plot(ends, [bottom, bottom], color="white", lw=2, solid_capstyle="butt")
    words = f"{length_mrad:g} mrad"
    axes.text(left, bottom + 0.05 * half, words, color="white", va="bottom", fontsize=6)


def _square_panels(
    rows: int,
    columns: int,
    size: float,
    *,
    left: float = 0.22,
    top: float = 0.25,
    bottom: float = 0.4,
    between: tuple[float, float] = (0.06, 0.06),
    drawing: float = 0.0,
    words: float = 0.0,
) -> tuple[Figure, np.ndarray]:
    """Make a figure of square panels, all lengths in inches.

    Parameters
    ----------
    size
        Edge of a panel.
    left, top, bottom
        Room for words around the panels.
    between
        Gaps between columns and between rows.
    drawing, words
        Height of a further row above the others, and of the room for words below it.

    Returns
    -------
    tuple
        The figure, and its axes of shape (rows, columns), with a further row if one is wanted.
    """
    step_x, step_y = (size + gap for gap in between)
    width = left + columns * step_x
    height = bottom + rows * step_y - between[1] + drawing + words + top
    figure = Figure(figsize=(width, height))
    edges = [(bottom + (rows - 1 - row) * step_y, size) for row in range(rows)]
    if drawing:
        edges.insert(0, (height - top - drawing, drawing))
    grid = [
        [
            figure.add_axes(((left + n * step_x) / width, y / height, size / width, tall / height))
            for n in range(columns)
        ]
        for y, tall in edges
    ]
    return figure, np.array(grid)


def _intensity_bar(panel: Axes, note: str) -> None:
    """Draw the colours from no to most intensity below a panel, with a note below them."""
    inch = panel.figure.dpi / panel.bbox.height
    below = panel.inset_axes((0.1, -0.13 * inch, 0.65, 0.07 * inch))
    bar = panel.figure.colorbar(ScalarMappable(), cax=below, orientation="horizontal", ticks=[])
    bar.outline.set_linewidth(0.4)
    for x, side, text in ((-0.04, "right", "0"), (1.04, "left", "max")):
        below.text(x, 0.5, text, fontsize=6, ha=side, va="center", transform=below.transAxes)
    panel.text(1, -0.17 * inch, note, fontsize=6, ha="right", va="top", transform=panel.transAxes)


def show_patterns(store: PatternStore, layers: Sequence[int], field_mrad: float) -> Figure:
    """Draw the patterns of one store, one panel per thickness."""
    columns = min(5, len(layers))
    rows = math.ceil(len(layers) / columns)
    with paper_style():
        figure = Figure(figsize=(1.9 * columns, 2.1 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, layer in zip(axes, layers, strict=False):
            draw_split_pattern(panel, store, layer, field_mrad)
            panel.set_title(layers_label(layer))
        draw_scale_bar(axes[0], nice_length(field_mrad / 4), field_mrad)
        for panel in axes[len(layers) :]:
            panel.set_axis_off()
        figure.suptitle("left half linear, right half cube-root intensity", fontsize=7)
    return figure


def compare_patterns(
    a: PatternStore,
    b: PatternStore,
    layers: Sequence[int],
    field_mrad: float,
    names: tuple[str, str],
) -> Figure:
    """Draw the patterns of two stores and their difference, one row per thickness.

    Parameters
    ----------
    a, b
        Stores of one detector.
    layers
        Thicknesses, in both stores.
    field_mrad
        Width to show in mrad.
    names
        What to call the stores.
    """
    half = field_mrad / 2
    with paper_style():
        figure = Figure(figsize=(PAGE, 2 * len(layers) + 1), layout="constrained")
        grid = figure.subplots(len(layers), 3, squeeze=False, sharex=True, sharey=True)
        for row, layer in zip(grid, layers, strict=True):
            shown_a, extent = crop(a, layer, field_mrad)
            shown_b, _ = crop(b, layer, field_mrad)
            brightest = max(shown_a.max(), shown_b.max())
            draw_split_pattern(row[0], a, layer, field_mrad, brightest)
            draw_split_pattern(row[1], b, layer, field_mrad, brightest)
            difference = (shown_a - shown_b) / shown_b.max()
            _draw_difference(row[2], difference, extent, "% of the brightest of B")
            row[0].set_ylabel(f"{layers_label(layer)}\n$k_y$ (mrad)")
        for panel, title in zip(grid[0], ("A", "B", "A − B"), strict=True):
            panel.set_title(title)
        for panel in grid[-1]:
            panel.set_xlabel("$k_x$ (mrad)")
        for panel in grid.ravel():
            panel.tick_params(direction="out")  # inside they would be black on black
        # All panels share these; drawing a pattern takes the ticks away. A field of the detector's
        # width would show half a pixel on one side that is not there.
        panel, (left, right, bottom, top) = grid[0, 0], np.clip(extent, -half, half)
        panel.set(xlim=(left, right), ylim=(bottom, top))
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], prune="both"))
        lines = [f"{letter}: {_end(name)}" for letter, name in zip("AB", names, strict=True)]
        lines.append("A and B: left half linear, right half cube-root intensity, one scale per row")
        figure.suptitle("\n".join(lines), fontsize=7, parse_math=False)
    return figure


def _draw_difference(axes: Axes, difference: np.ndarray, extent: Extent, label: str) -> None:
    percent = 100 * difference
    # A few pixels on the edges of discs must not hide the rest; equal patterns need a scale too.
    size = np.abs(percent)
    limit = float(np.quantile(size, 0.998)) or float(size.max()) or 1.0
    look: dict[str, Any] = {"cmap": "RdBu_r", "interpolation": "nearest", "origin": "lower"}
    image = axes.imshow(percent, extent=extent, vmin=-limit, vmax=limit, **look)
    beside = axes.inset_axes((1.04, 0, 0.05, 1))
    ticks = nice_length(0.9 * limit) * np.linspace(-1, 1, 5)
    bar = axes.figure.colorbar(image, cax=beside, ticks=ticks, format="{x:g}", extend="both")
    bar.set_label(label)


def _end(text: str, most: int = 100) -> str:
    """Shorten a long text, such as a path, to its end."""
    return text if len(text) <= most else f"…{text[1 - most :]}"


def undeformed_gallery(
    stores: Mapping[float, PatternStore], layers: Sequence[int], field_mrad: float
) -> Figure:
    """Draw Fig. 1: undeformed patterns for every thickness (rows) and semi-angle (columns)."""
    rows, columns, between = len(layers), len(stores), 0.06
    with paper_style():
        size = min((PAGE - 0.22) / max(5, columns) - between, (PAGE_HEIGHT - 0.65) / rows - between)
        figure, grid = _square_panels(rows, columns, size)
        for column, (semiangle, store) in zip(grid.T, stores.items(), strict=True):
            for panel, layer in zip(column, layers, strict=True):
                draw_split_pattern(panel, store, layer, field_mrad)
            column[0].set_title(f"{semiangle:g} mrad")
        for panel, layer in zip(grid[:, 0], layers, strict=True):
            panel.set_ylabel(layers_label(layer))
        draw_scale_bar(grid[-1, 0], SCALE_BAR_mrad, field_mrad)
        _intensity_bar(grid[-1, -1], "left half: linear,\nright half: cube root")
    return figure


def turned(
    store: PatternStore, layers: int, field_mrad: float, rotation_deg: float
) -> tuple[np.ndarray, Extent]:
    """Cut a central square field of the pattern of some layers, rotated counter-clockwise.

    Returns
    -------
    tuple
        As of :func:`crop`; where the store has no pixels it is zero.
    """
    pixel_y = store.pixel_mrad[1]
    pixels = len(crop(store, layers, field_mrad)[0])
    edge, middle = pixels * pixel_y, pixels // 2 + 0.5
    camera = Camera(pixels, edge, rotation_deg)
    pattern = resample(_pattern(store, layers), store.pixel_mrad, camera)
    ends = -middle * pixel_y, (pixels - middle) * pixel_y
    return pattern, (*ends, *ends)


Stores = Mapping[str, Mapping[float, PatternStore]]
"""Stores of states that belong to no set, by name of the state and semi-angle in mrad."""

ROTATION_deg = 15.0
"""Rotation in the last column of Fig. 2, of the undeformed pattern, counter-clockwise."""


def strain_gallery(stores: Stores, layer: int, field_mrad: float) -> Figure:
    """Draw Fig. 2: cells and patterns without deformation, strained, and rotated.

    The cube root of the intensity is shown. Strains are those of the requests in the stores.

    Parameters
    ----------
    stores
        The states ``undeformed``, ``gallery_strain_xx``, ``gallery_strain_yy`` and
        ``gallery_strain_xy``, each at all semi-angles.
    layer
        Thickness to show.
    field_mrad
        Width to show in mrad.

    Raises
    ------
    RequestError
        If the thickness is missing.
    """
    states = (UNDEFORMED, *STRAINED, UNDEFORMED)
    rotations = (0.0, 0.0, 0.0, 0.0, ROTATION_deg)
    requests = [_request(stores, state) for state in states]
    crystals = [crystal_of(r["material"]) for r in requests]
    deformations = [Deformation(**r["deformation"]) for r in requests]
    changes = list(zip(crystals, deformations, rotations, strict=True))
    corners = np.array([np.abs(deformed_cell_A(*change)).sum(axis=0) / 2 for change in changes])

    def draw_above(panel: Axes, column: int) -> None:
        # An oblique cell may be wider than high.
        shape = panel.bbox.height / panel.bbox.width
        height_A = max(2 * corners[:, 1].max() + 1.3, shape * (2 * corners[:, 0].max() + 0.8))
        draw_cell(panel, *changes[column], height_A=height_A)
        panel.set_title(f"({'abcde'[column]})", loc="left")
        panel.set_xlabel(_described(*changes[column][1:]), fontsize=7)

    with paper_style():
        figure, grid = _gallery(
            stores,
            list(zip(states, [layer] * 5, rotations, strict=True)),
            field_mrad,
            f"{layers_label(layer)}, cube root",
            draw_above,
            drawing=1.85,
            words=0.42,
            top=0.5,
        )
        draw_directions(grid[0, 0], crystals[0].axes)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper center", ncols=4)
    return figure


def tilt_gallery(stores: Stores, layer: int, field_mrad: float, thin: int = 1) -> Figure:
    """Draw Fig. 3: patterns of tilted samples, and of a thin one with the last of the tilts.

    The cube root of the intensity is shown. Tilts are those of the requests in the stores.

    Parameters
    ----------
    stores
        The states ``undeformed``, ``gallery_tilt_x``, ``gallery_tilt_y`` and ``gallery_tilt_xy``,
        each at all semi-angles.
    layer, thin
        Thickness to show, and that of the last column.
    field_mrad
        Width to show in mrad.

    Raises
    ------
    RequestError
        If a thickness is missing.
    """
    states = (UNDEFORMED, *TILTED, TILTED[-1])
    layers = (layer,) * 4 + (thin,)
    tilts = [tuple(_request(stores, state)["tilt_mrad"]) for state in states]
    largest = max(abs(angle) for tilt in tilts for angle in tilt)

    def draw_above(panel: Axes, column: int) -> None:
        draw_tilt(panel, tilts[column], largest)
        panel.set_title(f"({'abcde'[column]}) {layers_label(layers[column])}", loc="left")
        x, y = map(_number, tilts[column])
        panel.set_xlabel(
            f"{SYMBOLS['tilt_x_mrad']} = {x}, {SYMBOLS['tilt_y_mrad']} = {y} mrad", fontsize=7
        )

    with paper_style():
        figure, _ = _gallery(
            stores,
            list(zip(states, layers, [0.0] * 5, strict=True)),
            field_mrad,
            "cube root of the intensity",
            draw_above,
            drawing=0.9,
            words=0.25,
        )
    return figure


def _gallery(
    stores: Stores,
    columns: Sequence[tuple[str, int, float]],
    field_mrad: float,
    note: str,
    draw_above: Callable[[Axes, int], None],
    **room: Any,
) -> tuple[Figure, np.ndarray]:
    """Draw patterns, a row per semi-angle, below a row of drawings, as wide as a page.

    Columns are state, thickness and rotation in degrees; `room` is that of `_square_panels`.
    """
    size = (PAGE - 0.22) / len(columns) - 0.06
    semiangles = list(stores[UNDEFORMED])
    figure, grid = _square_panels(len(semiangles), len(columns), size, **room)
    for column, (state, layer, rotation_deg) in enumerate(columns):
        draw_above(grid[0, column], column)
        for panel, semiangle in zip(grid[1:, column], semiangles, strict=True):
            pattern, extent = turned(stores[state][semiangle], layer, field_mrad, rotation_deg)
            _show(panel, np.cbrt(np.maximum(pattern, 0) / pattern.max()), extent, field_mrad)
    for panel, semiangle in zip(grid[1:, 0], semiangles, strict=True):
        panel.set_ylabel(f"{semiangle:g} mrad")
    draw_scale_bar(grid[-1, 0], SCALE_BAR_mrad, field_mrad)
    _intensity_bar(grid[-1, -1], note)
    return figure, grid


def _request(stores: Stores, state: str) -> Mapping[str, Any]:
    """Return the request of a state, which is the same at all semi-angles but for the aperture."""
    request: Mapping[str, Any] = next(iter(stores[state].values())).attributes["request"]
    return request


def _described(deformation: Deformation, rotation_deg: float) -> str:
    """Write the strains and the rotation as formulae, in two lines."""
    strain = zip(SYMBOLS.values(), 100 * deformation.strain[[0, 1, 0], [0, 1, 1]], strict=False)
    xx, yy, xy = (f"{symbol} = {_number(percent)} %" for symbol, percent in strain)
    return f"{xx}, {yy}\n{xy}, {SYMBOLS['rotation_deg']} = {rotation_deg:g}°"


def _number(value: float) -> str:
    """Write a number, without a sign where it is zero but for floating-point dust."""
    return f"{round(value, 6) + 0.0:.3g}".replace("-", "−")


def dose_gallery(
    stores: Mapping[float, PatternStore],
    layer: int,
    settings: AugmentationSettings,
    seed: int,
) -> Figure:
    """Draw Fig. 4: undeformed patterns as recorded with the fewest and with the most electrons.

    The left half of a panel has the lower end of the range of electrons, the right half the upper
    one. Both are images of one mean, of which the cube root is shown.

    Parameters
    ----------
    stores
        Undeformed patterns by semi-angle in mrad.
    layer
        Thickness to show.
    settings
        Pixels, field of view, noise, electrons and camera of the examples; of the camera the middle
        of its ranges is shown.
    seed
        Seed of the noise.

    Raises
    ------
    RequestError
        If the thickness is missing.
    """
    columns = min(3, len(stores))
    field, pixel = settings.field_of_view_mrad, settings.pixel_mrad
    middle = settings.pixels // 2
    ends = -(middle + 0.5) * pixel, (settings.pixels - middle - 0.5) * pixel
    with paper_style():
        size = (PAGE - 0.05) / 3 - 0.1
        rows = math.ceil(len(stores) / columns)
        figure, grid = _square_panels(rows, columns, size, left=0.05, between=(0.1, 0.3))
        panels = grid.ravel()
        for panel, (semiangle, store) in zip(panels, stores.items(), strict=False):
            few, many = _recorded(store, layer, semiangle, settings, seed)
            image = np.where(np.arange(settings.pixels) < middle, few, many)
            # Single bright pixels of few electrons must not darken the rest.
            shown = np.cbrt(np.clip(image / many.max(), 0, 1))
            _show(panel, shown, (*ends, *ends), field)
            panel.axvline(0, color="white", lw=0.4, alpha=0.6)
            panel.set(xlim=ends, ylim=ends)
            panel.set_title(f"{semiangle:g} mrad, {layers_label(layer)}")
            look: dict[str, Any] = {"color": "white", "fontsize": 7, "ha": "center", "va": "top"}
            for x, electrons in zip((0.25, 0.75), settings.electrons, strict=True):
                words = f"{_power(electrons)} electrons"
                panel.text(x, 0.97, words, transform=panel.transAxes, **look)
        for panel in panels[len(stores) :]:
            panel.set_axis_off()
        draw_scale_bar(panels[0], SCALE_BAR_mrad, field)
        _intensity_bar(panels[len(stores) - 1], "cube root of the intensity")
    return figure


def _recorded(
    store: PatternStore, layers: int, semiangle: float, settings: AugmentationSettings, seed: int
) -> list[np.ndarray]:
    """Return images with the fewest and the most electrons, of one mean."""
    pixel = store.pixel_mrad
    pattern = _pattern(store, layers)
    averaged = average_over_pixels(pattern, pixel, settings.pixel_mrad, settings.mtf)
    camera = (settings.camera or CameraSettings()).middle()
    ellipse = camera["ellipticity"], camera["ellipticity_diagonal"]
    view = Camera(settings.pixels, settings.field_of_view_mrad, ellipticity=ellipse)
    expected = resample(averaged, pixel, view)
    expected = reaching_camera(expected, camera, settings.pixel_mrad)
    images = []
    for end, electrons in zip(("fewest", "most"), settings.electrons, strict=True):
        random = stream(seed, "figure", "dose", float(semiangle), end)
        signal = read_out(record(expected * electrons, settings.noise, random), camera, random)
        images.append(signal / max(signal.mean(), DARK))
    return images


def _power(number: float) -> str:
    """Write a number as a formula with a power of ten."""
    factor, exponent = f"{number:.2e}".split("e")
    power = f"10^{{{int(exponent)}}}"
    return f"${power}$" if float(factor) == 1 else rf"${float(factor):g}\times{power}$"
