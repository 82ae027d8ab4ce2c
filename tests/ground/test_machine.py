"""What the machine has."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from pacbed.machine import (
    _control_groups,
    is_in_memory,
    memory_limit_bytes,
    noting_sigterm,
    peak_memory_MB,
    sparse_progress,
    usable_cores,
)

ROOT = Path("/sys/fs/cgroup")


@pytest.mark.parametrize(
    ("table", "groups"),
    [
        ("0::/slurm/job_7/step_0\n", ["slurm/job_7/step_0", "slurm/job_7", "slurm", ""]),
        ("4:cpu:/other\n3:memory,pids:/job_7\n", ["memory/job_7", "memory"]),
        ("0::/\n", [""]),
        ("2:cpu:/job_7\n", []),
    ],
)
def test_memory_is_limited_by_every_control_group_above_the_process(tmp_path, table, groups):
    file = tmp_path / "cgroup"
    file.write_text(table)
    assert list(_control_groups(file, ROOT)) == [ROOT / group for group in groups]


def test_memory_limit_is_not_more_than_the_machine_has():
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 1e6 * peak_memory_MB() < memory_limit_bytes() <= machine


def test_cores_are_those_that_the_process_may_use():
    assert 1 <= usable_cores() <= os.cpu_count()


@pytest.fixture
def mounts(tmp_path):
    """A table of what is mounted where, in a folder that stands for the root."""

    def write(kinds):
        file = tmp_path / "mounts"
        lines = [f"device {tmp_path / name} {kind} rw,relatime 0 0" for name, kind in kinds]
        file.write_text("\n".join(["rootfs / ext4 rw 0 0", *lines]) + "\n")
        return file

    return write


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([], False),
        ([("scratch/job", "tmpfs")], True),
        ([("scratch", "tmpfs"), ("scratch/job", "xfs")], False),
        ([("scratch/job", "tmpfs"), ("scratch", "xfs")], True),
        ([("scratch", "xfs"), ("scratch", "tmpfs")], True),
        ([("scr", "tmpfs")], False),
    ],
)
def test_folder_is_in_memory_if_the_deepest_mount_above_it_is(tmp_path, mounts, kinds, expected):
    assert is_in_memory(tmp_path / "scratch" / "job" / "portion", mounts(kinds)) is expected


def test_link_into_memory_is_in_memory(tmp_path, mounts):
    (tmp_path / "memory").mkdir()
    (tmp_path / "link").symlink_to("memory")
    assert is_in_memory(tmp_path / "link", mounts([("memory", "tmpfs")]))


# A stand-in for Snakemake starts a shell, and that a job that waits.
JOB = """
import threading, time
from pacbed.machine import clear_away_on_sigterm, end_with_controller
clear_away_on_sigterm()
end_with_controller(0.1)
try:
    print("watched" if threading.active_count() > 1 else "not watched", flush=True)
    time.sleep(60)
finally:
    print("ended in order", flush=True)
"""
RUN = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


@pytest.fixture
def start(tmp_path):
    """Start a run that waits for its job, with options of Snakemake."""
    started = []

    def run(*options, **variables):
        (tmp_path / "snakemake").write_text(RUN)
        environment = {k: v for k, v in os.environ.items() if k != "SLURM_JOB_ID"} | variables
        process = subprocess.Popen(
            [sys.executable, str(tmp_path / "snakemake"), JOB, *options],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("variables", [{}, {"SLURM_JOB_ID": "1"}], ids=["login node", "salloc"])
def test_a_job_ends_in_order_when_its_run_is_killed(start, variables):
    run = start("--cores", "2", **variables)
    assert run.stdout.readline() == "watched\n"
    run.kill()
    run.wait()
    # The job has the pipe, too: this comes to its end when the job does.
    assert run.stdout.read() == "ended in order\n"


def test_a_job_that_was_submitted_to_a_cluster_does_not_watch_its_run(start):
    # As in a job of the SLURM plugin.
    run = start("--cores", "all", "--mode", "remote", SLURM_JOB_ID="1")
    assert run.stdout.readline() == "not watched\n"


@pytest.mark.parametrize(("end_of_job", "left_s"), [(None, 25), ("5120", 120), ("9000", 25)])
def test_sigterm_leaves_time_until_the_limit_of_a_job_of_slurm_that_is_near_or_little(
    monkeypatch, end_of_job, left_s
):
    monkeypatch.setattr("pacbed.machine.time.time", lambda: 5000.0)
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    if end_of_job:
        monkeypatch.setenv("SLURM_JOB_END_TIME", end_of_job)
    before = signal.getsignal(signal.SIGTERM)
    with noting_sigterm() as sigterm:
        assert not sigterm.has_come
        os.kill(os.getpid(), signal.SIGTERM)
        assert sigterm.has_come
        assert sigterm.seconds_left == left_s
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_another_thread_signals_are_left_alone():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def look():
        with noting_sigterm() as sigterm:
            seen.append((signal.getsignal(signal.SIGTERM), sigterm.has_come))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


def test_progress_in_a_log_is_a_line_now_and_then_and_one_at_the_end(monkeypatch):
    clock = iter([0, 20, 31, 40, 62, 63])
    monkeypatch.setattr("pacbed.machine.time.monotonic", lambda: next(clock))
    lines = []
    report = sparse_progress("examples", lines.append)
    for done in range(1, 5):
        report(done, 5)
    report(5, 5, "loss 0.1")
    assert lines == [
        "examples: 2 of 5 after 31 s",
        "examples: 4 of 5 after 62 s",
        "examples: 5 of 5 after 63 s, loss 0.1",
    ]
