"""The pattern store: one Zarr v3 file per draw, one chunk per layer.

A store is a zip archive written under a temporary name and renamed, so a store that exists under
its own name was complete when it was written. Reading checks that it still is: Zarr would take a
missing chunk for zeros.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.errors import ZarrUserWarning
from zarr.storage import LocalStore

from pacbed import __version__
from pacbed.engines.request import PHYSICS_VERSION, SimulationRequest, SimulationResult
from pacbed.exceptions import DamagedStoreError, MissingStoreError, StoreError
from pacbed.storage.zipped import open_store, plain, reading, zip_writer


@dataclass(frozen=True)
class PatternStore:
    """Patterns of one simulation, as read from a file.

    Parameters
    ----------
    patterns
        Shape (layers read, ny, nx), float32, fraction of the incident electrons per pixel.
    layers
        Number of layers traversed for each pattern.
    kx_mrad, ky_mrad
        Pixel centres, ascending, in mrad.
    attributes
        Request and provenance.
    """

    patterns: np.ndarray
    layers: np.ndarray
    kx_mrad: np.ndarray
    ky_mrad: np.ndarray
    attributes: Mapping[str, Any]

    @property
    def pixel_mrad(self) -> tuple[float, float]:
        """Pixel size (x, y) in mrad."""
        x, y = (float((k[-1] - k[0]) / (len(k) - 1)) for k in (self.kx_mrad, self.ky_mrad))
        return x, y


def write_patterns(
    path: Path,
    request: SimulationRequest,
    result: SimulationResult,
    extra: Mapping[str, Any] | None = None,
    draw: int | None = None,
) -> None:
    """Write the patterns of a simulation.

    Parameters
    ----------
    path
        The store, by convention ``*.zarr.zip``. It appears whole or not at all.
    request, result
        What was asked for and what was computed.
    extra
        Further provenance, such as the git revision of the workflow.
    draw
        Number of the draw of a study that was simulated; none for other states.

    Raises
    ------
    StoreError
        If the file cannot be written, for example because the disk is full, or if the patterns
        are not finite.
    """
    if not np.isfinite(result.patterns).all():
        raise StoreError(f"{path} was not written: the patterns contain values that are not finite")
    detector = request.detector
    attributes = {
        "title": "position-averaged convergent-beam electron diffraction patterns",
        "request": request.to_dict(),
        "pacbed_version": __version__,
        "physics_version": PHYSICS_VERSION,
        **({} if draw is None else {"draw": draw}),
        **result.provenance,
        **(extra or {}),
    }
    with zip_writer(path) as folder:
        group = zarr.create_group(LocalStore(folder), attributes=plain(attributes))
        layers, ny, nx = result.patterns.shape
        patterns = group.create_array(
            "patterns",
            shape=result.patterns.shape,
            chunks=(1, ny, nx),
            dtype="float32",
            fill_value=np.nan,
            dimension_names=("layer", "ky_mrad", "kx_mrad"),
            attributes={"units": "1", "long_name": "fraction of the incident electrons per pixel"},
        )
        # One by one: after an error, no other write is under way in the folder.
        for index, pattern in enumerate(result.patterns):
            patterns[index] = pattern
        for name, values, units in (
            ("layer", np.arange(1, layers + 1), "1"),
            ("ky_mrad", detector.ky_mrad, "mrad"),
            ("kx_mrad", detector.kx_mrad, "mrad"),
        ):
            group.create_array(
                name, data=values, dimension_names=(name,), attributes={"units": units}
            )
        with warnings.catch_warnings():
            # xarray asks for consolidated metadata, which Zarr v3 has but does not specify yet.
            warnings.simplefilter("ignore", ZarrUserWarning)
            zarr.consolidate_metadata(group.store)


def holds(
    path: Path,
    request: SimulationRequest,
    engine: str,
    settings: Mapping[str, Any],
    draw: int | None = None,
) -> bool:
    """Return whether a store exists, is whole, and is what an engine makes of a request.

    Raises
    ------
    StoreError
        If the store cannot be read now, but perhaps at another time.
    """
    try:
        with open_store(path) as group:
            found = dict(group.attrs)
    except (MissingStoreError, DamagedStoreError):
        return False
    asked = {
        "request": request.to_dict(),
        "engine": engine,
        "settings": settings,
        "physics_version": PHYSICS_VERSION,
        "draw": draw,
    }
    return all(found.get(key) == value for key, value in plain(asked).items())


def read_patterns(path: Path, layers: Iterable[int] | None = None) -> PatternStore:
    """Read a store, or some layers of it.

    Parameters
    ----------
    layers
        Numbers of layers traversed whose patterns are wanted; all if not given.

    Raises
    ------
    StoreError
        If the store is missing, of another kind, or lacks a layer.
    DamagedStoreError
        If it is damaged or incomplete.
    """
    with open_store(path) as group, reading(path):
        available = np.asarray(group["layer"])
        wanted = available if layers is None else np.asarray(list(layers), int)
        missing = sorted(set(wanted.tolist()) - set(available.tolist()))
        if missing:
            raise StoreError(f"{path} has layers {available[0]} to {available[-1]}, not {missing}")
        array = group["patterns"]
        assert isinstance(array, zarr.Array)
        patterns = np.empty((len(wanted), *array.shape[1:]), np.float32)
        for row, index in enumerate(np.searchsorted(available, wanted)):
            patterns[row] = array[int(index)]
        return PatternStore(
            patterns=patterns,
            layers=wanted,
            kx_mrad=np.asarray(group["kx_mrad"]),
            ky_mrad=np.asarray(group["ky_mrad"]),
            attributes=dict(group.attrs),
        )
