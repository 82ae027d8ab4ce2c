"""Files that appear whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pacbed.exceptions import PacbedError


@contextmanager
def appearing_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary name in the same folder, which in the end becomes that of the file.

    Raises
    ------
    PacbedError
        If it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise PacbedError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # on a read-only disk; why nothing was written is what matters
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
