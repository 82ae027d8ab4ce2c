"""From a noise-free pattern to an example as a camera would record it.

The order is the paper's (Yankovich et al. 2026, 2.4): rotate, vary the field of view, resample,
translate, add noise, scale the image mean. The first four are one affine resampling of a pattern
that :func:`average_over_pixels` has prepared, once for all examples. The optional square root,
which comes before the last step, is a layer of the network: scaling commutes with it.

:mod:`pacbed.examples.augment_layer` makes all examples. Here are the settings, what is done once
per pattern, and the same steps with NumPy for figures and bounds, which need no TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.ndimage import affine_transform, correlate1d, gaussian_filter

from pacbed.examples.camera import CAMERA, ELLIPSE, CameraSettings
from pacbed.examples.labels import NUISANCES, PARAMETERS
from pacbed.exceptions import RequestError
from pacbed.scattering.image import Camera, halo
from pacbed.scattering.mtf import MTF

NOISES = ("lognormal", "poisson")
"""Models of what a camera records."""

DARK = 1e-20
"""Fewer electrons per pixel count as none; the inverse is still a number in single precision."""


FINE_PIXEL_mrad = 0.11
"""Stored pixels up to this width, such as Prismatic's own of 0.104 mrad, are fine."""


@dataclass(frozen=True)
class AugmentationSettings:
    """Ranges of the random transformations.

    Parameters
    ----------
    pixels
        Pixels of an example per axis.
    field_of_view_mrad
        Nominal full width of an example in mrad.
    field_of_view_variation
        Relative variation, uniform within ± this.
    rotation_deg
        Range of the rotation γ in degrees, counter-clockwise.
    translation_px
        Shift along each axis, uniform within ± this many pixels of the example.
    noise
        ``lognormal`` or ``poisson``.
    electrons
        Range of the number of incident electrons, log-uniform.
    image_mean
        Range of the image mean.
    camera
        What the camera adds; None for a perfect one.
    mtf
        Modulation transfer function of the camera, in pixels of the example; None for that of
        perfect pixels.

    Raises
    ------
    RequestError
        If there is no such noise.
    """

    pixels: int
    field_of_view_mrad: float
    field_of_view_variation: float
    rotation_deg: tuple[float, float]
    translation_px: float
    noise: str
    electrons: tuple[float, float]
    image_mean: tuple[float, float]
    camera: CameraSettings | None = None
    mtf: MTF | None = None

    def __post_init__(self) -> None:
        if isinstance(self.camera, Mapping):  # as stored with a dataset
            object.__setattr__(self, "camera", CameraSettings.from_dict(self.camera))
        if isinstance(self.mtf, Mapping):
            object.__setattr__(self, "mtf", MTF(**self.mtf))
        if self.noise not in NOISES:
            raise RequestError(f"noise must be {' or '.join(NOISES)}, not '{self.noise}'")

    def described(self) -> dict[str, Any]:
        """Return the settings as they are stored; a perfect camera is not mentioned."""
        known = asdict(self)
        for name in ("camera", "mtf"):
            if known[name] is None:
                del known[name]
        return known

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of tables of transformations."""
        return (*TRANSFORMATIONS, *(CAMERA if self.camera else ()))

    @property
    def geometry(self) -> tuple[str, ...]:
        """What of a transformation an image of a pool has already."""
        return (*TRANSFORMATIONS[:4], *(ELLIPSE if self.largest_ellipticity else ()))

    @property
    def geometry_ranges(self) -> dict[str, Any]:
        """Pixels, their MTF, and ranges of :attr:`geometry`: what images of a pool depend on."""
        return geometry_of(self.described())

    @property
    def largest_ellipticity(self) -> float:
        """Largest relative change of angles by an elliptical camera."""
        return self.camera.ellipticity[1] if self.camera else 0.0

    @property
    def pixel_mrad(self) -> float:
        """Pixel of an example at the nominal field of view, in mrad."""
        return self.field_of_view_mrad / self.pixels

    @property
    def smallest_pixel_mrad(self) -> float:
        """Smallest pixel of an example in mrad."""
        smallest = self.field_of_view_mrad * (1 - self.field_of_view_variation)
        return smallest * (1 - self.largest_ellipticity) / self.pixels

    @property
    def reach_mrad(self) -> float:
        """Largest |kx| or |ky| of the pattern that an example can show, in mrad."""
        largest = self.field_of_view_mrad * (1 + self.field_of_view_variation)
        largest *= 1 + self.largest_ellipticity
        # Zero angle is on a pixel centre, so one side has half a pixel more than half of the field.
        half = largest * (0.5 + (self.translation_px + 0.5) / self.pixels)
        angle = min(math.pi / 4, math.radians(max(abs(g) for g in self.rotation_deg)))
        return half * (math.cos(angle) + math.sin(angle))

    def transformations(self, uniform: np.ndarray) -> np.ndarray:
        """Map numbers that are uniform in [0, 1) to transformations.

        Both have a column for each of :attr:`columns`.
        """
        field, variation = self.field_of_view_mrad, self.field_of_view_variation
        shift = -self.translation_px, self.translation_px
        ranges = np.array(
            [
                self.rotation_deg,
                (field * (1 - variation), field * (1 + variation)),
                shift,
                shift,
                np.log(self.electrons),
                self.image_mean,
            ]
        )
        usual = uniform[:, : len(ranges)]
        drawn = ranges[:, 0] + (ranges[:, 1] - ranges[:, 0]) * usual
        drawn[:, 4] = np.exp(drawn[:, 4])
        if self.camera:
            drawn = np.hstack([drawn, self.camera.drawn(uniform[:, len(ranges) :])])
        return np.asarray(drawn)


def geometry_of(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return, of settings as they are stored, those on which images of a pool depend."""
    camera = described.get("camera") or {}
    known = {**described, **(camera if camera.get("ellipticity", _PERFECT)[1] else {})}
    return {name: known[name] for name in _OF_GEOMETRY if name in known}


_PERFECT = (0.0, 0.0)
_OF_GEOMETRY = (
    *("pixels", "field_of_view_mrad", "field_of_view_variation", "rotation_deg", "translation_px"),
    *("mtf", "ellipticity", "ellipticity_direction_deg"),
)


TRANSFORMATIONS = (
    *("rotation_deg", "field_of_view_mrad", "shift_x_px", "shift_y_px"),
    *("electrons", "image_mean"),
)
"""Columns of tables of transformations."""


def label_columns(
    parameters: Sequence[str],
    labels: np.ndarray,
    transformations: np.ndarray,
    field_of_view_mrad: float,
) -> np.ndarray:
    """Return what is to be read of examples, shape (examples, parameters).

    Parameters
    ----------
    parameters
        Of :data:`pacbed.examples.labels.PARAMETERS` and :data:`pacbed.examples.labels.NUISANCES`.
    labels
        Physical parameters of the examples, shape (examples, 6).
    transformations
        Shape (examples, 6 or more), columns as :data:`TRANSFORMATIONS`.
    field_of_view_mrad
        Nominal full width of an example in mrad.
    """
    log_scale = np.log(transformations[:, 1:2] / field_of_view_mrad)
    known = np.hstack([labels, transformations[:, 2:4], log_scale])
    names = (*PARAMETERS, *NUISANCES)
    return known[:, [names.index(name) for name in parameters]]


def average_over_pixels(
    pattern: np.ndarray,
    pixel_mrad: tuple[float, float],
    camera_pixel_mrad: float,
    mtf: MTF | None = None,
) -> np.ndarray:
    """Average a pattern so that, interpolated, it is the integral over the pixels of a camera.

    Its own pixels are averages already, and interpolation blurs it too. The squares of widths add,
    so that what is missing to the width p of a camera pixel, with pixels of width q, is an average
    over √(p² - 3q²). It is done once, along the axes of the pattern and with the nominal pixel:
    rotation and field of view change the shape of the small area hardly.

    Parameters
    ----------
    pattern
        Fraction of the incident electrons per pixel, shape (ny, nx).
    pixel_mrad
        Pixel size (x, y) of the pattern in mrad.
    camera_pixel_mrad
        Pixel size of the examples in mrad.
    mtf
        Of the camera, if it does more than to integrate over its pixels.

    Returns
    -------
    numpy.ndarray
        Of the same shape, single precision.
    """
    averaged = np.asarray(pattern, np.float32)
    for axis, size in enumerate(reversed(pixel_mrad)):
        width = math.sqrt(max(1.0, (camera_pixel_mrad / size) ** 2 - 3))
        reach = math.ceil((width - 1) / 2 - 1e-9)
        # How much of each pixel lies within the width.
        inside = width / 2 + 0.5 - np.abs(np.arange(-reach, reach + 1))
        weights = np.clip(inside, 0, 1) / width
        averaged = correlate1d(averaged, weights, axis, mode="nearest")
    if mtf:
        x, y = (size / camera_pixel_mrad for size in pixel_mrad)
        averaged = mtf.blurred(averaged, (y, x))
    return averaged


def error_of_stored_pixels(pixel_mrad: float, semiangle_mrad: float) -> float:
    """Return how much examples of stored patterns differ from integrals over the camera's pixels.

    Relative L1, at the edges of discs: measured with images of a scattering series in 256 pixels
    over 100 mrad, of patterns stored in pixels of 0.1 and 0.21 mrad, for semi-angles from 6 to
    33 mrad and one and ten layers.

    Parameters
    ----------
    pixel_mrad
        Of the stored patterns, in mrad.
    semiangle_mrad
        Convergence semi-angle in mrad.
    """
    return 0.003 * (pixel_mrad / 0.1) * 6.35 / semiangle_mrad


def resample(averaged: np.ndarray, pixel_mrad: tuple[float, float], camera: Camera) -> np.ndarray:
    """Rotate, scale and shift a pattern onto the pixels of an example, by bilinear interpolation.

    A flat field stays flat. From the integral over the pixels as turned and scaled, patterns differ
    by :func:`error_of_stored_pixels`.

    Parameters
    ----------
    averaged
        Fraction of the incident electrons per pixel, shape (ny, nx), zero angle at ``n // 2``,
        as of :func:`average_over_pixels`.
    pixel_mrad
        Pixel size (x, y) of the pattern in mrad.
    camera
        The pixels of the example.

    Returns
    -------
    numpy.ndarray
        Fraction of the incident electrons per pixel, shape (pixels, pixels), single precision.
    """
    size = np.array(pixel_mrad[::-1])
    # Of (y, x), as indices.
    matrix = camera.matrix[::-1, ::-1] / size[:, None]
    offset = np.array(averaged.shape) // 2 - matrix @ camera.origin[::-1]
    shape = camera.pixels, camera.pixels
    image = affine_transform(
        averaged, matrix, offset, output_shape=shape, output=np.float32, order=1
    )
    return np.asarray(image * np.float32(camera.pixel_area_mrad2 / (size[0] * size[1])))


def reaching_camera(
    image: np.ndarray, camera: Mapping[str, float], pixel_mrad: float
) -> np.ndarray:
    """Add background and halo, blur, and take away what the beam stop holds back.

    Parameters
    ----------
    image
        Fraction of the incident electrons per pixel, shape (pixels, pixels).
    camera
        Imperfections by the names of :data:`pacbed.examples.camera.CAMERA`.
    pixel_mrad
        Width of a pixel in mrad.
    """
    axis = np.arange(len(image)) - len(image) // 2
    image = image + camera["background"] / image.size
    image = image + camera["halo"] * halo((axis, axis), pixel_mrad)
    if camera["blur_px"]:
        # A flat image stays flat up to its edges.
        image, flat = (
            gaussian_filter(one, camera["blur_px"], mode="constant")
            for one in (image, np.ones_like(image))
        )
        image = image / flat
    held_back = pixel_mrad * np.hypot(axis, axis[:, None]) < camera["beam_stop_mrad"]
    return np.where(held_back, 0.0, image)


def read_out(
    signal: np.ndarray, camera: Mapping[str, float], random: np.random.Generator
) -> np.ndarray:
    """Multiply by the gain of each pixel, and set dead ones to zero."""
    gain = 1 + camera["gain_noise"] * random.standard_normal(signal.shape)
    dead = random.random(signal.shape) < camera["dead_pixels"]
    return np.where(dead, 0.0, signal * np.maximum(gain, 0))


def record(expected: np.ndarray, model: str, random: np.random.Generator) -> np.ndarray:
    """Draw the recorded signal for expected numbers of electrons per pixel.

    Parameters
    ----------
    expected
        Expected number of electrons µ in each pixel.
    model
        ``poisson``, or ``lognormal`` with the same mean and variance: with σ² = ln(1 + 1/µ) and
        a normal z it is exp(ln µ - σ²/2 + σz) = µ √(µ/(1 + µ)) exp(σz).
    random
        Source of randomness.

    Returns
    -------
    numpy.ndarray
        Signal in electrons, shape of `expected`, single precision.
    """
    if model == "poisson":
        return random.poisson(expected).astype(np.float32)
    mean = np.maximum(np.asarray(expected, np.float32), DARK)
    sigma = np.sqrt(np.log1p(1 / mean))
    normal = random.standard_normal(mean.shape, np.float32)
    # The expected number itself as a factor: where there is none, none is recorded.
    return np.asarray(expected * np.sqrt(mean / (1 + mean)) * np.exp(sigma * normal), np.float32)
