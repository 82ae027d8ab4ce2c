"""The scattering series: what a crystal does to every incident wave, at any strain.

At a fixed direction of incidence the intensities of the Bragg beams are smooth functions of strain.
Polynomials through a few strain states replace all others, and so they do for the diffuse
scattering. What is not smooth, where the discs lie and where they end, is geometry and stays exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.diffuse import (
    DiffuseScattering,
    IncidentSplines,
    SplineAxis,
    crystal_axis_mrad,
)
from pacbed.engines.planewave.library import ScatteringLibrary, Synthesis
from pacbed.engines.planewave.waves import IncidentGrid
from pacbed.engines.request import PHYSICS_VERSION
from pacbed.exceptions import RequestError, StoreError
from pacbed.scattering.fit import DIFFUSE_DEGREE
from pacbed.scattering.image import Beams, Camera, Channels, Image, add_discs, background, compose
from pacbed.scattering.request import SeriesRequest
from pacbed.scattering.strain import deformation_of
from pacbed.specimen.microscope import Aperture, Detector, wavelength_A
from pacbed.storage.zipped import open_store, plain, reading

# Strain xx, yy and xy of one.
UNIT_STRAINS = np.array([[[1.0, 0], [0, 0]], [[0, 0], [0, 1]], [[0, 1], [1, 0]]])


class ScatteringSeries:
    """A scattering series, read from its file.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    StoreError
        If it is missing, damaged, of another kind, or made with other physics.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_store(path) as group, reading(path):
            attributes: dict[str, Any] = dict(group.attrs)
            if "series" not in attributes or "leave_out_error" not in group:
                raise StoreError(f"{path} is not a scattering series: make one with pacbed scatter")
            if attributes["physics_version"] != PHYSICS_VERSION:
                raise StoreError(
                    f"{path} was made with version {attributes['physics_version']} of the "
                    f"physics, this is {PHYSICS_VERSION}: make it again"
                )
            self.request = SeriesRequest.from_dict(attributes["series"])
            self.provenance = {
                "engine": "series",
                **{name: attributes[name] for name in ("settings", "series")},
            }
            """What a pattern made of the series says of it."""
            self.settings = PlaneWaveSettings(**attributes["settings"])
            names = ("wave", "beam", "hk", "x_mrad", "y_mrad", "leave_out_error")
            found = {name: np.asarray(group[name]) for name in names}
            if self.request.motion == "full":
                self.knots = [np.asarray(group[f"knots_{i}"]) for i in range(2)]
                first, second = (np.asarray(group[f"incident_knots_{i}"]) for i in range(2))
                self.incident_splines = IncidentSplines((first, second))
        self.wave, self.beam, self.hk = found["wave"], found["beam"], found["hk"]
        x, y = found["x_mrad"], found["y_mrad"]
        self.incident = IncidentGrid(x, y, np.ones((len(y), len(x)), bool))
        self.leave_out_error = found["leave_out_error"]
        """Relative L1 error of the beams of each state, by all others, (layers, states)."""
        self.coefficients = lru_cache(maxsize=20)(self._read)

    def check(self, request: SeriesRequest) -> None:
        """Check that the series is what a request asks for.

        Raises
        ------
        StoreError
            If it is another one.
        """
        asked, own = plain(request.to_dict()), plain(self.request.to_dict())
        if differing := [name for name in asked if asked[name] != own[name]]:
            raise StoreError(
                f"{self.path} is of another study: its {', '.join(differing)} is another. Delete "
                "it, and it will be made again"
            )

    def simulation(self, aperture: Aperture) -> dict[str, Any]:
        """Return what images of an aperture say of their simulation, as pattern stores do."""
        return {
            "material": plain(asdict(self.request.material)),
            "energy_keV": self.request.energy_keV,
            "thermal": {"motion": self.request.motion},
            "aperture": {"edge_mrad": aperture.edge_mrad, "profile": aperture.profile},
            "physics_version": PHYSICS_VERSION,
        }

    def _read(self, layer: int) -> dict[str, np.ndarray]:
        names = ["beams", "within_band"]
        if self.request.motion == "full":
            names += ["diffuse", "diffuse_noise", "diffuse_within_band"]
        with open_store(self.path) as group, reading(self.path):
            return {name: np.asarray(group[name][layer - 1]) for name in names}  # type: ignore[index]

    @threadpool_limits.wrap(limits=1, user_api="blas")
    def library(self, strain: Sequence[float], layers: Sequence[int]) -> ScatteringLibrary:
        """Return what the crystal does to all waves at a strain, after some layers.

        Parameters
        ----------
        strain
            Components (xx, yy, xy) as fractions.
        layers
            Numbers of layers.

        Raises
        ------
        RequestError
            If the series does not reach to the strain or a layer.
        """
        self._check_strain(strain)
        self.check_layers(layers)
        at = np.asarray(strain, float)
        terms = self._terms(at, self.request.degree, False)[0]
        waves = len(self.incident.x_mrad) * len(self.incident.y_mrad)
        beams = np.zeros((len(layers), waves, len(self.hk)), np.float32)
        within = np.zeros((len(layers), waves))
        for row, layer in enumerate(layers):
            read = self.coefficients(layer)
            beams[row, self.wave, self.beam] = read["beams"] @ terms
            within[row] = read["within_band"] @ terms
        return ScatteringLibrary(
            self.incident, self._g_mrad(at), beams, within, diffuse=self._diffuse_at(at, layers)
        )

    def _cell_A(self, strain: np.ndarray) -> np.ndarray:
        return self.request.material.in_plane_cell_A(deformation_of(strain))

    def _g_mrad(self, strain: np.ndarray) -> np.ndarray:
        scale = 1e3 * wavelength_A(self.request.energy_keV)
        return np.asarray(scale * self.hk @ np.linalg.inv(self._cell_A(strain)).T)

    def _diffuse_at(self, strain: np.ndarray, layers: Sequence[int]) -> DiffuseScattering | None:
        if self.request.motion != "full":
            return None
        terms = self._terms(strain, DIFFUSE_DEGREE, False)[0]
        read = [self.coefficients(layer) for layer in layers]
        coefficients, noise, within = (
            np.stack([one[name] @ terms for one in read])
            for name in ("diffuse", "diffuse_noise", "diffuse_within_band")
        )
        swapped = np.moveaxis(coefficients, 0, 1), np.moveaxis(noise, 0, 1)
        return self._splines_at(strain, *swapped, within)

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

    @threadpool_limits.wrap(limits=1, user_api="blas")
    def pattern(
        self,
        strain: Sequence[float],
        tilt_mrad: tuple[float, float],
        aperture: Aperture,
        layers: Sequence[int],
        detector: Detector,
    ) -> Synthesis:
        """Return patterns of one strain, one for each number of layers.

        Parameters
        ----------
        strain
            Components (xx, yy, xy) as fractions.
        tilt_mrad
            Sample tilt (φx, φy) in mrad.
        aperture
            Of the beam.
        layers
            Numbers of layers.
        detector
            Pixels.

        Raises
        ------
        RequestError
            If the series does not reach that far: which quantity, and how far it reaches.
        """
        self.check_cone(aperture, tilt_mrad)
        self._check_reach(max(detector.field_of_view_mrad) / 2, tilt_mrad)
        return self.library(strain, layers).synthesise(aperture, tilt_mrad, detector)

    def _check_strain(self, strain: Sequence[float]) -> None:
        if not self.request.strain.contains(np.asarray(strain, float)):
            low, high = self.request.strain.stretch
            asked = np.linalg.eigvalsh(deformation_of(np.asarray(strain)).gradient)
            wide = min(low, -_up(-asked[0], 1e4)), max(high, _up(asked[1], 1e4))
            raise RequestError(
                f"strain {', '.join(f'{100 * e:.3g}' for e in strain)} % (xx, yy, xy) is beyond "
                f"the series, which holds principal stretches from {low:g} to {high:g}: make one "
                f"with pacbed scatter --stretch {wide[0]:g} {wide[1]:g}"
            )

    def check_layers(self, layers: Sequence[int]) -> None:
        if not 1 <= min(layers) <= max(layers) <= self.request.layers:
            raise RequestError(
                f"the series holds 1 to {self.request.layers} layers, not {max(layers)}: for more, "
                "make one with another --layers of pacbed scatter"
            )

    def check_cone(self, aperture: Aperture, tilt_mrad: tuple[float, float]) -> None:
        tilt = math.hypot(*tilt_mrad)
        reach = self.request.semiangle_mrad + self.request.tilt_mrad
        if aperture.outer_mrad + tilt > reach * (1 + 1e-6):
            own = self.request
            wide = _up(max(own.semiangle_mrad, aperture.outer_mrad)), _up(max(own.tilt_mrad, tilt))
            raise RequestError(
                f"a semi-angle of {aperture.semiangle_mrad:g} mrad at a tilt of {tilt:.4g} mrad is "
                f"beyond the series, which holds waves up to {reach:g} mrad from the axis: make "
                f"one with pacbed scatter --semiangle {wide[0]:g} --tilt {wide[1]:g}"
            )

    def _check_reach(self, largest_mrad: float, tilt_mrad: tuple[float, float]) -> None:
        tilt = max(map(abs, tilt_mrad))
        known = self.request.field_of_view_mrad / 2 + self.request.tilt_mrad
        if largest_mrad + tilt > known * (1 + 1e-6):
            raise RequestError(
                f"pixels up to {largest_mrad:.4g} mrad from the axis at a tilt of {tilt:.4g} mrad "
                f"are beyond the series, which reaches {known - tilt:.4g} mrad: make one with "
                f"pacbed scatter --fov {_up(2 * (largest_mrad + tilt - self.request.tilt_mrad)):g}"
            )

    def image(
        self,
        strain: Sequence[float],
        tilt_mrad: tuple[float, float],
        aperture: Aperture,
        layers: int,
        camera: Camera,
    ) -> np.ndarray:
        """Return the fraction of the incident electrons in each pixel of a camera.

        Parameters
        ----------
        strain
            Components (xx, yy, xy) as fractions.
        tilt_mrad
            Sample tilt (φx, φy) in mrad.
        aperture
            Of the beam.
        layers
            Number of layers.
        camera
            Pixels, and how the pattern lies on them.

        Returns
        -------
        numpy.ndarray
            Shape (pixels, pixels), float32.

        Raises
        ------
        RequestError
            As :meth:`pattern`.
        """
        channels = self._channels(strain, tilt_mrad, aperture, layers, camera, False)
        return (camera.pixel_mrad**2 * channels.value).astype(np.float32)

    def image_and_derivatives(
        self,
        strain: Sequence[float],
        tilt_mrad: tuple[float, float],
        aperture: Aperture,
        layers: int,
        camera: Camera,
    ) -> Image:
        """Return an image and its derivatives; see :meth:`image`.

        That the diffuse scattering turns with the crystal is left out of the derivatives by the
        tilts: in a thin crystal, whose discs hardly change, its noise would look like information.
        """
        channels = self._channels(strain, tilt_mrad, aperture, layers, camera, True)
        return compose(channels, camera, tilt_mrad)

    @threadpool_limits.wrap(limits=1, user_api="blas")
    def _channels(
        self,
        strain: Sequence[float],
        tilt_mrad: tuple[float, float],
        aperture: Aperture,
        layers: int,
        camera: Camera,
        derivatives: bool,
    ) -> Channels:
        self._check_strain(strain)
        self.check_layers([layers])
        self.check_cone(aperture, tilt_mrad)
        self._check_reach(np.abs(camera.directions_mrad()).max(), tilt_mrad)
        channels = Channels(camera.pixels, derivatives)
        read, at = self.coefficients(layers), np.asarray(strain, float)
        gradient = deformation_of(at).gradient
        turns = UNIT_STRAINS @ np.linalg.inv(gradient)
        g_mrad = self._g_mrad(at)
        near = self._near(aperture, tilt_mrad)
        terms = self._terms(at, self.request.degree, derivatives)
        ny, nx = len(self.incident.y_mrad), len(self.incident.x_mrad)
        dense = np.zeros((len(terms), ny * nx, len(self.hk)), np.float32)
        dense[:, self.wave[near], self.beam[near]] = terms @ read["beams"][near].T
        beams = Beams.around(
            self.incident,
            dense.reshape(len(terms), ny, nx, -1),
            g_mrad,
            aperture,
            tilt_mrad,
            -g_mrad @ turns if derivatives else None,
        )
        add_discs(channels, beams, aperture, tilt_mrad, camera)
        if self.request.motion == "full":
            self._add_diffuse(channels, at, tilt_mrad, aperture, layers, camera, turns)
        return channels

    def _near(self, aperture: Aperture, tilt_mrad: tuple[float, float]) -> np.ndarray:
        """Return the numbers of the pairs whose waves are needed for an aperture."""
        reach = aperture.outer_mrad + 6 * (self.incident.x_mrad[1] - self.incident.x_mrad[0])
        x, y = crystal_axis_mrad(tilt_mrad)
        wanted = (np.abs(self.incident.y_mrad - y) <= reach)[:, None] & (
            np.abs(self.incident.x_mrad - x) <= reach
        )
        return np.nonzero(wanted.ravel()[self.wave])[0]

    def _terms(self, strain: np.ndarray, degree: int, derivatives: bool) -> np.ndarray:
        """Return the monomials, and their derivatives if wanted, shape (1 or 4, terms)."""
        terms = self.request.strain.terms(strain, degree)
        if derivatives:
            terms = np.vstack([terms, self.request.strain.slopes(strain, degree)])
        return terms.astype(np.float32)

    def _add_diffuse(
        self,
        channels: Channels,
        strain: np.ndarray,
        tilt_mrad: tuple[float, float],
        aperture: Aperture,
        layers: int,
        camera: Camera,
        turns: np.ndarray,
    ) -> None:
        read = self.coefficients(layers)["diffuse"]
        axis = np.array(crystal_axis_mrad(tilt_mrad))
        weights = self.incident_splines.weights(aperture, tilt_mrad).astype(np.float32)
        terms = self._terms(strain, DIFFUSE_DEGREE, channels.derivatives)
        averaged = np.moveaxis(np.tensordot(weights, read, 1) @ terms.T, -1, 0)
        values, by_angle = background(self._splines_at(strain, averaged), axis, camera)
        channels.value += values[0]
        if not channels.derivatives:
            return
        angles = camera.directions_mrad() + axis[:, None, None]
        channels.by_angle += by_angle
        for i, turn in enumerate(turns):
            moved = np.einsum("iyx,ij,jyx->yx", angles, turn, by_angle)
            channels.by_strain[i] += values[1 + i] + moved + np.trace(turn) * values[0]


def _up(value: float, per_unit: float = 100) -> float:
    """Round up to a number that a user can type."""
    return math.ceil(per_unit * (value - 1e-9 * abs(value))) / per_unit
