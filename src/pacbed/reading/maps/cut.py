"""The part of the patterns of a scan that is compared with a series, and what lies in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pacbed.reading.discs import nearest_reflection_mrad
from pacbed.reading.patterns import Pattern
from pacbed.reading.pixels import put_together
from pacbed.reading.window import Window, window
from pacbed.scattering.image_model import Frame
from pacbed.scattering.mtf import MTF
from pacbed.scattering.series import ScatteringSeries

# Radius of the central disc by which scattered electrons are counted, over its own.
_INSIDE = 1.15
# The disc is looked for so many times where its electrons are.
_CENTRINGS = 3


@dataclass(frozen=True)
class Cut:
    """The part of all patterns that is compared with a series.

    Parameters
    ----------
    part
        Of the mean pattern.
    frame
        Its pixels; their origin is the centre of the mean pattern.
    """

    part: Window
    frame: Frame

    @classmethod
    def of(
        cls,
        pattern: Pattern,
        series: ScatteringSeries,
        pixel_mrad: float,
        semiangle_mrad: float,
        centre_px: tuple[float, float] | None = None,
        mtf: MTF | None = None,
    ) -> Cut:
        """Cut out what is known around the centre of a mean pattern."""
        request = series.request
        reach = request.field_of_view_mrad / 2
        spacing = spacing_mrad(series)
        part = window(pattern, pixel_mrad, semiangle_mrad, spacing, reach, centre_px)
        x, y = map(float, part.centres[0])
        ny, nx = part.image.shape
        mtf = mtf and mtf.of_pixels(part.bins)
        return cls(part, Frame((ny, nx), part.pixel_mrad, (x, y), mtf=mtf))

    @property
    def bins(self) -> int:
        """Pixels of the camera along each axis that are put together."""
        return self.part.bins

    def pixels(self, patterns: np.ndarray) -> np.ndarray:
        """Return the pixels of the camera that belong to this part."""
        x, y = self.part.corner
        ny, nx = (n * self.bins for n in self.part.image.shape)
        return patterns[..., y : y + ny, x : x + nx]

    def images(self, patterns: np.ndarray) -> np.ndarray:
        """Return this part of patterns, shape (patterns, ny, nx), and 0 where all are masked.

        What is not finite in a pattern is no number.
        """
        part = put_together(self.pixels(patterns), self.bins)
        images = np.where(self.part.mask, np.where(np.isfinite(part), part, np.nan), 0)
        return images.astype(np.float32)

    def masks(self, images: np.ndarray) -> np.ndarray:
        """Return which pixels of such images count, same shape."""
        return np.asarray(self.part.mask & np.isfinite(images))


def spacing_mrad(series: ScatteringSeries) -> float:
    """Return the distance between neighbouring discs in mrad."""
    return nearest_reflection_mrad(series.request.material, series.request.energy_keV)


def mask_without(shape: tuple[int, int], masked_px: Sequence[Sequence[int]]) -> np.ndarray:
    """Return which pixels count, shape (ny, nx), if some, (x, y), do not."""
    mask = np.ones(shape, bool)
    x, y = np.array(masked_px, int).reshape(-1, 2).T
    inside = (x >= 0) & (y >= 0) & (x < shape[1]) & (y < shape[0])
    mask[y[inside], x[inside]] = False
    return mask


def scattered(images: np.ndarray, centre_px: Sequence[float], radius_px: float) -> np.ndarray:
    """Return which part of the electrons lies outside the central disc, shape (patterns,).

    The disc of each pattern may have drifted by half of its radius.
    """
    ny, nx = images.shape[-2:]
    y, x = np.ogrid[:ny, :nx]
    total = np.maximum(images.sum(axis=(-2, -1), dtype=float), 1e-9)
    centre, inside = np.broadcast_to(np.asarray(centre_px, float), (len(images), 2)), total
    for _ in range(_CENTRINGS):
        at_x, at_y = centre.T[:, :, None, None]
        seen = images * (np.hypot(x - at_x, y - at_y) < _INSIDE * radius_px)
        inside = seen.sum(axis=(-2, -1), dtype=float)
        moments = [(seen * axis).sum(axis=(-2, -1), dtype=float) for axis in (x, y)]
        centre = np.where(inside > 0, moments / np.maximum(inside, 1e-9), centre.T).T
    return np.asarray(1 - inside / total)
