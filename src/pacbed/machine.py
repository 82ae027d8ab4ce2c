"""What the machine has and what the process uses of it."""

from __future__ import annotations

import math
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Protocol


def memory_limit_bytes() -> int:
    """Return how much memory a process may use: that of the machine, or of its control group."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    # SLURM and containers limit a job by its control group, or by one above it.
    for group in _control_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")):
        for name in ("memory.max", "memory.limit_in_bytes"):
            path = group / name
            if path.is_file() and (text := path.read_text().strip()).isdigit():
                limits.append(int(text))
    return min(limits)


def _control_groups(table: Path, root: Path) -> Iterator[Path]:
    """Yield the folders of the control groups of memory, from the innermost outwards.

    A line of the table is `number:controllers:path`; version 2 names no controllers, and version 1
    has a folder for each.
    """
    if not table.is_file():
        return
    for line in table.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base = root
        elif "memory" in controllers.split(","):
            base = root / "memory"
        else:
            continue
        group = base / path.lstrip("/")
        while group != base:
            yield group
            group = group.parent
        yield base


def peak_memory_MB(of: int = resource.RUSAGE_SELF) -> float:
    """Return the largest resident size so far of this process, or of its children, in MB."""
    peak = resource.getrusage(of).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def is_in_memory(path: Path, mounts: Path = Path("/proc/mounts")) -> bool:
    """Return whether a folder lies in memory, so that what is written there takes some of it."""
    if not mounts.is_file():
        return False
    # A line of the table is `device folder type options ...`; the deepest folder counts.
    # A space in the name of a folder is written as \040.
    table = [line.split() for line in mounts.read_text().splitlines()]
    kinds = {entry[1].replace("\\040", " "): entry[2] for entry in table}
    above = [str(folder) for folder in (path.resolve(), *path.resolve().parents)]
    return next((kinds[folder] for folder in above if folder in kinds), "") in ("tmpfs", "ramfs")


def clear_away_on_sigterm() -> None:
    """Let SIGTERM, by which a cluster ends a job, end this process in the ordinary way.

    What was begun is cleared away on the way out, as after an interruption.
    """

    def terminate(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, terminate)


GRACE_s = 25
"""Time between SIGTERM and SIGKILL where nothing else is known: SLURM's default is 30 s."""

WARNING_s = 180
"""SIGTERM so long before the limit of a job warns of it (``profiles/slurm``: 120 s before)."""


@dataclass
class Sigterm:
    """Whether SIGTERM has come, and when the process may be killed after it (Unix time)."""

    deadline: float | None = None

    @property
    def has_come(self) -> bool:
        """Whether SIGTERM has come."""
        return self.deadline is not None

    @property
    def seconds_left(self) -> float:
        """Time until the process may be killed, in seconds; without SIGTERM there is no end."""
        return math.inf if self.deadline is None else self.deadline - time.time()


@contextmanager
def noting_sigterm() -> Iterator[Sigterm]:
    """Note SIGTERM in this block rather than end at once: who computes there ends when it can.

    The time that is left lasts until the limit of a job of SLURM, if that is near, else
    :data:`GRACE_s`. Outside of the main thread, to which signals come, nothing is noted.
    """
    sigterm = Sigterm()

    def note(number: int, frame: FrameType | None) -> None:
        now = time.time()
        limit = float(os.environ.get("SLURM_JOB_END_TIME") or "inf")
        # Long before its limit a job was cancelled, and is killed soon.
        sigterm.deadline = limit if limit - now < WARNING_s else now + GRACE_s

    if threading.current_thread() is not threading.main_thread():
        yield sigterm
        return
    before = signal.signal(signal.SIGTERM, note)
    try:
        yield sigterm
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def end_with_controller(pause_s: float = 2.0) -> None:
    """Let this process get SIGTERM when the run of Snakemake that started it is gone.

    A run that is killed would leave its jobs at work on this machine, and another begin the same.
    A job that was submitted to a cluster is ended by the cluster: it is not watched, and elsewhere
    than on Linux nothing is. There are `pause_s` seconds between two looks.
    """
    above = _ancestors(os.getpid())
    runs = [number for number, pid in enumerate(above) if _is_snakemake(_command(pid))]
    # So the outermost Snakemake of a submitted job is called, not that of a run in an allocation.
    if not runs or "--mode remote" in " ".join(_command(above[runs[-1]])):
        return
    watched = above[: runs[-1] + 1]  # a shell further up may end, and the run continue

    def watch() -> None:
        while _ancestors(os.getpid())[: len(watched)] == watched:
            time.sleep(pause_s)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _ancestors(pid: int) -> list[int]:
    """Return the parent of a process, the parent of that, and so on."""
    found: list[int] = []
    while pid > 1:
        try:
            # The name, in brackets, may have any characters.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            break
        pid = int(fields[1])
        found.append(pid)
    return found


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []


def _is_snakemake(words: Sequence[str]) -> bool:
    return any(Path(word).name == "snakemake" for word in words[:4])


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Report(Protocol):
    """Receives how much is done of how much, and perhaps something more to show."""

    def __call__(self, done: float, total: int, more: str = "") -> None:
        """Show it."""


def sparse_progress(
    what: str, say: Callable[[str], None] | None = None, silence_s: float = 30
) -> Report:
    """Return what writes a line about progress now and then, as fits a log.

    Parameters
    ----------
    what
        What is counted.
    say
        Receives the lines; they are printed if not given.
    silence_s
        Least time between two lines, in seconds. There is always one at the end.
    """
    started = written = time.monotonic()

    def report(done: float, total: int, more: str = "") -> None:
        nonlocal written
        now = time.monotonic()
        if done == total or now - written > silence_s:
            written = now
            line = f"{what}: {done} of {total} after {now - started:.0f} s"
            (say or partial(print, flush=True))(f"{line}, {more}" if more else line)

    return report
