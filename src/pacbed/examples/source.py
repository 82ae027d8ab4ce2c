"""Examples at their addresses: which pattern each shows, how, and with what noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pacbed.examples.augment import (
    AugmentationSettings,
    FINE_PIXEL_mrad,
    error_of_stored_pixels,
)
from pacbed.examples.labels import PARAMETERS
from pacbed.examples.pattern_set import PatternSet, read_pattern_set
from pacbed.examples.pool import read_pool
from pacbed.seeding import stream


@dataclass(frozen=True)
class ExampleSource:
    """What determines a set of examples.

    An example depends on its address alone: seed, semi-angle, number of layers, split, epoch and
    number. The examples of a file are those of epoch 0; a larger set begins with the same examples.

    Parameters
    ----------
    library
        Patterns to choose from, each equally likely. Of a pool of draws for validation or test,
        every draw is taken in turn, each time with its next image.
    settings
        Ranges of the transformations.
    examples
        Number of examples, of a file or of each epoch.
    address
        Seed, semi-angle in mrad, number of layers, and name of the split.
    """

    library: PatternSet
    settings: AugmentationSettings
    examples: int
    address: tuple[int, float, int, str]

    @classmethod
    def read(
        cls,
        stores: Sequence[Path],
        draws: Sequence[int] | None,
        settings: AugmentationSettings,
        examples: int,
        address: tuple[int, float, int, str],
    ) -> ExampleSource:
        """Read the patterns of an address from the stores of some draws, or from a pool if None."""
        _, semiangle_mrad, layers, _ = address
        if draws is None:
            library = read_pool(stores[0], semiangle_mrad, layers, settings)
        else:
            library = read_pattern_set(stores, draws, layers, semiangle_mrad)
        return cls(library, settings, examples, address)

    def note_on_pixels(self) -> str | None:
        """Return what to say of patterns that are stored in coarse pixels, if they are."""
        pixel, semiangle_mrad = max(self.library.pixel_mrad), self.address[1]
        if self.library.geometry is not None or pixel <= FINE_PIXEL_mrad:
            return None
        return (
            f"note: patterns are stored in pixels of {pixel:.2g} mrad, so that examples differ by "
            f"about {100 * error_of_stored_pixels(pixel, semiangle_mrad):.1g} % (relative L1, at "
            "the edges of discs) from integrals over the pixels of the camera; more "
            "simulation.pixels make it less"
        )

    def draw(
        self, first: int, end: int, epoch: int = 0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw what :class:`pacbed.examples.augment_layer.Augmentation` makes images of.

        Parameters
        ----------
        first, end
            Numbers of the first example and of the one after the last.
        epoch
            Number of the epoch, from zero.

        Returns
        -------
        pattern
            Number of the pattern of each example, shape (examples,), int32.
        transformation
            Shape (examples, 6 or more), float32, columns as
            :attr:`pacbed.examples.augment.AugmentationSettings.columns`.
        key
            Key of the noise, shape (examples, 2), int32.
        """
        seed, semiangle_mrad, layers, split = self.address
        address = ("example", float(semiangle_mrad), layers, split, epoch)
        uniform = np.empty((end - first, 1 + len(self.settings.columns)))
        key = np.empty((end - first, 2), np.uint32)
        for row, number in enumerate(range(first, end)):
            random = stream(seed, *address, number)
            uniform[row, :7] = random.random(7)
            key[row] = random.integers(2**32, size=2, dtype=np.uint32)
            # After all others, so that these are the same with another camera.
            uniform[row, 7:] = random.random(uniform.shape[1] - 7)
        pattern = self._pattern(np.arange(first, end), uniform[:, 0])
        transformation = self.settings.transformations(uniform[:, 1:]).astype(np.float32)
        if self.library.geometry is not None:
            known = [self.settings.columns.index(name) for name in self.settings.geometry]
            transformation[:, known] = self.library.geometry[pattern]
        return pattern, transformation, key.view(np.int32)

    def _pattern(self, number: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Return the number of the pattern of each example, int32."""
        patterns = len(self.library.patterns)
        if self.library.geometry is None or self.address[3] == "train":
            return (uniform * patterns).astype(np.int32)
        # One draw after another has all of its images.
        draws = len(set(self.library.draws))
        each = patterns // draws
        return (number % draws * each + number // draws % each).astype(np.int32)

    def labels(self, pattern: np.ndarray, transformation: np.ndarray) -> np.ndarray:
        """Return the physical parameters of examples, shape (examples, 6).

        Columns are as :data:`pacbed.examples.labels.PARAMETERS`.
        """
        return np.insert(self.library.parameters[pattern], 3, transformation[:, 0], axis=1)

    @property
    def attributes(self) -> dict[str, Any]:
        """Provenance of the examples."""
        seed, semiangle_mrad, layers, split = self.address
        simulation = self.library.simulation
        return {
            "seed": seed,
            "semiangle_mrad": semiangle_mrad,
            "layers": layers,
            "split": split,
            "augmentation": self.settings.described(),
            "parameters": PARAMETERS,
            **({"simulation": simulation} if simulation else {}),
        }
