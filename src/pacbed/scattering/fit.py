"""From the strain states of a scattering series to its polynomials, file by file."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from pacbed import __version__
from pacbed.engines.arrays import serial_linear_algebra
from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.engines.request import PHYSICS_VERSION, Progress
from pacbed.exceptions import DamagedStoreError, MissingStoreError, StoreError
from pacbed.scattering.request import SeriesRequest
from pacbed.scattering.state import add_array, append_row, write_scattered
from pacbed.scattering.strain import StrainRange
from pacbed.storage.zipped import open_store, plain, reading, zip_writer

DIFFUSE_DEGREE = 1
"""Degree of the polynomials of the diffuse scattering."""


def write_series(
    path: Path,
    request: SeriesRequest,
    engine: PlaneWaveEngine,
    progress: Progress | None = None,
) -> None:
    """Simulate the strain states of a series, and write what is fitted to them.

    Until it is whole, the states are kept in a hidden folder beside it: another call continues.

    Parameters
    ----------
    path, request, engine
        As of :func:`write_state`, but the file is the series.
    progress
        Called with the number of states done and their total.

    Raises
    ------
    RequestError
        If it cannot be simulated.
    StoreError
        If a file cannot be written.
    """
    folder = path.with_name(f".{path.name}.states")
    states = [folder / f"{number:04d}.zarr.zip" for number in range(request.states)]
    report = progress or (lambda done, total: None)
    for number, state in enumerate(states):
        report(number, len(states))
        if not holds_state(state, request, number, engine.settings):
            write_state(state, request, number, engine)
    report(len(states), len(states))
    assemble(path, states)
    shutil.rmtree(folder, ignore_errors=True)


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
    path, engine, progress
        As of :func:`pacbed.scattering.state.write_scattered`.
    request
        The series.
    state
        Number of the state.

    Raises
    ------
    RequestError
        If it cannot be simulated.
    StoreError
        If the file cannot be written.
    """
    series = request.to_dict()
    write_scattered(path, request.state(state), engine, progress, series=series, state=state)


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


def _attributes(request: SeriesRequest, settings: PlaneWaveSettings, **more: Any) -> dict[str, Any]:
    return {
        "series": request.to_dict(),
        "settings": asdict(settings),
        "pacbed_version": __version__,
        "physics_version": PHYSICS_VERSION,
        **more,
    }


@serial_linear_algebra()
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
            add_array(group, name, values)

        def keep(name: str, coefficients: np.ndarray) -> None:
            append_row(group, name, layer, number, _rounded(coefficients))

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
        add_array(group, "leave_out_error", errors)


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
