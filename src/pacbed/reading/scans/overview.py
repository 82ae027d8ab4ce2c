"""What a scan looks like before anything is fitted: its mean pattern, and virtual images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pacbed.exceptions import PacbedError
from pacbed.machine import Report
from pacbed.reading.patterns import Pattern, clean
from pacbed.reading.pixels import finite_mean
from pacbed.reading.scans.scan import Scan
from pacbed.reading.window import find_centres, find_radius_px

# Bytes of a scan, as its file has them, that are read at most; of a larger one, some points are.
_MOST_BYTES = 1.5e9
# Bytes of patterns in memory at a time.
_BLOCK_BYTES = 2**27
# Points along each axis in which the central disc is looked for.
_FIRST = 8
# Neighbouring discs are at least so many radii apart if nothing is known of the crystal.
_SPACING = 2.0
# Places (y, x) of single patterns, as fractions of the scan.
_PLACES = ((0.5, 0.5), (0.15, 0.15), (0.15, 0.85), (0.85, 0.15), (0.85, 0.85))
# Relative difference between radii of the disc that is worth a word.
_OTHER_RADIUS = 0.2


@dataclass(frozen=True)
class Overview:
    """What a scan looks like.

    Parameters
    ----------
    mean
        Mean pattern, shape (ky, kx).
    sums, bright
        Counts of the points that were looked at, and of those within the central disc, shape
        (rows, columns); NaN where the patterns are not finite.
    stride
        Distance of these points.
    centre_px, radius_px
        Central disc, (x, y); in the middle with a fifth of the width if none was found.
    largest
        Largest value of a pixel.
    places
        Points (row, column) of single patterns, shape (patterns, 2).
    patterns
        These patterns.
    notes
        What may be wrong.
    """

    mean: np.ndarray
    sums: np.ndarray
    bright: np.ndarray
    stride: int
    centre_px: tuple[float, float]
    radius_px: float
    largest: float
    places: np.ndarray
    patterns: np.ndarray
    notes: tuple[str, ...]

    @classmethod
    def of(cls, scan: Scan, progress: Report | None = None) -> Overview:
        """Look at a scan, at some of its points if it is large.

        Parameters
        ----------
        scan
            The scan.
        progress
            Called with the number of rows done and their total.

        Raises
        ------
        PacbedError
            If its patterns cannot be read, or all are empty.
        """
        (ny, nx), notes = scan.shape, []
        size = scan.source.dtype.itemsize * math.prod(scan.source.shape[2:])
        stride = max(1, math.ceil(math.sqrt(ny * nx * size / _MOST_BYTES)))
        if stride > 1:
            share = f"1 of {stride * stride} points was looked at, every {stride} along x and y"
            notes.append(f"the scan is large: {share}")
        few = [np.unique(np.linspace(0, n - 1, _FIRST).astype(int)) for n in scan.shape]
        first = scan.points(np.stack(np.meshgrid(*few, indexing="ij"), -1).reshape(-1, 2))
        centre, radius, more = _disc(scan, first)
        ky, kx = scan.pattern_shape
        y, x = np.ogrid[:ky, :kx]
        inside = (np.hypot(x - centre[0], y - centre[1]) <= radius).ravel().astype(np.float32)
        rows = range(0, ny, stride)
        sums, bright = (np.full((len(rows), len(range(0, nx, stride))), np.nan) for _ in range(2))
        total, count, largest = np.zeros(ky * kx), np.zeros(ky * kx), -np.inf
        fit = max(1, int(_BLOCK_BYTES // (nx / stride * max(size, 4 * math.prod((ky, kx))))))
        for start in range(0, len(rows), fit):
            chosen = rows[start : start + fit]
            part = slice(chosen[0], chosen[-1] + 1, stride)
            some = scan.patterns(part, slice(None, None, stride)).reshape(len(chosen), -1, ky * kx)
            finite = np.isfinite(some)
            if not finite.all():
                some = np.where(finite, some, 0)
            known = finite.mean(axis=-1) >= 0.5
            sums[start : start + len(chosen)] = np.where(known, some.sum(-1, float), np.nan)
            bright[start : start + len(chosen)] = np.where(known, some @ inside, np.nan)
            if not known.all():  # what is left out does not count in the mean either
                some[~known], finite[~known] = 0, False
            total += some.sum(axis=(0, 1), dtype=float)
            count += finite.sum(axis=(0, 1))
            largest = max(largest, float(some.max()))
            if progress is not None:
                progress(start + len(chosen), len(rows))
        unknown = int(np.isnan(sums).sum())
        if unknown == sums.size:
            raise PacbedError(f"{scan.name}: no pattern holds finite numbers")
        if unknown:
            notes.append(f"{unknown} of {sums.size} patterns are not finite; a map leaves them out")
        if dead := int((count < count.max()).sum()):
            notes.append(f"{dead} pixels are not finite in some patterns; there they do not count")
        if not largest > 0:
            raise PacbedError(f"{scan.name} is empty: no value is larger than zero")
        places = np.array([[round(a * (ny - 1)), round(b * (nx - 1))] for a, b in _PLACES])
        return cls(
            np.where(count > 0, total / np.maximum(count, 1), np.nan).reshape(ky, kx),
            sums,
            bright,
            stride,
            centre,
            radius,
            largest,
            places,
            scan.points(places),
            (*notes, *more),
        )

    def described(self) -> list[tuple[str, str]]:
        """Return what was found, as names and values."""
        known = self.sums[np.isfinite(self.sums)]
        low, middle, high = np.percentile(known, [1, 50, 99])
        x, y = self.centre_px
        return [
            ("counts of a pattern", f"{middle:.4g} (98 % within {low:.4g} and {high:.4g})"),
            ("largest pixel", f"{self.largest:.6g}"),
            ("central disc", f"at x {x:.1f}, y {y:.1f}, radius {self.radius_px:.1f} pixels"),
        ]


def _disc(scan: Scan, patterns: np.ndarray) -> tuple[tuple[float, float], float, list[str]]:
    """Return centre and radius of the central disc of some patterns, and what is to be said."""
    ky, kx = scan.pattern_shape
    mean = finite_mean(patterns)
    expected = None
    if scan.semiangle_mrad and scan.pixel_mrad:
        expected = scan.semiangle_mrad / scan.pixel_mrad
    try:
        seen = clean(Pattern(scan.name, mean, np.ones(mean.shape, bool)))
        radius, notes = find_radius_px(seen), []
        if expected and abs(radius / expected - 1) > _OTHER_RADIUS:
            notes.append(
                f"discs seem to have a radius of {radius:.3g} pixels; semi-angle and size of a "
                f"pixel say {expected:.3g}: check them"
            )
        x, y = find_centres(seen, radius, _SPACING * radius)[0]
    except PacbedError as error:
        why = str(error).partition(": ")[2] or str(error)
        note = f"the central disc was not found ({why}); the virtual image is of the middle"
        return ((kx // 2, ky // 2), expected or min(kx, ky) / 5, [note])
    return (float(x), float(y)), radius, notes
