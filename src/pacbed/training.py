"""Training: stepped learning rate, momentum, and the weights of the best validation epoch."""

from __future__ import annotations

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

from pacbed.dataset import Dataset
from pacbed.errors import PacbedError
from pacbed.files import write_text
from pacbed.labels import LabelScaling
from pacbed.machine import Sigterm, noting_sigterm
from pacbed.network import build_network
from pacbed.seeding import stream
from pacbed.training_checkpoint import TrainingCheckpoint, TrainingState, fingerprint

EpochReport = Callable[[int, int, Mapping[str, float]], None]
"""Called after each epoch with its number, the number of epochs, and the losses."""


@dataclass(frozen=True)
class Schedule:
    """Stepped learning rate.

    Parameters
    ----------
    steps
        Pairs of a number of epochs and the learning rate during these.
    """

    steps: tuple[tuple[int, float], ...]

    @classmethod
    def from_config(cls, steps: Sequence[Mapping[str, Any]]) -> Schedule:
        """Make a schedule of the configuration's ``training.learning_rate_steps``."""
        return cls(tuple((int(s["epochs"]), float(s["rate"])) for s in steps))

    @property
    def epochs(self) -> int:
        """Length of the training."""
        return sum(epochs for epochs, _ in self.steps)

    def rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from zero."""
        for epochs, rate in self.steps:
            if epoch < epochs:
                return rate
            epoch -= epochs
        return self.steps[-1][1]


@dataclass(frozen=True)
class TrainingSettings:
    """What determines a training besides its data.

    Parameters
    ----------
    network
        Arguments of :func:`pacbed.network.build_network` besides the image and output sizes.
    schedule
        Learning rate.
    batch_size
        Examples per step.
    momentum
        Momentum of the gradient descent.
    seed
        Seed of weights, shuffling and image means.
    """

    network: Mapping[str, Any]
    schedule: Schedule
    batch_size: int
    momentum: float
    seed: int


def configure(
    threads: int, gpu: bool = False, log: Callable[[str], None] = lambda line: None
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
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        tf.config.experimental.enable_op_determinism()
        if gpu and not tf.config.list_physical_devices("GPU"):
            log(
                "warning: a graphics card is reserved for this job, but TensorFlow sees none and "
                "computes on the CPU: install tensorflow[and-cuda] (docs/cluster.md)"
            )


def train(
    training: Dataset,
    validation: Dataset,
    scaling: LabelScaling,
    settings: TrainingSettings,
    folder: Path,
    report: EpochReport | None = None,
    checkpoint: Path | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """Train a network and keep the weights with the lowest validation loss.

    Parameters
    ----------
    training, validation
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

    Returns
    -------
    pandas.DataFrame
        Learning rate, loss and validation loss of each epoch.

    Raises
    ------
    PacbedError
        If the training diverges; what was kept is removed.
    StoreError
        If the unfinished training cannot be kept.
    SystemExit
        After SIGTERM: the running batch was finished, and where the training stands was kept.
    """
    described: dict[str, Any] = {"scaling": asdict(scaling), "training": asdict(settings)}
    run = _Run(training, validation, scaling, settings)
    depends_on = {
        **described,
        "variables": [tuple(v.shape) for v in run.variables],
        "keras": [keras.__version__, keras.backend.backend()],
    }
    kept = TrainingCheckpoint(checkpoint, fingerprint(depends_on, training, validation), log)
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
        except _DivergedError:
            kept.remove()  # or the next attempt would go on to diverge
            raise
        except _StoppedError:
            kept.save(run.state())
            then = "saved; the next attempt goes on from there" if checkpoint else "nothing is kept"
            log(f"stopped by SIGTERM in {run.progress}: {then}")
            sys.exit(128 + signal.SIGTERM)
    described |= {"parameters": run.model.count_params(), "data": dict(training.attributes)}
    history = run.history()
    # Settings beside a model are its own: one of another training goes first.
    (folder / "model.keras").unlink(missing_ok=True)
    write_text(folder / "settings.json", json.dumps(described, indent=2) + "\n")
    write_text(folder / "history.csv", history.to_csv(index=False))
    run.write_best(folder / "model.keras")
    kept.remove()
    return history


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


class _DivergedError(PacbedError):
    pass


class _StoppedError(Exception):
    pass


class _Run:
    """A network in training, and how far it is: epochs finished, batches done of the next."""

    def __init__(
        self,
        training: Dataset,
        validation: Dataset,
        scaling: LabelScaling,
        settings: TrainingSettings,
    ) -> None:
        self.schedule = settings.schedule
        self.build = partial(
            build_network,
            pixels=training.images.shape[1],
            outputs=len(scaling.parameters),
            seed=settings.seed,
            **settings.network,
        )
        self.model = self.build()
        optimizer = keras.optimizers.SGD(self.schedule.rate(0), momentum=settings.momentum)
        self.model.compile(optimizer=optimizer, loss="mse")
        optimizer.build(self.model.trainable_variables)
        self.batches = _Batches(training, scaling, settings.batch_size, settings.seed)
        self.validation = _Batches(validation, scaling, settings.batch_size)
        self.epoch = self.batch = 0
        self.losses: list[tuple[float, float]] = []
        self.best: Sequence[np.ndarray] = ()

    @property
    def variables(self) -> list[Any]:
        """All that changes in training, seed of the random means and mean loss included."""
        model = self.model
        return [*model.variables, *model.optimizer.variables, *model.metrics_variables]

    @property
    def progress(self) -> str:
        """How far it is, in words."""
        return f"epoch {self.epoch + 1} after {self.batch} of {self.batches.total} batches"

    @property
    def place(self) -> str:
        """Where it goes on, in words."""
        if self.epoch == self.schedule.epochs:
            return "the last epoch: only the model is missing"
        if self.batch == self.batches.total:
            return f"the validation of epoch {self.epoch + 1}"
        return f"epoch {self.epoch + 1}, batch {self.batch + 1} of {self.batches.total}"

    def state(self) -> TrainingState:
        """Return a copy of where it stands."""
        losses = np.array(self.losses, float).reshape(-1, 2)
        return TrainingState(self.epoch, self.batch, _values(self.variables), losses, self.best)

    def restore(self, state: TrainingState) -> None:
        """Go to where it stood."""
        self.epoch, self.batch, self.best = state.epoch, state.batch, state.best
        self.losses = [(loss, validation_loss) for loss, validation_loss in state.losses.tolist()]
        _assign(self.variables, state.variables)

    def finish(
        self, sigterm: Sigterm, kept: TrainingCheckpoint, report: EpochReport | None
    ) -> None:
        """Train until all epochs are finished; keep where it stands after each."""
        watch = _Watch(sigterm)
        while self.epoch < self.schedule.epochs:
            loss = self._fit(watch)
            self._refuse_nan("training", loss)
            validation_loss = self._validate(watch)
            self._refuse_nan("validation", validation_loss)
            if validation_loss < min((best for _, best in self.losses), default=math.inf):
                self.best = _values(self.model.variables)
            self.losses.append((loss, validation_loss))
            self.epoch, self.batch = self.epoch + 1, 0
            if kept.is_due:
                kept.save(self.state())
            if report:
                losses = {"loss": loss, "val_loss": validation_loss}
                report(self.epoch, self.schedule.epochs, losses)

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
            self.model.optimizer.learning_rate = self.schedule.rate(self.epoch)
            self.batches.begin(self.epoch, self.batch)
            # Keras would shuffle the batches too, by a random state that cannot be restored.
            try:
                self.model.fit(self.batches, callbacks=callbacks, shuffle=False, verbose=0)
            except _StoppedError:
                self.batch += watch.batches
                raise
            self.batch = self.batches.total
        return float(self.model.get_metrics_result()["loss"])

    def _validate(self, watch: _Watch) -> float:
        training = _values(self.model.metrics_variables)
        try:
            return self.model.evaluate(
                self.validation, callbacks=[watch], verbose=0, return_dict=True
            )["loss"]
        except _StoppedError:
            _assign(self.model.metrics_variables, training)
            raise

    def _refuse_nan(self, what: str, loss: float) -> None:
        if not math.isfinite(loss):
            raise _DivergedError(
                f"the {what} loss is {loss} after epoch {self.epoch + 1}: the training has "
                "diverged. Lower the rates in training.learning_rate_steps"
            )

    def history(self) -> pd.DataFrame:
        """Return a row for each epoch."""
        return pd.DataFrame(
            {
                "epoch": np.arange(1, self.epoch + 1),
                "learning_rate": [self.schedule.rate(epoch) for epoch in range(self.epoch)],
                "loss": [loss for loss, _ in self.losses],
                "validation_loss": [loss for _, loss in self.losses],
            }
        )

    def write_best(self, path: Path) -> None:
        """Write the network of the best epoch, without the optimizer, and rename it."""
        network = self.build()
        _assign(network.variables, self.best)
        temporary = path.with_name(f".{path.stem}.new{path.suffix}")  # Keras looks at the suffix
        try:
            network.save(temporary)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


class _Watch(keras.callbacks.Callback):
    """Ends a training or a validation between two batches after SIGTERM.

    Before a batch, not after: a callback after each makes Keras wait for the device with JAX.
    """

    def __init__(self, sigterm: Sigterm) -> None:
        super().__init__()
        self.sigterm = sigterm
        self.batches = 0

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self.batches = batch
        self._stop_after_sigterm()

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


def predict(
    model_file: Path, settings_file: Path, data: Dataset, batch_size: int = 256
) -> pd.DataFrame:
    """Predict the parameters of every example of a dataset.

    Parameters
    ----------
    model_file, settings_file
        As written by :func:`train`.
    data
        The examples.
    batch_size
        Examples per step.

    Returns
    -------
    pandas.DataFrame
        One row per example: ``draw``, ``electrons``, and for each predicted parameter ``true_*``
        and ``predicted_*`` in physical units.

    Raises
    ------
    PacbedError
        If the model does not fit the settings or the images.
    """
    settings = json.loads(settings_file.read_text(encoding="utf-8"))
    scaling = LabelScaling.from_dict(settings["scaling"])
    # Safe mode refuses models that carry code.
    model = keras.saving.load_model(model_file, safe_mode=True, compile=False)
    if model.output_shape[-1] != len(scaling.parameters):
        raise PacbedError(
            f"{model_file} predicts {model.output_shape[-1]} parameters, but {settings_file} "
            f"names {len(scaling.parameters)}"
        )
    if model.input_shape[1] != data.images.shape[1]:
        raise PacbedError(
            f"{model_file} takes images of {model.input_shape[1]} pixels, the dataset has "
            f"{data.images.shape[1]}"
        )
    batches = _Batches(data, scaling, batch_size)
    predicted = scaling.unscale(model.predict(batches, verbose=0))
    true = data.columns(scaling.parameters)
    table: dict[str, np.ndarray] = {"draw": data.draws, "electrons": data.electrons}
    for column, name in enumerate(scaling.parameters):
        table[f"true_{name}"] = true[:, column].astype(float)
        table[f"predicted_{name}"] = predicted[:, column]
    return pd.DataFrame(table)


class _Batches(keras.utils.PyDataset):
    """Batches of images and scaled labels, in single precision only while they are used.

    The order depends on the seed and the epoch alone, and an epoch may begin in its midst.
    """

    def __init__(
        self,
        data: Dataset,
        scaling: LabelScaling,
        batch_size: int,
        shuffle_seed: int | None = None,
    ) -> None:
        super().__init__()
        self.images = data.images
        self.targets = scaling.scale(data.columns(scaling.parameters)).astype(np.float32)
        self.batch_size = batch_size
        self.shuffle_seed = shuffle_seed
        self.order = np.arange(len(self.images))
        self.first = 0

    @property
    def total(self) -> int:
        """Number of batches of a whole epoch."""
        return -(-len(self.order) // self.batch_size)

    def begin(self, epoch: int, batch: int) -> None:
        """Set the epoch, and its first batch to come, both counted from zero."""
        self.first = batch
        if self.shuffle_seed is not None:
            random = stream(self.shuffle_seed, "shuffle", epoch)
            self.order = random.permutation(len(self.images))

    def __len__(self) -> int:
        return self.total - self.first

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        start = (self.first + number) * self.batch_size
        chosen = self.order[start : start + self.batch_size]
        return self.images[chosen, :, :, None].astype(np.float32), self.targets[chosen]
