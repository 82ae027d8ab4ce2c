"""Standard deviations that a network states, taught when its answers are."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from pacbed.learning.fine import Put
from pacbed.learning.network import jit_compile
from pacbed.learning.sequences import ExampleSequence, joined, outputs_of
from pacbed.seeding import stream

_EPOCHS, _BATCH, _RATE = 30, 256, 2e-3
# Median of what is normal with unit variance, without its sign.
_NORMAL_MEDIAN = 0.6745


def fit_uncertainty(
    network: keras.Model,
    outputs: int,
    batches: ExampleSequence,
    validation: ExampleSequence,
    put: Put,
    epoch: int,
    seed: int,
) -> None:
    """Train what states the standard deviations of the answers of a network, which stay.

    The loss is the negative logarithm of the likelihood of the errors, if they are normal (Nix &
    Weigend 1994). Errors on examples that have been learnt are too small: then each standard
    deviation is scaled by the validation set.

    Parameters
    ----------
    network
        Its answers are trained.
    outputs
        Predicted parameters, of which the labels may be followed by nuisances.
    batches, validation
        Examples of the training, and others.
    put
        See :data:`pacbed.learning.fine.Put`.
    epoch
        The first epoch of the batches from which nothing was learnt.
    seed
        Of the order of the examples.
    """
    dense, last = network.get_layer("uncertainty_dense"), network.get_layer("log_sigma")
    model = keras.Model(network.input, [dense.input, network.output])

    def looked(model: keras.Model, of: ExampleSequence) -> tuple[np.ndarray, np.ndarray]:
        (seen, answer), targets = joined(outputs_of(model, of, epoch))
        return seen, targets[:, :outputs] - answer[:, :outputs]

    seen, errors = looked(put(model), batches)
    inputs = keras.Input(seen.shape[1:])
    stating = keras.Model(inputs, last(dense(inputs)))
    steps = _EPOCHS * -(-len(seen) // _BATCH)
    rate = keras.optimizers.schedules.CosineDecay(_RATE, steps)

    def score(errors: np.ndarray, log_sigma: np.ndarray) -> np.ndarray:
        return ops.mean(log_sigma + ops.square(errors * ops.exp(-log_sigma)) / 2, axis=-1)

    optimizer = keras.optimizers.Adam(rate)
    stating.compile(optimizer, loss=score, jit_compile=jit_compile(xla=False))
    last.bias.assign(np.log(np.sqrt((errors**2).mean(axis=0))))
    order = stream(seed, "uncertainty").permutation(len(seen))
    stating.fit(
        seen[order],
        errors[order],
        epochs=_EPOCHS,
        batch_size=_BATCH,
        shuffle=False,
        verbose=0,
    )
    if not batches.fresh:
        seen, errors = looked(model, validation)
        relative = np.abs(errors) * np.exp(-stating.predict(seen, verbose=0))
        # By medians: a validation set has few draws, and one of them may be read badly.
        last.bias.assign(last.bias + np.log(np.median(relative, axis=0) / _NORMAL_MEDIAN))
