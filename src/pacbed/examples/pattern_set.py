"""The patterns of one thickness from which examples are made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pacbed.examples.augment import (
    average_over_pixels,
)
from pacbed.exceptions import StoreError
from pacbed.patterns.store import PatternStore, read_patterns
from pacbed.specimen.deformation import Deformation


@dataclass(frozen=True)
class PatternSet:
    """The patterns of one thickness from which examples are made.

    Parameters
    ----------
    patterns
        Shape (draws, ny, nx), fraction of the incident electrons per pixel.
    pixel_mrad
        Pixel size (x, y) in mrad.
    draws
        Index of the draw of each pattern.
    parameters
        Strain (xx, yy, xy) as fractions and tilt (x, y) in mrad, shape (draws, 5).
    """

    patterns: np.ndarray
    pixel_mrad: tuple[float, float]
    draws: Sequence[int]
    parameters: np.ndarray

    def averaged(self, camera_pixel_mrad: float, into: np.ndarray | None = None) -> PatternSet:
        """Return the library from whose patterns examples are resampled.

        Parameters
        ----------
        camera_pixel_mrad
            Pixel size of the examples in mrad; see
            :func:`pacbed.examples.augment.average_over_pixels`.
        into
            Where the averaged patterns go, of the same shape, single precision: `patterns` itself
            where they are not needed any longer. A new array if not given.
        """
        if into is None:
            into = np.empty(self.patterns.shape, np.float32)
        for averaged, pattern in zip(into, self.patterns, strict=True):
            averaged[...] = average_over_pixels(pattern, self.pixel_mrad, camera_pixel_mrad)
        return replace(self, patterns=into)


def read_pattern_set(
    stores: Sequence[Path],
    draws: Sequence[int],
    layers: int,
    semiangle_mrad: float | None = None,
) -> PatternSet:
    """Read the patterns of one thickness, and what they show, from the stores of several draws.

    Parameters
    ----------
    stores, draws
        The stores, and the numbers of their draws.
    layers
        The thickness.
    semiangle_mrad
        The semi-angle that all must have, if it is given.

    Raises
    ------
    StoreError
        If a store is damaged, of another semi-angle, or its detector differs from that of the
        others.
    """
    patterns: np.ndarray | None = None
    parameters = np.empty((len(stores), 5))
    first: PatternStore | None = None
    for number, path in enumerate(stores):
        store = read_patterns(path, [layers])
        if patterns is None or first is None:
            first = store
            patterns = np.empty((len(stores), *store.patterns.shape[1:]), np.float32)
        if store.patterns.shape[1:] != patterns.shape[1:] or not (
            np.array_equal(store.kx_mrad, first.kx_mrad)
            and np.array_equal(store.ky_mrad, first.ky_mrad)
        ):
            raise StoreError(f"{path} has other pixels than {stores[0]}: simulate it again")
        patterns[number] = store.patterns[0]
        request = store.attributes["request"]
        found = request["aperture"]["semiangle_mrad"]
        if semiangle_mrad is not None and not math.isclose(found, semiangle_mrad):
            raise StoreError(
                f"{path} is of {found:g} mrad, not of {semiangle_mrad:g}: name other patterns"
            )
        strain = Deformation(**request["deformation"]).strain
        parameters[number] = strain[0, 0], strain[1, 1], strain[0, 1], *request["tilt_mrad"]
    if patterns is None or first is None:
        raise StoreError("no pattern stores were given")
    return PatternSet(patterns, first.pixel_mrad, draws, parameters)
