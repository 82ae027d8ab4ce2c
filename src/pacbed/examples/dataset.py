"""Materialised datasets: a fixed number of examples of a semi-angle and thickness, in one file."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from pacbed.engines.request import Progress, ThermalMotion
from pacbed.examples.augment import TRANSFORMATIONS, label_columns
from pacbed.examples.labels import PARAMETERS
from pacbed.examples.source import ExampleSource
from pacbed.exceptions import PacbedError
from pacbed.machine import usable_cores
from pacbed.storage.zipped import open_archive, open_store, plain, reading, zip_writer

# Examples that are made at a time, and written at a time: at 256 × 256 pixels 128 of them, 17 MB.
_CHUNK, _SHARD, _SHARD_PIXELS = 64, 512, 1 << 23
# Threads that read: each has a shard in memory, a few times.
_READERS = 8

# Their types, and their dimensions besides the examples; None is as many as the pixels, or columns.
_ARRAYS: Mapping[str, tuple[str, Mapping[str, int | None]]] = {
    "images": ("float16", {"y": None, "x": None}),
    "labels": ("float32", {"parameter": len(PARAMETERS)}),
    "draw": ("int32", {}),
    "transformations": ("float32", {"transformation": None}),
}


def write_dataset(path: Path, source: ExampleSource, progress: Progress | None = None) -> None:
    """Make examples, those of epoch 0, and write them.

    The memory does not grow with their number. The file does not depend on the number of threads.

    Parameters
    ----------
    path
        The dataset, by convention ``*.zarr.zip``. It appears whole or not at all.
    source
        The examples.
    progress
        Called with the number of examples done and their total.

    Raises
    ------
    StoreError
        If something cannot be written.
    PacbedError
        If an example has no electron.
    """
    from pacbed.examples.augment_layer import Augmentation  # only who makes examples needs Keras

    examples = source.examples
    chunk, shard = _sizes(examples, source.settings.pixels)
    with zip_writer(path) as folder:
        group = _create_arrays(folder, source, chunk, shard)
        layer = Augmentation(source.library, source.settings)
        for first in range(0, examples, shard):
            end = min(first + shard, examples)
            chunks = [_make(layer, source, n, chunk) for n in range(first, end, chunk)]
            for name, parts in zip(_ARRAYS, zip(*chunks, strict=True), strict=True):
                group[name][first:end] = np.concatenate(parts)[: end - first]  # type: ignore[index]
            if progress:
                progress(end, examples)


def _sizes(examples: int, pixels: int) -> tuple[int, int]:
    """Return how many examples are made at a time, and how many of them are written at a time."""
    most = max(1, min(_SHARD, _SHARD_PIXELS // pixels**2))
    chunk = min(_CHUNK, most)
    return chunk, min(most // chunk, -(-examples // chunk)) * chunk


def _create_arrays(folder: Path, source: ExampleSource, chunk: int, shard: int) -> zarr.Group:
    group = zarr.create_group(LocalStore(folder), attributes=plain(source.attributes))
    for name, (dtype, dimensions) in _ARRAYS.items():
        pixels, columns = source.settings.pixels, len(source.settings.columns)
        inner = tuple(
            length or (columns if dimension == "transformation" else pixels)
            for dimension, length in dimensions.items()
        )
        group.create_array(
            name,
            shape=(source.examples, *inner),
            chunks=(chunk, *inner),
            shards=(shard, *inner),
            dtype=dtype,
            fill_value=-1 if dtype == "int32" else np.nan,
            dimension_names=["example", *dimensions],
        )
    return group


def _make(layer: Any, source: ExampleSource, first: int, chunk: int) -> Sequence[np.ndarray]:
    """Return images, labels, draws and transformations of a chunk of examples."""
    # Also at the end a whole one: XLA compiles the layer anew for every number of examples.
    pattern, transformation, key = source.draw(first, first + chunk)
    images = layer.arrays(pattern, transformation, key)
    dark = ~(images.max(axis=(1, 2)) > 0)[: source.examples - first]
    if dark.any():
        electrons = transformation[dark.argmax(), 4]
        raise PacbedError(
            f"an image of {electrons:.3g} electrons has no signal: raise dataset.electrons"
        )
    labels = source.labels(pattern, transformation)
    draws = np.asarray(source.library.draws)[pattern]
    return images.astype(np.float16), labels, draws, transformation


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
    transformations
        What was done to the pattern, shape (examples, 6 or more), float32, columns as
        :attr:`pacbed.examples.augment.AugmentationSettings.columns`.
    attributes
        Provenance.
    """

    images: np.ndarray
    labels: np.ndarray
    draws: np.ndarray
    transformations: np.ndarray
    attributes: Mapping[str, Any]

    @property
    def electrons(self) -> np.ndarray:
        """Number of incident electrons of each example."""
        return self.transformations[:, TRANSFORMATIONS.index("electrons")]

    @property
    def fields_of_view_mrad(self) -> np.ndarray:
        """Field of view of each example in mrad."""
        return self.transformations[:, TRANSFORMATIONS.index("field_of_view_mrad")]

    def columns(self, parameters: Sequence[str]) -> np.ndarray:
        """Return the labels of some parameters, or nuisances."""
        if set(PARAMETERS).issuperset(parameters):
            return self.labels[:, [PARAMETERS.index(name) for name in parameters]]
        nominal_mrad = self.attributes["augmentation"]["field_of_view_mrad"]
        return label_columns(parameters, self.labels, self.transformations, nominal_mrad)


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
    with open_store(path) as group, reading(path), open_archive(path) as archive:
        images, labels, draws, done = (_read_array(archive, group, name) for name in _ARRAYS)
        return Dataset(images, labels, draws, done, dict(group.attrs))


def read_attributes(path: Path) -> dict[str, Any]:
    """Read the provenance of a dataset, and none of its images.

    Raises
    ------
    StoreError
        If it is missing, damaged or of another kind.
    """
    with open_store(path) as group, reading(path):
        group["images"]  # which other stores have not
        return dict(group.attrs)


def _read_array(archive: zipfile.ZipFile, group: zarr.Group, name: str) -> np.ndarray:
    """Read an array shard by shard, and the checksum of each, at which Zarr does not look."""
    array = group[name]
    assert isinstance(array, zarr.Array)
    values = np.empty(array.shape, array.dtype)
    size = (array.shards or array.chunks)[0]

    def read(shard: int) -> None:
        with archive.open(f"{name}/c/{shard}{'/0' * (array.ndim - 1)}") as member:
            while member.read(1 << 20):
                pass
        rows = slice(shard * size, (shard + 1) * size)
        values[rows] = array[rows]

    with ThreadPoolExecutor(min(usable_cores(), _READERS)) as pool:
        for _ in pool.map(read, range(-(-len(values) // size))):
            pass
    return values


def refuse_other_simulation(
    trained_on: Mapping[str, Any],
    data: Mapping[str, Any],
    name: str,
) -> None:
    """Refuse examples whose patterns are of another crystal, beam or thermal motion.

    Parameters
    ----------
    trained_on, data
        Attributes of the training set and of the other.
    name
        What the other set is called in the message.

    Raises
    ------
    PacbedError
        If they differ: in what, and both values; or if one does not say.
    """
    for which, one in (("the training set", trained_on), (name, data)):
        if not one.get("simulation"):
            raise PacbedError(
                f"{which} does not say how its patterns were simulated: have it made again"
            )
    ours, theirs = (_essentials(one["simulation"]) for one in (trained_on, data))
    differing = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    if "formula" in differing:  # then all lengths differ too
        differing = [name for name in differing if name not in trained_on["simulation"]["material"]]
        differing.insert(0, "formula")
    if differing:
        values = (f"{name} is {theirs.get(name)}, not {ours.get(name)}" for name in differing)
        raise PacbedError(
            f"{name} is of another simulation than the training set: "
            f"{'; '.join(values)}. Use a network and examples of one study"
        )


def _essentials(simulation: Mapping[str, Any]) -> dict[str, Any]:
    """Return crystal, beam and kind of thermal motion, without nested values."""
    thermal, aperture = simulation["thermal"], simulation["aperture"]
    return {
        **simulation["material"],
        "energy_keV": simulation["energy_keV"],
        **{f"aperture {name}": value for name, value in aperture.items()},
        "thermal motion": ThermalMotion.described(thermal),
    }
