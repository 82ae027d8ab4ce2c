"""What a crystal does to every incident wave, read from a file, and the images that follow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from pacbed.engines.arrays import serial_linear_algebra
from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.diffuse import (
    DiffuseScattering,
    IncidentSplines,
    SplineAxis,
    crystal_axis_mrad,
)
from pacbed.engines.planewave.waves import IncidentGrid
from pacbed.engines.request import PHYSICS_VERSION
from pacbed.exceptions import RequestError, StoreError
from pacbed.scattering.image import Beams, Camera, Channels, add_discs, background
from pacbed.scattering.request import SeriesRequest, StateRequest
from pacbed.scattering.strain import deformation_of
from pacbed.specimen.microscope import Aperture, wavelength_A
from pacbed.storage.zipped import plain

# Strain xx, yy and xy of one.
UNIT_STRAINS = np.array([[[1.0, 0], [0, 0]], [[0, 0], [0, 1]], [[0, 1], [1, 0]]])

# Numbers of layers of which the coefficients are kept.
_MOST_KNOWN = 20


class Scattered(ABC):
    """What a crystal does to every incident wave, as coefficients of terms in strain.

    Of a single strain state there is one term, a constant.

    Parameters
    ----------
    path
        The file.
    group
        Its contents.
    request
        What it is to hold.

    Raises
    ------
    StoreError
        If it was made with other physics.
    """

    request: SeriesRequest | StateRequest
    provenance: dict[str, Any]

    def __init__(
        self, path: Path, group: zarr.Group, request: SeriesRequest | StateRequest
    ) -> None:
        attributes: dict[str, Any] = dict(group.attrs)
        if attributes["physics_version"] != PHYSICS_VERSION:
            raise StoreError(
                f"{path} was made with version {attributes['physics_version']} of the "
                f"physics, this is {PHYSICS_VERSION}: make it again"
            )
        self.path, self.request = path, request
        self._known: dict[int, dict[str, np.ndarray]] = {}
        self.settings = PlaneWaveSettings(**attributes["settings"])
        self.wave, self.beam, self.hk, x, y = (
            np.asarray(group[name]) for name in ("wave", "beam", "hk", "x_mrad", "y_mrad")
        )
        self.incident = IncidentGrid(x, y, np.ones((len(y), len(x)), bool))
        if request.motion == "full":
            self.knots = [np.asarray(group[f"knots_{i}"]) for i in range(2)]
            first, second = (np.asarray(group[f"incident_knots_{i}"]) for i in range(2))
            self.incident_splines = IncidentSplines((first, second))

    def simulation(self, aperture: Aperture) -> dict[str, Any]:
        """Return what images of an aperture say of their simulation, as pattern stores do."""
        return {
            "material": plain(self.request.material.to_dict()),
            "energy_keV": self.request.energy_keV,
            "thermal": {"motion": self.request.motion},
            "aperture": {"edge_mrad": aperture.edge_mrad, "profile": aperture.profile},
            "physics_version": PHYSICS_VERSION,
        }

    def coefficients(self, layer: int) -> dict[str, np.ndarray]:
        """Return the arrays of a number of layers, their last axis that of the terms."""
        if layer not in self._known:
            if len(self._known) == _MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[layer] = self._read(layer)
        return self._known[layer]

    @abstractmethod
    def _read(self, layer: int) -> dict[str, np.ndarray]:
        """Read them from the file."""

    @abstractmethod
    def check_layers(self, layers: Sequence[int]) -> None:
        """Refuse numbers of layers that there are not."""

    @abstractmethod
    def check_cone(self, aperture: Aperture, tilt_mrad: tuple[float, float]) -> None:
        """Refuse a cone of incidence that is not known."""

    def _check_reach(self, largest_mrad: float, tilt_mrad: tuple[float, float]) -> None:
        tilt, known = max(map(abs, tilt_mrad)), self.request.reach_mrad
        if largest_mrad + tilt > known * (1 + 1e-6):
            raise RequestError(
                f"pixels up to {largest_mrad:.4g} mrad from the axis at a tilt of {tilt:.4g} mrad "
                f"are beyond {self._kind}, which reaches {known - tilt:.4g} mrad"
                f"{self._advice(2 * (largest_mrad + tilt))}"
            )

    _kind: str

    def _advice(self, field_of_view_mrad: float) -> str:
        """Return what to do for a field that is wider by all tilts."""
        return ""

    def _cell_A(self, strain: np.ndarray) -> np.ndarray:
        return self.request.material.in_plane_cell_A(deformation_of(strain))

    def _g_mrad(self, strain: np.ndarray) -> np.ndarray:
        scale = 1e3 * wavelength_A(self.request.energy_keV)
        return np.asarray(scale * self.hk @ np.linalg.inv(self._cell_A(strain)).T)

    def _splines_at(
        self,
        strain: np.ndarray,
        coefficients: np.ndarray,
        noise: np.ndarray | None = None,
        within: np.ndarray | None = None,
    ) -> DiffuseScattering:
        """Return diffuse scattering with some coefficients, on the lattice of a strain."""
        axes = [SplineAxis(round(knots[-1] - 0.5), knots) for knots in self.knots]
        return DiffuseScattering(
            coefficients,
            noise,
            (axes[0], axes[1]),
            self._cell_A(strain) * np.array(self.settings.supercell)[:, None],
            wavelength_A(self.request.energy_keV),
            self.incident_splines,
            within,
        )

    @serial_linear_algebra()
    def _fill(
        self,
        strain: np.ndarray,
        terms: tuple[np.ndarray, np.ndarray],
        tilt_mrad: tuple[float, float],
        aperture: Aperture,
        layers: int,
        camera: Camera,
    ) -> Channels:
        """Make an image; with derivatives if there are such of the terms.

        Parameters
        ----------
        strain
            Components (xx, yy, xy) as fractions.
        terms
            Of beams and of diffuse scattering at this strain, and their derivatives if wanted,
            shape (1 or 4, terms).
        tilt_mrad, aperture, layers, camera
            As of the image.
        """
        self._check_image(tilt_mrad, aperture, layers, camera)
        count = len(terms[0])
        channels = Channels(camera.pixels, count > 1)
        read = self.coefficients(layers)
        turns = UNIT_STRAINS @ np.linalg.inv(deformation_of(strain).gradient)
        g_mrad, near = self._g_mrad(strain), self._near(aperture, tilt_mrad)
        ny, nx = len(self.incident.y_mrad), len(self.incident.x_mrad)
        dense = np.zeros((count, ny * nx, len(self.hk)), np.float32)
        dense[:, self.wave[near], self.beam[near]] = terms[0] @ read["beams"][near].T
        beams = Beams.around(
            self.incident,
            dense.reshape(count, ny, nx, -1),
            g_mrad,
            aperture,
            tilt_mrad,
            -g_mrad @ turns if channels.derivatives else None,
        )
        add_discs(channels, beams, aperture, tilt_mrad, camera)
        if self.request.motion == "full":
            axis = np.array(crystal_axis_mrad(tilt_mrad))
            weights = self.incident_splines.weights(aperture, tilt_mrad).astype(np.float32)
            averaged = np.tensordot(weights, read["diffuse"], 1) @ terms[1].T
            diffuse = self._splines_at(strain, np.moveaxis(averaged, -1, 0))
            _add_diffuse(channels, diffuse, axis, camera, turns)
        return channels

    def _check_image(
        self, tilt_mrad: tuple[float, float], aperture: Aperture, layers: int, camera: Camera
    ) -> None:
        self.check_layers([layers])
        self.check_cone(aperture, tilt_mrad)
        self._check_reach(np.abs(camera.directions_mrad()).max(), tilt_mrad)

    def _near(self, aperture: Aperture, tilt_mrad: tuple[float, float]) -> np.ndarray:
        """Return the numbers of the pairs whose waves are needed for an aperture."""
        reach = aperture.outer_mrad + 6 * (self.incident.x_mrad[1] - self.incident.x_mrad[0])
        x, y = crystal_axis_mrad(tilt_mrad)
        wanted = (np.abs(self.incident.y_mrad - y) <= reach)[:, None] & (
            np.abs(self.incident.x_mrad - x) <= reach
        )
        return np.nonzero(wanted.ravel()[self.wave])[0]


def _add_diffuse(
    channels: Channels,
    diffuse: DiffuseScattering,
    axis_mrad: np.ndarray,
    camera: Camera,
    turns: np.ndarray,
) -> None:
    values, by_angle = background(diffuse, axis_mrad, camera)
    channels.value += values[0]
    if not channels.derivatives:
        return
    angles = camera.directions_mrad() + axis_mrad[:, None, None]
    channels.by_angle += by_angle
    for i, turn in enumerate(turns):
        moved = np.einsum("iyx,ij,jyx->yx", angles, turn, by_angle)
        channels.by_strain[i] += values[1 + i] + moved + np.trace(turn) * values[0]
