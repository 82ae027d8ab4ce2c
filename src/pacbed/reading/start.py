"""Where a fit starts: a dictionary of coarse images, the lattice of discs, or what is known.

A fit follows the slopes of the likelihood, and must start near the truth. A dictionary finds such a
place without one: it holds coarse, blurred images of some hundred states, and their derivatives. A
pattern is compared with each of them, with the best small change of all unknowns at once: the
distance of a point from a tangent plane (Simard et al., Advances in Neural Information Processing
Systems 5 (1993) 50). A blur makes images change evenly over a larger part of the range, so that few
states are enough, and the change is the start. All patterns and states take one product of
matrices. A few steps of the fit with large pixels then decide between the best candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import qmc

from pacbed.exceptions import RequestError
from pacbed.reading.discs import DiscMethod
from pacbed.reading.fit import Fit, FitResult
from pacbed.reading.pixels import FEWEST_PIXELS, put_together
from pacbed.scattering.image_model import COLUMN, UNKNOWNS
from pacbed.scattering.strain import StrainRange

# Standard deviation of the blur of the images of a dictionary.
_BLUR_mrad = 2.0
# Changes of unknowns over which a tangent holds: strains are fractions, logarithms too.
_CHANGE = {
    "strain_xx": 0.02,
    "strain_yy": 0.02,
    "strain_xy": 0.02,
    "rotation_deg": 3.0,
    "tilt_x_mrad": 2.0,
    "tilt_y_mrad": 2.0,
    "shift_x_px": 2.5,
    "shift_y_px": 2.5,
    "log_scale": 0.02,
    "log_dose": 0.3,
    "background": 0.05,
    "halo": 0.05,
    "log_semiangle": 0.01,
    "ellipticity": 0.01,
    "ellipticity_diagonal": 0.01,
    "blur_px": 0.5,
}
# What a change of such a size costs, as a relative χ².
_COST = 3e-4
# Dark pixels count no more than those of this share of the mean.
_DARKEST = 0.02
# States that a dictionary holds for each direction.
_STATES = 128
# Candidates that are improved with large pixels, if they are not so many times further away than
# the nearest one.
_CANDIDATES, _FURTHER = 3, 4.0
# A candidate lies at most so many changes from the state of the dictionary.
_FURTHEST = 3.0


@dataclass(frozen=True)
class SearchRange:
    """Where a dictionary looks for the state of a pattern.

    Parameters
    ----------
    directions_deg
        Rotations about which to look. A pattern turned by 180° with reversed tilt is nearly the
        same: look in both directions only if neither is known.
    rotation_deg
        Largest difference from these in degrees.
    tilt_mrad
        Largest tilt along each axis in mrad.
    stretch
        Smallest and largest principal stretch.
    """

    directions_deg: tuple[float, ...] = (0.0,)
    rotation_deg: float = 10.0
    tilt_mrad: float = 5.0
    stretch: tuple[float, float] = (0.97, 1.03)

    def states(self) -> np.ndarray:
        """Return states that fill the range evenly, shape (states, unknowns)."""
        place = 2 * qmc.Sobol(3, rng=0).random(_STATES) - 1
        # The sequences of strains and of these are related: another order makes them independent.
        order = np.random.default_rng(0).permutation(_STATES)
        states = np.zeros((len(self.directions_deg), _STATES, len(UNKNOWNS)))
        states[..., :3] = StrainRange(self.stretch).states(_STATES)[order]
        turned = np.array(self.directions_deg)[:, None] + self.rotation_deg * place[:, 0]
        states[..., COLUMN["rotation_deg"]] = turned
        states[..., COLUMN["tilt_x_mrad"]] = self.tilt_mrad * place[:, 1]
        states[..., COLUMN["tilt_y_mrad"]] = self.tilt_mrad * place[:, 2]
        return states.reshape(-1, len(UNKNOWNS))


class Dictionary:
    """Coarse images of many states, with their derivatives, of one thickness.

    Parameters
    ----------
    fit
        What is to be started.
    search
        Where to look.
    mask
        Whether a pixel counts, shape (ny, nx), the same for all patterns; None if all do.
    common
        What all patterns have in common, shape (unknowns,): it is added to the states.
    """

    def __init__(
        self,
        fit: Fit,
        search: SearchRange = SearchRange(),
        mask: np.ndarray | None = None,
        common: np.ndarray | None = None,
    ) -> None:
        self.bins = coarse_bins(fit)
        model = fit.model(self.bins)
        self._mask = np.ones(model.frame.shape)
        if mask is not None:
            self._mask = put_together(mask, self.bins) == self.bins**2
        self._blurs = [
            _blur(pixels, _BLUR_mrad / model.frame.pixel_mrad) for pixels in model.frame.shape
        ]
        states = search.states()
        self.states = fit.within_range(states if common is None else states + common)
        images, columns = model.images_and_columns(self.states)
        images, columns = (
            self._coarse(a.reshape(*a.shape[:-1], *model.frame.shape)) for a in (images, columns)
        )
        total = images.sum(axis=1)
        images, columns = images / total[:, None], columns / total[:, None, None]
        mean = images.mean(axis=0)
        self._root = 1 / np.sqrt(np.maximum(mean, _DARKEST * mean.mean()))
        self._free = [COLUMN[name] for name in model.free]
        self._change = np.array([_CHANGE[name] for name in model.free])
        tangents = columns * self._root * self._change[:, None]
        information = tangents @ tangents.transpose(0, 2, 1) + _COST * np.eye(len(self._change))
        lower = np.linalg.cholesky(information)
        # A change times this matrix is one whose square is the χ² that it saves.
        self._inverse = np.linalg.inv(lower)
        self._projections = (self._inverse @ tangents).astype(np.float32)
        self._images = (images * self._root).astype(np.float32)
        self._offsets = np.einsum("sfp,sp->sf", self._projections, self._images)

    def candidates(self, images: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the states nearest to patterns, best first.

        Parameters
        ----------
        images
            Electrons in each pixel, shape (patterns, ny, nx).
        count
            How many for each pattern.

        Returns
        -------
        states
            Shape (count, patterns, unknowns).
        distances
            Relative χ² that is left, shape (count, patterns).
        """
        seen = self._coarse(put_together(images, self.bins))
        seen = seen / np.maximum(seen.sum(axis=1, keepdims=True), 1e-9)
        seen = (seen * self._root).astype(np.float32)
        states, free, pixels = self._projections.shape
        saved = (seen @ self._projections.reshape(-1, pixels).T).reshape(-1, states, free)
        saved -= self._offsets
        away = (seen**2).sum(axis=1)[:, None] - 2 * seen @ self._images.T
        distance = away + (self._images**2).sum(axis=1) - (saved**2).sum(axis=2)
        best = np.argsort(distance, axis=1)[:, :count]
        kept = np.take_along_axis(saved, best[..., None], axis=1)
        change = np.einsum("pcgf,pcg->pcf", self._inverse[best], kept)
        change = np.clip(change, -_FURTHEST, _FURTHEST) * self._change
        found = self.states[best]
        found[..., self._free] += change
        distance = np.take_along_axis(distance, best, axis=1)
        return np.moveaxis(found, 1, 0), distance.T

    def _coarse(self, images: np.ndarray) -> np.ndarray:
        """Return images of large pixels blurred, without masked ones, shape (..., pixels)."""
        rows, columns = self._blurs
        blurred = rows @ (images * self._mask) @ columns.T
        return np.asarray(blurred.reshape(*images.shape[:-2], -1), np.float32)


def starts_from_dictionary(fit: Fit, dictionary: Dictionary, images: np.ndarray) -> np.ndarray:
    """Return the best of a few candidates of a dictionary.

    Parameters
    ----------
    fit
        What is to be started, with the thickness of the dictionary.
    dictionary
        Where to look.
    images
        Electrons in each pixel, shape (patterns, ny, nx).

    Returns
    -------
    numpy.ndarray
        Shape (patterns, unknowns).
    """
    tried, distances = dictionary.candidates(images, _CANDIDATES)
    states, deviance = tried[0].copy(), np.full(len(images), np.inf)
    for candidate, distance in zip(tried, distances, strict=True):
        rows = np.flatnonzero(distance <= _FURTHER * distances[0])
        if not len(rows):
            continue
        found = fit.fit(images[rows], candidate[rows], bins=(dictionary.bins,))
        better = found.deviance < deviance[rows]
        kept = rows[better]
        states[kept], deviance[kept] = found.states[better], found.deviance[better]
    return states


def fit_or_search(
    fit: Fit, images: np.ndarray, starts: np.ndarray, dictionary: Callable[[], Dictionary]
) -> FitResult:
    """Fit patterns; what is flagged begins again from a dictionary, and the likelier fit is kept.

    Parameters
    ----------
    fit
        What is unknown.
    images
        Electrons in each pixel, shape (patterns, ny, nx).
    starts
        Where to begin, shape (patterns, unknowns).
    dictionary
        Called for the dictionary, if a fit is flagged.
    """
    result = fit.fit(images, starts)
    flagged = np.flatnonzero([flags != "" for flags in result.flags])
    if len(flagged):
        again = fit.fit(images[flagged], starts_from_dictionary(fit, dictionary(), images[flagged]))
        better = again.deviance < result.deviance[flagged]
        result.put(flagged[better], again.of(better))
    return result


def coarse_bins(fit: Fit) -> int:
    """Return how many pixels are put together in the coarsest images of a fit."""
    bins = 1
    while min(fit.frame.shape) // (2 * bins) >= FEWEST_PIXELS:
        bins *= 2
    return bins


def starts_from_discs(method: DiscMethod, images: np.ndarray) -> np.ndarray:
    """Return starts with the strain and rotation of disc positions, without tilt.

    Parameters
    ----------
    method
        How discs are measured.
    images
        Linear intensities, shape (patterns, pixels, pixels).

    Returns
    -------
    numpy.ndarray
        Shape (patterns, unknowns). Where no lattice was found, that of the undeformed crystal.
    """
    states = np.zeros((len(images), len(UNKNOWNS)))
    nominal = method.augmentation.field_of_view_mrad
    for state, image in zip(states, images, strict=True):
        found = method.measure(image)
        state[:3] = found.strain[0, 0], found.strain[1, 1], found.strain[0, 1]
        state[COLUMN["rotation_deg"]] = found.rotation_deg
        state[COLUMN["log_scale"]] = np.log(found.field_of_view_mrad / nominal)
    return states


def starts_from_table(table: pd.DataFrame | Mapping[str, np.ndarray]) -> np.ndarray:
    """Return starts from what a network, another fit or a neighbour says.

    Parameters
    ----------
    table
        A column of numbers for some of :data:`pacbed.scattering.image_model.UNKNOWNS`; others are
        0, and columns that are no unknowns are not looked at.

    Returns
    -------
    numpy.ndarray
        Shape (patterns, unknowns).

    Raises
    ------
    RequestError
        If no column is an unknown.
    """
    known = [name for name in UNKNOWNS if name in table]
    if not known:
        raise RequestError(
            f"a table of starts needs some of the columns {', '.join(UNKNOWNS)}, not "
            f"{', '.join(map(str, table))}"
        )
    columns = {name: np.asarray(table[name], float) for name in known}
    states = np.zeros((len(columns[known[0]]), len(UNKNOWNS)))
    for name, values in columns.items():
        states[:, COLUMN[name]] = values
    # What was not predicted is where it usually is.
    states[~np.isfinite(states)] = 0
    return states


def _blur(pixels: int, sigma: float) -> np.ndarray:
    """Return the matrix that blurs an axis."""
    axis = np.arange(pixels)
    weights = np.exp(-((axis[:, None] - axis) ** 2) / (2 * max(sigma, 0.05) ** 2))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
