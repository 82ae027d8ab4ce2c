"""Figures, from pattern stores and tables only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from pacbed.errors import RequestError
from pacbed.patterns import PatternStore

if TYPE_CHECKING:
    from pacbed.convergence import Refinement

# Width of a journal page, in inches.
PAGE = 7.2

SYMBOLS = {
    "strain_xx": r"$\varepsilon_{xx}$",
    "strain_yy": r"$\varepsilon_{yy}$",
    "strain_xy": r"$\varepsilon_{xy}$",
    "rotation_deg": r"$\gamma$",
    "tilt_x_mrad": r"$\varphi_x$",
    "tilt_y_mrad": r"$\varphi_y$",
}


def display_unit(parameter: str) -> tuple[float, str]:
    """Return the factor from stored to shown values of a parameter, and the unit shown."""
    if parameter.startswith("strain"):
        return 100.0, "%"
    return (1.0, "°") if parameter.endswith("deg") else (1.0, "mrad")


@contextmanager
def paper_style() -> Iterator[None]:
    """Apply the style of all figures."""
    with (
        as_file(files("pacbed") / "data" / "paper.mplstyle") as style,
        mpl.style.context(str(style)),
    ):
        yield


def save(figure: Figure, *paths: Path) -> None:
    """Save a figure under several names; the endings choose the formats.

    PNG and PDF files carry no time stamp, so that equal figures make equal bytes.
    """
    for path in paths:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        kind = path.suffix.lstrip(".")
        metadata = {"CreationDate": None} if kind == "pdf" else None
        try:
            with paper_style():
                figure.savefig(temporary, format=kind, metadata=metadata)
            temporary.replace(path)
        except ValueError as error:
            raise RequestError(f"cannot draw {path}: {error}") from error
        finally:
            temporary.unlink(missing_ok=True)


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
            bar = _nice_length(field_mrad / 4) if number == 0 else None
            draw_split_pattern(panel, store, available.index(layer), field_mrad, bar)
            panel.set_title(f"{layer} layer{'s' if layer > 1 else ''}")
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
            row[0].set_ylabel(f"{layer} layer{'s' if layer > 1 else ''}\n$k_y$ (mrad)")
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
    ticks = _nice_length(0.9 * limit) * np.linspace(-1, 1, 5)
    bar = axes.figure.colorbar(image, cax=beside, ticks=ticks, format="{x:g}", extend="both")
    bar.set_label(label)


def _end(text: str, most: int = 100) -> str:
    """Shorten a long text, such as a path, to its end."""
    return text if len(text) <= most else f"…{text[1 - most :]}"


def changes_against_thickness(refinements: Sequence[Refinement], title: str) -> Figure:
    """Draw what refining each setting changes, and the phonon noise in it, against thickness."""
    with paper_style():
        figure = Figure(figsize=(5.4, 2.6), layout="constrained")
        axes = figure.subplots()
        colours = sns.color_palette("colorblind", len(refinements))
        for one, colour in zip(refinements, colours, strict=True):
            layers = np.arange(1, len(one.change) + 1)
            label = f"{one.setting}: {one.before} → {one.after}"
            axes.plot(layers, 100 * one.change, "o-", ms=2.5, color=colour, label=label)
            if one.noise is not None:
                axes.plot(layers, 100 * one.noise, ":", color=colour)
        axes.axhline(1, color="0.6", lw=0.6, zorder=0)
        if any(one.noise is not None for one in refinements):
            axes.plot([], [], ":", color="0.4", label="phonon noise alone")
        axes.set(xlabel="number of layers", ylabel="change of the pattern (%)", title=title)
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside right upper", handlelength=1.5)
    return figure


def _nice_length(target: float) -> float:
    power = 10 ** math.floor(math.log10(target))
    return max(f * power for f in (1, 2, 5) if f * power <= target * (1 + 1e-9))


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
                    grid[row, 0].set_ylabel(f"{layer} layer{'s' if layer > 1 else ''}")
            grid[0, column].set_title(f"{semiangle:g} mrad")
    return figure


def errors_against_thickness(table: pd.DataFrame) -> Figure:
    """Draw Fig. 5: test MAE against thickness for every semi-angle, one panel per parameter.

    Parameters
    ----------
    table
        Rows of the error table of one variant and the test set.
    """
    parameters = [p for p in SYMBOLS if p in set(table["parameter"])]
    angles = sorted(table["semiangle_mrad"].unique())
    colours = sns.color_palette("viridis", len(angles))
    markers = "osD^v<>p"
    with paper_style():
        columns = min(3, len(parameters))
        rows = math.ceil(len(parameters) / columns)
        figure = Figure(figsize=(PAGE, 2.3 * rows + 0.3), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
        for panel, parameter, letter in zip(panels, parameters, "abcdef", strict=False):
            factor, unit = display_unit(parameter)
            rows_of = table[table["parameter"] == parameter]
            for number, angle in enumerate(angles):
                line = rows_of[rows_of["semiangle_mrad"] == angle].sort_values("layers")
                panel.plot(
                    line["layers"],
                    factor * line["mae"],
                    marker=markers[number % len(markers)],
                    color=colours[number],
                    label=f"{angle:g} mrad",
                )
            baseline = factor * rows_of["baseline_mae"].mean()
            panel.axhline(baseline, color="0.5", lw=0.8, ls=":", label="always the mean")
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_formatter(NullFormatter())
            panel.set_ylabel(f"MAE of {SYMBOLS[parameter]} ({unit})")
            panel.set_title(f"({letter})", loc="left")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        for panel in panels[len(parameters) :]:
            panel.set_axis_off()
        for panel in panels[len(parameters) - columns : len(parameters)]:
            panel.set_xlabel("number of layers")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)))
    return figure


def true_against_predicted(
    predictions: Mapping[tuple[float, int], pd.DataFrame],
    parameters: Sequence[str] = ("strain_xx", "rotation_deg", "tilt_x_mrad"),
    most_points: int = 2000,
) -> Figure:
    """Draw Fig. 6: predicted against true values of the test set.

    Parameters
    ----------
    predictions
        Predictions by (semi-angle in mrad, layers).
    parameters
        Parameters to show, one group of columns each.
    most_points
        Draw at most this many examples per panel: the first ones, which are a random sample.
    """
    angles = sorted({angle for angle, _ in predictions})
    layers = sorted({n for _, n in predictions})
    columns = [(p, a) for p in parameters for a in angles]
    with paper_style():
        width = max(PAGE, 0.95 * len(columns))
        figure = Figure(
            figsize=(width, width / len(columns) * len(layers) + 0.7), layout="constrained"
        )
        grid = figure.subplots(len(layers), len(columns), squeeze=False, sharex="col", sharey="col")
        for column, (parameter, angle) in enumerate(columns):
            factor, unit = display_unit(parameter)
            for row, n in enumerate(layers):
                panel: Axes = grid[row, column]
                table = predictions.get((angle, n))
                if table is None or f"true_{parameter}" not in table:
                    panel.set_axis_off()
                    continue
                shown = table.head(most_points)
                true = factor * shown[f"true_{parameter}"]
                panel.scatter(
                    true,
                    factor * shown[f"predicted_{parameter}"],
                    s=1,
                    lw=0,
                    alpha=0.5,
                    color=sns.color_palette("colorblind")[0],
                    rasterized=True,
                )
                ends = [true.min(), true.max()]
                panel.plot(ends, ends, color="black", lw=0.6)
                if column == 0:
                    panel.set_ylabel(f"{n} layer{'s' if n > 1 else ''}\npredicted")
                if (angle, layers[row - 1]) not in predictions or row == 0:
                    panel.set_title(f"{SYMBOLS[parameter]} ({unit})\n{angle:g} mrad")
                if row == len(layers) - 1:
                    panel.set_xlabel("true")
                panel.locator_params(nbins=3)
    return figure
