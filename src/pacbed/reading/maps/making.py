"""Maps that are made part by part; what is finished is kept in files, so that a map goes on."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from pacbed.exceptions import OtherPartsError, PacbedError
from pacbed.machine import Report
from pacbed.reading.maps.found import Found
from pacbed.reading.maps.maker import MapMaker
from pacbed.reading.maps.store import StrainMap
from pacbed.reading.maps.sums import grid
from pacbed.reading.scans.scan import DAMAGED, Scan
from pacbed.storage.files import write_text
from pacbed.storage.zipped import plain

# Patterns by which it is noticed that a scan was changed.
_VALUES = 16


def scan_state(scan: Scan) -> dict[str, Any]:
    """Return what shows, as JSON, whether a scan is still the same: its files, and some values."""
    some = scan.points(grid(scan.shape, _VALUES))
    return {
        "scan_file": scan.path and file_state(scan.path),
        "shape": [*scan.shape, *scan.pattern_shape],
        "values": zlib.crc32(some.tobytes()),
    }


def file_state(path: Path) -> list[float]:
    """Return number, size and time of the last change of a file, or of those in a folder."""
    found = [one.stat() for one in ([path] if path.is_file() else path.rglob("*"))]
    return [len(found), sum(s.st_size for s in found), max((s.st_mtime for s in found), default=0)]


def fingerprint_of(maker: MapMaker) -> dict[str, Any]:
    """Return what parts of a map must have in common."""
    return {**plain(maker.provenance()), **scan_state(maker.scan)}


def make_map(
    maker: MapMaker,
    folder: Path,
    report: Report | None = None,
    threads: int = 1,
    log: Callable[[str], None] = lambda line: None,
    fingerprint: dict[str, Any] | None = None,
) -> StrainMap:
    """Make a map, and keep its parts in a folder until it is finished.

    Parameters
    ----------
    maker
        Of the map.
    folder
        Of the parts; those that are there are not computed again.
    report
        Receives how many points are done.
    threads
        Parts that are computed at the same time.
    log
        Receives a line for each part that is damaged, and made again.
    fingerprint
        What parts have in common, as JSON has it; by default :func:`fingerprint_of`.

    Raises
    ------
    PacbedError
        If there is no crystal, or the folder holds parts of another map.
    """
    check_parts(folder, fingerprint or fingerprint_of(maker), log)
    total = maker.shape[0] * maker.shape[1]
    say = report or (lambda done, total, more="": None)
    say(0, total, "thicknesses")
    begun = folder / "seeds.npz"
    if (arrays := _read(begun, log)) and "places" in arrays:
        places, seeds = arrays["places"], Found.of(arrays)
    else:
        places, seeds = maker.seeds()
        seeds.write(begun, places=places)
    parts = list(maker.parts())
    files = [folder / f"rows-{rows[0]:05d}.npz" for rows in parts]
    kept = [_read(file, log) for file in files]
    found = [Found.of(arrays) if arrays else None for arrays in kept]
    done = sum(len(one.layers) for one in found if one)
    say(done, total, "fits")

    stop = Event()

    def compute(number: int) -> int:
        one = maker.rows(parts[number], places, seeds, stop.is_set)
        one.write(files[number])
        found[number] = one
        return len(one.layers)

    missing = [number for number, one in enumerate(found) if one is None]
    maker.crystal(np.zeros((1, *maker.cut.frame.shape), np.float32))  # so that threads share it
    with ThreadPoolExecutor(max(1, threads)) as pool:
        jobs = [pool.submit(compute, number) for number in missing]
        try:
            for job in as_completed(jobs):
                done += job.result()
                say(done, total, "fits")
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    total_found = Found.joined([one for one in found if one is not None])
    if not (total_found.layers > 0).any():
        raise PacbedError(f"{maker.scan.name}: no crystal was found at any point")
    maker.improve(total_found, partial(_kept, folder, log), lambda word: say(total, total, word))
    return maker.strain_map(total_found)


def _read(path: Path, log: Callable[[str], None]) -> dict[str, np.ndarray] | None:
    """Return the arrays of a part; None if there is no file, or it is damaged, which is said."""
    try:
        with np.load(path) as arrays:
            found = dict(arrays)
        Found.of(found)
    except FileNotFoundError:
        return None
    except DAMAGED as error:
        log(f"{path} is damaged, and made again ({error})")
        return None
    return found


def check_parts(
    folder: Path,
    fingerprint: dict[str, Any],
    log: Callable[[str], None] = lambda line: None,
) -> None:
    """Make the folder of the parts of a map, or check that it is of this one.

    Parameters
    ----------
    folder
        Of the parts.
    fingerprint
        What they have in common, as JSON has it.
    log
        Receives a line if nobody knows of what the parts are; they are removed then.

    Raises
    ------
    OtherPartsError
        If it holds parts of another map; what differs is named.
    PacbedError
        If it cannot be read or written.
    """
    path = folder / "map.json"
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        if forget_parts(folder):
            log(f"{folder} does not say of which map it holds parts: they are made again")
    except OSError as error:
        raise PacbedError(f"cannot read {path}: {error.strerror}") from error
    else:
        if differing := _differing(before, fingerprint):
            raise OtherPartsError(
                f"{folder} holds parts of a map with another {', '.join(differing)}: delete the "
                "folder to begin anew, or give the same options"
            )
    write_text(path, json.dumps(fingerprint, indent=1) + "\n")


def forget_parts(folder: Path) -> int:
    """Remove what is done of a map, and return how many files these were."""
    patterns = "map.json", "calibration.json", "seeds.npz", "rows-*.npz", "again-*.npz"
    found = [file for pattern in patterns for file in folder.glob(pattern)]
    for file in found:
        file.unlink()
    return len(found)


def _differing(one: Any, other: Any, name: str = "map") -> list[str]:
    """Return the names of values that differ in two trees."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            found
            for key in sorted({*one, *other})
            for found in _differing(one.get(key), other.get(key), key)
        ]
    return [] if one == other else [name]


def _kept(
    folder: Path, log: Callable[[str], None], fit: Callable[..., Found], *given: Any
) -> Found:
    """Return what a fit finds, from a file of the folder if it is there."""
    asked = b"".join(np.ascontiguousarray(one).tobytes() for one in given)
    path = folder / f"again-{hashlib.sha256(asked).hexdigest()[:16]}.npz"
    if arrays := _read(path, log):
        return Found.of(arrays)
    found = fit(*given)
    found.write(path)
    return found
