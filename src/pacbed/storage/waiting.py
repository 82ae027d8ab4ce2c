"""Products of a job that wait under another name until all of them are there.

Snakemake deletes the outputs of a job that fails, also those that were there before. It does not
know a product that waits: whatever ends the job, nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pacbed.exceptions import StoreError


def waiting(product: Path) -> Path:
    """Return the name under which a product waits for the others of its job."""
    return product.with_name(f".{product.name}.finished")


def put_aside(products: Iterable[Path]) -> None:
    """Let the products wait that exist, perhaps of another request.

    To be called before anything can fail. What waits already stays if it is newer. After a job
    that was killed within :func:`finish`, all of its products wait again.

    Raises
    ------
    StoreError
        If one cannot be moved; it is left where it is.
    """
    for product in products:
        aside = waiting(product)
        try:
            if product.exists() and not (aside.exists() and _is_newer(aside, product)):
                product.replace(aside)
        except OSError as error:
            raise StoreError(f"cannot move {product} aside: {error.strerror}") from error


def finish(products: Iterable[Path]) -> None:
    """Give all products their names.

    Raises
    ------
    StoreError
        If one cannot be moved; it still waits.
    """
    for product in products:
        try:
            waiting(product).replace(product)
        except OSError as error:
            raise StoreError(f"cannot give {product} its name: {error.strerror}") from error


def _is_newer(one: Path, other: Path) -> bool:
    return one.stat().st_mtime > other.stat().st_mtime
