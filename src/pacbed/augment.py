"""From a noise-free pattern to an example as a camera would record it.

The order is the paper's (Yankovich et al. 2026, 2.4): rotate, vary the field of view, resample,
translate, add noise, scale the image mean. The first four are one affine resampling. The optional
square root, which comes before the last step, is a layer of the network: scaling commutes with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import affine_transform

from pacbed.errors import PacbedError


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
    """

    pixels: int
    field_of_view_mrad: float
    field_of_view_variation: float
    rotation_deg: tuple[float, float]
    translation_px: float
    noise: str
    electrons: tuple[float, float]
    image_mean: tuple[float, float]

    @property
    def smallest_pixel_mrad(self) -> float:
        """Smallest pixel of an example in mrad."""
        return self.field_of_view_mrad * (1 - self.field_of_view_variation) / self.pixels

    @property
    def reach_mrad(self) -> float:
        """Largest |kx| or |ky| of the pattern that an example can show, in mrad."""
        largest = self.field_of_view_mrad * (1 + self.field_of_view_variation)
        # Zero angle is on a pixel centre, so one side has half a pixel more than half of the field.
        half = largest * (0.5 + (self.translation_px + 0.5) / self.pixels)
        angle = min(math.pi / 4, math.radians(max(abs(g) for g in self.rotation_deg)))
        return half * (math.cos(angle) + math.sin(angle))


@dataclass(frozen=True)
class Transformation:
    """What distinguishes one example from its pattern."""

    rotation_deg: float
    field_of_view_mrad: float
    shift_x_px: float
    shift_y_px: float
    electrons: float
    image_mean: float


def draw_transformation(
    random: np.random.Generator, settings: AugmentationSettings
) -> Transformation:
    """Draw a transformation."""
    variation, shift = settings.field_of_view_variation, settings.translation_px
    low, high = np.log(settings.electrons)
    return Transformation(
        rotation_deg=float(random.uniform(*settings.rotation_deg)),
        field_of_view_mrad=settings.field_of_view_mrad
        * float(random.uniform(1 - variation, 1 + variation)),
        shift_x_px=float(random.uniform(-shift, shift)),
        shift_y_px=float(random.uniform(-shift, shift)),
        electrons=float(np.exp(random.uniform(low, high))),
        image_mean=float(random.uniform(*settings.image_mean)),
    )


def resample(
    pattern: np.ndarray,
    pixel_mrad: tuple[float, float],
    transformation: Transformation,
    pixels: int,
) -> np.ndarray:
    """Rotate, scale and shift a pattern onto the pixels of an example.

    A camera pixel collects what falls on its area: each is the mean of bilinear samples at least
    as dense as the pixels of the pattern, which is the low-pass that the coarser grid needs.

    Parameters
    ----------
    pattern
        Fraction of the incident electrons per pixel, shape (ny, nx), zero angle at ``n // 2``.
    pixel_mrad
        Pixel size (x, y) of the pattern in mrad.
    transformation
        Rotation, field of view and shift to apply.
    pixels
        Pixels of the example per axis.

    Returns
    -------
    numpy.ndarray
        Fraction of the incident electrons per pixel, shape (pixels, pixels); zero angle lies on
        pixel ``pixels // 2`` before the shift.
    """
    pixel = transformation.field_of_view_mrad / pixels
    samples = max(1, math.ceil(pixel / min(pixel_mrad) - 1e-9))
    angle = math.radians(transformation.rotation_deg)
    # An example at position u (y, x) shows the pattern at R(-γ) u.
    inverse = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    size = np.array(pixel_mrad[::-1])
    matrix = inverse * (pixel / samples) / size[:, None]
    shift = np.array([transformation.shift_y_px, transformation.shift_x_px])
    centre = (pixels // 2 + shift + 0.5) * samples - 0.5
    offset = np.array(pattern.shape) // 2 - matrix @ centre
    fine = affine_transform(
        pattern, matrix, offset, output_shape=(pixels * samples,) * 2, order=1, mode="constant"
    )
    blocks = fine.reshape(pixels, samples, pixels, samples)
    return np.asarray(blocks.mean(axis=(1, 3)) * (pixel**2 / (size[0] * size[1])))


def record(expected: np.ndarray, model: str, random: np.random.Generator) -> np.ndarray:
    """Draw the recorded signal for expected numbers of electrons per pixel.

    Parameters
    ----------
    expected
        Expected number of electrons µ in each pixel.
    model
        ``poisson``, or ``lognormal`` with the same mean and variance: ln-variance
        ln(1 + 1/µ), ln-mean ln µ - ln(1 + 1/µ)/2.
    random
        Source of randomness.

    Returns
    -------
    numpy.ndarray
        Signal in electrons, shape of `expected`.
    """
    if model == "poisson":
        return random.poisson(expected).astype(float)
    lit = expected > 0
    safe = np.where(lit, expected, 1)
    variance = np.log1p(1 / safe)
    normal = random.standard_normal(expected.shape)
    signal = np.exp(np.log(safe) - variance / 2 + np.sqrt(variance) * normal)
    return np.where(lit, signal, 0)


def make_image(
    pattern: np.ndarray,
    pixel_mrad: tuple[float, float],
    transformation: Transformation,
    settings: AugmentationSettings,
    random: np.random.Generator,
) -> np.ndarray:
    """Make the image of one example, float32, shape (pixels, pixels), with the drawn mean.

    Raises
    ------
    PacbedError
        If no electron was recorded.
    """
    fraction = resample(pattern, pixel_mrad, transformation, settings.pixels)
    signal = record(fraction * transformation.electrons, settings.noise, random)
    mean = signal.mean()
    if not (np.isfinite(mean) and mean > 0):
        raise PacbedError(
            f"an image of {transformation.electrons:.3g} electrons has a mean signal of {mean}: "
            "raise dataset.electrons"
        )
    return (signal * (transformation.image_mean / mean)).astype(np.float32)
