"""How precisely a pattern can be read at all: the Cramér-Rao bound.

From noise-free patterns of slightly different crystals, whatever engine made them, to the smallest
standard deviation that any unbiased reading of one noisy pattern can have. Strain, rotation and
tilt are unknown, and so are shift, field of view and dose, which an example has at random too
(:mod:`pacbed.examples.augment`). See ``docs/bound.md``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from pacbed.examples.augment import AugmentationSettings, average_over_pixels, resample
from pacbed.examples.labels import PARAMETERS
from pacbed.exceptions import PacbedError, RequestError
from pacbed.precision.steps import CENTRE, STEPPED, STEPS, Steps
from pacbed.scattering.image import Camera, Image
from pacbed.scattering.mtf import MTF
from pacbed.specimen.deformation import DrawRanges

NUISANCE = ("shift_x_px", "shift_y_px", "scale", "log_dose")
"""What is unknown besides: shift, field of view relative to its nominal, log of the electrons."""

UNKNOWN = PARAMETERS + NUISANCE
"""All that is unknown of a pattern, in the order of rows and columns of a Fisher information."""


_SINGULAR = 1e-9
"""Smallest eigenvalue of an information of unit diagonal that is not taken for rounding."""


@dataclass(frozen=True)
class Linearised:
    """How a noise-free example changes with all that is unknown.

    Parameters
    ----------
    slopes
        Derivatives with respect to :data:`UNKNOWN` of the fraction of the incident electrons per
        pixel, shape (10, pixels, pixels), double precision.
    means
        The fraction to which each belongs, between those of the two states of the difference, same
        shape: the square of the mean of their roots.
    """

    slopes: np.ndarray
    means: np.ndarray


def linearise(
    patterns: Mapping[str, np.ndarray],
    pixel_mrad: tuple[float, float],
    settings: AugmentationSettings,
    steps: Steps = STEPS,
) -> Linearised:
    """Return what a camera would see change around a state.

    Patterns come to the pixels of an example as examples do (:mod:`pacbed.examples.augment`),
    without rotation or shift and with the nominal field of view. Rotation, shift and field of view
    are differences of that resampling, the rest of patterns.

    Parameters
    ----------
    patterns
        Of the states of :func:`differences`, shape (ny, nx) each, fraction of the incident
        electrons per pixel.
    pixel_mrad
        Pixel size (x, y) of the patterns in mrad.
    settings
        Pixels and field of view of the examples.
    steps
        Those of :func:`differences`, and of the resampling.

    Raises
    ------
    PacbedError
        If a pattern is missing.
    """
    if missing := [name for name in _names() if name not in patterns]:
        raise PacbedError(
            f"no pattern of {', '.join(missing)}: simulate all states of states.differences"
        )
    field, pixels = settings.field_of_view_mrad, settings.pixels

    def averaged(name: str) -> np.ndarray:
        return average_over_pixels(patterns[name], pixel_mrad, settings.pixel_mrad, settings.mtf)

    def seen(pattern: np.ndarray, camera: Camera) -> np.ndarray:
        return resample(pattern, pixel_mrad, camera).astype(float)

    still = Camera(pixels, field)
    centre = averaged(CENTRE)
    resampled: dict[str, tuple[float, Callable[[float], Camera]]] = {
        "rotation_deg": (steps.rotation_deg, lambda by: replace(still, rotation_deg=by)),
        "shift_x_px": (steps.shift_px, lambda by: replace(still, shift_px=(by, 0.0))),
        "shift_y_px": (steps.shift_px, lambda by: replace(still, shift_px=(0.0, by))),
        "scale": (steps.scale, lambda by: Camera(pixels, field * (1 + by))),
    }
    slopes = np.empty((len(UNKNOWN), pixels, pixels))
    means = np.empty(slopes.shape)
    for row, parameter in enumerate(UNKNOWN):
        if parameter == "log_dose":
            slopes[row] = means[row] = seen(centre, still)
            continue
        if parameter in resampled:
            step, moved = resampled[parameter]
            low, high = (seen(centre, moved(sign * step)) for sign in (-1, 1))
        else:
            step = steps.of(parameter)
            low, high = (seen(averaged(f"{parameter}_{w}"), still) for w in ("minus", "plus"))
        slopes[row] = (high - low) / (2 * step)
        # Where a disc ends, a pixel of the central pattern may be dark and yet not remain so. With
        # the mean of roots, (∂p)²/p is 4 (∂√p)², which stays finite there.
        means[row] = ((np.sqrt(low) + np.sqrt(high)) / 2) ** 2
        if parameter.startswith("tilt"):  # discs stay, and the two may be without background
            means[row] = seen(centre, still)
    return Linearised(slopes, means)


def linearise_image(image: Image, mtf: MTF | None = None) -> Linearised:
    """Return what a camera would see change, from an image and its derivatives.

    Parameters
    ----------
    image
        Of a scattering series (:mod:`pacbed.scattering.image`).
    mtf
        Of the camera, if it does more than to integrate over its pixels.
    """
    slopes = np.stack(
        [
            *image.by_strain,
            image.by_rotation,
            *image.by_tilt,
            *image.by_shift,
            image.by_field,
            image.expected,
        ]
    )
    expected = image.expected
    if mtf:
        slopes, expected = mtf.filtered(slopes), mtf.blurred(expected)
    return Linearised(slopes, np.broadcast_to(expected, slopes.shape))


def _names() -> Iterator[str]:
    yield CENTRE
    for parameter in STEPPED:
        yield from (f"{parameter}_minus", f"{parameter}_plus")


def poisson_information(expected: np.ndarray) -> np.ndarray:
    """Return the Fisher information of a Poisson number about its mean µ: 1/µ, where µ > 0."""
    return np.divide(1.0, expected, out=np.zeros(expected.shape), where=expected > 0)


def lognormal_information(expected: np.ndarray) -> np.ndarray:
    """Return the Fisher information of the lognormal signal of examples about its mean µ.

    The log of the signal (:func:`pacbed.examples.augment.record`) is normal with variance
    s² = ln(1 + 1/µ) and mean m = ln µ - s²/2, so that the information is
    m'²/s² + (s²)'²/(2 s⁴). That is 1/µ where there are many electrons, and more than that
    where there are few: no detector that counts electrons could tell so much.
    """
    lit = expected > 0
    mean = np.where(lit, expected, 1.0)
    variance = np.log1p(1 / mean)
    slope_of_variance = -1 / (mean * (1 + mean))
    slope_of_mean = 1 / mean - slope_of_variance / 2
    information = slope_of_mean**2 / variance + slope_of_variance**2 / (2 * variance**2)
    return np.where(lit, information, 0.0)


def fisher_information(
    linearised: Linearised, electrons: float, noise: str = "poisson"
) -> np.ndarray:
    """Return the Fisher information of one example about :data:`UNKNOWN`.

    Pixels in which no electron can arrive tell nothing and are left out.

    Parameters
    ----------
    linearised
        As of :func:`linearise`.
    electrons
        Incident electrons.
    noise
        ``poisson`` or ``lognormal``.

    Returns
    -------
    numpy.ndarray
        Shape (10, 10).

    Raises
    ------
    RequestError
        If the noise is another one.
    """
    per_pixel = {"poisson": poisson_information, "lognormal": lognormal_information}
    if noise not in per_pixel:
        raise RequestError(f"noise must be poisson or lognormal, not '{noise}'")
    weights = np.sqrt(per_pixel[noise](electrons * linearised.means))
    slopes = (electrons * linearised.slopes * weights).reshape(len(UNKNOWN), -1)
    return np.asarray(slopes @ slopes.T)


def standard_deviations(information: np.ndarray) -> np.ndarray:
    """Return the Cramér-Rao bounds of all parameters, which all are unknown.

    The roots of the diagonal of the inverse. What cannot be told from the pattern, or not apart
    from something else, has an infinite one.

    Parameters
    ----------
    information
        Shape (parameters, parameters).

    Examples
    --------
    The second and the third parameter cannot be told apart.

    >>> standard_deviations(np.array([[4.0, 0, 0], [0, 1, 1], [0, 1, 1]]))
    array([0.5, inf, inf])
    """
    scale = np.sqrt(np.diag(information))
    sigma = np.full(len(scale), math.inf)
    seen = np.flatnonzero(scale > 0)
    unit = information[np.ix_(seen, seen)] / np.outer(scale[seen], scale[seen])
    values, vectors = np.linalg.eigh(unit)
    known = values > _SINGULAR
    told = (vectors[:, ~known] ** 2).sum(axis=1) < _SINGULAR
    variance = (vectors[:, known] ** 2 / values[known]).sum(axis=1)
    sigma[seen[told]] = np.sqrt(variance[told]) / scale[seen[told]]
    return sigma


def standard_deviations_with_prior(information: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Return the bounds of all parameters if their distribution is known besides.

    The van Trees inequality with a normal prior: the covariance is (I + C⁻¹)⁻¹. What does not
    vary (C = 0) is known and has zero.

    Parameters
    ----------
    information
        Shape (parameters, parameters).
    covariance
        C, of the parameters before anything is measured, same shape.
    """
    values, vectors = np.linalg.eigh(covariance)
    # C = L Lᵀ with L = V √values, and (I + C⁻¹)⁻¹ = L (1 + Lᵀ I L)⁻¹ Lᵀ, also where C is singular.
    root = vectors * np.sqrt(np.clip(values, 0, None))
    inner = np.eye(len(root)) + root.T @ information @ root
    return np.asarray(np.sqrt(np.einsum("ij,jk,ik->i", root, np.linalg.inv(inner), root)))


def prior_covariance(ranges: DrawRanges, settings: AugmentationSettings) -> np.ndarray:
    """Return how all that is unknown is spread over the examples of a study.

    Parameters
    ----------
    ranges
        Of stretches, principal direction and tilt, from which :func:`pacbed.study.draws.draw`
        draws.
    settings
        Ranges of rotation, field of view, shift and electrons.

    Returns
    -------
    numpy.ndarray
        Covariance of :data:`UNKNOWN`, shape (10, 10), diagonal but for the strains.
    """

    def uniform(low: float, high: float) -> float:
        return (high - low) ** 2 / 12

    tilt, shift = uniform(*ranges.tilt_mrad), settings.translation_px
    field = settings.field_of_view_variation
    log_dose = uniform(*np.log(settings.electrons).tolist())
    rotation = uniform(*settings.rotation_deg)
    nuisance = [uniform(-shift, shift), uniform(-shift, shift), uniform(-field, field), log_dose]
    covariance = np.diag([0, 0, 0, rotation, tilt, tilt, *nuisance])
    covariance[:3, :3] = _strain_covariance(ranges)
    return covariance


def priors(ranges: DrawRanges, settings: AugmentationSettings) -> dict[str, tuple[float, float]]:
    """Return mean and standard deviation of what is unknown, over the examples of a study.

    Parameters
    ----------
    ranges, settings
        As of :func:`prior_covariance`.

    Returns
    -------
    dict
        By the names of :data:`pacbed.scattering.image_model.UNKNOWNS`, without the dose, and with
        what the camera adds. What does not vary is known, to a millionth.
    """
    sigmas = np.maximum(np.sqrt(np.diag(prior_covariance(ranges, settings))), 1e-6).tolist()
    strain, tilt = sum(ranges.stretch) / 2 - 1, sum(ranges.tilt_mrad) / 2
    means = [strain, strain, 0.0, sum(settings.rotation_deg) / 2, tilt, tilt, 0.0, 0.0, 0.0]
    names = [*PARAMETERS, "shift_x_px", "shift_y_px", "log_scale"]
    usual = {name: (mean, sigma) for name, mean, sigma in zip(names, means, sigmas, strict=False)}
    return usual | (settings.camera.priors() if settings.camera else {})


def _strain_covariance(ranges: DrawRanges) -> np.ndarray:
    """Covariance of (ε_xx, ε_yy, ε_xy).

    With a and d half of the sum and of the difference of the sorted stretches, the components are
    a - 1 + d cos 2θ, a - 1 - d cos 2θ and d sin 2θ. Two uniform numbers of range w have
    var a = ⟨d²⟩ = w²/24 and ⟨d⟩ = w/6, and a is independent of d.
    """
    low, high = ranges.stretch
    w = high - low
    angles = np.radians(np.linspace(*ranges.angle_deg, 20001))
    turn = np.stack([np.cos(2 * angles), -np.cos(2 * angles), np.sin(2 * angles)])
    # The trapezoidal rule over θ.
    weights = np.full(angles.shape, 1.0)
    weights[[0, -1]] = 0.5
    weights /= weights.sum()
    mean, square = turn @ weights, (turn * weights) @ turn.T
    both = np.array([1.0, 1.0, 0.0])
    return np.asarray(
        w**2 / 24 * (np.outer(both, both) + square) - w**2 / 36 * np.outer(mean, mean)
    )
