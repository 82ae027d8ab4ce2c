"""A study on a cluster: what jobs ask for, and what happens when something ends before its time."""

import os
import re
import shutil
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cluster import wait_until
from workspace import ROOT, Outcome, Workspace, new_workspace

from pacbed.patterns.store import read_patterns
from pacbed.storage.zipped import checkpoint_of

# On one worker of pytest-xdist, so that one cluster is enough.
pytestmark = pytest.mark.xdist_group("slurm")

# The profile as it is shipped, but quick to notice what happens, and without accounting.
SHIPPED = ROOT / "profiles" / "slurm"
QUICK = (
    *("--slurm-status-command", "squeue"),
    *("--slurm-init-seconds-before-status-checks", "2"),
    *("--latency-wait", "10"),
)
STORES = "results/patterns/6.35mrad"
NETWORK = "results/models/6.35mrad/2layers/strain-rotation-tilt_linear"
# What makes every job of a study: figures and page are drawn where the controller runs.
ALL_JOBS = (
    "results/tables/errors.csv",
    *(f"{STORES}/{state}.zarr.zip" for state in ("undeformed", "gallery_tilt_xy")),
)


class Study:
    """A workspace whose jobs run on a cluster."""

    def __init__(self, workspace: Workspace, cluster):
        self.workspace, self.cluster, self.folder = workspace, cluster, workspace.folder

    def start(self, *targets, profile=SHIPPED, change=None):
        """Start a controller."""
        options = ("--profile", str(profile), *QUICK, *targets)
        return self.workspace.start(
            *options,
            change=change,
            environment=self.cluster.environment,
            program=(str(Path(__file__).with_name("controller.py")),),
        )

    def run(self, *targets, **how) -> Outcome:
        """Run a controller to its end."""
        return finish(self.start(*targets, **how))

    def jobs(self, rule=""):
        """Jobs of a rule, or all, that were submitted from this folder."""
        return [
            job
            for job in self.cluster.jobs()
            if job.work_dir == self.folder and job.comment.startswith(f"rule_{rule}")
        ]

    def wait_for_job(self, rule):
        """Return a job of a rule as soon as it runs."""

        def there():
            return [job for job in self.jobs(rule) if job.state == "RUNNING"]

        wait_until(there, 60, lambda: f"running job of {rule}: {self.jobs()}")
        return there()[0]

    def stores(self):
        """State of all finished stores: names, times and contents."""
        files = (self.folder / STORES).glob("0*.zarr.zip")
        return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


def finish(controller) -> Outcome:
    text, _ = controller.communicate(timeout=1200)
    return Outcome(controller.returncode, text)


def targets(count):
    return [f"{STORES}/{n:05d}.zarr.zip" for n in range(count)]


@pytest.fixture
def study(idle_cluster, tmp_path):
    return Study(new_workspace(tmp_path / "study"), idle_cluster)


def site_profile(folder):
    """Return the profile with the changes of a site that simulates on 32 cores with 20 GB."""
    text = (SHIPPED / "config.yaml").read_text()
    size = "\n  simulate:\n    mem_mb: 20000\n    runtime: 480\n"
    text = text.replace("\nset-resources:\n", f"\nset-resources:{size}")
    (folder / "config.yaml").write_text(text + "set-threads:\n  simulate: 32\n")
    return folder


@pytest.fixture(scope="module")
def complete(cluster, tmp_path_factory):
    """A study of which all jobs have run; not to be changed."""
    made = Study(new_workspace(tmp_path_factory.mktemp("complete") / "study"), cluster)
    outcome = made.run(*ALL_JOBS, profile=site_profile(tmp_path_factory.mktemp("profile")))
    assert outcome.status == 0, outcome.text
    made.outcome = outcome
    return made


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Patterns and a network made on this machine without a cluster."""
    made = new_workspace(tmp_path_factory.mktemp("undisturbed") / "local")
    # Threads add up in another order: as many as a node of the cluster has.
    asked = *targets(2), f"{NETWORK}/history.csv", "--set-threads", "train=2"
    outcome = made.run(*asked, change=LONG_TRAINING)
    assert outcome.status == 0, outcome.text
    return made


# Enough to be interrupted in the middle.
SLOW = {"simulation": {"layers": 8, "planewave": {"incident_step_mrad": 0.1, "supercell": [8, 5]}}}
LONG_TRAINING = {
    "training": {"batch_size": 4, "learning_rate_steps": [{"epochs": 150, "rate": 1e-3}]}
}


# What jobs ask for


def test_all_jobs_of_a_study_run_on_a_cluster(complete):
    assert all((complete.folder / name).is_file() for name in ALL_JOBS)
    submitted = Counter(
        re.match(r"rule_([a-z_]+?)(_wildcards|$)", j.comment)[1] for j in complete.jobs()
    )
    assert submitted == {
        "simulate": 4,
        "simulate_undeformed": 1,
        "simulate_gallery": 1,
        "simulate_bound": 1,
        "bounds": 1,
        "errors": 1,
        "augment": 6,
        "train": 2,
        "predict": 2,
    }
    # It begins with the budget, here four jobs of 32 cores for eight hours, and ends with the bill.
    before, _, after = complete.outcome.text.partition("has been submitted")
    assert re.search(r"simulate +4 +32 +8 h +1,024 ", before)
    assert "Wall-clock with 500 jobs at a time" in before
    assert re.search(r"(?s)finished jobs of this run used.*simulate +4 .*train +2 ", after)


@pytest.mark.parametrize(
    ("rule", "partition", "cpus", "memory_mb", "minutes", "gpus"),
    [
        ("simulate_wildcards", "cpu", 32, 20000, 480, 0),
        ("simulate_undeformed", "cpu", 1, 2000, 30, 0),
        ("simulate_bound", "cpu", 1, 2000, 330, 0),
        ("bounds", "cpu", 1, 3000, 60, 0),
        ("augment", "cpu", 4, 1200, 240, 0),
        ("train", "gpu", 8, 8000, 4320, 1),
        ("predict", "gpu", 4, 8000, 120, 1),
    ],
)
def test_jobs_ask_for_what_their_rule_and_the_profile_say(
    complete, rule, partition, cpus, memory_mb, minutes, gpus
):
    for job in complete.jobs(rule):
        assert job.partition == partition
        assert job.cpus == cpus
        assert job.memory_mb == pytest.approx(memory_mb, abs=20)
        assert job.time_limit_s == 60 * minutes
        assert job.gpus == gpus
        assert job.requeue


def test_a_card_that_cannot_be_used_is_pointed_out(complete):
    # That of the cluster is none.
    (log,) = (complete.folder / "results/logs/models/6.35mrad/2layers").glob("*/train.log")
    assert "a graphics card is reserved for this job, but TensorFlow sees none" in log.read_text()


def test_patterns_made_on_a_cluster_are_those_made_without(complete, undisturbed):
    for number in range(2):
        same_patterns(complete, undisturbed, number)


def same_patterns(one, other, number):
    made, local = (
        read_patterns(w.folder / STORES / f"{number:05d}.zarr.zip") for w in (one, other)
    )
    np.testing.assert_array_equal(made.patterns, local.patterns)


# What ends before its time


def test_a_killed_controller_leaves_nothing_to_be_done_twice(study):
    controller = study.start(*targets(4), "--jobs", "2")

    def finished():
        return {j.comment[-5:] for j in study.jobs("simulate") if j.state == "COMPLETED"}

    wait_until(lambda: len(finished()) >= 2, 90, lambda: f"two stores: {study.jobs()}")
    os.kill(controller.pid, signal.SIGKILL)
    controller.wait()
    before = {name: state for name, state in study.stores().items() if name[:5] in finished()}

    outcome = study.run(*targets(4))

    assert outcome.status == 0, outcome.text
    after = study.stores()
    assert len(after) == 4
    assert {name: after[name] for name in before} == before


def test_jobs_of_a_killed_controller_are_ended_by_the_next(study):
    controller = study.start(*targets(3), change=SLOW)
    wait_until(lambda: len(study.jobs("simulate")) == 3, 60, lambda: "three jobs")
    study.wait_for_job("simulate")
    os.kill(controller.pid, signal.SIGKILL)
    controller.wait()
    old = {job.id for job in study.jobs("simulate")}

    second = study.start(*targets(1), change=SLOW)
    wait_until(lambda: len(study.jobs("simulate")) == 4, 90, lambda: f"a new job: {study.jobs()}")

    assert {job.state for job in study.jobs("simulate") if job.id in old} == {"CANCELLED"}
    second.send_signal(signal.SIGINT)
    assert "3 jobs of an earlier run were still in the queue" in finish(second).text


def test_a_node_that_goes_down_and_comes_back_costs_an_attempt(study, undisturbed):
    controller = study.start(*targets(1))
    study.wait_for_job("simulate")
    study.cluster.node_down()
    study.cluster.node_up()
    outcome = finish(controller)
    assert outcome.status == 0, outcome.text
    assert [job.restarts for job in study.jobs("simulate")] == [1]
    same_patterns(study, undisturbed, 0)


def test_a_job_over_its_time_limit_gets_more_time(study):
    controller = study.start(*targets(1), change=SLOW)
    job = study.wait_for_job("simulate")
    begun = study.folder / STORES / ".00000.zarr.zip.lock"
    wait_until(begun.exists, 60, lambda: "the simulation to begin")
    # It ends at the next look at time limits, which slurmctld takes every 30 s.
    study.cluster.call("scontrol", "update", f"JobId={job.id}", "EndTime=now")
    study.cluster.wait_for(job.id, "TIMEOUT", timeout=90)

    def second():
        return [j for j in study.jobs("simulate") if j.id != job.id]

    wait_until(second, 60, lambda: f"another attempt: {study.jobs()}")
    assert [job.time_limit_s, second()[0].time_limit_s] == [30 * 60, 60 * 60]
    assert second()[0].memory_mb == pytest.approx(2 * job.memory_mb, abs=20)
    # As Ctrl-C: that cancels what runs.
    controller.send_signal(signal.SIGINT)
    finish(controller)
    study.cluster.wait_for(second()[0].id, "CANCELLED")


def test_a_training_that_is_cancelled_is_tried_again_and_goes_on_where_it_was(
    idle_cluster, undisturbed, tmp_path
):
    # All but the network is there.
    shutil.copytree(undisturbed.folder, tmp_path / "study")
    shutil.rmtree(tmp_path / "study" / "results" / "models")
    study = Study(Workspace(tmp_path / "study"), idle_cluster)
    controller = study.start(f"{NETWORK}/history.csv", change=LONG_TRAINING)
    job = study.wait_for_job("train")
    kept = checkpoint_of(study.folder / NETWORK / "model.keras")
    wait_until(kept.exists, 90, lambda: "the first epoch to end")
    study.cluster.call("scancel", job.id)
    outcome = finish(controller)
    assert outcome.status == 0, outcome.text
    assert [job.state for job in study.jobs("train")] == ["CANCELLED", "COMPLETED"]
    log = study.folder / NETWORK.replace("models", "logs/models") / "train.log"
    assert "resumes after epoch" in log.read_text()
    histories = [pd.read_csv(w.folder / NETWORK / "history.csv") for w in (study, undisturbed)]
    # Equal, since both use two threads of this machine.
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    assert weights(study) == weights(undisturbed)


def weights(workspace):
    import keras

    import pacbed.learning.network  # noqa: F401  (a layer of the model)

    model = keras.saving.load_model(workspace.folder / NETWORK / "model.keras", compile=False)
    return [w.tolist() for w in model.get_weights()]


def test_one_draw_that_always_fails_stops_only_what_depends_on_it(study):
    # Nothing can be written where a folder is.
    (study.folder / STORES / ".00001.zarr.zip.finished" / "in the way").mkdir(parents=True)
    sets = [
        f"results/datasets/6.35mrad/{layers}layers/{split}.zarr.zip"
        for layers in (1, 2)
        for split in ("train", "validation", "test")
    ]
    outcome = study.run(*targets(4), *sets, "results/figures/fig1.pdf", "--retries", "1")
    assert outcome.status != 0
    assert sorted(study.stores()) == ["00000.zarr.zip", "00002.zarr.zip", "00003.zarr.zip"]
    failed = [job for job in study.jobs("simulate_wildcards") if job.state == "FAILED"]
    assert [job.comment[-5:] for job in failed] == ["00001", "00001"]
    summary = outcome.text.partition("What the finished jobs of this run used")[2]
    assert "Failed: simulate (semiangle=6.35, draw=00001)" in summary
    assert "results/logs/patterns/6.35mrad/00001.log" in summary
    # The sets without this draw, and the figure that needs none.
    assert len(list(study.folder.glob("results/datasets/*/*/*.zip"))) == 4
    assert (study.folder / "results/figures/fig1.pdf").is_file()


# What cannot work, and is said before anything is submitted


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--default-resources", "slurm_partition=nowhere", "runtime=10"),
            r"simulate: .*partition.*; there are: cpu, gpu",
        ),
        (("--slurm-status-command", "sacct"), "(?s)no accounts here.*status-command: squeue"),
        (
            # Before SLURM is asked, and jobs of an earlier run are cancelled.
            ("--logger-budget-max-core-hours", "0.00001", "--slurm-status-command", "sacct"),
            "core-hours are likely to be needed, 1e-05 are allowed",
        ),
    ],
)
def test_what_would_be_refused_later_is_named_first(study, options, said):
    outcome = study.run(*options)
    assert outcome.status == (3 if "core-hours" in said else 1)
    assert re.search(said, outcome.text)
    assert study.jobs() == []
    assert "Traceback" not in outcome.text
