"""What refining numerical settings changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pacbed.figures.style import paper_style

if TYPE_CHECKING:
    from pacbed.patterns.convergence import Refinement


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
