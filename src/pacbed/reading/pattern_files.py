"""Files of measured patterns."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pacbed.exceptions import PacbedError
from pacbed.reading.patterns import Pattern
from pacbed.reading.pixels import FEWEST_PIXELS
from pacbed.storage.zipped import open_store, reading

FORMATS = ".npy, .npz, .tif, .tiff, or a pattern store or dataset (.zarr.zip)"
"""What can be read."""

_Held = tuple[Any, float | None]
"""What a file holds, an array of NumPy or Zarr, and the size of a pixel in mrad if it knows it."""


def read_file(path: Path, only: Sequence[int] = ()) -> list[Pattern]:
    """Read the patterns of a file.

    Parameters
    ----------
    path
        Its ending tells its format, one of :data:`FORMATS`.
    only
        Numbers of the patterns that are wanted, from zero; all if not given.

    Raises
    ------
    PacbedError
        If it cannot be read, or holds something else.
    """
    readers = {".npy": _npy, ".npz": _npz, ".tif": _tiff, ".tiff": _tiff, ".zip": _store}
    if path.suffix.lower() not in readers:
        raise PacbedError(f"cannot read {path}: patterns come as {FORMATS}")
    _check_file(path)
    with readers[path.suffix.lower()](path) as (values, pixel):
        shape = _stack_shape(path, values)
        wanted = list(only) or list(range(shape[0]))
        if absent := [n for n in wanted if not 0 <= n < shape[0]]:
            raise PacbedError(f"{path} has patterns 0 to {shape[0] - 1}, not {absent[0]}")
        names = [str(path) if shape[0] == 1 else f"{path}[{n}]" for n in wanted]
        images = [values[n] if values.ndim == 3 else values for n in wanted]
        whole = np.ones(shape[1:], bool)
        return [
            Pattern(name, np.array(image, float), whole, pixel)
            for name, image in zip(names, images, strict=True)
        ]


def read_mask(path: Path) -> np.ndarray:
    """Read which pixels count, from an image that is not zero there.

    Raises
    ------
    PacbedError
        If it cannot be read, is not one image, or leaves no pixel.
    """
    readers = {".npy": _npy, ".tif": _tiff, ".tiff": _tiff}
    if path.suffix.lower() not in readers:
        raise PacbedError(f"cannot read {path}: a mask comes as .npy, .tif or .tiff")
    _check_file(path)
    with readers[path.suffix.lower()](path) as (values, _):
        mask = np.squeeze(values) != 0
    if mask.ndim != 2 or not mask.any():
        raise PacbedError(f"{path} is no mask: it must be one image, not zero where pixels count")
    return mask


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise PacbedError(f"{path} is no file" if path.exists() else f"{path} does not exist")


@contextmanager
def _npy(path: Path) -> Iterator[_Held]:
    with _numpy(path):
        values = np.load(path, allow_pickle=False)
        if not isinstance(values, np.ndarray):
            raise PacbedError(f"{path} is an archive: name it .npz")
    yield values, None


@contextmanager
def _npz(path: Path) -> Iterator[_Held]:
    with _numpy(path), np.load(path, allow_pickle=False) as archive:
        if isinstance(archive, np.ndarray):
            raise PacbedError(f"{path} is no archive: name it .npy")
        if len(archive.files) != 1:
            raise PacbedError(
                f"{path} has {len(archive.files)} arrays ({', '.join(archive.files)}): keep the "
                "patterns in a file of their own"
            )
        values = archive[archive.files[0]]
    yield values, None


@contextmanager
def _numpy(path: Path) -> Iterator[None]:
    """Turn what goes wrong in reading a file of NumPy into an error that names it."""
    try:
        yield
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        if str(error).startswith("Object arrays"):
            raise PacbedError(
                f"{path} holds pickled objects, which could run any program, and is not read: save "
                "the numbers alone with numpy.save"
            ) from error
        why = "it is no file of NumPy" if "pickle" in str(error) else error
        raise PacbedError(f"cannot read {path}: {why}") from error


@contextmanager
def _tiff(path: Path) -> Iterator[_Held]:
    from PIL import Image, ImageSequence, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            pages = [np.array(page) for page in ImageSequence.Iterator(file)]
    except UnidentifiedImageError as error:
        raise PacbedError(f"cannot read {path}: it is no TIFF that is known") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise PacbedError(f"cannot read {path}: {error}") from error
    if {page.ndim for page in pages} != {2}:
        raise PacbedError(f"{path} is a picture in colours: a pattern has one number per pixel")
    if len({page.shape for page in pages}) > 1:
        raise PacbedError(f"{path} has pages of different shapes: save them as several files")
    yield np.stack(pages), None


@contextmanager
def _store(path: Path) -> Iterator[_Held]:
    """Open a pattern store or a dataset of a study."""
    with open_store(path) as group, reading(path):
        if "images" in group:  # every example of a dataset has another field of view
            yield group["images"], None
            return
        if "patterns" not in group:
            raise PacbedError(f"{path} is neither a pattern store nor a dataset")
        axes = [np.asarray(group[f"k{axis}_mrad"]) for axis in "xy"]
        x, y = ((axis[-1] - axis[0]) / (len(axis) - 1) for axis in axes)
        if abs(x / y - 1) > 1e-6:
            raise PacbedError(f"{path} has pixels of {x:.4g} × {y:.4g} mrad, which are no squares")
        yield group["patterns"], float(x)


def _stack_shape(path: Path, values: Any) -> tuple[int, int, int]:
    """Return the shape (patterns, ny, nx) of real numbers."""
    if values.dtype.kind not in "fiu":
        kind = "complex numbers" if values.dtype.kind == "c" else f"'{values.dtype}'"
        raise PacbedError(f"{path} holds {kind}: a pattern has a real number for each pixel")
    if values.ndim not in (2, 3):
        raise PacbedError(
            f"{path} has the shape {values.shape}: a pattern has two dimensions (y, x), several "
            "patterns have three"
        )
    ny, nx = values.shape[-2:]
    count = values.shape[0] if values.ndim == 3 else 1
    if not count or min(ny, nx) < FEWEST_PIXELS:
        raise PacbedError(
            f"{path} has {count} patterns of {ny} × {nx} pixels: at least {FEWEST_PIXELS} along "
            "each side are needed"
        )
    return count, ny, nx
