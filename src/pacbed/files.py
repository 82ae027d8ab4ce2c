"""Files that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

from pacbed.errors import PacbedError


def write_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name and rename it.

    Raises
    ------
    PacbedError
        If it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise PacbedError(f"cannot write {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
