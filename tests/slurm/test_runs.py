"""A study on a cluster: what jobs ask for, and what happens when something ends before its time."""

import os
import re
import shutil
import signal
import socket
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import yaml
from cluster import wait_until
from workspace import ROOT, Outcome, Workspace, new_workspace

from pacbed.patterns.store import read_patterns
from pacbed.storage.zipped import checkpoint_of

# On one worker of pytest-xdist, so that one cluster is enough.
pytestmark = pytest.mark.xdist_group("slurm")

# The profile as it is shipped, but quick to notice what happens, and without accounting.
SHIPPED = ROOT / "profiles" / "slurm"
NO_ACCOUNTS = ("--slurm-status-command", "squeue")
QUICK = (
    *("--slurm-init-seconds-before-status-checks", "2"),
    *("--seconds-between-status-checks", "2", "--max-jobs-per-timespan", "1000/2s"),
    *("--latency-wait", "10"),
)
STORES = "results/patterns/6.35mrad"
NETWORK = "results/models/6.35mrad/2layers/strain-rotation-tilt_linear"


class Study:
    """A workspace whose jobs run on a cluster."""

    def __init__(self, workspace: Workspace, cluster):
        self.workspace, self.cluster, self.folder = workspace, cluster, workspace.folder

    def start(self, *targets, profile=SHIPPED, status=NO_ACCOUNTS, change=None, environment=None):
        """Start a controller."""
        return self.workspace.start(
            *("--profile", str(profile)),
            *QUICK,
            *status,
            *targets,
            change=change,
            environment={**self.cluster.environment, **(environment or {})},
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

    def wait_for_job(self, rule, state="RUNNING", timeout=60):
        """Return a job of a rule as soon as it is in a state."""

        def there():
            return [job for job in self.jobs(rule) if job.state == state]

        wait_until(there, timeout, lambda: f"{state} job of {rule}: {self.jobs()}")
        return there()[0]

    def store(self, number):
        """The store of a draw."""
        return self.folder / STORES / f"{number:05d}.zarr.zip"

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
    """A study that has run from its beginning to its end; not to be changed."""
    made = Study(new_workspace(tmp_path_factory.mktemp("complete") / "study"), cluster)
    outcome = made.run(profile=site_profile(tmp_path_factory.mktemp("profile")))
    assert outcome.status == 0, outcome.text
    made.outcome = outcome
    return made


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Patterns and a network made on this machine without a cluster."""
    made = new_workspace(tmp_path_factory.mktemp("undisturbed") / "local")
    outcome = made.run(*targets(2), f"{NETWORK}/history.csv", change=LONG_TRAINING)
    assert outcome.status == 0, outcome.text
    return made


# Epochs enough to be interrupted in their middle.
LONG_TRAINING = {
    "training": {"batch_size": 4, "learning_rate_steps": [{"epochs": 150, "rate": 1e-3}]}
}


# What jobs ask for


def test_the_whole_graph_runs_on_a_cluster(complete):
    results = complete.folder / "results"
    assert (results / "report.html").is_file()
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
        made, local = (
            read_patterns(folder / STORES / f"{number:05d}.zarr.zip")
            for folder in (complete.folder, undisturbed.folder)
        )
        np.testing.assert_array_equal(made.patterns, local.patterns)


def test_a_run_begins_with_its_budget(complete):
    text = complete.outcome.text.partition("has been submitted")[0].partition("Budget")[2]
    # Four jobs of 32 cores, for eight hours.
    assert re.search(r"simulate +4 +0 +32 +8 h +1,024 ", text)
    assert "Wall-clock with 500 jobs at a time" in text


def test_in_the_end_the_bill_is_presented(complete):
    assert re.search(r"What the finished jobs of this run used", complete.outcome.text)
    assert re.search(r"simulate +4 ", complete.outcome.text)
    assert re.search(r"train +2 ", complete.outcome.text)


def test_a_larger_study_simulates_only_what_is_new(complete, tmp_path):
    before, jobs = complete.stores(), len(complete.jobs())
    outcome = complete.run("--until", "simulate", change={"draws": {"count": 8}})
    assert outcome.status == 0, outcome.text
    new = complete.jobs()[jobs:]
    assert sorted(job.comment[-5:] for job in new) == ["00004", "00005", "00006", "00007"]
    after = complete.stores()
    assert {name: after[name] for name in before} == before
    assert len(after) == 8


# What ends before its time


def test_a_killed_controller_leaves_nothing_to_be_done_twice(study):
    controller = study.start(*targets(6), "--jobs", "2", change={"draws": {"count": 8}})

    def finished():
        return {j.comment[-5:] for j in study.jobs("simulate") if j.state == "COMPLETED"}

    wait_until(lambda: len(finished()) >= 2, 90, lambda: f"two stores: {study.jobs()}")
    os.kill(controller.pid, signal.SIGKILL)
    controller.wait()
    before = {name: state for name, state in study.stores().items() if name[:5] in finished()}

    outcome = study.run(*targets(6), change={"draws": {"count": 8}})

    assert outcome.status == 0, outcome.text
    after = study.stores()
    assert len(after) == 6
    assert {name: after[name] for name in before} == before


def test_jobs_of_a_killed_controller_are_ended_by_the_next(study):
    slow = {"simulation": {"planewave": {"incident_step_mrad": 0.1, "supercell": [8, 5]}}}
    controller = study.start(*targets(3), change=slow)
    wait_until(lambda: len(study.jobs("simulate")) == 3, 60, lambda: "three jobs")
    study.wait_for_job("simulate")
    os.kill(controller.pid, signal.SIGKILL)
    controller.wait()
    old = {job.id for job in study.jobs("simulate")}

    second = study.start(*targets(1), change=slow)
    wait_until(lambda: len(study.jobs("simulate")) == 4, 90, lambda: f"a new job: {study.jobs()}")

    assert {job.state for job in study.jobs("simulate") if job.id in old} == {"CANCELLED"}
    second.send_signal(signal.SIGINT)
    assert "3 jobs of an earlier run were still in the queue" in finish(second).text


def test_a_job_that_fails_deletes_nothing_that_was_good(study, undisturbed):
    # One of the ten stores that a job makes cannot be written, two are there already.
    batch = {"draws": {"count": 10}, "execution": {"draws_per_job": 10}}
    (study.folder / STORES).mkdir(parents=True)
    for number in (0, 1):
        shutil.copy2(undisturbed.folder / targets(2)[number], study.store(number))
    good = study.stores()
    in_the_way = study.folder / STORES / ".00003.zarr.zip.finished" / "in the way"
    in_the_way.mkdir(parents=True)
    missing = f"{STORES}/00002.zarr.zip"
    assert study.run(missing, "--retries", "0", change=batch).status != 0
    shutil.rmtree(in_the_way.parent)

    outcome = study.run(missing, change=batch)

    assert outcome.status == 0, outcome.text
    assert {name: study.stores()[name][1] for name in good} == {
        name: content for name, (_, content) in good.items()
    }
    log = (study.folder / "results/logs/patterns/6.35mrad/0000x.log").read_text()
    assert "00000.zarr.zip is there already\n00001.zarr.zip is there already" in log


def test_two_controllers_do_not_run_one_study(study):
    first = study.start(*targets(2))
    study.wait_for_job("simulate")
    second = study.run(*targets(2))
    assert second.status != 0
    assert "is running this study already, in results" in second.text
    assert finish(first).status == 0


def test_a_cancelled_simulation_is_tried_again_with_the_same_result(study, undisturbed):
    controller = study.start(*targets(1))
    study.cluster.cancel(study.wait_for_job("simulate").id)
    outcome = finish(controller)
    assert outcome.status == 0, outcome.text
    assert [job.state for job in study.jobs("simulate")] == ["CANCELLED", "COMPLETED"]
    made, local = (read_patterns(w.folder / targets(1)[0]) for w in (study, undisturbed))
    np.testing.assert_array_equal(made.patterns, local.patterns)


def test_a_node_that_goes_down_and_comes_back_costs_an_attempt(study, undisturbed):
    controller = study.start(*targets(2))
    study.wait_for_job("simulate")
    study.cluster.node_down()
    study.cluster.node_up()
    outcome = finish(controller)
    assert outcome.status == 0, outcome.text
    assert sum(job.restarts for job in study.jobs("simulate")) > 0
    for target in targets(2):
        made, local = (read_patterns(w.folder / target) for w in (study, undisturbed))
        np.testing.assert_array_equal(made.patterns, local.patterns)


def test_a_job_over_its_time_limit_gets_more_time(study):
    slow = {"simulation": {"planewave": {"incident_step_mrad": 0.1, "supercell": [8, 5]}}}
    controller = study.start(*targets(1), change=slow)
    job = study.wait_for_job("simulate")
    begun = study.folder / STORES / ".00000.zarr.zip.lock"
    wait_until(begun.exists, 60, lambda: "the simulation to begin")
    study.cluster.expire(job.id)
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


@pytest.mark.parametrize("how", ["requeue", "cancel"])
def test_a_training_that_is_stopped_goes_on_where_it_was(idle_cluster, undisturbed, tmp_path, how):
    # All but the network is there.
    shutil.copytree(undisturbed.folder, tmp_path / "study")
    shutil.rmtree(tmp_path / "study" / "results" / "models")
    study = Study(Workspace(tmp_path / "study"), idle_cluster)
    controller = study.start(f"{NETWORK}/history.csv", change=LONG_TRAINING)
    job = study.wait_for_job("train")
    log = (
        study.folder / "results/logs/models/6.35mrad/2layers/strain-rotation-tilt_linear/train.log"
    )
    kept = checkpoint_of(study.folder / NETWORK / "model.keras")
    wait_until(kept.exists, 90, lambda: "the first epoch to end")
    getattr(study.cluster, how)(job.id)
    outcome = finish(controller)
    assert outcome.status == 0, outcome.text
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
    outcome = study.run("--retries", "1")
    assert outcome.status != 0
    assert sorted(study.stores()) == ["00000.zarr.zip", "00002.zarr.zip", "00003.zarr.zip"]
    failed = [job for job in study.jobs("simulate_wildcards") if job.state == "FAILED"]
    assert [job.comment[-5:] for job in failed] == ["00001", "00001"]
    summary = outcome.text.partition("What the finished jobs of this run used")[2]
    assert "Failed: simulate (semiangle=6.35, draw=00001)" in summary
    assert "results/logs/patterns/6.35mrad/00001.log" in summary
    # The sets without this draw, and the figure that needs none.
    made = {p.parent.name + "/" + p.name for p in study.folder.glob("results/datasets/*/*/*.zip")}
    config = study.workspace.config()
    assert config.draws.count == 4
    assert len(made) == 4
    assert (study.folder / "results/figures/fig1.pdf").is_file()


# What cannot work, and is said before anything is submitted


@pytest.fixture
def refused(study):
    """Run a study that must not submit anything; return its status and what it says."""

    def run(*arguments, **how):
        outcome = study.run(*arguments, **how)
        assert outcome.status != 0
        assert study.jobs() == []
        assert "Traceback" not in outcome.text
        return outcome.status, outcome.text

    return run


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (
            ("--default-resources", "slurm_partition=nowhere", "runtime=10"),
            r"simulate: .*partition.*; there are: cpu, gpu",
        ),
        (
            ("--set-resources", "train:gres=gpu:a100:1,lscratch:100"),
            "train: Invalid GRES format: gpu:a100:1,lscratch:100",
        ),
        (("--slurm-status-command", "sacct"), "(?s)no accounts here.*status-command: squeue"),
    ],
)
def test_what_would_be_refused_later_is_named_first(refused, option, said):
    _, text = refused(*option, status=() if "sacct" in option else NO_ACCOUNTS)
    assert re.search(said, text)


def test_a_run_over_its_limit_ends_with_status_3(refused):
    status, text = refused("--logger-budget-max-core-hours", "0.00001")
    assert status == 3
    assert "core-hours are likely to be needed, 1e-05 are allowed" in text


def test_a_queue_that_does_not_answer_is_not_taken_for_an_empty_one(study, refused, tmp_path):
    (study.folder / "results").mkdir()
    record = study.folder / "results" / "run.jobs"
    record.write_text(f"a-name\nprocess 7 on {socket.gethostname()}\n")
    broken = tmp_path / "programs"
    broken.mkdir()
    (broken / "squeue").write_text("#!/bin/sh\necho squeue: error: timed out >&2\nexit 1\n")
    (broken / "squeue").chmod(0o755)
    _, text = refused(environment={"PATH": f"{broken}:{study.cluster.environment['PATH']}"})
    assert "SLURM does not say which jobs are in the queue" in text
    assert record.read_text().startswith("a-name\n")


def test_results_of_another_configuration_are_not_overwritten(study, refused):
    (study.folder / STORES).mkdir(parents=True)
    study.store(0).write_bytes(b"a store")
    other = study.workspace.config().changed({"simulation": {"layers": 7}}).plain()
    (study.folder / "results" / "config.yaml").write_text(yaml.safe_dump(other))
    assert "simulation.layers was 7, is 2" in refused()[1]
    assert study.store(0).read_bytes() == b"a store"
