"""``pacbed map``: from the scan of a microscope to maps of strain with error bars."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from cyclopts import Parameter
from rich.table import Table

from pacbed import __version__
from pacbed.cli.common import (
    Count,
    Threads,
    changed,
    progress,
    say,
    show_table,
    spent,
    stderr,
)
from pacbed.cli.read import layer_numbers
from pacbed.cli.scans import ScanFile, ScanFiles
from pacbed.cli.scatter import WIDEST_FIELD_mrad, make_series, series_request
from pacbed.cli.simulate import Computation, PlaneWaveOptions
from pacbed.cli.structures import AnyCrystal
from pacbed.exceptions import PacbedError
from pacbed.machine import usable_cores
from pacbed.reading.maps.settings import CalibrationSettings, MapSettings

if TYPE_CHECKING:
    from pacbed.reading.maps.calibration import Calibration
    from pacbed.reading.maps.store import StrainMap
    from pacbed.reading.scans.scan import Scan
    from pacbed.scattering.request import SeriesRequest
    from pacbed.specimen.crystal import Crystal

# Layers are written as ranges, too.
_FITTED = Parameter(name="*", group="Fit", parse="^(?!layers)")
_CALIBRATED = Parameter(name="*", group="Calibration")
_SERIES = Parameter(name="*", group="Scattering series")
_CRYSTAL = Parameter(name="*", group="Crystal")
# The semi-angle is fitted, and may be so much larger than said.
_LARGER = 1.04


@dataclass(frozen=True)
class Calibrating(CalibrationSettings):
    """What is known of what all patterns have in common.

    Parameters
    ----------
    calibration
        Calibration of an earlier map (.json), which is used as it is.
    """

    calibration: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_alone(self, "calibration")


@dataclass(frozen=True)
class MapSeries:
    """The scattering series, which is made once and kept in the cache.

    Parameters
    ----------
    series
        Take this one, see `pacbed scatter`.
    stretch
        Smallest and largest principal stretch.
    tilt_mrad
        Largest sample tilt, in any direction, in mrad.
    states
        Number of strain states.
    """

    series: Path | None = None
    stretch: tuple[float, float] = (0.96, 1.04)
    tilt_mrad: float = 5.0
    states: Count = 30

    def __post_init__(self) -> None:
        _check_alone(self, "series")


def _check_alone(options: Calibrating | MapSeries, name: str) -> None:
    """Refuse options that have no effect next to the file that an option names."""
    if getattr(options, name) is None:
        return
    if given := [option for option in changed(options) if option != f"--{name}"]:
        raise PacbedError(f"--{name} is used as it is: leave out {', '.join(given)}, or --{name}")


def map(
    scan: Path,
    /,
    *,
    output: Path,
    layers: tuple[str, ...],
    figure: Path | None = None,
    report: Path | None = None,
    threads: Threads = usable_cores(),
    structure: Annotated[AnyCrystal, _CRYSTAL] = AnyCrystal(),
    mapping: Annotated[MapSettings, _FITTED] = MapSettings(),
    calibrating: Annotated[Calibrating, _CALIBRATED] = Calibrating(),
    held: Annotated[MapSeries, _SERIES] = MapSeries(),
    options: ScanFiles = ScanFile(),
) -> None:
    """Map strain, rotation, tilt and thickness of a scan.

    Every number has an error bar. First what all patterns have in common is found: geometry,
    camera, orientation of the crystal (written next to the map as `NAME.calibration.json`). Then
    every point is fitted. If the command is stopped, the same command continues.

    Parameters
    ----------
    scan
        File of the scan, see `pacbed inspect`.
    output
        File of the map, such as map.zarr.zip.
    layers
        Number of layers, or those that there may be: 5, 4 5 6 or 1-10.
    figure
        Also draw the map (PNG or PDF).
    report
        Also write a page about it (HTML).
    """
    from pacbed.figures.style import check_drawable
    from pacbed.reading.maps.calibration import Calibration
    from pacbed.reading.scans.scan import open_scan
    from pacbed.storage.files import check_apart, check_new, check_writable

    settings = replace(mapping, layers=layer_numbers(layers))
    parts, saved = parts_folder(output), calibration_file(output)
    check_apart(
        [output, parts, saved, figure, report],
        [scan, held.series, structure.file, *structure.config],
    )
    # That of an earlier map of this name may be used again.
    check_apart([output, figure, report], [calibrating.calibration, calibrating.mtf])
    check_new(output)
    check_writable(output, parts / "map.json", saved, figure, report)
    check_drawable(figure)
    if report and report.suffix.lower() not in (".html", ".htm"):
        raise PacbedError(f"--report {report}: it is a page, name it .html")
    opened = open_scan(scan, options)
    settings.check(opened.shape)
    known = None
    if calibrating.calibration is not None:
        known = Calibration.read(calibrating.calibration)
        known.check(opened)
    with _sole_map(output):
        made = _made(opened, structure, parts, saved, threads, settings, calibrating, known, held)
        _write(output, made, figure, report)
        shutil.rmtree(parts, ignore_errors=True)
    _print(made)
    for path in (output, saved, figure, report):
        if path is not None:
            print(path)


def parts_folder(output: Path) -> Path:
    """Return where what is done of a map is kept until it is finished."""
    return output.with_name(f"{output.name}.parts")


def calibration_file(output: Path) -> Path:
    """Return where the calibration of a map is written."""
    return output.with_name(f"{output.name.removesuffix('.zarr.zip')}.calibration.json")


def work(
    points: tuple[int, int], pixels: tuple[int, int], settings: MapSettings
) -> tuple[int, float]:
    """Return how many points a map has, and their pixels in units of 128 × 128.

    Parameters
    ----------
    points, pixels
        Of the scan, and of a pattern.
    settings
        How the map is made.
    """
    count = math.prod(max(1, (n - settings.window) // settings.every + 1) for n in points)
    return count, count * math.prod(pixels) / 128**2


@contextmanager
def _sole_map(output: Path) -> Iterator[None]:
    """Refuse a second map into the same file."""
    from pacbed.runs.locks import LockedError, lock

    path = output.with_name(f".{output.name}.lock")
    try:
        held = lock(path)
    except LockedError as error:
        raise PacbedError(
            f"{error.owner} makes a map into {output} now: wait, or give another --output"
        ) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        held.release()


def _made(
    opened: Scan,
    structure: AnyCrystal,
    parts: Path,
    saved: Path,
    threads: int,
    settings: MapSettings,
    calibrating: Calibrating,
    known: Calibration | None,
    held: MapSeries,
) -> StrainMap:
    from pacbed.learning.training import configure
    from pacbed.reading.maps.calibrate import calibrate
    from pacbed.reading.maps.maker import MapMaker
    from pacbed.reading.maps.making import file_state, make_map, scan_state
    from pacbed.runs.cost_model import other as cost_of
    from pacbed.scattering.mtf import read_mtf
    from pacbed.scattering.series import ScatteringSeries
    from pacbed.storage.zipped import plain

    console = stderr()
    for note in opened.notes:
        say(f"note: {note}", console)
    said = opened.semiangle_mrad or (known.semiangle_mrad if known else None)
    semiangle = _known(said, "semi-angle", "--semiangle")
    points, units = work(opened.shape, opened.pattern_shape, settings)
    say(f"{points:,} points take {spent(cost_of('map', units, threads).seconds)}", console)
    path, request = _asked_series(opened, settings.layers, structure, semiangle, held)
    asked: dict[str, Any] = {
        "scan": str(opened.path and opened.path.absolute()),
        **scan_state(opened),
        "scan_options": asdict(opened.options),
        "settings": asdict(settings),
        "calibration": known and asdict(known),
        "calibrating": asdict(replace(calibrating, calibration=None, mtf=None)),
        "mtf": calibrating.mtf and asdict(read_mtf(calibrating.mtf)),
        "series": str(path.absolute()),
        # That of the cache has all that it follows from in its name.
        "series_file": held.series and file_state(path),
        "series_request": request.to_dict(),
        "pacbed_version": __version__,
    }
    asked = plain(asked)
    before = _begun(parts, asked)
    if held.series is None:
        _make_series(path, request, threads)
    series = ScatteringSeries(path)
    configure(threads, log=lambda line: say(line, console))
    with progress(console) as start:
        calibration = known or before
        if calibration is None:
            calibration = calibrate(opened, series, settings, calibrating, start("calibration"))
            calibration.write(parts / "calibration.json")
        _save(calibration, saved)
        if hidden := len(calibration.masked_px):
            say(f"note: {hidden} pixels are masked in all patterns", console)
        if opened.mirrored is None:
            say(
                "note: nobody said whether patterns are mirrored; they are taken as they are "
                "(--not-mirrored or --mirrored)",
                console,
            )
        if not calibration.turn_told_apart:
            say(
                "note: the patterns do not tell whether the crystal is turned by another 180°, "
                "with the opposite tilt",
                console,
            )
        maker = MapMaker(opened, series, calibration, settings)
        said_before = maker.warnings()
        for line in said_before:
            say(f"warning: {line}", console)
        made = make_map(
            maker, parts, start("points"), threads, lambda line: say(line, console), asked
        )
    for line in made.attributes["warnings"][len(said_before) :]:
        say(f"warning: {line}", console)
    return made


def _known(value: float | None, what: str, option: str) -> float:
    if value is None:
        raise PacbedError(f"the file does not say the {what}: give it with {option}")
    return value


def _asked_series(
    opened: Scan,
    layers: tuple[int, ...],
    structure: AnyCrystal,
    semiangle: float,
    held: MapSeries,
) -> tuple[Path, SeriesRequest]:
    """Return the series that is given, or that of the cache, which may not be there yet."""
    from pacbed.scattering.series import ScatteringSeries

    if held.series is not None:
        found = ScatteringSeries(held.series)
        request = found.request
        if structure.named and (crystal := structure.crystal()) != request.material:
            raise PacbedError(f"{held.series} is of {request.material.name}, not of {crystal.name}")
        if opened.energy_keV and abs(opened.energy_keV / request.energy_keV - 1) > 1e-3:
            raise PacbedError(
                f"{held.series} is for {request.energy_keV:g} keV, the scan was taken with "
                f"{opened.energy_keV:g} keV: give another series, or --energy"
            )
        found.check_layers(layers)
        return held.series, request
    if not structure.named:
        raise PacbedError("name the crystal with --material or --config, or a series with --series")
    request = _request(opened, layers, structure.crystal(), semiangle, held)
    asked = json.dumps([request.to_dict(), asdict(PlaneWaveOptions())], sort_keys=True)
    name = f"{request.material.name}-{hashlib.sha256(asked.encode()).hexdigest()[:16]}"
    return cache_folder() / f"{name}.series.zarr.zip", request


def _make_series(path: Path, request: SeriesRequest, threads: int) -> None:
    """Make a series in the cache, unless it is there."""
    from pacbed.runs.locks import sole_maker

    if not path.exists():
        say(f"the scattering series is made once, and kept in {path.parent}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with sole_maker(path, say, timeout_s=3600):
        make_series(path, request, PlaneWaveOptions(), Computation(threads=threads), "--series")


def _request(
    opened: Scan, layers: tuple[int, ...], crystal: Crystal, semiangle: float, held: MapSeries
) -> SeriesRequest:
    """Return a series for a scan, with round numbers, so that others like it share it."""
    energy = _known(opened.energy_keV, "beam energy", "--energy")
    wide = max(opened.pattern_shape) * (opened.pixel_mrad or WIDEST_FIELD_mrad)
    largest = float(np.ceil(semiangle * _LARGER * 100) / 100)
    field = float(10 * np.ceil(1.04 * wide / 10))
    return series_request(
        crystal, energy, layers, held.stretch, largest, held.tilt_mrad, field, held.states
    )


def cache_folder() -> Path:
    """Return where series are kept that are made for maps."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "pacbed"


def _begun(parts: Path, asked: dict[str, Any]) -> Calibration | None:
    """Return the calibration of this map if it was stopped after that; refuse another map."""
    from pacbed.reading.maps.calibration import Calibration
    from pacbed.reading.maps.making import check_parts, forget_parts

    check_parts(parts, asked, say)
    file = parts / "calibration.json"
    try:
        return Calibration.read(file) if file.exists() else None
    except PacbedError as error:
        if isinstance(error.__cause__, OSError):
            raise
        say(f"{file} is damaged: the scan is calibrated and all points are fitted again")
        forget_parts(parts)
        check_parts(parts, asked)
        return None


def _save(found: Calibration, path: Path) -> None:
    """Write a calibration; another one that has its name, perhaps edited, gets a new name."""
    from pacbed.reading.maps.calibration import Calibration

    if path.exists():
        with suppress(PacbedError):
            if Calibration.read(path) == found:
                return
        names = (path.with_suffix(f".{n}.json") for n in itertools.count(1))
        kept = next(name for name in names if not name.exists())
        path.rename(kept)
        say(
            f"warning: {path} was there already, with other values, which are not used. It is kept "
            f"as {kept.name}: to use it, give it with --calibration"
        )
    found.write(path)


def _write(output: Path, made: StrainMap, figure: Path | None, report: Path | None) -> None:
    from pacbed.reading.maps.store import write_map

    write_map(output, made)
    if figure is not None:
        from pacbed.figures.maps import map_figure
        from pacbed.figures.style import save

        save(map_figure(made), figure)
    if report is not None:
        from pacbed.figures.map_report import write_map_report

        write_map_report(report, made)


def _print(made: StrainMap) -> None:
    """Print medians with errors, shares of flags, and regions."""
    from pacbed.examples.labels import PARAMETERS, display_unit, head
    from pacbed.reading.maps.store import FLAGS

    table = Table(title="Map: medians, and their standard deviations")
    for column in ("", "median", "from (5 %)", "to (95 %)", "σ of a point", "σ in common"):
        table.add_column(column, justify="right" if column else "left")
    rows = {name: head(name) for name in PARAMETERS}
    rows |= {"electrons": "electrons", "chi2_per_pixel": "χ² per pixel"}
    for name, row in rows.items():
        factor, _ = display_unit(name)
        values = factor * made.values[name]
        low, middle, high = np.nanquantile(values, (0.05, 0.5, 0.95))
        sigma = made.sigma(name)
        own = "" if sigma is None else f"{factor * np.nanmedian(sigma):.2g}"
        common = factor * made.common_sigma(name)
        shown = [f"{value:.4g}" for value in (middle, low, high)]
        table.add_row(row, *shown, own, f"{common:.2g}" if common else "")
    show_table(table)
    layers = made.values["layers"]
    found, counts = np.unique(layers[layers > 0], return_counts=True)
    regions = ", ".join(f"{n} ({c / layers.size:.0%})" for n, c in zip(found, counts, strict=True))
    print(f"layers: {regions}")
    shares = {words: made.flagged(bit).mean() for bit, words in FLAGS.items()}
    print("flags: " + (", ".join(f"{w} {s:.1%}" for w, s in shares.items() if s) or "none"))
