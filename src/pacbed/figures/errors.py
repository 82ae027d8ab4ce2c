"""Figures of how far predictions are from the truth, from tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from pacbed.figures.style import PAGE, SYMBOLS, display_unit, layers_label, paper_style


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
                    panel.set_ylabel(f"{layers_label(n)}\npredicted")
                if (angle, layers[row - 1]) not in predictions or row == 0:
                    panel.set_title(f"{SYMBOLS[parameter]} ({unit})\n{angle:g} mrad")
                if row == len(layers) - 1:
                    panel.set_xlabel("true")
                panel.locator_params(nbins=3)
    return figure
