"""The cluster of the tests behaves as one on which a study runs, and nothing of it stays."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import cluster as module
import psutil
import pytest
from cluster import KILL_WAIT_SECONDS, TIME_LIMIT_CHECK_SECONDS, Cluster, missing, wait_until

TIME_LIMIT_WAIT = 2 * TIME_LIMIT_CHECK_SECONDS + 4 * KILL_WAIT_SECONDS

# Ends as a job of the workflow should: it says that it was asked to end, and ends.
OBEDIENT = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def end(*_):
    (folder / "ended").touch()
    sys.exit(1)
signal.signal(signal.SIGTERM, end)
(folder / "started").touch()
time.sleep(600)
"""

# Starts a cluster with a job that ignores all requests to end, and waits to be killed.
KEEPER = """
import pathlib, sys, time
from cluster import Cluster
folder = pathlib.Path(sys.argv[1])
with Cluster(folder) as cluster:
    cluster.submit(f"trap '' TERM HUP; srun sh -c 'touch {folder}/started; sleep 600' & sleep 600")
    time.sleep(600)
"""

# On one worker of pytest-xdist, so that one cluster is enough.
pytestmark = pytest.mark.xdist_group("slurm")


def processes_of(folder: Path) -> list[psutil.Process]:
    """All processes, daemons or jobs, of the cluster in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SLURM_CONF") == str(folder / "slurm.conf"):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_job_is_described_as_submitted(cluster, tmp_path):
    submitted = cluster.submit(
        "exit 3",
        *("--comment=rule_x_wildcards_a=1 b", "--cpus-per-task=4", "--mem=2G"),
        *("--time=1-02:30", "--no-requeue", "--partition=gpu", "--gres=gpu:1"),
        f"--chdir={tmp_path}",
    )
    job = cluster.wait_for(submitted)
    assert job in cluster.jobs()
    assert (job.partition, job.comment) == ("gpu", "rule_x_wildcards_a=1 b")
    assert (job.cpus, job.memory_mb, job.gpus) == (4, 2048, 1)
    assert (job.time_limit_s, job.requeue, job.work_dir) == (26.5 * 3600, False, tmp_path)
    assert job.state == "FAILED"


@pytest.mark.parametrize("how", ["cancel", "expire", "requeue", "node_down"])
def test_a_job_that_has_to_end_is_asked_to(idle_cluster, tmp_path, how):
    command = shlex.join(["srun", sys.executable, "-c", OBEDIENT, str(tmp_path)])
    job = idle_cluster.submit(command)
    wait_until((tmp_path / "started").exists, 60, lambda: f"a step: {idle_cluster.job(job)}")
    if how == "node_down":
        idle_cluster.node_down()
        assert idle_cluster.wait_for(job, "PENDING").restarts == 1
        idle_cluster.node_up()
        idle_cluster.wait_for(job, "RUNNING")
        return
    getattr(idle_cluster, how)(job)
    state = {"cancel": "CANCELLED", "expire": "TIMEOUT", "requeue": "RUNNING"}[how]
    wait_until((tmp_path / "ended").exists, TIME_LIMIT_WAIT, lambda: f"the end after {how}")
    assert idle_cluster.wait_for(job, state).restarts == (how == "requeue")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_when_the_tests_are_killed(cluster, tmp_path_factory, number):
    folder = tmp_path_factory.mktemp("slurm")
    command = [sys.executable, "-c", KEEPER, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(
        command,
        env=environment,
        stderr=subprocess.DEVNULL,
        # A shell lets what it runs in the background ignore it, and this would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as keeper:
        try:
            wait_until((folder / "started").exists, 60, lambda: "a step")
            assert processes_of(folder)
        finally:
            keeper.send_signal(number)
    wait_until(lambda: not processes_of(folder), 30, lambda: f"the end: {processes_of(folder)}")
    assert processes_of(cluster.folder)


def test_a_daemon_that_does_not_start_says_why(cluster, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(module, "CONFIGURATION", module.CONFIGURATION + "Nonsense=1\n")
    with (
        pytest.raises(module.ClusterError, match=r"slurmctld did not start:(?s:.*)Nonsense"),
        Cluster(tmp_path_factory.mktemp("slurm")),
    ):
        pass


def test_missing_programs_are_named(monkeypatch):
    monkeypatch.setattr(module, "PATH", "")
    assert "SLURM is not installed: munged, slurmctld, slurmd" in missing()[0]
