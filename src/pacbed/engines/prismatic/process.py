"""Prismatic in processes of its own.

Bad input ends the whole process of Prismatic, or throws, or is merely printed; it leaves files in
the working directory and in the home folder. So every call has a process, a folder and a home of
its own, and its output is looked at before it is used.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from pacbed.engines.prismatic import child
from pacbed.exceptions import EngineError, RequestError

INSTALL = "conda install -c conda-forge 'pyprismatic=2.0=cpu*'"
_SCRATCH = "pacbed-prismatic-"
_LAST_WORDS = 15
_DESCRIPTION_LIMIT_s = 120


@dataclass(frozen=True)
class Installation:
    """A pyprismatic that can be used.

    `python` is the interpreter that has it, `path` the folder of the package. `version` is what the
    package calls itself: 2.0 from conda-forge, 1.2.0 from the same source.
    """

    python: str
    version: str
    path: str
    gpu: bool


def installation(python: str | None = None) -> Installation:
    """Look for Prismatic 2.0 in an interpreter, by default that of this process.

    Raises
    ------
    RequestError
        If the interpreter cannot be run, or has no pyprismatic or that of version 1.
    """
    python = _interpreter(python)
    try:
        done = subprocess.run(
            [python, child.__file__, "--describe"],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_DESCRIPTION_LIMIT_s,
        )
    except OSError as error:
        raise RequestError(f"the interpreter '{python}' cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise RequestError(f"'{python}' took over two minutes to import pyprismatic") from error
    said = (done.stdout + done.stderr).strip()
    if done.returncode == child.TOO_OLD:
        raise RequestError(
            "Prismatic 2.0 is needed, but this is version 1: it has no pattern after each layer, "
            f"no list of probes, and moves atoms to whole pixels ({said}; '{python}'). Version 2 "
            f"is on conda-forge, not on PyPI: {INSTALL}"
        )
    if done.returncode < 0:
        raise RequestError(
            f"'{python}' was killed by {signal.Signals(-done.returncode).name} while it "
            f"imported pyprismatic: was that built for another processor? {_end(said)}"
        )
    if done.returncode:
        raise RequestError(
            f"Prismatic 2.0 is needed, but '{python}' does not have it: {_end(said)}. Run with "
            f"--sdm conda, or install it: {INSTALL}; or name an interpreter that has it "
            "(execution.prismatic_python, --prismatic-python). The embedded engine needs no "
            "Prismatic: simulation.engine: planewave, --engine planewave"
        )
    try:
        return Installation(python, **json.loads(done.stdout.splitlines()[-1]))
    except (ValueError, TypeError, IndexError) as error:
        raise RequestError(f"'{python}' does not describe its pyprismatic: {_end(said)}") from error


def call(
    python: str,
    parameters: Mapping[str, Any],
    folder: Path,
    limit_s: float | None = None,
    heard: Callable[[str], None] = lambda line: None,
) -> None:
    """Run Prismatic once, in a folder that is its working directory and home.

    `parameters` are fields of its ``Metadata``. After `limit_s` seconds it is taken to hang;
    `heard` gets every line that it prints.

    Raises
    ------
    EngineError
        If it fails, is killed or hangs; with the last lines that it printed.
    """
    (folder / "parameters.json").write_text(json.dumps(parameters), encoding="utf-8")
    last: deque[str] = deque(maxlen=_LAST_WORDS)
    hung = threading.Event()
    with subprocess.Popen(
        [python, "-u", child.__file__, "parameters.json"],
        cwd=folder,
        # An end of it that closes when this process ends, however that happens.
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:

        def stop() -> None:
            hung.set()
            _kill(process)

        timer = threading.Timer(limit_s or threading.TIMEOUT_MAX, stop)
        timer.daemon = True
        try:
            timer.start()
            assert process.stdout is not None
            for line in process.stdout:
                last.append(line.rstrip())
                heard(line.rstrip())
            status = process.wait()
        finally:
            # Also on the way out of a job that is told to end.
            timer.cancel()
            _kill(process)
    said = _end("\n".join(last))
    if limit_s and hung.is_set():
        raise EngineError(
            f"Prismatic did not end within {limit_s / 3600:.3g} h and was stopped: {said}"
        )
    if status < 0:
        raise EngineError(
            f"Prismatic was killed by {signal.Signals(-status).name}"
            f"{', perhaps for want of memory' if -status == signal.SIGKILL else ''}: {said}"
        )
    if status:
        raise EngineError(f"Prismatic ended with exit status {status}: {said}")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Provide a folder on ``$TMPDIR``, removed whatever happens.

    A process that is killed outright cannot remove its own: the next one does. A lock, taken before
    there is a folder, ends with its process and tells which are abandoned.
    """
    base = Path(tempfile.gettempdir())
    for lock in base.glob(f"{_SCRATCH}*.lock"):
        with suppress(OSError), FileLock(lock, timeout=0):
            _remove(lock)
    lock = base / f"{_SCRATCH}{uuid.uuid4()}.lock"
    with FileLock(lock):
        try:
            lock.with_suffix("").mkdir(0o700)
            yield lock.with_suffix("")
        finally:
            _remove(lock)


def _remove(lock: Path) -> None:
    """Remove a lock that this process has, and its folder."""
    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
    lock.unlink(missing_ok=True)


def _interpreter(python: str | None) -> str:
    """Return an interpreter by a path that holds in any folder."""
    if python is None:
        return sys.executable
    expanded = os.path.expanduser(python)
    found = shutil.which(expanded)
    # Links stay as they are: that of a virtual environment says which one it is.
    return os.path.abspath(found) if found else expanded


def _kill(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _end(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return " | ".join(line.strip() for line in lines[-_LAST_WORDS:]) or "it said nothing"
