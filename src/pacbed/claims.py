"""Claims on products: of the processes that would make a file, only the latest does.

A controller that is killed leaves its jobs at work, and the next one submits the same jobs again.
So whoever makes a product first lays a claim beside it. Whoever finds the claim of an older
process tells that process to end, waits until it has ended, and follows it.

A claim appears whole or not at all: it is written elsewhere and linked to its name, which fails if
there is one. To remove the claim of a process that has ended is the difficult part: whoever looks,
and then removes, may remove the claim that another has laid in between. So nobody removes it. Who
wants to follow a claim first lays one *behind* it, in a file named after the token of the claim
that it follows; only one can. Then it looks whether the claims still stand in a line from the
product to its own, and renames its own onto the first. Whoever comes later waits behind the last
of the line; it waits behind one that was killed in the act, too. Tokens are never used twice, so
that who looked long ago lays a claim behind one that is no more, sees it and starts anew.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from pacbed.errors import PacbedError

_LONGEST_PAUSE_s = 5.0
_WRITTEN_WITHIN_s = 60
_SLURM_ANSWERS_WITHIN_s = 120
_ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "LAUNCH_FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}


@dataclass(frozen=True)
class _Claim:
    """Who makes a product.

    Parameters
    ----------
    token
        Of this claim alone.
    host, pid
        Machine and process.
    start
        When the machine and the process were started, as far as the machine tells: a number may
        serve another process later.
    job, restarts
        Number of the SLURM job and how often it was requeued, if there is one.
    since
        When the claim was laid.
    """

    token: str
    host: str
    pid: int
    start: str | None
    job: str | None
    restarts: str | None
    since: str

    @classmethod
    def of_this_process(cls) -> _Claim:
        """Return a new claim."""
        stat = _stat(os.getpid())
        return cls(
            token=secrets.token_hex(8),
            host=socket.gethostname(),
            pid=os.getpid(),
            start=stat[1] if stat else None,
            job=os.environ.get("SLURM_JOB_ID"),
            restarts=os.environ.get("SLURM_RESTART_COUNT"),
            since=datetime.now().astimezone().isoformat(timespec="seconds"),
        )

    @classmethod
    def parse(cls, text: str) -> _Claim | None:
        """Return what is written in the file of a claim, or nothing if it is damaged."""
        try:
            claim = cls(**json.loads(text))
        except (ValueError, TypeError):
            return None
        texts = claim.host, claim.since
        maybe = claim.start, claim.restarts, claim.job
        whole = (
            isinstance(claim.token, str)
            # It becomes part of the name of a file.
            and re.fullmatch(r"[0-9a-f]+", claim.token) is not None
            # 0 and less are groups of processes, to be spared a signal.
            and type(claim.pid) is int
            and claim.pid > 0
            and all(isinstance(value, str) for value in texts)
            and all(value is None or isinstance(value, str) for value in maybe)
            and (claim.job is None or claim.job.isdigit())
        )
        return claim if whole else None

    @property
    def owner(self) -> str:
        """Who has it, in words."""
        return f"process {self.pid} on {self.host}" if self.job is None else f"job {self.job}"


@dataclass(frozen=True)
class _Damaged:
    """A claim that cannot be read.

    Parameters
    ----------
    token
        Stands for that of a claim.
    modified
        When the file was last written, in seconds.
    """

    token: str
    modified: float


def claim_of(path: Path) -> Path:
    """Return the file that says who makes a product."""
    return path.with_name(f".{path.name}.claim")


@contextmanager
def sole_maker(
    products: Sequence[Path],
    log: Callable[[str], None] = lambda line: None,
    timeout_s: float = 300,
) -> Iterator[None]:
    """Make this process the only one that makes some products; an older one is told to end.

    It is to end on SIGTERM (see `pacbed.machine.clear_away_on_sigterm`); nothing is killed.

    Parameters
    ----------
    products
        The files to be made. They need not exist, but what is kept of them for a later process,
        such as a checkpoint, should be looked at inside of the block only.
    log
        Takes a line about whatever stood in the way.
    timeout_s
        How long an older process may take to end.

    Raises
    ------
    PacbedError
        If a claim cannot be written, or an older process does not end, or nobody here can know
        whether it has ended.
    """
    with ExitStack() as stack:
        # All in the same order, or two processes would each wait for what the other has.
        for product in sorted({Path(product) for product in products}):
            stack.enter_context(_claimed(product, log, timeout_s))
        yield


@contextmanager
def _claimed(product: Path, log: Callable[[str], None], timeout_s: float) -> Iterator[None]:
    own = _Claim.of_this_process()
    try:
        try:
            product.parent.mkdir(parents=True, exist_ok=True)
            _lay(product, own, log, timeout_s)
        except OSError as error:
            raise PacbedError(
                f"cannot claim {product} for this process: {error.strerror or error} "
                f"({claim_of(product)}). See to it that files can be written there, or choose "
                "another folder, and run again"
            ) from error
        yield
    finally:
        # SIGTERM may come at any moment, also when the claim has only just been laid.
        with suppress(OSError):
            _remove_if_own(claim_of(product), own)


def _lay(product: Path, own: _Claim, log: Callable[[str], None], timeout_s: float) -> None:
    """Lay a claim, as soon as whoever has one has ended."""
    first = claim_of(product)
    while True:
        line = _line(first)
        if not line:
            if _create(first, own, product):
                break
        elif _has_ended(product, line[-1], own, log, timeout_s) and _follow(product, line, own):
            break
        time.sleep(0.05)  # Another was faster; let it get further before looking again.
    _clear_away(first)


def _line(first: Path) -> list[_Claim | _Damaged]:
    """Return the claim on a product and those laid behind it."""
    line: list[_Claim | _Damaged] = []
    path = first
    while (claim := _read(path)) is not None:
        line.append(claim)
        path = _behind(first, claim)
    return line


def _behind(first: Path, claim: _Claim | _Damaged) -> Path:
    """Return the file of the claim of who follows another."""
    return first.with_name(f"{first.name}.{claim.token}")


def _follow(product: Path, line: list[_Claim | _Damaged], own: _Claim) -> bool:
    """Put the own claim in place of a line of claims that have ended, unless another does."""
    first = claim_of(product)
    place = _behind(first, line[-1])
    try:
        if not _create(place, own, product):
            return False
        if _tokens(_line(first)) != [*_tokens(line), own.token]:
            return False
        try:
            place.replace(first)
        except FileNotFoundError:
            return False
        return True
    finally:
        with suppress(OSError):
            _remove_if_own(place, own)


def _tokens(line: list[_Claim | _Damaged]) -> list[str]:
    return [claim.token for claim in line]


def _read(path: Path) -> _Claim | _Damaged | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
            status = os.fstat(file.fileno())
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ESTALE:  # Removed through another machine of a network folder.
            return None
        raise
    claim = _Claim.parse(text)
    if claim is not None:
        return claim
    return _Damaged(f"damaged-{status.st_ino}-{status.st_mtime_ns}", status.st_mtime)


def _create(path: Path, claim: _Claim, product: Path) -> bool:
    """Write the file of a claim, whole; return whether that worked: there may be one already."""
    temporary = product.with_name(f"{claim_of(product).name}.{claim.token}.new")
    text = json.dumps(asdict(claim), indent=2) + "\n"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            # A network folder may repeat a request whose answer was lost.
            found = _read(path)
            return found is not None and found.token == claim.token
        except FileNotFoundError:  # Cleared away by who has the claim now.
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                raise
            return _create_in_place(path, text)
        return True
    finally:
        temporary.unlink(missing_ok=True)


def _create_in_place(path: Path, text: str) -> bool:
    """Write a file where there are no links; one that is not whole yet is taken for damaged."""
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _remove_if_own(path: Path, own: _Claim) -> None:
    found = _read(path)
    if found is not None and found.token == own.token:
        path.unlink(missing_ok=True)


def _clear_away(first: Path) -> None:
    """Remove what processes left that were killed while they laid a claim.

    Only who has the claim may do so: nobody can follow another one now, and who is about to try
    sees that its file is gone, and starts anew.
    """
    for entry in os.scandir(first.parent):
        if entry.name.startswith(f"{first.name}."):
            Path(entry.path).unlink(missing_ok=True)


def _has_ended(
    product: Path,
    claim: _Claim | _Damaged,
    own: _Claim,
    log: Callable[[str], None],
    timeout_s: float,
) -> bool:
    """Return whether a claim can be followed, after its owner has been told to end if need be."""
    if isinstance(claim, _Damaged):
        # Where there are no links it may be one that is being written. Clocks may differ.
        if abs(time.time() - claim.modified) <= _WRITTEN_WITHIN_s:
            time.sleep(min(1.0, timeout_s))
            return False
        log(f"the claim on {product}, {claim_of(product)}, is damaged and old: it is taken over")
        return True
    if not _lives(product, claim, own):
        log(f"{claim.owner}, which worked on {product}, has ended: its claim is taken over")
        return True
    log(
        f"{claim.owner} of an earlier run works on {product}: it is told to end, and its "
        "checkpoint is used"
    )
    _tell_to_end(product, claim, own)
    _wait_for_end(product, claim, own, timeout_s)
    return True


def _wait_for_end(product: Path, claim: _Claim, own: _Claim, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    pause = 0.1
    while True:
        left = deadline - time.monotonic()
        try:
            if not _lives(product, claim, own):
                return
        except PacbedError:  # SLURM may be too busy to answer for a while.
            if left <= 0:
                raise
        if left <= 0:
            raise PacbedError(
                f"{claim.owner} still works on {product}, {timeout_s:g} s after it was told to "
                f"end ({_ending(claim, own)}). End it, and run again"
            )
        time.sleep(min(pause, left))
        pause = min(2 * pause, _LONGEST_PAUSE_s)


def _is_elsewhere(claim: _Claim, own: _Claim) -> bool:
    """Return whether a claim is of another SLURM job, so that SLURM is to be asked about it."""
    return claim.job is not None and claim.job != own.job


def _lives(product: Path, claim: _Claim, own: _Claim) -> bool:
    """Return whether the owner of a claim may still work."""
    if _is_elsewhere(claim, own):
        return _job_lives(product, claim)
    if claim.host != own.host:
        if claim.job is not None and not _may_be_on_another_node(claim, own):
            return False  # This job, before it was requeued.
        raise PacbedError(
            f"process {claim.pid} on {claim.host} has worked on {product} since {claim.since}, "
            f"and {own.host} cannot know whether it still does. See to it that it has ended, "
            f"delete {claim_of(product)}, and run again"
        )
    if not _process_lives(claim.pid, claim.start):
        return False
    if (claim.pid, claim.start) == (own.pid, own.start):
        raise PacbedError(f"{product} is being made by this process already")
    return True


def _may_be_on_another_node(claim: _Claim, own: _Claim) -> bool:
    """Return whether a claim of this job may be of now, and not of before it was requeued.

    The number of restarts alone does not tell: Snakemake hides it from what it runs in a job.
    """
    nodes = os.environ.get("SLURM_JOB_NODELIST", "")  # Such as node7 or node[7-9,12].
    return claim.restarts == own.restarts and ("[" in nodes or "," in nodes)


def _process_lives(pid: int, start: str | None) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # Of another user.
    # The details may be hidden, or not be there at all.
    stat = _stat(pid)
    if stat is None:
        return True
    state, now = stat
    return state not in ("Z", "X") and (start is None or now == start)


def _stat(pid: int) -> tuple[str, str] | None:
    """Return the state of a process, and when the machine and it were started, where it is told.

    After the name of the program, which may contain anything, the third of the fields follows.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return fields[0], f"{boot} {fields[19]}"


def _job_lives(product: Path, claim: _Claim) -> bool:
    # Whatever their state: else those that wait might be missing.
    done = _slurm(
        product,
        claim,
        ["squeue", "--noheader", "--states", "all", "--jobs", str(claim.job), "--format", "%T"],
    )
    if done.returncode == 0:
        # A state that is not known here is taken for one of work.
        return not set(done.stdout.split()) <= _ENDED
    if "invalid job id" in done.stderr.lower():
        return False  # SLURM forgets a job some minutes after its end.
    raise _unanswered(product, claim, f"squeue: {done.stderr.strip() or done.returncode}")


def _tell_to_end(product: Path, claim: _Claim, own: _Claim) -> None:
    if _is_elsewhere(claim, own):
        done = _slurm(product, claim, ["scancel", str(claim.job)])
        # It may have ended in between, or be about to.
        ended = re.search(r"invalid job id|already", done.stderr, re.IGNORECASE)
        if done.returncode != 0 and not ended:
            raise PacbedError(
                f"{claim.owner} of an earlier run works on {product} and cannot be ended "
                f"(scancel: {done.stderr.strip() or done.returncode}). End it, and run again"
            )
        return
    try:
        os.kill(claim.pid, signal.SIGTERM)
        os.kill(claim.pid, signal.SIGCONT)  # One that is stopped would not hear of it.
    except ProcessLookupError:
        pass
    except PermissionError as error:
        raise PacbedError(
            f"{claim.owner} works on {product} and is of another user, so that it cannot be told "
            "to end. Have it ended, and run again"
        ) from error


def _ending(claim: _Claim, own: _Claim) -> str:
    """Return the command that tells the owner of a claim to end."""
    return f"scancel {claim.job}" if _is_elsewhere(claim, own) else f"kill {claim.pid}"


def _slurm(product: Path, claim: _Claim, command: list[str]) -> subprocess.CompletedProcess[str]:
    # Variables such as SQUEUE_USERS or SCANCEL_STATE would narrow what is asked for.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SQUEUE_", "SCANCEL_"))
    }
    try:
        return subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SLURM_ANSWERS_WITHIN_s,
        )
    except OSError as error:
        raise _unanswered(product, claim, f"{command[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise _unanswered(product, claim, f"{command[0]} does not answer") from error


def _unanswered(product: Path, claim: _Claim, why: str) -> PacbedError:
    return PacbedError(
        f"{claim.owner}, started on {claim.host}, has worked on {product} since {claim.since}, "
        f"and SLURM does not say whether it still does ({why}). Run again where SLURM answers, or "
        f"see to it that the job has ended, delete {claim_of(product)}, and run again"
    )
