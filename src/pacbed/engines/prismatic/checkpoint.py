"""What is kept of a calculation that may be killed: the sums over its finished configurations."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pacbed.exceptions import StoreError


@dataclass
class Checkpoint:
    """Sums over finished configurations.

    Parameters
    ----------
    path
        File that keeps them; nothing is kept without one.
    fingerprint
        Of the request and the settings that they belong to.
    sums
        Patterns of even and odd configurations, shape (2, layers, ny, nx), float64.
    within_band
        Electrons within the band limit, shape (layers,), float64.
    configurations
        Number of finished configurations.
    seconds
        Time that they took.
    peak_memory_MB
        Largest memory of a process that computed them.
    """

    path: Path | None
    fingerprint: str
    sums: np.ndarray
    within_band: np.ndarray
    configurations: int = 0
    seconds: float = 0.0
    peak_memory_MB: float = 0.0

    @classmethod
    def load(
        cls,
        path: Path | None,
        fingerprint: str,
        shape: tuple[int, ...],
        log: Callable[[str], None] = lambda line: None,
    ) -> Checkpoint:
        """Return what was kept or, if that is nothing, damaged or of something else, zeros.

        Raises
        ------
        StoreError
            If nothing could be kept there.
        """
        empty = cls(path, fingerprint, np.zeros(shape), np.zeros(shape[1]))
        if path is None:
            return empty
        _check_writable(path.parent)
        if not path.exists():
            return empty
        damaged = OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile
        with suppress(*damaged), np.load(path, allow_pickle=False) as file:
            if str(file["fingerprint"]) == fingerprint and file["sums"].shape == shape:
                return cls(
                    path,
                    fingerprint,
                    file["sums"],
                    file["within_band"],
                    int(file["configurations"]),
                    float(file["seconds"]),
                    float(file["peak_memory_MB"]),
                )
        log(f"{path} is damaged, or of another request or version: all is computed anew")
        return empty

    def save(self) -> None:
        """Write the file under a temporary name and rename it.

        Raises
        ------
        StoreError
            If it cannot be written.
        """
        if self.path is None:
            return
        temporary = self.path.with_name(f"{self.path.name}.new")
        try:
            with open(temporary, "wb") as file:
                np.savez(
                    file,
                    fingerprint=self.fingerprint,
                    sums=self.sums,
                    within_band=self.within_band,
                    configurations=self.configurations,
                    seconds=self.seconds,
                    peak_memory_MB=self.peak_memory_MB,
                )
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError as error:
            raise StoreError(f"cannot write {self.path}: {error.strerror}") from error
        finally:
            temporary.unlink(missing_ok=True)


def _check_writable(folder: Path) -> None:
    """Find out before hours are spent, not after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise StoreError(f"cannot write into {folder}: permission denied")
