"""What was found at the points of a map, before it is put into the coordinates of the scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from pacbed.reading.fit import FitResult
from pacbed.scattering.image_model import UNKNOWNS
from pacbed.storage.files import appearing_whole


@dataclass
class Found:
    """What was found at some points.

    Parameters
    ----------
    result
        The fits.
    layers
        Numbers of layers, 0 where there is no crystal, shape (points,).
    probability
        Of these numbers, among all that were tried, shape (points,).
    """

    result: FitResult
    layers: np.ndarray
    probability: np.ndarray

    @classmethod
    def none(cls, count: int) -> Found:
        """Return what describes nothing at so many points."""
        return cls(
            FitResult.none(np.zeros((count, len(UNKNOWNS)))),
            np.zeros(count, int),
            np.zeros(count),
        )

    @classmethod
    def joined(cls, parts: Sequence[Found]) -> Found:
        """Put parts together."""
        results = {
            one.name: np.concatenate([getattr(part.result, one.name) for part in parts])
            for one in fields(FitResult)
        }
        return cls(
            FitResult(**results),
            np.concatenate([part.layers for part in parts]),
            np.concatenate([part.probability for part in parts]),
        )

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Found:
        """Return what :meth:`write` has written.

        Raises
        ------
        ValueError
            If the arrays are those of an earlier version.
        """
        result = FitResult(**{one.name: arrays[one.name] for one in fields(FitResult)})
        if result.at_edge.shape != result.states.shape:
            raise ValueError("it is of an earlier version")
        return cls(result, arrays["layers"], arrays["probability"])

    def write(self, path: Path, **more: np.ndarray) -> None:
        """Write it, and more arrays, into a file that appears whole."""
        arrays = {one.name: getattr(self.result, one.name) for one in fields(self.result)}
        with appearing_whole(path) as temporary, temporary.open("wb") as file:
            arrays |= {"layers": self.layers, "probability": self.probability, **more}
            np.savez_compressed(file, **arrays)

    @property
    def good(self) -> np.ndarray:
        """Whether a point was fitted, and nothing is wrong."""
        return np.array([not flags for flags in self.result.flags], bool) & (self.layers > 0)

    def put(self, rows: np.ndarray, other: Found) -> None:
        """Replace what was found at some points."""
        self.result.put(rows, other.result)
        self.layers[rows], self.probability[rows] = other.layers, other.probability

    def put_better(self, rows: np.ndarray, other: Found) -> int:
        """Put what describes patterns better; return at how many points that is so."""
        gained = self.result.deviance[rows] - other.result.deviance
        better = gained > 1
        part = Found(other.result.of(better), other.layers[better], other.probability[better])
        self.put(rows[better], part)
        return int(better.sum())

    def beside(self, rows: np.ndarray, new: Found) -> np.ndarray:
        """Return how probable thicknesses are that are tried besides those of before."""
        known = self.probability[rows]
        unit = np.maximum(new.result.chi2_per_pixel, 1)
        gained = (self.result.deviance[rows] - new.result.deviance) / (2 * unit)
        # Before, all that had been tried had so many times the weight of the thickness found.
        others = np.exp(-np.clip(gained, -300, 300)) / np.maximum(known, 1e-6)
        return np.where(new.layers == self.layers[rows], known, 1 / (1 + others))
