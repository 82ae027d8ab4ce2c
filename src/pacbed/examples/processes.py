"""Work on numbered pieces by several processes, and an array that they share.

The processes are programs of their own, started by name. A fork would copy the locks of other
threads as they happen to be, and multiprocessing would import the main script once more: one of
Snakemake would begin its work again in every process.
"""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from typing import Any

import numpy as np

from pacbed.exceptions import StoreError

_AT_ONCE = 2
"""Pieces that a process has: the one it works on, and the next, lest it wait for this process."""

_AHEAD = 3
"""No piece begins before the one so many times the number of processes before it is used."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SharedArray:
    """An array of single precision in memory that processes share and that ends with them.

    Parameters
    ----------
    shape
        Of the array.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("pacbed")
        else:  # elsewhere than on Linux
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, 4 * int(np.prod(shape)))
        self.__setstate__((descriptor, shape))

    def __getstate__(self) -> tuple[int, tuple[int, ...]]:
        return self.descriptor, self.values.shape

    def __setstate__(self, state: tuple[int, tuple[int, ...]]) -> None:
        self.descriptor, shape = state
        memory = mmap.mmap(self.descriptor, 0)
        self.values = np.frombuffer(memory, np.float32).reshape(shape)

    def close(self) -> None:
        """Let no further process share the array; it goes when nothing refers to it."""
        os.close(self.descriptor)


@dataclass
class _Process:
    program: subprocess.Popen[bytes]
    connection: Connection
    pieces: deque[int] = field(default_factory=deque)


class Processes:
    """Processes that do the same work on different pieces.

    They end at once when this one ends, however it ends. Ctrl-C and SIGTERM, which a terminal or
    a cluster sends to all processes of a job, are left to this one.

    Parameters
    ----------
    count
        Number of processes.
    work
        What to do with the number of a piece. It is sent to the processes, and its module is
        imported there.
    descriptors
        File descriptors that `work` needs, such as those of shared arrays.
    """

    def __init__(
        self, count: int, work: Callable[[int], Any], descriptors: Sequence[int] = ()
    ) -> None:
        self._processes: list[_Process] = []
        try:
            for _ in range(count):
                self._start(descriptors)
            for process in self._processes:
                _send(process, work)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, whatever they do."""
        for process in self._processes:
            process.connection.close()
            process.program.kill()
        for process in self._processes:
            process.program.wait()

    def in_order(self, pieces: range) -> Iterator[int]:
        """Yield the numbers of the pieces in ascending order, each when it is done.

        Raises
        ------
        StoreError
            If a process ends before its work is done.
        Exception
            What the work raised.
        """
        waiting, done = deque(pieces), self._finished(0)
        for piece in pieces:
            limit = piece + _AHEAD * len(self._processes)
            self._hand_out(waiting, limit)
            while piece not in done:
                done |= self._finished(None)
                self._hand_out(waiting, limit)
            yield piece
            done |= self._finished(0)

    def _start(self, descriptors: Sequence[int]) -> None:
        ours, theirs = Pipe()
        # A program begins with the signals blocked that are blocked here; and none comes between.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            program = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *descriptors),
                env={**os.environ, **_environment()},
            )
            self._processes.append(_Process(program, ours))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    def _hand_out(self, waiting: deque[int], limit: int) -> None:
        for at_once in range(1, _AT_ONCE + 1):
            for process in self._processes:
                if waiting and waiting[0] < limit and len(process.pieces) < at_once:
                    _send(process, waiting[0])
                    process.pieces.append(waiting.popleft())

    def _finished(self, timeout_s: float | None) -> set[int]:
        """Return pieces that have been finished since the last look, after a wait for the first."""
        finished = set()
        ready = wait([process.connection for process in self._processes], timeout_s)
        for process in self._processes:
            if process.connection in ready:
                try:
                    error = process.connection.recv()
                except (EOFError, OSError) as end:
                    raise _ended(process) from end
                if error is not None:
                    raise error
                finished.add(process.pieces.popleft())
        return finished


def _environment() -> dict[str, str]:
    """Return how the environment of the processes differs from that of this one."""
    return {
        # Imports find what they find here, wherever this one runs.
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        # Each has one core,
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        # and its threads, such as those of Zarr, share the memory that they have freed.
        "MALLOC_ARENA_MAX": "1",
    }


def _send(process: _Process, message: object) -> None:
    try:
        process.connection.send(message)
    except OSError as error:
        raise _ended(process) from error


def _ended(process: _Process) -> StoreError:
    status = process.program.wait()
    if status >= 0:
        return StoreError(
            f"a process ended with status {status}; what it printed is above. What is finished "
            "is kept: run again"
        )
    return StoreError(
        f"a process was ended by {signal.Signals(-status).name}, as happens "
        "when memory runs out: give the job more memory or fewer threads, and run again. "
        "What is finished is kept"
    )


def _portable(error: Exception) -> Exception:
    """Return an error that another process can make again."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # its constructor wants something else than its message
        return StoreError(str(error))
    return error


def _main(descriptor: int) -> None:
    """Do what another process asks for; end when it does."""
    connection = Connection(descriptor)
    messages: SimpleQueue[Any] = SimpleQueue()

    def listen() -> None:
        try:
            while True:
                messages.put(connection.recv())
        except (EOFError, OSError):  # no one asks any longer
            os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    work = messages.get()
    while True:
        piece = messages.get()
        try:
            work(piece)
        except Exception as error:
            error.add_note(f"In another process:\n{traceback.format_exc()}")
            connection.send(_portable(error))
        else:
            connection.send(None)


if __name__ == "__main__":
    _main(int(sys.argv[1]))
