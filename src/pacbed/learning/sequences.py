"""The examples of an epoch in batches, from a file or made anew, in an order that repeats."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from pacbed.examples.dataset import Dataset
from pacbed.examples.labels import PARAMETERS, LabelScaling
from pacbed.examples.source import ExampleSource
from pacbed.seeding import stream


class ExampleSequence(keras.utils.PyDataset, ABC):
    """Batches of an epoch, for ``fit`` of Keras with ``shuffle=False``.

    Parameters
    ----------
    examples
        Number of examples of an epoch.
    batch_size
        Examples of a batch; the last of an epoch may be smaller.
    draws
        Indices of the draws that the examples show.
    attributes
        Provenance of the examples.
    """

    def __init__(
        self, examples: int, batch_size: int, draws: np.ndarray, attributes: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.examples = examples
        self.batch_size = batch_size
        self.draws = draws
        self.attributes = attributes
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from zero, on which the examples or their order depend."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.examples // self.batch_size)

    def __getitem__(self, number: int) -> tuple[Any, np.ndarray]:
        first = number * self.batch_size
        return self._batch(first, min(first + self.batch_size, self.examples))

    @abstractmethod
    def _batch(self, first: int, end: int) -> tuple[Any, np.ndarray]:
        """Return the inputs and scaled labels of some examples of the epoch."""

    @abstractmethod
    def arrays(self) -> Iterator[np.ndarray]:
        """Yield what tells these examples from others."""


class StoredSequence(ExampleSequence):
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

    def __init__(
        self,
        data: Dataset,
        scaling: LabelScaling,
        batch_size: int,
        shuffle_seed: int | None = None,
    ) -> None:
        self.data = data
        self.targets = scaling.scale(data.columns(scaling.parameters)).astype(np.float32)
        self.shuffle_seed = shuffle_seed
        super().__init__(len(data.images), batch_size, np.unique(data.draws), data.attributes)

    def begin_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from zero, on which the order depends."""
        super().begin_epoch(epoch)
        self.order = np.arange(self.examples)
        if self.shuffle_seed is not None:
            self.order = stream(self.shuffle_seed, "shuffle", epoch).permutation(self.examples)

    def _batch(self, first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Return images (examples, pixels, pixels, 1), float16, and scaled labels."""
        chosen = self.order[first:end]
        return self.data.images[chosen, :, :, None], self.targets[chosen]

    def arrays(self) -> Iterator[np.ndarray]:
        """Yield what tells these examples from others."""
        images = self.data.images
        # They may be many gigabytes: of each the middle row is looked at.
        yield images[:, images.shape[1] // 2]
        yield from (self.data.labels, self.data.draws, self.data.transformations)


class OnlineSequence(ExampleSequence):
    """Batches of what the device makes images of: every epoch has its own examples.

    Parameters
    ----------
    source
        The examples.
    scaling
        Which parameters to predict, and their scaling.
    batch_size
        Examples of a batch.
    """

    def __init__(self, source: ExampleSource, scaling: LabelScaling, batch_size: int) -> None:
        self.source = source
        self.scaling = scaling
        self.columns = [PARAMETERS.index(name) for name in scaling.parameters]
        attributes = {**source.attributes, "online": True, "examples": source.examples}
        draws = np.unique(np.asarray(source.library.draws))
        super().__init__(source.examples, batch_size, draws, attributes)

    def _batch(self, first: int, end: int) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """Return inputs of the layer that makes the images, and scaled labels."""
        pattern, transformation, key = self.source.draw(first, end, self.epoch)
        labels = self.source.labels(pattern, transformation)
        targets = self.scaling.scale(labels[:, self.columns]).astype(np.float32)
        return (pattern, transformation, key), targets

    def arrays(self) -> Iterator[np.ndarray]:
        """Yield what tells these examples from others."""
        library = self.source.library
        yield library.patterns[:, library.patterns.shape[1] // 2]
        yield from (library.parameters, np.asarray(library.draws), np.array(library.pixel_mrad))
