"""``pacbed design``: what it takes to measure strain so precisely with a probe so small."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, Token
from rich.table import Table

from pacbed.cli.common import Count, Overlays, Threads, progress, say, show_table, stderr
from pacbed.cli.structures import Structure, configured
from pacbed.exceptions import PacbedError
from pacbed.machine import usable_cores

if TYPE_CHECKING:
    import pandas as pd

    from pacbed.study.model import Configuration

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
_PLANE_WAVES = "Without --bounds and --series"


def _not_one(kind: Any, count: int | None) -> None:
    if count is not None and (count < 0 or count == 1):
        raise ValueError("It must be 0 (no diffuse scattering), 2 or more.")


def design(
    *,
    precision: Annotated[float, _STRAIN],
    probe: Annotated[float, _LENGTH],
    layers: Annotated[
        tuple[Count, ...], Parameter(show_default="those of the table or the configuration")
    ] = (),
    bounds: Annotated[Path | None, Parameter(show_default="simulate")] = None,
    series: Path | None = None,
    figure: Path | None = None,
    nuisances: Annotated[bool, Parameter(negative=())] = False,
    config: Annotated[Overlays, Parameter(group=_SIMULATION)] = (),
    structure: Annotated[Structure, Parameter(name="*", group=_SIMULATION)] = Structure(),
    phonons: Annotated[
        int | None, Parameter(group=_PLANE_WAVES, validator=_not_one, show_default="full motion")
    ] = None,
    threads: Annotated[Threads | None, Parameter(group=_PLANE_WAVES)] = None,
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
    series
        Scattering series from which the bounds are computed instead, in seconds (see
        `pacbed scatter`).
    figure
        Also draw the answer (PNG or PDF).
    nuisances
        With --series, also print what it costs not to know the camera: how much larger the bound of
        strain becomes with an unknown ellipticity, blur, background or semi-angle.
    phonons
        Frozen-phonon configurations of each plane wave; 0: no diffuse scattering.
    save
        Keep the table of bounds (.parquet, which needs PyArrow, or .csv).
    """
    from pacbed.figures.style import check_drawable
    from pacbed.precision.bound_table import read_bounds, required_doses
    from pacbed.storage.files import check_writable
    from pacbed.storage.tables import write_table

    check_drawable(figure)
    check_writable(save)
    # None of them has a default of its own: where it does nothing, what is given is refused.
    for_plane_waves = {"phonons": phonons, "threads": threads}
    if nuisances and series is None:
        raise PacbedError("--nuisances takes its derivatives from a series: give --series")
    prices = None
    if bounds is None:
        if series is None:
            study = configured(config, structure)
            table = _simulated(study, layers, phonons, threads or usable_cores())
        else:
            _refuse("series", for_plane_waves)
            study = configured(config, structure)
            table = _of_series(study, layers, series)
            prices = _prices(study, table, series) if nuisances else None
        if save:
            save = write_table(table, save)
    else:
        others = {
            "config": config or None,
            "material": structure.material,
            **for_plane_waves,
            "save": save,
            "series": series,
        }
        _refuse("bounds", others)
        table = read_bounds(bounds)
        known = sorted(set(table["layers"].tolist()))
        if absent := [str(n) for n in layers if n not in known]:
            raise PacbedError(
                f"--layers {' '.join(absent)}: {bounds} has {', '.join(map(str, known))}"
            )
        table = table[table["layers"].isin(layers or known)]
    doses = required_doses(table, precision)
    lowest, highest = float(table["electrons"].min()), float(table["electrons"].max())
    title = (
        f"Electrons per pattern for a strain precision of {_percent(precision)} "
        f"(standard deviation, worst component), probe at most {probe:.3g} nm"
    )
    caption = f"* beyond the doses of the table ({lowest:.3g} to {highest:.3g}), scaled as 1/√N"
    show_table(_by_semiangle(doses, probe, title, caption))
    if prices is not None:
        show_table(_by_nuisance(prices))
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


def _refuse(option: str, others: Mapping[str, Any]) -> None:
    """Refuse options of a simulation that an option takes the place of."""
    given = " and ".join(f"--{name}" for name, value in others.items() if value is not None)
    if given:
        raise PacbedError(f"with --{option} nothing is simulated: leave out --{option} or {given}")


def _simulated(
    study: Configuration, layers: Sequence[int], phonons: int | None, threads: int
) -> pd.DataFrame:
    """Simulate the undeformed crystal and its neighbours, and return the bounds."""
    from pacbed.precision.design import simulated_bounds

    planned = study.for_bound().simulation
    motion = planned.motion if planned.engine == "planewave" else "full"
    started = time.perf_counter()
    with progress(stderr()) as start:
        bounds = simulated_bounds(
            study.experiment(),
            sorted(set(layers or study.dataset.layers)),
            motion if phonons is None else phonons or "coherent",
            threads,
            start("simulated crystals"),
        )
    print(f"simulated in {time.perf_counter() - started:.0f} s")
    return bounds


def _of_series(study: Configuration, layers: Sequence[int], path: Path) -> pd.DataFrame:
    """Return the bounds of the undeformed crystal from a scattering series."""
    from pacbed.precision.design import bounds_of_series
    from pacbed.scattering.series import ScatteringSeries

    series = ScatteringSeries(path)
    # Of what the configuration asks for, what the series holds.
    held = [n for n in study.dataset.layers if n <= series.request.layers]
    experiment, reach = study.experiment(), series.request.semiangle_mrad
    apertures = tuple(one for one in experiment.apertures if one.outer_mrad <= reach * (1 + 1e-6))
    if not apertures or not (layers or held):
        raise PacbedError(
            f"{path} holds up to {series.request.layers} layers and semi-angles up to {reach:g} "
            "mrad, less than the configuration asks for: give another with --config"
        )
    wanted = sorted(set(layers or held))
    return bounds_of_series(replace(experiment, apertures=apertures), series, wanted)


def _prices(study: Configuration, bounds: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return what nuisances cost at the semi-angles and thicknesses of a table of bounds."""
    from pacbed.precision.nuisances import price_table
    from pacbed.scattering.image_model import Frame
    from pacbed.scattering.series import ScatteringSeries

    seen = study.augmentation()
    return price_table(
        ScatteringSeries(path),
        list(map(study.microscope.aperture, sorted(set(bounds["semiangle_mrad"])))),
        sorted(set(bounds["layers"].tolist())),
        Frame.centred(seen.pixels, seen.field_of_view_mrad, seen.mtf),
    )


def _by_nuisance(prices: pd.DataFrame) -> Table:
    """Return the price of each nuisance, by semi-angle and thickness."""
    from pacbed.precision.nuisances import BLUR_PX, NUISANCES

    strains = prices[prices["parameter"].str.startswith("strain")]
    worst = strains.groupby(["semiangle_mrad", "layers", "nuisance"])["sigma"].max()
    table = Table(
        title="Standard deviation of strain (worst component) when more is unknown, relative to "
        "the bound",
        caption=f"the bound for 1e6 electrons; a blur has a standard deviation of {BLUR_PX:g} "
        "pixels; all: semi-angle, ellipticity, background, halo and blur",
    )
    names = [name for name in NUISANCES if name != "none"]
    for column in ("semi-angle (mrad)", "layers", "bound (%)", *names):
        table.add_column(column, justify="right")
    shown = worst.unstack("nuisance")
    samples: list[tuple[float, int]] = shown.index.tolist()
    for (angle, layers), row in zip(samples, shown.to_dict("records"), strict=True):
        cells = [f"{row[name] / row['none']:.3g}" for name in names]
        table.add_row(f"{angle:g}", f"{layers}", f"{0.1 * row['none']:.2g}", *cells)
    return table


def _by_semiangle(doses: pd.DataFrame, probe_nm: float, title: str, caption: str) -> Table:
    """Return the electrons that are needed, by semi-angle and thickness."""
    shown = doses.assign(
        probe_nm=doses.groupby("semiangle_mrad")["probe_nm"].transform("first"),
        text=[
            f"{n:.2g}{'*' * beyond}" if math.isfinite(n) else "never"
            for n, beyond in zip(doses["electrons"], doses["beyond"], strict=True)
        ],
    ).pivot(index=["semiangle_mrad", "probe_nm"], columns="layers", values="text")
    table = Table(title=title, caption=caption)
    layers = [int(n) for n in shown.columns]
    for column in ("semi-angle (mrad)", "probe (nm)", "small enough", *map(_layers, layers)):
        table.add_column(column, justify="right")
    rows: list[tuple[float, float]] = shown.index.tolist()
    for (angle, size), cells in zip(rows, shown.fillna("").to_numpy().tolist(), strict=True):
        fits = size <= probe_nm
        first = f"{angle:g}", f"{size:.3f}", "yes" if fits else "no"
        table.add_row(*first, *cells, style=None if fits else "dim")
    return table


def _answer(
    doses: pd.DataFrame, precision: float, probe_nm: float, lowest: float, highest: float
) -> str:
    """Return in a sentence what reaches precision and probe size, or what comes nearest."""
    finite = doses[doses["electrons"] < math.inf].sort_values("electrons", kind="stable")
    if finite.empty:
        return "No: strain cannot be read from these patterns at any dose."
    small, smallest = finite["probe_nm"] <= probe_nm, finite["probe_nm"].min() * (1 + 1e-9)
    # The probe comes first: if none is small enough, the smallest.
    best = finite[small if small.any() else finite["probe_nm"] <= smallest].iloc[0]
    angle, electrons, size = best["semiangle_mrad"], best["electrons"], best["probe_nm"]
    layers = _layers(best["layers"])
    if small.any() and electrons > highest:
        return (
            f"No, not with up to {highest:.3g} electrons: the nearest with a probe of at most "
            f"{probe_nm:.3g} nm is {angle:g} mrad with {layers}, which reaches "
            f"{_percent(best['sigma'])} there and {_percent(precision)} with {electrons:.2g} "
            "electrons."
        )
    scaled = f" ({'fewer' if electrons < lowest else 'more'} than the table has: scaled as 1/√N)"
    described = (
        f"{angle:g} mrad (a probe of {size:.3f} nm) with {layers} needs the fewest electrons, "
        f"{electrons:.2g} per pattern{scaled if best['beyond'] else ''}."
    )
    if small.any():
        return f"Yes: {described}"
    return (
        f"No: a probe of {probe_nm:.3g} nm takes a semi-angle of {angle * size / probe_nm:.3g} "
        f"mrad, and these go up to {angle:g}. The nearest: {described}"
    )


def _layers(count: int) -> str:
    return f"{count} layer{'s' if count > 1 else ''}"


def _percent(strain: float) -> str:
    return f"{100 * strain:.3g} %"
