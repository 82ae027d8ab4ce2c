"""``pacbed read``: strain, rotation, tilt and thickness of measured patterns."""

from __future__ import annotations

import json
import math
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.table import Table
from rich.text import Text

from pacbed.cli.common import (
    ELECTRONS,
    NOT_NEGATIVE,
    PIXEL,
    POSITIVE,
    Count,
    Positive,
    Threads,
    changed,
    progress,
    say,
    show_table,
    stderr,
)
from pacbed.cli.scatter import make_series, series_request
from pacbed.cli.simulate import Computation, PlaneWaveOptions
from pacbed.cli.structures import AnyCrystal
from pacbed.exceptions import PacbedError
from pacbed.machine import usable_cores
from pacbed.specimen.crystal import MOST_LAYERS
from pacbed.specimen.microscope import Aperture

if TYPE_CHECKING:
    from pacbed.reading.patterns import Pattern
    from pacbed.reading.reading import Extra, Reading
    from pacbed.reading.window import Window
    from pacbed.scattering.mtf import MTF
    from pacbed.scattering.series import ScatteringSeries

ScaleFrom = Literal["given", "file", "discs"]

_WITHOUT_SERIES = "Without --series"
_NEW_SERIES = Parameter(name="*", group=_WITHOUT_SERIES)
_CAMERA = Parameter(name="*", group="Camera")
_FITTED = Parameter(name="*", group="Fitted besides")


@dataclass(frozen=True)
class NewSeries(AnyCrystal):
    """The series that is made where none is given.

    Parameters
    ----------
    energy_keV
        Beam energy in keV.
    stretch
        Smallest and largest principal stretch.
    tilt_mrad
        Largest sample tilt, in any direction, in mrad.
    states
        Number of strain states.
    keep_series
        Keep the series in this file; the next time it is not made again.
    """

    material: Annotated[str | None, Parameter(show_default=False)] = None
    energy_keV: float | None = None
    stretch: Annotated[tuple[float, float] | None, Parameter(show_default="0.95 1.05")] = None
    tilt_mrad: Annotated[float | None, Parameter(show_default="5")] = None
    states: Annotated[Count | None, Parameter(show_default="30")] = None
    keep_series: Path | None = None


@dataclass(frozen=True)
class CameraOptions:
    """What is known of the camera.

    Parameters
    ----------
    pixel_mrad
        Size of a pixel in mrad, or its width and the camera length: 55um/120mm. Without it, and if
        the file does not know it, the scale follows from the radius of the discs.
    pixel_uncertainty
        Relative standard deviation of the size of a pixel. If the semi-angle is fitted, the size is
        kept as given, and this goes into the error bars of strain.
    mirrored
        The images are mirror images of the patterns.
    centre
        Where zero angle lies, in pixels x and y from zero.
    mask
        Image (.npy or TIFF) that is zero where pixels do not count, as behind a beam stop.
    counts_per_electron
        Gain of the camera.
    electrons
        Incident electrons of each pattern, from which the gain follows; or dose and area,
        500/A2*2000A2. Without both it is estimated from the residuals.
    mtf
        File of the modulation transfer function (MTF) of the camera, as measured: lines of cycles
        per pixel, to at most 0.5, and MTF, which is 1 at first.
    mtf_bins
        Pixels of the camera, along each axis, that make one of the pattern.
    """

    pixel_mrad: Annotated[Positive, PIXEL] = None
    pixel_uncertainty: Annotated[float, Parameter(validator=POSITIVE)] = 0.002
    mirrored: Annotated[bool, Parameter(negative=())] = False
    centre: Annotated[tuple[float, float] | None, Parameter(show_default="of the central disc")] = (
        None
    )
    mask: Path | None = None
    counts_per_electron: Positive = None
    electrons: Annotated[Positive, ELECTRONS] = None
    mtf: Path | None = None
    mtf_bins: Count = 1


@dataclass(frozen=True)
class FitOptions:
    """What is fitted besides strain, rotation, tilt, shift, scale and dose.

    Parameters
    ----------
    fit_semiangle
        The semi-angle. By default it is fitted if the size of a pixel is known: a radius of the
        discs that is a little wrong would bias strain.
    semiangle_uncertainty
        Relative standard deviation of the semi-angle as given. If the size of a pixel is not known,
        this goes into the error bars of strain.
    fit_ellipticity
        Ellipticity of the camera.
    fit_blur
        A Gaussian blur, as of the point spread of the camera.
    fit_background
        A constant background and a broad halo.
    model_error
        Relative standard deviation of the expected intensity of a pixel: what is not known of the
        potential and of thermal motion. It matters where there are many electrons.
    """

    fit_semiangle: Annotated[bool | None, Parameter(show_default="if --pixel-mrad is known")] = None
    semiangle_uncertainty: Annotated[float, Parameter(validator=POSITIVE)] = 0.03
    fit_ellipticity: Annotated[bool, Parameter(negative=())] = False
    fit_blur: Annotated[bool, Parameter(negative=())] = False
    fit_background: Annotated[bool, Parameter(negative=())] = False
    model_error: Annotated[float, Parameter(validator=NOT_NEGATIVE)] = 0.05

    def free(self, scale_known: bool) -> tuple[Extra, ...]:
        """Return what is fitted besides."""
        semiangle = scale_known if self.fit_semiangle is None else self.fit_semiangle
        chosen: dict[Extra, bool] = {
            "semiangle": semiangle,
            "ellipticity": self.fit_ellipticity,
            "blur": self.fit_blur,
            "background": self.fit_background,
        }
        return tuple(name for name, on in chosen.items() if on)


def read(
    pattern: Path,
    /,
    *patterns: Path,
    semiangle: Annotated[float, Parameter(validator=POSITIVE)],
    layers: Annotated[tuple[str, ...], Parameter(show_default="all of the series")] = (),
    series: Path | None = None,
    only: tuple[int, ...] = (),
    rotation: Annotated[float, Parameter(validator=Number(gte=-360, lte=360))] = 0.0,
    network: Path | None = None,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
    figure: Path | None = None,
    threads: Threads = usable_cores(),
    fit: Annotated[FitOptions, _FITTED] = FitOptions(),
    camera: Annotated[CameraOptions, _CAMERA] = CameraOptions(),
    new_series: Annotated[NewSeries, _NEW_SERIES] = NewSeries(),
) -> None:
    """Read strain, rotation, tilt and thickness of measured patterns.

    A scattering series is fitted to each pattern. Print what was found with standard deviations,
    and what may be wrong.

    Parameters
    ----------
    pattern
        Pattern or stack of patterns: .npy, .npz, TIFF, a pattern store or a dataset.
    patterns
        More of them.
    semiangle
        Convergence semi-angle in mrad.
    layers
        Number of layers, or those to try: 5, 4 5 6 or 1-10.
    series
        Scattering series of the crystal (see `pacbed scatter`).
    only
        Numbers of the patterns to read in each file, from zero.
    rotation
        Rotation of the patterns as far as it is known, in degrees.
    network
        Folder of a trained network, whose predictions are where the fit begins. What it cannot
        read begins with a dictionary.
    json_file
        Also write all that was found to this file, as JSON.
    figure
        Also draw measured and fitted patterns and residuals (PNG or PDF).
    """
    from pacbed.scattering.mtf import read_mtf
    from pacbed.storage.files import check_apart, check_writable

    for option, path in (("json", json_file), ("figure", figure)):
        if path is not None and not path.parent.is_dir():
            raise PacbedError(f"--{option} {path}: there is no folder {path.parent}")
    if json_file and json_file.suffix.lower() != ".json":
        raise PacbedError(f"--json {json_file}: name the file .json")
    files = [pattern, *patterns, camera.mask, camera.mtf, series, new_series.file]
    files += new_series.config
    files += [network / name for name in ("model.keras", "settings.json")] if network else []
    check_apart([json_file, figure, new_series.keep_series], files)
    check_writable(json_file)
    if network and not (network / "settings.json").is_file():
        raise PacbedError(
            f"--network {network}: there is no trained network (model.keras, settings.json)"
        )
    if figure:
        from pacbed.figures.style import check_drawable

        check_drawable(figure)
    asked = layer_numbers(layers)
    mtf = read_mtf(camera.mtf).of_pixels(camera.mtf_bins) if camera.mtf else None
    clean, refused = _clean_patterns((pattern, *patterns), only, camera)
    pixels = _pixels_mrad(clean, semiangle, camera, refused)
    with _series(series, new_series, asked, semiangle, clean, pixels, threads) as held:
        numbers = asked or tuple(range(1, held.request.layers + 1))
        windows = _windows(held, clean, pixels, semiangle, camera, refused)
        if not windows:
            raise PacbedError("\n".join(refused.values()))
        readings = _read(
            held, windows, numbers, semiangle, rotation, fit, network, camera, mtf, threads
        )
    for message in refused.values():
        say(f"warning: not read: {message}")
    for one in readings:
        for note in one.window.pattern.notes:
            say(f"{one.window.pattern.name}: {note}")
    _print(readings)
    scales = {one.window.pattern.name: _scale_from(one.window.pattern, camera) for one in readings}
    assumed = _assumed(camera, fit, rotation, semiangle, held, scales, mtf)
    assumed["said"]["semi-angle"] = _said_of_semiangles(readings, semiangle)
    print(", ".join(f"{name}: {value}" for name, value in assumed["said"].items()))
    if json_file:
        _write_json(json_file, readings, refused, assumed, scales, camera)
        print(json_file)
    if figure:
        from pacbed.figures.readings import MOST, measured_and_fitted
        from pacbed.figures.style import save

        save(measured_and_fitted(readings), figure)
        more = f" (the first {MOST} of {len(readings)} patterns)" if len(readings) > MOST else ""
        print(f"{figure}{more}")


def layer_numbers(layers: Sequence[str]) -> tuple[int, ...]:
    """Return numbers of layers, each written as 5 or 1-10."""
    found: set[int] = set()
    for word in layers:
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= MOST_LAYERS:
            raise PacbedError(
                f"--layers {word}: write a number such as 5, or a range such as 1-10, of at most "
                f"{MOST_LAYERS:,} layers"
            )
        found |= set(range(first, last + 1))
    return tuple(sorted(found))


def _clean_patterns(
    paths: Sequence[Path], only: Sequence[int], camera: CameraOptions
) -> tuple[list[Pattern], dict[str, str]]:
    """Read and clean patterns; return them, and why others cannot be read."""
    from pacbed.reading.pattern_files import read_file, read_mask
    from pacbed.reading.patterns import clean

    mask = read_mask(camera.mask) if camera.mask else None
    found, refused = [], {}
    for path in paths:
        try:
            measured = read_file(path, only)
        except PacbedError as error:
            refused[str(path)] = str(error)
            continue
        for one in measured:
            try:
                found.append(clean(one, mask, camera.mirrored))
            except PacbedError as error:
                refused[one.name] = str(error)
    if not found:
        raise PacbedError("\n".join(refused.values()))
    return found, refused


def _pixels_mrad(
    patterns: list[Pattern], semiangle: float, camera: CameraOptions, refused: dict[str, str]
) -> dict[str, float]:
    """Return the nominal size of the pixels of each pattern.

    If it is not known, it follows from the radius of the discs: those with equally many pixels are
    taken to be of one camera length.
    """
    from pacbed.reading.window import find_radius_px

    known = {one.name: camera.pixel_mrad or one.pixel_mrad for one in patterns}
    found: dict[tuple[int, ...], list[float]] = {}
    for one in patterns:
        if known[one.name] is None:
            try:
                found.setdefault(one.image.shape, []).append(semiangle / find_radius_px(one))
            except PacbedError as error:
                refused[one.name] = str(error)
    return {
        one.name: known[one.name] or float(np.median(found[one.image.shape]))
        for one in patterns
        if known[one.name] or (one.image.shape in found and one.name not in refused)
    }


@contextmanager
def _series(
    path: Path | None,
    new: NewSeries,
    layers: tuple[int, ...],
    semiangle: float,
    patterns: Sequence[Pattern],
    pixels: dict[str, float],
    threads: int,
) -> Iterator[ScatteringSeries]:
    """Provide the series that is given, or make one for these patterns."""
    from pacbed.scattering.series import ScatteringSeries

    if path:
        if options := ", ".join(changed(new)):
            raise PacbedError(f"{options}: only for a new series; leave out {options} or --series")
        yield ScatteringSeries(path)
        return
    if not (new.named and new.energy_keV and layers):
        raise PacbedError(
            "name a scattering series with --series, or say with --material, --energy and --layers "
            "for which crystal one is to be made (--config instead of --material: that of a "
            "configuration)"
        )
    widths = [max(p.image.shape) * pixels[p.name] for p in patterns if p.name in pixels]
    request = series_request(
        new.crystal(),
        new.energy_keV,
        layers,
        new.stretch or (0.95, 1.05),
        semiangle,
        5.0 if new.tilt_mrad is None else new.tilt_mrad,
        max(widths, default=0),
        new.states or 30,
    )
    with tempfile.TemporaryDirectory() as folder:
        output = new.keep_series or Path(folder) / "series.zarr.zip"
        started = time.monotonic()
        computation = Computation(threads=threads)
        if make_series(output, request, PlaneWaveOptions(), computation, "--keep-series"):
            advice = "" if new.keep_series else ": keep it with --keep-series FILE to save that"
            say(f"the scattering series took {time.monotonic() - started:.0f} s{advice}")
        yield ScatteringSeries(output)


def _windows(
    series: ScatteringSeries,
    patterns: Sequence[Pattern],
    pixels: dict[str, float],
    semiangle: float,
    camera: CameraOptions,
    refused: dict[str, str],
) -> list[Window]:
    """Cut out of each pattern what is compared with the series."""
    from pacbed.reading.discs import nearest_reflection_mrad
    from pacbed.reading.window import window

    request, found = series.request, []
    reach = request.field_of_view_mrad / 2
    spacing = nearest_reflection_mrad(request.material, request.energy_keV)
    for one in patterns:
        if one.name not in pixels:
            continue
        centre = camera.centre and _as_recorded(camera.centre, one, camera)
        try:
            found.append(window(one, pixels[one.name], semiangle, spacing, reach, centre))
        except PacbedError as error:
            refused[one.name] = str(error)
    return found


def _as_recorded(
    place: tuple[float, float], pattern: Pattern, camera: CameraOptions
) -> tuple[float, float]:
    """Return where a place (x, y) of a pattern lies in the image, or the other way round."""
    x, y = place
    return (pattern.image.shape[1] - 1 - x, y) if camera.mirrored else (x, y)


def _read(
    series: ScatteringSeries,
    windows: Sequence[Window],
    layers: tuple[int, ...],
    semiangle: float,
    rotation: float,
    fit: FitOptions,
    network: Path | None,
    camera: CameraOptions,
    mtf: MTF | None,
    threads: int,
) -> list[Reading]:
    from pacbed.learning.training import configure
    from pacbed.reading.reading import ReadSettings, read_patterns

    console = stderr()
    configure(threads, log=lambda line: say(line, console))
    starts = _predicted(network, windows) if network else None
    known = np.array([_scale_from(one.pattern, camera) != "discs" for one in windows])
    readings: dict[int, Reading] = {}
    for scale_known in np.unique(known).tolist():
        settings = ReadSettings(
            Aperture(semiangle),
            layers,
            rotation,
            fit.free(scale_known),
            pixel_uncertainty=camera.pixel_uncertainty if scale_known else None,
            semiangle_uncertainty=fit.semiangle_uncertainty,
            counts_per_electron=camera.counts_per_electron,
            electrons=camera.electrons,
            model_error=fit.model_error,
            mtf=mtf,
        )
        rows = np.flatnonzero(known == scale_known).tolist()
        own = None if starts is None else starts[rows]
        with progress(console) as start:
            some = [windows[row] for row in rows]
            found = read_patterns(series, some, settings, own, start("patterns"))
        readings |= zip(rows, found, strict=True)
    return [readings[row] for row in range(len(windows))]


def _predicted(network: Path, windows: Sequence[Window]) -> np.ndarray:
    """Return what a network reads of patterns, shape (patterns, 6).

    What it does not read is zero; of a pattern that it cannot read all is NaN.
    """
    from pacbed.examples.labels import PARAMETERS
    from pacbed.learning.prediction import predict_with, read_network
    from pacbed.reading.window import centred

    trained = read_network(network / "model.keras", network / "settings.json")
    starts = np.zeros((len(windows), len(PARAMETERS)))
    for row, one in enumerate(windows):
        pixel = one.pixel_mrad, one.pixel_mrad
        try:
            table = predict_with(trained, centred(one), pixel, lambda line: None)
        except PacbedError as error:
            say(f"{one.pattern.name}: begins with a dictionary, not with the network: {error}")
            starts[row] = np.nan
            continue
        for column, name in enumerate(PARAMETERS):
            if f"predicted_{name}" in table:
                starts[row, column] = table[f"predicted_{name}"].iloc[0]
    return starts


def _print(readings: Sequence[Reading]) -> None:
    from pacbed.examples.labels import PARAMETERS, display_unit, head
    from pacbed.reading.fit import AT_EDGE

    table = Table(title="What was read, and its standard deviation")
    table.add_column("pattern", overflow="fold")
    heads = [head(name) for name in PARAMETERS]
    for column in ("layers", *heads, "χ² per pixel", "turned (°)", "Δχ² of 180°"):
        table.add_column(column, justify="right")
    table.add_column("flags")
    for one in readings:
        values = []
        for name in PARAMETERS:
            factor, _ = display_unit(name)
            values.append(_with_error(factor * one.value(name), factor * one.sigma(name)))
        likely = one.probabilities[one.layers]
        number = str(one.layers) if likely > 0.995 else f"{one.layers} ({likely:.0%})"
        edges = f" ({', '.join(one.at_edge)})"
        flags = "; ".join(f + edges if f == AT_EDGE else f for f in one.flags)
        table.add_row(
            Text(one.window.pattern.name),
            number,
            *values,
            f"{one.chi2_per_pixel:.3g}",
            f"{one.turned_deg:g}",
            f"{one.opposite:.3g}",
            flags,
        )
    show_table(table, 180)


def _with_error(value: float, sigma: float) -> str:
    """Return a value and its error with two digits of the error."""
    digits = max(0, min(4, 1 - int(np.floor(np.log10(sigma))))) if sigma > 0 else 3
    return f"{value:.{digits}f} ± {sigma:.{digits}f}"


def _scale_from(pattern: Pattern, camera: CameraOptions) -> ScaleFrom:
    """Return how the nominal size of the pixels of a pattern is known."""
    if camera.pixel_mrad:
        return "given"
    return "file" if pattern.pixel_mrad else "discs"


def _said_of_scales(scales: Mapping[str, ScaleFrom], camera: CameraOptions) -> str:
    """Say how scales are known, and of which patterns if that differs."""
    uncertain = f"± {100 * camera.pixel_uncertainty:.2g} %"
    words: dict[ScaleFrom, str] = {
        "given": f"{camera.pixel_mrad or 0:g} mrad per pixel ({uncertain})",
        "file": "of the file",
        "discs": "from the radius of the discs",
    }
    kinds = list(dict.fromkeys(scales.values()))
    if len(kinds) < 2:
        return "".join(words[kind] for kind in kinds)
    names = {kind: ", ".join(n for n, own in scales.items() if own == kind) for kind in kinds}
    return "; ".join(f"{words[kind]} ({names[kind]})" for kind in kinds)


def _semiangles_mrad(reading: Reading, given: float) -> dict[str, float]:
    """Return the semi-angle of a pattern and its standard deviation, if it was fitted."""
    sigma = reading.sigma("log_semiangle")
    found = given * math.exp(reading.value("log_semiangle"))
    return {"semiangle_mrad": found, "semiangle_mrad_sigma": found * sigma} if sigma > 0 else {}


def _said_of_semiangles(readings: Sequence[Reading], given: float) -> str:
    fitted = [n for one in readings if (n := _semiangles_mrad(one, given).get("semiangle_mrad"))]
    ends = dict.fromkeys(f"{end(fitted):.4g}" for end in (min, max)) if fitted else ()
    return f"{given:g} mrad" + (f" (fitted: {' to '.join(ends)})" if fitted else "")


def _assumed(
    camera: CameraOptions,
    fit: FitOptions,
    rotation: float,
    semiangle: float,
    series: ScatteringSeries,
    scales: Mapping[str, ScaleFrom],
    mtf: MTF | None,
) -> dict[str, Any]:
    """Return what was assumed, in full and as it is printed."""
    request = series.request
    return {
        "said": {
            "handedness": "mirrored" if camera.mirrored else "as recorded, not mirrored",
            "scale": _said_of_scales(scales, camera),
            "crystal": f"{request.material.name} at {request.energy_keV:g} keV",
            **({"MTF": "as measured"} if mtf else {}),
        },
        "semiangle_mrad": semiangle,
        "semiangle_uncertainty": fit.semiangle_uncertainty,
        "rotation_deg": rotation,
        "material": request.material.name,
        "energy_keV": request.energy_keV,
        "mirrored": camera.mirrored,
        "pixel_mrad": camera.pixel_mrad,
        "pixel_uncertainty": camera.pixel_uncertainty,
        "counts_per_electron": camera.counts_per_electron,
        "electrons": camera.electrons,
        "mtf": mtf and asdict(mtf),
    }


def _write_json(
    path: Path,
    readings: Sequence[Reading],
    refused: dict[str, str],
    assumed: dict[str, Any],
    scales: Mapping[str, ScaleFrom],
    camera: CameraOptions,
) -> None:
    from pacbed import __version__
    from pacbed.storage.files import write_text

    content = {
        "pacbed_version": __version__,
        "assumed": {name: value for name, value in assumed.items() if name != "said"},
        "patterns": [
            {
                **one.to_dict(),
                **_semiangles_mrad(one, assumed["semiangle_mrad"]),
                "centre_px": _as_recorded(one.centre_px, one.window.pattern, camera),
                "pixel_from": scales[one.window.pattern.name],
            }
            for one in readings
        ],
        "not_read": refused,
    }
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
