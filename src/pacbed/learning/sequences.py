"""The examples of an epoch in batches, from a file or made anew, in an order that repeats."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from pacbed.examples.augment import label_columns
from pacbed.examples.dataset import Dataset
from pacbed.examples.labels import LabelScaling
from pacbed.examples.source import ExampleSource
from pacbed.learning.sizes import FITTED_EPOCHS
from pacbed.seeding import stream


class ExampleSequence(keras.utils.PyDataset, ABC):
    """Batches of an epoch, for ``fit`` of Keras with ``shuffle=False``; the last may be smaller.

    Draws, attributes and arrays are what tells the examples from others.
    """

    fresh = False
    """Whether every epoch has examples of its own."""

    def __init__(
        self,
        examples: int,
        batch_size: int,
        draws: Sequence[int] | np.ndarray,
        attributes: Mapping[str, Any],
        arrays: Sequence[np.ndarray],
    ) -> None:
        super().__init__()
        self.examples, self.batch_size = examples, batch_size
        self.draws = np.unique(np.asarray(draws))
        self.attributes, self.arrays = attributes, arrays
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


class StoredSequence(ExampleSequence):
    """Batches of images as stored, in half precision until they are on the device.

    With a seed the order is another in every epoch, and depends on the seed and the epoch alone.
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
        # Images may be many gigabytes: of each the middle row is looked at.
        rows = data.images[:, data.images.shape[1] // 2]
        arrays = rows, data.labels, data.draws, data.transformations
        super().__init__(len(rows), batch_size, data.draws, data.attributes, arrays)

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


class OnlineSequence(ExampleSequence):
    """Batches of what the device makes images of: every epoch has its own examples."""

    fresh = True

    def __init__(self, source: ExampleSource, scaling: LabelScaling, batch_size: int) -> None:
        self.source = source
        self.scaling = scaling
        attributes = {**source.attributes, "online": True, "examples": source.examples}
        library = source.library
        rows, draws = library.patterns[:, library.patterns.shape[1] // 2], np.array(library.draws)
        arrays = rows, library.parameters, draws, np.array(library.pixel_mrad)
        super().__init__(source.examples, batch_size, draws, attributes, arrays)

    def _batch(self, first: int, end: int) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """Return inputs of the layer that makes the images, and scaled labels."""
        pattern, transformation, key = self.source.draw(first, end, self.epoch)
        labels = label_columns(
            self.scaling.parameters,
            self.source.labels(pattern, transformation),
            transformation,
            self.source.settings.field_of_view_mrad,
        )
        targets = self.scaling.scale(labels).astype(np.float32)
        return (pattern, transformation, key), targets


def outputs_of(
    model: keras.Model, batches: ExampleSequence, epoch: int
) -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
    """Yield what a model makes of each batch, a list of its outputs, and the labels.

    Of :data:`pacbed.learning.sizes.FITTED_EPOCHS` epochs, if these differ.
    """
    for later in range(FITTED_EPOCHS if batches.fresh else 1):
        batches.begin_epoch(epoch + later)
        for number in range(len(batches)):
            inputs, targets = batches[number]
            found = model.predict_on_batch(inputs)
            yield found if isinstance(found, list) else [found], targets


def joined(
    parts: Iterable[tuple[list[np.ndarray], np.ndarray]],
) -> tuple[list[np.ndarray], np.ndarray]:
    """Put such outputs and labels of batches together."""
    outputs, targets = zip(*parts, strict=True)
    return [np.concatenate(some) for some in zip(*outputs, strict=True)], np.concatenate(targets)
