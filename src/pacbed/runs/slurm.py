"""Whether a SLURM cluster would take the jobs of a run, asked before any is submitted."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacbed.exceptions import PacbedError

_ANSWER_s = 60
_ELSEWHERE = (
    "log in to a node of a cluster from which jobs are submitted, or run with --profile "
    "profiles/local"
)


@dataclass(frozen=True)
class JobRequest:
    """What the jobs of a rule ask of SLURM.

    Parameters
    ----------
    rule
        Name of the rule.
    threads
        Cores of a job.
    mem_mb, runtime
        Its memory in MB and time limit in minutes.
    partition, account, constraint, qos, gres
        As the options of ``sbatch`` of these names.
    gpu
        Number of graphics cards.
    reservation
        Of nodes.
    extra
        Further options.
    """

    rule: str
    threads: int = 1
    mem_mb: int | None = None
    runtime: int | None = None
    partition: str | None = None
    account: str | None = None
    constraint: str | None = None
    qos: str | None = None
    gres: str | None = None
    gpu: int | None = None
    reservation: str | None = None
    extra: str | None = None

    @classmethod
    def of(
        cls, rule: str, threads: int, resources: Mapping[str, Any], **settings: str | None
    ) -> JobRequest:
        """Make it of the resources of a job of a workflow, and settings for all jobs."""
        names = ("mem_mb", "runtime", "constraint", "qos", "gres", "gpu")
        account = resources.get("slurm_account")
        return cls(
            rule,
            threads,
            partition=resources.get("slurm_partition"),
            # Of several, jobs are submitted with the first.
            account=re.split(r"[,\s]+", str(account))[0] if account else None,
            extra=resources.get("slurm_extra"),
            **{name: resources.get(name) for name in names}
            | {name: value for name, value in settings.items() if value},
        )

    @property
    def options(self) -> list[str]:
        """The options of ``sbatch``."""
        named = {
            "cpus-per-task": self.threads,
            "mem": self.mem_mb,
            "time": self.runtime,
            "partition": self.partition,
            "account": self.account,
            "constraint": self.constraint,
            "qos": self.qos,
            "gres": self.gres,
            "gpus": self.gpu,
            "reservation": self.reservation,
        }
        given = [f"--{name}={value}" for name, value in named.items() if value is not None]
        return ["--ntasks=1", *given, *shlex.split(self.extra or "")]


def check_cluster(
    requests: Iterable[JobRequest], log_folder: Path, status_command: str | None = None
) -> None:
    """Ask SLURM whether it would take jobs, without submitting any.

    Parameters
    ----------
    requests
        What is to be submitted.
    log_folder
        Where SLURM is to write what jobs print.
    status_command
        By which program jobs will be followed, ``sacct`` or ``squeue``.

    Raises
    ------
    PacbedError
        If there is no SLURM, or it would refuse a job or not say how one ends, or logs cannot be
        written.
    """
    if not shutil.which("sbatch"):
        raise PacbedError(
            f"there is no sbatch on this machine, so that no job can be submitted: {_ELSEWHERE}"
        )
    _check_answers()
    _check_writable(log_folder)
    if status_command == "sacct":
        _check_accounting()
    if problems := list(dict.fromkeys(_refusals(requests))):
        raise PacbedError(
            "SLURM would refuse jobs of this run, so that none was submitted:\n"
            + "\n".join(f"  - {problem}" for problem in problems)
            + "\nPartitions, account and constraints stand at the top of the profile"
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
            "would fail without a word: choose another one (slurm-logdir in the profile)"
        ) from error


def _check_answers() -> None:
    done = _call(["sinfo", "--noheader"])
    if done.returncode:
        raise PacbedError(
            f"SLURM does not answer on this machine ({done.stderr.strip()}): {_ELSEWHERE}"
        )


def _check_accounting() -> None:
    done = _call(["sacct", "--noheader", "--allocations", "--starttime=now"])
    if done.returncode:
        raise PacbedError(
            "SLURM keeps no accounts here, so that sacct would never tell that a job has ended "
            f"({done.stderr.strip()}): say slurm-status-command: squeue in the profile"
        )


def _refusals(requests: Iterable[JobRequest]) -> Iterator[str]:
    for request in requests:
        said = _test(request)
        if said is None:
            continue
        text = f"{request.rule}: {said}"
        if "partition" in said.lower():
            text += f"; there are: {', '.join(partitions()) or 'none'}"
        if "account" in said.lower():
            given = f"'{request.account}'" if request.account else "not given"
            text += f"; the account is {given}"
        yield text


def _test(request: JobRequest) -> str | None:
    """Return why SLURM would refuse a job; None if it would not."""
    command = ["sbatch", "--test-only", *request.options, "--wrap=true"]
    done = _call(command)
    if done.returncode == 0:
        return None
    lines = [line.removeprefix("sbatch: error: ") for line in done.stderr.splitlines()]
    useful = [line.removeprefix("allocation failure: ") for line in lines if line.strip()]
    return "; ".join(dict.fromkeys(useful)) or f"sbatch failed with status {done.returncode}"


def queued(name: str) -> list[str]:
    """Return the numbers of the jobs in the queue that were submitted under a name."""
    return _call(["squeue", "--me", "--noheader", "--format=%A", f"--name={name}"]).stdout.split()


def end_jobs(name: str, timeout_s: float = 600) -> None:
    """End all jobs that were submitted under a name, and wait until they are gone.

    SLURM sends them SIGTERM first, so that they keep what they have done.

    Parameters
    ----------
    name
        Name of the jobs.
    timeout_s
        How long they may take, in seconds.

    Raises
    ------
    PacbedError
        If SLURM does not end them.
    """
    _call(["scancel", "--me", f"--name={name}"])
    deadline, pause = time.monotonic() + timeout_s, 0.5
    while left := queued(name):
        if time.monotonic() > deadline:
            raise PacbedError(
                f"jobs of an earlier run do not end: {' '.join(left[:10])}. End them (scancel), "
                "and run again"
            )
        time.sleep(pause)
        pause = min(2 * pause, 10.0)


def partitions() -> list[str]:
    """Return the names of the partitions of the cluster."""
    return list(dict.fromkeys(_call(["sinfo", "--noheader", "--format=%R"]).stdout.split()))


def _call(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_ANSWER_s
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PacbedError(f"SLURM does not answer: {' '.join(command[:2])}: {error}") from error
