"""Locks of files: they end with the process that has them, however it ends."""

from __future__ import annotations

import errno
import os
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pacbed.exceptions import PacbedError

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class LockedError(PacbedError):
    """A lock that another process has.

    Parameters
    ----------
    owner
        Who has it: process and machine, in words.
    """

    def __init__(self, owner: str) -> None:
        super().__init__(f"{owner} has the lock")
        self.owner = owner


def this_process() -> str:
    """Return this process and its machine, in words."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def lock(path: Path, timeout_s: float = 0) -> FileLock:
    """Take a lock, and write into its file who has it.

    Returns
    -------
    filelock.FileLock
        Held as long as the object lives. On a file system without locks it is not held (its
        ``is_locked``), and a warning says so.

    Raises
    ------
    LockedError
        If another process still has it after some seconds.
    PacbedError
        If the file cannot be written.
    """
    # Without the fallback of filelock, a file that would stay when its process is killed.
    held = FileLock(path, timeout_s, fallback_to_soft=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held.acquire()
        path.write_text(f"{this_process()}\n", encoding="utf-8")
    except Timeout as error:
        raise LockedError(_owner(path)) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise PacbedError(f"cannot write {path}: {error.strerror}") from error
        warnings.warn(
            f"the file system of {path.parent} has no locks: start nothing there a second time",
            stacklevel=2,
        )
    return held


def _owner(path: Path) -> str:
    with suppress(OSError):  # the owner may have ended meanwhile, and removed it
        return path.read_text(encoding="utf-8").strip() or "another process"
    return "another process"


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
    try:
        held = lock(path)
    except LockedError as error:
        log(f"{error.owner} of an earlier run makes {product}: waiting until it has ended")
        try:
            held = lock(path, timeout_s)
        except LockedError as still:
            raise PacbedError(
                f"{still.owner} still makes {product}: end it, and run again"
            ) from still
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: whoever waits for it makes a new one
        held.release()
