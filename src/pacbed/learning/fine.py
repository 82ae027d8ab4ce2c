"""The second part of a coarse-to-fine network, found by least squares instead of steps.

A rectified image differs little from that of the undeformed crystal, and what is still to be read
changes it almost linearly. So the principal components of such images, and their products with the
answer so far, are regressed on the errors of this answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import keras
import numpy as np
from threadpoolctl import threadpool_limits

from pacbed.learning.callbacks import set_values
from pacbed.learning.sequences import ExampleSequence, joined, outputs_of
from pacbed.learning.sizes import FITTED_EPOCHS, LOOKS, corrected_by
from pacbed.seeding import stream

# Examples at most of which principal components are taken.
_FEWER = 8192
# Examples, at least, for each feature.
_PER_FEATURE = 8
# Further directions, and rounds, by which components are found (Halko, Martinsson & Tropp 2011).
_MORE, _ROUNDS = 30, 3
# Examples that are added up at a time.
_TOGETHER = 1024
# Ridges, in units of the mean square of a feature. The validation set chooses one of each column,
# or that it is not corrected: large ones are best for what is hardly seen.
_RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10)

Put = Callable[[keras.Model], keras.Model]
"""Puts the making of examples in front of a model, if batches need it."""


def fit_looks(
    network: keras.Model,
    batches: ExampleSequence,
    validation: ExampleSequence,
    put: Put,
    epoch: int,
    log: Callable[[str], None] = lambda line: None,
) -> None:
    """Find the components and corrections of a network whose first part is trained.

    Parameters
    ----------
    network
        Of the kind ``coarse-to-fine``.
    batches
        Examples of the training, whose labels end with the nuisances.
    validation
        Examples by which the ridges are chosen, with the same labels.
    put
        See :data:`Put`.
    epoch
        The first epoch of the batches that the training has not used.
    log
        Receives a line for each look.
    """
    with threadpool_limits(1, "blas"):  # sums would depend on the number of threads
        for look in range(1, LOOKS + 1):
            components = network.get_layer(f"components{look}")
            correction = network.get_layer(f"correction{look}")
            shown = put(keras.Model(network.input, components.input))
            some = islice(outputs_of(shown, batches, epoch), -(-_FEWER // batches.batch_size))
            regressed = batches.examples * (FITTED_EPOCHS if batches.fresh else 1)
            told = correction.units
            most = (regressed / _PER_FEATURE - corrected_by(told, 0)) / (1 + told)
            count = int(np.clip(most, 1, components.units))
            found = _principal(joined(some)[0][0], count, components.units)
            set_values(components.weights, found)
            outputs = [correction.input, network.get_layer(f"known{look}").output]
            features = keras.Model(network.input, outputs)
            sums = _sums(put(features), batches, epoch)
            tested = joined(outputs_of(features, validation, 0))
            set_values(correction.weights, _regressed(*sums, tested))
            log(f"look {look} of {LOOKS}: {sums[2]:,} examples regressed on {count} components")


def _principal(shown: np.ndarray, components: int, units: int) -> list[np.ndarray]:
    """Return kernel and bias of principal components of images, of unit variance; others are 0."""
    mean = shown.mean(axis=0)
    shown = shown - mean
    wanted = min(components + _MORE, *shown.shape)
    basis = stream(0, "components").standard_normal((shown.shape[1], wanted)).astype(np.float32)
    for _ in range(_ROUNDS):
        basis = np.linalg.qr(shown.T @ (shown @ basis))[0]
    _, sizes, turned = np.linalg.svd(shown @ basis, full_matrices=False)
    sizes = np.maximum(sizes, 1e-6 * sizes[0])
    kernel = (basis @ turned.T / sizes * np.sqrt(len(shown)))[:, :components]
    kernel = np.pad(kernel, ((0, 0), (0, units - kernel.shape[1])))
    return [kernel.astype(np.float32), -mean @ kernel]


def _sums(
    model: keras.Model, batches: ExampleSequence, epoch: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the normal equations of features and a constant: both sides, and the examples."""
    features, outputs = (shape[-1] for shape in model.output_shape)
    left, right = np.zeros((features + 1,) * 2), np.zeros((features + 1, outputs))
    count = 0
    for (seen, known), targets in _together(outputs_of(model, batches, epoch)):
        seen = _with_constant(seen)
        left += seen.T @ seen
        right += seen.T @ (targets.astype(float) - known)
        count += len(targets)
    return left, right, count


def _together(
    seen: Iterator[tuple[list[np.ndarray], np.ndarray]],
) -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
    """Put batches together: sums of few rows are slow."""
    kept: list[tuple[list[np.ndarray], np.ndarray]] = []
    for one in seen:
        kept.append(one)
        if sum(len(targets) for _, targets in kept) >= _TOGETHER:
            yield joined(kept)
            kept = []
    if kept:
        yield joined(kept)


def _with_constant(features: np.ndarray) -> np.ndarray:
    return np.hstack([features.astype(float), np.ones((len(features), 1))])


def _regressed(
    left: np.ndarray,
    right: np.ndarray,
    count: int,
    tested: tuple[list[np.ndarray], np.ndarray],
) -> list[np.ndarray]:
    """Return kernel and bias of the regression that is best on the validation set."""
    scale = np.sqrt(np.maximum(np.diag(left) / count, 1e-12))
    left, right = left / np.outer(scale, scale), right / scale[:, None]
    (features, known), targets = tested
    features, wrong = _with_constant(features), targets - known
    tried = [
        np.linalg.solve(left + ridge * count * np.eye(len(left)), right) / scale[:, None]
        for ridge in _RIDGES
    ]
    tried.append(np.zeros_like(right))
    errors = np.array([np.abs(features @ weights - wrong).mean(axis=0) for weights in tried])
    best = errors.argmin(axis=0)
    weights = np.stack([tried[n][:, column] for column, n in enumerate(best)], axis=1)
    return [weights[:-1].astype(np.float32), weights[-1].astype(np.float32)]
