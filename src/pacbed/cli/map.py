"""``pacbed map``: from the scan of a microscope to maps of strain with error bars."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from cyclopts import Parameter
from rich.table import Table

from pacbed.cli.common import (
    NOT_NEGATIVE,
    POSITIVE,
    Count,
    Flat,
    Positive,
    Threads,
    progress,
    say,
    show_table,
    stderr,
)
from pacbed.cli.read import layer_numbers
from pacbed.cli.scans import Box, ScanFile
from pacbed.cli.scatter import WIDEST_FIELD_mrad, make_series, series_request
from pacbed.cli.simulate import Computation, PlaneWaveOptions
from pacbed.cli.structures import Structure
from pacbed.exceptions import PacbedError
from pacbed.machine import usable_cores

if TYPE_CHECKING:
    from rich.console import Console

    from pacbed.reading.calibration import Calibration
    from pacbed.reading.map_store import StrainMap
    from pacbed.reading.maps import MapSettings
    from pacbed.reading.scans import Scan
    from pacbed.scattering.request import SeriesRequest
    from pacbed.scattering.series import ScatteringSeries
    from pacbed.specimen.crystal import Crystal

_FITTED = Parameter(name="*", group="Fit")
_CALIBRATED = Parameter(name="*", group="Calibration")
_SERIES = Parameter(name="*", group="Scattering series")
_CRYSTAL = Parameter(name="*", group="Crystal")
# The semi-angle is fitted, and may be so much larger than said.
_LARGER = 1.04
# χ² per pixel from which the crystal or the microscope may be another one than said.
_WRONG = 1.5


@dataclass(frozen=True)
class Calibrating:
    """What is known of what all patterns have in common.

    Parameters
    ----------
    calibration
        Calibration of an earlier map (.json), which is used as it is.
    pixel_uncertainty
        Relative standard deviation of the size of a pixel. It becomes part of the common error of
        strain.
    semiangle_uncertainty
        Relative standard deviation of the semi-angle. If the size of a pixel is not known, it
        becomes part of the common error of strain.
    zigzag_near
        Direction in the patterns in degrees, counter-clockwise from x: of the zigzag axes, 60°
        apart, the one nearest to it is x of the crystal.
    counts_per_electron
        Gain of the camera. Without it, it follows from the residuals, and χ² is relative.
    """

    calibration: Path | None = None
    pixel_uncertainty: Annotated[float, Parameter(validator=POSITIVE)] = 0.002
    semiangle_uncertainty: Annotated[float, Parameter(validator=POSITIVE)] = 0.03
    zigzag_near: float = 0.0
    counts_per_electron: Positive = None


@dataclass(frozen=True)
class MapOptions:
    """How a map is made.

    Parameters
    ----------
    thickness
        by-region: neighbouring points have the same number of layers unless their patterns show
        otherwise; by-pattern: all numbers are tried at every point, which takes longer.
    window
        So many points along each axis are added up.
    every
        Points of the map are so many points of the scan apart.
    reference
        Undeformed region x0 y0 x1 y1, in points, to which relative strain refers; x1 and y1 do not
        belong to it. If the size of a pixel is not known, the scale follows from it.
    axes
        Of strain and tilt: those of the crystal (x along zigzag), or of the scan.
    scan_rotation
        Direction of x of the scan in the patterns, counter-clockwise, in degrees.
    model_error
        Relative standard deviation of the expected intensity of a pixel: what is not known of the
        potential and of thermal motion.
    least_electrons
        Points with fewer electrons are not fitted.
    """

    thickness: Literal["by-region", "by-pattern"] = "by-region"
    window: Count = 1
    every: Count = 1
    reference: Box | None = None
    axes: Literal["crystal", "scan"] = "crystal"
    scan_rotation: float = 0.0
    model_error: Annotated[float, Parameter(validator=NOT_NEGATIVE)] = 0.02
    least_electrons: Annotated[float, Parameter(validator=POSITIVE)] = 500.0


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


def map(
    scan: Path,
    /,
    *,
    output: Path,
    layers: tuple[str, ...],
    figure: Path | None = None,
    report: Path | None = None,
    threads: Threads = usable_cores(),
    structure: Annotated[Structure, _CRYSTAL] = Structure(),
    mapping: Annotated[MapOptions, _FITTED] = MapOptions(),
    calibrating: Annotated[Calibrating, _CALIBRATED] = Calibrating(),
    held: Annotated[MapSeries, _SERIES] = MapSeries(),
    options: Flat[ScanFile] = ScanFile(),
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
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from pacbed.figures.style import check_drawable
    from pacbed.reading.calibration import Calibration
    from pacbed.reading.scans import open_scan
    from pacbed.storage.files import check_not_read, check_writable

    numbers = layer_numbers(layers)
    if output.exists():
        raise PacbedError(f"{output} is there already: give another --output, or remove it")
    parts = output.with_name(f"{output.name}.parts")
    saved = output.with_name(
        f"{output.name.removesuffix('.zip').removesuffix('.zarr')}.calibration.json"
    )
    check_writable(output, parts / "map.json", saved, figure, report)
    check_drawable(figure)
    for path in (scan, held.series, calibrating.calibration):
        check_not_read(path, saved, figure, report)
    opened = open_scan(scan, options.options())
    if calibrating.calibration is not None:  # before a series is made
        Calibration.read(calibrating.calibration)
    with _sole_map(output):
        made = _made(opened, numbers, structure, parts, saved, threads, mapping, calibrating, held)
        _write(output, made, figure, report)
        shutil.rmtree(parts, ignore_errors=True)
    _print(made)
    for path in (output, saved, figure, report):
        if path is not None:
            print(path)


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
    layers: tuple[int, ...],
    structure: Structure,
    parts: Path,
    saved: Path,
    threads: int,
    mapping: MapOptions,
    calibrating: Calibrating,
    held: MapSeries,
) -> StrainMap:
    from pacbed.learning.training import configure
    from pacbed.reading.maps import MapMaker, MapSettings, make_map

    console = stderr()
    for note in opened.notes:
        say(f"note: {note}", console)
    semiangle = _known(opened.semiangle_mrad, "semi-angle", "--semiangle")
    series = _series(opened, layers, structure, semiangle, threads, held)
    configure(threads, log=lambda line: say(line, console))
    settings = MapSettings(
        layers,
        mapping.thickness,
        mapping.window,
        mapping.every,
        mapping.reference,
        mapping.axes,
        mapping.scan_rotation,
        mapping.model_error,
        mapping.least_electrons,
    )
    with progress(console) as start:
        calibration = _calibration(
            opened, series, semiangle, settings, calibrating, parts, start("calibration")
        )
        calibration.write(saved)
        _warn(opened, series, calibration, settings, console)
        maker = MapMaker(opened, series, calibration, settings)
        return make_map(maker, parts, start("points"), threads)


def _known(value: float | None, what: str, option: str) -> float:
    if value is None:
        raise PacbedError(f"the file does not say the {what}: give it with {option}")
    return value


def _series(
    opened: Scan,
    layers: tuple[int, ...],
    structure: Structure,
    semiangle: float,
    threads: int,
    held: MapSeries,
) -> ScatteringSeries:
    """Return the series that is given, or that of the cache, which is made if it is not there."""
    from pacbed.scattering.series import ScatteringSeries

    if held.series is not None:
        found = ScatteringSeries(held.series)
        request = found.request
        if structure.section() and (crystal := structure.crystal()) != request.material:
            raise PacbedError(f"{held.series} is of {request.material.name}, not of {crystal.name}")
        if opened.energy_keV and abs(opened.energy_keV / request.energy_keV - 1) > 1e-3:
            raise PacbedError(
                f"{held.series} is for {request.energy_keV:g} keV, the scan was taken with "
                f"{opened.energy_keV:g} keV: give another series, or --energy"
            )
        found.check_layers(layers)
        return found
    if not structure.section():
        raise PacbedError("name the crystal with --material, or a series with --series")
    request = _request(opened, layers, structure.crystal(), semiangle, held)
    settings = PlaneWaveOptions()
    asked = json.dumps([request.to_dict(), asdict(settings)], sort_keys=True)
    name = f"{request.material.name}-{hashlib.sha256(asked.encode()).hexdigest()[:16]}"
    path = cache_folder() / f"{name}.series.zarr.zip"
    from pacbed.runs.locks import sole_maker

    if not path.exists():
        say(f"the scattering series is made once, and kept in {path.parent}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with sole_maker(path, say, timeout_s=3600):
        make_series(path, request, settings, Computation(threads=threads), "--series")
    return ScatteringSeries(path)


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


def _calibration(
    opened: Scan,
    series: ScatteringSeries,
    semiangle: float,
    settings: MapSettings,
    given: Calibrating,
    parts: Path,
    report: Any,
) -> Calibration:
    """Return the calibration that is given, that of a map that was stopped, or a new one."""
    from pacbed.reading.calibration import Calibration, CalibrationSettings, calibrate
    from pacbed.storage.files import write_text

    if given.calibration is not None:
        return Calibration.read(given.calibration)
    wanted = CalibrationSettings(
        semiangle,
        settings.layers,
        given.semiangle_uncertainty,
        given.pixel_uncertainty,
        given.zigzag_near,
        settings.reference,
        given.counts_per_electron,
        settings.model_error,
        settings.window,
    )
    asked = json.dumps([asdict(wanted), str(opened.path), asdict(opened.options)], indent=1)
    before, file = parts / "calibration_settings.json", parts / "calibration.json"
    if file.exists() and before.exists() and before.read_text(encoding="utf-8") == asked:
        return Calibration.read(file)
    found = calibrate(opened, series, wanted, report)
    found.write(file)
    write_text(before, asked)
    return found


def _warn(
    opened: Scan,
    series: ScatteringSeries,
    calibration: Calibration,
    settings: MapSettings,
    console: Console,
) -> None:
    """Say what a user should know before the points are fitted."""
    from pacbed.reading.calibration import LARGE_RESIDUALS, spacing_mrad

    spacing = spacing_mrad(series)
    if 2 * calibration.semiangle_mrad > spacing:
        cell = 0.1 * series.request.material.shortest_edge_A
        step = f"{opened.step_nm:g} nm" if opened.step_nm else "of unknown size"
        say(
            f"warning: discs overlap ({2 * calibration.semiangle_mrad:.3g} mrad wide, "
            f"{spacing:.3g} mrad apart), so patterns must be averaged over whole unit cells "
            f"({cell:.2g} nm). Steps are {step}, and a window has {settings.window} points along "
            "each side: check that it covers whole cells, or many",
            console,
        )
    if calibration.mirrored is None:
        say(
            "note: nobody said whether patterns are mirrored; they are taken as they are "
            "(--not-mirrored or --mirrored)",
            console,
        )
    if calibration.residuals > LARGE_RESIDUALS:
        say(f"warning: {_wrong(calibration.residuals)}", console)
    if not calibration.turn_told_apart:
        say(
            "note: the patterns do not tell whether the crystal is turned by another 180°, with "
            "the opposite tilt",
            console,
        )


def _wrong(residuals: float) -> str:
    return (
        f"residuals are {residuals:.3g} times the noise: material, beam energy, semi-angle, pixel "
        "size, number of layers or handedness may be other ones than said, or the model is too "
        "simple"
    )


def _write(output: Path, made: StrainMap, figure: Path | None, report: Path | None) -> None:
    from pacbed.reading.map_store import write_map

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
    from pacbed.reading.map_store import FLAGS

    table = Table(title="Map: medians, and their standard deviations")
    for head in ("", "median", "from (5 %)", "to (95 %)", "σ of a point", "σ in common"):
        table.add_column(head, justify="right" if head else "left")
    rows = {
        "ε_xx (%)": ("strain_xx", 100.0),
        "ε_yy (%)": ("strain_yy", 100.0),
        "ε_xy (%)": ("strain_xy", 100.0),
        "γ (°)": ("rotation_deg", 1.0),
        "φ_x (mrad)": ("tilt_x_mrad", 1.0),
        "φ_y (mrad)": ("tilt_y_mrad", 1.0),
        "electrons": ("electrons", 1.0),
        "χ² per pixel": ("chi2_per_pixel", 1.0),
    }
    for head, (name, factor) in rows.items():
        values = factor * made.values[name]
        low, middle, high = np.nanquantile(values, (0.05, 0.5, 0.95))
        sigma = made.sigma(name)
        own = "" if sigma is None else f"{factor * np.nanmedian(sigma):.2g}"
        common = factor * made.common_sigma(name)
        shown = [f"{value:.4g}" for value in (middle, low, high)]
        table.add_row(head, *shown, own, f"{common:.2g}" if common else "")
    show_table(table)
    layers = made.values["layers"]
    found, counts = np.unique(layers[layers > 0], return_counts=True)
    regions = ", ".join(f"{n} ({c / layers.size:.0%})" for n, c in zip(found, counts, strict=True))
    print(f"layers: {regions}")
    shares = {words: made.flagged(bit).mean() for bit, words in FLAGS.items()}
    print("flags: " + (", ".join(f"{w} {s:.1%}" for w, s in shares.items() if s) or "none"))
    chi2 = float(np.nanmedian(made.values["chi2_per_pixel"]))
    if chi2 > _WRONG:
        say(f"warning: {_wrong(chi2)}")
