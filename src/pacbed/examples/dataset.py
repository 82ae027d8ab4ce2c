"""Materialised datasets: a fixed number of examples of one semi-angle and thickness, in one file.

Each example has its own random stream, addressed by dataset, set and number: the file does not
depend on the number of processes, and a larger set begins with the same examples.

The examples are made a shard at a time, each by one process, and the shards appended to the file in
their order. Until it is finished the file stands in a hidden folder beside the dataset
(``.unfinished``): after a kill, the shards that are there need not be made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import zarr
from zarr.storage import LocalStore

from pacbed import __version__
from pacbed.engines.request import Progress
from pacbed.examples.augment import (
    AugmentationSettings,
    draw_transformation,
    make_image,
)
from pacbed.examples.labels import PARAMETERS
from pacbed.examples.pattern_set import PatternSet
from pacbed.examples.processes import Processes, SharedArray
from pacbed.exceptions import DamagedStoreError, StoreError
from pacbed.machine import usable_cores
from pacbed.seeding import stream
from pacbed.storage.archive import GrowingArchive
from pacbed.storage.files import write_text
from pacbed.storage.zipped import checkpoint_of, open_store, plain, reading

CHUNK = 64
# Examples that a process holds at a time: 17 MB in half precision, at 256 × 256 pixels.
_SHARD, _SHARD_PIXELS = 512, 1 << 23
# Fewer pixels than a process makes in the time that it takes to start are not worth one.
_WORTH_PIXELS = 10_000_000
# Threads that read: each has a shard in memory, a few times.
_READERS = 8

# Their types, and their dimensions besides the examples.
_ARRAYS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "images": ("float16", ("y", "x")),
    "labels": ("float32", ("parameter",)),
    "draw": ("int32", ()),
    "electrons": ("float32", ()),
}


def write_dataset(
    path: Path,
    library: PatternSet,
    settings: AugmentationSettings,
    examples: int,
    address: tuple[int, float, int, str],
    threads: int = 1,
    progress: Progress | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> None:
    """Make examples and write them.

    If the same was asked for before and did not come to an end, it goes on from there.

    Parameters
    ----------
    path
        The dataset, by convention ``*.zarr.zip``. It appears whole or not at all.
    library
        Patterns to choose from as they were simulated, each equally likely. Its memory is free
        before examples are made, if the caller keeps no reference.
    settings
        Ranges of the transformations.
    examples
        Number of examples.
    address
        Seed, semi-angle in mrad, number of layers and name of the set: where the random numbers
        come from.
    threads
        Cores that may be used, each by a process; the file does not depend on it.
    progress
        Called with the number of examples done and their total.
    log
        Receives a line about unfinished work that was found.

    Raises
    ------
    StoreError
        If something cannot be written, or a process is ended, as when memory runs out.
    PacbedError
        If an example cannot be made.
    """
    path = Path(path)
    with closing(SharedArray(library.patterns.shape)) as shared:
        library = library.averaged(settings.pixel_mrad, shared.values)
        made = _Examples(
            replace(library, patterns=library.patterns[:0]),
            settings,
            address,
            examples,
            _shard(examples, settings.pixels),
        )
        fingerprint = made.fingerprint(shared.values)
        with _growing(path, fingerprint, made.parts(), log) as (folder, archive):
            made.create_arrays(folder)
            if not archive.whole:
                archive.append(folder)
            shards = range(archive.whole - 1, made.shards)
            if shards.start:
                done = min(shards.start * made.shard, examples)
                log(f"goes on after {done} examples that are there already")
            work = partial(made.write_shard, folder, shared)
            count = min(threads, len(shards), made.pixels(shards) // _WORTH_PIXELS)
            with closing(_in_order(work, shards, count, shared)) as finished:
                for shard in finished:
                    archive.append(folder)
                    made.remove_shard(folder, shard)
                    if progress:
                        progress(min((shard + 1) * made.shard, examples), examples)


def _in_order(
    work: Callable[[int], None], shards: range, processes: int, shared: SharedArray
) -> Generator[int]:
    """Make shards and yield their numbers in ascending order, each when it is there."""
    if processes < 2:
        for shard in shards:
            work(shard)
            yield shard
    else:
        with Processes(processes, work, [shared.descriptor]) as others:
            yield from others.in_order(shards)


def _shard(examples: int, pixels: int) -> int:
    """Return how many examples one process makes at a time: whole chunks, or less than one."""
    shard = max(1, min(_SHARD, _SHARD_PIXELS // pixels**2))
    if shard > CHUNK:
        shard -= shard % CHUNK
    return min(shard, -(-examples // CHUNK) * CHUNK)


@dataclass(frozen=True)
class _Examples:
    """All that examples depend on but the patterns, which processes share.

    Parameters
    ----------
    library
        What the patterns show, without these.
    settings, address, examples
        As of :func:`write_dataset`.
    shard
        Examples of a shard.
    """

    library: PatternSet
    settings: AugmentationSettings
    address: tuple[int, float, int, str]
    examples: int
    shard: int

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.examples // self.shard)

    def pixels(self, shards: range) -> int:
        """Return about how many pixels the examples of some shards have."""
        return len(shards) * self.shard * self.settings.pixels**2

    def parts(self) -> list[list[str]]:
        """Return the files of the dataset in their order: descriptions, and those of each shard."""
        descriptions = ["zarr.json", *(f"{name}/zarr.json" for name in _ARRAYS)]
        return [descriptions, *(self._files(shard) for shard in range(self.shards))]

    def fingerprint(self, patterns: np.ndarray) -> str:
        """Return a digest of all that the file depends on, including the averaged patterns."""
        described = [
            *(__version__, np.__version__, scipy.__version__, zarr.__version__),
            *(asdict(self.settings), self.address, self.examples, self.shard, CHUNK),
            *(self.library.pixel_mrad, patterns.shape),
        ]
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
        draws = np.asarray(self.library.draws, np.int64)
        for array in (draws, self.library.parameters, patterns):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def create_arrays(self, folder: Path) -> None:
        """Describe the arrays, as Zarr does in files of their own."""
        seed, semiangle_mrad, layers, split = self.address
        group = zarr.create_group(
            LocalStore(folder),
            attributes=plain(
                {
                    "seed": seed,
                    "semiangle_mrad": semiangle_mrad,
                    "layers": layers,
                    "split": split,
                    "augmentation": asdict(self.settings),
                    "parameters": PARAMETERS,
                }
            ),
        )
        pixels = self.settings.pixels
        lengths = {"y": pixels, "x": pixels, "parameter": len(PARAMETERS)}
        for name, (dtype, dimensions) in _ARRAYS.items():
            inner = tuple(lengths[dimension] for dimension in dimensions)
            group.create_array(
                name,
                shape=(self.examples, *inner),
                chunks=(min(CHUNK, self.shard), *inner),
                shards=(self.shard, *inner),
                dtype=dtype,
                fill_value=-1 if dtype == "int32" else np.nan,
                dimension_names=["example", *dimensions],
            )

    def write_shard(self, folder: Path, shared: SharedArray, shard: int) -> None:
        """Make the examples of a shard and write them into arrays that have been described."""
        first = shard * self.shard
        count = min(self.shard, self.examples - first)
        images = np.empty((count, self.settings.pixels, self.settings.pixels), np.float16)
        labels = np.empty((count, len(PARAMETERS)), np.float32)
        draws, electrons = np.empty(count, np.int32), np.empty(count, np.float32)
        for row in range(count):
            example = self._example(shared.values, first + row)
            images[row], labels[row], draws[row], electrons[row] = example
        group = zarr.open_group(LocalStore(folder), mode="r+")
        for name, values in zip(_ARRAYS, (images, labels, draws, electrons), strict=True):
            group[name][first : first + count] = values  # type: ignore[index,assignment]

    def remove_shard(self, folder: Path, shard: int) -> None:
        """Remove the files of a shard."""
        for name in self._files(shard):
            (folder / name).unlink()

    def _files(self, shard: int) -> list[str]:
        return [_chunk(name, shard, len(inner)) for name, (_, inner) in _ARRAYS.items()]

    def _example(
        self, patterns: np.ndarray, number: int
    ) -> tuple[np.ndarray, np.ndarray, int, float]:
        """Return image, label, index of the draw, and number of electrons."""
        seed, semiangle_mrad, layers, split = self.address
        random = stream(seed, "example", float(semiangle_mrad), layers, split, number)
        chosen = int(random.integers(len(patterns)))
        transformation = draw_transformation(random, self.settings)
        image = make_image(
            patterns[chosen], self.library.pixel_mrad, transformation, self.settings, random
        )
        label = np.insert(self.library.parameters[chosen], 3, transformation.rotation_deg)
        return image, label, self.library.draws[chosen], transformation.electrons


def _chunk(array: str, shard: int, inner_dimensions: int) -> str:
    """Return the name of the file in which a shard of an array is."""
    return f"{array}/c/{shard}{'/0' * inner_dimensions}"


@contextmanager
def _growing(
    path: Path, fingerprint: str, parts: Sequence[Sequence[str]], log: Callable[[str], None]
) -> Iterator[tuple[Path, GrowingArchive]]:
    """Provide a folder for parts, and the archive that becomes a file when the block ends.

    If it does not come to its end, the archive stays for the next time, unless it is as good as
    empty.
    """
    kept = checkpoint_of(path)
    try:
        _begin_or_go_on(kept, fingerprint, log)
        with open(kept / "archive", "a+b") as file:
            archive = GrowingArchive(file, parts)
            try:
                # Processes of an earlier time that still write do so into another folder.
                with tempfile.TemporaryDirectory(
                    dir=kept, prefix="parts-", ignore_cleanup_errors=True
                ) as folder:
                    yield Path(folder), archive
            except BaseException:
                if archive.whole < 2:
                    shutil.rmtree(kept, ignore_errors=True)
                raise
            archive.finish()
        os.replace(kept / "archive", path)
        shutil.rmtree(kept, ignore_errors=True)
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}. Nothing was left under that name; "
            "free some space or choose another folder, and run again"
        ) from error


def _begin_or_go_on(folder: Path, fingerprint: str, log: Callable[[str], None]) -> None:
    """Make a folder for unfinished work, unless there is one of the same work."""
    note = folder / "fingerprint"
    if folder.exists():
        if note.is_file() and note.read_bytes() == fingerprint.encode():
            for stale in folder.glob("parts-*"):
                shutil.rmtree(stale, ignore_errors=True)
            return
        log(f"{folder} is of other patterns, other settings or another version: it begins anew")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_text(note, fingerprint)


@dataclass(frozen=True)
class Dataset:
    """Examples as read from a file.

    Parameters
    ----------
    images
        Shape (examples, pixels, pixels), float16, linear intensity.
    labels
        Physical parameters, columns as :data:`pacbed.examples.labels.PARAMETERS`, float32.
    draws
        Draw index of each example.
    electrons
        Number of incident electrons of each example.
    attributes
        Provenance.
    """

    images: np.ndarray
    labels: np.ndarray
    draws: np.ndarray
    electrons: np.ndarray
    attributes: Mapping[str, Any]

    def columns(self, parameters: Sequence[str]) -> np.ndarray:
        """Return the labels of some parameters."""
        return self.labels[:, [PARAMETERS.index(p) for p in parameters]]


def read_dataset(path: Path) -> Dataset:
    """Read a dataset.

    Raises
    ------
    StoreError
        If it is missing or of another kind.
    DamagedStoreError
        If it is damaged or incomplete.
    """
    path = Path(path)
    with open_store(path) as group, reading(path), zipfile.ZipFile(path) as archive:
        images, labels, draws, electrons = (
            _read_array(path, archive, group, name) for name in _ARRAYS
        )
        return Dataset(images, labels, draws, electrons, dict(group.attrs))


def _read_array(path: Path, archive: zipfile.ZipFile, group: zarr.Group, name: str) -> np.ndarray:
    """Read an array shard by shard, after a look at the checksum of each.

    Zarr reads parts of the members of an archive, and no checksum then.
    """
    array = group[name]
    assert isinstance(array, zarr.Array)
    values = np.empty(array.shape, array.dtype)
    size = (array.shards or array.chunks)[0]

    def read(first: int) -> None:
        last = min(first + size, len(values)) - 1
        chunk = _chunk(name, first // size, array.ndim - 1)
        try:
            _check_member(archive, chunk)
            values[first : last + 1] = array[first : last + 1]
        except (OSError, MemoryError):
            raise
        except Exception as error:  # there is no end to what Zarr makes of damaged bytes
            why = f"chunk {chunk} of examples {first} to {last}: {error}"
            raise DamagedStoreError(path, why) from error

    with ThreadPoolExecutor(min(usable_cores(), _READERS)) as pool:
        for _ in pool.map(read, range(0, len(values), size)):
            pass
    return values


def _check_member(archive: zipfile.ZipFile, name: str) -> None:
    with archive.open(name) as member:
        if not member.read(1):  # for Zarr a chunk that is missing: all of it the fill value
            raise ValueError("it is empty")
        while member.read(1 << 20):
            pass
