"""Figures of how precisely patterns can be read, and how near networks come, from tables."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator

from pacbed.exceptions import PacbedError
from pacbed.figures.errors import METHODS
from pacbed.figures.style import (
    PAGE,
    SYMBOLS,
    draw_mean,
    error_axis,
    in_display_unit,
    layers_axis,
    layers_label,
    lettered_panels,
    ordered_looks,
    paper_style,
    shown_parameters,
)
from pacbed.precision.bound_table import KEY
from pacbed.precision.error_table import NETWORK, NETWORK_FIT, of_test_set


def bound_against_thickness(means: pd.DataFrame, errors: pd.DataFrame) -> Figure:
    """Draw the bound against thickness for every semi-angle, one panel per parameter that varies.

    Lines are from the pattern alone, dashed ones with known ranges of the study; markers are
    networks.

    Parameters
    ----------
    means
        As of :func:`pacbed.precision.bound_table.mean_bounds`: ``mae`` and ``prior_mae`` are drawn.
    errors
        Error table of one variant; rows of networks and the test set are shown.
    """
    networks = _networks(errors)
    parameters = shown_parameters(means[means["prior_mae"].notna()])
    looks = ordered_looks(sorted(means["semiangle_mrad"].unique()))
    with paper_style():
        figure, panels = lettered_panels(len(parameters), 2.3)
        for panel, parameter in zip(panels, parameters, strict=True):
            known = in_display_unit(means[means["parameter"] == parameter], ["mae", "prior_mae"])
            measured = networks[networks["parameter"] == parameter]
            for angle, look in looks.items():
                line = known[known["semiangle_mrad"] == angle].sort_values("layers")
                colour, label = look["color"], f"{angle:g} mrad"
                panel.plot(line["layers"], line["mae"], "-", color=colour, label=label)
                panel.plot(line["layers"], line["prior_mae"], "--", color=colour)
                points = measured[measured["semiangle_mrad"] == angle]
                _draw_networks(panel, points["layers"], points, look)
            draw_mean(panel, measured)
            error_axis(panel, parameter)
            layers_axis(panel)
        panels[0].plot([], [], "-", color="0.2", label="Cramér–Rao bound")
        panels[0].plot([], [], "--", color="0.2", label="with known ranges")
        _legend(figure, panels[0], loc="outside lower center", ncols=4)
    return figure


def efficiency_map(errors: pd.DataFrame) -> Figure:
    """Draw how near networks, and fits that begin with them, come to the bound.

    There is a panel for every parameter and method, with the share of the bound in the error. It is
    more than 1 where the noise of the
    examples tells more than that of counted electrons.

    Parameters
    ----------
    errors
        Error table of one variant; rows of networks, of fits and of the test set are shown.

    Raises
    ------
    PacbedError
        If no efficiency is known.
    """
    shown = of_test_set(errors[errors["method"].isin([NETWORK, NETWORK_FIT])])
    known = shown[np.isfinite(shown["efficiency"])]
    if known.duplicated([*KEY, "method"]).any():
        raise PacbedError("the errors are of several variants: choose outputs and intensity")
    if known.empty:
        raise PacbedError("no network has an efficiency: the table was made without bounds")
    methods = [method for method in METHODS if method in set(known["method"])]
    each = [(m, p) for m in methods for p in shown_parameters(known)]
    with paper_style():
        figure, panels = lettered_panels(len(each), 1.9)
        norm = LogNorm(0.01, 1, clip=True)
        for panel, (method, parameter) in zip(panels, each, strict=True):
            rows = known[(known["parameter"] == parameter) & (known["method"] == method)]
            grid = rows.pivot(index="semiangle_mrad", columns="layers", values="efficiency")
            image = panel.imshow(grid, norm=norm, cmap="cividis", origin="lower", aspect="auto")
            for (row, column), value in np.ndenumerate(grid):
                # Light figures on dark fields: the middle of the logarithmic scale is 0.1.
                colour = "white" if value < 0.1 else "black"
                text = f"{100 * value:.2g}" if value < 0.995 else f"{100 * value:.0f}"
                text = text if math.isfinite(value) else "none"
                panel.text(column, row, text, ha="center", va="center", color=colour, size=6.5)
            panel.set_xticks(range(len(grid.columns)), [f"{n}" for n in grid.columns])
            panel.set_yticks(range(len(grid)), [f"{a:g}" for a in grid.index])
            panel.tick_params(length=0)
            of_method = f", {METHODS[method][0]}" if len(methods) > 1 else ""
            panel.set_title(SYMBOLS[parameter] + of_method)
            panel.set_ylabel("semi-angle (mrad)")
        bar = figure.colorbar(image, ax=list(figure.axes), shrink=0.7, label="bound / MAE (%)")
        bar.set_ticks([0.01, 0.1, 1], labels=["1", "10", "100"])
        bar.ax.yaxis.set_minor_locator(NullLocator())
    return figure


def precision_against_probe_size(
    means: pd.DataFrame, errors: pd.DataFrame, parameter: str = "strain_xx"
) -> Figure:
    """Draw what a small probe costs: the error of a parameter against the size of the probe.

    Parameters
    ----------
    means
        As of :func:`pacbed.precision.bound_table.mean_bounds`: ``mae`` is drawn, a line per
        thickness.
    errors
        Error table of one variant; networks and the test set are markers.
    parameter
        What is measured.
    """
    networks = _networks(errors)
    networks = networks[networks["parameter"] == parameter]
    means = in_display_unit(means[means["parameter"] == parameter], ["mae"])
    with paper_style():
        figure, panel, probes = _probe_panel(means)
        for n, look in ordered_looks(sorted(means["layers"].unique())).items():
            line = means[means["layers"] == n].sort_values("semiangle_mrad")
            label = layers_label(int(n))
            panel.plot(line["probe_nm"], line["mae"], label=label, ms=3, mfc="white", **look)
            points = networks[networks["layers"] == n]
            _draw_networks(panel, points["semiangle_mrad"].map(probes), points, look)
        draw_mean(panel, networks)
        error_axis(panel, parameter)
        panel.plot([], [], "o-", color="0.2", mfc="white", ms=3, label="bound")
        _legend(figure, panel, loc="outside right center")
    return figure


def doses_against_probe_size(
    doses: pd.DataFrame, precision: float, probe_nm: float, simulated: tuple[float, float]
) -> Figure:
    """Draw how many electrons a strain precision takes against the size of the probe.

    Parameters
    ----------
    doses
        As of :func:`pacbed.precision.bound_table.required_doses`.
    precision
        Standard deviation of the worst strain component, as a fraction.
    probe_nm
        Largest probe wanted, in nm.
    simulated
        Range of the electrons for which bounds were computed.
    """
    with paper_style():
        figure, panel, _ = _probe_panel(doses)
        for n, look in ordered_looks(sorted(doses["layers"].unique())).items():
            line = doses[doses["layers"] == n].sort_values("probe_nm")
            electrons = line["electrons"].where(np.isfinite(line["electrons"]))
            panel.plot(line["probe_nm"], electrons, label=layers_label(int(n)), **look)
        panel.axhspan(*simulated, color="0.93", zorder=0, label="doses of the study")
        panel.axvline(probe_nm, color="0.3", ls="--", lw=0.8, label="largest probe")
        panel.set_yscale("log")
        panel.set_ylabel(f"electrons per pattern for a strain to {100 * precision:.3g} %")
        figure.legend(loc="outside right center")
    return figure


def _networks(errors: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of networks, test set and all doses; refuse those of several variants."""
    rows = of_test_set(errors[errors["method"] == NETWORK])
    if rows.duplicated(KEY).any():
        raise PacbedError("the errors are of several variants: choose outputs and intensity")
    return rows.sort_values(KEY)


def _draw_networks(panel: Axes, x: Any, networks: pd.DataFrame, look: dict[str, Any]) -> None:
    panel.plot(x, in_display_unit(networks, ["mae"])["mae"], ls="", **look)


def _legend(figure: Figure, panel: Axes, **options: Any) -> None:
    """Give a figure the legend of a panel, with a marker for all networks."""
    panel.plot([], [], "o", color="0.2", label="network")
    figure.legend(*panel.get_legend_handles_labels(), **options)


def _probe_panel(table: pd.DataFrame) -> tuple[Figure, Axes, pd.Series]:
    """Return a figure, its panel with an axis of probe sizes, and sizes by semi-angle.

    An axis above the panel has the semi-angles.
    """
    probes = table.groupby("semiangle_mrad")["probe_nm"].first()
    figure = Figure(figsize=(0.68 * PAGE, 0.5 * PAGE), layout="constrained")
    panel: Axes = figure.subplots()
    panel.set_xscale("log")
    panel.set_xlabel("probe size (nm)")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter(NullFormatter())
    above = panel.secondary_xaxis("top")
    above.set_xlabel("semi-angle (mrad)")
    above.xaxis.set_major_locator(FixedLocator(probes.tolist()))
    above.set_xticks(probes.tolist(), [f"{angle:g}" for angle in probes.index])
    above.xaxis.set_minor_locator(NullLocator())
    return figure, panel, probes
