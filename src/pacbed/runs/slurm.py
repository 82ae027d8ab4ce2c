"""Whether a SLURM cluster would take the jobs of a run, and jobs that an earlier run has left."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacbed.exceptions import PacbedError
from pacbed.runs.results_folder import Submitted
from pacbed.runs.snakemake_adapter import submission

_ANSWER_s = 60
_ELSEWHERE = (
    "log in to a node of a cluster from which jobs are submitted, or run with --profile "
    "profiles/local"
)


@dataclass(frozen=True)
class JobRequest:
    """What a job of a rule asks for: threads, and resources by name."""

    rule: str
    threads: int
    resources: Mapping[str, Any]


def check_requests(
    requests: Iterable[JobRequest], settings: Any = None
) -> dict[tuple[str, ...], JobRequest]:
    """Return how sbatch is going to be called for jobs: for each call one of the jobs.

    The settings are the options of the SLURM plugin of Snakemake.

    Raises
    ------
    PacbedError
        If the plugin would refuse a job.
    """
    calls: dict[tuple[str, ...], JobRequest] = {}
    problems = []
    for request in sorted(requests, key=lambda one: one.rule):
        try:
            call = tuple(submission(request.threads, request.resources, settings))
            calls.setdefault(call, request)
        except PacbedError as error:
            problems.append(f"{request.rule}: {error}")
    _refuse(problems, "The SLURM plugin of Snakemake")
    return calls


def check_cluster(requests: Iterable[JobRequest], settings: Any) -> None:
    """Ask SLURM whether it would take jobs, without submitting any.

    Raises
    ------
    PacbedError
        If there is no SLURM, or it would refuse a job or not report how one ends, or logs cannot
        be written.
    """
    calls = check_requests(requests, settings)
    if not shutil.which("sbatch"):
        raise PacbedError(
            f"there is no sbatch on this machine, so that no job can be submitted: {_ELSEWHERE}"
        )
    done = _call("sinfo", "--noheader")
    if done.returncode:
        raise PacbedError(
            f"SLURM does not answer on this machine ({done.stderr.strip()}): {_ELSEWHERE}"
        )
    _check_writable(Path(settings.logdir or ".snakemake/slurm_logs"))
    if settings.status_command == "sacct":
        _check_accounting()
    refusals = [_refusal(call, request) for call, request in calls.items()]
    _refuse([text for text in refusals if text], "SLURM")


def _refuse(problems: list[str], who: str) -> None:
    if problems:
        raise PacbedError(
            f"{who} would refuse jobs of this run, so that none was submitted:\n"
            + "\n".join(f"  - {problem}" for problem in dict.fromkeys(problems))
            + "\nPartitions, account, constraints and graphics cards stand at the top of the "
            "profile"
        )


def _check_writable(folder: Path) -> None:
    probe = folder / ".probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise PacbedError(
            f"cannot write into {folder}, the folder for the logs of SLURM: {error.strerror}. Jobs "
            "would fail without a message: choose another folder (slurm-logdir in the profile)"
        ) from error


def _check_accounting() -> None:
    done = _call("sacct", "--noheader", "--allocations", "--starttime=now")
    if done.returncode:
        raise PacbedError(
            "SLURM keeps no accounts here, so that sacct would never report the end of a job "
            f"({done.stderr.strip()}): set slurm-status-command: squeue in the profile"
        )


def _refusal(call: tuple[str, ...], request: JobRequest) -> str | None:
    """Return why SLURM would refuse a job; None if it would not."""
    done = _call(call[0], "--test-only", *call[1:], "--wrap=true")
    if done.returncode == 0:
        return None
    lines = [line.removeprefix("sbatch: error: ") for line in done.stderr.splitlines()]
    useful = [line.removeprefix("allocation failure: ") for line in lines if line.strip()]
    said = "; ".join(dict.fromkeys(useful)) or f"sbatch failed with status {done.returncode}"
    if "partition" in said.lower():
        there = dict.fromkeys(_call("sinfo", "--noheader", "--format=%R").stdout.split())
        said += f"; there are: {', '.join(there) or 'none'}"
    if "account" in said.lower():
        account = request.resources.get("slurm_account")
        said += f"; the account is {repr(account) if account else 'not given'}"
    return f"{request.rule}: {said}"


def queued(name: str) -> list[str]:
    """Return the numbers of the jobs in the queue that were submitted under a name.

    Raises
    ------
    PacbedError
        If SLURM does not say.
    """
    done = _call("squeue", "--me", "--noheader", "--format=%A", f"--name={name}")
    if done.returncode:
        raise PacbedError(
            f"SLURM does not say which jobs are in the queue ({done.stderr.strip()}), so that it "
            "is not known whether jobs of an earlier run are left: try again later"
        )
    return done.stdout.split()


def end_jobs(jobs: Submitted | None, timeout_s: float = 600) -> int:
    """End jobs that a killed run has left in the queue, wait for that, and return their number.

    SLURM sends them SIGTERM first, so that they keep what they have done.

    Raises
    ------
    PacbedError
        If they do not end, or their run may still be at work.
    """
    if not jobs or not (left := queued(jobs.name)):
        return 0
    number = len(left)
    if not jobs.has_ended:
        raise PacbedError(
            f"{number} jobs of {jobs.owner} are in the queue, and it cannot be known here whether "
            f"it still runs: go on there, or end it and cancel them: scancel --name={jobs.name}"
        )
    _call("scancel", "--me", f"--name={jobs.name}")
    deadline, pause = time.monotonic() + timeout_s, 0.5
    while left := queued(jobs.name):
        if time.monotonic() > deadline:
            raise PacbedError(
                f"jobs of an earlier run do not end: {' '.join(left[:10])}. End them (scancel), "
                "and run again"
            )
        time.sleep(pause)
        pause = min(2 * pause, 10.0)
    return number


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_ANSWER_s
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PacbedError(f"SLURM does not answer: {' '.join(command[:2])}: {error}") from error
