"""From a configuration to what a training takes, the same for rule and command. Needs Keras."""

from __future__ import annotations

from pacbed.learning.network import NetworkSettings
from pacbed.learning.schedule import OneCycleSchedule, Schedule, SteppedSchedule
from pacbed.learning.training import TrainingSettings
from pacbed.study.model import Configuration
from pacbed.study.sections import TrainingSection


def schedule(section: TrainingSection) -> Schedule:
    """Return the learning rate."""
    if section.schedule == "paper":
        return SteppedSchedule(tuple((s.epochs, s.rate) for s in section.learning_rate_steps))
    fast = section.fast
    return OneCycleSchedule(fast.epochs, fast.peak_rate, fast.warm_up)


def network_settings(study: Configuration, intensity: str) -> NetworkSettings:
    """Return the widths of the networks on images of one intensity scale."""
    image_mean = study.dataset.image_mean
    return NetworkSettings(**dict(study.network), intensity=intensity, image_mean=image_mean)


def training_settings(study: Configuration, intensity: str) -> TrainingSettings:
    """Return the settings of the trainings on images of one intensity scale.

    Used are sections ``network`` and ``training``, the seed and the range of image means.
    """
    section = study.training
    fast = section.fast if section.schedule == "fast" else None
    return TrainingSettings(
        network=network_settings(study, intensity),
        schedule=schedule(section),
        batch_size=section.examples_per_step,
        momentum=section.momentum,
        seed=study.seed,
        averaged_epochs=fast.averaged_epochs if fast else 0,
        precision=section.precision,
        xla=section.xla,
        optimizer=fast.optimizer if fast else "sgd",
    )
