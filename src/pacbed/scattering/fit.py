"""From the strain states of a scattering series to its polynomials, file by file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from threadpoolctl import threadpool_limits
from zarr.codecs import BloscCodec
from zarr.storage import LocalStore

from pacbed import __version__
from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.engines.planewave.waves import IncidentGrid
from pacbed.engines.request import PHYSICS_VERSION, Progress
from pacbed.exceptions import DamagedStoreError, MissingStoreError, StoreError
from pacbed.scattering.request import SeriesRequest
from pacbed.scattering.strain import StrainRange, deformation_of
from pacbed.specimen.microscope import wavelength_A
from pacbed.storage.zipped import open_store, plain, reading, zip_writer

DIFFUSE_DEGREE = 1
"""Degree of the polynomials of the diffuse scattering."""

# Beams are kept this many steps of the incident grid beyond the field of view, where the splines
# over incident directions no longer feel their end.
_MARGIN_STEPS = 3
# Bits of the same weight next to each other: sign and exponent of neighbours are alike.
_COMPRESSOR = BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")


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


def _write(path: Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> None:
    with zip_writer(path) as folder:
        group = zarr.create_group(LocalStore(folder), attributes=plain(dict(attributes)))
        for name, values in arrays.items():
            if name in ("beams", "diffuse"):
                for layer, of_layer in enumerate(values):
                    _append(group, name, layer, len(values), of_layer)
            else:
                _add(group, name, values)


def _add(group: zarr.Group, name: str, values: np.ndarray) -> None:
    """Write an array as one chunk."""
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=values.shape,
        dtype=values.dtype,
        # An array does not hold this: a chunk of it alone would not be written.
        fill_value=np.nan if values.dtype.kind == "f" else -1,
        compressors=_COMPRESSOR,
    )
    array[:] = values


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
            _add(group, name, values)

        def keep(name: str, coefficients: np.ndarray) -> None:
            _append(group, name, layer, number, _rounded(coefficients))

        for layer in range(number):
            beams = _stack(states, "beams", layer)
            coefficients = beam_fit.coefficients(beams)
            errors[layer] = beam_fit.leave_out_errors(beams, coefficients)
            keep("beams", coefficients)
            keep("within_band", beam_fit.coefficients(_stack(states, "within_band", layer)))
            if request.motion != "full":
                continue
            diffuse = _stack(states, "diffuse", layer)
            keep("diffuse", diffuse_fit.coefficients(diffuse))
            keep("diffuse_noise", diffuse_fit.noise(diffuse))
            within = _stack(states, "diffuse_within_band", layer)
            keep("diffuse_within_band", diffuse_fit.coefficients(within))
        _add(group, "leave_out_error", errors)


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


def _append(group: zarr.Group, name: str, layer: int, layers: int, values: np.ndarray) -> None:
    """Write one layer of an array, a chunk of its own."""
    if layer == 0:
        shape = (layers, *values.shape)
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
    array[layer] = values


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

    @property
    def leverage(self) -> np.ndarray:
        """How far the fit at each state follows that state alone, shape (states,)."""
        return np.einsum("st,ts->s", self.design, self.solution)

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
        # A fit follows the noise of each state by its leverage.
        signs = np.where(np.arange(len(values)) % 2, -1, 1) / np.sqrt(1 - self.leverage)
        return self.coefficients(residual * signs.reshape(-1, *[1] * (values.ndim - 1)))

    def leave_out_errors(self, values: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        """Return how far each state lies from the polynomials of all others, relative L1."""
        residual = np.abs(values - self.design.astype(np.float32) @ coefficients.T)
        apart = residual.sum(axis=1, dtype=float) / (1 - self.leverage)
        return np.asarray(apart / values.sum(axis=1, dtype=float))
