"""Named arrays in one file (NumPy's ``npz``): the state of a calculation that may be killed."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from pacbed.storage.files import appearing_whole
from pacbed.storage.zipped import open_archive, reading


def write_arrays(path: Path, **arrays: Any) -> None:
    """Write named arrays, or what NumPy makes arrays of; the file appears whole or not at all.

    Raises
    ------
    PacbedError
        If it cannot be written.
    """
    with appearing_whole(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of a file by name.

    Raises
    ------
    MissingStoreError
        If there is no such file.
    DamagedStoreError
        If it is damaged.
    StoreError
        If it cannot be read for another reason, which may pass.
    """
    with reading(path):
        with open_archive(path) as archive:
            # Before NumPy believes what the members say of their size.
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
