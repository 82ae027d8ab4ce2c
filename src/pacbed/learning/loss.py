"""Losses: what a training makes small, besides the mean squared error of the paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras import losses, ops

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


def of_both_answers(final: Loss, outputs: int) -> Loss:
    """Return the loss of a final answer plus the mean squared error of a first one.

    Parameters
    ----------
    final
        Loss of the final answer.
    outputs
        Parameters. Labels begin with these and have further ones; predictions are what the final
        loss takes, and then the first answer, which has the columns of the labels.
    """

    def loss(truth: Any, predicted: Any) -> Any:
        first = losses.mean_squared_error(truth, predicted[:, -truth.shape[1] :])
        return final(truth[:, :outputs], predicted[:, : -truth.shape[1]]) + first

    return loss


def of_answer(answer: Loss, outputs: int) -> Loss:
    """Return the loss of predictions that end with uncertainties, which do not count."""
    return lambda truth, predicted: answer(truth, predicted[:, :outputs])


def with_uncertainty(answer: Loss, outputs: int) -> Loss:
    """Return the loss of an answer plus the score of the standard deviations that it states.

    The score is the negative logarithm of the likelihood of the errors, if they are normal (Nix &
    Weigend 1994); it is least if they are as large as stated. It teaches the uncertainty alone: no
    gradient reaches the answer.

    Parameters
    ----------
    answer
        Loss of the answer.
    outputs
        Its columns; predictions are these, and then the logarithm of each standard deviation.
    """

    def loss(truth: Any, predicted: Any) -> Any:
        log_sigma = predicted[:, outputs:]
        error = ops.stop_gradient(truth - predicted[:, :outputs])
        score = log_sigma + ops.square(error * ops.exp(-log_sigma)) / 2
        return answer(truth, predicted[:, :outputs]) + ops.mean(score, axis=-1)

    return loss
