"""The cluster of the tests behaves as one on which a study runs."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import cluster as module
import psutil
import pytest
from cluster import (
    CPU,
    GPU,
    GPUS,
    KILL_WAIT_SECONDS,
    SHORT,
    TIME_LIMIT_CHECK_SECONDS,
    Cluster,
    ClusterError,
    missing,
    wait_until,
)

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


@pytest.fixture
def obedient(idle_cluster, tmp_path):
    """A running job, with the step that notes its end in the folder of the test."""
    command = shlex.join(["srun", sys.executable, "-c", OBEDIENT, str(tmp_path)])
    job = idle_cluster.submit(command)
    wait_until((tmp_path / "started").exists, 60, lambda: f"a step: {idle_cluster.job(job)}")
    return job


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


# Jobs


@pytest.mark.parametrize("partition", [CPU, GPU, SHORT])
def test_every_partition_runs_jobs(cluster, partition):
    job = cluster.wait_for(cluster.submit("echo $SLURM_JOB_PARTITION", f"--partition={partition}"))
    assert (job.state, job.partition) == ("COMPLETED", partition)
    assert job.log.read_text() == f"{partition}\n"


def test_a_job_is_described_as_submitted(cluster, tmp_path):
    submitted = cluster.submit(
        "exit 3",
        *("--job-name=a name", "--comment=rule_x_wildcards_a=1 b", "--account=physics"),
        *("--cpus-per-task=4", "--mem=2G", "--time=1-02:30", "--no-requeue"),
        *("--partition=gpu", "--gres=gpu:1", f"--chdir={tmp_path}"),
    )
    job = cluster.wait_for(submitted)
    assert job in cluster.jobs()
    assert (job.name, job.comment, job.account) == ("a name", "rule_x_wildcards_a=1 b", "physics")
    assert (job.cpus, job.memory_mb, job.gpus) == (4, 2048, 1)
    assert job.time_limit_s == 26.5 * 3600
    assert (job.requeue, job.restarts, job.work_dir) == (False, 0, tmp_path)
    assert (job.state, job.exit_code, job.signal) == ("FAILED", 3, 0)


def test_large_jobs_run_side_by_side(idle_cluster):
    large = ("--cpus-per-task=32", "--mem=100G")
    jobs = [idle_cluster.submit("sleep 600", *large) for _ in range(4)]
    for job in jobs:
        assert idle_cluster.wait_for(job, "RUNNING").cpus == 32


def test_gpus_are_given_to_one_job_each(idle_cluster):
    script = "echo $CUDA_VISIBLE_DEVICES; srun printenv CUDA_VISIBLE_DEVICES; sleep 600"
    jobs = [idle_cluster.submit(script, "--partition=gpu", "--gres=gpu:1") for _ in range(GPUS + 1)]
    running = [idle_cluster.wait_for(job, "RUNNING") for job in jobs[:GPUS]]

    def devices() -> list[list[str]]:
        # A job is running some time before it has a log.
        return sorted(job.log.read_text().split() for job in running if job.log.exists())

    wait_until(lambda: devices() == [["0", "0"], ["1", "1"]], 60, lambda: f"devices: {devices()}")
    assert idle_cluster.job(jobs[-1]).state == "PENDING"


@pytest.mark.parametrize(("status", "state"), [(0, "COMPLETED"), (7, "FAILED")])
def test_a_job_ends_as_its_step(cluster, status, state):
    job = cluster.wait_for(cluster.submit(f"srun -n1 sh -c 'echo step; exit {status}'"))
    assert (job.state, job.exit_code) == (state, status)
    assert "step\n" in job.log.read_text()


def test_a_step_starts_from_a_bare_environment_as_snakemake_gives_it(cluster):
    job = cluster.wait_for(cluster.submit("unset SLURM_CONF; srun printenv SLURM_CONF"))
    assert job.state == "COMPLETED"
    assert job.log.read_text() == f"{cluster.folder}/slurm.conf\n"


def test_squeue_knows_finished_jobs(cluster):
    submitted = cluster.submit("true", "--job-name=finished")
    cluster.wait_for(submitted)
    asked = ("--states=all", "--noheader", "--name=finished", "--format=%i|%T")
    assert cluster.call("squeue", *asked) == f"{submitted}|COMPLETED\n"


# Ends


def test_a_cancelled_job_is_asked_to_end(idle_cluster, obedient, tmp_path):
    idle_cluster.cancel(obedient)
    job = idle_cluster.wait_for(obedient)
    assert (job.state, job.signal) == ("CANCELLED", signal.SIGTERM)
    assert (tmp_path / "ended").exists()


def test_a_job_over_its_time_is_asked_to_end(idle_cluster, obedient, tmp_path):
    idle_cluster.expire(obedient)
    job = idle_cluster.wait_for(obedient, timeout=TIME_LIMIT_WAIT)
    assert (job.state, job.reason) == ("TIMEOUT", "TimeLimit")
    assert (tmp_path / "ended").exists()


def test_a_requeued_job_runs_again(idle_cluster, obedient, tmp_path):
    idle_cluster.requeue(obedient)
    wait_until((tmp_path / "ended").exists, 60, lambda: "the end")
    job = idle_cluster.wait_for(obedient, "RUNNING")
    assert job.restarts == 1


def test_a_node_that_fails_takes_its_jobs_with_it_and_comes_back(idle_cluster):
    options = ("--requeue", "--no-requeue")
    again, once = (idle_cluster.submit("sleep 600", option) for option in options)
    for job in (again, once):
        idle_cluster.wait_for(job, "RUNNING")
    idle_cluster.node_down()
    assert idle_cluster.wait_for(once).state == "NODE_FAIL"
    assert idle_cluster.wait_for(again, "PENDING").restarts == 1
    assert idle_cluster.node_state() == "DOWN"
    idle_cluster.node_up()
    idle_cluster.wait_for(again, "RUNNING")


# Clusters


def test_two_clusters_do_not_disturb_each_other(cluster, tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("slurm"), partitions=("only",)) as other:
        assert other.jobs() == []
        assert other.wait_for(other.submit("true")).partition == "only"
        assert cluster.wait_for(cluster.submit("true")).partition == CPU
    assert processes_of(other.folder) == []
    assert processes_of(cluster.folder)


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


def test_a_daemon_that_does_not_start_says_why(cluster, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(module, "CONFIGURATION", module.CONFIGURATION + "Nonsense=1\n")
    with pytest.raises(ClusterError, match=r"slurmctld did not start:(?s:.*)Nonsense"):
        Cluster(tmp_path_factory.mktemp("slurm")).start()


def test_a_folder_with_a_long_name_is_refused(cluster, tmp_path):
    with pytest.raises(ClusterError, match="longer than"):
        Cluster(tmp_path / ("long" * 25)).start()


def test_missing_programs_are_named(monkeypatch):
    monkeypatch.setattr(module, "PATH", "")
    assert "SLURM is not installed: munged, slurmctld, slurmd" in missing()[0]
