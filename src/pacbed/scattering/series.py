"""The scattering series: what a crystal does to every incident wave, at any strain.

At a fixed direction of incidence the intensities of the Bragg beams are smooth functions of strain.
Polynomials through a few strain states replace all others, and so they do for the diffuse
scattering. What is not smooth, where the discs lie and where they end, is geometry and stays exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pacbed.engines.arrays import serial_linear_algebra
from pacbed.engines.planewave.diffuse import DiffuseScattering
from pacbed.engines.planewave.library import ScatteringLibrary, Synthesis
from pacbed.exceptions import RequestError, StoreError
from pacbed.scattering.fit import DIFFUSE_DEGREE
from pacbed.scattering.image import Camera, Channels, Image, compose
from pacbed.scattering.request import SeriesRequest
from pacbed.scattering.scattered import Scattered
from pacbed.scattering.strain import deformation_of
from pacbed.specimen.microscope import Aperture, Detector
from pacbed.storage.zipped import open_store, plain, reading


class ScatteringSeries(Scattered):
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

    request: SeriesRequest
    _kind = "the series"

    def __init__(self, path: Path) -> None:
        with open_store(path) as group, reading(path):
            if "series" not in group.attrs or "leave_out_error" not in group:
                raise StoreError(f"{path} is not a scattering series: make one with pacbed scatter")
            super().__init__(path, group, SeriesRequest.from_dict(group.attrs["series"]))  # type: ignore[arg-type]
            self.provenance = {
                "engine": "series",
                **{name: group.attrs[name] for name in ("settings", "series")},
            }
            """What a pattern made of the series says of it."""
            self.leave_out_error = np.asarray(group["leave_out_error"])
            """Relative L1 error of the beams of each state, by all others, (layers, states)."""

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

    def _read(self, layer: int) -> dict[str, np.ndarray]:
        names = ["beams", "within_band"]
        if self.request.motion == "full":
            names += ["diffuse", "diffuse_noise", "diffuse_within_band"]
        with open_store(self.path) as group, reading(self.path):
            return {name: np.asarray(group[name][layer - 1]) for name in names}  # type: ignore[index]

    @serial_linear_algebra()
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

    @serial_linear_algebra()
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

    def _advice(self, field_of_view_mrad: float) -> str:
        field = _up(field_of_view_mrad - 2 * self.request.tilt_mrad)
        return f": make one with pacbed scatter --fov {field:g}"

    def check_layers(self, layers: Sequence[int]) -> None:
        """Refuse numbers of layers that there are not."""
        known = range(1, self.request.layers + 1)
        if wrong := [number for number in layers if number not in known]:
            raise RequestError(
                f"the series holds 1 to {self.request.layers} layers, not {wrong[0]}: for more, "
                "make one with another --layers of pacbed scatter"
            )

    def check_cone(self, aperture: Aperture, tilt_mrad: tuple[float, float]) -> None:
        """Refuse a cone of incidence that is not known."""
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

    def check_image(
        self,
        strain: Sequence[float],
        tilt_mrad: tuple[float, float],
        aperture: Aperture,
        layers: int,
        camera: Camera,
    ) -> None:
        """Check that the series reaches as far as an image, see :meth:`image`.

        Raises
        ------
        RequestError
            If it does not: which quantity, and how far it reaches.
        """
        self._check_strain(strain)
        self._check_image(tilt_mrad, aperture, layers, camera)

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
        return (camera.pixel_area_mrad2 * channels.value).astype(np.float32)

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
        at = np.asarray(strain, float)
        beams, diffuse = (
            self._terms(at, degree, derivatives) for degree in (self.request.degree, DIFFUSE_DEGREE)
        )
        return self._fill(at, (beams, diffuse), tilt_mrad, aperture, layers, camera)

    def _terms(self, strain: np.ndarray, degree: int, derivatives: bool) -> np.ndarray:
        """Return the monomials, and their derivatives if wanted, shape (1 or 4, terms)."""
        terms = self.request.strain.terms(strain, degree)
        if derivatives:
            terms = np.vstack([terms, self.request.strain.slopes(strain, degree)])
        return terms.astype(np.float32)


def _up(value: float, per_unit: float = 100) -> float:
    """Round up to a number that a user can type."""
    return math.ceil(per_unit * (value - 1e-9 * abs(value))) / per_unit
