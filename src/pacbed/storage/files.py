"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pacbed.exceptions import PacbedError


def check_writable(*paths: Path | None) -> None:
    """Check that files can be written, before what they are to hold is computed.

    Nothing is left behind, no folder either. None is no file.

    Raises
    ------
    PacbedError
        If one cannot be written.
    """
    for path in filter(None, paths):
        try:
            if path.is_dir():
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
            existing = next(folder for folder in path.absolute().parents if folder.exists())
            tempfile.TemporaryFile(dir=existing).close()
        except OSError as error:
            why = error.strerror or error
            raise PacbedError(f"cannot write {path}: {why}; give another name or folder") from error


def check_space(path: Path, size_bytes: int) -> None:
    """Check that there is room for a file, since HDF5 crashes where there is none.

    Room is taken for a moment, so that quotas count.

    Raises
    ------
    PacbedError
        If there is none.
    """
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size_bytes)
            elif shutil.disk_usage(existing).free < size_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise PacbedError(
            f"cannot write {path}: {error.strerror or error}, and it takes up to "
            f"{size_bytes / 1e6:.3g} MB; free some space or choose another folder"
        ) from error


def check_apart(written: Iterable[Path | None], read: Iterable[Path | None] = ()) -> None:
    """Check that no file to be written is one that is read, or another one to be written.

    Links and other spellings are seen through. What lies in a folder belongs to it.

    Raises
    ------
    PacbedError
        If one is.
    """
    others = list(filter(None, read))
    paths = list(filter(None, written))
    for number, path in enumerate(paths):
        if any(_overlap(path, one) for one in others):
            raise PacbedError(f"{path} is read, and would be overwritten: give another name")
        for one in paths[:number]:
            if _overlap(path, one):
                raise PacbedError(f"{one} and {path} would overwrite each other: give other names")


def _overlap(one: Path, other: Path) -> bool:
    if one.exists() and other.exists() and one.samefile(other):  # also by a hard link
        return True
    a, b = (Path(os.path.realpath(path)) for path in (one, other))
    return a == b or a in b.parents or b in a.parents


def check_new(*paths: Path) -> None:
    """Check that files are not there yet which cost much, or may be another's measurement.

    Raises
    ------
    PacbedError
        If one is.
    """
    for path in paths:
        if path.exists():
            raise PacbedError(f"{path} is there already: give another name, or remove it")


@contextmanager
def appearing_whole(path: Path, folder: bool = False) -> Iterator[Path]:
    """Yield a temporary name, or an empty folder, which in the end gets the name of the path.

    Folders that it lies in are made. A file is replaced; a folder must not exist yet.

    Raises
    ------
    PacbedError
        If it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        if folder:
            shutil.rmtree(temporary, ignore_errors=True)  # left by a job that was killed
        (temporary if folder else path.parent).mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise PacbedError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # on a read-only disk; why nothing was written is what matters
            if folder:
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name and rename it.

    Raises
    ------
    PacbedError
        If it cannot be written.
    """
    with appearing_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
