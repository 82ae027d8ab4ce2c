"""The scattering series: what a crystal does to every incident wave, at any strain.

At a fixed direction of incidence the intensities of the Bragg beams are smooth functions of strain.
Polynomials through a few strain states replace all others, and so they do for the diffuse
scattering. What is not smooth, where the discs lie and where they end, is geometry and stays exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from threadpoolctl import threadpool_limits
from zarr.codecs import BloscCodec
from zarr.storage import LocalStore

from pacbed import __version__
from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.diffuse import (
    DiffuseScattering,
    IncidentSplines,
    SplineAxis,
    crystal_axis_mrad,
)
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.engines.planewave.library import ScatteringLibrary, Synthesis
from pacbed.engines.planewave.waves import IncidentGrid
from pacbed.engines.request import (
    PHYSICS_VERSION,
    Motion,
    Progress,
    SimulationRequest,
    ThermalMotion,
)
from pacbed.exceptions import DamagedStoreError, MissingStoreError, RequestError, StoreError
from pacbed.scattering.image import Beams, Camera, Channels, Image, add_discs, background, compose
from pacbed.scattering.strain import StrainRange, deformation_of, exponents
from pacbed.seeding import stream
from pacbed.specimen.crystal import Material
from pacbed.specimen.microscope import Aperture, Detector, wavelength_A
from pacbed.storage.zipped import open_store, plain, reading, zip_writer

DIFFUSE_DEGREE = 1
# Cones in which the diffuse scattering is sampled, over the largest: densest near the axis, for the
# small apertures.
_CONES = (1.0, 0.6, 0.3)
# States per term of a polynomial: fewer would follow the states and not what lies between.
_STATES_PER_TERM = 1.5
# Beams are kept this many steps of the incident grid beyond the field of view, where the splines
# over incident directions no longer feel their end.
_MARGIN_STEPS = 3
# Bits of the same weight next to each other: sign and exponent of neighbours are alike.
_COMPRESSOR = BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")
# Strain xx, yy and xy of one.
_UNIT_STRAINS = np.array([[[1.0, 0], [0, 0]], [[0, 0], [0, 1]], [[0, 1], [1, 0]]])


def degree_for(states: int) -> int:
    """Return the degree, three at most, that so many strain states allow."""
    fit = [d for d in (3, 2) if states >= _STATES_PER_TERM * len(exponents(d))]
    return fit[0] if fit else 1


@dataclass(frozen=True)
class SeriesRequest:
    """What a scattering series is to hold.

    Parameters
    ----------
    material
        The crystal.
    energy_keV
        Beam energy in keV.
    layers
        Largest number of layers; the series holds all thicknesses up to it.
    strain
        Range of strain.
    semiangle_mrad
        Largest angle of an aperture, its soft edge included, in mrad.
    tilt_mrad
        Largest angle between the beam and the normal of the crystal, in mrad.
    field_of_view_mrad
        Full width of the square in which patterns are known, in mrad.
    states
        Number of strain states that are simulated.
    degree
        Degree of the polynomials of the Bragg beams.
    motion
        Thermal motion: ``full``, ``coherent`` or ``none``.
    seed
        Seed of the thermal displacements, different in each state.

    Raises
    ------
    RequestError
        If there are too few states for the degree, or frozen phonons are asked for.
    """

    material: Material
    energy_keV: float
    layers: int
    strain: StrainRange
    semiangle_mrad: float
    tilt_mrad: float
    field_of_view_mrad: float
    states: int = 50
    degree: int = 3
    motion: Motion = "full"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.degree <= 5:
            raise RequestError(f"the degree of a series must lie within 1 to 5, not {self.degree}")
        terms = len(exponents(self.degree))
        needed = math.ceil(_STATES_PER_TERM * terms)
        if self.states < needed:
            raise RequestError(
                f"{self.states} strain states are too few for polynomials of degree "
                f"{self.degree}, which have {terms} terms: choose at least {needed} states or a "
                "smaller degree"
            )
        if isinstance(self.motion, int):
            raise RequestError(
                "a series needs smooth beams: thermal motion full, coherent or none, not a number "
                "of frozen-phonon configurations"
            )
        if self.tilt_mrad < 0:
            raise RequestError(f"the largest tilt must be 0 or more, not {self.tilt_mrad} mrad")
        self.requests(0)

    def strains(self) -> np.ndarray:
        """Return the strains (xx, yy, xy) of the states, shape (states, 3)."""
        return self.strain.states(self.states)

    def requests(self, state: int) -> list[SimulationRequest]:
        """Return what is simulated together for a strain state.

        Raises
        ------
        RequestError
            If it is impossible.
        """
        width = self.field_of_view_mrad + 2 * self.tilt_mrad
        # The pixels are not used, but for how far they reach.
        detector = Detector((width, width), (64, 64))
        seed = int(stream(self.seed, "series", state).integers(2**31))
        return [
            SimulationRequest(
                self.material,
                deformation_of(self.strains()[state]),
                (0.0, 0.0),
                self.layers,
                self.energy_keV,
                Aperture(share * (self.semiangle_mrad + self.tilt_mrad)),
                detector,
                ThermalMotion(self.motion),
                seed,
            )
            for share in _CONES
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the request as nested plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SeriesRequest:
        """Make a request from :meth:`to_dict`."""
        material, strain = Material(**values["material"]), StrainRange(**values["strain"])
        return cls(**{**values, "material": material, "strain": strain})


@threadpool_limits.wrap(limits=1, user_api="blas")
def write_state(
    path: Path,
    request: SeriesRequest,
    state: int,
    engine: PlaneWaveEngine,
    progress: Progress | None = None,
) -> None:
    """Simulate one strain state of a series and write what all waves do in it.

    Parameters
    ----------
    path
        The store, by convention ``*.zarr.zip``. It appears whole or not at all.
    request
        The series.
    state
        Number of the state.
    engine
        Simulates it.
    progress
        Called with the number of waves done and their total.

    Raises
    ------
    RequestError
        If it cannot be simulated.
    StoreError
        If the file cannot be written.
    """
    requests = request.requests(state)
    stretch = request.strain.stretch[1]
    library, provenance = engine.scatter(requests, progress, largest_stretch=stretch)
    cell = request.material.in_plane_cell_A(requests[0].deformation)
    scale = 1e3 * wavelength_A(request.energy_keV)
    hk = np.rint(library.g_mrad / scale @ cell.T).astype(np.int32)
    wave, beam = _visible(request, library.incident, hk)
    used = np.unique(beam)
    arrays = {
        "beams": library.beams[:, wave, beam],
        "within_band": library.within_band.astype(np.float32),
        "wave": wave.astype(np.int32),
        "beam": np.searchsorted(used, beam).astype(np.int32),
        "hk": hk[used],
        "x_mrad": library.incident.x_mrad,
        "y_mrad": library.incident.y_mrad,
    }
    if library.diffuse is not None:
        diffuse = library.diffuse
        assert diffuse.incident is not None
        arrays |= {
            "diffuse": np.moveaxis(diffuse.coefficients, 1, 0),
            "diffuse_within_band": np.asarray(diffuse.within_band, np.float32),
            **{f"knots_{i}": axis.knots for i, axis in enumerate(diffuse.axes)},
            **{f"incident_knots_{i}": knots for i, knots in enumerate(diffuse.incident.knots)},
        }
    attributes = _attributes(request, engine.settings, state=state)
    _write(path, arrays, {**provenance, **attributes})


def holds_state(
    path: Path, request: SeriesRequest, state: int, settings: PlaneWaveSettings
) -> bool:
    """Return whether a store exists, is whole, and is a state of a series with such settings."""
    try:
        with open_store(path) as group:
            found = dict(group.attrs)
    except (MissingStoreError, DamagedStoreError):
        return False
    asked = plain(_attributes(request, settings, state=state))
    return all(found.get(name) == value for name, value in asked.items())


def _visible(
    request: SeriesRequest, incident: IncidentGrid, hk: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the waves and beams (pairs of numbers) that can fall on a pattern at any strain."""
    scale = 1e3 * wavelength_A(request.energy_keV)
    cell = request.material.in_plane_cell_A(deformation_of(np.zeros(3)))
    g_mrad = scale * hk @ np.linalg.inv(cell).T
    # How far strain moves a beam inwards.
    inwards = np.hypot(*g_mrad.T) * max(0.0, 1 - 1 / request.strain.stretch[1])
    step = incident.x_mrad[1] - incident.x_mrad[0]
    reach = request.field_of_view_mrad / 2 + request.tilt_mrad + _MARGIN_STEPS * step
    out = np.abs(incident.directions_mrad[:, None] + g_mrad).max(axis=-1)
    wave, beam = np.nonzero(out - inwards <= reach)
    return wave, beam


def _attributes(request: SeriesRequest, settings: PlaneWaveSettings, **more: Any) -> dict[str, Any]:
    return {
        "series": request.to_dict(),
        "settings": asdict(settings),
        "pacbed_version": __version__,
        "physics_version": PHYSICS_VERSION,
        **more,
    }


def _unused(values: np.ndarray) -> float:
    """Return a number that an array does not hold: a chunk of that alone would not be written."""
    return np.nan if values.dtype.kind == "f" else -1


def _write(path: Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> None:
    with zip_writer(path) as folder:
        group = zarr.create_group(LocalStore(folder), attributes=plain(dict(attributes)))
        for name, values in arrays.items():
            layered = name in ("beams", "diffuse")
            chunks = (1, *values.shape[1:]) if layered else values.shape
            array = group.create_array(
                name,
                shape=values.shape,
                chunks=chunks,
                dtype=values.dtype,
                fill_value=_unused(values),
                compressors=_COMPRESSOR,
            )
            for index in range(len(values)) if layered else [slice(None)]:
                array[index] = values[index]


@threadpool_limits.wrap(limits=1, user_api="blas")
def assemble(path: Path, states: Sequence[Path]) -> None:
    """Fit the polynomials of a series to its strain states and write it.

    Layer by layer, so that little memory is needed.

    Parameters
    ----------
    path
        The series, by convention ``*.zarr.zip``. It appears whole or not at all.
    states
        Stores of all states, in order.

    Raises
    ------
    StoreError
        If a state is missing or belongs to another series.
    """
    with open_store(states[0]) as first, reading(states[0]):
        attributes = {name: first.attrs[name] for name in _OF_A_SERIES}
        request = SeriesRequest.from_dict(first.attrs["series"])  # type: ignore[arg-type]
        settings: dict[str, Any] = dict(first.attrs["settings"])  # type: ignore[arg-type]
        kept = [n for n in first.array_keys() if n not in _OF_A_STATE]
        common = {name: np.asarray(first[name]) for name in kept}
        number = request.layers
    _check_states(states, request, attributes, common)
    strains = request.strains()
    beam_fit = _Fit.of(request.strain, strains, request.degree)
    diffuse_fit = _Fit.of(request.strain, strains, DIFFUSE_DEGREE)
    errors = np.zeros((number, len(states)))
    attributes = _attributes(request, PlaneWaveSettings(**settings), states=strains.tolist())
    with zip_writer(path) as folder:
        group = zarr.create_group(LocalStore(folder), attributes=plain(attributes))
        for name, values in common.items():
            array = group.create_array(
                name,
                shape=values.shape,
                chunks=values.shape,
                dtype=values.dtype,
                fill_value=_unused(values),
            )
            array[:] = values
        for layer in range(number):
            beams = _stack(states, "beams", layer)
            coefficients = beam_fit.coefficients(beams)
            errors[layer] = beam_fit.leave_out_errors(beams, coefficients)
            _append(group, "beams", layer, number, coefficients)
            _append(
                group,
                "within_band",
                layer,
                number,
                beam_fit.coefficients(_stack(states, "within_band", layer)),
            )
            if request.motion != "full":
                continue
            diffuse = _stack(states, "diffuse", layer)
            _append(group, "diffuse", layer, number, diffuse_fit.coefficients(diffuse))
            _append(group, "diffuse_noise", layer, number, diffuse_fit.noise(diffuse))
            within = _stack(states, "diffuse_within_band", layer)
            _append(group, "diffuse_within_band", layer, number, diffuse_fit.coefficients(within))
        array = group.create_array(
            "leave_out_error",
            shape=errors.shape,
            chunks=errors.shape,
            dtype="float64",
            fill_value=0,
        )
        array[:] = errors


_OF_A_SERIES = ("series", "settings", "physics_version")
_OF_A_STATE = ("beams", "within_band", "diffuse", "diffuse_within_band")


def _check_states(
    states: Sequence[Path],
    request: SeriesRequest,
    attributes: Mapping[str, Any],
    common: Mapping[str, np.ndarray],
) -> None:
    if len(states) != request.states:
        raise StoreError(f"the series has {request.states} strain states, not {len(states)}")
    for number, path in enumerate(states):
        with open_store(path) as group, reading(path):
            same = all(group.attrs[name] == value for name, value in attributes.items()) and all(
                np.array_equal(np.asarray(group[name]), values) for name, values in common.items()
            )
            if not same or group.attrs["state"] != number:
                raise StoreError(
                    f"{path} is not state {number} of this series: remove it, and it will be made "
                    "again"
                )


def _stack(states: Sequence[Path], name: str, layer: int) -> np.ndarray:
    """Return an array of all states for one layer, shape (states, ...)."""
    found = []
    for path in states:
        with open_store(path) as group, reading(path):
            array = group[name]
            assert isinstance(array, zarr.Array)
            found.append(np.asarray(array[layer]))
    return np.stack(found)


def _append(
    group: zarr.Group, name: str, layer: int, layers: int, coefficients: np.ndarray
) -> None:
    if layer == 0:
        shape = (layers, *coefficients.shape)
        group.create_array(
            name,
            shape=shape,
            chunks=(1, *shape[1:]),
            dtype="float32",
            fill_value=np.nan,
            compressors=_COMPRESSOR,
        )
    array = group[name]
    assert isinstance(array, zarr.Array)
    array[layer] = _rounded(coefficients)


def _rounded(values: np.ndarray) -> np.ndarray:
    """Round single precision to 14 binary digits, 6e-5, so that it can be compressed."""
    dropped = 23 - 14
    bits = np.asarray(values, np.float32).view(np.int32) + (1 << (dropped - 1))
    return np.asarray((bits & ~((1 << dropped) - 1)).view(np.float32))


@dataclass(frozen=True)
class _Fit:
    """Least squares of polynomials of strain.

    Parameters
    ----------
    design
        Monomials of the states, shape (states, terms).
    solution
        Its pseudo-inverse, shape (terms, states).
    """

    design: np.ndarray
    solution: np.ndarray

    @classmethod
    def of(cls, strain: StrainRange, strains: np.ndarray, degree: int) -> _Fit:
        design = strain.terms(strains, degree)
        return cls(design, np.linalg.pinv(design))

    def coefficients(self, values: np.ndarray) -> np.ndarray:
        """Return coefficients, shape (..., terms), of values, shape (states, ...)."""
        return np.ascontiguousarray(
            np.moveaxis(np.tensordot(self.solution.astype(np.float32), values, 1), 0, -1)
        )

    def noise(self, values: np.ndarray) -> np.ndarray:
        """Return half the difference of the coefficients of two halves of the states.

        As large as what the noise of independent states leaves in the coefficients of all.
        """
        residual = values - np.moveaxis(
            self.coefficients(values) @ self.design.T.astype(np.float32), -1, 0
        )
        states, terms = self.design.shape
        # The residuals of a fit are smaller than the noise.
        signs = np.where(np.arange(states) % 2, -1, 1) * math.sqrt(states / (states - terms))
        return self.coefficients(residual * signs.reshape(-1, *[1] * (values.ndim - 1)))

    def leave_out_errors(self, values: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        """Return how far each state lies from the polynomials of all others, relative L1."""
        residual = np.abs(values - self.design.astype(np.float32) @ coefficients.T)
        leverage = np.einsum("st,ts->s", self.design, self.solution)
        apart = residual.sum(axis=1, dtype=float) / (1 - leverage)
        return np.asarray(apart / values.sum(axis=1, dtype=float))


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
                self._knots = [np.asarray(group[f"knots_{i}"]) for i in range(2)]
                first, second = (np.asarray(group[f"incident_knots_{i}"]) for i in range(2))
                self._incident_splines = IncidentSplines((first, second))
        self.wave, self.beam, self.hk = found["wave"], found["beam"], found["hk"]
        x, y = found["x_mrad"], found["y_mrad"]
        self.incident = IncidentGrid(x, y, np.ones((len(y), len(x)), bool))
        self.leave_out_error = found["leave_out_error"]
        """Relative L1 error of the beams of each state, by all others, (layers, states)."""
        self._coefficients = lru_cache(maxsize=20)(self._read)

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
        self._check_layers(layers)
        at = np.asarray(strain, float)
        terms = self._terms(at, self.request.degree, False)[0]
        waves = len(self.incident.x_mrad) * len(self.incident.y_mrad)
        beams = np.zeros((len(layers), waves, len(self.hk)), np.float32)
        within = np.zeros((len(layers), waves))
        for row, layer in enumerate(layers):
            read = self._coefficients(layer)
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
        read = [self._coefficients(layer) for layer in layers]
        coefficients, noise, within = (
            np.stack([one[name] @ terms for one in read])
            for name in ("diffuse", "diffuse_noise", "diffuse_within_band")
        )
        axes = [SplineAxis(round(knots[-1] - 0.5), knots) for knots in self._knots]
        return DiffuseScattering(
            np.moveaxis(coefficients, 0, 1),
            np.moveaxis(noise, 0, 1),
            (axes[0], axes[1]),
            self._cell_A(strain) * np.array(self.settings.supercell)[:, None],
            wavelength_A(self.request.energy_keV),
            self._incident_splines,
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
        self._check_cone(aperture, tilt_mrad)
        self._check_reach(max(detector.field_of_view_mrad) / 2, tilt_mrad)
        return self.library(strain, layers).synthesise(aperture, tilt_mrad, detector)

    def _check_strain(self, strain: Sequence[float]) -> None:
        if not self.request.strain.contains(np.asarray(strain, float)):
            low, high = self.request.strain.stretch
            raise RequestError(
                f"strain {', '.join(f'{100 * e:.3g}' for e in strain)} % (xx, yy, xy) is beyond "
                f"the series, which holds principal stretches from {low:g} to {high:g}"
            )

    def _check_layers(self, layers: Sequence[int]) -> None:
        for layer in layers:
            if not 1 <= layer <= self.request.layers:
                raise RequestError(
                    f"the series holds 1 to {self.request.layers} layers, not {layer}"
                )

    def _check_cone(self, aperture: Aperture, tilt_mrad: tuple[float, float]) -> None:
        tilt = math.hypot(*tilt_mrad)
        reach = self.request.semiangle_mrad + self.request.tilt_mrad
        if aperture.outer_mrad + tilt > reach * (1 + 1e-6):
            raise RequestError(
                f"a semi-angle of {aperture.semiangle_mrad:g} mrad at a tilt of {tilt:.4g} mrad is "
                f"beyond the series, which holds waves up to {reach:g} mrad from the axis"
            )

    def _check_reach(self, largest_mrad: float, tilt_mrad: tuple[float, float]) -> None:
        tilt = max(map(abs, tilt_mrad))
        known = self.request.field_of_view_mrad / 2 + self.request.tilt_mrad
        if largest_mrad + tilt > known * (1 + 1e-6):
            raise RequestError(
                f"pixels up to {largest_mrad:.4g} mrad from the axis at a tilt of {tilt:.4g} mrad "
                f"are beyond the series, which reaches {known - tilt:.4g} mrad"
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
        self._check_layers([layers])
        self._check_cone(aperture, tilt_mrad)
        self._check_reach(np.abs(camera.directions_mrad()).max(), tilt_mrad)
        channels = Channels(camera.pixels, derivatives)
        read, at = self._coefficients(layers), np.asarray(strain, float)
        gradient = deformation_of(at).gradient
        turns = _UNIT_STRAINS @ np.linalg.inv(gradient)
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
        derivatives = hasattr(channels, "by_strain")
        diffuse = self._diffuse_at(strain, [layers])
        assert diffuse is not None
        read = self._coefficients(layers)["diffuse"]
        axis = np.array(crystal_axis_mrad(tilt_mrad))
        weights = self._incident_splines.weights(aperture, tilt_mrad).astype(np.float32)
        terms = self._terms(strain, DIFFUSE_DEGREE, derivatives)
        averaged = np.moveaxis(np.tensordot(weights, read, 1) @ terms.T, -1, 0)
        values, by_angle = background(diffuse, averaged, axis, camera)
        channels.value += values[0]
        if not derivatives:
            return
        angles = camera.directions_mrad() + axis[:, None, None]
        channels.by_angle += by_angle
        for i, turn in enumerate(turns):
            moved = np.einsum("iyx,ij,jyx->yx", angles, turn, by_angle)
            channels.by_strain[i] += values[1 + i] + moved + np.trace(turn) * values[0]
