"""Pixels that are put together, and how many there must be."""

from __future__ import annotations

import numpy as np

FEWEST_PIXELS = 24
"""Fewest pixels along an axis with which a pattern can be compared, also if put together."""


def put_together(values: np.ndarray, bins: int) -> np.ndarray:
    """Return sums over squares of pixels of the last two axes; what is left over is cut off."""
    *more, ny, nx = values.shape
    cut = values[..., : ny // bins * bins, : nx // bins * bins]
    squares = cut.reshape(*more, ny // bins, bins, nx // bins, bins)
    return np.asarray(squares.sum(axis=(-3, -1)))
