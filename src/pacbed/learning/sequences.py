"""Batches of examples, from a file or made anew, in an order that can be gone back to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np

from pacbed.examples.augment import AugmentationSettings, draw_transformations
from pacbed.examples.dataset import Dataset
from pacbed.examples.labels import PARAMETERS, LabelScaling
from pacbed.examples.pattern_set import PatternSet
from pacbed.seeding import stream


@dataclass(frozen=True)
class OnlineExamples:
    """Training examples that no file holds: every epoch has its own.

    Parameters
    ----------
    library
        Patterns to choose from, each equally likely, as simulated.
    settings
        Ranges of the transformations.
    examples
        Number of examples of an epoch.
    address
        Seed, semi-angle in mrad and number of layers: where the random numbers come from.
    """

    library: PatternSet
    settings: AugmentationSettings
    examples: int
    address: tuple[int, float, int]

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What the examples are, as a dataset says it."""
        seed, semiangle_mrad, layers = self.address
        return {
            "seed": seed,
            "semiangle_mrad": semiangle_mrad,
            "layers": layers,
            "split": "train",
            "online": True,
            "examples": self.examples,
            "augmentation": asdict(self.settings),
            "parameters": PARAMETERS,
        }


class Batches(keras.utils.PyDataset, ABC):
    """Batches of an epoch, which may begin in its midst.

    Parameters
    ----------
    data
        What the examples are, or are made of.
    examples
        Number of examples of an epoch.
    batch_size
        Examples of a batch; the last of an epoch may be smaller.
    """

    def __init__(self, data: Dataset | OnlineExamples, examples: int, batch_size: int) -> None:
        super().__init__()
        self.data = data
        self.examples = examples
        self.batch_size = batch_size
        self.epoch = self.first = 0

    @property
    def total(self) -> int:
        """Number of batches of a whole epoch."""
        return -(-self.examples // self.batch_size)

    def begin(self, epoch: int, batch: int) -> None:
        """Set the epoch, and its first batch to come, both counted from zero."""
        self.epoch, self.first = epoch, batch

    def __len__(self) -> int:
        return self.total - self.first

    def __getitem__(self, number: int) -> tuple[Any, np.ndarray]:
        first = (self.first + number) * self.batch_size
        return self.batch(first, min(first + self.batch_size, self.examples))

    @abstractmethod
    def batch(self, first: int, end: int) -> tuple[Any, np.ndarray]:
        """Return the inputs and scaled labels of some examples of the epoch."""

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Provenance of the examples."""
        return self.data.attributes

    @property
    @abstractmethod
    def draws(self) -> np.ndarray:
        """Indices of the draws that the examples show."""

    @abstractmethod
    def arrays(self) -> Iterator[np.ndarray]:
        """Yield what tells these examples from others."""


class StoredBatches(Batches):
    """Batches of images as stored, in half precision until they are on the device.

    Parameters
    ----------
    data
        The examples.
    scaling
        Which parameters to predict, and their scaling.
    batch_size
        Examples of a batch.
    shuffle_seed
        If given, the order is another in every epoch, and depends on this and the epoch alone.
    """

    data: Dataset

    def __init__(
        self,
        data: Dataset,
        scaling: LabelScaling,
        batch_size: int,
        shuffle_seed: int | None = None,
    ) -> None:
        super().__init__(data, len(data.images), batch_size)
        self.targets = scaling.scale(data.columns(scaling.parameters)).astype(np.float32)
        self.shuffle_seed = shuffle_seed
        self.order = np.arange(self.examples)

    def begin(self, epoch: int, batch: int) -> None:
        """Set the epoch, and its first batch to come, both counted from zero."""
        super().begin(epoch, batch)
        if self.shuffle_seed is not None:
            self.order = stream(self.shuffle_seed, "shuffle", epoch).permutation(self.examples)

    def batch(self, first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Return images (examples, pixels, pixels, 1), float16, and scaled labels."""
        chosen = self.order[first:end]
        return self.data.images[chosen, :, :, None], self.targets[chosen]

    @property
    def draws(self) -> np.ndarray:
        """Indices of the draws that the examples show."""
        return np.unique(self.data.draws)

    def arrays(self) -> Iterator[np.ndarray]:
        """Yield what tells these examples from others."""
        images = self.data.images
        # They may be many gigabytes: of each the middle row is looked at.
        yield images[:, images.shape[1] // 2]
        yield from (self.data.labels, self.data.draws, self.data.electrons)


class OnlineBatches(Batches):
    """Batches of patterns and transformations, of which the device makes images.

    They depend on the address of the examples, the epoch and the number of the batch alone.

    Parameters
    ----------
    data
        The examples.
    scaling
        Which parameters to predict, and their scaling.
    batch_size
        Examples of a batch.
    """

    data: OnlineExamples

    def __init__(self, data: OnlineExamples, scaling: LabelScaling, batch_size: int) -> None:
        super().__init__(data, data.examples, batch_size)
        self.scaling = scaling
        self.columns = [PARAMETERS.index(name) for name in scaling.parameters]

    def batch(self, first: int, end: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
        """Return numbers of patterns and transformations, and scaled labels."""
        seed, semiangle_mrad, layers = self.data.address
        address = ("online", float(semiangle_mrad), layers, self.epoch, first)
        random = stream(seed, *address)
        library, count = self.data.library, end - first
        pattern = random.integers(len(library.draws), size=count)
        transformation = draw_transformations(random, self.data.settings, count)
        labels = np.insert(library.parameters[pattern], 3, transformation[:, 0], axis=1)
        targets = self.scaling.scale(labels[:, self.columns])
        inputs = pattern.astype(np.int32), transformation.astype(np.float32)
        return inputs, targets.astype(np.float32)

    @property
    def draws(self) -> np.ndarray:
        """Indices of the draws that the examples show."""
        return np.unique(np.asarray(self.data.library.draws))

    def arrays(self) -> Iterator[np.ndarray]:
        """Yield what tells these examples from others."""
        library = self.data.library
        yield library.patterns[:, library.patterns.shape[1] // 2]
        yield from (library.parameters, np.asarray(library.draws), np.array(library.pixel_mrad))
