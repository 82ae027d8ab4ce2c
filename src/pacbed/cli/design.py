"""``pacbed design``: what it takes to measure strain so precisely with a probe so small."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, Token
from rich.table import Table

from pacbed.cli.common import (
    Count,
    Overlays,
    Threads,
    progress,
    say,
    show_table,
    stderr,
)
from pacbed.exceptions import PacbedError
from pacbed.machine import usable_cores

if TYPE_CHECKING:
    import pandas as pd

_NUMBER = r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)"
_NANOMETRES = {"nm": 1.0, "å": 0.1, "a": 0.1, "pm": 1e-3}


def _quantity(units: Mapping[str, float], below: float, meaning: str) -> Parameter:
    """Return the parameter of a positive number with a unit."""

    def convert(kind: Any, tokens: Sequence[Token]) -> float:
        text = tokens[0].value
        match = re.fullmatch(rf"{_NUMBER}\s*({'|'.join(units)})", text.strip().lower())
        value = float(match[1]) * units[match[2]] if match else math.nan
        if not 0 < value < below:
            raise ValueError(f"'{text}' is not {meaning}.")
        return value

    return Parameter(
        converter=convert, metavar=meaning.split()[1].strip(":").upper(), allow_leading_hyphen=True
    )


_STRAIN = _quantity({"%": 0.01, "": 1}, 1, "a strain: write 0.05% or, as a fraction, 0.0005")
_LENGTH = _quantity(
    _NANOMETRES, math.inf, "a length: write a number and its unit, 0.15nm, 1.5A or 150pm"
)
_SIMULATION = "Without --bounds"


def _not_one(kind: Any, count: int | None) -> None:
    if count is not None and (count < 0 or count == 1):
        raise ValueError("It must be 0 (atoms at rest), 2 or more.")


def design(
    *,
    precision: Annotated[float, _STRAIN],
    probe: Annotated[float, _LENGTH],
    layers: Annotated[
        tuple[Count, ...], Parameter(show_default="those of the table or the configuration")
    ] = (),
    bounds: Annotated[Path | None, Parameter(show_default="simulate")] = None,
    figure: Path | None = None,
    config: Annotated[Overlays, Parameter(group=_SIMULATION)] = (),
    phonons: Annotated[
        int | None, Parameter(group=_SIMULATION, validator=_not_one, show_default="0")
    ] = None,
    threads: Annotated[Threads | None, Parameter(group=_SIMULATION)] = None,
    save: Annotated[Path | None, Parameter(group=_SIMULATION)] = None,
) -> None:
    """Find out what it takes to measure strain.

    For a strain precision and a probe size, print which semi-angles, thicknesses and numbers of
    electrons reach them at best: by the Cramér-Rao bound, which no unbiased reading of a
    pattern can surpass. Without a table of bounds, patterns are simulated first, with the
    plane-wave engine, of the undeformed crystal only and with the steps of section `bound` of
    the configuration.

    Parameters
    ----------
    precision
        Standard deviation of the worst strain component: 0.05% or 5e-4.
    probe
        Largest probe, full width at half maximum: 0.15nm, 1.5A or 150pm.
    layers
        Numbers of layers.
    bounds
        Table of bounds: tables/bounds.parquet in the results, or of --save.
    figure
        Also draw the answer (PNG or PDF).
    phonons
        Frozen-phonon configurations of each plane wave; 0: atoms at rest, many times faster.
    save
        Keep the table of bounds (.parquet or .csv).
    """
    from pacbed.precision.bound_table import read_bounds, required_doses
    from pacbed.storage.tables import write_table

    for option, path in (("figure", figure), ("save", save)):
        if path is not None and not path.parent.is_dir():
            raise PacbedError(f"--{option} {path}: there is no folder {path.parent}")
    # None of them has a default of its own: with --bounds, what is given is refused.
    for_simulation = {
        "config": config or None,
        "phonons": phonons,
        "threads": threads,
        "save": save,
    }
    given = " and ".join(f"--{name}" for name, value in for_simulation.items() if value is not None)
    if bounds is None:
        table = _simulated(config, layers, phonons or 0, threads or usable_cores())
        if save:
            write_table(table, save)
    elif given:
        raise PacbedError(
            f"with --bounds nothing is simulated, which {given} {'are' if ' ' in given else 'is'} "
            f"for: leave out --bounds or {given}"
        )
    else:
        table = _of_layers(read_bounds(bounds), layers, bounds)
    doses = required_doses(table, precision)
    lowest, highest = float(table["electrons"].min()), float(table["electrons"].max())
    _print(doses, precision, probe, f"{lowest:.3g} to {highest:.3g}")
    if precision >= 0.01:
        say(
            f"note: {_percent(precision)} is as wide as the strains of a study; without % a "
            "precision is a fraction"
        )
    print(_answer(doses, precision, probe, lowest, highest))
    if figure:
        from pacbed.figures import style
        from pacbed.figures.bounds import doses_against_probe_size

        drawn = doses_against_probe_size(doses, precision, probe, (lowest, highest))
        style.save(drawn, figure)
    for path in filter(None, (save, figure)):
        print(path)


def _of_layers(bounds: pd.DataFrame, layers: Sequence[int], path: Path) -> pd.DataFrame:
    """Return the bounds of the thicknesses that are asked for."""
    if not layers:
        return bounds
    known = sorted({int(n) for n in bounds["layers"]})
    if absent := sorted(set(layers) - set(known)):
        raise PacbedError(
            f"--layers {' '.join(map(str, absent))}: {path} has {', '.join(map(str, known))}"
        )
    return bounds[bounds["layers"].isin(layers)]


def _simulated(
    config: Sequence[Path], layers: Sequence[int], phonons: int, threads: int
) -> pd.DataFrame:
    """Simulate the undeformed crystal and its neighbours, and return the bounds."""
    from pacbed.precision.design import simulated_bounds
    from pacbed.study.configuration import load

    study = load(config)
    started = time.perf_counter()
    with progress(stderr()) as start:
        bounds = simulated_bounds(
            study.experiment(),
            sorted(set(layers or study.dataset.layers)),
            phonons,
            threads,
            start("simulated crystals"),
        )
    print(f"simulated in {time.perf_counter() - started:.0f} s")
    return bounds


def _print(doses: pd.DataFrame, precision: float, probe_nm: float, range_of: str) -> None:
    """Print the electrons that are needed, by semi-angle and thickness."""
    layers = sorted(doses["layers"].unique())
    table = Table(
        title=f"Electrons per pattern for a strain precision of {_percent(precision)} "
        f"(standard deviation, worst component), probe at most {probe_nm:.3g} nm",
        caption=f"* beyond the doses of the table ({range_of}), scaled as 1/√N",
    )
    for column in ("semi-angle (mrad)", "probe (nm)", "small enough", *map(_layers, layers)):
        table.add_column(column, justify="right")
    for angle, rows in doses.groupby("semiangle_mrad"):
        probe, cells = float(rows["probe_nm"].iloc[0]), {}
        for row in rows.to_dict("records"):
            electrons = f"{row['electrons']:.2g}{'*' if row['beyond'] else ''}"
            cells[row["layers"]] = electrons if math.isfinite(row["electrons"]) else "never"
        fits = probe <= probe_nm
        table.add_row(
            f"{angle:g}",
            f"{probe:.3f}",
            "yes" if fits else "no",
            *(cells.get(n, "") for n in layers),
            style=None if fits else "dim",
        )
    show_table(table)


def _answer(
    doses: pd.DataFrame, precision: float, probe_nm: float, lowest: float, highest: float
) -> str:
    """Return in a sentence what reaches precision and probe size, or what comes nearest."""

    def fewest(rows: pd.DataFrame) -> pd.Series:
        return rows.iloc[int(rows["electrons"].argmin())]

    def described(row: pd.Series) -> str:
        fewer = "fewer" if row["electrons"] < lowest else "more"
        return (
            f"{row['semiangle_mrad']:g} mrad (a probe of {row['probe_nm']:.3f} nm) with "
            f"{_layers(row['layers'])} needs the fewest electrons, {row['electrons']:.2g} per "
            "pattern" + f" ({fewer} than the table has: scaled as 1/√N)" * bool(row["beyond"])
        )

    finite = doses[doses["electrons"] < math.inf]
    if finite.empty:
        return "No: strain cannot be read from these patterns at any dose."
    small = finite[finite["probe_nm"] <= probe_nm]
    reached = small[small["electrons"] <= highest]
    if not reached.empty:
        return f"Yes: {described(fewest(reached))}."
    if small.empty:
        # The probe comes first: of the smallest ones, what needs the fewest electrons.
        smallest = finite[finite["probe_nm"] <= finite["probe_nm"].min() * (1 + 1e-9)]
        best = fewest(smallest)
        angle = best["semiangle_mrad"]
        return (
            f"No: a probe of {probe_nm:.3g} nm takes a semi-angle of "
            f"{angle * best['probe_nm'] / probe_nm:.3g} mrad, and these go up to {angle:g}. "
            f"The nearest: {described(best)}."
        )
    best = fewest(small)
    return (
        f"No, not with up to {highest:.3g} electrons: the nearest with a probe of at most "
        f"{probe_nm:.3g} nm is {best['semiangle_mrad']:g} mrad with {_layers(best['layers'])}, "
        f"which reaches {_percent(best['sigma'])} there and {_percent(precision)} with "
        f"{best['electrons']:.2g} electrons."
    )


def _layers(count: int) -> str:
    return f"{count} layer{'s' if count > 1 else ''}"


def _percent(strain: float) -> str:
    return f"{100 * strain:.3g} %"
