"""The command that plans an experiment: what it takes to measure strain so precisely."""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pacbed.cli.main import CONFIG, HelpFormatter, configuration, positive
from pacbed.exceptions import PacbedError
from pacbed.machine import usable_cores

if TYPE_CHECKING:
    import pandas as pd

_NUMBER = r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)"
_NANOMETRES = {"nm": 1.0, "å": 0.1, "a": 0.1, "pm": 1e-3}
_OF_SIMULATION = ("config", "phonons", "threads", "save")


def add_design(commands: Any) -> None:
    """Add ``pacbed design`` to the commands."""
    command = commands.add_parser(
        "design",
        help="say what it takes to measure strain so precisely with a probe so small",
        description="For a strain precision and a probe size, print which semi-angles, "
        "thicknesses and numbers of electrons reach them at best: by the Cramér-Rao bound, which "
        "no unbiased reading of a pattern can surpass. Without a table of bounds, patterns are "
        "simulated first, with the plane-wave engine, of the undeformed crystal only and with the "
        "steps of section bound of the configuration.",
        formatter_class=HelpFormatter,
    )
    add = command.add_argument
    add(
        "--precision",
        type=_strain,
        required=True,
        metavar="STRAIN",
        help="standard deviation of the worst strain component: 0.05%% or 5e-4",
    )
    add(
        "--probe",
        type=_length_nm,
        required=True,
        metavar="LENGTH",
        help="largest probe, full width at half maximum: 0.15nm, 1.5A or 150pm",
    )
    add(
        "--layers",
        type=positive,
        nargs="+",
        metavar="N",
        help="numbers of layers (default: those of the table or the configuration)",
    )
    add(
        "--bounds",
        type=Path,
        metavar="FILE",
        help="table of bounds, tables/bounds.parquet among the results or of --save (default: "
        "simulate)",
    )
    add("--figure", type=Path, metavar="FILE", help="also draw the answer (PNG or PDF)")
    add = command.add_argument_group("without --bounds").add_argument
    # No defaults: with --bounds, what is given is refused.
    add(
        "--config",
        type=Path,
        nargs="+",
        metavar="FILE",
        help=f"overlays of {CONFIG}, the last one wins; or a complete configuration (default: "
        f"{CONFIG})",
    )
    add(
        "--phonons",
        type=_configurations,
        metavar="N",
        help="frozen-phonon configurations of each plane wave; 0: atoms at rest, many times faster "
        "(default: 0)",
    )
    add(
        "--threads",
        type=positive,
        metavar="N",
        help="threads to use (default: all usable cores)",
    )
    add("--save", type=Path, metavar="FILE", help="keep the table of bounds (.parquet or .csv)")
    command.set_defaults(run=_design)


def _design(options: argparse.Namespace) -> None:
    from pacbed.precision.bound_table import read_bounds, required_doses
    from pacbed.storage.tables import write_table

    for option in ("figure", "save"):
        path = getattr(options, option)
        if path is not None and not path.parent.is_dir():
            raise PacbedError(f"--{option} {path}: there is no folder {path.parent}")
    given = [f"--{name}" for name in _OF_SIMULATION if getattr(options, name) is not None]
    if options.bounds is None:
        bounds = _simulated(options)
        if options.save:
            write_table(bounds, options.save)
    elif given:
        raise PacbedError(
            f"with --bounds nothing is simulated, which {' and '.join(given)} "
            f"{'is' if len(given) == 1 else 'are'} for: leave out --bounds or {' and '.join(given)}"
        )
    else:
        bounds = _of_layers(read_bounds(options.bounds), options)
    doses = required_doses(bounds, options.precision)
    lowest, highest = (float(f(bounds["electrons"])) for f in (min, max))
    _print(doses, options, (lowest, highest))
    if options.precision >= 0.01:
        print(
            f"note: {_percent(options.precision)} is as wide as the strains of a study; without % "
            "a precision is a fraction",
            file=sys.stderr,
        )
    print(_answer(doses, options, (lowest, highest)))
    if options.figure:
        from pacbed.figures.bounds import doses_against_probe_size
        from pacbed.figures.style import save

        save(
            doses_against_probe_size(doses, options.precision, options.probe, (lowest, highest)),
            options.figure,
        )
    for path in (options.save, options.figure):
        if path:
            print(path)


def _of_layers(bounds: pd.DataFrame, options: argparse.Namespace) -> pd.DataFrame:
    """Return the bounds of the thicknesses that are asked for."""
    if not options.layers:
        return bounds
    known = sorted({int(n) for n in bounds["layers"]})
    if absent := sorted(set(options.layers) - set(known)):
        raise PacbedError(
            f"--layers {' '.join(map(str, absent))}: {options.bounds} has "
            f"{', '.join(map(str, known))}"
        )
    return bounds[bounds["layers"].isin(options.layers)]


def _simulated(options: argparse.Namespace) -> pd.DataFrame:
    """Simulate the undeformed crystal and those beside it, and return the bounds."""
    from pacbed.precision.design import simulated_bounds
    from pacbed.study.configuration import canonical, load

    config = canonical(load(configuration(options.config or [CONFIG])))
    layers = sorted(set(options.layers or config["dataset"]["layers"]))
    started = time.perf_counter()
    bar = Progress(
        TextColumn("simulating"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("crystals"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=None)
        bounds = simulated_bounds(
            config,
            layers,
            options.phonons or 0,
            options.threads or usable_cores(),
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(f"simulated in {time.perf_counter() - started:.0f} s")
    return bounds


def _print(doses: pd.DataFrame, options: argparse.Namespace, range_of: tuple[float, float]) -> None:
    """Print the electrons that are needed, by semi-angle and thickness."""
    layers = sorted(doses["layers"].unique())
    table = Table(
        title=f"Electrons per pattern for a strain precision of {_percent(options.precision)} "
        f"(standard deviation, worst component), probe at most {options.probe:.3g} nm",
        caption=f"* beyond the doses of the table ({range_of[0]:.3g} to {range_of[1]:.3g}), "
        "scaled as 1/√N",
    )
    for column in ("semi-angle (mrad)", "probe (nm)", "small enough"):
        table.add_column(column, justify="right")
    for n in layers:
        table.add_column(f"{n} layer{'s' if n > 1 else ''}", justify="right")
    for angle, rows in doses.groupby("semiangle_mrad"):
        of = rows.set_index("layers")
        probe = float(rows["probe_nm"].iloc[0])
        fits = probe <= options.probe
        table.add_row(
            f"{angle:g}",
            f"{probe:.3f}",
            "yes" if fits else "no",
            *(_cell(of.loc[n]) if n in of.index else "" for n in layers),
            style=None if fits else "dim",
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _cell(row: pd.Series) -> str:
    if not math.isfinite(row["electrons"]):
        return "never"
    return f"{row['electrons']:.2g}{'*' if row['beyond'] else ''}"


def _answer(doses: pd.DataFrame, options: argparse.Namespace, range_of: tuple[float, float]) -> str:
    """Say in a sentence what reaches precision and probe size, or what comes nearest."""
    precision, probe = _percent(options.precision), f"{options.probe:.3g} nm"
    highest = range_of[1]
    finite = doses[doses["electrons"] < math.inf]
    if finite.empty:
        return "No: strain cannot be read from these patterns at any dose."
    small = finite[finite["probe_nm"] <= options.probe]
    reached = small[small["electrons"] <= highest]
    if not reached.empty:
        return f"Yes: {_how(_fewest(reached), range_of)}."
    if small.empty:
        # The probe comes first: of the smallest ones, what needs the fewest electrons.
        smallest = finite[finite["probe_nm"] <= finite["probe_nm"].min() * (1 + 1e-9)]
        angle = smallest["semiangle_mrad"].iloc[0]
        needed = angle * smallest["probe_nm"].iloc[0] / options.probe
        return (
            f"No: a probe of {probe} takes a semi-angle of {needed:.3g} mrad, and these go up to "
            f"{angle:g}. The nearest: {_how(_fewest(smallest), range_of)}."
        )
    best = _fewest(small)
    attained = float(best["sigma"])
    return (
        f"No, not with up to {highest:.3g} electrons: the nearest with a probe of at most {probe} "
        f"is {best['semiangle_mrad']:g} mrad with {_layers(best['layers'])}, which reaches "
        f"{_percent(attained)} there and {precision} with {best['electrons']:.2g} electrons."
    )


def _fewest(doses: pd.DataFrame) -> pd.Series:
    """Return the row that needs the fewest electrons."""
    return doses.iloc[int(doses["electrons"].argmin())]


def _how(row: pd.Series, range_of: tuple[float, float]) -> str:
    beyond = ""
    if row["beyond"]:
        few = row["electrons"] < range_of[0]
        beyond = f" ({'fewer' if few else 'more'} than the table has: scaled as 1/√N)"
    return (
        f"{row['semiangle_mrad']:g} mrad (a probe of {row['probe_nm']:.3f} nm) with "
        f"{_layers(row['layers'])} needs the fewest electrons, {row['electrons']:.2g} per pattern"
        + beyond
    )


def _layers(count: int) -> str:
    return f"{count} layer{'s' if count > 1 else ''}"


def _percent(strain: float) -> str:
    return f"{100 * strain:.3g} %"


def _strain(text: str) -> float:
    match = re.fullmatch(rf"{_NUMBER}\s*(%?)", text.strip().lower())
    value = float(match[1]) * (0.01 if match[2] else 1) if match else math.nan
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a strain: write 0.05% or, as a fraction, 0.0005"
        )
    return value


def _length_nm(text: str) -> float:
    match = re.fullmatch(rf"{_NUMBER}\s*(nm|pm|å|a)", text.strip().lower())
    value = float(match[1]) * _NANOMETRES[match[2]] if match else math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a length: write a number and its unit, 0.15nm, 1.5A or 150pm"
        )
    return value


def _configurations(text: str) -> int:
    count = int(text) if text.isdecimal() else -1
    if count < 0 or count == 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not 0 (atoms at rest), 2 or more")
    return count
