"""The patterns of one thickness from which examples are made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pacbed.examples.augment import average_over_pixels
from pacbed.exceptions import StoreError
from pacbed.patterns.store import PatternStore, read_patterns
from pacbed.scattering.mtf import MTF
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
    simulation
        Crystal, beam, thermal motion and engine that all patterns share, as of
        :func:`read_pattern_set`; nothing if unknown.
    geometry
        Of images that lie on the pixels of the camera already (:mod:`pacbed.examples.pool`), their
        rotation, field of view and shifts, shape (draws, 4); None for patterns as simulated.
    """

    patterns: np.ndarray
    pixel_mrad: tuple[float, float]
    draws: Sequence[int]
    parameters: np.ndarray
    simulation: Mapping[str, Any] | None = None
    geometry: np.ndarray | None = None

    def averaged(self, camera_pixel_mrad: float, mtf: MTF | None = None) -> Iterator[np.ndarray]:
        """Yield each as of :func:`pacbed.examples.augment.average_over_pixels`."""
        for pattern in self.patterns:
            yield average_over_pixels(pattern, self.pixel_mrad, camera_pixel_mrad, mtf)


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
        If a store is damaged, of another draw or semi-angle, or simulated otherwise than the first.
    """
    if not stores:
        raise StoreError("no pattern stores were given")
    read = [read_patterns(path, [layers]) for path in stores]
    shared, parameters = _shared(read[0]), []
    for path, store, draw in zip(stores, read, draws, strict=True):
        request = store.attributes["request"]
        if (found := store.attributes.get("draw", draw)) != draw:
            raise StoreError(
                f"{path} holds draw {found}, not {draw}: it was copied or renamed. Delete it, and "
                "simulate it again"
            )
        angle = request["aperture"]["semiangle_mrad"]
        if semiangle_mrad is not None and not math.isclose(angle, semiangle_mrad):
            raise StoreError(
                f"{path} is of {angle:g} mrad, not of {semiangle_mrad:g}: name other patterns"
            )
        if differing := [name for name, one in _shared(store).items() if one != shared[name]]:
            raise StoreError(
                f"{path} was simulated otherwise than {stores[0]}: its {', '.join(differing)} is "
                "another. Simulate it again"
            )
        strain = Deformation(**request["deformation"]).strain
        parameters.append((strain[0, 0], strain[1, 1], strain[0, 1], *request["tilt_mrad"]))
    patterns = np.concatenate([store.patterns for store in read])
    return PatternSet(patterns, read[0].pixel_mrad, draws, np.array(parameters), shared)


def _shared(store: PatternStore) -> dict[str, Any]:
    """Return what all patterns of a set have in common."""
    attributes, request = store.attributes, store.attributes["request"]
    aperture = {name: request["aperture"][name] for name in ("edge_mrad", "profile")}
    return {
        **{name: request[name] for name in ("material", "energy_keV", "thermal", "detector")},
        "aperture": aperture,
        **{name: attributes.get(name) for name in ("engine", "settings", "physics_version")},
    }
