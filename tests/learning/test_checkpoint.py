"""A training that is stopped or killed goes on, and gives what it would have given otherwise.

Run as a program, this file trains in a folder, to be killed there.
"""

import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from test_training import SCALING, settings, spots, understated

import pacbed.learning.training
from pacbed.exceptions import PacbedError, StoreError
from pacbed.learning import checkpoint as training_checkpoint
from pacbed.learning.checkpoint import TrainingCheckpoint, TrainingState, fingerprint
from pacbed.learning.schedule import OneCycleSchedule
from pacbed.learning.sequences import StoredSequence
from pacbed.learning.training import DIVERGED, train
from pacbed.machine import noting_sigterm
from pacbed.storage.zipped import checkpoint_of

# The best validation loss comes in the midst; the last batch of an epoch is smaller.
SETTINGS = settings((2, 0.006), (3, 0.008), batch_size=16)
DATA = spots(72, 3), understated(40, 4)
EPOCHS, BATCHES = 5, 5
STOPPED = 128 + signal.SIGTERM


def attempt(folder, report=None, data=DATA, ending=nullcontext(), **changes):  # noqa: B008
    """Train with a checkpoint, and expect a certain ending; return the log."""
    log = []
    checkpoint = checkpoint_of(folder / "model.keras")
    with ending:
        one = replace(SETTINGS, **changes)
        train(*data, SCALING, one, folder, report, checkpoint, log.append)
    return log


def stopped(folder, report=None):
    """Attempt a training that must be stopped; return the log."""
    return attempt(folder, report, ending=pytest.raises(SystemExit, match=f"^{STOPPED}$"))


def interrupted(folder, **changes):
    """Attempt a training that ends after an epoch; return the log."""

    def interrupt(epoch, epochs, losses):
        raise KeyboardInterrupt

    return attempt(folder, interrupt, ending=pytest.raises(KeyboardInterrupt), **changes)


def assert_same(folder, other):
    """Check that two trainings gave the same to the last bit, and left nothing else."""
    names = ["history.csv", "model.keras", "settings.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    for name in names:
        assert (folder / name).read_bytes() == (other / name).read_bytes()


@pytest.fixture(scope="module", autouse=True)
def _deterministic():
    deterministic()


def deterministic():
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


@pytest.fixture(autouse=True)
def _a_state_after_every_epoch(monkeypatch):
    monkeypatch.setattr(training_checkpoint, "PAUSE", 0)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a busy disk takes seconds


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert attempt(folder) == []
    return folder


@pytest.fixture
def sigterm_at(monkeypatch):
    """Return a function that makes SIGTERM come before some batch of some epoch."""
    return partial(arrange_sigterm, monkeypatch)


def arrange_sigterm(monkeypatch, method, epoch, batch):
    original = getattr(pacbed.learning.training._Watch, method)
    begun = {"epochs": 0, "armed": True}

    def begin(self, number, logs=None):
        begun["epochs"] += number == 0
        if begun["armed"] and (begun["epochs"], number) == (epoch, batch):
            begun["armed"] = False
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, number, logs)

    monkeypatch.setattr(pacbed.learning.training._Watch, method, begin)


@pytest.fixture(scope="module")
def stopped_late(tmp_path_factory):
    """A training stopped in its last epoch, whose best weights are those of an earlier one."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(training_checkpoint, "PAUSE", 0)
        arrange_sigterm(monkeypatch, "on_train_batch_begin", EPOCHS, 2)
        stopped(folder)
    return folder


@pytest.fixture
def unfinished(stopped_late, tmp_path):
    """The two states of a copy of that."""
    shutil.copytree(stopped_late, tmp_path, dirs_exist_ok=True)
    path = checkpoint_of(tmp_path / "model.keras")
    return path, path.with_name(f"{path.name}.previous")


def test_the_best_epoch_is_neither_first_nor_last(whole):
    """Or the tests below would say little about the best weights."""
    losses = pd.read_csv(whole / "history.csv")["validation_loss"]
    assert len(losses) == EPOCHS
    assert 1 < losses.argmin() < EPOCHS - 2


# Stopped by SIGTERM


@pytest.mark.parametrize(("epoch", "batch"), [(1, 3), (4, 0), (5, 4)])
def test_a_training_stopped_within_an_epoch_goes_on_from_the_next_batch(
    whole, tmp_path, sigterm_at, epoch, batch
):
    sigterm_at("on_train_batch_begin", epoch, batch)
    before = signal.getsignal(signal.SIGTERM)
    assert stopped(tmp_path) == [
        f"stopped in epoch {epoch} after {batch} of 5 batches: saved; "
        "the next attempt goes on from there"
    ]
    assert signal.getsignal(signal.SIGTERM) is before
    assert attempt(tmp_path) == [f"goes on from epoch {epoch}, batch {batch + 1} of 5"]
    assert_same(tmp_path, whole)


def test_the_moments_of_adam_are_kept_too(tmp_path, sigterm_at):
    adam = {"optimizer": "adam", "schedule": OneCycleSchedule(3, 0.01, 0.3)}
    assert attempt(tmp_path / "whole", **adam) == []
    sigterm_at("on_train_batch_begin", 2, 3)
    ending = pytest.raises(SystemExit, match=f"^{STOPPED}$")
    attempt(tmp_path / "stopped", ending=ending, **adam)
    assert attempt(tmp_path / "stopped", **adam) == ["goes on from epoch 2, batch 4 of 5"]
    assert_same(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.parametrize("epoch", [1, 4])
def test_a_training_stopped_during_validation_repeats_that(whole, tmp_path, sigterm_at, epoch):
    sigterm_at("on_test_batch_begin", epoch, 1)
    [line] = stopped(tmp_path)
    assert f"in epoch {epoch} after 5 of 5 batches: saved" in line
    assert attempt(tmp_path) == [f"goes on from the validation of epoch {epoch}"]
    assert_same(tmp_path, whole)


def test_a_training_stopped_three_times_is_the_same(whole, tmp_path, sigterm_at):
    # Epochs and batches are counted from the beginning of each attempt.
    reported = []

    def report(epoch, epochs, losses):
        reported.append(epoch)

    sigterm_at("on_train_batch_begin", 2, 2)
    assert "in epoch 2 after 2 of 5 batches" in stopped(tmp_path, report=report)[-1]
    sigterm_at("on_train_batch_begin", 1, 1)
    assert "in epoch 2 after 3 of 5 batches" in stopped(tmp_path, report=report)[-1]
    sigterm_at("on_test_batch_begin", 3, 0)
    assert "in epoch 4 after 5 of 5 batches" in stopped(tmp_path, report=report)[-1]
    attempt(tmp_path, report)
    assert reported == list(range(1, EPOCHS + 1))
    assert_same(tmp_path, whole)


def test_sigterm_after_the_last_batch_does_not_stop_what_is_nearly_done(whole, unfinished):
    newest, _ = unfinished

    def terminate(epoch, epochs, losses):
        if epoch == epochs:
            os.kill(os.getpid(), signal.SIGTERM)

    attempt(newest.parent, terminate)
    assert_same(newest.parent, whole)


def test_without_a_checkpoint_sigterm_leaves_nothing(tmp_path, sigterm_at):
    sigterm_at("on_train_batch_begin", 2, 1)
    log = []
    with pytest.raises(SystemExit):
        train(*DATA, SCALING, SETTINGS, tmp_path, log=log.append)
    assert log == ["stopped in epoch 2 after 1 of 5 batches: nothing is kept"]
    assert list(tmp_path.iterdir()) == []


def test_in_another_thread_signals_are_left_alone():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def look():
        with noting_sigterm() as sigterm:
            seen.append((signal.getsignal(signal.SIGTERM), sigterm.has_come))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


# Killed


def test_a_training_killed_at_any_moment_is_the_same(whole, tmp_path):
    children = {}
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        children[name] = subprocess.Popen([sys.executable, __file__, str(tmp_path / name)])
    for name, child in children.items():
        assert child.wait(60) == -signal.SIGKILL
        log = attempt(tmp_path / name)
        assert [line.startswith("goes on from ") for line in log] == [True], log
        assert_same(tmp_path / name, whole)


def train_until_killed(folder):
    """Train, and be killed at another moment each time, but after the first epoch."""
    pause = random.uniform(0, 0.2)
    killer = threading.Timer(pause, os.kill, (os.getpid(), signal.SIGKILL))
    killer.daemon = True

    def report(epoch, epochs, losses):
        if epoch == 1:
            killer.start()
        if epoch == epochs - 1:
            killer.join()

    attempt(folder, report)


def test_after_the_last_epoch_only_the_model_is_written(whole, unfinished, monkeypatch):
    newest, _ = unfinished

    def die(network, path):
        raise KeyboardInterrupt

    with monkeypatch.context() as one:
        one.setattr(pacbed.learning.training, "_write_network", die)
        attempt(newest.parent, ending=pytest.raises(KeyboardInterrupt))
    assert attempt(newest.parent) == ["goes on from the last epoch: only the model is missing"]
    assert_same(newest.parent, whole)


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
import numpy as np
from pacbed.learning.checkpoint import TrainingCheckpoint, TrainingState, fingerprint

def state(epoch):
    # Losses fall, so that each epoch is the best.
    losses = np.array([[0.0, 1.0 / (n + 1)] for n in range(epoch)])
    return TrainingState(epoch, 0, [np.full(1000, epoch)], losses, [np.full(1000, -epoch)])

step, died = 0, True
while died:
    folder = Path(sys.argv[1]) / str(step)
    folder.mkdir()
    path = folder / "kept"
    if not (child := os.fork()):
        checkpoint = TrainingCheckpoint(path, "mine")
        for epoch in (1, 2, 3):
            checkpoint.save(state(epoch))
        left = [step]
        def die(event, arguments):
            if event in ("open", "os.rename", "os.remove"):
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
        sys.addaudithook(die)
        checkpoint.save(state(4))
        os._exit(0)
    died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
    log = []
    kept = TrainingCheckpoint(path, "mine", log.append).load()
    assert log == [], log
    assert kept.epoch in ((3, 4) if died else (4,)), (step, kept.epoch)
    assert (kept.variables[0] == kept.epoch).all() and (kept.best[0] == -kept.epoch).all()
    files = {file.name for file in folder.iterdir()}
    allowed = {"kept", "kept.previous"} | {f"kept.best-{n}" for n in (kept.epoch - 1, kept.epoch)}
    assert files <= allowed, (step, files)
    step += 1
print(step)
"""


def test_state_and_best_weights_belong_together_wherever_writing_was_killed(tmp_path):
    command = [sys.executable, "-c", KILLED_WHILE_WRITING, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 6, "several steps were meant to be killed"


# What cannot be used


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + largest.file_size] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip])
def test_after_damage_to_the_newest_state_the_one_before_is_used(whole, unfinished, damage):
    newest, previous = unfinished
    damage(newest)
    assert attempt(newest.parent) == [
        f"{newest} is damaged",
        f"the state before it, {previous}, is used instead",
        f"goes on from epoch {EPOCHS}, batch 1 of {BATCHES}",
    ]
    assert_same(newest.parent, whole)


def test_a_damaged_state_does_not_take_the_place_of_the_good_one_before(unfinished, tmp_path):
    newest, previous = unfinished
    flip(newest)
    good = previous.read_bytes()
    interrupted(newest.parent)
    assert previous.read_bytes() == good
    assert newest.exists()


def test_after_damage_to_both_states_the_training_begins_anew(whole, unfinished):
    newest, previous = unfinished
    flip(newest)
    truncate(previous)
    assert attempt(newest.parent) == [
        f"{newest} is damaged",
        f"{previous} is damaged",
        "the training begins anew",
    ]
    assert_same(newest.parent, whole)


def test_after_damage_to_the_best_weights_the_training_begins_anew(unfinished):
    newest, _ = unfinished
    [best] = newest.parent.glob(f"{newest.name}.best-*")
    flip(best)
    assert interrupted(newest.parent)[-1] == "the training begins anew"


def test_any_flipped_bit_is_found_or_does_not_matter(tmp_path):
    path = tmp_path / "kept"
    random = np.random.default_rng(1)
    variables = [random.normal(size=7), np.arange(3), np.array(5)]
    state = TrainingState(1, 2, variables, np.array([[0.1, 0.2]]), variables)
    TrainingCheckpoint(path, "mine").save(state)
    content = path.read_bytes()
    read = 0
    for place in range(0, len(content), 3):
        flipped = bytearray(content)
        flipped[place] ^= 1 << random.integers(8)
        path.write_bytes(flipped)
        if kept := TrainingCheckpoint(path, "mine").load():
            read += 1
            assert (kept.epoch, kept.batch) == (1, 2)
            for one, two in zip(kept.variables, variables, strict=True):
                np.testing.assert_array_equal(one, two)
        else:
            TrainingCheckpoint(path, "mine").save(state)  # the best weights were removed too
    assert 0 < read < len(content) // 10


def test_an_array_that_claims_to_be_shorter_is_found(tmp_path):
    # NumPy would not read it to its end, and so not compare it with its checksum.
    path = tmp_path / "kept"
    TrainingCheckpoint(path, "mine").save(
        TrainingState(0, 1, [np.ones(70000)], np.empty((0, 2)), [])
    )
    assert TrainingCheckpoint(path, "mine").load()
    content = path.read_bytes()
    assert content.count(b"(70000,)") == 1
    path.write_bytes(content.replace(b"(70000,)", b"(30000,)"))
    assert TrainingCheckpoint(path, "mine").load() is None


def test_other_settings_begin_anew(unfinished):
    newest, previous = unfinished
    log = interrupted(newest.parent, momentum=0.8)
    foreign = "is of other data, other settings or another version"
    assert log == [f"{newest} {foreign}", f"{previous} {foreign}", "the training begins anew"]


def digest(data):
    batches = [StoredSequence(one, SCALING, 16) for one in data]
    return fingerprint(
        {"data": [dict(one.attributes) for one in batches]},
        [array for one in batches for array in one.arrays()],
    )


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("what", ["images", "labels", "draws", "transformations", "attributes"])
def test_other_data_have_another_fingerprint(which, what):
    data = list(DATA)
    if what == "attributes":
        change = {"seed": 5}
    else:
        change = np.array(getattr(data[which], what))
        change[-1] = change[-1] * 2 + 1  # a single example
    data[which] = replace(data[which], **{what: change})
    assert digest(data) != digest(DATA)
    assert digest([replace(one) for one in DATA]) == digest(DATA)


def test_other_data_begin_anew(unfinished):
    newest, _ = unfinished
    log = interrupted(newest.parent, data=(DATA[0], spots(40, 4)))
    assert log[-1] == "the training begins anew"


def test_a_file_that_cannot_be_read_just_now_is_not_given_up(unfinished, monkeypatch):
    newest, _ = unfinished

    def stale(*arguments, **more):
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(training_checkpoint, "_read_arrays", stale)
    with pytest.raises(StoreError, match=r"cannot read .*unfinished.*Stale file handle"):
        attempt(newest.parent)
    assert newest.exists()


# What is left


def test_what_a_killed_training_left_half_written_is_removed(whole, unfinished):
    newest, _ = unfinished
    newest.with_name(f"{newest.name}.new").write_bytes(b"half")
    newest.with_name(f"{newest.name}.best-99").write_bytes(b"needed by nothing")
    newest.with_name(".model.new.keras").write_bytes(b"half")
    newest.with_name(".history.csv.tmp").write_bytes(b"half")
    attempt(newest.parent)
    assert_same(newest.parent, whole)


def test_a_training_that_diverges_keeps_nothing_to_go_on_from(tmp_path):
    diverging = settings((2, 0.001), (2, 1e30)).schedule
    with pytest.raises(PacbedError, match="diverged"):
        attempt(tmp_path, schedule=diverging)
    assert [path.name for path in tmp_path.iterdir()] == [DIVERGED]


def test_a_state_that_cannot_be_written_says_where(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    with pytest.raises(StoreError, match=r"cannot write .*file/kept"):
        train(*DATA, SCALING, SETTINGS, tmp_path / "model", checkpoint=blocked / "kept")


def test_short_epochs_do_not_spend_their_time_on_writing(tmp_path, monkeypatch):
    monkeypatch.undo()
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(os, "fsync", lambda descriptor: now.__setitem__(0, now[0] + 2))
    checkpoint = TrainingCheckpoint(tmp_path / "kept", "mine")
    assert checkpoint.is_due
    checkpoint.save(TrainingState(0, 0, [], np.empty((0, 2)), []))
    now[0] += 39
    assert not checkpoint.is_due
    now[0] += 2
    assert checkpoint.is_due


def test_the_best_weights_are_written_again_only_when_they_improve(tmp_path):
    checkpoint = TrainingCheckpoint(tmp_path / "kept", "mine")
    seen = []
    for epoch, losses in ((1, [3.0]), (2, [3.0, 2.0]), (3, [3.0, 2.0, 2.5]), (4, [3.0, 2, 2.5, 1])):
        both = np.array([losses, losses]).T
        checkpoint.save(TrainingState(epoch, 0, [np.ones(3)], both, [np.ones(3)]))
        files = tmp_path.glob("kept.best-*")
        seen.append({file.name: file.stat().st_ino for file in files})
    assert [set(files) for files in seen] == [
        {"kept.best-1"},
        {"kept.best-1", "kept.best-2"},  # the state before still needs the first
        {"kept.best-2"},
        {"kept.best-2", "kept.best-4"},
    ]
    assert seen[1]["kept.best-2"] == seen[2]["kept.best-2"] == seen[3]["kept.best-2"]


# The script of the workflow, and other backends

SCRIPT = """
import runpy, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from pacbed.examples.augment import AugmentationSettings
import pacbed.examples.dataset
from test_checkpoint import DATA, SETTINGS
folder = Path(sys.argv[1])
class Outputs(list):
    model = property(lambda files: files[0])
pacbed.examples.dataset.read_dataset = lambda path: DATA[int(path.name)]
snakemake = SimpleNamespace(
    log=[str(folder / "log")], threads=1, resources={},
    input=SimpleNamespace(train="0", validation="1", initial=[]),
    output=Outputs(str(folder / n) for n in ("model.keras", "history.csv", "settings.json")),
    params=SimpleNamespace(
        outputs="strain-rotation",
        ranges={"principal_stretch": [.95, 1.05], "rotation_deg": [-10, 10], "tilt_mrad": [-5, 5]},
        network={"filters": [4], "dense": [4]}, intensity="sqrt", image_mean=[0.2, 0.3], seed=1,
        training={
            "schedule": "paper", "learning_rate_steps": [{"epochs": 100000, "rate": 1e-4}],
            "batch_size": 16, "momentum": 0.9, "precision": "float32", "xla": False,
        },
        online=None,
    ),
)
runpy.run_path(sys.argv[2], init_globals={"snakemake": snakemake})
"""


def test_the_job_of_the_workflow_ends_on_sigterm_and_goes_on(tmp_path):
    script = Path(__file__).parents[2] / "workflow/scripts/train.py"
    paths = [str(Path(__file__).parent), str(script.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    log, logs = tmp_path / "log", []
    for waits_for in (checkpoint_of(tmp_path / "model.keras").exists, partial(goes_on, log)):
        command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(script)]
        log.unlink(missing_ok=True)
        with subprocess.Popen(command, env=environment) as job:
            deadline = time.monotonic() + 60
            while not waits_for():
                assert job.poll() is None, log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            job.terminate()
            assert job.wait(20) == STOPPED
        logs.append(log.read_text())
    line = next(line for line in logs[0].splitlines() if line.startswith("stopped in "))
    place = line.removeprefix("stopped in ").split(" after ")[0]
    line = next(line for line in logs[1].splitlines() if line.startswith("goes on from "))
    assert place in line.split(",")[0]


def goes_on(log):
    return log.exists() and "goes on from " in log.read_text()


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_go_on_too(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-x"]
    done = subprocess.run(
        [*command, "-k", "stopped_three_times", __file__],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


if __name__ == "__main__":
    deterministic()
    training_checkpoint.PAUSE = 0
    train_until_killed(Path(sys.argv[1]))


# Ended before


@pytest.fixture
def ended(whole, tmp_path):
    """A copy of a training that has ended."""
    shutil.copytree(whole, tmp_path / "ended")
    return tmp_path / "ended"


def never(epoch, epochs, losses):
    raise AssertionError("it trains")


def test_a_training_that_has_ended_is_not_repeated(ended):
    before = {path.name: path.read_bytes() for path in ended.iterdir()}
    assert attempt(ended, never) == [f"{ended / 'model.keras'} is there already"]
    assert {path.name: path.read_bytes() for path in ended.iterdir()} == before


@pytest.mark.parametrize("lost", ["model.keras", "history.csv", "settings.json"])
def test_a_training_of_which_a_file_is_lost_is_repeated(whole, ended, lost):
    (ended / lost).unlink()
    assert attempt(ended) == []
    assert_same(ended, whole)


def test_a_training_whose_model_is_damaged_is_repeated(whole, ended):
    truncate(ended / "model.keras")
    assert attempt(ended) == []
    assert_same(ended, whole)


def test_a_training_with_other_settings_is_not_that_one(ended):
    epochs = []
    attempt(ended, lambda epoch, *_: epochs.append(epoch), momentum=0.5)
    assert len(epochs) == EPOCHS
