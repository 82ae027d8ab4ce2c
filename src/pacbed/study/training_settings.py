"""From sections of a configuration to what a training takes, the same for rule and command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pacbed.examples.labels import LabelScaling
from pacbed.examples.pattern_set import read_pattern_set
from pacbed.learning.schedule import schedule
from pacbed.learning.sequences import OnlineExamples
from pacbed.learning.training import TrainingSettings
from pacbed.study.configuration import augmentation_settings, training_batch

Section = Mapping[str, Any]


def training_settings(
    network: Section, training: Section, intensity: str, image_mean: Sequence[float], seed: int
) -> TrainingSettings:
    """Return the settings of a training.

    Parameters
    ----------
    network, training
        Sections of a configuration; of the second, keys of the schedule that is not used may be
        absent.
    intensity
        Intensity scale of the images.
    image_mean
        Range of the image mean, of section ``dataset``.
    seed
        Seed of the study.
    """
    fast = training["schedule"] == "fast"
    return TrainingSettings(
        network={**network, "intensity": intensity, "image_mean": image_mean},
        schedule=schedule(training),
        batch_size=training_batch(training),
        momentum=training["momentum"],
        seed=seed,
        averaged_epochs=training["fast"]["averaged_epochs"] if fast else 0,
        precision=training["precision"],
        xla=training["xla"],
        optimizer=training["fast"]["optimizer"] if fast else "sgd",
    )


def label_scaling(outputs: str, deformation: Section) -> LabelScaling:
    """Return the scaling of some outputs to the ranges of section ``deformation``."""
    return LabelScaling.from_ranges(
        outputs,
        deformation["principal_stretch"],
        deformation["rotation_deg"],
        deformation["tilt_mrad"],
    )


def online_examples(
    stores: Sequence[Path],
    draws: Sequence[int],
    address: tuple[int, float, int],
    examples: int,
    augmentation: Section,
) -> OnlineExamples:
    """Read the patterns of which training examples are made while a network learns.

    Parameters
    ----------
    stores, draws
        Pattern stores of the training draws, and the numbers of these.
    address
        Seed, semi-angle in mrad and number of layers.
    examples
        Number of examples of an epoch.
    augmentation
        A configuration, of which sections ``deformation`` and ``dataset`` are used.

    Raises
    ------
    StoreError
        If a store is missing or damaged, or its detector differs from that of the others.
    """
    seed, semiangle_mrad, layers = address
    return OnlineExamples(
        read_pattern_set(stores, draws, layers, semiangle_mrad),
        augmentation_settings(augmentation),
        examples,
        (seed, semiangle_mrad, layers),
    )
