"""A training that is stopped or killed resumes, and gives what it would have given otherwise.

Run as a program, this file trains in folders, to be killed there.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_training import SCALING, deterministic, settings, spots, understated

from pacbed.exceptions import PacbedError, StoreError
from pacbed.learning import checkpoint as training_checkpoint
from pacbed.learning.callbacks import Resume
from pacbed.learning.checkpoint import TrainingCheckpoint, fingerprint
from pacbed.learning.schedule import OneCycleSchedule
from pacbed.learning.sequences import StoredSequence
from pacbed.learning.training import DIVERGED, PRODUCTS, train
from pacbed.machine import Sigterm
from pacbed.storage.waiting import waiting
from pacbed.storage.zipped import checkpoint_of

# The best validation loss comes in the midst; the last batch of an epoch is smaller.
# What they share takes longer than they do: all in one process.
pytestmark = pytest.mark.xdist_group("checkpoints")

SETTINGS = settings((2, 0.006), (3, 0.008), batch_size=16)
DATA = spots(72, 3), understated(40, 4)
EPOCHS = 5
CYCLE = {"optimizer": "adam", "schedule": OneCycleSchedule(4, 0.01, 0.3), "averaged_epochs": 3}
STOPPED = pytest.raises(SystemExit, match=f"^{128 + signal.SIGTERM}$")


def attempt(folder, report=None, data=DATA, ending=nullcontext(), **changes):  # noqa: B008
    """Train with a checkpoint, and expect a certain ending; return the log."""
    log = []
    with ending:
        train(*data, SCALING, replace(SETTINGS, **changes), folder, report, log.append)
    return log


def interrupted(folder, after=1, **changes):
    """Attempt a training that ends after an epoch; return the log."""

    def interrupt(epoch, epochs, losses):
        if epoch == after:
            raise KeyboardInterrupt

    return attempt(folder, interrupt, ending=pytest.raises(KeyboardInterrupt), **changes)


def never(epoch, epochs, losses):
    raise AssertionError("it trains")


def assert_same(folder, other):
    """Check that two trainings gave the same to the last bit, and left nothing else."""
    assert sorted(path.name for path in folder.iterdir()) == sorted(PRODUCTS)
    for name in PRODUCTS:
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name


@pytest.fixture(scope="module", autouse=True)
def _deterministic():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_checkpoint, "PAUSE", 0)  # a state after every epoch
        patch.setattr(os, "fsync", lambda descriptor: None)  # a busy disk takes seconds
        deterministic()
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert attempt(folder) == []
    losses = pd.read_csv(folder / "history.csv")["validation_loss"]
    assert 1 < losses.argmin() < EPOCHS - 2, "the best epoch was meant to be in the midst"
    return folder


@pytest.fixture(scope="module")
def killed_late(tmp_path_factory):
    """A training that ended after the epoch that follows the best one."""
    folder = tmp_path_factory.mktemp("interrupted")
    interrupted(folder, EPOCHS - 1)
    return folder


@pytest.fixture
def unfinished(killed_late, tmp_path):
    """The two states of a copy of that."""
    shutil.copytree(killed_late, tmp_path / "unfinished")
    path = checkpoint_of(tmp_path / "unfinished" / "model.keras")
    return path, path.with_name(f"{path.name}.previous")


# Stopped by SIGTERM


def arrange_sigterm(monkeypatch, epoch, batch):
    """Let SIGTERM come after a batch, once."""
    original, sent = Resume.on_train_batch_end, []

    def end(self, number, logs=None):
        if (self.epoch, number) == (epoch, batch) and not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, number, logs)

    monkeypatch.setattr(Resume, "on_train_batch_end", end)


@pytest.mark.parametrize(("seconds_left", "kept"), [(60, 3), (0, 2)])
def test_after_sigterm_the_running_epoch_is_finished_if_the_time_allows(
    whole, tmp_path, monkeypatch, seconds_left, kept
):
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + seconds_left))
    arrange_sigterm(monkeypatch, 3, 1)
    before = signal.getsignal(signal.SIGTERM)
    reported = []

    def report(epoch, *more):
        reported.append(epoch)

    stopped = attempt(tmp_path, report, ending=STOPPED)[-1]
    where = "before epoch 4" if kept == 3 else "in epoch 3"
    assert stopped == f"stopped {where}: the next attempt resumes from the last state"
    assert signal.getsignal(signal.SIGTERM) is before
    assert attempt(tmp_path, report) == [f"resumes after epoch {kept} of {EPOCHS}"]
    assert sorted({*reported, kept}) == list(range(1, EPOCHS + 1))
    assert_same(tmp_path, whole)


@pytest.mark.parametrize(
    ("last_epoch_s", "seconds_left", "stops"),
    [(100, 61, False), (100, 59, True), (None, 161, False), (None, 159, True)],
)
def test_the_time_that_an_epoch_takes_is_that_of_the_last_or_follows_from_its_batches(
    tmp_path, monkeypatch, last_epoch_s, seconds_left, stops
):
    """After 40 s and 4 of 20 batches."""
    log = []
    one = Resume(TrainingCheckpoint(tmp_path / "kept", "mine", log.append), dict, Sigterm())
    one.params = {"epochs": 9, "steps": 20}
    one.length_s = last_epoch_s
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    monkeypatch.setattr(time, "time", lambda: 5000.0)
    one.on_epoch_begin(1)
    one.on_train_batch_end(2)
    one.sigterm.deadline = 5000.0 + seconds_left
    monkeypatch.setattr(time, "monotonic", lambda: 1040.0)
    with STOPPED if stops else nullcontext():
        one.on_train_batch_end(3)
    left = 60 if last_epoch_s else 160
    told = "stopped in epoch 2: nothing is kept"
    assert log == [told if stops else f"stopping after epoch 2, in about {left} s"]


def test_sigterm_in_the_last_epoch_does_not_stop_what_is_nearly_done(
    whole, unfinished, monkeypatch
):
    newest, _ = unfinished
    arrange_sigterm(monkeypatch, EPOCHS, 2)
    attempt(newest.parent)
    assert_same(newest.parent, whole)


# Killed


def test_a_training_killed_at_any_moment_is_the_same(whole, tmp_path):
    seed = int(os.environ.get("PACBED_TEST_SEED") or random.SystemRandom().randrange(10**6))
    print(f"repeat with PACBED_TEST_SEED={seed}")
    command = [sys.executable, __file__, str(seed)]
    folders = [tmp_path / name for name in ("one", "two", "three")]
    done = subprocess.run([*command, *map(str, folders)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for folder in folders:
        log = attempt(folder)
        print(log)
        assert_same(folder, whole)


def test_all_that_a_training_depends_on_is_kept(tmp_path):
    """Moments of Adam, and the mean of the weights."""
    attempt(tmp_path / "whole", **CYCLE)
    interrupted(tmp_path / "killed", 3, **CYCLE)
    assert attempt(tmp_path / "killed", **CYCLE) == ["resumes after epoch 3 of 4"]
    assert_same(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.parametrize("steps", range(3))
def test_a_whole_state_is_there_wherever_writing_ended(tmp_path, monkeypatch, steps):
    kept = TrainingCheckpoint(tmp_path / "kept", "mine", pytest.fail)
    for number in (1, 2):
        kept.save({"all": [np.full(9, number)]})
    rename, calls = Path.replace, iter(range(steps))

    def replace(path, target):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    with nullcontext() if steps == 2 else pytest.raises(KeyboardInterrupt):
        kept.save({"all": [np.full(9, 3)]})
    [array] = kept.load()["all"]
    assert list(array) == 9 * [3 if steps == 2 else 2]


# What cannot be used


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip])
def test_after_damage_to_the_newest_state_the_one_before_is_used(whole, unfinished, damage):
    newest, previous = unfinished
    damage(newest)
    good = previous.read_bytes()
    damaged, resumes = interrupted(newest.parent, EPOCHS - 1)
    assert damaged == f"{newest} is damaged: it is not used"
    assert resumes == f"resumes after epoch {EPOCHS - 2} of {EPOCHS}"
    assert previous.read_bytes() == good, "the damaged state has taken its place"
    attempt(newest.parent)
    assert_same(newest.parent, whole)


def test_after_damage_to_both_states_the_training_begins_anew(unfinished):
    flip(unfinished[0])
    truncate(unfinished[1])
    log = [f"{path} is damaged: it is not used" for path in unfinished]
    assert interrupted(unfinished[0].parent) == log


@pytest.mark.parametrize("change", [{"momentum": 0.8}, {"data": (DATA[0], spots(40, 4))}])
def test_a_state_of_other_settings_or_data_is_not_used(unfinished, change):
    foreign = "is of other data, settings or another version: it is not used"
    log = [f"{path} {foreign}" for path in unfinished]
    assert interrupted(unfinished[0].parent, **change) == log


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("what", ["images", "labels", "draws", "transformations", "attributes"])
def test_other_data_have_another_fingerprint(which, what):
    def digest(data):
        batches = [StoredSequence(one, SCALING, 16) for one in data]
        attributes = {number: dict(one.attributes) for number, one in enumerate(batches)}
        return fingerprint(attributes, [array for one in batches for array in one.arrays])

    changed = {"seed": 5}
    if what != "attributes":
        changed = np.array(getattr(DATA[which], what))
        changed[-1] = changed[-1] * 2 + 1  # a single example
    other = [replace(one, **({what: changed} if n == which else {})) for n, one in enumerate(DATA)]
    assert digest(other) != digest(DATA) == digest([replace(one) for one in DATA])


@pytest.mark.parametrize("name", [checkpoint_of(Path("model.keras")).name, "model.keras"])
def test_what_cannot_be_read_just_now_is_not_replaced(whole, tmp_path, name):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).unlink(missing_ok=True)
    if name != "model.keras":
        (tmp_path / "settings.json").unlink()  # so that it looks for a state
    # Of what can go wrong with the file system, what is easy to bring about.
    (tmp_path / name).mkdir()
    with pytest.raises(StoreError, match=rf"cannot read .*{name}"):
        attempt(tmp_path, never)


# What is written, and left


def test_a_state_that_cannot_be_written_says_where(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PacbedError, match=r"cannot write .*unfinished: No space left"):
        attempt(tmp_path)


def test_what_killed_trainings_left_is_removed(whole, unfinished):
    newest, _ = unfinished
    for name in (f".{newest.name}.tmp", ".model.keras.finished.keras", ".history.csv.finished"):
        newest.with_name(name).write_bytes(b"half")
    attempt(newest.parent)
    assert_same(newest.parent, whole)


def test_a_training_that_diverges_keeps_nothing_to_resume_from(tmp_path):
    with pytest.raises(PacbedError, match="diverged"):
        attempt(tmp_path, schedule=settings((2, 0.001), (2, 1e30)).schedule)
    assert [path.name for path in tmp_path.iterdir()] == [DIVERGED]


def test_short_epochs_do_not_spend_their_time_on_writing(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(training_checkpoint, "PAUSE", 20)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(os, "fsync", lambda descriptor: now.__setitem__(0, now[0] + 2))
    checkpoint = TrainingCheckpoint(tmp_path / "kept", "mine", pytest.fail)
    assert checkpoint.is_due
    checkpoint.save({})
    now[0] += 39
    assert not checkpoint.is_due
    now[0] += 2
    assert checkpoint.is_due


# Ended before


@pytest.fixture
def ended(whole, tmp_path):
    """A copy of a training that has ended."""
    shutil.copytree(whole, tmp_path / "ended")
    return tmp_path / "ended"


@pytest.mark.parametrize("renamed", range(len(PRODUCTS) + 1))
def test_a_training_that_has_ended_is_not_repeated(whole, ended, renamed):
    """Also if it was killed before all of its products had their names."""
    for name in PRODUCTS[renamed:]:
        (ended / name).replace(waiting(ended / name))
    assert attempt(ended, never) == [f"{ended / 'model.keras'} is there already"]
    assert_same(ended, whole)


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("damage", [Path.unlink, truncate])
def test_a_training_of_which_a_product_is_lost_or_damaged_is_repeated(ended, name, damage):
    damage(ended / name)
    assert interrupted(ended) == []


def test_a_training_with_other_settings_is_not_that_one(ended):
    assert interrupted(ended, momentum=0.5) == []
    assert sorted(PRODUCTS) == sorted(p.name for p in ended.iterdir() if p.name[0] != ".")


# The script of the workflow

SCRIPT = """
import os, runpy, signal, sys
from pathlib import Path
from types import SimpleNamespace
import pacbed.examples.dataset
import test_checkpoint
test_checkpoint.training_checkpoint.PAUSE = 0
test_checkpoint.deterministic()
folder, script, moment = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
if moment == "stopped":
    import pytest
    test_checkpoint.arrange_sigterm(pytest.MonkeyPatch(), 2, 1)
if moment == "killed":
    def die(event, arguments):
        if event == "os.rename" and Path(arguments[1]).name == "history.csv":
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(die)
class Outputs(list):
    model = property(lambda files: files[0])
pacbed.examples.dataset.read_dataset = lambda path: test_checkpoint.DATA[int(path.name)]
snakemake = SimpleNamespace(
    log=[str(folder / "logs/models/train.log")], threads=1, resources={},
    config={"results": str(folder)},
    input=SimpleNamespace(train="0", validation="1", initial=[], bounds=[]),
    output=Outputs(str(folder / "models" / name) for name in test_checkpoint.PRODUCTS),
    params=SimpleNamespace(
        outputs="strain-rotation",
        ranges={"principal_stretch": [.95, 1.05], "rotation_deg": [-10, 10], "tilt_mrad": [-5, 5]},
        network={"filters": [4], "dense": [4]}, intensity="sqrt", image_mean=[0.2, 0.3], seed=1,
        training={
            "schedule": "paper", "learning_rate_steps": [{"epochs": 4, "rate": 1e-4}],
            "batch_size": 16, "momentum": 0.9, "precision": "float32", "xla": False,
        },
        online=None,
    ),
)
runpy.run_path(script, init_globals={"snakemake": snakemake})
"""


def test_a_job_of_the_workflow_resumes_however_it_ended(tmp_path):
    """Stopped, killed while its products got their names, and then to its end."""
    folder = tmp_path / "logs" / "results"  # not to be taken for the folder of the logs
    models, log = folder / "models", folder / "logs" / "models" / "train.log"
    models.mkdir(parents=True)
    log.parent.mkdir(parents=True)
    (models / "model.keras").write_text("of another training")
    script = Path(__file__).parents[2] / "workflow/scripts/train.py"
    paths = [str(Path(__file__).parent), str(script.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}

    def job(moment):
        command = [sys.executable, "-c", SCRIPT, str(folder), str(script), moment]
        ended = subprocess.run(command, env=environment, timeout=100)
        for product in PRODUCTS:  # as Snakemake does after a job that failed
            if ended.returncode:
                (models / product).unlink(missing_ok=True)
        note = folder / "benchmarks" / "models" / "train.tsv.partial"
        return ended.returncode, note.exists(), log.read_text()

    status, found, said = job("stopped")
    assert (status, found) == (128 + signal.SIGTERM, False)
    assert "stopped before epoch 3: the next attempt resumes" in said
    assert waiting(models / "model.keras").read_text() == "of another training"
    status, found, said = job("killed")
    assert (status, found) == (-signal.SIGKILL, True)
    assert "resumes after epoch 2 of 4" in said
    status, found, said = job("undisturbed")
    assert (status, found) == (0, True)
    assert "resumes after epoch 4 of 4" in said
    assert sorted(path.name for path in models.iterdir()) == sorted(PRODUCTS)


if __name__ == "__main__":
    training_checkpoint.PAUSE = 0
    deterministic()
    moments = random.Random(sys.argv[1])
    for folder in map(Path, sys.argv[2:]):
        begun, begins = os.pipe()
        if not (child := os.fork()):
            attempt(folder, lambda epoch, *more, to=begins: os.write(to, b"."))
            signal.pause()  # it may end before it is killed
        os.close(begins)
        assert os.read(begun, 1), "no epoch ended"
        time.sleep(moments.uniform(0, 0.7))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
