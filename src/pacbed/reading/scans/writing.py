"""Scans written to files, with their calibrations if the format has a place for them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from pacbed.exceptions import PacbedError
from pacbed.reading.scans.files import INSTALL
from pacbed.reading.scans.scan import Scan
from pacbed.storage.files import appearing_whole, check_space
from pacbed.storage.zipped import zip_writer

# Points along each axis that are compressed together.
_POINTS = 8
_MERLIN_HEADER = 384
_MERLIN_TYPES = {"uint8": "U08", "uint16": "U16", "uint32": "U32"}


def write_scan(path: Path, scan: Scan) -> None:
    """Write a scan that is in memory.

    Parameters
    ----------
    path
        Its ending tells the format: ``.hspy`` (HyperSpy), ``.emd`` (Berkeley), ``.mib`` (Merlin,
        with a ``.hdr`` next to it and no calibrations), ``.zarr.zip``, ``.npy`` (no calibrations).
    scan
        The scan; its numbers are written as the file or the array has them, of unsigned integers
        too.

    Raises
    ------
    PacbedError
        If the format is unknown or cannot hold the numbers, a package is missing, or the file
        cannot be written.
    """
    WRITERS[check_format(path)](path, np.asarray(scan.source), scan)


def check_format(path: Path) -> str:
    """Return the ending of a file, of :data:`WRITERS`.

    Raises
    ------
    PacbedError
        If it is none of them, or a package is missing that writes it.
    """
    ending = "".join(path.suffixes[-2:]) if path.suffix == ".zip" else path.suffix
    if ending not in WRITERS:
        raise PacbedError(f"cannot write {path}: scans are written as {', '.join(WRITERS)}")
    if ending in (".hspy", ".emd"):
        rosetta_writer(ending[1:], path)
    return ending


def _npy(path: Path, patterns: np.ndarray, scan: Scan) -> None:
    with appearing_whole(path) as temporary, temporary.open("wb") as file:
        np.save(file, patterns)


def _zarr_zip(path: Path, patterns: np.ndarray, scan: Scan) -> None:
    known = {n: getattr(scan, n) for n in ("energy_keV", "semiangle_mrad", "step_nm", "pixel_mrad")}
    with zip_writer(path) as folder:
        group = zarr.create_group(LocalStore(folder))
        array = group.create_array(
            "patterns",
            shape=patterns.shape,
            chunks=_chunks(patterns),
            dtype=patterns.dtype,
            attributes={name: value for name, value in known.items() if value is not None},
            dimension_names=("y", "x", "ky", "kx"),
        )
        array[:] = patterns


def _hspy(path: Path, patterns: np.ndarray, scan: Scan) -> None:
    _rosetta("hspy", path, patterns, scan, chunks=_chunks(patterns))


def _emd(path: Path, patterns: np.ndarray, scan: Scan) -> None:
    _rosetta("emd", path, patterns, scan, compression="gzip")


def _chunks(patterns: np.ndarray) -> tuple[int, ...]:
    ny, nx, *pattern = patterns.shape
    return (min(ny, _POINTS), min(nx, _POINTS), *pattern)


def rosetta_writer(plugin: str, path: Path) -> Callable[..., None]:
    """Return a writer of RosettaSciIO, which is GPL and imported here only; refuse if missing."""
    import importlib

    try:
        writer: Callable[..., None] = importlib.import_module(f"rsciio.{plugin}").file_writer
    except ImportError as error:
        raise PacbedError(f"to write {path}, RosettaSciIO is needed: {INSTALL}") from error
    return writer


def _rosetta(plugin: str, path: Path, patterns: np.ndarray, scan: Scan, **more: Any) -> None:
    writer = rosetta_writer(plugin, path)
    check_space(path, patterns.nbytes)
    with appearing_whole(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        temporary.unlink(missing_ok=True)  # left by a job that was killed
        writer(str(temporary), _signal(path, patterns, scan), **more)


def _signal(path: Path, patterns: np.ndarray, scan: Scan) -> Mapping[str, Any]:
    """Return a scan as HyperSpy describes one."""
    scales = (scan.step_nm,) * 2 + (scan.pixel_mrad,) * 2
    axes = [
        {
            "_type": "UniformDataAxis",
            "name": name,
            "units": units if scale else None,
            "size": size,
            "scale": scale or 1.0,
            "offset": 0.0 if n < 2 else -(size // 2) * (scale or 1.0),
            "navigate": n < 2,
            "is_binned": False,
            "index_in_array": n,
        }
        for n, (name, units, size, scale) in enumerate(
            zip(("y", "x", "ky", "kx"), ("nm", "nm", "mrad", "mrad"), patterns.shape, scales)  # noqa: B905
        )
    ]
    beam = {"beam_energy": scan.energy_keV, "convergence_angle": scan.semiangle_mrad}
    beam = {name: value for name, value in beam.items() if value is not None}
    return {
        "data": patterns,
        "axes": axes,
        "metadata": {
            "General": {"title": path.stem},
            "Signal": {"signal_type": "electron_diffraction"},
            "Acquisition_instrument": {"TEM": beam},
        },
        "original_metadata": {"microscope": beam},
        "attributes": {"_lazy": False, "ragged": False},
        "package_info": {"package": "pacbed", "package_version": "1"},
        "learning_results": {},
        "models": {},
        "tmp_parameters": {},
    }


def _mib(path: Path, patterns: np.ndarray, scan: Scan) -> None:
    """Write what a Merlin camera does: a text header before every pattern, rows from the bottom."""
    kind = _MERLIN_TYPES.get(patterns.dtype.name)
    if kind is None:
        raise PacbedError(f"a .mib holds unsigned integers of 8, 16 or 32 bits: {path} not written")
    rows, columns, ky, kx = patterns.shape
    frame = np.dtype(
        [("header", f"S{_MERLIN_HEADER}"), ("data", patterns.dtype.newbyteorder(">"), (ky, kx))]
    )
    with appearing_whole(path) as temporary, temporary.open("wb") as file:
        for row in range(rows):
            line = np.zeros(columns, frame)
            line["header"] = [
                _merlin_header(row * columns + n + 1, (ky, kx), kind) for n in range(columns)
            ]
            line["data"] = patterns[row, :, ::-1]
            file.write(line.tobytes())
    with appearing_whole(path.with_suffix(".hdr")) as temporary:
        temporary.write_text(
            "HDR,\t\n"
            f"Frames in Acquisition (Number):\t{rows * columns}\n"
            f"Frames per Trigger (Number):\t{columns}\n"
            "End\t\n"
        )


def _merlin_header(number: int, shape: tuple[int, int], kind: str) -> bytes:
    words = [
        "MQ1",
        f"{number:06d}",
        f"{_MERLIN_HEADER:05d}",
        "01",
        f"{shape[1]:04d}",
        f"{shape[0]:04d}",
        kind,
        "   1x1",
        "01",
        "2026-01-01 00:00:00.000000",
        "0.001000",
        "2026-01-01T00:00:00.000000000Z",
        "1000000ns",
        "12,",
    ]
    return ",".join(words).encode().ljust(_MERLIN_HEADER)


WRITERS: Mapping[str, Callable[[Path, np.ndarray, Scan], None]] = {
    ".hspy": _hspy,
    ".emd": _emd,
    ".mib": _mib,
    ".zarr.zip": _zarr_zip,
    ".npy": _npy,
}
"""How a scan is written, by the ending of its file."""
