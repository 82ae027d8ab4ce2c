"""The pattern store: one Zarr v3 file per draw, one chunk per layer.

A store is a zip archive written under a temporary name and renamed, so a store that exists under
its own name was complete when it was written. Reading checks that it still is: Zarr would take a
missing chunk for zeros.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.errors import ZarrUserWarning
from zarr.storage import LocalStore, ZipStore

from pacbed import __version__
from pacbed.engines.base import SimulationRequest, SimulationResult
from pacbed.errors import DamagedStoreError, StoreError

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


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
            attributes={
                "units": "1",
                "long_name": "fraction of the incident electrons per pixel",
            },
        )
        # One by one: after an error, no other write is under way in the folder.
        for index, pattern in enumerate(result.patterns):
            patterns[index] = pattern
        for name, values, units in (
            ("layer", np.arange(1, layers + 1), "1"),
            ("ky_mrad", detector.ky_mrad, "mrad"),
            ("kx_mrad", detector.kx_mrad, "mrad"),
        ):
            coordinate = group.create_array(
                name,
                shape=values.shape,
                chunks=values.shape,
                dtype=values.dtype,
                dimension_names=(name,),
                attributes={"units": units},
            )
            coordinate[:] = values
        with warnings.catch_warnings():
            # xarray asks for consolidated metadata, which Zarr v3 has but does not specify yet.
            warnings.simplefilter("ignore", ZarrUserWarning)
            zarr.consolidate_metadata(group.store)


def holds(path: Path, request: SimulationRequest, engine: str, settings: Mapping[str, Any]) -> bool:
    """Return whether a store exists, is whole, and is what an engine makes of a request."""
    try:
        with open_store(path) as group:
            found = dict(group.attrs)
    except StoreError:
        return False
    asked = {"request": request.to_dict(), "engine": engine, "settings": settings}
    return all(found.get(key) == value for key, value in plain(asked).items())


def checkpoint_of(path: Path) -> Path:
    """Return the file in which the unfinished simulation of a store is kept."""
    return path.with_name(f".{path.name}.unfinished")


def read_patterns(path: Path, layers: Iterable[int] | None = None) -> PatternStore:
    """Read a store, or some layers of it.

    Parameters
    ----------
    path
        The store.
    layers
        Numbers of layers traversed whose patterns are wanted; all if not given.

    Raises
    ------
    StoreError
        If the store is missing, of another kind, or lacks a layer.
    DamagedStoreError
        If it is damaged or incomplete.
    """
    with open_store(path) as group:
        with reading(path):
            available = np.asarray(group["layer"])
        wanted = available if layers is None else np.asarray(list(layers), int)
        missing = sorted(set(wanted.tolist()) - set(available.tolist()))
        if missing:
            raise StoreError(f"{path} has layers {available[0]} to {available[-1]}, not {missing}")
        with reading(path):
            array = group["patterns"]
            assert isinstance(array, zarr.Array)
            index = np.searchsorted(available, wanted)
            patterns = np.empty((len(index), *array.shape[1:]), np.float32)
            for row, number in enumerate(index):
                patterns[row] = array[int(number)]
            return PatternStore(
                patterns=patterns,
                layers=wanted,
                kx_mrad=np.asarray(group["kx_mrad"]),
                ky_mrad=np.asarray(group["ky_mrad"]),
                attributes=dict(group.attrs),
            )


@contextmanager
def zip_writer(path: Path) -> Iterator[Path]:
    """Provide a folder whose contents become the zip archive `path` when the block ends.

    The archive is uncompressed (Zarr has compressed the chunks), its entries sorted and without
    time stamps, so that equal contents make equal bytes. Whatever goes wrong, nothing is left
    under the final name.

    Raises
    ------
    StoreError
        If something cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for stale in path.parent.glob(f".{path.name}.*"):  # left by a job that was killed
            shutil.rmtree(stale, ignore_errors=True)
        with tempfile.TemporaryDirectory(
            dir=path.parent, prefix=f".{path.name}.", ignore_cleanup_errors=True
        ) as folder:
            contents = Path(folder) / "contents"
            contents.mkdir()
            yield contents
            archive = Path(folder) / "archive"
            _pack(contents, archive)
            os.replace(archive, path)
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}. Nothing was left under that name; "
            "free some space or choose another folder, and run again"
        ) from error


def _pack(folder: Path, archive: Path) -> None:
    with open(archive, "wb") as raw:
        with zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as target:
            for file in sorted(p for p in folder.rglob("*") if p.is_file()):
                name = file.relative_to(folder).as_posix()
                info = zipfile.ZipInfo(name, date_time=_ZIP_EPOCH)
                info.external_attr = 0o644 << 16
                info.file_size = file.stat().st_size
                with target.open(info, "w") as entry, open(file, "rb") as source:
                    while block := source.read(1 << 24):
                        entry.write(block)
                file.unlink()  # a large dataset need not fit on the disk twice
        raw.flush()
        os.fsync(raw.fileno())


@contextmanager
def open_store(path: Path) -> Iterator[zarr.Group]:
    """Open a zipped Zarr store for reading, after checking that no chunk is missing.

    Raises
    ------
    StoreError
        If the store is missing.
    DamagedStoreError
        If it is damaged or incomplete.
    """
    path = Path(path)
    if not path.is_file():
        raise StoreError(f"{path} {'is not a file' if path.exists() else 'does not exist'}")
    with reading(path):
        _check_complete(path)
        store = ZipStore(path, mode="r")
        group = zarr.open_group(store, mode="r")
    try:
        yield group
    finally:
        store.close()


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong in reading a store into an error that names it.

    Raises
    ------
    StoreError
        If the file system fails, or an array is missing because the store is of another kind.
    DamagedStoreError
        If the contents cannot be read.
    """
    try:
        yield
    except KeyError as error:
        raise StoreError(f"{path} is a store of another kind: it has no {error}") from error
    except OSError as error:
        if error.errno in (None, errno.EINVAL):  # an impossible offset in a damaged archive
            raise DamagedStoreError(path, str(error)) from error
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    except (zipfile.BadZipFile, EOFError, ValueError, RuntimeError) as error:
        # A damaged archive shows as any of these: as a wrong checksum, as a feature of zip files
        # that does not exist, as an offset before the beginning of the file.
        raise DamagedStoreError(path, str(error)) from error


def _check_complete(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        if "zarr.json" not in names:
            raise DamagedStoreError(path, "no zarr.json")
        root = json.loads(archive.read("zarr.json"))
        for member in (root.get("consolidated_metadata") or {}).get("metadata", {}):
            if f"{member}/zarr.json" not in names:
                raise DamagedStoreError(path, f"{member}/zarr.json is missing")
        for name in sorted(n for n in names if n.endswith("/zarr.json")):
            metadata = json.loads(archive.read(name))
            if metadata.get("node_type") != "array":
                continue
            prefix = name.removesuffix("zarr.json")
            shape = metadata["shape"]
            chunks = metadata["chunk_grid"]["configuration"]["chunk_shape"]
            counts = [-(-s // c) for s, c in zip(shape, chunks, strict=True)]
            for index in np.ndindex(*counts):
                chunk = f"{prefix}c/{'/'.join(map(str, index))}"
                if chunk not in names:
                    raise DamagedStoreError(path, f"chunk {chunk} is missing")


def plain(value: Any) -> Any:
    """Turn tuples into lists, as JSON will, so that what is read equals what was written."""
    return json.loads(json.dumps(value))
