"""Examples made on the device of the network, a batch at a time, by any backend of Keras.

The same steps in the same order as :mod:`pacbed.examples.augment`, whose settings and draws are
used: for the same transformation both give the same image but for the noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any, cast

import keras
import numpy as np
from keras import layers, ops

from pacbed.examples.augment import DARK, AugmentationSettings, Transformation
from pacbed.exceptions import PacbedError

_INDICES = 2**31
"""Pixels of all patterns that indices of 32 bits can tell apart."""

_FEW = 10
"""Electrons per pixel from which Poisson numbers are computed from normal ones."""

_MOST = 40
"""Beyond as many electrons the probability is below single precision, if ten are expected."""

_RARE = 1e-8
"""Probability that single precision cannot add to a sum near one."""


class Augmentation(layers.Layer):
    """Turns numbers of patterns and transformations into images.

    One gather reads the four neighbours of every pixel of an example: rotation, field of view,
    resampling and translation are one bilinear interpolation of patterns that were averaged over
    the area of a camera pixel before.

    Parameters
    ----------
    averaged
        Fraction of the incident electrons per pixel, shape (draws, ny, nx), zero angle at
        ``n // 2``, as of :meth:`pacbed.examples.pattern_set.PatternSet.averaged`. They are kept on
        the device.
    pixel_mrad
        Pixel size (x, y) of the patterns in mrad.
    settings
        Pixels and noise of the examples.
    seed
        Seed of the noise.

    Raises
    ------
    PacbedError
        If the patterns have too many pixels.
    """

    def __init__(
        self,
        averaged: np.ndarray,
        pixel_mrad: tuple[float, float],
        settings: AugmentationSettings,
        seed: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(trainable=False, dtype="float32", **kwargs)
        if averaged.size >= _INDICES:
            raise PacbedError(
                f"{len(averaged)} patterns of {averaged.shape[2]} × {averaged.shape[1]} pixels are "
                "too many for the graphics card: lower simulation.pixels, or train with "
                "training.data: materialised"
            )
        self.images = _fused(self._images)
        self.pattern_shape = averaged.shape[1:]
        self.pixel_mrad = pixel_mrad
        self.pixels = settings.pixels
        self.noise = settings.noise
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.patterns = self.add_weight(
            shape=(averaged.size,),
            initializer=lambda shape, dtype: ops.convert_to_tensor(averaged.reshape(-1), dtype),
            trainable=False,
            name="patterns",
        )

    def call(self, pattern: Any, transformation: Any) -> Any:
        """Make images.

        Parameters
        ----------
        pattern
            Number of the pattern of each example, shape (examples,), int32.
        transformation
            Shape (examples, 6), columns as the fields of
            :class:`pacbed.examples.augment.Transformation`.

        Returns
        -------
        tensor
            Images with the drawn mean, shape (examples, pixels, pixels, 1).
        """
        shape = (ops.shape(pattern)[0], self.pixels, self.pixels)
        normal = keras.random.normal(shape, seed=self.seed_generator)
        return self.images(pattern, transformation, normal)

    def _images(self, pattern: Any, transformation: Any, normal: Any) -> Any:
        names = [field.name for field in fields(Transformation)]
        one = {name: transformation[:, n, None, None] for n, name in enumerate(names)}
        fraction = self._resample(pattern[:, None, None], one)
        signal = record(fraction * one["electrons"], self.noise, normal)
        mean = ops.mean(signal, axis=(1, 2), keepdims=True)
        return (signal * (one["image_mean"] / ops.maximum(mean, DARK)))[..., None]

    def _resample(self, pattern: Any, one: dict[str, Any]) -> Any:
        """Return the fraction of the electrons in each pixel of the examples."""
        ny, nx = self.pattern_shape
        pixel = one["field_of_view_mrad"] / self.pixels
        angle = one["rotation_deg"] * (math.pi / 180)
        cos, sin = pixel * ops.cos(angle), pixel * ops.sin(angle)
        axis = ops.arange(self.pixels, dtype="float32") - self.pixels // 2
        u = axis[None, None, :] - one["shift_x_px"]
        v = axis[None, :, None] - one["shift_y_px"]
        # From zero angle, where single precision is best.
        x, left = _neighbour((cos * u + sin * v) / self.pixel_mrad[0], nx)
        y, below = _neighbour((cos * v - sin * u) / self.pixel_mrad[1], ny)
        inside = (left >= 0) & (left < nx - 1) & (below >= 0) & (below < ny - 1)
        corner = pattern * (ny * nx) + below * nx + left
        corner = ops.where(inside, corner, 0)
        row = [
            (1 - x) * ops.take(self.patterns, corner + step)
            + x * ops.take(self.patterns, corner + step + 1)
            for step in (0, nx)
        ]
        image = (1 - y) * row[0] + y * row[1]
        size = self.pixel_mrad[0] * self.pixel_mrad[1]
        return ops.where(inside, image * (pixel * pixel / size), 0.0)


def _neighbour(position: Any, count: int) -> tuple[Any, Any]:
    """Return how far positions, from zero angle, lie beyond the pixel before, and its number."""
    before = ops.floor(position)
    return position - before, ops.cast(before, "int32") + count // 2


def _fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile the many small steps into one where the backend does not do so by itself.

    With TensorFlow, Keras does not where operations must be deterministic, as not all of a network
    are with XLA on a graphics card; those of this layer are.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return cast(Callable[..., Any], tf.function(function, jit_compile=True))
    return function


def record(expected: Any, model: str, normal: Any) -> Any:
    """Draw the recorded signal for expected numbers of electrons per pixel.

    Parameters
    ----------
    expected
        Expected number of electrons µ in each pixel.
    model
        ``poisson`` or ``lognormal``, as in :func:`pacbed.examples.augment.record`.
    normal
        Standard normal numbers of the same shape.
    """
    if model == "poisson":
        return poisson(expected, normal)
    mean = ops.maximum(expected, DARK)
    sigma = ops.sqrt(ops.log1p(1 / mean))
    return expected * ops.sqrt(mean / (1 + mean)) * ops.exp(sigma * normal)


def poisson(mean: Any, normal: Any) -> Any:
    """Turn standard normal numbers into Poisson numbers of as high a rank.

    Few are counted up until their probability reaches that of the normal number; many follow from
    the expansion of Cornish and Fisher (1938) to the second order beyond the normal one, as of
    Giles (2016), "Approximation of the inverse Poisson cumulative distribution function".

    Parameters
    ----------
    mean
        Expected numbers.
    normal
        Standard normal numbers of the same shape.
    """
    rank = 0.5 * (1 + ops.erf(normal * math.sqrt(0.5)))
    few = ops.minimum(mean, _FEW)
    probability = ops.exp(-few)
    reached, counted = probability, ops.zeros_like(few)
    for number in range(1, _MOST):
        # A rank may be one in single precision, which no sum of probabilities reaches.
        counted = counted + ops.cast((rank > reached) & (probability > _RARE), "float32")
        probability = probability * few / number
        reached = reached + probability
    root = ops.sqrt(ops.maximum(mean, _FEW))
    square = normal * normal
    many = mean + root * normal + (square - 1) / 6 - normal * (square + 2) / (72 * root)
    return ops.where(mean < _FEW, counted, ops.maximum(ops.floor(many + 0.5), 0.0))
