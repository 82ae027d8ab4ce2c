"""The style that all figures share, units and symbols, and how figures are saved."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path

import matplotlib.style
from matplotlib.figure import Figure

from pacbed.errors import RequestError

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
        matplotlib.style.context(str(style)),
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


def nice_length(target: float) -> float:
    """Return the largest of 1, 2, 5 times a power of ten that is at most this."""
    power = 10 ** math.floor(math.log10(target))
    return max(f * power for f in (1, 2, 5) if f * power <= target * (1 + 1e-9))


def layers_label(layers: int) -> str:
    """Return a number of layers in words."""
    return f"{layers} layer{'s' if layers > 1 else ''}"
