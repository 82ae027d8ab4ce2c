"""Strain states from which all others follow, and the polynomials that lead there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pacbed.exceptions import RequestError
from pacbed.specimen.deformation import Deformation

# Share of the states on the surface of the range, where polynomials are weakest.
_ON_SURFACE = 0.3
# Beyond these principal stretches a percentage or an angle is meant.
_LIMITS = 0.5, 2.0


@dataclass(frozen=True)
class StrainRange:
    """All in-plane strains whose principal stretches lie within a range.

    Parameters
    ----------
    stretch
        Smallest and largest principal stretch.

    Raises
    ------
    RequestError
        If the range is empty, or further from 1 than any crystal.

    Examples
    --------
    >>> within = StrainRange((0.95, 1.05))
    >>> within.contains([0.03, -0.02, 0.01]), within.contains([0.03, 0.03, 0.03])
    (True, False)
    >>> within.states(4).shape
    (4, 3)
    """

    stretch: tuple[float, float]

    def __post_init__(self) -> None:
        low, high = self.stretch
        if not 0 < low < high < math.inf:
            raise RequestError(
                f"the range of principal stretches must be two numbers, the smaller first, not "
                f"{low:g} to {high:g}"
            )
        if not (_LIMITS[0] <= low and high <= _LIMITS[1]):
            raise RequestError(
                f"principal stretches must lie within {_LIMITS[0]:g} and {_LIMITS[1]:g}, not "
                f"{low:g} to {high:g}: 1 is undeformed, 1.04 is 4 % longer"
            )

    @property
    def _centre(self) -> float:
        return sum(self.stretch) / 2 - 1

    @property
    def _half(self) -> float:
        return (self.stretch[1] - self.stretch[0]) / 2

    def contains(self, strain: np.ndarray) -> bool:
        """Return whether a strain (xx, yy, xy) lies in the range, but for rounding."""
        xx, yy, xy = strain
        mean, half = (xx + yy) / 2 - self._centre, math.hypot((xx - yy) / 2, xy)
        return bool(abs(mean) + half <= self._half * (1 + 1e-6))

    def states(self, count: int) -> np.ndarray:
        """Return strains (xx, yy, xy) that fill the range evenly, shape (count, 3).

        The range is a double cone: |mean principal strain| + half of their difference is at most
        its half-width. A Sobol sequence fills it, a part of the states lies on its surface. More
        states begin with the same ones.
        """
        # Half a second, which most jobs need not spend.
        from scipy.stats import qmc

        # Powers of two keep the sequence balanced; the first of them do not depend on the count.
        exponent = max(4, math.ceil(math.log2(count)))
        place = qmc.Sobol(3, scramble=True, rng=0).random_base2(exponent)[:count]
        v = 2 * place[:, 0] - 1
        # The area of the cross-section at height |a| is proportional to (1 - |a|)².
        mean = np.sign(v) * (1 - np.cbrt(1 - np.abs(v)))
        surface = (np.arange(count) * _ON_SURFACE) % 1 < _ON_SURFACE
        radius = (1 - np.abs(mean)) * np.where(surface, 1.0, np.sqrt(place[:, 1]))
        angle = 2 * math.pi * place[:, 2]
        a = self._centre + self._half * mean
        b, c = (self._half * radius * f(angle) for f in (np.cos, np.sin))
        return np.column_stack([a + b, a - b, c])

    def terms(self, strain: np.ndarray, degree: int) -> np.ndarray:
        """Return the monomials of strains, scaled to the range, shape (states, terms)."""
        scaled = (np.atleast_2d(strain) - [self._centre, self._centre, 0]) / self._half
        powers = exponents(degree)
        return np.asarray(np.prod(scaled[:, None] ** powers, axis=-1))

    def slopes(self, strain: np.ndarray, degree: int) -> np.ndarray:
        """Return the derivatives of the monomials of one strain, shape (3, terms)."""
        scaled = (np.asarray(strain) - [self._centre, self._centre, 0]) / self._half
        powers = exponents(degree)
        found = np.empty((3, len(powers)))
        for axis in range(3):
            lowered = powers.copy()
            lowered[:, axis] = np.maximum(lowered[:, axis] - 1, 0)
            found[axis] = powers[:, axis] * np.prod(scaled**lowered, axis=-1) / self._half
        return found


def exponents(degree: int) -> np.ndarray:
    """Return the exponents of the monomials of three variables up to a degree, (terms, 3)."""
    every = np.stack(np.meshgrid(*[np.arange(degree + 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    return np.asarray(every[every.sum(axis=1) <= degree])


def deformation_of(strain: np.ndarray) -> Deformation:
    """Return the deformation of a strain (xx, yy, xy)."""
    return Deformation.from_strain(*map(float, strain))
