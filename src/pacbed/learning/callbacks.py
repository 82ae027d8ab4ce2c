"""Callbacks of a training, for what those of Keras lack.

``ModelCheckpoint`` and ``BackupAndRestore`` keep weights in files that a kill may leave half
written, without what they belong to; ``SwapEMAWeights`` takes an exponential mean;
``TerminateOnNaN`` does not tell which batch it was.
"""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pacbed.exceptions import PacbedError
from pacbed.learning.checkpoint import State, TrainingCheckpoint
from pacbed.learning.sequences import ExampleSequence, StoredSequence
from pacbed.machine import Sigterm
from pacbed.storage.arrays import write_arrays


class BestWeights(keras.callbacks.Callback):
    """Validates a network after each epoch; remembers the losses and the best weights.

    From the epoch `averaged_from` on, counted from zero, the mean of the weights is validated
    (stochastic weight averaging), while the training continues with its own.
    """

    def __init__(self, network: keras.Model, examples: StoredSequence, averaged_from: int) -> None:
        super().__init__()
        self.network, self.examples, self.averaged_from = network, examples, averaged_from
        self.losses: list[tuple[float, float]] = []
        self.weights: Sequence[np.ndarray] = ()
        self.average: Sequence[np.ndarray] = ()

    @property
    def state(self) -> State:
        """What :meth:`restore` needs."""
        losses = [np.array(self.losses)]
        return {"weights": self.weights, "average": self.average, "losses": losses}

    def restore(self, state: State) -> None:
        """Take what was remembered in another process."""
        self.losses = [(loss, validation) for loss, validation in state["losses"][0].tolist()]
        # Lists that are empty are not kept.
        self.weights, self.average = state["weights"], state.get("average", ())

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Validate; add ``val_loss`` to the logs."""
        shown = own = values_of(self.network.weights)
        if epoch >= self.averaged_from:
            share = 1 / (epoch - self.averaged_from + 1)
            pairs = zip(self.average or own, own, strict=True)
            shown = self.average = [old + share * (new - old) for old, new in pairs]
        set_values(self.network.weights, shown)
        loss = float(self.network.evaluate(self.examples, verbose=0))
        set_values(self.network.weights, own)
        if loss < min((validation for _, validation in self.losses), default=math.inf):
            self.weights = shown
        self.losses.append((float(logs["loss"]), loss))
        logs["val_loss"] = loss


class Divergence(keras.callbacks.Callback):
    """Ends a training whose loss is not a number, after it has saved the batch in a file."""

    def __init__(self, batches: ExampleSequence, path: Path, kept: TrainingCheckpoint) -> None:
        super().__init__()
        self.batches, self.path, self.kept = batches, path, kept

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float]) -> None:
        """Look at the mean loss so far: the first one that is not finite has come with a batch."""
        if not math.isfinite(loss := float(logs["loss"])):
            what = f"loss of batch {batch + 1} of epoch {self.batches.epoch + 1} is {loss}"
            self._end(what, f". {self._save(batch)}")

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Look at the validation loss."""
        if not math.isfinite(loss := logs["val_loss"]):
            self._end(f"validation loss after epoch {epoch + 1} is {loss}")

    def _end(self, what: str, saved: str = "") -> None:
        self.kept.remove()  # or the next attempt would resume, and diverge again
        raise PacbedError(
            f"the {what}: the training has diverged. Lower the rates in "
            f"training.learning_rate_steps, or training.fast.peak_rate{saved}"
        )

    def _save(self, batch: int) -> str:
        inputs, targets = self.batches[batch]
        saved = {"images": inputs, "targets": targets, "epoch": self.batches.epoch + 1}
        if isinstance(inputs, tuple):
            saved |= dict(zip([each.name for each in self.model.inputs], inputs, strict=True))
            saved["images"] = self.model.get_layer("augmentation").arrays(*inputs)[..., None]
        finite = np.isfinite(saved["images"]).all(axis=(1, 2, 3)) & np.isfinite(targets).all(axis=1)
        found = "all of them finite" if finite.all() else f"{(~finite).sum()} of them not finite"
        try:
            write_arrays(self.path, **saved)
        except PacbedError as error:
            return f"Its batch could not be saved: {error}"
        return f"Its batch of {len(targets)} examples, {found}, is in {self.path}"


class Resume(keras.callbacks.Callback):
    """Keeps the state of a training after its epochs, and ends it after SIGTERM.

    After SIGTERM the running epoch is finished if the time allows; else the training ends at once,
    and the last state remains. It ends with ``SystemExit``, and the log receives a line about it.
    """

    def __init__(
        self, kept: TrainingCheckpoint, state: Callable[[], State], sigterm: Sigterm
    ) -> None:
        super().__init__()
        self.kept, self.state, self.sigterm = kept, state, sigterm
        self.epoch, self.begun, self.finishing = 0, 0.0, False
        self.length_s: float | None = None

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Stop if SIGTERM has come; note when the epoch begins."""
        if self.sigterm.has_come:
            self._stop(f"before epoch {epoch + 1}")
        self.epoch, self.begun = epoch + 1, time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """After SIGTERM, stop if the rest of the epoch takes too long."""
        if not self.sigterm.has_come or self.finishing:
            return
        passed_s = time.monotonic() - self.begun
        # Of the first epoch of an attempt nothing but its pace is known.
        length_s = self.length_s or passed_s * self.params["steps"] / (batch + 1)
        if length_s - passed_s > self.sigterm.seconds_left:
            self._stop(f"in epoch {self.epoch}")
        self.finishing = True
        self.kept.log(f"stopping after epoch {self.epoch}, in about {length_s - passed_s:.0f} s")

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Keep the state."""
        self.length_s = time.monotonic() - self.begun
        last = self.epoch == self.params["epochs"]
        if last or self.sigterm.has_come or self.kept.is_due:
            self.kept.save(self.state())

    def _stop(self, where: str) -> None:
        resumes = self.kept.path.exists()
        then = "the next attempt resumes from the last state" if resumes else "nothing is kept"
        self.kept.log(f"stopped {where}: {then}")
        sys.exit(128 + signal.SIGTERM)


def values_of(variables: Sequence[Any]) -> list[np.ndarray]:
    """Return copies of variables: with some backends the arrays would change with them."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def set_values(variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
    """Set variables to such copies."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
