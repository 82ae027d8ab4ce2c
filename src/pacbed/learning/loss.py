"""The loss: what a training makes small, besides the mean squared error of the paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

Loss = Callable[[Any, Any], Any]
"""From scaled labels and predictions (examples, columns) to a number per example."""


def relative_to(scales: Sequence[float]) -> Loss:
    """Return the loss of errors in units of what can be read.

    It is the mean of √(1 + (error/scale)²) - 1 (pseudo-Huber), quadratic up to the scale and linear
    beyond. Parameters that cannot be read weigh little, those that can all count alike.

    Parameters
    ----------
    scales
        Of each column, in the unit of the scaled labels.
    """

    def loss(truth: Any, predicted: Any) -> Any:
        relative = (predicted - truth) / ops.array(scales, dtype="float32")
        return ops.mean(ops.sqrt(1 + relative * relative) - 1, axis=-1)

    return loss
