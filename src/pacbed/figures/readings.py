"""Measured patterns, as they are fitted, and what is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure, SubFigure

from pacbed.figures.style import PAGE, SYMBOLS, layers_label, paper_style

if TYPE_CHECKING:
    from pacbed.reading.reading import Reading

MOST = 6
"""Largest number of patterns in a figure."""

_SIGMAS = 5


def measured_and_fitted(readings: Sequence[Reading]) -> Figure:
    """Draw patterns, their fits (cube roots of electrons), and residuals in units of noise."""
    readings = readings[:MOST]
    with paper_style():
        figure = Figure(figsize=(PAGE, 2.3 * len(readings)), layout="constrained")
        for rows, one in zip(
            figure.subfigures(len(readings), 1, squeeze=False), readings, strict=True
        ):
            _draw(rows[0], one)
    return figure


def _draw(figure: SubFigure, one: Reading) -> None:
    panels = figure.subplots(1, 3)
    scale = PowerNorm(1 / 3, 0, max(float(one.fitted.max()), 1e-30))
    measured = np.where(one.window.mask, one.image, np.nan)
    images = [
        panel.imshow(values, origin="lower", norm=scale, interpolation="nearest")
        for panel, values in zip(panels, (np.maximum(measured, 0), one.fitted), strict=False)
    ]
    residuals = panels[2].imshow(
        one.residuals,
        origin="lower",
        cmap="RdBu_r",
        vmin=-_SIGMAS,
        vmax=_SIGMAS,
        interpolation="nearest",
    )
    for panel, title in zip(panels, ("measured", "fitted", "difference"), strict=True):
        panel.set(xticks=[], yticks=[], xlabel=title, facecolor="0.85")  # grey where masked
    figure.colorbar(images[1], ax=panels[1], label="electrons")
    figure.colorbar(residuals, ax=panels[2], label="residual (σ)")
    name = _short(one.window.pattern.name).replace("$", r"\$")
    figure.suptitle(f"{name}: {_found(one)}", fontsize="medium")


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"…{name[-39:]}"


def _found(one: Reading) -> str:
    strains = (f"{SYMBOLS[n]} = {100 * one.value(n):+.2f} %" for n in tuple(SYMBOLS)[:3])
    return f"{layers_label(one.layers)}, {', '.join(strains)}, χ² = {one.chi2_per_pixel:.2f}"
