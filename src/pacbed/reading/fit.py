"""Maximum-likelihood fit of a scattering series to patterns, many at a time.

Fisher scoring (Gauss-Newton with the expected information), damped where a step does not improve a
pattern (Levenberg 1944, Marquardt 1963). Hard edges of discs move linearly within a pixel only:
pixels are put together at first, and become finer while the fit comes closer. The inverse of the
Fisher information is the covariance of the result, and its Cramér-Rao bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields, replace

import numpy as np

from pacbed.exceptions import RequestError
from pacbed.reading.pixels import FEWEST_PIXELS, put_together
from pacbed.scattering.image_model import (
    ALWAYS_FREE,
    COLUMN,
    TILT,
    UNKNOWNS,
    Assessment,
    Frame,
    ImageModel,
    Noise,
)
from pacbed.scattering.series import ScatteringSeries
from pacbed.specimen.microscope import Aperture

AT_EDGE = "at the edge of the range"
FLAGS = ("not converged", AT_EDGE, "bad chi2")
"""What may be wrong with a fit."""

TOLD_APART = 9.0
"""A turn by half a circle is told from none if χ² differs by more: three standard deviations."""

LARGE_RESIDUALS = 2.0
"""Residuals so much larger than the noise between neighbours show that the model does not fit."""

# Nothing but the noise of counted electrons.
_COUNTED = Noise()
# Largest change of an unknown in one step.
_LONGEST = {
    "strain_xx": 0.01,
    "strain_yy": 0.01,
    "strain_xy": 0.01,
    "rotation_deg": 1.0,
    "tilt_x_mrad": 1.0,
    "tilt_y_mrad": 1.0,
    "shift_x_px": 2.0,
    "shift_y_px": 2.0,
    "log_scale": 0.01,
    "log_dose": 0.3,
    "background": 0.05,
    "halo": 0.05,
    "log_semiangle": 0.02,
    "ellipticity": 0.01,
    "ellipticity_diagonal": 0.01,
    "blur_px": 0.5,
}
# Range within which an unknown stays; strain and tilt have that of the series.
_RANGE = {
    "log_scale": (-0.2, 0.2),
    "background": (-0.5, 5.0),
    "halo": (-0.5, 5.0),
    "log_semiangle": (-0.1, 0.1),
    "ellipticity": (-0.1, 0.1),
    "ellipticity_diagonal": (-0.1, 0.1),
    "blur_px": (0.0, 5.0),
}
# Unknowns that may be none: only the upper end of their range is one.
_MAY_BE_NONE = {"blur_px", "background", "halo"}
# Steps with pixels put together, and with all of them; and the log-likelihood that a step must
# still promise to be worth it. A hundredth is a seventh of a standard deviation.
_COARSE_STEPS, _COARSE_GAIN = 8, 1.0
_FINE_STEPS, _FINE_GAIN = 25, 0.01
_WEAKEST, _STRONGEST = 1e-4, 1e6
# Standard deviations by which χ² may be larger than it should be, and part of itself.
_CHI2_SIGMA, _CHI2_SHARE = 5.0, 0.05


@dataclass(frozen=True)
class FitSettings:
    """What is unknown of a pattern, and what is known of it.

    Parameters
    ----------
    free
        The unknowns, of :data:`pacbed.scattering.image_model.UNKNOWNS`; the others stay as they
        start.
    priors
        Mean and standard deviation of an unknown that is known so far.
    noise
        What is in the patterns besides the noise of counted electrons.

    Raises
    ------
    RequestError
        If there is no such unknown.
    """

    free: tuple[str, ...] = ALWAYS_FREE
    priors: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    noise: Noise = _COUNTED

    def __post_init__(self) -> None:
        if unknown := [name for name in (*self.free, *self.priors) if name not in COLUMN]:
            raise RequestError(
                f"there is no unknown '{unknown[0]}' to be fitted: choose of {', '.join(UNKNOWNS)}"
            )


@dataclass(frozen=True)
class FitResult:
    """What was read from patterns.

    Parameters
    ----------
    states
        Shape (patterns, unknowns), columns as :data:`pacbed.scattering.image_model.UNKNOWNS`.
    covariance
        Of these, shape (patterns, unknowns, unknowns); zero for what was not free.
    deviance
        Twice the log-likelihood (with the priors) that is missing to a perfect description.
    chi2_per_pixel
        Sum of squared residuals over variances, per pixel that is not described by an unknown.
    converged
        Whether no step would improve the fit any more.
    at_edge
        Which unknowns end at the edge of their range or of that of the series, shape (patterns,
        unknowns); strain and tilt with all of their components.
    pixels
        Number of pixels that were compared.
    """

    states: np.ndarray
    covariance: np.ndarray
    deviance: np.ndarray
    chi2_per_pixel: np.ndarray
    converged: np.ndarray
    at_edge: np.ndarray
    pixels: np.ndarray

    @property
    def sigma(self) -> np.ndarray:
        """Standard deviations of the unknowns, shape (patterns, unknowns)."""
        return np.sqrt(np.diagonal(self.covariance, axis1=1, axis2=2))

    @property
    def flags(self) -> list[str]:
        """What is wrong with each fit, of :data:`FLAGS`, separated by commas."""
        spread = np.sqrt(2 / np.maximum(self.pixels, 1))
        bad = self.chi2_per_pixel > (1 + _CHI2_SHARE) * (1 + _CHI2_SIGMA * spread)
        raised = np.stack([~self.converged, self.at_edge.any(axis=1), bad], 1)
        return [", ".join(f for f, on in zip(FLAGS, row, strict=True) if on) for row in raised]

    @classmethod
    def none(cls, states: np.ndarray) -> FitResult:
        """Return the results of fits that were not made, which describe nothing."""
        count, unknowns = states.shape
        return cls(
            states.copy(),
            np.zeros((count, unknowns, unknowns)),
            np.full(count, np.inf),
            np.full(count, np.inf),
            np.zeros(count, bool),
            np.zeros((count, unknowns), bool),
            np.zeros(count),
        )

    def of(self, rows: np.ndarray) -> FitResult:
        """Return the results of some patterns."""
        return FitResult(**{one.name: getattr(self, one.name)[rows] for one in fields(self)})

    def put(self, rows: np.ndarray, others: FitResult) -> None:
        """Replace the results of some patterns."""
        for one in fields(self):
            getattr(self, one.name)[rows] = getattr(others, one.name)

    def column(self, name: str) -> np.ndarray:
        """Return one unknown of all patterns."""
        return np.asarray(self.states[:, COLUMN[name]])


@dataclass
class _Patterns:
    """Patterns in pixels of one size, shape (patterns, pixels) each."""

    images: np.ndarray
    variances: np.ndarray
    masks: np.ndarray


class Fit:
    """Fits patterns of one thickness.

    Parameters
    ----------
    series
        What the crystal does to all waves.
    aperture
        Of the beam, as it nominally is.
    layers
        Number of layers.
    frame
        Pixels of the patterns.
    settings
        What is unknown.

    Raises
    ------
    RequestError
        If the series does not reach as far as the pixels, or the aperture.
    """

    def __init__(
        self,
        series: ScatteringSeries,
        aperture: Aperture,
        layers: int,
        frame: Frame,
        settings: FitSettings = FitSettings(),
    ) -> None:
        self.series, self.aperture, self.layers = series, aperture, layers
        self.frame, self.settings = frame, settings
        self._free = [COLUMN[name] for name in UNKNOWNS if name in settings.free]
        self._models: dict[int, ImageModel] = {}
        self._like: Fit | None = None
        series.check_cone(aperture, (0.0, 0.0))
        series.check_layers([layers])

    def model(self, bins: int = 1) -> ImageModel:
        """Return the model of images in which so many pixels along each axis are put together."""
        if bins not in self._models and self._like:
            self._models[bins] = self._like.model(bins).for_layers(self.layers)
        elif bins not in self._models:
            frame = self.frame.binned(bins)
            self._models[bins] = ImageModel(
                self.series,
                self.aperture,
                self.layers,
                frame,
                self.settings.free,
                self.settings.noise,
            )
        return self._models[bins]

    def with_noise(self, noise: Noise) -> Fit:
        """Return the fit of patterns with another noise, for which nothing is compiled anew."""
        other = copy(self)
        other.settings = replace(self.settings, noise=noise)
        other._models = {}
        for bins, model in self._models.items():
            other._models[bins] = copy(model)
            other._models[bins].noise = noise
        other._like = self._like and self._like.with_noise(noise)
        return other

    def for_layers(self, layers: int) -> Fit:
        """Return the fit of another thickness, which shares what does not depend on it."""
        first = self._like or self
        for known in (self, first):
            if layers == known.layers:
                return known
        other = copy(self)
        self.series.check_layers([layers])
        other.layers, other._models, other._like = layers, {}, first
        return other

    def fit(
        self,
        images: np.ndarray,
        starts: np.ndarray,
        variances: np.ndarray | None = None,
        masks: np.ndarray | None = None,
        bins: Sequence[int] = (4, 2, 1),
    ) -> FitResult:
        """Fit patterns.

        Parameters
        ----------
        images
            Electrons in each pixel, shape (patterns, ny, nx).
        starts
            Where to begin, shape (patterns, unknowns). The dose need not be known: it begins with
            the sum of the pattern.
        variances
            Of the pixels, same shape as the images, or None: then they are counted electrons,
            whose variance is their expected number.
        masks
            Whether a pixel counts, same shape; None if all do.
        bins
            How many pixels along each axis are put together, in one round after another. Those
            that leave too few are left out; all pixels are compared where none remains.
        """
        count = len(images)
        whole = np.ones(images.shape, np.float32) if masks is None else masks.astype(np.float32)
        given = np.zeros(images.shape, np.float32) if variances is None else variances
        clean = np.where(whole > 0, images, 0).astype(np.float32)
        states = self._with_dose(self.within_range(np.array(starts, float)), clean, whole)
        enough = [b for b in bins if b == 1 or min(self.frame.shape) // b >= FEWEST_PIXELS]
        for bin_ in enough or [1]:
            patterns = _binned(clean, given, whole, bin_)
            states, last, done = self._round(self.model(bin_), states, patterns, bin_ == 1)
        covariance = np.zeros((count, len(UNKNOWNS), len(UNKNOWNS)))
        inverse = _inverse(last.information + np.diag(self._prior()[1]))
        covariance[:, np.array(self._free)[:, None], self._free] = inverse
        pixels = whole.sum(axis=(1, 2))
        chi2 = last.chi2 / np.maximum(pixels - len(self._free), 1)
        edge = self._at_edge(states)
        return FitResult(states, covariance, last.deviance, chi2, done, edge, pixels)

    def part_seen(self, states: np.ndarray) -> np.ndarray:
        """Return which part of the incident electrons falls on the pixels, shape (patterns,)."""
        still = states.copy()
        still[:, COLUMN["log_dose"]] = 0
        return self.model(self._coarsest).images(self.within_range(still)).sum(axis=1)

    @property
    def _coarsest(self) -> int:
        fits = [b for b in (2, 4) if min(self.frame.shape) // b >= FEWEST_PIXELS]
        return max([1, *fits])

    def within_range(self, states: np.ndarray) -> np.ndarray:
        """Return states moved into the range of the series and of the unknowns."""
        states, request = states.copy(), self.series.request
        low, high = request.strain.stretch
        centre, half = (low + high) / 2 - 1, (high - low) / 2
        xx, yy, xy = states[:, :3].T
        mean, difference = (xx + yy) / 2 - centre, (xx - yy) / 2
        outside = (np.abs(mean) + np.hypot(difference, xy)) / half
        shrink = 1 / np.maximum(outside, 1)
        mean, difference = mean * shrink + centre, difference * shrink
        states[:, :3] = np.stack([mean + difference, mean - difference, xy * shrink], 1)
        tilt = states[:, TILT]
        most = request.semiangle_mrad + request.tilt_mrad - self.aperture.outer_mrad
        far = np.hypot(*tilt.T) / max(min(most, 2 * request.tilt_mrad), 1e-9)
        states[:, TILT] = tilt / np.maximum(far, 1)[:, None]
        for name, (least, largest) in _RANGE.items():
            states[:, COLUMN[name]] = np.clip(states[:, COLUMN[name]], least, largest)
        return states

    def _at_edge(self, states: np.ndarray) -> np.ndarray:
        """Return which unknowns of states would leave their range if they went on a little."""
        further = states.copy()
        further[:, :6] *= 1 + 1e-6
        low, high = self.series.request.strain.stretch
        further[:, :2] += 1e-6 * np.sign(states[:, :2] + states[:, 1::-1] - (low + high - 2))
        left = np.abs(self.within_range(further) - further) > 1e-9
        at_edge = np.zeros(states.shape, bool)
        for together in (slice(0, 3), TILT):
            at_edge[:, together] = left[:, together].any(axis=1, keepdims=True)
        for name in set(self.settings.free) & set(_RANGE):
            ends = _RANGE[name][1:] if name in _MAY_BE_NONE else _RANGE[name]
            at_edge[:, COLUMN[name]] = np.isin(states[:, COLUMN[name]], ends)
        return at_edge

    def _with_dose(self, states: np.ndarray, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """Return states whose doses fit the sums of the patterns."""
        model = self.model(self._coarsest)
        patterns = _binned(images, images, masks, self._coarsest)
        states[:, COLUMN["log_dose"]] = 0
        expected = model.images(states) * patterns.masks
        sums = (patterns.images * patterns.masks).sum(axis=1)
        ratio = np.maximum(sums, 1e-9) / np.maximum(expected.sum(axis=1), 1e-12)
        states[:, COLUMN["log_dose"]] = np.log(ratio)
        return states

    def _prior(self) -> tuple[np.ndarray, np.ndarray]:
        """Return means and inverse variances of the free unknowns."""
        mean, weight = np.zeros(len(self._free)), np.zeros(len(self._free))
        for row, column in enumerate(self._free):
            if UNKNOWNS[column] in self.settings.priors:
                mean[row], sigma = self.settings.priors[UNKNOWNS[column]]
                weight[row] = sigma**-2
        return mean, weight

    def _round(
        self, model: ImageModel, states: np.ndarray, patterns: _Patterns, finest: bool
    ) -> tuple[np.ndarray, Assessment, np.ndarray]:
        """Improve states with pixels of one size; return what is known of the last ones, too."""
        steps, gain = (_FINE_STEPS, _FINE_GAIN) if finest else (_COARSE_STEPS, _COARSE_GAIN)
        longest = np.array([_LONGEST[UNKNOWNS[c]] for c in self._free])
        mean, weight = self._prior()

        def assess(rows: np.ndarray, at: np.ndarray) -> Assessment:
            found = model.assess(
                at, patterns.images[rows], patterns.variances[rows], patterns.masks[rows]
            )
            away = at[:, self._free] - mean
            return Assessment(
                found.deviance + away**2 @ weight,
                found.slopes - away * weight,
                found.information,
                found.chi2,
            )

        states = states.copy()
        best = assess(np.arange(len(states)), states)
        damping = np.full(len(states), 1e-3)
        done = np.zeros(len(states), bool)
        for _ in range(steps):
            fine = np.isfinite(best.information).all(axis=(1, 2))
            rows = np.flatnonzero(~done & fine & (damping < _STRONGEST))
            if not len(rows):
                break
            information = best.information[rows] + np.diag(weight)
            step = _damped_step(information, best.slopes[rows], damping[rows])
            # To the edge of the trust region, in the same direction.
            step /= np.maximum(np.abs(step / longest).max(axis=1), 1)[:, None]
            promised = np.einsum("bf,bf->b", best.slopes[rows], step)
            trial = states[rows]
            trial[:, self._free] += step
            trial = self.within_range(trial)
            moved = trial[:, self._free] - states[rows][:, self._free]
            gained = np.einsum("bf,bf->b", best.slopes[rows], moved)
            small = np.minimum(promised, gained) < gain
            # So small a step is good, and changes nothing worth another look.
            states[rows[small]] = trial[small]
            done[rows[small]] = True
            rows, trial = rows[~small], trial[~small]
            if not len(rows):
                break
            new = assess(rows, trial)
            better = new.deviance < best.deviance[rows]
            damping[rows] *= np.where(better, 0.1, 10)
            damping[rows] = np.maximum(damping[rows], _WEAKEST)
            kept = rows[better]
            states[kept] = trial[better]
            for ours, theirs in zip(_arrays(best), _arrays(new), strict=True):
                ours[kept] = theirs[better]
        return states, best, done


def _arrays(assessment: Assessment) -> Sequence[np.ndarray]:
    return [assessment.deviance, assessment.slopes, assessment.information, assessment.chi2]


def _damped_step(information: np.ndarray, slopes: np.ndarray, damping: np.ndarray) -> np.ndarray:
    scale = np.sqrt(np.maximum(np.diagonal(information, axis1=1, axis2=2), 1e-30))
    unit = information / scale[:, :, None] / scale[:, None, :]
    unit += damping[:, None, None] * np.eye(len(scale[0]))
    return np.linalg.solve(unit, (slopes / scale)[..., None])[..., 0] / scale


def _inverse(information: np.ndarray) -> np.ndarray:
    """Return inverses; what a pattern does not tell gets a huge variance."""
    scale = np.sqrt(np.maximum(np.diagonal(information, axis1=1, axis2=2), 1e-30))
    unit = information / scale[:, :, None] / scale[:, None, :]
    unit += 1e-12 * np.eye(len(scale[0]))
    return np.asarray(np.linalg.inv(unit) / scale[:, :, None] / scale[:, None, :])


def _binned(images: np.ndarray, variances: np.ndarray, masks: np.ndarray, bins: int) -> _Patterns:
    """Put pixels together. Of a square, at least half must count; what does not is filled up."""

    def total(values: np.ndarray) -> np.ndarray:
        return put_together(values, bins).reshape(len(values), -1).astype(np.float32)

    part = total(masks) / bins**2
    counts = part >= 0.5
    filled = 1 / np.where(counts, part, 1)
    return _Patterns(
        total(images * masks) * filled * counts,
        total(variances * masks) * filled**2 * counts,
        counts.astype(np.float32),
    )
