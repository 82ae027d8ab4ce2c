"""Figures of how precisely patterns can be read, and how near networks come, from tables."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator

from pacbed.examples.labels import display_unit
from pacbed.exceptions import PacbedError
from pacbed.figures.style import (
    MEAN,
    PAGE,
    SYMBOLS,
    error_axis,
    layers_axis,
    layers_label,
    lettered_panels,
    ordered_looks,
    paper_style,
    shown_parameters,
)
from pacbed.precision.error_table import NETWORK, of_test_set


def bound_against_thickness(means: pd.DataFrame, errors: pd.DataFrame | None = None) -> Figure:
    """Draw the bound against thickness for every semi-angle, one panel per parameter.

    Lines are from the pattern alone, dashed ones if the ranges of the study are known besides;
    markers are networks.

    Parameters
    ----------
    means
        As of :func:`pacbed.precision.bound_table.mean_bounds`: ``mae`` and ``prior_mae`` are drawn.
    errors
        Error table of one variant; rows of networks and the test set are shown.
    """
    networks = _networks(errors)
    parameters = shown_parameters(means)
    looks = ordered_looks(sorted(means["semiangle_mrad"].unique()))
    with paper_style():
        figure, panels, last = lettered_panels(len(parameters), 2.3)
        for panel, parameter in zip(panels, parameters, strict=True):
            factor, _ = display_unit(parameter)
            known, measured = (t[t["parameter"] == parameter] for t in (means, networks))
            for angle, look in looks.items():
                line = known[known["semiangle_mrad"] == angle].sort_values("layers")
                for column, dash, label in (
                    ("mae", "-", f"{angle:g} mrad"),
                    ("prior_mae", "--", ""),
                ):
                    values = factor * line[column]
                    panel.plot(line["layers"], values, dash, color=look["color"], label=label)
                points = measured[np.isclose(measured["semiangle_mrad"], angle)]
                panel.plot(points["layers"], factor * points["mae"], ls="", **look)
            _draw_mean(panel, measured, factor)
            error_axis(panel, parameter)
            layers_axis(panel)
        for panel in last:
            panel.set_xlabel("number of layers")
        handles, labels = panels[0].get_legend_handles_labels()
        handles += panels[0].plot([], [], "-", color="0.2")
        handles += panels[0].plot([], [], "--", color="0.2")
        labels += ["Cramér–Rao bound", "with the ranges as prior"]
        if not networks.empty:
            handles += panels[0].plot([], [], "o", color="0.2")
            labels.append("network")
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def efficiency_map(errors: pd.DataFrame) -> Figure:
    """Draw how near networks come to the bound: its share in their error, one panel per parameter.

    It is more than 1 where the noise of the examples tells more than that of counted electrons.

    Parameters
    ----------
    errors
        Error table of one variant; rows of networks and the test set are shown.

    Raises
    ------
    PacbedError
        If no efficiency is known.
    """
    networks = _networks(errors)
    known = networks[np.isfinite(networks["efficiency"].astype(float))]
    if known.empty:
        raise PacbedError("no network has an efficiency: the table was made without bounds")
    parameters = shown_parameters(known)
    with paper_style():
        figure, panels, last = lettered_panels(len(parameters), 1.9)
        norm = LogNorm(0.01, 1, clip=True)
        for panel, parameter in zip(panels, parameters, strict=True):
            grid = known[known["parameter"] == parameter].pivot(
                index="semiangle_mrad", columns="layers", values="efficiency"
            )
            values = grid.sort_index().sort_index(axis=1)
            image = panel.imshow(
                values.to_numpy(float), norm=norm, cmap="cividis", origin="lower", aspect="auto"
            )
            for (row, column), value in np.ndenumerate(values.to_numpy(float)):
                if math.isfinite(value):
                    # Light figures on dark fields: the middle of the logarithmic scale is 0.1.
                    colour = "white" if value < 0.1 else "black"
                    text = f"{100 * value:.2g}" if value < 0.995 else f"{100 * value:.0f}"
                    panel.text(column, row, text, ha="center", va="center", color=colour, size=6.5)
            panel.set_xticks(range(values.shape[1]), [f"{n}" for n in values.columns])
            panel.set_yticks(range(values.shape[0]), [f"{a:g}" for a in values.index])
            panel.tick_params(length=0)
            panel.set_title(SYMBOLS[parameter])
            panel.set_ylabel("semi-angle (mrad)")
        for panel in last:
            panel.set_xlabel("number of layers")
        bar = figure.colorbar(image, ax=list(figure.axes), shrink=0.7, label="bound / MAE (%)")
        bar.set_ticks([0.01, 0.1, 1], labels=["1", "10", "100"])
        bar.ax.yaxis.set_minor_locator(NullLocator())
    return figure


def precision_against_probe_size(
    means: pd.DataFrame, errors: pd.DataFrame | None = None, parameter: str = "strain_xx"
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
    means = means[means["parameter"] == parameter]
    looks = ordered_looks(sorted(means["layers"].unique()))
    factor, _ = display_unit(parameter)
    probes = means.groupby("semiangle_mrad")["probe_nm"].first()
    with paper_style():
        figure = Figure(figsize=(0.68 * PAGE, 0.5 * PAGE), layout="constrained")
        panel: Axes = figure.subplots()
        for n, look in looks.items():
            line = means[means["layers"] == n].sort_values("semiangle_mrad")
            label, mae = layers_label(int(n)), factor * line["mae"]
            panel.plot(line["probe_nm"], mae, label=label, ms=3, mfc="white", **look)
            points = networks[networks["layers"] == n]
            at = [
                float(probes.iloc[np.abs(probes.index.to_numpy(float) - angle).argmin()])
                for angle in points["semiangle_mrad"]
            ]
            panel.plot(at, factor * points["mae"], ls="", **look)
        _draw_mean(panel, networks, factor)
        error_axis(panel, parameter)
        _probe_axis(panel, probes)
        handles, labels = panel.get_legend_handles_labels()
        handles += panel.plot([], [], "o-", color="0.2", mfc="white", ms=3)
        labels.append("bound")
        if not networks.empty:
            handles += panel.plot([], [], "o", color="0.2")
            labels.append("network")
        figure.legend(handles, labels, loc="outside right center")
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
    looks = ordered_looks(sorted(doses["layers"].unique()))
    probes = doses.groupby("semiangle_mrad")["probe_nm"].first()
    with paper_style():
        figure = Figure(figsize=(0.68 * PAGE, 0.5 * PAGE), layout="constrained")
        panel: Axes = figure.subplots()
        for n, look in looks.items():
            line = doses[doses["layers"] == n].sort_values("probe_nm")
            electrons = line["electrons"].where(np.isfinite(line["electrons"]))
            panel.plot(line["probe_nm"], electrons, label=layers_label(int(n)), **look)
        panel.axhspan(*simulated, color="0.93", zorder=0, label="doses of the study")
        panel.axvline(probe_nm, color="0.3", ls="--", lw=0.8, label="largest probe")
        panel.set_yscale("log")
        panel.set_ylabel(f"electrons per pattern for a strain to {100 * precision:.3g} %")
        _probe_axis(panel, probes)
        figure.legend(loc="outside right center")
    return figure


def _networks(errors: pd.DataFrame | None) -> pd.DataFrame:
    """Return the rows of networks, test set and all doses.

    Raises
    ------
    PacbedError
        If they are of several variants.
    """
    key = ["semiangle_mrad", "layers", "parameter"]
    if errors is None:
        return pd.DataFrame(columns=[*key, "mae", "baseline_mae", "efficiency"])
    rows = of_test_set(errors[errors["method"] == NETWORK])
    if rows.duplicated(key).any():
        raise PacbedError("the errors are of several variants: choose outputs and intensity")
    return rows.sort_values(key)


def _draw_mean(panel: Axes, networks: pd.DataFrame, factor: float) -> None:
    if not networks.empty:
        level = factor * networks["baseline_mae"].mean()
        panel.axhline(level, color="0.5", lw=0.8, ls=":", label=MEAN)


def _probe_axis(panel: Axes, probes: pd.Series) -> None:
    """Give a panel its axis of probe sizes, and one of the semi-angles above it."""
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
