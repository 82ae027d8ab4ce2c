"""Materialised datasets: a fixed number of examples of one semi-angle and thickness, in one file.

Each example has its own random stream, addressed by dataset, set and number: the file does not
depend on threads, and a larger set begins with the same examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from pacbed.augment import AugmentationSettings, draw_transformation, make_image
from pacbed.deformation import Deformation
from pacbed.engines.base import Progress
from pacbed.errors import StoreError
from pacbed.labels import PARAMETERS
from pacbed.patterns import open_store, plain, read_patterns, reading, zip_writer
from pacbed.seeding import stream

CHUNK = 64
SHARD = 1024


@dataclass(frozen=True)
class Library:
    """The patterns of one thickness from which examples are made.

    Parameters
    ----------
    patterns
        Shape (draws, ny, nx), fraction of the incident electrons per pixel.
    pixel_mrad
        Pixel size (x, y) in mrad.
    draws
        Index of the draw of each pattern.
    parameters
        Strain (xx, yy, xy) as fractions and tilt (x, y) in mrad, shape (draws, 5).
    """

    patterns: np.ndarray
    pixel_mrad: tuple[float, float]
    draws: Sequence[int]
    parameters: np.ndarray


def load_library(stores: Sequence[Path], draws: Sequence[int], layers: int) -> Library:
    """Read the patterns of one thickness, and what they show, from the stores of several draws.

    Raises
    ------
    StoreError
        If a store is damaged, or its detector differs from that of the others.
    """
    patterns: np.ndarray | None = None
    parameters = np.empty((len(stores), 5))
    axes: tuple[np.ndarray, np.ndarray] | None = None
    for number, path in enumerate(stores):
        store = read_patterns(path, [layers])
        if patterns is None or axes is None:
            axes = store.kx_mrad, store.ky_mrad
            patterns = np.empty((len(stores), *store.patterns.shape[1:]), np.float32)
        if store.patterns.shape[1:] != patterns.shape[1:] or not (
            np.array_equal(store.kx_mrad, axes[0]) and np.array_equal(store.ky_mrad, axes[1])
        ):
            raise StoreError(f"{path} has other pixels than {stores[0]}: simulate it again")
        patterns[number] = store.patterns[0]
        request = store.attributes["request"]
        strain = Deformation(**request["deformation"]).strain
        parameters[number] = strain[0, 0], strain[1, 1], strain[0, 1], *request["tilt_mrad"]
    if patterns is None or axes is None:
        raise StoreError("no pattern stores were given")
    kx, ky = axes
    pixel = float((kx[-1] - kx[0]) / (len(kx) - 1)), float((ky[-1] - ky[0]) / (len(ky) - 1))
    return Library(patterns, pixel, draws, parameters)


def write_dataset(
    path: Path,
    library: Library,
    settings: AugmentationSettings,
    examples: int,
    address: tuple[int, float, int, str],
    threads: int = 1,
    progress: Progress | None = None,
) -> None:
    """Make examples and write them.

    Parameters
    ----------
    path
        The dataset, by convention ``*.zarr.zip``. It appears whole or not at all.
    library
        Patterns to choose from, each equally likely.
    settings
        Ranges of the transformations.
    examples
        Number of examples.
    address
        Seed, semi-angle in mrad, number of layers and name of the set: where the random numbers
        come from.
    threads
        Threads that may be used; the examples do not depend on it.
    progress
        Called with the number of examples done and their total.
    """
    seed, semiangle_mrad, layers, split = address
    pixels = settings.pixels
    with zip_writer(path) as folder:
        group = zarr.create_group(
            LocalStore(folder),
            attributes=plain(
                {
                    "seed": seed,
                    "semiangle_mrad": semiangle_mrad,
                    "layers": layers,
                    "split": split,
                    "augmentation": asdict(settings),
                    "parameters": PARAMETERS,
                }
            ),
        )
        shard = min(SHARD, -(-examples // CHUNK) * CHUNK)

        def array(
            name: str, inner: tuple[int, ...], dtype: str, dimensions: list[str]
        ) -> zarr.Array:
            return group.create_array(
                name,
                shape=(examples, *inner),
                chunks=(CHUNK, *inner),
                shards=(shard, *inner),
                dtype=dtype,
                fill_value=-1 if dtype == "int32" else np.nan,
                dimension_names=["example", *dimensions],
            )

        images = array("images", (pixels, pixels), "float16", ["y", "x"])
        labels = array("labels", (len(PARAMETERS),), "float32", ["parameter"])
        draws = array("draw", (), "int32", [])
        electrons = array("electrons", (), "float32", [])

        def example(number: int) -> tuple[np.ndarray, np.ndarray, int, float]:
            random = stream(seed, "example", float(semiangle_mrad), layers, split, number)
            chosen = int(random.integers(len(library.draws)))
            transformation = draw_transformation(random, settings)
            image = make_image(
                library.patterns[chosen], library.pixel_mrad, transformation, settings, random
            )
            strain_and_tilt = library.parameters[chosen]
            label = np.insert(strain_and_tilt, 3, transformation.rotation_deg)
            return image, label, library.draws[chosen], transformation.electrons

        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, examples, shard):
                block = slice(start, min(start + shard, examples))
                made = list(pool.map(example, range(block.start, block.stop)))
                image, label, draw, dose = zip(*made, strict=True)
                images[block] = np.stack(image).astype(np.float16)
                labels[block] = np.stack(label)
                draws[block] = np.array(draw)
                electrons[block] = np.array(dose)
                if progress:
                    progress(block.stop, examples)


@dataclass(frozen=True)
class Dataset:
    """Examples as read from a file.

    Parameters
    ----------
    images
        Shape (examples, pixels, pixels), float16, linear intensity.
    labels
        Physical parameters, columns as :data:`pacbed.labels.PARAMETERS`, float32.
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
    with open_store(path) as group, reading(path):
        return Dataset(
            images=np.asarray(group["images"]),
            labels=np.asarray(group["labels"]),
            draws=np.asarray(group["draw"]),
            electrons=np.asarray(group["electrons"]),
            attributes=dict(group.attrs),
        )
