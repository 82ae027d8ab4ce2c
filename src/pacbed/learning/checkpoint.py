"""What is kept of a training that may be killed: where it stood after an epoch, or a batch.

Beside the product lie, hidden, the state (``.unfinished``), the one before it (``….previous``), and
the best weights that these refer to (``….best-12``, of epoch 12). Each file is written under a
temporary name and renamed, the weights before the state that needs them, and what is no longer
needed goes last: whenever the process is killed, a state and its weights are there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pacbed import __version__
from pacbed.exceptions import StoreError

PAUSE = 20
"""A state is written when so many times as long has passed as writing the last one took."""


@dataclass(frozen=True)
class TrainingState:
    """Where a training stands.

    Parameters
    ----------
    epoch
        Number of finished epochs.
    batch
        Number of batches done of the next one; all of them if only its validation is missing.
    variables
        Of the network, the optimizer and the mean loss of the epoch.
    losses
        Loss and validation loss of the finished epochs, shape (epochs, 2), float64.
    best
        Variables of the network after the epoch with the lowest validation loss; none before the
        first epoch is finished.
    average
        Mean variables of the network over the last epochs; none before these.
    """

    epoch: int
    batch: int
    variables: Sequence[np.ndarray]
    losses: np.ndarray
    best: Sequence[np.ndarray]
    average: Sequence[np.ndarray] = ()


class TrainingCheckpoint:
    """The files in which the state of a training is kept.

    Parameters
    ----------
    path
        Where; nothing is kept without one.
    fingerprint
        Of all that the state depends on.
    log
        Receives what became of files that cannot be used.
    """

    def __init__(
        self,
        path: Path | None,
        fingerprint: str,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.path, self.fingerprint, self.log = path, fingerprint, log
        self._written = -float("inf")
        self._seconds = 0.0

    def load(self) -> TrainingState | None:
        """Return the newest state that can be used; remove what cannot.

        A damaged file must not stay: the next state would take its place, and it that of the good
        one before.

        Raises
        ------
        StoreError
            If a file cannot be read now, but perhaps at another time.
        """
        if self.path is None:
            return None
        refused = 0
        for path in _generations(self.path):
            if not path.exists():
                continue
            try:
                state = self._read(self.path, path)
            except Exception as error:  # there is no end to what a flipped bit may bring about
                if _may_pass(error):
                    raise StoreError(f"cannot read {path}: {error}") from error
                self.log(f"{path} {error if isinstance(error, _ForeignError) else 'is damaged'}")
                path.unlink(missing_ok=True)
                refused += 1
            else:
                if refused:
                    self.log(f"the state before it, {path}, is used instead")
                _remove_needless(self.path)
                return state
        if refused:
            self.log("the training begins anew")
        self.remove()
        return None

    @property
    def is_due(self) -> bool:
        """Whether long enough has passed for another state to be written after an epoch."""
        return self.path is not None and time.monotonic() - self._written >= PAUSE * self._seconds

    def save(self, state: TrainingState) -> None:
        """Write a state; the last one becomes the one before.

        Raises
        ------
        StoreError
            If it cannot be written.
        """
        if self.path is None:
            return
        started = time.monotonic()
        try:
            self._write(self.path, state)
        except OSError as error:
            raise StoreError(f"cannot write {self.path}: {error.strerror or error}") from error
        finally:
            with suppress(OSError):  # of which the user has been told
                _temporary(self.path).unlink(missing_ok=True)
        self._written = time.monotonic()
        self._seconds = self._written - started

    def remove(self) -> None:
        """Remove all files, those under temporary names too."""
        if self.path is not None:
            for file in _files(self.path):
                file.unlink(missing_ok=True)

    def _write(self, path: Path, state: TrainingState) -> None:
        new = _temporary(path)
        if state.epoch:
            best = _best_file(path, state.losses)
            if not best.exists():
                _write_arrays(new, self.fingerprint, state.best)
                new.replace(best)
        _write_arrays(
            new,
            self.fingerprint,
            [*state.variables, *state.average],
            averaged=np.array(len(state.average)),
            epoch=np.array(state.epoch),
            batch=np.array(state.batch),
            losses=state.losses,
        )
        newest, previous = _generations(path)
        if newest.exists():
            newest.replace(previous)
        new.replace(newest)
        _remove_needless(path)

    def _read(self, path: Path, generation: Path) -> TrainingState:
        variables, more = _read_arrays(generation, self.fingerprint)
        best: Sequence[np.ndarray] = ()
        if len(more["losses"]):
            best, _ = _read_arrays(_best_file(path, more["losses"]), self.fingerprint)
        split = len(variables) - int(more["averaged"])
        return TrainingState(
            int(more["epoch"]),
            int(more["batch"]),
            variables[:split],
            more["losses"],
            best,
            variables[split:],
        )


def fingerprint(described: Mapping[str, Any], arrays: Iterable[np.ndarray]) -> str:
    """Return a digest of what determines a training.

    Parameters
    ----------
    described
        Settings and provenance, as JSON can hold them.
    arrays
        Of the examples, what tells them from others.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps([__version__, described], sort_keys=True, default=str).encode())
    for array in arrays:
        digest.update(f"{array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class _ForeignError(Exception):
    pass


def _may_pass(error: Exception) -> bool:
    """Return whether it is not the file's fault that it could not be read."""
    if isinstance(error, OSError):
        # A damaged archive may ask for what is before its beginning; the weights may be missing.
        return error.errno not in (None, errno.EINVAL, errno.ENOENT)
    return isinstance(error, MemoryError)


def _generations(path: Path) -> tuple[Path, Path]:
    return path, path.with_name(f"{path.name}.previous")


def _temporary(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _best_file(path: Path, losses: np.ndarray) -> Path:
    return path.with_name(f"{path.name}.best-{np.argmin(losses[:, 1]) + 1}")


def _files(path: Path) -> Iterator[Path]:
    if path.parent.is_dir():
        for file in list(path.parent.iterdir()):
            if file == path or file.name.startswith(f"{path.name}."):
                yield file


def _remove_needless(path: Path) -> None:
    """Remove temporary files, and best weights to which neither state refers any longer."""
    needed = set(_generations(path))
    for generation in _generations(path):
        # One that cannot be read needs nothing; only the losses are read here.
        with suppress(Exception), np.load(generation, allow_pickle=False) as file:
            if len(file["losses"]):
                needed.add(_best_file(path, file["losses"]))
    for file in _files(path):
        if file not in needed:
            file.unlink(missing_ok=True)


def _write_arrays(
    path: Path, fingerprint: str, variables: Sequence[np.ndarray], **more: np.ndarray
) -> None:
    arrays = {f"variable_{number}": array for number, array in enumerate(variables)}
    arrays |= {"fingerprint": np.array(fingerprint), "count": np.array(len(variables)), **more}
    with open(path, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())


def _read_arrays(path: Path, fingerprint: str) -> tuple[list[np.ndarray], Mapping[str, np.ndarray]]:
    with zipfile.ZipFile(path) as archive:
        # Before NumPy believes what they say of their size.
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(damaged)
    with np.load(path, allow_pickle=False) as file:
        if str(file["fingerprint"]) != fingerprint:
            raise _ForeignError("is of other data, other settings or another version")
        variables = [file[f"variable_{number}"] for number in range(int(file["count"]))]
        more = {
            name: file[name] for name in ("epoch", "batch", "losses", "averaged") if name in file
        }
    return variables, more
