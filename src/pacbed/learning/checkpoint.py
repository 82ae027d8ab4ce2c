"""What is kept of a training that may be killed: its state after an epoch.

Hidden files next to the model hold the state (``.unfinished``) and the one before it
(``.unfinished.previous``). A file appears whole or not at all: whenever the process is killed, a
whole state is there.
"""

from __future__ import annotations

import glob
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pacbed import __version__
from pacbed.exceptions import DamagedStoreError, MissingStoreError
from pacbed.storage.arrays import read_arrays, write_arrays

PAUSE = 20
"""A state is written when so many times as long has passed as writing the last one took."""

State = Mapping[str, Sequence[np.ndarray]]
"""Lists of arrays by name; a list that is empty is not kept."""


class TrainingCheckpoint:
    """The files that keep the state of a training.

    A file whose fingerprint, of all that the state depends on, is another is not used.
    """

    def __init__(self, path: Path, fingerprint: str, log: Callable[[str], None]) -> None:
        self.path, self.fingerprint, self.log = path, fingerprint, log
        self.previous = path.with_name(f"{path.name}.previous")
        self._due = -float("inf")

    def load(self) -> State | None:
        """Return the newest state that is whole and of this training."""
        for path in (self.path, self.previous):
            try:
                arrays = read_arrays(path)
            except MissingStoreError:
                continue
            except DamagedStoreError:
                self.log(f"{path} is damaged: it is not used")
                path.unlink()  # or it would take the place of the good one before
                continue
            if str(arrays.pop("fingerprint", "")) == self.fingerprint:
                state: dict[str, list[np.ndarray]] = {}
                for name, array in arrays.items():  # in the order in which they were written
                    state.setdefault(name.rpartition("_")[0], []).append(array)
                return state
            self.log(f"{path} is of other data, settings or another version: it is not used")
        return None

    @property
    def is_due(self) -> bool:
        """Whether long enough has passed for another state to be written."""
        return time.monotonic() >= self._due

    def save(self, state: State) -> None:
        """Write a state; the last one becomes the one before."""
        begun = time.monotonic()
        if self.path.exists():
            self.path.replace(self.previous)
        arrays = {f"{key}_{n}": one for key, group in state.items() for n, one in enumerate(group)}
        write_arrays(self.path, fingerprint=self.fingerprint, **arrays)
        ended = time.monotonic()
        self._due = ended + PAUSE * (ended - begun)

    def remove(self) -> None:
        """Remove all files, and what a killed process was writing."""
        for file in self.path.parent.glob(f"*{glob.escape(self.path.name)}*"):
            file.unlink(missing_ok=True)


def fingerprint(described: Mapping[str, Any], arrays: Iterable[np.ndarray]) -> str:
    """Return a digest of what determines a training: settings, provenance and examples."""
    digest = hashlib.sha256()
    digest.update(json.dumps([__version__, described], sort_keys=True, default=str).encode())
    for array in arrays:
        digest.update(f"{array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
