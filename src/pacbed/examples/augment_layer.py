"""Examples made on the device of the network, a batch at a time, by any backend of Keras.

The noise of an example follows from its key alone (:mod:`pacbed.examples.source`): neither batches,
device nor backend change it, but for the rounding of single precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import keras
import numpy as np
from keras import layers, ops

from pacbed.examples.augment import DARK, AugmentationSettings
from pacbed.examples.pattern_set import PatternSet
from pacbed.exceptions import PacbedError
from pacbed.scattering.image import NARROWEST_PX, halo

_INDICES = 2**31
"""Pixels of all patterns that indices of 32 bits can tell apart."""

_FEW = 10
"""Electrons per pixel from which Poisson numbers are computed from normal ones."""

_MOST = 40
"""Beyond as many electrons the probability is below single precision, if ten are expected."""

_REACH = 4.5
"""Standard deviations of a point spread beyond which it is taken for none."""

_RARE = 1e-8
"""Probability that single precision cannot add to a sum near one."""

_GAIN, _DEAD = 1, 2
"""Fields of random numbers besides that of the noise."""

# Of Threefry-2x32: left rotations of two groups of four rounds, number of groups, key parity.
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_GROUPS = 5
_PARITY = 0x1BD11BDA


class Augmentation(layers.Layer):
    """Turns numbers of patterns, transformations and keys of the noise into images.

    One gather reads the four neighbours of every pixel of an example: rotation, field of view,
    resampling and translation are one bilinear interpolation of patterns that are averaged over the
    area of a camera pixel before. Images of a pool are on their pixels already.

    Parameters
    ----------
    library
        Patterns as simulated, which are kept on the device, averaged; or images of a pool.
    settings
        Pixels and noise of the examples.

    Raises
    ------
    PacbedError
        If the patterns have too many pixels.
    """

    def __init__(self, library: PatternSet, settings: AugmentationSettings, **kwargs: Any) -> None:
        super().__init__(trainable=False, dtype="float32", **kwargs)
        count, ny, nx = library.patterns.shape
        self.pool = library.geometry is not None
        self.images = _fused(self._images)
        self.pixels = settings.pixels
        self.noise = settings.noise
        self.columns, self.camera = settings.columns, settings.camera
        self.nominal_pixel_mrad = settings.pixel_mrad
        if self.pool:
            self.patterns = self.add_weight(
                shape=library.patterns.shape,
                dtype="float16",
                initializer=lambda shape, dtype: ops.convert_to_tensor(library.patterns),
                trainable=False,
                # Not all of them are to be widened for one batch.
                autocast=False,
                name="patterns",
            )
            return
        if count * ny * nx >= _INDICES:
            raise PacbedError(
                f"{count} patterns of {nx} × {ny} pixels are too many for one table of 32 bits: "
                "lower simulation.pixels or draws.count"
            )
        self.pattern_shape = ny, nx
        self.pixel_mrad = library.pixel_mrad
        averaged = library.averaged(settings.pixel_mrad, settings.mtf)
        self.patterns = self.add_weight(
            shape=(count * ny * nx,),
            # One by one: of an array of all there would be two more copies for a moment.
            initializer=lambda shape, dtype: ops.concatenate(
                [ops.reshape(pattern, (-1,)) for pattern in averaged]
            ),
            trainable=False,
            name="patterns",
        )

    def call(self, pattern: Any, transformation: Any, key: Any) -> Any:
        """Make images, shape (examples, pixels, pixels, 1), with the drawn means.

        Of what :meth:`pacbed.examples.source.ExampleSource.draw` returns.
        """
        return self.images(pattern, transformation, key)

    def arrays(
        self, pattern: np.ndarray, transformation: np.ndarray, key: np.ndarray
    ) -> np.ndarray:
        """Make images as an array, shape (examples, pixels, pixels), float32."""
        return np.asarray(ops.convert_to_numpy(self(pattern, transformation, key)))[..., 0]

    def _images(self, pattern: Any, transformation: Any, key: Any) -> Any:
        one = {name: transformation[:, n, None, None] for n, name in enumerate(self.columns)}
        if self.pool:
            scaled = ops.cast(ops.take(self.patterns, pattern, axis=0), "float32")
            fraction = scaled / self.pixels**2
        else:
            fraction = self._resample(pattern[:, None, None], one)
        if self.camera:
            fraction = self._reaching_camera(fraction, one)
        normal = normal_numbers(key, self.pixels)
        signal = record(fraction * one["electrons"], self.noise, normal)
        if self.camera:
            signal = self._read_out(signal, one, key)
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
        area = pixel * pixel
        if self.camera and self.camera.has("ellipticity"):
            e, d = one["ellipticity"], one["ellipticity_diagonal"]
            u, v = (1 + e) * u + d * v, d * u + (1 - e) * v
            area = area * (1 - e * e - d * d)
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
        return ops.where(inside, image * (area / size), 0.0)

    def _reaching_camera(self, fraction: Any, one: dict[str, Any]) -> Any:
        """Add background and halo, blur, and take away what the beam stop holds back."""
        assert self.camera
        axis, pixel = np.arange(self.pixels) - self.pixels // 2, self.nominal_pixel_mrad
        if self.camera.has("background"):
            fraction = fraction + one["background"] / self.pixels**2
        if self.camera.has("halo"):
            fraction = fraction + one["halo"] * halo((axis, axis), pixel).astype(np.float32)
        if self.camera.has("blur_px"):
            fraction = self._blurred(fraction, one["blur_px"])
        if self.camera.has("beam_stop_mrad"):
            radius = (pixel * np.hypot(axis, axis[:, None])).astype(np.float32)
            fraction = ops.where(one["beam_stop_mrad"] > radius, 0.0, fraction)
        return fraction

    def _blurred(self, fraction: Any, sigma: Any) -> Any:
        """Blur images by Gaussians, so that a flat one stays flat up to its edges.

        Without a product of matrices, whose last digit may depend on the batch and on threads.
        """
        assert self.camera
        sigma = ops.maximum(sigma, NARROWEST_PX)
        reach = math.ceil(_REACH * self.camera.blur_px[1])
        offsets = range(-reach, reach + 1)
        weights = [ops.exp(-(step**2) / (2 * sigma * sigma)) for step in offsets]
        lit = ops.pad(ops.ones((1, 1, self.pixels)), [[0, 0], [0, 0], [reach, reach]])
        total = sum(weight * lit[:, :, n : n + self.pixels] for n, weight in enumerate(weights))
        for _ in range(2):  # along x, and the other way round along y
            padded = ops.pad(fraction, [[0, 0], [0, 0], [reach, reach]])
            spread = sum(
                weight * padded[:, :, n : n + self.pixels] for n, weight in enumerate(weights)
            )
            fraction = ops.transpose(spread / total, (0, 2, 1))
        return fraction

    def _read_out(self, signal: Any, one: dict[str, Any], key: Any) -> Any:
        """Multiply by the gain of each pixel, and set dead ones to zero."""
        assert self.camera
        if self.camera.has("gain_noise"):
            gain = 1 + one["gain_noise"] * normal_numbers(key, self.pixels, _GAIN)
            signal = signal * ops.maximum(gain, 0.0)
        if self.camera.has("dead_pixels"):
            random = uniform_numbers(key, self.pixels, _DEAD)
            signal = ops.where(random < one["dead_pixels"], 0.0, signal)
        return signal


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
        from pacbed.scattering.xla import compiled

        return cast(Callable[..., Any], compiled(function))
    return function


def normal_numbers(key: Any, pixels: int, field: int = 0) -> Any:
    """Return standard normal numbers for the pixels of examples, from a key for each example.

    Those of another field are independent.

    Each pair of pixels takes two of the numbers of Threefry-2x32 with 20 rounds (Salmon et al.,
    SC11 (2011), doi:10.1145/2063384.2063405), of which the number of the pair is the counter, and
    the transformation of Box and Muller (1958). They are at most 5.8 from zero.

    The key has the shape (examples, 2), int32, the numbers (examples, pixels, pixels).
    """
    first, second = _pairs(key, pixels, field)
    radius = ops.sqrt(-2 * ops.log(first))
    angle = 2 * math.pi * second
    numbers = ops.concatenate([radius * ops.cos(angle), radius * ops.sin(angle)], axis=1)
    return ops.reshape(numbers[:, : pixels**2], (-1, pixels, pixels))


def uniform_numbers(key: Any, pixels: int, field: int) -> Any:
    """Return numbers between 0 and 1 for the pixels of examples, as :func:`normal_numbers`."""
    numbers = ops.concatenate(_pairs(key, pixels, field), axis=1)
    return ops.reshape(numbers[:, : pixels**2], (-1, pixels, pixels))


def _pairs(key: Any, pixels: int, field: int) -> tuple[Any, Any]:
    """Return two uniform numbers for each pair of pixels, shape (examples, pairs)."""
    pair = ops.arange(-(-(pixels**2) // 2), dtype="int32")[None]
    first, second = threefry(key[:, :1], key[:, 1:], pair, ops.zeros_like(pair) + field)
    return _uniform(first), _uniform(second)


def threefry(first_key: Any, second_key: Any, first: Any, second: Any) -> tuple[Any, Any]:
    """Return the two random words of Threefry-2x32 for two words of a key and of a counter.

    All are int32, of shapes that fit each other: not all backends compute with unsigned numbers.
    """
    parity = ops.bitwise_xor(ops.bitwise_xor(first_key, second_key), _PARITY)
    keys = first_key, second_key, parity
    first, second = first + first_key, second + second_key
    for group in range(_GROUPS):
        for bits in _ROTATIONS[group % 2]:
            first = first + second
            high = ops.left_shift(second, bits)
            low = _logical_right_shift(second, 32 - bits)
            second = ops.bitwise_xor(ops.bitwise_or(high, low), first)
        first = first + keys[(group + 1) % 3]
        second = second + keys[(group + 2) % 3] + (group + 1)
    return first, second


def _logical_right_shift(words: Any, bits: int) -> Any:
    return ops.bitwise_and(ops.right_shift(words, bits), (1 << (32 - bits)) - 1)


def _uniform(words: Any) -> Any:
    """Return numbers between 0 and 1, exclusive, all of them exact in single precision."""
    return (ops.cast(_logical_right_shift(words, 9), "float32") + 0.5) * 2.0**-23


def record(expected: Any, model: str, normal: Any) -> Any:
    """Return the recorded signal for expected numbers of electrons per pixel.

    As :func:`pacbed.examples.augment.record`, of standard normal numbers of the same shape.
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
