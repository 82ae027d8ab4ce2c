"""Learning rates: stepped, as in the paper, or one cycle, for far fewer examples."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import keras


@dataclass(frozen=True)
class SteppedSchedule:
    """Learning rate that changes in steps (Yankovich et al. 2026, 2.5).

    Parameters
    ----------
    steps
        Pairs of a number of epochs and the learning rate during these.
    """

    steps: tuple[tuple[int, float], ...]

    @property
    def epochs(self) -> int:
        """Length of the training."""
        return sum(epochs for epochs, _ in self.steps)

    def of_batches(self, batches: int) -> keras.optimizers.schedules.LearningRateSchedule:
        """Return the rate as a function of the number of batches done, of so many per epoch."""
        lengths, rates = zip(*self.steps, strict=True)
        # A rate of Keras holds up to and including its boundary.
        ends = [batches * epochs - 1 for epochs in accumulate(lengths)]
        return keras.optimizers.schedules.PiecewiseConstantDecay(ends, [*rates, rates[-1]])


@dataclass(frozen=True)
class OneCycleSchedule:
    """Learning rate that rises linearly and falls to nothing along half a cosine.

    After Smith and Topin (2019), "Super-convergence", with the cosine of Loshchilov and Hutter
    (2017), "SGDR".

    Parameters
    ----------
    epochs
        Length of the training.
    peak_rate
        Highest learning rate.
    warm_up
        Share of the training in which it is reached.
    """

    epochs: int
    peak_rate: float
    warm_up: float

    def of_batches(self, batches: int) -> keras.optimizers.schedules.LearningRateSchedule:
        """Return the rate as a function of the number of batches done, of so many per epoch."""
        total = batches * self.epochs
        rising = round(self.warm_up * total)
        return keras.optimizers.schedules.CosineDecay(
            0.0, max(1, total - rising), warmup_target=self.peak_rate, warmup_steps=rising
        )


Schedule = SteppedSchedule | OneCycleSchedule
