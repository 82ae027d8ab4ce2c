"""Locks end with their process; of several processes, one only makes a file."""

import subprocess
import sys
import threading
import time

import pytest

from pacbed.exceptions import PacbedError
from pacbed.runs.locks import LockedError, lock, sign, sole_maker

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


def maker(product, notes, seconds):
    command = [sys.executable, "-u", "-c", MAKER, str(product), str(notes), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(there):
    deadline = time.monotonic() + 30
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def product(tmp_path):
    return tmp_path / "folder" / "00000.zarr.zip"


@pytest.fixture
def notes(tmp_path):
    return tmp_path / "notes"


def test_a_lock_is_had_once(tmp_path):
    with lock(tmp_path / "lock") as held:
        sign(held)
        with pytest.raises(LockedError, match=r"process \d+ on "):
            lock(tmp_path / "lock")
    lock(tmp_path / "lock").close()


def test_several_processes_make_a_file_one_after_another(product, notes):
    processes = [maker(product, notes, 0.1) for _ in range(6)]
    assert [p.wait(60) for p in processes] == [0] * 6
    assert notes.read_text() == "in\nout\n" * 6
    assert list(product.parent.iterdir()) == []


def test_who_waits_says_for_whom(product, notes):
    first = maker(product, notes, 2)
    wait_for(notes.exists)
    second = maker(product, notes, 0)
    said, _ = second.communicate(timeout=30)
    assert f"process {first.pid} on " in said
    assert f"of an earlier run makes {product}: waiting" in said
    first.wait(30)


def test_a_process_that_was_killed_holds_up_nobody(product, notes):
    first = maker(product, notes, 60)
    wait_for(notes.exists)
    first.kill()
    first.wait()
    said = []
    with sole_maker(product, said.append):
        pass
    assert said == []


def test_nobody_waits_for_ever(product, notes):
    first = maker(product, notes, 60)
    wait_for(notes.exists)
    with (
        pytest.raises(PacbedError, match=f"process {first.pid} on .* still makes .*: end it"),
        sole_maker(product, timeout_s=0.1),
    ):
        pass
    first.kill()
    first.wait()


def test_a_lock_that_was_removed_while_it_was_waited_for_is_no_lock(product):
    # Who waits for the old file must not get in beside who has the new one.
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


def test_after_a_failure_the_lock_is_free(product):
    with pytest.raises(ZeroDivisionError), sole_maker(product):
        _ = 1 / 0
    assert list(product.parent.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(PacbedError, match=r"cannot write .*\.store\.lock"),
        sole_maker(tmp_path / "file" / "store"),
    ):
        pass
