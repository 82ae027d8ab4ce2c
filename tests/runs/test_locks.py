"""Locks end with their process; of several processes, one only makes a file."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from unittest.mock import Mock

import pytest

from pacbed.exceptions import PacbedError
from pacbed.runs.locks import sole_maker

# Makes a file, slowly, and notes when it begins and ends.
MAKER = """
import sys, time
from pathlib import Path
from pacbed.runs.locks import sole_maker
product, notes = Path(sys.argv[1]), Path(sys.argv[2])
with sole_maker(product, print):
    with notes.open("a") as file: file.write("in\\n")
    time.sleep(float(sys.argv[3]))
    with notes.open("a") as file: file.write("out\\n")
"""


@pytest.fixture
def product(tmp_path):
    return tmp_path / "folder" / "00000.zarr.zip"


@pytest.fixture
def maker(product, tmp_path):
    """Start processes that make the product."""
    started, notes = [], tmp_path / "notes"

    def start(seconds, wait=False):
        command = [sys.executable, "-u", "-c", MAKER, str(product), str(notes), str(seconds)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        while wait and not notes.exists():
            assert process.poll() is None
            time.sleep(0.02)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_several_processes_make_a_file_one_after_another(product, tmp_path, maker):
    processes = [maker(0.1) for _ in range(6)]
    assert [p.wait(60) for p in processes] == [0] * 6
    assert (tmp_path / "notes").read_text() == "in\nout\n" * 6
    assert list(product.parent.iterdir()) == []


def test_a_process_that_waits_says_for_which(product, maker):
    first = maker(2, wait=True)
    said, _ = maker(0).communicate(timeout=30)
    assert f"process {first.pid} on " in said
    assert f"of an earlier run makes {product}: waiting" in said


def test_nobody_waits_for_ever_nor_for_a_process_that_was_killed(product, maker):
    first = maker(60, wait=True)
    with (
        pytest.raises(PacbedError, match=f"process {first.pid} on .* still makes .*: end it"),
        sole_maker(product, timeout_s=0.1),
    ):
        pass
    first.kill()
    first.wait()
    said = []
    with sole_maker(product, said.append):
        pass
    assert said == []


def test_a_lock_that_was_removed_while_it_was_waited_for_is_no_lock(product):
    # A process that waits for the old file must not get in with one that has the new file.
    first, inside = sole_maker(product), []
    first.__enter__()

    def wait():
        with sole_maker(product):
            inside.append(True)

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.2)
    first.__exit__(None, None, None)
    with sole_maker(product, timeout_s=30):
        pass
    waiting.join(30)
    assert inside == [True]
    assert list(product.parent.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_warned_of(product, monkeypatch, number):
    monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(number, os.strerror(number))))
    warned = pytest.warns(UserWarning, match=f"file system of {product.parent} has no locks")
    with warned, sole_maker(product):
        pass
    assert list(product.parent.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(PacbedError, match=r"cannot write .*\.store\.lock"),
        sole_maker(tmp_path / "file" / "store"),
    ):
        pass
