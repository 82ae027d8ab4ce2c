"""Zipped Zarr stores: written whole or not at all, and checked for completeness when opened.

Zarr would take a missing chunk for zeros.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import ZipStore

from pacbed.exceptions import DamagedStoreError, MissingStoreError, StoreError

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_ENCRYPTED_OR_PATCHED = 0x61
_ZIP_BEGINS = b"PK\3\4"


def checkpoint_of(path: Path) -> Path:
    """Return the file in which the unfinished simulation of a store is kept."""
    return path.with_name(f".{path.name}.unfinished")


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
        prefix = f".{path.name}.writing-"
        for stale in path.parent.glob(f"{glob.escape(prefix)}*"):  # left by a job that was killed
            shutil.rmtree(stale, ignore_errors=True)
        with tempfile.TemporaryDirectory(
            dir=path.parent, prefix=prefix, ignore_cleanup_errors=True
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
    MissingStoreError
        If the store is missing.
    DamagedStoreError
        If it is damaged or incomplete.
    StoreError
        If it never was a store, or cannot be read for another reason: see :func:`reading`.
    """
    path = Path(path)
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
    """Turn what goes wrong in reading a zip archive into an error that names it.

    Only an archive that is not as it was written is damaged, and may be replaced. What the file
    system refuses may pass; what Zarr or NumPy cannot read, although its checksum is right, is of
    another kind or version.

    Raises
    ------
    MissingStoreError
        If there is no such file.
    DamagedStoreError
        If the archive is broken or a checksum is wrong.
    StoreError
        If it cannot be read for any other reason.
    """
    try:
        yield
    except (zipfile.BadZipFile, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DamagedStoreError(path, str(error)) from error
    except FileNotFoundError as error:
        raise MissingStoreError(f"{path} does not exist") from error
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    except KeyError as error:
        raise StoreError(f"{path} is a store of another kind: it has no {error}") from error
    except (ValueError, RuntimeError, TypeError, AttributeError, ArithmeticError) as error:
        raise StoreError(f"{path} is of another kind or version: {error}") from error


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive and check what its table of contents says of the members.

    Otherwise a damaged table shows as an error of the file system, or as a feature of zip archives
    that does not exist.

    Raises
    ------
    zipfile.BadZipFile
        If a member is said to lie outside of the file, or to be packed in another way than ours.
    """
    try:
        archive = zipfile.ZipFile(path)
    except NotImplementedError as error:
        raise zipfile.BadZipFile(str(error)) from error
    with archive:
        for member in archive.infolist():
            if (
                not 0 <= member.header_offset < archive.start_dir
                or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
                or member.flag_bits & _ENCRYPTED_OR_PATCHED
            ):
                raise zipfile.BadZipFile(f"impossible entry for {member.filename!r}")
        yield archive


def _check_complete(path: Path) -> None:
    with open(path, "rb") as file:
        begins = file.read(len(_ZIP_BEGINS))
    # A store that was cut short begins as others do, or is empty, or zeros after a crash.
    cut = _ZIP_BEGINS.startswith(begins) or not begins.strip(b"\0")
    if not cut and not zipfile.is_zipfile(path):
        raise StoreError(
            f"{path} is not a store, a zip archive of Zarr arrays (.zarr.zip) as pacbed writes them"
        )
    with open_archive(path) as archive:
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
