"""What several commands share: types of options, the configuration, and what is printed."""

from __future__ import annotations

import math
import operator
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

from cyclopts import Parameter, Token
from cyclopts.validators import Number
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pacbed.machine import Report, sparse_progress

T = TypeVar("T")

Flat = Annotated[T, Parameter(name="*")]
"""A data class whose fields are options."""

Count = Annotated[int, Parameter(validator=Number(gte=1))]
POSITIVE, NOT_NEGATIVE = Number(gt=0, lt=math.inf), Number(gte=0, lt=math.inf)
Positive = Annotated[float | None, Parameter(validator=POSITIVE)]

Threads = Annotated[
    Count, Parameter(show_default="all usable cores", help="Number of threads to use.")
]

_NUMBER = r"([\d.]+(?:e[+-]?\d+)?)"


def _in_units(pattern: str, of_two: Callable[[float, float], float], meaning: str) -> Parameter:
    """Return the parameter of a number, or of two with units from which it follows."""
    pair = re.compile(pattern)

    def convert(kind: Any, tokens: Sequence[Token]) -> float:
        text = tokens[0].value.strip()
        try:
            match = pair.fullmatch(text.replace("Å", "A"))
            return of_two(*map(float, match.groups())) if match else float(text)
        except (ValueError, ZeroDivisionError) as error:
            raise ValueError(f"'{text}' is not {meaning}.") from error

    return Parameter(converter=convert, allow_leading_hyphen=True)


PIXEL = _in_units(
    rf"{_NUMBER}\s*[uµμ]m\s*/\s*{_NUMBER}\s*mm",
    operator.truediv,
    "a number of mrad, or pixel and camera length such as 55um/120mm",
)
"""Of the size of a pixel: in mrad, or its width over the camera length."""

ELECTRONS = _in_units(
    rf"{_NUMBER}\s*/\s*A2\s*[*x×]\s*{_NUMBER}\s*A2",
    operator.mul,
    "a number of electrons, or dose and area such as 500/A2*2000A2",
)
"""Of electrons: their number, or their dose times the area."""

Overlays = Annotated[
    tuple[Path, ...],
    Parameter(help="Overlays of config/config.yaml, the paper's protocol; the last one wins."),
]

_quiet = ContextVar("quiet", default=False)

_OPTIONS = {
    "slices_per_layer": "slices",
    "pixel_A": "sampling",
    "pixel_mrad": "pixel-mrad",
    "crop_px": "crop",
    "python": "prismatic-python",
}


def option_name(field: str) -> str:
    """Return the name of the option of a field, in which there is no unit."""
    words = re.sub("_(mrad|deg|keV|A|nm|GB|TB)$", "", field)
    return _OPTIONS.get(field, words.replace("_", "-"))


def changed(*options: Any) -> list[str]:
    """Return the options, fields of data classes, that differ from their defaults."""
    return [
        f"--{option_name(one.name)}"
        for given in options
        for one in fields(given)
        if getattr(given, one.name) != getattr(type(given)(), one.name)
    ]


def spelled(default: Any) -> str | None:
    """Return a default as one would write it on the command line; None for none."""
    if isinstance(default, tuple):
        return " ".join(str(spelled(value)) for value in default) or None
    if isinstance(default, float):
        return f"{default:g}"
    return None if default is None else str(default)


@contextmanager
def quietly(quiet: bool) -> Iterator[None]:
    """Print warnings and errors alone on stderr, if so."""
    before = _quiet.set(quiet)
    try:
        yield
    finally:
        _quiet.reset(before)


def stderr() -> Console:
    """Return where messages go."""
    return Console(stderr=True, markup=False, emoji=False, highlight=False)


def say(line: str, console: Console | None = None) -> None:
    """Print a message above the progress, if there is any; quietly, warnings and errors alone."""
    if _quiet.get() and not line.startswith(("error:", "warning:")):
        return
    text = Text(line)
    for word, style in (("error:", "bold red"), ("warning:", "bold yellow")):
        if line.startswith(word):
            text.stylize(style, 0, len(word))
    (console or stderr()).print(text, soft_wrap=True)


def busy(what: str, console: Console | None = None) -> AbstractContextManager[Any]:
    """Return what shows on a terminal that something is done; quietly, nothing."""
    return nullcontext() if _quiet.get() else (console or stderr()).status(Text(what))


def spent(seconds: float) -> str:
    """Return an estimate of a time in words."""
    if seconds < 7200:
        return f"about {max(1, round(seconds / 60))} min"
    return f"about {seconds / 3600:.1f} hours"


def show_table(table: Table, width: int = 140) -> None:
    """Print a table, in a log with a width of so many characters."""
    Console(width=None if sys.stdout.isatty() else width).print(table)


@contextmanager
def progress(console: Console) -> Iterator[Callable[[str], Report]]:
    """Provide what shows how far something is: bars on a terminal, else a line now and then."""
    if not console.is_terminal or _quiet.get():
        yield lambda what: sparse_progress(what, lambda line: say(line, console))
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[more]}"),
        TimeRemainingColumn(),
    )
    # A step may take minutes, and what remains is known from several.
    with Progress(*columns, console=console, transient=True, speed_estimate_period=3600) as bar:

        def start(what: str) -> Report:
            task = bar.add_task(what, total=None, more="")
            return lambda done, total, more="": bar.update(
                task, completed=done, total=total, more=more
            )

        yield start
