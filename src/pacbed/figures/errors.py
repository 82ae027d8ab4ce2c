"""Figures of how far predictions are from the truth, from tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from pacbed.examples.labels import PARAMETERS, display_unit
from pacbed.exceptions import RequestError
from pacbed.figures.style import (
    MEAN,
    PAGE,
    PAGE_HEIGHT,
    SYMBOLS,
    error_axis,
    layers_axis,
    layers_label,
    lettered_panels,
    log_axis,
    ordered_looks,
    paper_style,
    shown_parameters,
)

# The first three as in the paper's Fig. 7, black, red and green, in hues that the colour-blind tell
# apart (Okabe and Ito).
VARIANTS: dict[tuple[str, str], tuple[str, str]] = {
    ("strain-rotation-tilt", "linear"): ("#000000", "o"),
    ("strain-rotation", "linear"): ("#D55E00", "s"),
    ("strain-rotation", "sqrt"): ("#009E73", "^"),
    ("strain-rotation-tilt", "sqrt"): ("#0072B2", "D"),
    ("strain-rotation", "power"): ("#CC79A7", "v"),
    ("strain-rotation-tilt", "power"): ("#E69F00", "<"),
}
"""Colour and marker of outputs and intensity."""

METHODS = {
    "network": ("network", "#000000", "o"),
    "discs": ("disc positions", "#D55E00", "s"),
    "discs-calibrated": ("disc positions, calibrated", "#0072B2", "^"),
}
"""Label, colour and marker of the ways to read a pattern."""

BOUNDS = {
    "prior_bound_mae": "Cramér–Rao bound with the ranges as prior",
    "bound_mae": "Cramér–Rao bound",
}
"""Columns with a bound, the first that is known is drawn."""

INTERVAL = "95 % interval"


def variant_label(outputs: str, intensity: str) -> str:
    """Return outputs and intensity of a network in words."""
    tilt = "with" if outputs == "strain-rotation-tilt" else "without"
    scale = {"sqrt": "square-root", "power": "power-law"}.get(intensity, intensity)
    return f"{tilt} tilt, {scale} intensity"


def errors_against_thickness(table: pd.DataFrame) -> Figure:
    """Draw Fig. 5: test MAE against thickness for every semi-angle, one panel per parameter.

    Parameters
    ----------
    table
        Rows of the error table of one variant and the test set. Intervals (``mae_low``,
        ``mae_high``) and bounds are drawn where the table has them.
    """
    parameters = shown_parameters(table)
    looks = ordered_looks(sorted(table["semiangle_mrad"].unique()))
    bound = _bound_column(table)
    with paper_style():
        figure, panels, last = lettered_panels(len(parameters), 2.3, sharex=True)
        for panel, parameter in zip(panels, parameters, strict=True):
            rows = table[table["parameter"] == parameter]
            for angle, look in looks.items():
                line = rows[rows["semiangle_mrad"] == angle].sort_values("layers")
                _draw_errors(panel, line, "layers", label=f"{angle:g} mrad", **look)
                _draw_bound(panel, line, "layers", bound, look["color"])
            _label_extras(panel, rows, bound)
            _finish_errors(panel, rows)
            layers_axis(panel)
        for panel in last:
            panel.set_xlabel("number of layers")
        _legend(figure, panels, 4)
    return figure


def errors_of_variants(table: pd.DataFrame, parameters: Sequence[str] = PARAMETERS[:4]) -> Figure:
    """Draw Fig. 7: test MAE against thickness for networks of different outputs and intensities.

    Parameters
    ----------
    table
        Rows of the error table of one semi-angle and the test set, with any number of variants,
        each with its own thicknesses.
    parameters
        Parameters to show, one panel each.

    Raises
    ------
    RequestError
        If the table has other than one semi-angle.
    """
    angles = table["semiangle_mrad"].unique()
    if len(angles) != 1:
        found = ", ".join(f"{a:g}" for a in sorted(angles)) or "none"
        raise RequestError(f"variants are compared at one semi-angle, but the rows are of: {found}")
    present = set(zip(table["outputs"], table["intensity"], strict=True))
    bound = _bound_column(table)
    layers = sorted(table["layers"].unique())
    # Far above, the baseline would leave less room for what differs: it is in all panels or none.
    shown = table[table["parameter"].isin(parameters)].groupby("parameter")
    near = bool((shown["mae"].max() > shown["baseline_mae"].mean() / 5).all())
    with paper_style():
        figure, panels, last = lettered_panels(
            len(parameters), 2, width=0.75 * PAGE, columns=2, margin=0.7, sharex=True
        )
        for panel, parameter in zip(panels, parameters, strict=True):
            rows_of = table[table["parameter"] == parameter]
            for variant, (colour, marker) in VARIANTS.items():
                if variant not in present:
                    continue
                of_variant = (rows_of["outputs"] == variant[0]) & (
                    rows_of["intensity"] == variant[1]
                )
                line = rows_of[of_variant].sort_values("layers")
                label = variant_label(*variant)
                _draw_errors(panel, line, "layers", color=colour, marker=marker, label=label)
            if bound:
                # It is a property of the patterns, the same for all variants of a thickness.
                of_layers = rows_of.groupby("layers", as_index=False)[[bound, "mae"]].mean()
                _draw_bound(panel, of_layers.assign(parameter=parameter), "layers", bound, "0.4")
            _label_extras(panel, rows_of, bound)
            _finish_errors(panel, rows_of, with_baseline=near)
            panel.set_xticks(layers)
        for panel in last:
            panel.set_xlabel("number of layers")
        _legend(figure, panels, 2)
        figure.suptitle(f"{angles[0]:g} mrad", fontsize=8)
    return figure


def classical_against_network(
    table: pd.DataFrame, parameters: Sequence[str] = ("strain_xx", "rotation_deg")
) -> Figure:
    """Draw test MAE of networks and of classical methods, against thickness and against dose.

    There is a row of panels for every semi-angle at which there is a classical method, or if there
    is none for the smallest, and every parameter: first the error over all doses against thickness,
    then, for at most five thicknesses, the error against the dose. All of a row have one scale.

    Parameters
    ----------
    table
        Rows of the error table of the test set, with all doses and methods, and of networks those
        of one variant.
    parameters
        Parameters to show.
    """
    table = table.assign(electrons=np.sqrt(table["electrons_low"] * table["electrons_high"]))
    classical = table.loc[table["method"] != "network", "semiangle_mrad"].unique()
    angles = sorted(classical) if len(classical) else [table["semiangle_mrad"].min()]
    table = table[table["semiangle_mrad"].isin(angles)]
    layers = _some(sorted(table["layers"].unique()), 5)
    known = set(table["parameter"])
    rows = [(a, p) for a in angles for p in parameters if p in known]
    bound = _bound_column(table)
    dose = table["dose"].astype(str)
    with paper_style():
        height = min(1.45 * len(rows) + 1.0, PAGE_HEIGHT)
        figure = Figure(
            figsize=(PAGE, height), layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.03)
        )
        grid = figure.subplots(
            len(rows),
            1 + len(layers),
            squeeze=False,
            sharex="col",
            sharey="row",
            width_ratios=[max(1.5, 0.3 * len(layers))] + [1.0] * len(layers),
        )
        for row, (angle, parameter) in enumerate(rows):
            chosen = (table["semiangle_mrad"] == angle) & (table["parameter"] == parameter)
            whole, parts = (table[chosen & is_all] for is_all in (dose == "all", dose != "all"))
            _compare_methods(grid[row, 0], whole, "layers", bound)
            for panel, n in zip(grid[row, 1:], layers, strict=True):
                _compare_methods(panel, parts[parts["layers"] == n], "electrons", bound)
            for panel in grid[row]:
                baseline = display_unit(parameter)[0] * table[chosen]["baseline_mae"].mean()
                panel.axhline(baseline, color="0.5", lw=0.8, ls=":", label=MEAN)
            log_axis(grid[row, 0])
            unit = display_unit(parameter)[1]
            grid[row, 0].set_ylabel(f"{angle:g} mrad\n{SYMBOLS[parameter]} ({unit})")
        for panel, n in zip(grid[0, 1:], layers, strict=True):
            panel.set_title(layers_label(n))
        grid[0, 0].set_title("all doses")
        for panel in grid[:, 0]:
            layers_axis(panel)
        grid[-1, 0].set_xlabel("number of layers")
        for panel in grid[:, 1:].ravel():
            panel.set_xscale("log")
            panel.set_xlim(0.8 * table["electrons_low"].min(), 1.25 * table["electrons_high"].max())
            panel.xaxis.set_major_locator(LogLocator())
            panel.xaxis.set_minor_formatter(NullFormatter())
        for panel in grid[-1, 1:]:
            panel.set_xlabel("electrons", fontsize=7)
        figure.supylabel("mean absolute error", fontsize=8)
        _legend(figure, grid.ravel(), 3)
    return figure


def _some(values: Sequence[int], most: int) -> list[int]:
    """Return at most so many of some values: the first, the last and some evenly between."""
    chosen = np.linspace(0, len(values) - 1, min(most, len(values)))
    return [values[number] for number in chosen.round().astype(int)]


def _compare_methods(panel: Axes, rows: pd.DataFrame, x: str, bound: str | None) -> None:
    for method, (label, colour, marker) in METHODS.items():
        line = rows[rows["method"] == method].sort_values(x)
        if not line.empty:
            _draw_errors(panel, line, x, color=colour, marker=marker, label=label, ms=3)
    # Of the network, or the first other method: a calibrated one has other bounds.
    present = [method for method in METHODS if (rows["method"] == method).any()]
    _draw_bound(panel, rows[rows["method"].isin(present[:1])].sort_values(x), x, bound, "0.4")
    _label_extras(panel, rows, bound)


def _draw_errors(panel: Axes, rows: pd.DataFrame, x: str, color: Any, **look: Any) -> None:
    """Draw a line through the MAE of rows of one parameter, and their 95 % intervals."""
    factor = _factor(rows)
    panel.plot(rows[x], factor * rows["mae"], color=color, **look)
    if _has_intervals(rows):
        low, high = (factor * rows[c].to_numpy(float) for c in ("mae_low", "mae_high"))
        panel.vlines(rows[x], low, high, color=color, lw=2.5, alpha=0.35)


def _has_intervals(rows: pd.DataFrame) -> bool:
    return {"mae_low", "mae_high"} <= set(rows) and bool(rows["mae_low"].notna().any())


def _draw_bound(panel: Axes, rows: pd.DataFrame, x: str, column: str | None, colour: Any) -> None:
    if column:
        # A line through a single point is not seen.
        marker = "_" if len(rows) == 1 else ""
        bound = _factor(rows) * rows[column]
        panel.plot(rows[x], bound, "--", marker=marker, ms=9, lw=0.7, color=colour, zorder=1.8)


def _label_extras(panel: Axes, rows: pd.DataFrame, column: str | None) -> None:
    """Name interval and bound, of whatever colour, in the legend."""
    if _has_intervals(rows):
        panel.plot([], [], lw=2.5, alpha=0.35, color="0.4", label=INTERVAL)
    if column:
        panel.plot([], [], "--", lw=0.7, color="0.4", label=BOUNDS[column])


def _bound_column(table: pd.DataFrame) -> str | None:
    return next((c for c in BOUNDS if c in table and table[c].notna().any()), None)


def _factor(rows: pd.DataFrame) -> float:
    return 1.0 if rows.empty else display_unit(rows["parameter"].iloc[0])[0]


def _finish_errors(panel: Axes, rows: pd.DataFrame, with_baseline: bool = True) -> None:
    """Draw the baseline of rows of one parameter, and scale and name axes."""
    if rows.empty:
        panel.set_axis_off()
        return
    parameter = rows["parameter"].iloc[0]
    factor, _ = display_unit(parameter)
    baseline = factor * rows["baseline_mae"].mean()
    if with_baseline:
        panel.axhline(baseline, color="0.5", lw=0.8, ls=":", label=MEAN)
    error_axis(panel, parameter)


def _legend(figure: Figure, panels: np.ndarray, columns: int) -> None:
    """Put one legend below all panels: results first, then what they are compared with."""
    found: dict[str, Any] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    last = [label for label in (INTERVAL, *BOUNDS.values(), MEAN) if label in found]
    labels = [label for label in found if label not in last] + last
    handles = [found[label] for label in labels]
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)))


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
    tables = [[predictions.get((a, n)) for a in angles] for n in layers]
    with paper_style():
        columns = len(parameters) * len(angles)
        size = min((PAGE - 0.5) / columns, 1.8)
        figure = Figure(
            figsize=(size * columns + 0.5, size * len(layers) + 0.85),
            layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0),
        )
        grid = figure.subplots(len(layers), columns, squeeze=False)
        for number, parameter in enumerate(parameters):
            group = grid[:, number * len(angles) : (number + 1) * len(angles)]
            _draw_group(group, tables, parameter, most_points)
            for column, angle in enumerate(angles):
                drawn = [panel for panel in group[:, column] if panel.axison]
                if drawn:
                    letter = f"({'abcdef'[number]}) " if column == 0 else ""
                    symbol, unit = SYMBOLS[parameter], display_unit(parameter)[1]
                    drawn[0].set_title(f"{letter}{symbol} ({unit})\n{angle:g} mrad", fontsize=7)
        for row, n in zip(grid, layers, strict=True):
            row[0].set_ylabel(layers_label(n))
            if not row[0].axison:
                row[0].text(-0.3, 0.5, layers_label(n), transform=row[0].transAxes, rotation=90)
        figure.supxlabel("true", fontsize=8)
        figure.supylabel("predicted", fontsize=8)
    return figure


def scatter_of_variants(
    predictions: Mapping[tuple[str, str], pd.DataFrame],
    title: str = "",
    parameters: Sequence[str] = PARAMETERS[:4],
    most_points: int = 2000,
) -> Figure:
    """Draw Fig. 8: predicted against true values of the test set, one row per variant.

    The MAE in each panel is that of all examples.

    Parameters
    ----------
    predictions
        Predictions by (outputs, intensity), of one semi-angle and thickness.
    title
        What they are of.
    parameters
        Parameters to show, one column each.
    most_points
        Draw at most this many examples per panel: the first ones, which are a random sample.
    """
    with paper_style():
        size = (PAGE - 0.5) / len(parameters)
        figure = Figure(figsize=(PAGE, size * len(predictions) + 0.7), layout="constrained")
        grid = figure.subplots(len(predictions), len(parameters), squeeze=False)
        for column, parameter in enumerate(parameters):
            factor, unit = display_unit(parameter)
            tables = [[table] for table in predictions.values()]
            _draw_group(grid[:, [column]], tables, parameter, most_points)
            grid[0, column].set_title(f"({'abcdef'[column]}) {SYMBOLS[parameter]} ({unit})")
            for panel, [table] in zip(grid[:, column], tables, strict=True):
                if panel.axison:
                    error = table[f"predicted_{parameter}"] - table[f"true_{parameter}"]
                    panel.text(
                        0.07,
                        0.96,
                        f"MAE {factor * error.abs().mean():.2g} {unit}".replace(" °", "°"),
                        fontsize=7,
                        va="top",
                        transform=panel.transAxes,
                    )
        for panel, variant in zip(grid[:, 0], predictions, strict=True):
            panel.set_ylabel(variant_label(*variant).replace(", ", ",\n"))
        figure.supxlabel("true", fontsize=8)
        figure.supylabel("predicted", fontsize=8)
        figure.suptitle(title, fontsize=8)
    return figure


def _draw_group(
    group: np.ndarray,
    tables: Sequence[Sequence[pd.DataFrame | None]],
    parameter: str,
    most_points: int,
) -> None:
    """Draw predictions of one parameter, on panels that share their scales, none where none are."""
    factor, _ = display_unit(parameter)
    names = [f"true_{parameter}", f"predicted_{parameter}"]
    seen = []
    for panel, table in zip(group.ravel(), (t for row in tables for t in row), strict=True):
        if table is None or names[0] not in table:
            panel.set_axis_off()
            continue
        true, predicted = (factor * table.head(most_points)[name] for name in names)
        colour = sns.color_palette("colorblind")[0]
        panel.scatter(true, predicted, s=1, lw=0, alpha=0.5, color=colour, rasterized=True)
        ends = [true.min(), true.max()]
        panel.plot(ends, ends, color="black", lw=0.6)
        seen += [true, predicted]
    if not seen:
        return
    values = np.concatenate(seen)
    low, high = np.nanmin(values), np.nanmax(values)
    room = 0.06 * (high - low) or 1.0
    for (row, column), panel in np.ndenumerate(group):
        panel.set(xlim=(low - room, high + room), ylim=(low - room, high + room))
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        below, before = group[row + 1 :, column], group[row, :column]
        panel.tick_params(
            labelbottom=not any(p.axison for p in below),
            labelleft=not any(p.axison for p in before),
            labelsize=6,
        )
