"""What a real camera adds to an image: an ellipse, blur, background, a beam stop, bad pixels.

All of it is drawn at random for every example, from ranges, so that a network learns not to mind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

ELLIPSE = ("ellipticity", "ellipticity_diagonal")
"""What belongs to the geometry of an image."""

FITTED = (*ELLIPSE, "blur_px", "background", "halo")
"""What a fit can have among its unknowns; see :data:`pacbed.scattering.image_model.UNKNOWNS`."""

CAMERA = (*FITTED, "beam_stop_mrad", "gain_noise", "dead_pixels")
"""Columns that tables of transformations have besides, where the camera is not perfect."""

_NONE = (0.0, 0.0)
_DIRECTION, _ALL_DEG = "ellipticity_direction_deg", 180.0


@dataclass(frozen=True)
class CameraSettings:
    """Ranges of the imperfections of a camera, each uniform.

    Parameters
    ----------
    ellipticity
        How much larger angles are along one direction than the pixels say, and smaller across it.
    ellipticity_direction_deg
        That direction, counter-clockwise from x; with opposite ones it is the same.
    blur_px
        Standard deviation of the point spread, a Gaussian, in pixels of the example.
    background, halo
        Fraction of the incident electrons that is spread evenly, and as a broad Gaussian.
    beam_stop_mrad
        Radius of a round beam stop around the middle of the camera, in mrad.
    gain_noise
        Relative standard deviation of the gain from pixel to pixel.
    dead_pixels
        Share of pixels that record nothing.
    """

    ellipticity: tuple[float, float] = _NONE
    ellipticity_direction_deg: tuple[float, float] = (0.0, _ALL_DEG)
    blur_px: tuple[float, float] = _NONE
    background: tuple[float, float] = _NONE
    halo: tuple[float, float] = _NONE
    beam_stop_mrad: tuple[float, float] = _NONE
    gain_noise: tuple[float, float] = _NONE
    dead_pixels: tuple[float, float] = _NONE

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CameraSettings:
        """Restore settings that were stored with a dataset."""
        return cls(**{name: (ends[0], ends[1]) for name, ends in values.items()})

    @property
    def perfect(self) -> bool:
        """Whether there is nothing of all this."""
        return not any(map(self.has, (one.name for one in fields(self))))

    def has(self, name: str) -> bool:
        """Return whether examples have an imperfection, by its name here or in :data:`CAMERA`."""
        if name == _DIRECTION:
            return False
        return bool(getattr(self, name.removesuffix("_diagonal"))[1] > 0)

    def drawn(self, uniform: np.ndarray) -> np.ndarray:
        """Map numbers that are uniform in [0, 1) to imperfections.

        Both have the shape (count, 8); the result has the columns :data:`CAMERA`.
        """
        low, high = np.array([getattr(self, one.name) for one in fields(self)], float).T
        values = low + (high - low) * uniform
        size, angle = values[:, 0].copy(), np.radians(2 * values[:, 1])
        values[:, 0], values[:, 1] = size * np.cos(angle), size * np.sin(angle)
        return np.asarray(values)

    def middle(self) -> dict[str, float]:
        """Return the imperfections in the middle of all ranges, by the names :data:`CAMERA`."""
        drawn = self.drawn(np.full((1, len(CAMERA)), 0.5))[0].tolist()
        return dict(zip(CAMERA, drawn, strict=True))

    def priors(self) -> dict[str, tuple[float, float]]:
        """Return mean and standard deviation, over examples, of those of :data:`FITTED` there are.

        What does not vary is known, to a millionth.
        """
        middles = (np.arange(200) + 0.5) / 200
        uniform = np.full((200**2, len(CAMERA)), 0.5)
        uniform[:, :2] = np.stack(np.meshgrid(middles, middles), -1).reshape(-1, 2)
        # Of the others every number is uniform by itself.
        uniform[:, len(ELLIPSE) :] = uniform[:, :1]
        values = self.drawn(uniform)
        mean, sigma = values.mean(axis=0).tolist(), np.maximum(values.std(axis=0), 1e-6).tolist()
        return {name: (mean[n], sigma[n]) for n, name in enumerate(FITTED) if self.has(name)}


def not_learnt(trained: CameraSettings | None, seen: CameraSettings | None) -> list[str]:
    """Return in what the camera of examples is not one that a network has learnt, in words."""
    known, found = trained or CameraSettings(), seen or CameraSettings()
    words = []
    for name, (low, high) in asdict(found).items():
        least, most = getattr(known, name)
        if name == _DIRECTION and (not found.has("ellipticity") or most - least >= _ALL_DEG):
            continue
        if low < least or high > most:
            words.append(f"{name} from {low:g} to {high:g}, not {least:g} to {most:g}")
    return words
