"""From a configuration to what a training takes, the same for rule and command. Needs Keras."""

from __future__ import annotations

import math
from pathlib import Path

from pacbed.examples.labels import LabelScaling
from pacbed.exceptions import PacbedError
from pacbed.learning.network import NetworkSettings
from pacbed.learning.schedule import OneCycleSchedule, Schedule, SteppedSchedule
from pacbed.learning.training import TrainingSettings
from pacbed.storage.tables import read_table
from pacbed.study.model import Configuration
from pacbed.study.sections import TrainingSection

_FINEST = 1 / 3000
"""Part of a half-range below which errors are not told apart: networks do not come that far."""


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


def error_scales(
    bounds: Path, semiangle_mrad: float, layers: int, scaling: LabelScaling
) -> tuple[float, ...]:
    """Return the mean absolute error that an example allows, in units of the half-ranges.

    It is the bound with known ranges and the noise of the examples, but at least 1/3000 and at
    most 1. A parameter that does not vary has none: its scale is 1.

    Parameters
    ----------
    bounds
        As of :func:`pacbed.precision.bound_table.mean_bounds`.
    semiangle_mrad, layers
        Of the examples.
    scaling
        Parameters and their ranges.

    Raises
    ------
    PacbedError
        If the table cannot be read, or lacks the semi-angle, the thickness or a parameter.
    """
    table = read_table(bounds)
    try:
        of_one = (table["semiangle_mrad"] == semiangle_mrad) & (table["layers"] == layers)
        found = table[of_one].set_index("parameter")["data_mae"]
        mean = [float(found.loc[name]) for name in scaling.parameters]
    except (KeyError, TypeError) as error:
        raise PacbedError(
            f"{bounds} has no bounds for {semiangle_mrad:g} mrad and {layers} layers: {error}. "
            "Have it made again"
        ) from error
    relative = [one / half for one, half in zip(mean, scaling.half_range, strict=True)]
    return tuple(1.0 if math.isnan(one) else min(max(one, _FINEST), 1.0) for one in relative)


def training_settings(
    study: Configuration, intensity: str, error_scales: tuple[float, ...] | None = None
) -> TrainingSettings:
    """Return the settings of the trainings on images of one intensity scale.

    Used are sections ``network`` and ``training``, the seed and the range of image means; with
    the loss ``fisher``, the scales of :func:`error_scales`.

    Raises
    ------
    ValueError
        If the loss needs scales and there are none, or the reverse.
    """
    section = study.training
    if (section.loss == "fisher") != (error_scales is not None):
        raise ValueError("scales of errors belong to the loss fisher, and to no other")
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
        error_scales=error_scales,
    )
