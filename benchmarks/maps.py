"""How precisely and how fast the map of a scan is made.

    python benchmarks/maps.py --series mos2.series.zarr.zip
    python benchmarks/maps.py --scan ripple.zarr.zip --truth ripple.truth.zarr.zip --series FILE

Without --scan the example scan is simulated first (`pacbed scan --example ripple`): every column by
itself, with other thermal displacements and a finer grid of incident waves than a scattering series
has. Prints how long calibration and map took, and for points of one thickness without a flag

- the median of errors over their Cramér-Rao bounds: 1 if no unbiased estimate is better;
- the root mean square of errors over their standard deviations, of the point alone after the mean
  of all errors was taken away, and together with the common part;
- how many thicknesses are right, and what was claimed in vacuum.

With --discs or --py4dstem, errors of lattices that are fitted to the positions of discs, too:

    python benchmarks/maps.py --map map.zarr.zip --scan ripple.zarr.zip \
        --truth ripple.truth.zarr.zip --discs --py4dstem ENVIRONMENT/bin/python

by pacbed.reading.discs and by py4DSTEM, which has an environment of its own. Both are given what
the calibration of the map knows: size of a pixel, ellipse, rotation, dead pixels.

Figures measured so far: docs/scans.md.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.linalg import polar
from scipy.ndimage import median_filter

from pacbed.examples.augment import AugmentationSettings
from pacbed.machine import peak_memory_MB, usable_cores
from pacbed.reading.discs import DiscMethod, reflections_mrad
from pacbed.reading.maps.calibrate import calibrate
from pacbed.reading.maps.calibration import Calibration
from pacbed.reading.maps.example_scan import Ripple
from pacbed.reading.maps.maker import MapMaker
from pacbed.reading.maps.making import make_map
from pacbed.reading.maps.settings import MapSettings
from pacbed.reading.maps.store import StrainMap, read_map
from pacbed.reading.scans.scan import Scan, open_scan
from pacbed.scattering.image import pixel_matrix
from pacbed.scattering.series import ScatteringSeries
from pacbed.specimen.crystal import MATERIALS

NAMES = {
    "strain_xx": ("ε_xx (%)", 100),
    "strain_yy": ("ε_yy (%)", 100),
    "strain_xy": ("ε_xy (%)", 100),
    "rotation_deg": ("γ (°)", 1),
    "tilt_x_mrad": ("φ_x (mrad)", 1),
    "tilt_y_mrad": ("φ_y (mrad)", 1),
}
# Median of the absolute value of a normal deviate.
MEDIAN = 0.674


def main() -> None:
    """Run the benchmark and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=Path, help="scattering series; not with --map")
    parser.add_argument("--scan", type=Path, help="the example scan, if it is there already")
    parser.add_argument("--truth", type=Path, help="what is true of it")
    parser.add_argument("--map", type=Path, help="judge this map, instead of making one")
    parser.add_argument("--points", type=int, default=48)
    parser.add_argument("--electrons", type=float, default=1e5)
    parser.add_argument("--layers", type=int, nargs="+", default=list(range(1, 7)))
    parser.add_argument("--seed", type=int, default=19)
    parser.add_argument("--discs", action="store_true", help="compare with positions of discs")
    parser.add_argument("--py4dstem", type=Path, help="compare: Python that has py4DSTEM")
    parser.add_argument("--threads", type=int, default=usable_cores())
    options = parser.parse_args()
    if not (options.series or options.map):
        parser.error("give --series or --map")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if bool(options.scan) != bool(options.truth):
        parser.error("give --scan and --truth together")
    if options.scan:
        scan, truth = open_scan(options.scan), read_map(options.truth)
    else:
        shape = options.points, options.points
        ripple = Ripple(points=shape, electrons=options.electrons, seed=options.seed)
        scan, truth = ripple.simulate(), ripple.truth_map()
    found = read_map(options.map) if options.map else timed_map(scan, options)
    judge(found, truth)
    if options.discs or options.py4dstem:
        compare(scan, found, truth, options)


def timed_map(scan: Scan, options: argparse.Namespace) -> StrainMap:
    """Make a map, and print how long it took."""
    from pacbed.learning.training import configure

    configure(options.threads)
    series, settings = ScatteringSeries(options.series), MapSettings(tuple(options.layers))
    times = [clock()]
    calibration: Calibration = calibrate(scan, series, settings)
    times.append(clock())
    maker = MapMaker(scan, series, calibration, settings)
    with tempfile.TemporaryDirectory() as folder:
        found = make_map(maker, Path(folder) / "parts", threads=options.threads)
    times.append(clock())
    for name, before, after in zip(("calibration", "map"), times, times[1:], strict=False):
        print(f"{name}: {after[0] - before[0]:.0f} s, {after[1] - before[1]:.0f} core-seconds")
    print(f"peak memory: {peak_memory_MB():.0f} MB")
    return found


def clock() -> tuple[float, float]:
    """Return time and core-seconds so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.monotonic(), used.ru_utime + used.ru_stime


def judge(found: StrainMap, truth: StrainMap) -> None:
    """Print errors over bounds and error bars."""
    layers, flags = truth.values["layers"], truth.values["flags"]
    vacuum, whole = (flags & 8) > 0, flags == 0
    unflagged = (found.values["flags"] & 31) == 0
    right = found.values["layers"] == layers
    print(f"layers right: {(right & whole).sum()} of {whole.sum()} points of one thickness")
    print(f"claimed in vacuum: {(found.claimed & vacuum).sum()} of {vacuum.sum()} points")
    print(
        f"flagged: {(~unflagged & whole).sum()} of {whole.sum()} points of one thickness, "
        f"{(~unflagged & ~whole & ~vacuum).sum()} of {(~whole & ~vacuum).sum()} mixed ones"
    )
    chi2 = np.nanmedian(found.values["chi2_per_pixel"][whole])
    print(f"χ² per pixel: {chi2:.3f}")
    judged = judged_points(found, truth)
    table = Table(title=f"{judged.sum()} points of one thickness without a flag")
    heads = ("", "median error", "its bound", "ratio", "spread of a point", "with common part")
    for head in (*heads, "mean error", "common σ"):
        table.add_column(head, justify="right")
    for name, (label, factor) in NAMES.items():
        error = (found.values[name] - truth.values[name])[judged]
        sigma = found.values[f"{name}_sigma"][judged]
        common = found.common_sigma(name)
        median, bound = float(np.median(np.abs(error))), MEDIAN * float(np.median(sigma))
        ratio = float(np.median(np.abs(error) / sigma)) / MEDIAN
        alone = float(np.std((error - error.mean()) / sigma))
        both = math.sqrt(float(np.mean(error**2 / (sigma**2 + common**2))))
        values = (factor * median, factor * bound, ratio, alone, both)
        more = factor * error.mean(), factor * common
        table.add_row(label, *(f"{value:.3g}" for value in (*values, *more)))
    Console(width=140).print(table)


def judged_points(found: StrainMap, truth: StrainMap) -> np.ndarray:
    """Return points of one thickness without a flag, shape (ny, nx)."""
    right = found.values["layers"] == truth.values["layers"]
    whole = truth.values["flags"] == 0
    return np.asarray(whole & right & ((found.values["flags"] & 31) == 0) & found.claimed)


def compare(scan: Scan, found: StrainMap, truth: StrainMap, options: argparse.Namespace) -> None:
    """Print errors of the map, and of lattices that are fitted to the positions of discs."""
    known = found.attributes["calibration"]
    patterns = scan.patterns(slice(None))
    bad = np.zeros(scan.pattern_shape, bool)
    bad[tuple(np.array(known["masked_px"], int).reshape(-1, 2).T[::-1])] = True
    around = median_filter(patterns, (1, 1, 3, 3))
    patterns[..., bad] = around[..., bad]
    judged = judged_points(found, truth)
    methods = {"map": {name: found.values[name] for name in list(NAMES)[:4]}}
    if options.discs:
        methods["discs"] = by_discs(patterns, judged, known, truth)
    if options.py4dstem:
        methods |= by_py4dstem(patterns, judged, known, truth, options.py4dstem)
    table = Table(title="Median errors after the mean error was taken away; mean errors")
    for head in ("", *(label for label, _ in list(NAMES.values())[:4]), "ε_xx, ε_yy (%) by layers"):
        table.add_column(head, justify="right")
    layers = truth.values["layers"]
    for method, values in methods.items():
        cells = []
        for name, measured in values.items():
            error = NAMES[name][1] * (measured - truth.values[name])[judged]
            error = error[np.isfinite(error)]
            cells.append(f"{np.median(np.abs(error - error.mean())):.3g}")
        means = []
        for number in np.unique(layers[judged]).tolist():
            there = judged & (layers == number)
            for name in ("strain_xx", "strain_yy"):
                means.append(f"{100 * np.nanmean((values[name] - truth.values[name])[there]):.3f}")
        table.add_row(method, *cells, ", ".join(means))
        lost = int(np.isnan(values["strain_xx"][judged]).sum())
        print(f"{method}: no lattice at {lost} of {judged.sum()} points")
    Console(width=140).print(table)


def by_discs(
    patterns: np.ndarray, judged: np.ndarray, known: dict, truth: StrainMap
) -> dict[str, np.ndarray]:
    """Return strain and rotation by :mod:`pacbed.reading.discs`, with the scale known."""
    beam = truth.attributes
    size, field = patterns.shape[-1], patterns.shape[-1] * known["pixel_mrad"]
    # They vary little, and the centre drifts by some pixels.
    varied = AugmentationSettings(size, field, 0.02, (-2, 2), 4.0, "poisson", (1, 1), (1, 1))
    method = DiscMethod(
        MATERIALS[beam["material"]],
        beam["energy_keV"],
        known["semiangle_mrad"],
        varied,
        rotation_deg=known["rotation_deg"],
    )
    start = clock()
    lattices = np.full((*judged.shape, 2, 2), np.nan)
    for place in np.argwhere(judged):
        one = method.measure(patterns[tuple(place)], field)
        if one.discs:
            angle = math.radians(one.rotation_deg)
            turn = np.array(
                [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
            )
            lattice = turn @ np.linalg.inv(np.eye(2) + one.strain).T / known["pixel_mrad"]
            lattices[tuple(place)] = lattice
    print(f"discs: {clock()[1] - start[1]:.0f} core-seconds")
    return deformed(lattices, known)


def by_py4dstem(
    patterns: np.ndarray, judged: np.ndarray, known: dict, truth: StrainMap, python: Path
) -> dict[str, dict[str, np.ndarray]]:
    """Return strain and rotation from the lattices that py4DSTEM finds, by name of settings."""
    beam = truth.attributes
    reflections = reflections_mrad(MATERIALS[beam["material"]], beam["energy_keV"], 20)[1:]
    across = np.abs(np.linalg.det([(reflections[0], other) for other in reflections[:6]]))
    basis = np.stack([reflections[0], reflections[across.argmax()]])
    to_pixels = np.linalg.inv(pixel_matrix(known["pixel_mrad"], known["rotation_deg"], (0, 0)))
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "scan.npz", Path(folder) / "lattices.npz"
        expected = basis @ to_pixels.T
        vacuum = (truth.values["flags"] & 8) > 0
        np.savez(given, patterns=patterns, crystal=judged, vacuum=vacuum, expected_px=expected)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        script = Path(__file__).with_name("py4dstem_lattices.py")
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        subprocess.run(
            [python, script, given, found], check=True, env=clean, stdout=subprocess.DEVNULL
        )
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
        print(f"py4DSTEM: {seconds:.0f} core-seconds")
        back = np.linalg.inv(basis.T)
        return {name: deformed(one @ back, known) for name, one in np.load(found).items()}


def deformed(lattices: np.ndarray, known: dict) -> dict[str, np.ndarray]:
    """Return strain and rotation of lattices.

    Parameters
    ----------
    lattices
        Pixels (x, y) per mrad of the undeformed crystal, shape (ny, nx, 2, 2).
    known
        Calibration.
    """
    ellipse = known["ellipticity"], known["ellipticity_diagonal"]
    angles = pixel_matrix(known["pixel_mrad"], 0.0, ellipse) @ lattices
    found = {name: np.full(lattices.shape[:2], np.nan) for name in list(NAMES)[:4]}
    for place in map(tuple, np.argwhere(np.isfinite(lattices).all(axis=(2, 3)))):
        turn, gradient = polar(np.linalg.inv(angles[place]).T)
        strain = gradient - np.eye(2)
        values = strain[0, 0], strain[1, 1], strain[0, 1]
        angle = math.degrees(math.atan2(turn[1, 0], turn[0, 0]))
        for name, value in zip(found, (*values, angle), strict=True):
            found[name][place] = value
    return found


if __name__ == "__main__":
    main()
