"""Locks of the operating system: they end with the process that has them, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from pacbed.exceptions import PacbedError

_PAUSE_s = 0.5
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class LockedError(PacbedError):
    """A lock that another process has.

    Parameters
    ----------
    owner
        Who has it, in words.
    """

    def __init__(self, owner: str) -> None:
        super().__init__(f"{owner} has the lock")
        self.owner = owner


def lock(path: Path) -> TextIO | None:
    """Take a lock.

    Returns
    -------
    file
        Open for reading and writing; the lock ends when it is closed. Its first line says who has
        the lock. None on a file system that knows no locks.

    Raises
    ------
    LockedError
        If another process has it.
    PacbedError
        If the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise PacbedError(f"cannot write {path}: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        owner = file.readline().strip() or "another process"
        file.close()
        if error.errno in _NO_LOCKS:
            return None
        raise LockedError(owner) from error
    return file


def this_process() -> str:
    """Return this process and its machine, in words."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def sign(file: TextIO, *lines: str) -> None:
    """Write into the file of a lock who has it, and further lines."""
    file.seek(0)
    file.truncate()
    file.write("\n".join([this_process(), *lines]) + "\n")
    file.flush()


@contextmanager
def sole_maker(
    product: Path, log: Callable[[str], None] = lambda line: None, timeout_s: float = 600
) -> Iterator[None]:
    """Make this process the only one that makes a file, once another has ended.

    A job of a run that was killed takes a moment to notice that (see
    :func:`pacbed.machine.end_with_controller`).

    Parameters
    ----------
    product
        The file.
    log
        Receives a line if another process makes it.
    timeout_s
        How long that may take to end, in seconds.

    Raises
    ------
    PacbedError
        If it does not end, or the lock cannot be written.
    """
    path = product.with_name(f".{product.name}.lock")
    held = _wait_for(path, product, log, timeout_s)
    try:
        if held:
            sign(held)
        yield
    finally:
        if held:
            path.unlink(missing_ok=True)
            held.close()


def _wait_for(
    path: Path, product: Path, log: Callable[[str], None], timeout_s: float
) -> TextIO | None:
    deadline, said = time.monotonic() + timeout_s, False
    while True:
        try:
            held = lock(path)
        except LockedError as error:
            if time.monotonic() > deadline:
                raise PacbedError(
                    f"{error.owner} still makes {product}: end it, and run again"
                ) from error
            if not said:
                log(f"{error.owner} of an earlier run makes {product}: waiting until it has ended")
                said = True
            time.sleep(_PAUSE_s)
            continue
        # Who had it before may have removed the file: then others lock a new one.
        if held is None or _is_current(held, path):
            return held
        held.close()


def _is_current(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
