"""Training: a schedule, an optimizer, and the weights of the best validation epoch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import pandas as pd
from keras.losses import mean_squared_error

from pacbed.examples.augment_layer import Augmentation
from pacbed.examples.dataset import Dataset, refuse_other_simulation
from pacbed.examples.labels import LabelScaling
from pacbed.examples.source import ExampleSource
from pacbed.exceptions import PacbedError, StoreError
from pacbed.learning.callbacks import BestWeights, Divergence, Resume, set_values, values_of
from pacbed.learning.checkpoint import TrainingCheckpoint, fingerprint
from pacbed.learning.fine import fit_looks
from pacbed.learning.loss import Loss, relative_to
from pacbed.learning.network import (
    NetworkSettings,
    build_network,
    jit_compile,
    load_network,
    part_of_steps,
    save_network,
)
from pacbed.learning.prediction import border_share
from pacbed.learning.schedule import Schedule
from pacbed.learning.sequences import ExampleSequence, OnlineSequence, StoredSequence
from pacbed.learning.sizes import FITTED_EPOCHS, Precision
from pacbed.learning.uncertainty import fit_uncertainty
from pacbed.machine import noting_sigterm
from pacbed.storage.files import write_text
from pacbed.storage.waiting import finish, waiting
from pacbed.storage.zipped import checkpoint_of

EpochReport = Callable[[int, int, Mapping[str, float]], None]
"""Called after each epoch with its number, the number of epochs, and the losses."""

PRODUCTS = ("model.keras", "history.csv", "settings.json")
"""Files of a training that has ended."""

DIVERGED = "diverged_batch.npz"
"""Name of the file that keeps the batch after which a loss was no number any more."""

# Of Adam, the decay of the mean square: a tenth of the usual memory, for trainings as short as
# these.
_BETA_2 = 0.99

_TOLERANCE = 0.05
"""Relative difference of validation losses from which it is said that the precision matters."""


@dataclass(frozen=True)
class TrainingSettings:
    """What determines a training besides its data.

    Parameters
    ----------
    network
        Widths and intensity scale.
    schedule
        Learning rate.
    batch_size
        Examples per step.
    momentum
        Decay of the running mean of the gradients.
    seed
        Seed of weights, shuffling, and image means.
    averaged_epochs
        If not zero, the mean of the weights after so many last epochs is validated, and kept if it
        is best: stochastic weight averaging (Izmailov et al. 2018).
    precision
        Of the numbers, one of :data:`pacbed.learning.sizes.Precision`. The network that is kept
        computes in single precision.
    xla
        Whether steps are compiled by XLA, which takes :func:`configure` without determinism.
    optimizer
        ``sgd``, gradient descent with momentum, or ``adam`` (Kingma and Ba 2015), whose steps are
        scaled by the size of each gradient.
    error_scales
        If given, errors of each output are weighted by the inverse of this, in the unit of the
        scaled labels (:func:`pacbed.learning.loss.relative_to`); None is the mean squared error.
        For the kind ``paper`` only: the other's first part has further outputs.
    """

    network: NetworkSettings
    schedule: Schedule
    batch_size: int
    momentum: float
    seed: int
    averaged_epochs: int = 0
    precision: Precision = "float32"
    xla: bool = False
    optimizer: Literal["sgd", "adam"] = "sgd"
    error_scales: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.error_scales and self.network.corrects:
            raise ValueError("scales of errors are for networks of the kind paper")

    @property
    def loss(self) -> Loss:
        """What steps make small, and what chooses the epoch that is kept."""
        return relative_to(self.error_scales) if self.error_scales else mean_squared_error


def configure(
    threads: int,
    gpu: bool = False,
    log: Callable[[str], None] = lambda line: None,
    deterministic: bool = True,
) -> None:
    """Set up the framework of this process: number of threads, and deterministic operations.

    Must be called before anything is computed.

    Parameters
    ----------
    threads
        Threads of the processor.
    gpu
        Whether a graphics card is reserved for this process.
    log
        Receives a line if one is, and cannot be used.
    deterministic
        Whether operations that add up in no fixed order are replaced. XLA may then not be used.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        if deterministic:
            tf.config.experimental.enable_op_determinism()
        if gpu and not tf.config.list_physical_devices("GPU"):
            log(
                "warning: a graphics card is reserved for this job, but TensorFlow sees none and "
                "computes on the CPU: install tensorflow[and-cuda] (docs/cluster.md)"
            )


def train(
    training: Dataset | ExampleSource,
    validation: Dataset,
    scaling: LabelScaling,
    settings: TrainingSettings,
    folder: Path,
    report: EpochReport | None = None,
    log: Callable[[str], None] = lambda line: None,
    initial: Path | None = None,
) -> pd.DataFrame:
    """Train a network and keep the weights with the lowest validation loss.

    What is found otherwise than by steps of the optimizer follows after these: corrections
    (:mod:`pacbed.learning.fine`), and what states an uncertainty
    (:mod:`pacbed.learning.uncertainty`).

    Parameters
    ----------
    training
        Examples, or patterns of which the device makes others in every epoch.
    validation
        Examples.
    scaling
        Which parameters to predict, and their scaling.
    settings
        Network, schedule, seed.
    folder
        Receives :data:`PRODUCTS`, all at the end of the training. Hidden files keep its state until
        then: one that was killed resumes after its last saved epoch and gives what it would have
        given otherwise. A training that has ended is not repeated.
    report
        Called after each epoch.
    log
        Receives a line when the training resumes, cannot do so, or is stopped, and for each
        correction.
    initial
        Trained network of the same widths and outputs, with whose weights the training begins.

    Returns
    -------
    pandas.DataFrame
        Learning rate, loss and validation loss of each epoch.

    Raises
    ------
    PacbedError
        If the training diverges, which removes its state and saves the batch at which it was seen,
        if the initial network cannot be used, if the sets share a draw, if the trained network
        answers with numbers that are not finite, or if something cannot be written.
    SystemExit
        After SIGTERM, see :class:`pacbed.learning.callbacks.Resume`.
    """
    pixels, outputs = validation.images.shape[1], len(scaling.parameters)
    learnt = _with_nuisances(scaling, training) if settings.network.corrects else scaling

    def build(precision: Precision) -> keras.Model:
        return build_network(pixels, outputs, settings.network, settings.seed, precision, learnt)

    whole = build(settings.precision)
    network = part_of_steps(whole)
    examples = StoredSequence(validation, learnt, settings.batch_size)
    batches, model = _batches(training, network, learnt, settings)
    _refuse_shared_draws(batches.draws, examples.draws)
    refuse_other_simulation(batches.attributes, examples.attributes, "the validation set")
    described: dict[str, Any] = {
        "scaling": asdict(scaling),
        "training": asdict(settings),
    }
    if initial:
        described["initial"] = _begin_with(network, initial)
    rate = settings.schedule.of_batches(len(batches))
    compiled = jit_compile(settings.xla)
    if compiled is True:
        from pacbed.scattering import xla

        xla.begin()
    network.compile(loss=settings.loss, jit_compile=compiled)
    model.compile(make_optimizer(rate, settings), loss=settings.loss, jit_compile=compiled)
    model.optimizer.build(model.trainable_variables)
    variables = [*network.variables, *model.optimizer.variables]

    described["data"] = dict(batches.attributes)
    depends_on = {
        **described,
        "validation": dict(examples.attributes),
        "variables": [tuple(variable.shape) for variable in (*variables, *whole.weights)],
        "fitted_epochs": FITTED_EPOCHS,
        "keras": [keras.__version__, keras.backend.backend()],
    }
    digest = fingerprint(depends_on, [*batches.arrays, *examples.arrays])
    kept = TrainingCheckpoint(checkpoint_of(folder / "model.keras"), digest, log)
    folder.mkdir(parents=True, exist_ok=True)
    if (finished := _finished(folder, digest)) is not None:
        log(f"{folder / 'model.keras'} is there already")
        kept.remove()
        return finished

    epochs = settings.schedule.epochs
    best = BestWeights(network, examples, epochs - settings.averaged_epochs)
    if state := kept.load():
        set_values(variables, state["all"])
        best.restore(state)
        log(f"resumes after epoch {len(best.losses)} of {epochs}")
    with noting_sigterm() as sigterm:
        model.fit(
            batches,
            initial_epoch=len(best.losses),
            epochs=epochs,
            shuffle=False,  # they are, in an order that depends on the epoch alone
            verbose=0,
            callbacks=[
                best,
                Divergence(batches, folder / DIVERGED, kept),
                Resume(kept, lambda: {"all": values_of(variables), **best.state}, sigterm),
                keras.callbacks.LambdaCallback(
                    on_epoch_begin=lambda epoch, logs: batches.begin_epoch(epoch),
                    on_epoch_end=lambda epoch, logs: report and report(epoch + 1, epochs, logs),
                ),
            ],
        )
    network = build("float32")  # without the optimizer
    trained = part_of_steps(network)
    set_values(trained.weights, best.weights)
    history = _history(best.losses, rate, len(batches))
    described |= {"parameters": network.count_params(), "fingerprint": digest}
    described["validation_loss"] = _check(trained, examples, history, settings, log)
    _complete(network, model, outputs, batches, examples, settings, log)
    described["validation_mae"] = _errors(network, examples, scaling)
    shares = border_share(validation.images)
    described["border_share"] = [float(shares.min()), float(shares.max())]
    _write(folder, network, history, described)
    kept.remove()
    return history


def make_optimizer(
    rate: keras.optimizers.schedules.LearningRateSchedule, settings: TrainingSettings
) -> keras.optimizers.Optimizer:
    """Make the optimizer of a training."""
    made: keras.optimizers.Optimizer
    if settings.optimizer == "adam":
        made = keras.optimizers.Adam(rate, beta_1=settings.momentum, beta_2=_BETA_2)
    else:
        made = keras.optimizers.SGD(rate, momentum=settings.momentum)
    if settings.precision == "mixed_float16":
        # Small gradients would vanish in half precision.
        return keras.optimizers.LossScaleOptimizer(made)
    return made


def on_device(network: keras.Model, source: ExampleSource) -> keras.Model:
    """Put the making of examples in front of a network.

    The model takes the inputs of :class:`pacbed.learning.sequences.OnlineSequence`.
    """
    layer = Augmentation(source.library, source.settings, name="augmentation")
    inputs = [
        keras.Input((), dtype="int32", name="pattern"),
        keras.Input((len(source.settings.columns),), name="transformation"),
        keras.Input((2,), dtype="int32", name="key"),
    ]
    return keras.Model(inputs, network(layer(*inputs)), name="online")


def _batches(
    training: Dataset | ExampleSource,
    network: keras.Model,
    scaling: LabelScaling,
    settings: TrainingSettings,
) -> tuple[ExampleSequence, keras.Model]:
    """Return batches and the model that takes them."""
    if isinstance(training, Dataset):
        return StoredSequence(training, scaling, settings.batch_size, settings.seed), network
    batches = OnlineSequence(training, scaling, settings.batch_size)
    return batches, on_device(network, training)


def _complete(
    network: keras.Model,
    model: keras.Model,
    outputs: int,
    batches: ExampleSequence,
    examples: StoredSequence,
    settings: TrainingSettings,
    log: Callable[[str], None],
) -> None:
    """Find what is not trained by the steps that trained a model."""

    def put(part: keras.Model) -> keras.Model:
        if not batches.fresh:
            return part
        # As in the model of the steps, which holds the patterns on the device.
        return keras.Model(model.inputs, part(model.get_layer("augmentation").output))

    epoch = settings.schedule.epochs
    if settings.network.corrects:
        fit_looks(network, batches, examples, put, epoch, log)
        epoch += FITTED_EPOCHS
    if settings.network.uncertainty:
        fit_uncertainty(network, outputs, batches, examples, put, epoch, settings.seed)


def _with_nuisances(scaling: LabelScaling, training: Dataset | ExampleSource) -> LabelScaling:
    """Return the scaling of all that moves discs in the training examples."""
    made = training.attributes["augmentation"]
    return scaling.with_nuisances(made["translation_px"], made["field_of_view_variation"])


def _refuse_shared_draws(training: np.ndarray, validation: np.ndarray) -> None:
    """Refuse sets that show the same deformations: the validation would say nothing."""
    shared = np.intersect1d(training, validation)
    if len(shared):
        raise PacbedError(
            f"training and validation examples share {len(shared)} draws, such as number "
            f"{shared[0]}: they are of different studies, or draws.split has changed. Make both "
            "sets with one configuration"
        )


def _begin_with(network: keras.Model, initial: Path) -> str:
    """Take the weights of a trained network, and return the digest of its file."""
    own = network.weights
    try:
        given = part_of_steps(load_network(initial)).weights
    except (AttributeError, ValueError):  # without layers of these names
        given = []
    if [weight.shape for weight in given] != [weight.shape for weight in own]:
        raise PacbedError(
            f"cannot begin with the weights of {initial}: that network has other layers, widths, "
            "outputs or images than this one. Give another, or training.warm_start: none"
        )
    set_values(own, values_of(given))
    return _sha256(initial)


def _finished(folder: Path, fingerprint: str) -> pd.DataFrame | None:
    """Return the history of this training if it has ended and its products are whole.

    Those that still wait for their names get them.
    """
    products = [folder / name for name in PRODUCTS]
    nameless = [product for product in products if waiting(product).exists()]
    model, history, settings = (waiting(p) if p in nameless else p for p in products)
    try:
        stored = json.loads(settings.read_text(encoding="utf-8"))
        expected = [fingerprint, [_sha256(model), _sha256(history)]]
        if [stored["fingerprint"], stored["sha256"]] != expected:
            return None
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            return None
        raise StoreError(f"cannot read {error.filename}: {error.strerror}") from error
    except (ValueError, LookupError, TypeError):  # damaged
        return None
    finish(nameless)
    return pd.read_csv(folder / "history.csv")


def _history(
    losses: Sequence[tuple[float, float]],
    rate: keras.optimizers.schedules.LearningRateSchedule,
    batches: int,
) -> pd.DataFrame:
    """Return a row for each epoch; the rate is that in its middle."""
    table = pd.DataFrame(losses, columns=["loss", "validation_loss"])
    steps = [math.floor((epoch + 0.5) * batches) for epoch in table.index]
    rates = [float(keras.ops.convert_to_numpy(rate(step))) for step in steps]
    table.insert(0, "epoch", table.index + 1)
    table.insert(1, "learning_rate", rates)
    return table


def _check(
    network: keras.Model,
    examples: StoredSequence,
    history: pd.DataFrame,
    settings: TrainingSettings,
    log: Callable[[str], None],
) -> dict[str, float]:
    """Return the best validation loss as seen, and as the network that is kept has it.

    In single precision and without XLA; a difference that matters is said.
    """
    seen = float(history["validation_loss"].min())
    if settings.precision == "float32" and not settings.xla:
        return {"in_training": seen}
    if keras.backend.backend() == "tensorflow":
        network.jit_compile = False
    predicted = network.predict(examples, verbose=0)
    kept = float(np.mean(settings.loss(examples.targets, predicted)))
    if abs(kept / seen - 1) > _TOLERANCE:
        log(
            f"warning: the validation loss was {seen:.3g} in training ({settings.precision}"
            f"{', XLA' if settings.xla else ''}), but is {kept:.3g} in single precision without "
            "it: compare with a training in that"
        )
    return {"in_training": seen, "of_the_model": kept}


def _errors(
    network: keras.Model, examples: StoredSequence, scaling: LabelScaling
) -> dict[str, float]:
    """Return the mean absolute error of each parameter, in its unit."""
    count = len(scaling.parameters)
    answers = network.predict(examples, verbose=0)
    if not np.isfinite(answers).all():
        raise PacbedError(
            "the trained network answers with numbers that are not finite: lower the rate of the "
            "training (training.fast.peak_rate, or training.learning_rate_steps)"
        )
    wrong = np.abs(answers[:, :count] - examples.targets[:, :count]).mean(axis=0)
    return dict(zip(scaling.parameters, map(float, wrong * scaling.half_range), strict=True))


def _write(
    folder: Path, network: keras.Model, history: pd.DataFrame, described: dict[str, Any]
) -> None:
    """Write the products of a training; all get their names at the end."""
    products = [folder / name for name in PRODUCTS]
    model, table, settings = map(waiting, products)
    save_network(network, model)
    write_text(table, history.to_csv(index=False))
    described["sha256"] = [_sha256(model), _sha256(table)]
    write_text(settings, json.dumps(described, indent=2) + "\n")
    finish(products)
    (folder / DIVERGED).unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
