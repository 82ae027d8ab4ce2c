"""What all figures share: style, units and symbols, panels and axes, and how they are saved."""

from __future__ import annotations

import io
import math
import string
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from pacbed.examples.labels import display_unit
from pacbed.exceptions import RequestError
from pacbed.storage.files import appearing_whole, check_writable

# What a figure may take of a journal page, in inches.
PAGE = 7.2
PAGE_HEIGHT = 9.3

SYMBOLS = {
    "strain_xx": r"$\varepsilon_{xx}$",
    "strain_yy": r"$\varepsilon_{yy}$",
    "strain_xy": r"$\varepsilon_{xy}$",
    "rotation_deg": r"$\gamma$",
    "tilt_x_mrad": r"$\varphi_x$",
    "tilt_y_mrad": r"$\varphi_y$",
}

MEAN = "always the mean"
"""Label of the error of that answer."""

_MARKERS = "osD^v<>p"


@contextmanager
def paper_style() -> Iterator[None]:
    """Apply the style of all figures."""
    with (
        as_file(files("pacbed.figures") / "paper.mplstyle") as style,
        matplotlib.style.context(str(style)),
    ):
        yield


def drawn(figure: Figure, kind: str, **more: Any) -> bytes:
    """Return a figure as the content of a PNG or other file, with options of Matplotlib.

    PNG and PDF files carry no time stamp, so that equal figures make equal bytes.
    """
    content = io.BytesIO()
    metadata = {"CreationDate": None} if kind == "pdf" else None
    with paper_style():
        figure.savefig(content, format=kind, metadata=metadata, **more)
    return content.getvalue()


def save(figure: Figure, *paths: Path) -> None:
    """Save what :func:`drawn` makes of a figure; the endings of its names choose the formats.

    Raises
    ------
    PacbedError
        If a file cannot be written, or its format is unknown.
    """
    for path in map(Path, paths):
        try:
            # Into memory: where a file cannot be written, Matplotlib may fail in other ways later.
            content = drawn(figure, path.suffix.lstrip(".").lower())
        except ValueError as error:
            raise RequestError(f"cannot draw {path}: {error}") from error
        with appearing_whole(path) as temporary:
            temporary.write_bytes(content)


def check_drawable(*paths: Path | None) -> None:
    """Check that figures can be saved under these names, before they are drawn.

    Raises
    ------
    PacbedError
        If the format that an ending chooses is unknown, or a file cannot be written.
    """
    # What a camera calls raw is no picture.
    known = set(Figure().canvas.get_supported_filetypes()) - {"raw", "rgba"}
    for path in filter(None, paths):
        if path.suffix.lstrip(".").lower() not in known:
            raise RequestError(f"cannot draw {path}: name a figure .png or .pdf")
    check_writable(*paths)


def nice_length(target: float) -> float:
    """Return the largest of 1, 2, 5 times a power of ten that is at most this."""
    power = 10 ** math.floor(math.log10(target))
    return max(f * power for f in (1, 2, 5) if f * power <= target * (1 + 1e-9))


def layers_label(layers: int) -> str:
    """Return a number of layers in words."""
    return f"{layers} layer{'s' if layers > 1 else ''}"


def shown_parameters(table: pd.DataFrame, wanted: Sequence[str] = tuple(SYMBOLS)) -> list[str]:
    """Return which parameters to show: those wanted, or all, of which a table has rows.

    A table of errors has none of parameters that do not vary.
    """
    known = set(table["parameter"])
    return [p for p in wanted if p in known] or [p for p in SYMBOLS if p in known]


def ordered_looks(values: Sequence[float]) -> dict[float, dict[str, Any]]:
    """Return colour and marker of lines for values in ascending order."""
    colours = sns.color_palette("viridis", len(values))
    return {
        value: {"color": colour, "marker": _MARKERS[number % len(_MARKERS)]}
        for number, (value, colour) in enumerate(zip(values, colours, strict=True))
    }


def lettered_panels(
    count: int,
    height: float,
    *,
    width: float = PAGE,
    columns: int = 3,
    margin: float = 0.4,
    sharex: bool = False,
) -> tuple[Figure, np.ndarray]:
    """Return a figure and its panels, whose x axis is the number of layers.

    Parameters
    ----------
    count
        Number of panels.
    height, width
        Height of a row of panels and width of the figure, in inches.
    columns
        At most so many panels are side by side.
    margin
        What the figure is higher than its rows, in inches.
    sharex
        Whether all panels have one x axis.
    """
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width, height * rows + margin), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=sharex).ravel()
    for panel, letter in zip(panels[:count], string.ascii_lowercase, strict=False):
        panel.set_title(f"({letter})", loc="left")
    for panel in panels[count:]:
        panel.set_axis_off()
    for panel in panels[count - columns : count]:
        panel.set_xlabel("number of layers")
        panel.xaxis.set_tick_params(labelbottom=True)
    return figure, panels[:count]


def error_axis(panel: Axes, parameter: str) -> None:
    """Name the y axis of the errors of a parameter, and make it logarithmic."""
    panel.set_ylabel(f"MAE of {SYMBOLS[parameter]} ({display_unit(parameter)[1]})")
    log_axis(panel)


def draw_mean(panel: Axes, rows: pd.DataFrame) -> None:
    """Draw the error of always answering the mean, of rows of a table of errors."""
    if not rows.empty:
        level = in_display_unit(rows, ["baseline_mae"])["baseline_mae"].mean()
        panel.axhline(level, color="0.5", lw=0.8, ls=":", label=MEAN)


def in_display_unit(rows: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return rows of one parameter, some columns in the unit of figures."""
    factor = 1.0 if rows.empty else display_unit(rows["parameter"].iloc[0])[0]
    return rows.assign(**{column: factor * rows[column].astype(float) for column in columns})


def log_axis(panel: Axes) -> None:
    """Make the y axis logarithmic, with a few round numbers, however wide its range."""
    panel.set_yscale("log")
    low, high = panel.get_ylim()
    decades = math.log10(high / low)
    parts = (1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)
    panel.yaxis.set_major_locator(LogLocator(subs=parts, numticks=20))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_minor_locator(LogLocator(subs=range(1, 10), numticks=20))
    panel.yaxis.set_minor_formatter(NullFormatter())


def layers_axis(panel: Axes) -> None:
    """Give the x axis whole numbers of layers, if only one."""
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
