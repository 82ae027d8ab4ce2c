"""Figures of how far predictions are from the truth, from tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.path import Path as MarkerPath
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from pacbed.examples.labels import PARAMETERS, display_unit
from pacbed.exceptions import RequestError
from pacbed.figures.style import (
    MEAN,
    PAGE,
    PAGE_HEIGHT,
    SYMBOLS,
    draw_mean,
    error_axis,
    in_display_unit,
    layers_axis,
    layers_label,
    lettered_panels,
    log_axis,
    ordered_looks,
    paper_style,
    shown_parameters,
)
from pacbed.learning.specification import NetworkSpec
from pacbed.precision.error_table import CALIBRATED, FIT, NETWORK, NETWORK_FIT

# The first three as in the paper's Fig. 7, black, red and green, in hues that the colour-blind tell
# apart (Okabe and Ito).
VARIANTS: dict[tuple[str, str], dict[str, str]] = {
    ("strain-rotation-tilt", "linear"): {"color": "#000000", "marker": "o"},
    ("strain-rotation", "linear"): {"color": "#D55E00", "marker": "s"},
    ("strain-rotation", "sqrt"): {"color": "#009E73", "marker": "^"},
    ("strain-rotation-tilt", "sqrt"): {"color": "#0072B2", "marker": "D"},
    ("strain-rotation", "power"): {"color": "#CC79A7", "marker": "v"},
    ("strain-rotation-tilt", "power"): {"color": "#E69F00", "marker": "<"},
}
"""Look of outputs and intensity."""

METHODS: dict[str, tuple[str, dict[str, str]]] = {
    NETWORK: ("network", {"color": "#000000", "marker": "o"}),
    NETWORK_FIT: ("network and fit", {"color": "#009E73", "marker": "v"}),
    FIT: ("fit without network", {"color": "#CC79A7", "marker": "x"}),
    "discs": ("disc positions", {"color": "#D55E00", "marker": "s"}),
    CALIBRATED: ("disc positions, calibrated", {"color": "#0072B2", "marker": "^"}),
}
"""Name and look of the ways to read a pattern."""

BOUNDS = {
    "prior_bound_mae": "Cramér–Rao bound, ranges known",
    "bound_mae": "Cramér–Rao bound",
}
"""Columns with bounds, of which the first that has numbers is drawn, and their names."""

_DASHES = MarkerPath(
    [(-1.0, 0.0), (-0.5, 0.0), (-0.25, 0.0), (0.25, 0.0), (0.5, 0.0), (1.0, 0.0)],
    3 * [MarkerPath.MOVETO, MarkerPath.LINETO],
)
"""Marker of a dashed line through a single point."""

SCALE_KNOWN = "Cramér–Rao bound, scale known"
INTERVAL = "95 % interval"

SCATTERED = ("strain_xx", "rotation_deg", "tilt_x_mrad")
"""Parameters of Fig. 6."""

MOST_POINTS = 2000
"""Examples in a panel of Fig. 6 and 8, at most: the first ones, which are a random sample."""


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
        Rows of the error table of one variant and the test set. Intervals and bounds are drawn
        where they are known.
    """
    parameters = shown_parameters(table)
    looks = ordered_looks(sorted(table["semiangle_mrad"].unique()))
    with paper_style():
        figure, panels = lettered_panels(len(parameters), 2.3, sharex=True)
        for panel, parameter in zip(panels, parameters, strict=True):
            rows = table[table["parameter"] == parameter]
            for angle, look in looks.items():
                line = rows[rows["semiangle_mrad"] == angle]
                _draw_errors(panel, line, "layers", label=f"{angle:g} mrad", **look)
                _draw_bound(panel, line, "layers", look["color"])
            draw_mean(panel, rows)
            error_axis(panel, parameter)
            layers_axis(panel)
        _legend(figure, panels, 4)
    return figure


def errors_of_variants(table: pd.DataFrame) -> Figure:
    """Draw Fig. 7: test MAE against thickness for networks of different outputs and intensities.

    Strain and rotation are shown, one panel each, or what varies if these do not.

    Parameters
    ----------
    table
        Rows of the error table of one semi-angle and the test set, with any number of variants,
        each with its own thicknesses.

    Raises
    ------
    RequestError
        If the table has other than one semi-angle.
    """
    angles = table["semiangle_mrad"].unique()
    if len(angles) != 1:
        raise RequestError(f"variants are compared at one semi-angle, not {len(angles)}")
    parameters = shown_parameters(table, PARAMETERS[:4])
    # Far above, the baseline would leave less room for what differs: it is in all panels or none.
    shown = table[table["parameter"].isin(parameters)].groupby("parameter")
    near = bool((shown["mae"].max() > shown["baseline_mae"].mean() / 5).all())
    with paper_style():
        figure, panels = lettered_panels(
            len(parameters), 2, width=0.75 * PAGE, columns=2, margin=0.7, sharex=True
        )
        for panel, parameter in zip(panels, parameters, strict=True):
            rows = table[table["parameter"] == parameter]
            of = dict(list(rows.groupby(["outputs", "intensity"])))
            for variant, look in VARIANTS.items():
                if variant in of:
                    label = variant_label(*variant)
                    _draw_errors(panel, of[variant], "layers", label=label, **look)
            # The bound belongs to the patterns: it is the same for all variants of a thickness.
            _draw_bound(panel, rows.drop_duplicates("layers"), "layers")
            if near:
                draw_mean(panel, rows)
            error_axis(panel, parameter)
            panel.set_xticks(sorted(table["layers"].unique()))
        _legend(figure, panels, 2)
        figure.suptitle(f"{angles[0]:g} mrad", fontsize=8)
    return figure


def classical_against_network(table: pd.DataFrame) -> Figure:
    """Draw test MAE of networks and of classical methods, against thickness and against dose.

    There is a row of panels for every semi-angle at which there is a classical method, or if there
    is none for the smallest, and for a normal strain, shear and rotation: first the error over all
    doses against thickness, then, for at most five thicknesses, the error against the dose. All of
    a row have one scale.

    Parameters
    ----------
    table
        Rows of the error table of the test set, with all doses and methods, and of networks those
        of one variant.
    """
    table = table.assign(electrons=np.sqrt(table["electrons_low"] * table["electrons_high"]))
    classical = table.loc[table["method"] != NETWORK, "semiangle_mrad"].unique()
    angles = sorted(classical) if len(classical) else [table["semiangle_mrad"].min()]
    table = table[table["semiangle_mrad"].isin(angles)]
    layers = np.array(sorted(table["layers"].unique()))
    layers = layers[np.linspace(0, len(layers) - 1, min(5, len(layers))).round().astype(int)]
    parameters = shown_parameters(table, ("strain_xx", "strain_xy", "rotation_deg"))
    rows = [(angle, parameter) for angle in angles for parameter in parameters]
    all_doses = table["dose"].astype(str) == "all"
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
        for panels, (angle, parameter) in zip(grid, rows, strict=True):
            chosen = (table["semiangle_mrad"] == angle) & (table["parameter"] == parameter)
            _compare_methods(panels[0], table[chosen & all_doses], "layers")
            for panel, n in zip(panels[1:], layers, strict=True):
                parts = table[chosen & ~all_doses & (table["layers"] == n)]
                _compare_methods(panel, parts, "electrons")
            for panel in panels:
                draw_mean(panel, table[chosen])
            log_axis(panels[0])
            layers_axis(panels[0])
            name = f"{angle:g} mrad\n{SYMBOLS[parameter]} ({display_unit(parameter)[1]})"
            panels[0].set_ylabel(name, fontsize=8 if len(rows) <= 10 else 6)
        for panel, title in zip(grid[0], ["all doses", *map(layers_label, layers)], strict=True):
            panel.set_title(title)
        grid[-1, 0].set_xlabel("number of layers")
        for panel in grid[:, 1:].ravel():
            panel.set_xscale("log")
            panel.set_xlim(0.8 * table["electrons_low"].min(), 1.25 * table["electrons_high"].max())
            panel.xaxis.set_major_locator(LogLocator())
            panel.xaxis.set_minor_formatter(NullFormatter())
        for panel in grid[-1, 1:]:
            panel.set_xlabel("electrons", fontsize=7)
        figure.supylabel("mean absolute error\n", fontsize=8)
        _legend(figure, grid.ravel(), 3)
    return figure


def _compare_methods(panel: Axes, rows: pd.DataFrame, x: str) -> None:
    if rows.empty:
        _say_none(panel)
    of = dict(list(rows.groupby("method")))
    present = [method for method in METHODS if method in of]
    for method in present:
        label, look = METHODS[method]
        _draw_errors(panel, of[method], x, label=label, ms=3, **look)
        if method == CALIBRATED:  # dash-dotted, since it may cover the other
            _draw_bound(panel, of[method], x, look["color"], "-.", SCALE_KNOWN)
        elif method == present[0]:  # the same for discs whose radius tells the scale
            _draw_bound(panel, of[method], x)


def _draw_errors(panel: Axes, rows: pd.DataFrame, x: str, color: Any, **look: Any) -> None:
    """Draw a line through the MAE of rows of one parameter, and their 95 % intervals."""
    rows = in_display_unit(rows, ["mae", "mae_low", "mae_high"]).sort_values(x)
    panel.plot(rows[x], rows["mae"], color=color, **look)
    if rows["mae_low"].notna().any():
        panel.vlines(rows[x], rows["mae_low"], rows["mae_high"], color=color, lw=2.5, alpha=0.35)
        panel.plot([], [], lw=2.5, alpha=0.35, color="0.4", label=INTERVAL)


def _draw_bound(
    panel: Axes,
    rows: pd.DataFrame,
    x: str,
    colour: Any = "0.4",
    style: str = "--",
    label: str | None = None,
) -> None:
    """Draw the bound of rows of one parameter, if it is known; without a label it is grey."""
    column = next((c for c in BOUNDS if rows[c].notna().any()), None)
    if column:
        rows = in_display_unit(rows, [column]).sort_values(x)
        look: dict[str, Any] = {"linestyle": style, "lw": 0.7}
        # A line through a single point is not seen.
        marker: Any = "" if len(rows) > 1 else _DASHES if style == "--" else "_"
        panel.plot(rows[x], rows[column], color=colour, marker=marker, ms=9, zorder=1.8, **look)
        panel.plot([], [], color=colour if label else "0.4", label=label or BOUNDS[column], **look)


def _legend(figure: Figure, panels: np.ndarray, columns: int) -> None:
    """Put one legend below all panels: results first, then what they are compared with."""
    found: dict[str, Any] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    last = [label for label in (INTERVAL, *BOUNDS.values(), SCALE_KNOWN, MEAN) if label in found]
    labels = [label for label in found if label not in last] + last
    handles = [found[label] for label in labels]
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)))


def errors_against_truth(
    predictions: Mapping[NetworkSpec, pd.DataFrame], parameters: Sequence[str] = SCATTERED
) -> Figure:
    """Draw Fig. 6: errors against true values of the test set, a row per thickness.

    The paper draws predicted values, whose distance from the diagonal would not be seen here.

    Parameters
    ----------
    predictions
        Predictions of networks of one variant.
    parameters
        Parameters to show, one group of columns each, in which semi-angles are side by side.
    """
    parameters = _predicted(parameters, predictions.values())
    found = {(n.semiangle_mrad, n.layers): table for n, table in predictions.items()}
    angles = sorted({angle for angle, _ in found})
    rows = {
        layers_label(n): [found.get((angle, n)) for angle in angles]
        for n in sorted({n for _, n in found})
    }
    with paper_style():
        columns = [f"\n{angle:g} mrad" for angle in angles]
        return _scatter(rows, columns, parameters, alike=False)


def scatter_of_variants(
    predictions: Mapping[NetworkSpec, pd.DataFrame], parameters: Sequence[str] = PARAMETERS[:4]
) -> Figure:
    """Draw Fig. 8: errors against true values of the test set, a row per variant.

    The MAE in each panel is that of all examples.

    Parameters
    ----------
    predictions
        Predictions of networks of one semi-angle and thickness.
    parameters
        Parameters to show, one column each.
    """
    parameters = _predicted(parameters, predictions.values())
    first = next(iter(predictions))
    rows = {
        variant_label(n.outputs, n.intensity).replace(", ", ",\n"): [table]
        for n, table in predictions.items()
    }
    with paper_style():
        figure = _scatter(rows, [""], parameters, alike=True)
        shown = product(predictions.values(), parameters)
        for panel, (table, parameter) in zip(figure.axes, shown, strict=True):
            if f"true_{parameter}" in table:
                factor, unit = display_unit(parameter)
                error = table[f"predicted_{parameter}"] - table[f"true_{parameter}"]
                words = f"MAE {factor * error.abs().mean():#.2g} {unit}".replace(" °", "°")
                panel.text(0.07, 0.96, words, fontsize=7, va="top", transform=panel.transAxes)
        title = f"{first.semiangle_mrad:g} mrad, {layers_label(first.layers)}"
        figure.suptitle(title, fontsize=8)
    return figure


def _predicted(parameters: Sequence[str], tables: Iterable[pd.DataFrame]) -> list[str]:
    known = {column for table in tables for column in table}
    return [p for p in parameters if f"true_{p}" in known]


def _scatter(
    rows: Mapping[str, Sequence[pd.DataFrame | None]],
    columns: Sequence[str],
    parameters: Sequence[str],
    alike: bool,
) -> Figure:
    """Draw errors against true values: named rows, and for each parameter named columns.

    Errors of a row have a scale of their own, or all the same.
    """
    across = len(parameters) * len(columns)
    size = min((PAGE - 0.5) / across, 1.8)
    figure = Figure(
        figsize=(size * across + 0.5, size * len(rows) + 0.85),
        layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0),
    )
    grid = figure.subplots(len(rows), across, squeeze=False)
    tables = [table for row in rows.values() for table in row]
    for number, parameter in enumerate(parameters):
        group = grid[:, number * len(columns) :][:, : len(columns)]
        _draw_group(group, tables, parameter, alike)
        letter = f"({'abcdef'[number]}) "
        for panel, column in zip(group[0], columns, strict=True):
            name = f"{letter}{SYMBOLS[parameter]} ({display_unit(parameter)[1]}){column}"
            panel.set_title(name, fontsize=7)
            letter = ""
    for panel, name in zip(grid[:, 0], rows, strict=True):
        panel.set_ylabel(name)
    figure.supxlabel("true", fontsize=8)
    # The empty line keeps it apart from the names of the rows.
    figure.supylabel("predicted − true\n", fontsize=8)
    return figure


def _draw_group(
    group: np.ndarray, tables: Sequence[pd.DataFrame | None], parameter: str, alike: bool
) -> None:
    """Draw errors of one parameter on panels whose scales only outer ones name."""
    names = [f"true_{parameter}", f"predicted_{parameter}"]
    shown = [
        display_unit(parameter)[0] * table.head(MOST_POINTS)[names].to_numpy(float)
        if table is not None and names[0] in table
        else np.empty((0, 2))
        for table in tables
    ]
    points = [
        np.stack([true, predicted - true], axis=1) for true, predicted in (t.T for t in shown)
    ]
    across = group.shape[1]
    of_rows = [np.concatenate(points[n : n + across]) for n in range(0, len(points), across)]
    every = np.concatenate(of_rows)
    colour = sns.color_palette("colorblind")[0]
    for (row, column), panel in np.ndenumerate(group):
        here = points[row * across + column]
        panel.axhline(0, color="black", lw=0.6)
        panel.scatter(*here.T, s=1.5, lw=0, alpha=0.5, color=colour, rasterized=True, zorder=2)
        if not len(here):
            _say_none(panel)
        panel.set(xlim=_ends(every[:, 0]), ylim=_ends((every if alike else of_rows[row])[:, 1]))
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        panel.tick_params(labelbottom=row == len(group) - 1, labelleft=column == 0, labelsize=6)


def _say_none(panel: Axes) -> None:
    """Say on a panel that there is nothing to draw."""
    panel.text(0.5, 0.6, "none", fontsize=7, ha="center", transform=panel.transAxes)


def _ends(values: np.ndarray) -> tuple[float, float]:
    """Return the ends of an axis on which all numbers are seen, as far below zero as above."""
    known = np.abs(values[np.isfinite(values)])
    end = 1.06 * known.max() if known.any() else 1.0
    return -end, end
