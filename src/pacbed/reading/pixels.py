"""Pixels that are put together, and how many there must be."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

# Standard deviation in pixels of the Gaussian by which neighbours fill up what is hidden.
_NEIGHBOURS_PX = 3

FEWEST_PIXELS = 24
"""Fewest pixels along an axis with which a pattern can be compared, also if put together."""


def put_together(values: np.ndarray, bins: int) -> np.ndarray:
    """Return sums over squares of pixels of the last two axes; what is left over is cut off."""
    *more, ny, nx = values.shape
    cut = values[..., : ny // bins * bins, : nx // bins * bins]
    squares = cut.reshape(*more, ny // bins, bins, nx // bins, bins)
    return np.asarray(squares.sum(axis=(-3, -1)))


def finite_mean(images: np.ndarray) -> np.ndarray:
    """Return the mean of images without what is not finite; not a number where nothing is."""
    finite = np.isfinite(images)
    count = finite.sum(axis=0)
    total = np.where(finite, images, 0).sum(axis=0, dtype=float)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def shown(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return an image in which masked pixels look as their neighbours do, to look for a start."""
    if mask.all():
        return image
    seen, weight = (
        gaussian_filter(one.astype(float), _NEIGHBOURS_PX)
        for one in (np.where(mask, image, 0), mask)
    )
    return np.where(mask, image, seen / np.maximum(weight, 1e-6))


def whole(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return images of which those with pixels that are not finite are as :func:`shown` does."""
    rows = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2)))
    if not len(rows):
        return images
    images = images.copy()
    images[rows] = [shown(images[row], masks[row]) for row in rows]
    return images
