"""``pacbed scan`` and ``pacbed inspect``: a scan to try maps on, and what is in the file of one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from pacbed.cli.common import NOT_NEGATIVE, PIXEL, POSITIVE, Count, progress, say, stderr
from pacbed.reading.scans.scan import ScanOptions

if TYPE_CHECKING:
    from pacbed.reading.scans.scan import Scan

_PIXEL_HELP = (
    "Size of a pixel of the file in mrad, or its width and the camera length: 55um/120mm; instead "
    "of what the file says."
)


@dataclass(frozen=True)
class ScanFile(ScanOptions):
    """Options of a scan, as on the command line."""

    mirrored: Annotated[bool | None, Parameter(negative="--not-mirrored")] = None
    pixel_mrad: Annotated[float | None, PIXEL, Parameter(help=_PIXEL_HELP)] = None


ScanFiles = Annotated[ScanFile, Parameter(name="*", negative_bool=())]


def scan(
    *,
    output: Path,
    example: Literal["ripple"] = "ripple",
    points: tuple[int, int] = (48, 48),
    pixels: Count = 128,
    electrons: Annotated[float, Parameter(validator=POSITIVE)] = 1e5,
    seed: Annotated[int, Parameter(validator=NOT_NEGATIVE)] = 19,
) -> None:
    """Simulate a scan to try maps on.

    Strain, rotation, tilt and thickness are known at every point. It is a ripple of MoS2 at 80
    kV and 6.35 mrad: strain and tilt vary along x, three layers become five, and a corner is
    empty. The camera sees ellipses and a background, and its centre drifts. Each column is
    simulated by itself, not by a scattering series. 48 × 48 points take about three minutes.

    What is true at every point is written next to the scan, as a map: `NAME.truth.zarr.zip`.
    Files that are there already are not replaced.

    Parameters
    ----------
    output
        File of the scan. Its ending tells the format: .hspy, .emd, .mib, .zarr.zip or .npy. A
        .mib, with its .hdr, and a .npy hold no calibrations.
    example
        Which scan.
    points
        Points along y and x.
    pixels
        Pixels of the camera along each axis.
    electrons
        Incident electrons of each pattern.
    seed
        Seed of everything random.
    """
    from pacbed.reading.maps.example_scan import Ripple
    from pacbed.reading.maps.store import write_map
    from pacbed.reading.scans.writing import check_format, write_scan
    from pacbed.storage.files import check_new, check_writable

    header = [output.with_suffix(".hdr")] if check_format(output) == ".mib" else []
    truth = truth_path(output)
    check_new(output, truth, *header)
    check_writable(output, truth)
    ripple = Ripple(points=points, pixels=pixels, electrons=electrons, seed=seed)
    console = stderr()
    with progress(console) as start:
        made = ripple.simulate(start("columns"))
    write_scan(output, made)
    write_map(truth, ripple.truth_map())
    (ny, nx), (ky, kx) = made.shape, made.pattern_shape
    print(f"{output}: {ny} × {nx} points, {ky} × {kx} pixels")
    print(f"{truth}: what is true at every point")
    if output.suffix in (".mib", ".npy"):
        print(
            f"The file holds no calibrations: give --pixel-mrad {made.pixel_mrad:g} --step "
            f"{made.step_nm:g} --energy {made.energy_keV:g} --semiangle {made.semiangle_mrad:g}"
        )


def truth_path(output: Path) -> Path:
    """Return where what is true of a scan is written."""
    name = output.name.removesuffix(".zip").rpartition(".")[0]
    return output.with_name(f"{name}.truth.zarr.zip")


def inspect(
    file: Path,
    *,
    figure: Path | None = None,
    options: ScanFiles = ScanFile(),
) -> None:
    """Show what is in the file of a scan.

    It prints the size and the calibrations, and what is still to be said for `pacbed map`. The
    picture shows the mean pattern, an image of the electrons within its central disc, and some
    patterns, all with the options applied. Of a large file it takes some points of every part,
    and says so.

    Parameters
    ----------
    file
        A file of a microscope, or .npy, .npz or Zarr.
    figure
        Picture: .png, .pdf or .svg.
    """
    from pacbed.reading.scans.overview import Overview
    from pacbed.reading.scans.scan import open_scan
    from pacbed.storage.files import check_apart

    if figure is not None:
        from pacbed.figures.style import check_drawable

        check_apart([figure], [file])
        check_drawable(figure)
    opened = open_scan(file, options)
    for name, value in described(opened):
        print(f"{name + ':':22}{value}")
    console = stderr()
    with progress(console) as start:
        overview = Overview.of(opened, start("patterns"))
    for name, value in overview.described():
        print(f"{name + ':':22}{value}")
    for note in (*opened.notes, *overview.notes):
        say(f"note: {note}", console)
    print("still to be said:")
    for line in still_to_say(opened):
        print(f"  {line}")
    if figure is not None:
        from pacbed.figures.scans import overview_figure
        from pacbed.figures.style import save

        save(overview_figure(opened, overview), figure)
        print(f"{figure}: mean pattern, virtual image, some patterns")


def described(opened: Scan) -> list[tuple[str, str]]:
    """Return what a file holds, as names and values."""
    source, (ny, nx), (ky, kx) = opened.source, opened.shape, opened.pattern_shape
    points, pixels = source.shape[:2], source.shape[2:]
    found = [
        ("file", str(opened.path)),
        ("format", opened.kind),
        ("points (y × x)", _times(points) + ("" if points == (ny, nx) else f", used {ny} × {nx}")),
        (
            "pixels (y × x)",
            _times(pixels) + ("" if tuple(pixels) == (ky, kx) else f", used {ky} × {kx}"),
        ),
        (
            "numbers",
            f"{source.dtype.name}, {source.dtype.itemsize * math.prod(source.shape) / 1e9:.3g} GB",
        ),
    ]
    values = {
        "pixel": (opened.pixel_mrad, "mrad"),
        "step": (opened.step_nm, "nm"),
        "beam energy": (opened.energy_keV, "keV"),
        "semi-angle": (opened.semiangle_mrad, "mrad"),
    }
    for name, (value, unit) in values.items():
        found.append((name, f"{value:.4g} {unit}" if value else "not known"))
    if opened.pixel_mrad:
        width = _times(f"{n * opened.pixel_mrad:.4g}" for n in (kx, ky))
        found.append(("field of view", f"{width} mrad (x × y)"))
    handed = {None: "not known", True: "mirrored, and mended", False: "not mirrored"}
    return [*found, ("handedness", handed[opened.mirrored])]


def _times(numbers: Iterable[object]) -> str:
    return " × ".join(map(str, numbers))


def still_to_say(opened: Scan) -> list[str]:
    """Return the options that `pacbed map` needs, or is better with, and why."""
    found = ["--material    the crystal", "--layers      numbers of layers that there may be"]
    if not opened.energy_keV:
        found.append("--energy      beam energy in keV")
    if not opened.semiangle_mrad:
        found.append("--semiangle   convergence semi-angle in mrad")
    if not opened.pixel_mrad:
        found.append(
            "--pixel-mrad  size of a pixel; without it the scale follows from the semi-angle"
        )
    if not opened.step_nm:
        found.append("--step        distance of points in nm; without it maps are in points")
    if opened.mirrored is None:
        found.append("--mirrored or --not-mirrored; without it they are taken as they are")
    return found
