"""Training: a schedule, an optimizer, and the weights of the best validation epoch."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from pacbed.examples.augment_layer import Augmentation
from pacbed.examples.dataset import Dataset, refuse_other_simulation
from pacbed.examples.labels import LabelScaling
from pacbed.examples.source import ExampleSource
from pacbed.exceptions import PacbedError, StoreError
from pacbed.learning.checkpoint import TrainingCheckpoint, TrainingState, fingerprint
from pacbed.learning.network import build_network, load_network
from pacbed.learning.schedule import Schedule, SteppedSchedule
from pacbed.learning.sequences import ExampleSequence, OnlineSequence, StoredSequence
from pacbed.machine import Sigterm, noting_sigterm
from pacbed.storage.files import write_text

EpochReport = Callable[[int, int, Mapping[str, float]], None]
"""Called after each epoch with its number, the number of epochs, and the losses."""

DIVERGED = "diverged_batch.npz"
"""Name of the file that keeps the batch after which a loss was no number any more."""

OPTIMIZERS = ("sgd", "adam")
"""Gradient descent with momentum, or with steps scaled by the size of each gradient."""

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
        Arguments of :func:`pacbed.learning.network.build_network` besides the image and output
        sizes.
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
        Of the numbers, one of :data:`pacbed.learning.network.PRECISIONS`. The network that is kept
        computes in single precision.
    xla
        Whether steps are compiled by XLA, which takes :func:`configure` without determinism.
    optimizer
        One of :data:`OPTIMIZERS`.
    """

    network: Mapping[str, Any]
    schedule: Schedule
    batch_size: int
    momentum: float
    seed: int
    averaged_epochs: int = 0
    precision: str = "float32"
    xla: bool = False
    optimizer: str = "sgd"


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
    checkpoint: Path | None = None,
    log: Callable[[str], None] = lambda line: None,
    initial: Path | None = None,
) -> pd.DataFrame:
    """Train a network and keep the weights with the lowest validation loss.

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
        Receives ``model.keras``, ``history.csv`` and ``settings.json``, the model last.
    report
        Called after each epoch.
    checkpoint
        File that keeps the unfinished training, with others whose names begin with its own, until
        the model is written. A training that was killed goes on from there, and gives what it
        would have given otherwise, and one that has ended is not repeated; nothing is kept
        without one.
    log
        Receives a line when the training goes on from a file, cannot do so, or is stopped.
    initial
        Trained network of the same widths and outputs, with whose weights the training begins.

    Returns
    -------
    pandas.DataFrame
        Learning rate, loss and validation loss of each epoch.

    Raises
    ------
    PacbedError
        If the training diverges, which removes what was kept and saves the batch at which it was
        seen, if the initial network cannot be used, or if the sets share a draw.
    StoreError
        If the unfinished training, or the network, cannot be written.
    SystemExit
        After SIGTERM: the running batch was finished, and where the training stands was kept.
    """
    described: dict[str, Any] = {"scaling": asdict(scaling), "training": asdict(settings)}
    run = _Run(training, validation, scaling, settings)
    run.refuse_shared_draws()
    refuse_other_simulation(run.batches.attributes, validation.attributes, "the validation set")
    if initial:
        described["initial"] = run.begin_with(initial)
    data = dict(run.batches.attributes)
    depends_on = {
        **described,
        "data": [data, dict(validation.attributes)],
        "variables": [tuple(v.shape) for v in run.variables],
        "keras": [keras.__version__, keras.backend.backend()],
    }
    arrays = [*run.batches.arrays(), *run.validation.arrays()]
    kept = TrainingCheckpoint(checkpoint, fingerprint(depends_on, arrays), log)
    described["fingerprint"] = kept.fingerprint
    folder.mkdir(parents=True, exist_ok=True)
    if checkpoint and (finished := _finished(folder, kept.fingerprint)) is not None:
        log(f"{folder / 'model.keras'} is there already")
        kept.remove()
        return finished
    if state := kept.load():
        run.restore(state)
        log(f"goes on from {run.place}")
    with noting_sigterm() as sigterm:
        try:
            run.finish(sigterm, kept, report)
        except _DivergedError as error:
            kept.remove()  # or the next attempt would go on to diverge
            raise PacbedError(f"{error}{run.save_batch(folder / DIVERGED, error)}") from error
        except _StoppedError:
            kept.save(run.state())
            then = "saved; the next attempt goes on from there" if checkpoint else "nothing is kept"
            log(f"stopped in {run.progress}: {then}")
            sys.exit(128 + signal.SIGTERM)
    network = run.best_network()
    described |= {"parameters": network.count_params(), "data": data}
    described["validation_loss"] = run.check(network, log)
    history = run.history()
    _write(folder, network, history, described)
    kept.remove()
    return history


def make_optimizer(
    rate: keras.optimizers.schedules.LearningRateSchedule, settings: TrainingSettings
) -> keras.optimizers.Optimizer:
    """Make the optimizer of a training.

    Adam is that of Kingma and Ba (2015) with the momentum of the settings.

    Raises
    ------
    PacbedError
        If there is none of that name.
    """
    made: keras.optimizers.Optimizer
    if settings.optimizer == "sgd":
        made = keras.optimizers.SGD(rate, momentum=settings.momentum)
    elif settings.optimizer == "adam":
        made = keras.optimizers.Adam(rate, beta_1=settings.momentum, beta_2=_BETA_2)
    else:
        raise PacbedError(
            f"optimizer must be {' or '.join(OPTIMIZERS)}, not '{settings.optimizer}'"
        )
    if settings.precision == "mixed_float16":
        # Small gradients would vanish in half precision.
        return keras.optimizers.LossScaleOptimizer(made)
    return made


def on_device(network: keras.Model, examples: ExampleSource) -> tuple[keras.Model, Augmentation]:
    """Put the making of examples in front of a network.

    Parameters
    ----------
    network
        From images to scaled parameters.
    examples
        Patterns and settings.

    Returns
    -------
    model
        From the inputs of :class:`pacbed.learning.sequences.OnlineSequence` to scaled parameters.
    augmentation
        Its first layer.
    """
    layer = Augmentation(examples.library, examples.settings)
    inputs = [
        keras.Input((), dtype="int32", name="pattern"),
        keras.Input((6,), name="transformation"),
        keras.Input((2,), dtype="int32", name="key"),
    ]
    return keras.Model(inputs, network(layer(*inputs)), name="online"), layer


def _finished(folder: Path, fingerprint: str) -> pd.DataFrame | None:
    """Return the history of a training that has ended, if it is this one and all of it is good."""
    try:
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        history = pd.read_csv(folder / "history.csv")
        with zipfile.ZipFile(folder / "model.keras") as model:
            whole = model.testzip() is None
    except (OSError, ValueError, zipfile.BadZipFile):
        return None
    return history if whole and settings.get("fingerprint") == fingerprint else None


class _DivergedError(Exception):
    def __init__(self, message: str, batch: int | None = None) -> None:
        super().__init__(message)
        self.batch = batch


class _NotFiniteError(Exception):
    pass


class _StoppedError(Exception):
    pass


class _Run:
    """A network in training, and how far it is: epochs finished, batches done of the next."""

    def __init__(
        self,
        training: Dataset | ExampleSource,
        validation: Dataset,
        scaling: LabelScaling,
        settings: TrainingSettings,
    ) -> None:
        self.settings = settings
        self.build = partial(
            build_network,
            pixels=validation.images.shape[1],
            outputs=len(scaling.parameters),
            seed=settings.seed,
            **settings.network,
        )
        self.network = self.build(precision=settings.precision)
        self.validation = StoredSequence(validation, scaling, settings.batch_size)
        self.batches: ExampleSequence
        # Others than TensorFlow compile in ways of their own, or would compute step by step.
        compiled = settings.xla if keras.backend.backend() == "tensorflow" else "auto"
        if isinstance(training, Dataset):
            self.batches = StoredSequence(training, scaling, settings.batch_size, settings.seed)
            self.model, self.augmentation = self.network, None
        else:
            self.batches = OnlineSequence(training, scaling, settings.batch_size)
            self.model, self.augmentation = on_device(self.network, training)
            self.network.compile(loss="mse", jit_compile=compiled)
        self.rate = settings.schedule.of_batches(self.batches.total)
        chosen = make_optimizer(self.rate, settings)
        self.model.compile(optimizer=chosen, loss="mse", jit_compile=compiled)
        self.model.optimizer.build(self.model.trainable_variables)
        self.epoch = self.batch = 0
        self.losses: list[tuple[float, float]] = []
        self.best: Sequence[np.ndarray] = ()
        self.average: Sequence[np.ndarray] = ()

    def begin_with(self, initial: Path) -> str:
        """Take the weights of a trained network, and return the digest of its file.

        Raises
        ------
        PacbedError
            If it cannot be read, or is of other widths or outputs.
        """
        given = load_network(initial).weights
        own = self.network.weights
        if [w.shape for w in given] != [w.shape for w in own]:
            raise PacbedError(
                f"cannot begin with the weights of {initial}: that network has other widths, "
                "outputs or images than this one. Give another, or training.warm_start: none"
            )
        _assign(own, _values(given))
        return hashlib.sha256(initial.read_bytes()).hexdigest()

    def refuse_shared_draws(self) -> None:
        """Refuse sets that show the same deformations: the validation would say nothing.

        Raises
        ------
        PacbedError
            If they share a draw.
        """
        shared = np.intersect1d(self.batches.draws, self.validation.draws)
        if len(shared):
            raise PacbedError(
                f"training and validation examples share {len(shared)} draws, such as number "
                f"{shared[0]}: they are of different studies, or draws.split has changed. Make "
                "both sets with one configuration"
            )

    @property
    def variables(self) -> list[Any]:
        """All that changes in training, seeds of the device and mean loss included."""
        optimizer, metrics = self.model.optimizer.variables, self.model.metrics_variables
        return [*self.network.variables, *optimizer, *metrics]

    @property
    def progress(self) -> str:
        """How far it is, in words."""
        return f"epoch {self.epoch + 1} after {self.batch} of {self.batches.total} batches"

    @property
    def place(self) -> str:
        """Where it goes on, in words."""
        if self.epoch == self.settings.schedule.epochs:
            return "the last epoch: only the model is missing"
        if self.batch == self.batches.total:
            return f"the validation of epoch {self.epoch + 1}"
        return f"epoch {self.epoch + 1}, batch {self.batch + 1} of {self.batches.total}"

    def state(self) -> TrainingState:
        """Return a copy of where it stands."""
        losses = np.array(self.losses, float).reshape(-1, 2)
        variables = _values(self.variables)
        return TrainingState(self.epoch, self.batch, variables, losses, self.best, self.average)

    def restore(self, state: TrainingState) -> None:
        """Go to where it stood."""
        self.epoch, self.batch = state.epoch, state.batch
        self.best, self.average = state.best, state.average
        self.losses = [(loss, validation_loss) for loss, validation_loss in state.losses.tolist()]
        _assign(self.variables, state.variables)

    def finish(
        self, sigterm: Sigterm, kept: TrainingCheckpoint, report: EpochReport | None
    ) -> None:
        """Train until all epochs are finished; keep where it stands after each."""
        watch = _Watch(sigterm)
        epochs = self.settings.schedule.epochs
        while self.epoch < epochs:
            loss = self._fit(watch)
            average = self._average()
            validation_loss = self._validate(watch, average)
            if validation_loss < min((best for _, best in self.losses), default=math.inf):
                self.best = average or _values(self.network.variables)
            self.average = average
            self.losses.append((loss, validation_loss))
            self.epoch, self.batch = self.epoch + 1, 0
            if kept.is_due or self.epoch == epochs:
                kept.save(self.state())
            if report:
                losses = {"loss": loss, "val_loss": validation_loss}
                report(self.epoch, epochs, losses)

    def _fit(self, watch: _Watch) -> float:
        """Train until the end of the epoch and return its mean loss."""
        callbacks: list[keras.callbacks.Callback] = [watch]
        if self.batch:
            # Keras begins each epoch with a mean loss of nothing.
            so_far = _values(self.model.metrics_variables)
            restore = partial(_assign, self.model.metrics_variables, so_far)
            callbacks.append(
                keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: restore())
            )
        if self.batch < self.batches.total:
            self.batches.begin_epoch(self.epoch, self.batch)
            # Keras would shuffle the batches too, by a random state that cannot be restored.
            try:
                self.model.fit(self.batches, callbacks=callbacks, shuffle=False, verbose=0)
            except _StoppedError:
                self.batch += watch.batches
                raise
            except _NotFiniteError as error:
                where = f"of batch {self.batch + watch.batches + 1} of epoch {self.epoch + 1}"
                raise self._diverged(f"the loss {where} is {error}", watch.batches) from error
            self.batch = self.batches.total
        return float(self.model.get_metrics_result()["loss"])

    def _average(self) -> Sequence[np.ndarray]:
        """Return the mean of the weights after the last epochs, or nothing before these."""
        first = self.settings.schedule.epochs - self.settings.averaged_epochs
        if self.epoch < first:
            return ()
        values, share = _values(self.network.variables), 1 / (self.epoch - first + 1)
        if not self.average:
            return values
        # The random state is whole numbers: the last one.
        return [
            (old + share * (new - old)).astype(new.dtype) if new.dtype.kind == "f" else new
            for old, new in zip(self.average, values, strict=True)
        ]

    def _validate(self, watch: _Watch, average: Sequence[np.ndarray]) -> float:
        """Return the validation loss, of the average if there is one."""
        own = [*(self.network.variables if average else []), *self.model.metrics_variables]
        training = _values(own)
        if average:
            _assign(self.network.variables, average)
        try:
            loss = self.network.evaluate(
                self.validation, callbacks=[watch], verbose=0, return_dict=True
            )["loss"]
        finally:
            if average or watch.sigterm.has_come:
                _assign(own, training)
        if not math.isfinite(loss):
            raise self._diverged(f"the validation loss is {loss} after epoch {self.epoch + 1}")
        return float(loss)

    def _diverged(self, what: str, batch: int | None = None) -> _DivergedError:
        stepped = isinstance(self.settings.schedule, SteppedSchedule)
        rate = "the rates in training.learning_rate_steps" if stepped else "training.fast.peak_rate"
        return _DivergedError(f"{what}: the training has diverged. Lower {rate}", batch)

    def save_batch(self, path: Path, error: _DivergedError) -> str:
        """Save the batch whose loss was no number, and return a sentence about it."""
        if error.batch is None:
            return ""
        inputs, targets = self.batches[error.batch]
        images = inputs
        saved = {"targets": targets, "epoch": np.array(self.epoch + 1)}
        if self.augmentation:
            pattern, transformation, _ = inputs
            saved |= {"pattern": pattern, "transformation": transformation}
            images = keras.ops.convert_to_numpy(self.augmentation(*inputs))
        finite = np.isfinite(images).all(axis=(1, 2, 3)) & np.isfinite(targets).all(axis=1)
        dark = " (images without an electron: raise dataset.electrons)"
        dark = dark if (np.asarray(images).max(axis=(1, 2, 3)) == 0).any() else ""
        try:
            with open(path, "wb") as file:
                np.savez_compressed(file, images=images, **saved)  # type: ignore[arg-type]
        except OSError as problem:
            path.unlink(missing_ok=True)
            return f". Its batch could not be saved: {problem}"
        found = "all of them finite" if finite.all() else f"{(~finite).sum()} of them not finite"
        return f". Its batch of {len(images)} examples{dark}, {found}, is in {path}"

    def history(self) -> pd.DataFrame:
        """Return a row for each epoch; the rate is that in its middle."""
        middles = (np.arange(self.epoch) + 0.5) * self.batches.total
        rates = [float(keras.ops.convert_to_numpy(self.rate(math.floor(n)))) for n in middles]
        return pd.DataFrame(
            {
                "epoch": np.arange(1, self.epoch + 1),
                "learning_rate": rates,
                "loss": [loss for loss, _ in self.losses],
                "validation_loss": [loss for _, loss in self.losses],
            }
        )

    def best_network(self) -> keras.Model:
        """Return the network of the best epoch, in single precision, without the optimizer."""
        network = self.build()
        _assign(network.variables, self.best)
        return network

    def check(self, network: keras.Model, log: Callable[[str], None]) -> dict[str, float]:
        """Return the best validation loss as seen, and as the network that is kept has it.

        In single precision and without XLA; a difference that matters is said.
        """
        losses = {"in_training": min(loss for _, loss in self.losses)}
        if self.settings.precision == "float32" and not self.settings.xla:
            return losses
        if keras.backend.backend() == "tensorflow":
            network.jit_compile = False
        predicted = network.predict(self.validation, verbose=0)
        kept = float(np.square(predicted - self.validation.targets).mean())
        losses["of_the_model"] = kept
        if abs(kept / losses["in_training"] - 1) > _TOLERANCE:
            log(
                f"warning: the validation loss was {losses['in_training']:.3g} in training "
                f"({self.settings.precision}{', XLA' if self.settings.xla else ''}), but is "
                f"{kept:.3g} in single precision without it: compare with a training in that"
            )
        return losses


def _write(
    folder: Path, network: keras.Model, history: pd.DataFrame, described: Mapping[str, Any]
) -> None:
    """Write the products of a training, the network last."""
    # Settings beside a model are its own: one of another training goes first.
    (folder / "model.keras").unlink(missing_ok=True)
    write_text(folder / "settings.json", json.dumps(described, indent=2) + "\n")
    write_text(folder / "history.csv", history.to_csv(index=False))
    _write_network(network, folder / "model.keras")
    (folder / DIVERGED).unlink(missing_ok=True)


def _write_network(network: keras.Model, path: Path) -> None:
    """Write a network under a temporary name and rename it; equal networks make equal bytes."""
    dated = path.with_name(f".{path.stem}.new{path.suffix}")  # Keras looks at the suffix
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        network.save(dated)
        with zipfile.ZipFile(dated) as source, zipfile.ZipFile(temporary, "w") as target:
            for name in source.namelist():
                content = source.read(name)
                if name == "metadata.json":
                    metadata = json.loads(content)
                    del metadata["date_saved"]
                    content = json.dumps(metadata).encode()
                target.writestr(zipfile.ZipInfo(name), content)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}. The training is kept: free some "
            "space and run again"
        ) from error
    finally:
        dated.unlink(missing_ok=True)
        temporary.unlink(missing_ok=True)


class _Watch(keras.callbacks.Callback):
    """Ends an epoch at a loss that is no number, and everything between batches after SIGTERM."""

    def __init__(self, sigterm: Sigterm) -> None:
        super().__init__()
        self.sigterm = sigterm
        self.batches = 0

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self.batches = batch
        self._stop_after_sigterm()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        # The mean over the epoch so far: it is no number from the first loss on that is none.
        if logs and not math.isfinite(loss := float(logs["loss"])):
            raise _NotFiniteError(loss)

    def on_test_batch_begin(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self._stop_after_sigterm()

    def _stop_after_sigterm(self) -> None:
        if self.sigterm.has_come:
            if hasattr(self.model, "jax_state_sync"):
                self.model.jax_state_sync()  # with JAX the variables are elsewhere until then
            raise _StoppedError


def _values(variables: Sequence[Any]) -> list[np.ndarray]:
    """Return copies: with some backends the arrays would go on changing."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def _assign(variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
