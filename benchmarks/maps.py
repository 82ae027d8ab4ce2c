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

Figures measured so far: docs/scans.md.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from pacbed.machine import peak_memory_MB, usable_cores
from pacbed.reading.calibration import Calibration, calibrate
from pacbed.reading.example_scan import Ripple
from pacbed.reading.map_settings import MapSettings
from pacbed.reading.map_store import StrainMap, read_map
from pacbed.reading.maps import MapMaker, make_map
from pacbed.reading.scans import Scan, open_scan
from pacbed.scattering.series import ScatteringSeries

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
    parser.add_argument("--series", type=Path, required=True, help="scattering series")
    parser.add_argument("--scan", type=Path, help="the example scan, if it is there already")
    parser.add_argument("--truth", type=Path, help="what is true of it")
    parser.add_argument("--map", type=Path, help="judge this map, instead of making one")
    parser.add_argument("--points", type=int, default=48)
    parser.add_argument("--electrons", type=float, default=1e5)
    parser.add_argument("--layers", type=int, nargs="+", default=list(range(1, 7)))
    parser.add_argument("--threads", type=int, default=usable_cores())
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if options.map:
        judge(read_map(options.map), read_map(options.truth))
        return
    if options.scan:
        scan, truth = open_scan(options.scan), read_map(options.truth)
    else:
        shape = options.points, options.points
        ripple = Ripple(points=shape, electrons=options.electrons)
        scan, truth = ripple.simulate(), ripple.truth_map()
    judge(timed_map(scan, options), truth)


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
    judged = whole & right & unflagged & found.claimed
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


if __name__ == "__main__":
    main()
