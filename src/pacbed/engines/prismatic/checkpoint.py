"""What is kept of a calculation that may be killed: the sums over its finished configurations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pacbed.exceptions import DamagedStoreError, MissingStoreError
from pacbed.storage.arrays import read_arrays, write_arrays
from pacbed.storage.files import check_writable


@dataclass
class Checkpoint:
    """Sums over finished configurations; nothing is kept without a path.

    `sums` are the patterns of even and odd configurations, shape (2, layers, ny, nx), `within_band`
    the electrons within the band limit, shape (layers,). The fingerprint is that of the request and
    the settings to which they belong.
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
        PacbedError
            If nothing could be kept there, or what was kept cannot be read now.
        """
        empty = cls(path, fingerprint, np.zeros(shape), np.zeros(shape[1]))
        if path is None:
            return empty
        check_writable(path)
        try:
            kept = read_arrays(path)
            if str(kept["fingerprint"]) == fingerprint:
                numbers = ("configurations", "seconds", "peak_memory_MB")
                sums = kept["sums"], kept["within_band"]
                return cls(path, fingerprint, *sums, *(kept[name].item() for name in numbers))
        except MissingStoreError:
            return empty
        except (DamagedStoreError, KeyError):  # or the table of contents has lost an array
            log(f"{path} is damaged: all is computed anew")
        else:
            log(f"{path} is of another request or version: all is computed anew")
        return empty

    def save(self) -> None:
        """Write the file; it appears whole or not at all.

        Raises
        ------
        PacbedError
            If it cannot be written.
        """
        if self.path is not None:
            write_arrays(self.path, **{k: v for k, v in vars(self).items() if k != "path"})
