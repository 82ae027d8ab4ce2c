"""Training: stepped learning rate, momentum, and the weights of the best validation epoch."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from pacbed.dataset import Dataset
from pacbed.errors import PacbedError
from pacbed.files import write_text
from pacbed.labels import LabelScaling
from pacbed.network import build_network
from pacbed.seeding import stream

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


def configure(threads: int) -> None:
    """Set up the framework of this process: number of threads, and deterministic operations.

    Must be called before anything is computed.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        tf.config.experimental.enable_op_determinism()


class _Reporter(keras.callbacks.Callback):
    def __init__(self, report: EpochReport, epochs: int) -> None:
        super().__init__()
        self.report, self.epochs = report, epochs

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self.report(epoch + 1, self.epochs, logs or {})


class _RefuseNaN(keras.callbacks.Callback):
    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        for name, loss in (logs or {}).items():
            if name in ("loss", "val_loss") and not math.isfinite(loss):
                raise PacbedError(
                    f"the {'training' if name == 'loss' else 'validation'} loss is {loss} after "
                    f"epoch {epoch + 1}: the training has diverged. Lower the rates in "
                    "training.learning_rate_steps"
                )


def train(
    training: Dataset,
    validation: Dataset,
    scaling: LabelScaling,
    settings: TrainingSettings,
    folder: Path,
    report: EpochReport | None = None,
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

    Returns
    -------
    pandas.DataFrame
        Learning rate, loss and validation loss of each epoch.

    Raises
    ------
    PacbedError
        If the training diverges.
    """
    schedule = settings.schedule
    model = build_network(
        pixels=training.images.shape[1],
        outputs=len(scaling.parameters),
        seed=settings.seed,
        **settings.network,
    )
    model.compile(
        optimizer=keras.optimizers.SGD(schedule.rate(0), momentum=settings.momentum), loss="mse"
    )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".training.") as scratch:
        best = Path(scratch) / "best.keras"
        callbacks: list[keras.callbacks.Callback] = [
            _RefuseNaN(),
            keras.callbacks.LearningRateScheduler(lambda epoch, _: schedule.rate(epoch)),
            keras.callbacks.ModelCheckpoint(best, monitor="val_loss", save_best_only=True),
        ]
        if report:
            callbacks.append(_Reporter(report, schedule.epochs))
        fit = model.fit(
            _Batches(training, scaling, settings.batch_size, shuffle_seed=settings.seed),
            validation_data=_Batches(validation, scaling, settings.batch_size),
            epochs=schedule.epochs,
            callbacks=callbacks,
            verbose=0,
        )
        history = pd.DataFrame(
            {
                "epoch": np.arange(1, schedule.epochs + 1),
                "learning_rate": fit.history["learning_rate"],
                "loss": fit.history["loss"],
                "validation_loss": fit.history["val_loss"],
            }
        )
        described = {
            "scaling": asdict(scaling),
            "training": asdict(settings),
            "parameters": model.count_params(),
            "data": dict(training.attributes),
        }
        write_text(folder / "settings.json", json.dumps(described, indent=2) + "\n")
        write_text(folder / "history.csv", history.to_csv(index=False))
        os.replace(best, folder / "model.keras")
    return history


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
    """Batches of images and scaled labels, in single precision only while they are used."""

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
        self.epoch = -1
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.order[number * self.batch_size : (number + 1) * self.batch_size]
        return self.images[chosen, :, :, None].astype(np.float32), self.targets[chosen]

    def on_epoch_end(self) -> None:
        self.epoch += 1
        if self.shuffle_seed is not None:
            random = stream(self.shuffle_seed, "shuffle", self.epoch)
            self.order = random.permutation(len(self.images))
