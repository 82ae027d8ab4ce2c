"""Undoing what a network has read of a pattern, by resampling its image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

BEYOND = 1.3
"""An answer may lie outside of its range; what is farther away than this is cut off."""


@keras.saving.register_keras_serializable(package="pacbed")
class Rectify(layers.Layer):
    """Shows images as those of the undeformed crystal, according to an answer that was read.

    Rotation, strain, shift and scale are undone by one bilinear interpolation. Discs then lie where
    those of the undeformed crystal lie, if the answer is right.

    Parameters
    ----------
    size
        Pixels of the result per axis.
    pitch_px
        Their distance in pixels of the images.
    centre, half_range
        Scaling of the answers: strain (xx, yy, xy), rotation in degrees, perhaps others, and last
        :data:`pacbed.examples.labels.NUISANCES`.
    """

    def __init__(
        self,
        size: int,
        pitch_px: float,
        centre: Sequence[float],
        half_range: Sequence[float],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.size, self.pitch_px = size, pitch_px
        self.centre, self.half_range = tuple(centre), tuple(half_range)

    def call(self, images: Any, answers: Any) -> Any:
        """Rectify images (examples, pixels, pixels, 1); return (examples, size, size, 1)."""
        pixels = images.shape[1]
        # An answer that is no number is no place in the image.
        answers = ops.where(ops.isfinite(answers), answers, 0.0)
        scaled = ops.clip(answers, -BEYOND, BEYOND)
        physical = scaled * ops.array(self.half_range) + ops.array(self.centre)
        x, left = _neighbour(self._positions(physical, 0) + pixels // 2, pixels)
        y, below = _neighbour(self._positions(physical, 1) + pixels // 2, pixels)
        flat = ops.reshape(images, (-1, pixels * pixels))
        corner = ops.reshape(below * pixels + left, (-1, self.size**2))

        def shown(step: int) -> Any:
            taken = ops.take_along_axis(flat, corner + step, axis=1)
            return ops.reshape(taken, (-1, self.size, self.size))

        upper = (1 - x) * shown(pixels) + x * shown(pixels + 1)
        image = (1 - y) * ((1 - x) * shown(0) + x * shown(1)) + y * upper
        return image[..., None]

    def _positions(self, physical: Any, axis: int) -> Any:
        """Return where the pixels of the result lie in an image, from its middle, along an axis."""
        xx, yy, xy, rotation_deg = (physical[:, n, None, None] for n in range(4))
        shift, log_scale = physical[:, axis - 3, None, None], physical[:, -1, None, None]
        grid = (ops.arange(self.size, dtype="float32") - self.size // 2) * self.pitch_px
        u, v = grid[None, None, :], grid[None, :, None]
        # Reciprocal vectors of the strained crystal are (1 + ε)⁻¹ times those of the other.
        scale = ops.exp(-log_scale) / ((1 + xx) * (1 + yy) - xy * xy)
        x, y = scale * ((1 + yy) * u - xy * v), scale * ((1 + xx) * v - xy * u)
        angle = rotation_deg * (math.pi / 180)
        cos, sin = ops.cos(angle), ops.sin(angle)
        return shift + (cos * x - sin * y if axis == 0 else sin * x + cos * y)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, so that a saved model can be restored."""
        return {
            **super().get_config(),
            "size": self.size,
            "pitch_px": self.pitch_px,
            "centre": self.centre,
            "half_range": self.half_range,
        }


def _neighbour(position: Any, pixels: int) -> tuple[Any, Any]:
    """Return how far positions lie beyond the pixel before, and its number.

    What is outside of the image has the value at its edge.
    """
    before = ops.clip(ops.floor(position), 0, pixels - 2)
    return ops.clip(position - before, 0, 1), ops.cast(before, "int32")
