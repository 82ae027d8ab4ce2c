"""Places spread over a scan, and sums of the patterns of squares of points around them."""

from __future__ import annotations

import math

import numpy as np

from pacbed.reading.scans.scan import Scan


class WindowSums:
    """Weighted sums of patterns; those that are mostly no numbers do not count.

    A sum is scaled so that its variance is its mean, as that of counted electrons. A pixel that is
    not finite in some of the patterns is filled up by the others; if these have less than half of
    the weights, it is no number.

    Parameters
    ----------
    shape
        Of all sums: (sums, ky, kx).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._total = np.zeros(shape, np.float32)
        self._weights = np.zeros((2, shape[0]))
        self._missing: np.ndarray | None = None

    def add(self, rows: np.ndarray, patterns: np.ndarray, weight: float) -> None:
        """Add a pattern to each of some sums, with a weight."""
        finite = np.isfinite(patterns)
        good = finite.mean(axis=(-2, -1)) >= 0.5
        rows, patterns, finite = rows[good], patterns[good], finite[good]
        if not finite.all():
            if self._missing is None:
                self._missing = np.zeros_like(self._total)
            self._missing[rows] += np.float32(weight) * ~finite
            patterns = np.where(finite, patterns, 0)
        self._total[rows] += np.float32(weight) * patterns
        self._weights[:, rows] += np.array([[weight], [weight**2]])

    @property
    def sums(self) -> np.ndarray:
        """The sums; not a number where no pattern counts."""
        first, second = self._weights
        scale = np.divide(first, second, out=np.full(len(first), np.nan), where=second > 0)
        sums = self._total * scale.astype(np.float32)[:, None, None]
        if self._missing is not None:
            part = 1 - self._missing / np.maximum(first, 1e-9).astype(np.float32)[:, None, None]
            sums /= np.where(part >= 0.5, part, np.nan)
        return sums


def window_sums(scan: Scan, places: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return :class:`WindowSums` of the patterns of squares of points.

    Parameters
    ----------
    scan
        The scan.
    places
        Row and column of the middle of each square, shape (n, 2); what lies outside of the scan is
        left out.
    weights
        Of the points of a square, shape (window, window).
    """
    found = WindowSums((len(places), *scan.pattern_shape))
    for offset, weight in np.ndenumerate(weights):
        at = places + np.array(offset) - (len(weights) - 1) // 2
        inside = np.flatnonzero(((at >= 0) & (at < scan.shape)).all(axis=1))
        found.add(inside, scan.points(at[inside]), weight)
    return found.sums


def grid(shape: tuple[int, int], most: int) -> np.ndarray:
    """Return at most about so many places, evenly spread over a scan, shape (n, 2)."""
    spacing = max(1.0, math.sqrt(shape[0] * shape[1] / most))
    axes = [
        np.unique(
            ((np.arange(max(1, round(n / spacing))) + 0.5) * n / max(1, round(n / spacing))).astype(
                int
            )
        )
        for n in shape
    ]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
