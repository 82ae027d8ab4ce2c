"""Patterns of unknown thickness: the number of layers by likelihood.

Without a start, patterns are compared with dictionaries of all thicknesses, and of each pattern the
few that are nearest are fitted with large pixels, then the neighbours of the best one until none is
better; with a start, all are. Those that are not hopeless are fitted with all pixels. What a fit
leaves unexplained, its deviance, tells how probable a thickness is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pacbed.exceptions import RequestError
from pacbed.reading.fit import Fit, FitResult
from pacbed.reading.pixels import whole
from pacbed.reading.start import Dictionary, SearchRange, coarse_bins

# Thicknesses of a pattern that are fitted with large pixels at first.
_NEAREST = 4
# Thicknesses whose deviance with large pixels is so much larger than the smallest, in units of χ²
# per pixel, are not fitted with all pixels.
_HOPELESS = 100.0


@dataclass(frozen=True)
class ThicknessResult:
    """What was read from patterns of unknown thickness.

    Parameters
    ----------
    fit
        Of the most probable thickness.
    layers
        Most probable number of layers, shape (patterns,).
    probabilities
        Of each number of layers, shape (patterns, thicknesses); before, all were equally probable.
        Where a pattern is not described within its noise, its χ² per pixel is taken as the variance
        of what is left.
    """

    fit: FitResult
    layers: np.ndarray
    probabilities: np.ndarray


class ThicknessFit:
    """Fits patterns whose number of layers is unknown.

    Parameters
    ----------
    fit
        Of any thickness: what the patterns have in common.
    layers
        The numbers of layers that may be.
    search
        Where to look for a start.
    mask
        Whether a pixel counts in the dictionaries, shape (ny, nx); None if all do.
    common
        What all patterns have in common, shape (unknowns,), for the dictionaries.

    Raises
    ------
    RequestError
        If no number of layers is given, one occurs twice, or the series does not reach that far.
    """

    def __init__(
        self,
        fit: Fit,
        layers: Sequence[int],
        search: SearchRange | None = None,
        mask: np.ndarray | None = None,
        common: np.ndarray | None = None,
    ) -> None:
        if not len(layers) or len(set(layers)) != len(layers):
            raise RequestError(
                f"thicknesses must be different numbers of layers, not {list(layers)}"
            )
        fit.series.check_layers(layers)
        self.layers, self._fit = np.array(layers), fit
        self._search, self._mask, self._common = search or SearchRange(), mask, common

    @cached_property
    def _dictionaries(self) -> list[Dictionary]:
        return [
            Dictionary(self._fit.for_layers(number), self._search, self._mask, self._common)
            for number in self.layers.tolist()
        ]

    def fit(
        self,
        images: np.ndarray,
        starts: np.ndarray | None = None,
        variances: np.ndarray | None = None,
        masks: np.ndarray | None = None,
        fine: bool = True,
    ) -> ThicknessResult:
        """Fit patterns.

        Parameters
        ----------
        images
            Electrons in each pixel, shape (patterns, ny, nx); may be no number where it is masked.
        starts
            Where to begin with any thickness, shape (patterns, unknowns); None if dictionaries are
            to say it.
        variances, masks
            As of :meth:`pacbed.reading.fit.Fit.fit`.
        fine
            Whether likely thicknesses are fitted with all pixels. Without, what was found with
            large pixels is returned: states that are near, and thicknesses that are nearly as sure.
        """
        count = len(images)
        states, near = self._begin(images if masks is None else whole(images, masks), starts)
        coarse = coarse_bins(self._fit)
        bins = (coarse, coarse // 2) if coarse > 2 else (coarse,)
        given = variances, masks
        first = self._climb(images, states, given, near, bins)
        deviance = first.deviance.reshape(count, -1)
        chi2 = first.chi2_per_pixel.reshape(count, -1) * bins[-1] ** 2
        if not fine:
            first.chi2_per_pixel[:] *= bins[-1] ** 2  # there are so many times fewer pixels
            return self._best(first, deviance)
        unit = np.maximum(np.take_along_axis(chi2, deviance.argmin(1)[:, None], 1), 1)
        likely = deviance <= deviance.min(axis=1, keepdims=True) + _HOPELESS * unit
        likely &= np.isfinite(deviance)
        states = first.states.reshape(states.shape)
        finer = tuple(b for b in (4, 2, 1) if b < bins[-1]) or (1,)
        last = self._round(images, states, given, likely, finer)
        return self._best(last, last.deviance.reshape(count, -1))

    def _best(self, fits: FitResult, deviance: np.ndarray) -> ThicknessResult:
        """Return the likeliest thickness of each pattern."""
        best = deviance.argmin(axis=1)
        fit = fits.of(np.arange(len(best)) * len(self.layers) + best)
        unit = np.maximum(fit.chi2_per_pixel, 1)[:, None]
        weight = np.exp(-(deviance - deviance.min(axis=1, keepdims=True)) / (2 * unit))
        return ThicknessResult(fit, self.layers[best], weight / weight.sum(axis=1, keepdims=True))

    def _begin(
        self, images: np.ndarray, starts: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return where fits of each thickness begin, and which thicknesses are fitted first."""
        if starts is not None:
            states = np.repeat(starts[:, None], len(self.layers), axis=1)
            return states, np.ones(states.shape[:2], bool)
        found = [dictionary.candidates(images, 1) for dictionary in self._dictionaries]
        distances = np.stack([distance[0] for _, distance in found], 1)
        states = np.stack([state[0] for state, _ in found], 1)
        return states, distances.argsort(axis=1).argsort(axis=1) < _NEAREST

    def _climb(
        self,
        images: np.ndarray,
        states: np.ndarray,
        given: tuple[np.ndarray | None, np.ndarray | None],
        wanted: np.ndarray,
        bins: Sequence[int],
    ) -> FitResult:
        """Fit the thicknesses that are wanted, then the neighbours of the best until none is left.

        To a dictionary a crystal that is thinner or thicker, and more strained, can be nearer than
        that of the right thickness.
        """
        total = FitResult.none(states.reshape(-1, states.shape[2]))
        place, tried = np.argsort(np.argsort(self.layers)), np.zeros(wanted.shape, bool)
        while wanted.any():
            rows = np.flatnonzero(wanted)
            total.put(rows, self._round(images, states, given, wanted, bins).of(rows))
            tried |= wanted
            best = total.deviance.reshape(wanted.shape).argmin(axis=1)
            wanted = (np.abs(place - place[best][:, None]) == 1) & ~tried
        return total

    def _round(
        self,
        images: np.ndarray,
        states: np.ndarray,
        given: tuple[np.ndarray | None, np.ndarray | None],
        wanted: np.ndarray,
        bins: Sequence[int],
    ) -> FitResult:
        """Fit each pattern with the thicknesses that are wanted of it.

        The result has one row for each pattern and thickness; where a thickness was not wanted, the
        deviance is infinite.
        """
        thicknesses, unknowns = states.shape[1:]
        total = FitResult.none(states.reshape(-1, unknowns))
        for column, number in enumerate(self.layers.tolist()):
            rows = np.flatnonzero(wanted[:, column])
            if not len(rows):
                continue
            variances, masks = (None if v is None else v[rows] for v in given)
            fit = self._fit.for_layers(number)
            found = fit.fit(images[rows], states[rows, column], variances, masks, bins)
            total.put(rows * thicknesses + column, found)
        return total
