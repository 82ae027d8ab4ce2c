"""Figures of patterns, from pattern stores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pacbed.figures.style import PAGE, layers_label, nice_length, paper_style
from pacbed.patterns import PatternStore


def crop(
    store: PatternStore, index: int, field_mrad: float
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Cut the pixels that a central square field shows, in part or whole.

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
    return store.patterns[index][np.ix_(y, x)], (left, right, bottom, top)


def draw_split_pattern(
    axes: Axes,
    store: PatternStore,
    index: int,
    field_mrad: float,
    scale_bar_mrad: float | None,
    brightest: float | None = None,
) -> None:
    """Draw a pattern, left half on a linear and right half on a cube-root intensity scale.

    The scales end at the brightest value given, or at that of the pattern.
    """
    pattern, extent = crop(store, index, field_mrad)
    half = field_mrad / 2
    pattern = np.maximum(pattern, 0) / (pattern.max() if brightest is None else brightest)
    shown = pattern.copy()
    # The half-scales meet at zero angle, the middle of pixel n // 2 of the store.
    middle = round(-extent[0] / (extent[1] - extent[0]) * pattern.shape[1] - 0.5)
    shown[:, middle:] = np.cbrt(shown[:, middle:])
    axes.imshow(shown, origin="lower", extent=extent, vmin=0, vmax=1, interpolation="nearest")
    axes.set(xlim=(-half, half), ylim=(-half, half), xticks=[], yticks=[])
    axes.axvline(0, color="white", lw=0.4, alpha=0.6)
    if scale_bar_mrad:
        left, bottom = -0.92 * half, -0.88 * half
        ends = [left, left + scale_bar_mrad]
        # Other caps would make it longer than it says.
        axes.plot(ends, [bottom, bottom], color="white", lw=2, solid_capstyle="butt")
        axes.text(
            left + scale_bar_mrad / 2,
            bottom + 0.05 * half,
            f"{scale_bar_mrad:g} mrad",
            color="white",
            ha="center",
            va="bottom",
            fontsize=6,
        )


def show_patterns(store: PatternStore, layers: Sequence[int], field_mrad: float) -> Figure:
    """Draw the patterns of one store, one panel per thickness."""
    columns = min(5, len(layers))
    rows = math.ceil(len(layers) / columns)
    with paper_style():
        figure = Figure(figsize=(1.9 * columns, 2.1 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        available = store.layers.tolist()
        for number, (panel, layer) in enumerate(zip(axes, layers, strict=False)):
            bar = nice_length(field_mrad / 4) if number == 0 else None
            draw_split_pattern(panel, store, available.index(layer), field_mrad, bar)
            panel.set_title(layers_label(layer))
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
            index_a, index_b = (s.layers.tolist().index(layer) for s in (a, b))
            shown_a, extent = crop(a, index_a, field_mrad)
            shown_b, _ = crop(b, index_b, field_mrad)
            brightest = max(shown_a.max(), shown_b.max())
            draw_split_pattern(row[0], a, index_a, field_mrad, None, brightest)
            draw_split_pattern(row[1], b, index_b, field_mrad, None, brightest)
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


def _draw_difference(
    axes: Axes, difference: np.ndarray, extent: tuple[float, float, float, float], label: str
) -> None:
    percent = 100 * difference
    # A few pixels on the edges of discs must not hide the rest; equal patterns need a scale too.
    size = np.abs(percent)
    limit = float(np.quantile(size, 0.998)) or float(size.max()) or 1.0
    image = axes.imshow(
        percent,
        origin="lower",
        extent=extent,
        vmin=-limit,
        vmax=limit,
        cmap="RdBu_r",
        interpolation="nearest",
    )
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
    with paper_style():
        size = PAGE / max(5, len(stores))
        figure = Figure(
            figsize=(size * len(stores) + 0.5, size * len(layers) + 0.35), layout="constrained"
        )
        grid = figure.subplots(len(layers), len(stores), squeeze=False)
        for column, (semiangle, store) in enumerate(stores.items()):
            available = store.layers.tolist()
            for row, layer in enumerate(layers):
                corner = row == len(layers) - 1 and column == 0
                draw_split_pattern(
                    grid[row, column],
                    store,
                    available.index(layer),
                    field_mrad,
                    20 if corner else None,
                )
                if column == 0:
                    grid[row, 0].set_ylabel(layers_label(layer))
            grid[0, column].set_title(f"{semiangle:g} mrad")
    return figure
