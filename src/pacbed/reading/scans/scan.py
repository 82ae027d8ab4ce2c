"""Scans: a pattern at each of many points, read from memory or a file as they are wanted."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pacbed.exceptions import PacbedError
from pacbed.reading.pixels import FEWEST_PIXELS, put_together
from pacbed.specimen.microscope import ENERGIES_keV

# Patterns of a pass through a whole scan that are in memory at a time, in bytes.
_BLOCK_BYTES = 2**28
# What readers raise where a file is not as it was written.
DAMAGED = (OSError, ValueError, RuntimeError, KeyError, EOFError, zlib.error, zipfile.BadZipFile)
# Relative difference between a file and an option that is worth a word.
_DIFFERENT = 0.01
# Options of calibrations, and limits beyond which another unit is meant.
_LIMITS = {
    "pixel_mrad": ("--pixel-mrad", 1e-4, 100.0, "mrad"),
    "step_nm": ("--step", 1e-4, 1e5, "nm"),
    "energy_keV": ("--energy", *ENERGIES_keV, "keV"),
    "semiangle_mrad": ("--semiangle", 0.1, 200.0, "mrad"),
}


@dataclass(frozen=True)
class ScanOptions:
    """What a file does not say, or says wrongly, and which part of it is wanted.

    What is done to a pattern is done in this order: mirrored, flips, transposition, turn, crop,
    bins.

    Parameters
    ----------
    scan_shape
        Points along y and x, if the file holds a row of patterns.
    area
        Part of the scan: x0 y0 x1 y1 in points; x1 and y1 do not belong to it.
    mirrored
        The patterns are, or are not, mirror images; columns of mirrored ones are reversed. If
        nobody says, they are taken as they are.
    flip_x
        Reverse the columns of the patterns.
    flip_y
        Reverse the rows of the patterns.
    transpose
        Exchange rows and columns of the patterns, after the flips.
    turn_deg
        Turn the patterns from x towards y by this angle in degrees, after the transposition.
    crop_px
        Part of the patterns, as turned: x0 y0 x1 y1 in pixels; x1 and y1 do not belong to it.
    bins
        Put so many pixels along each axis together.
    pixel_mrad
        Size of a pixel of the file in mrad, instead of what the file says.
    step_nm
        Distance between neighbouring points in nm, instead of what the file says.
    energy_keV
        Beam energy in keV, instead of what the file says.
    semiangle_mrad
        Convergence semi-angle in mrad, instead of what the file says.

    Raises
    ------
    PacbedError
        If a number is impossible.
    """

    scan_shape: tuple[int, int] | None = None
    area: tuple[int, int, int, int] | None = None
    mirrored: bool | None = None
    flip_x: bool = False
    flip_y: bool = False
    transpose: bool = False
    turn_deg: Literal[0, 90, 180, 270] = 0
    crop_px: tuple[int, int, int, int] | None = None
    bins: int = 1
    pixel_mrad: float | None = None
    step_nm: float | None = None
    energy_keV: float | None = None
    semiangle_mrad: float | None = None

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise PacbedError(f"{self.bins} pixels cannot be put together: give --bins 1 or more")
        if self.scan_shape is not None and min(self.scan_shape) < 1:
            raise PacbedError(f"a scan has no {_times(self.scan_shape)} points: check --scan-shape")
        for name, (option, low, high, unit) in _LIMITS.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise PacbedError(
                    f"{option} must lie within {low:g} and {high:g} {unit}, not {value:g}"
                )

    def applied(self, patterns: np.ndarray) -> np.ndarray:
        """Return patterns as they are wanted, shape (..., ky, kx), float32."""
        if self.flip_x != bool(self.mirrored):
            patterns = patterns[..., ::-1]
        if self.flip_y:
            patterns = patterns[..., ::-1, :]
        if self.transpose:
            patterns = patterns.swapaxes(-1, -2)
        patterns = np.rot90(patterns, -self.turn_deg // 90, (-2, -1))
        if self.crop_px is not None:
            x0, y0, x1, y1 = self.crop_px
            patterns = patterns[..., y0:y1, x0:x1]
        patterns = patterns.astype(np.float32)
        return patterns if self.bins == 1 else put_together(patterns, self.bins)

    def pattern_shape(self, raw: tuple[int, int]) -> tuple[int, int]:
        """Return the pixels (ky, kx) of the patterns that are left of those of the file.

        Raises
        ------
        PacbedError
            If the crop lies outside, or there are too few.
        """
        ky, kx = raw[::-1] if self.transpose != (self.turn_deg in (90, 270)) else raw
        if self.crop_px is not None:
            _check_box(self.crop_px, (ky, kx), "the patterns have", "pixels", "--crop")
            x0, y0, x1, y1 = self.crop_px
            ky, kx = y1 - y0, x1 - x0
        ky, kx = ky // self.bins, kx // self.bins
        if min(ky, kx) < FEWEST_PIXELS:
            raise PacbedError(
                f"{_times((ky, kx))} pixels are left of each pattern: at least {FEWEST_PIXELS} "
                "along each side are needed; check crop and bins"
            )
        return ky, kx


@dataclass(frozen=True)
class Scan:
    """A pattern at each point of a scan, read as wanted.

    Parameters
    ----------
    name
        Of its file.
    path
        Its file; None in memory.
    options
        What was done to it.
    shape
        Points (ny, nx) of the area.
    pattern_shape
        Pixels (ky, kx), as they are wanted.
    pixel_mrad
        Size of such a pixel in mrad, if it is known.
    step_nm
        Distance between neighbouring points in nm, if it is known.
    energy_keV, semiangle_mrad
        Of the beam, if they are known.
    notes
        What was found in the file.
    kind
        Format of the file.
    source
        The whole file: something like an array, shape (rows, columns, ky, kx).
    """

    name: str
    path: Path | None
    options: ScanOptions
    shape: tuple[int, int]
    pattern_shape: tuple[int, int]
    pixel_mrad: float | None
    step_nm: float | None
    energy_keV: float | None
    semiangle_mrad: float | None
    notes: tuple[str, ...]
    kind: str
    source: Any = field(repr=False, compare=False)

    @classmethod
    def of(
        cls,
        patterns: Any,
        options: ScanOptions | None = None,
        *,
        name: str = "scan",
        path: Path | None = None,
        pixel_mrad: float | None = None,
        step_nm: float | None = None,
        energy_keV: float | None = None,
        semiangle_mrad: float | None = None,
        notes: tuple[str, ...] = (),
        kind: str = "array",
    ) -> Scan:
        """Make a scan of something like an array.

        Parameters
        ----------
        patterns
            Shape (rows, columns, ky, kx), or (points, ky, kx) if the options give the shape.
        options
            What to do to it; what it says of calibrations takes the place of what follows.
        name, path, notes, kind
            As of the class.
        pixel_mrad, step_nm, energy_keV, semiangle_mrad
            Of the array.

        Raises
        ------
        PacbedError
            If these are no patterns of a scan, or the options do not fit.
        """
        options = options or ScanOptions()
        patterns = _four_dimensional(name, patterns, options.scan_shape)
        rows, columns = patterns.shape[:2]
        shape = rows, columns
        if options.area is not None:
            _check_box(options.area, shape, f"{name} has", "points", "--area")
            x0, y0, x1, y1 = options.area
            shape = y1 - y0, x1 - x0
        pixel = options.pixel_mrad or pixel_mrad
        return cls(
            name,
            path,
            options,
            shape,
            options.pattern_shape(patterns.shape[2:]),
            pixel and pixel * options.bins,
            options.step_nm or step_nm,
            options.energy_keV or energy_keV,
            options.semiangle_mrad or semiangle_mrad,
            notes,
            kind,
            patterns,
        )

    @property
    def mirrored(self) -> bool | None:
        """Whether the patterns of the file are mirror images, which is mended; None: not known."""
        return self.options.mirrored

    @property
    def _corner(self) -> tuple[int, int]:
        x0, y0, *_ = self.options.area or (0, 0)
        return y0, x0

    def patterns(self, rows: slice, columns: slice = slice(None)) -> np.ndarray:
        """Return patterns of some rows and columns of the area.

        Returns
        -------
        numpy.ndarray
            Shape (rows, columns, ky, kx), float32; not finite where the file is not.
        """
        wanted = []
        for part, count, first in zip((rows, columns), self.shape, self._corner, strict=True):
            start, stop, step = part.indices(count)
            wanted.append(slice(first + start, first + stop, step))
        with self._reading():
            some = np.asarray(self.source[tuple(wanted)])
        return self.options.applied(some)

    def points(self, places: np.ndarray) -> np.ndarray:
        """Return the patterns of some points.

        Parameters
        ----------
        places
            Row and column of each in the area, shape (n, 2).

        Returns
        -------
        numpy.ndarray
            Shape (n, ky, kx), float32.
        """
        places = np.asarray(places, int).reshape(-1, 2)
        if ((places < 0) | (places >= self.shape)).any():
            raise IndexError(f"points beyond {self.shape}")
        rows, columns = (places + self._corner).T
        if not len(rows):
            return np.zeros((0, *self.pattern_shape), np.float32)
        with self._reading():
            if hasattr(self.source, "dask"):  # each chunk is read once
                some = np.asarray(self.source.vindex[rows, columns])
            else:
                each = zip(rows.tolist(), columns.tolist(), strict=True)
                some = np.stack([np.asarray(self.source[y, x]) for y, x in each])
        return self.options.applied(some)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn what goes wrong in reading into an error that names the file."""
        try:
            yield
        except DAMAGED as error:
            raise PacbedError(
                f"cannot read patterns of {self.name}: the file is damaged, cut short, or changed "
                f"since it was opened ({error})"
            ) from error

    def blocks(self, most_bytes: int = _BLOCK_BYTES) -> Iterator[slice]:
        """Yield parts of the rows whose patterns take at most so many bytes, one row at least."""
        pixels = self.shape[1] * int(np.prod(self.source.shape[2:]))
        fit = max(1, most_bytes // (4 * pixels))
        chunk = _rows_of_a_chunk(self.source)
        if chunk > 1 and fit > 1:  # no chunk is read twice
            fit = max(1, fit // chunk) * chunk if fit >= chunk / 4 else fit
        first = self._corner[0]
        start = 0
        while start < self.shape[0]:
            stop = min(self.shape[0], (first + start) // fit * fit + fit - first)
            yield slice(start, stop)
            start = stop


def open_scan(path: Path, options: ScanOptions | None = None) -> Scan:
    """Open the file of a scan; patterns are read from it as they are wanted.

    Parameters
    ----------
    path
        The file, or a folder of Zarr; its ending tells its format.
    options
        What the file does not say, and what is wanted of it.

    Raises
    ------
    PacbedError
        If it cannot be read, holds no scan, or does not say what is needed to take it apart.
    """
    # Not before it is needed: it takes as long as the help of a command.
    from pacbed.reading.scans.files import read_contents

    options = options or ScanOptions()
    found = read_contents(path, options.scan_shape)
    notes = list(found.notes)
    energy = options.energy_keV or found.energy_keV
    pixel = found.pixel_mrad(path, options.pixel_mrad, energy)
    said = None
    if options.pixel_mrad:
        with suppress(PacbedError):
            said = found.pixel_mrad(path, None, energy)
    for what, given, own, units in (
        ("beam energy", options.energy_keV, found.energy_keV, "keV"),
        ("semi-angle", options.semiangle_mrad, found.semiangle_mrad, "mrad"),
        ("size of a pixel", options.pixel_mrad, said, "mrad"),
    ):
        if given and own and abs(given / own - 1) > _DIFFERENT:
            notes.append(f"the {what} is {own:.4g} {units} in the file; {given:.4g} is used")
    if pixel is None and found.lacks_energy:
        notes.append("the file gives pixels in 1/length: their angle follows with --energy")
    return Scan.of(
        found.values,
        options,
        name=path.name,
        path=path,
        pixel_mrad=pixel,
        step_nm=found.step_nm(path, options.step_nm),
        energy_keV=energy,
        semiangle_mrad=found.semiangle_mrad,
        notes=tuple(notes),
        kind=found.kind,
    )


class _Row:
    """A row of patterns as a scan.

    Parameters
    ----------
    stack
        Shape (points, ky, kx).
    shape
        Points (rows, columns).
    """

    def __init__(self, stack: Any, shape: tuple[int, int]) -> None:
        self._stack, self.shape, self.dtype = stack, (*shape, *stack.shape[1:]), stack.dtype

    def __getitem__(self, key: tuple[Any, Any]) -> np.ndarray:
        y, x = key
        columns = self.shape[1]
        if not isinstance(y, slice):
            return np.asarray(self._stack[y * columns + x])
        start, stop, step = y.indices(self.shape[0])
        some = np.asarray(self._stack[start * columns : max(start, stop) * columns])
        return some.reshape(-1, *self.shape[1:])[::step, x]


def _four_dimensional(name: str, values: Any, shape: tuple[int, int] | None) -> Any:
    """Return the values with the axes (rows, columns, ky, kx)."""
    if values.dtype.kind not in "fiu":
        kind = "complex numbers" if values.dtype.kind == "c" else f"'{values.dtype}'"
        raise PacbedError(f"{name} holds {kind}: a pattern has a real number for each pixel")
    if values.ndim == 4 and shape in (None, values.shape[:2]):
        if 0 in values.shape:
            raise PacbedError(f"{name} has the shape {_times(values.shape)}: it is empty")
        return values
    if values.ndim not in (3, 4):
        raise PacbedError(
            f"{name} has the shape {_times(values.shape)}: a scan has four dimensions (y and x of "
            "the points, y and x of the patterns), a row of patterns three. For single patterns "
            "use pacbed read"
        )
    count = int(np.prod(values.shape[:-2]))
    if shape is None:
        raise PacbedError(
            f"{name} holds a row of {count} patterns of {_times(values.shape[1:])} pixels and does "
            f"not say how many points a line of the scan has: give --scan-shape ROWS COLUMNS"
            f"{_likely(count)}"
        )
    if shape[0] * shape[1] != count:
        raise PacbedError(
            f"{name} holds {count} patterns, not {_times(shape)} = {shape[0] * shape[1]}: check "
            f"--scan-shape{_likely(count)}"
        )
    stack = values.reshape(count, *values.shape[-2:]) if values.ndim == 4 else values
    return _Row(stack, shape)


def _likely(count: int) -> str:
    """Return an example of a shape with so many points."""
    side = next(n for n in range(int(count**0.5), 0, -1) if count % n == 0)
    return f", for example {side} {count // side}" if side > 1 else ""


def _rows_of_a_chunk(source: Any) -> int:
    chunks = getattr(source, "chunks", None)
    if not chunks:
        return 1
    return int(chunks[0][0] if isinstance(chunks[0], tuple) else chunks[0])


def _check_box(
    box: tuple[int, int, int, int], shape: tuple[int, int], owner: str, what: str, option: str
) -> None:
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= shape[1] and 0 <= y0 < y1 <= shape[0]):
        raise PacbedError(
            f"{owner} {_times(shape)} {what} (rows × columns); x0 y0 x1 y1 = "
            f"{x0} {y0} {x1} {y1} is no part of that: check {option}"
        )


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
