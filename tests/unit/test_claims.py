"""Of the processes that would make a product, only the latest does."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pacbed import claims
from pacbed.claims import claim_of, sole_maker
from pacbed.errors import PacbedError

# Holds a claim until it is told to end, and leaves a checkpoint then.
HOLDER = """
import sys, time
from pathlib import Path
from pacbed.claims import sole_maker
from pacbed.machine import clear_away_on_sigterm

clear_away_on_sigterm()
with sole_maker([Path(sys.argv[1])]):
    try:
        print("inside", flush=True)
        time.sleep(60)
    finally:
        time.sleep(0.2)
        Path(sys.argv[1] + ".checkpoint").write_text("half")
"""

# Says whether it was alone. Locks of the kernel end with the process, however it ends.
RIVAL = """
import fcntl, signal, sys, time
from pathlib import Path
from pacbed.claims import sole_maker

def end(*_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Several may tell it to end.
    sys.exit(143)

signal.signal(signal.SIGTERM, end)
product = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
log = open(f"{product}.log", "a", buffering=1)
with sole_maker([product]), open(f"{product}.lock", "w") as lock:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.write("not alone\\n")
        raise
    log.write("enter\\n")
    time.sleep(0.05)
    log.write("done\\n")
"""

SQUEUE = """
echo "squeue $*" >> calls
while [ "$1" != --jobs ]; do shift; done
if [ ! -f "$2" ]; then
    echo 'slurm_load_jobs error: Invalid job id specified' >&2
    exit 1
fi
cat "$2"
if [ -f "$2.next" ]; then mv "$2.next" "$2"; fi
"""
SCANCEL = """
echo "scancel $*" >> calls
echo COMPLETING > "$1"
echo CANCELLED > "$1.next"
"""


@pytest.fixture(autouse=True)
def _no_job(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLURM_", "SQUEUE_", "SCANCEL_")):
            monkeypatch.delenv(name)


class Slurm:
    """Programs that stand for those of SLURM; a job is a file with its state."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        folder.mkdir()
        self.program("squeue", SQUEUE)
        self.program("scancel", SCANCEL)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def program(self, name, script):
        path = self.folder / name
        path.write_text(f"#!/bin/sh\ncd '{self.folder}'\n{script}\n")
        path.chmod(0o755)

    def job(self, number, state):
        (self.folder / number).write_text(f"{state}\n")

    @property
    def calls(self):
        file = self.folder / "calls"
        return [line.split()[0] for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    return Slurm(tmp_path / "slurm", monkeypatch)


@pytest.fixture
def product(tmp_path):
    folder = tmp_path / "patterns"
    folder.mkdir()
    return folder / "0001.zarr.zip"


def lay(product, **changes):
    """Lay the claim of another."""
    claim = {
        "token": "abc",
        "host": socket.gethostname(),
        "pid": 4711,
        "start": "another time",
        "job": None,
        "restarts": None,
        "since": "2025-01-01T12:00:00+01:00",
    }
    claim_of(product).write_text(json.dumps(claim | changes))


def read(product):
    return json.loads(claim_of(product).read_text())


def files(product):
    return sorted(path.name for path in product.parent.iterdir())


@contextmanager
def process(script, product, wait_for):
    """Run a script in a process of its own; it has said something when the block begins."""
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(product)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout.readline().strip() == wait_for
        yield child
    finally:
        child.kill()
        child.communicate()


@pytest.fixture
def holder(product):
    with process(HOLDER, product, "inside") as child:
        yield child


# Alone


def test_claim_is_there_while_the_product_is_made_and_no_longer(product):
    log = []
    with sole_maker([product], log.append):
        assert files(product) == [".0001.zarr.zip.claim"]
        assert (read(product)["host"], read(product)["pid"]) == (socket.gethostname(), os.getpid())
    assert (files(product), log) == ([], [])


def test_claim_tells_the_job(product, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    with sole_maker([product]):
        assert (read(product)["job"], read(product)["restarts"]) == ("7", "2")


def test_folder_is_made(tmp_path):
    with sole_maker([tmp_path / "deep" / "down" / "model.keras"]):
        assert (tmp_path / "deep" / "down" / ".model.keras.claim").exists()


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, OSError])
def test_claim_is_released_after_an_error_which_stays_what_it_is(product, error):
    with pytest.raises(error), sole_maker([product]):
        raise error
    assert files(product) == []


def test_claim_of_another_is_not_removed(product):
    with sole_maker([product]):
        lay(product)
    assert read(product)["token"] == "abc"


def test_several_products_are_claimed_in_the_same_order_by_all(product, monkeypatch):
    order = []
    create = claims._create

    def note(path, *rest):
        order.append(path.name)
        return create(path, *rest)

    monkeypatch.setattr(claims, "_create", note)
    b, a = product.with_name("b"), product.with_name("a")
    with sole_maker([b, a, b]):
        assert files(product) == [".a.claim", ".b.claim"]
    assert order == [".a.claim", ".b.claim"]
    assert files(product) == []


def test_if_one_product_cannot_be_claimed_none_is(product):
    a, b = product.with_name("a"), product.with_name("b")
    lay(b, host="elsewhere")
    with pytest.raises(PacbedError, match="elsewhere"), sole_maker([a, b]):
        pass
    assert files(product) == [".b.claim"]


def test_a_process_does_not_end_itself(product):
    with sole_maker([product]):
        with pytest.raises(PacbedError, match="by this process already"), sole_maker([product]):
            pass
        assert read(product)["pid"] == os.getpid()


def test_product_that_cannot_be_claimed_is_named_with_the_reason(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pacbed.claims.os.fsync", full)
    with (
        pytest.raises(PacbedError, match=r"cannot claim .*x\.zip .*: No space left on device"),
        sole_maker([tmp_path / "x.zip"]),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(PacbedError, match=r"cannot claim .*: Not a directory"),
        sole_maker([tmp_path / "file" / "deep" / "x.zip"]),
    ):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_may_not_be_written_is_an_error(product):
    product.parent.chmod(0o500)
    try:
        with pytest.raises(PacbedError, match="Permission denied"), sole_maker([product]):
            pass
    finally:
        product.parent.chmod(0o700)


def test_where_there_are_no_links_it_works_too(product, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("pacbed.claims.os.link", refuse)
    lay(product)
    with sole_maker([product]):
        assert files(product) == [".0001.zarr.zip.claim"]
        assert read(product)["pid"] == os.getpid()
        own = claims._Claim.of_this_process()
        assert claims._create(claim_of(product), own, product) is False
    assert files(product) == []


@pytest.mark.parametrize("how", ["answer lost", "cleared away", "cleared away when following"])
def test_link_that_goes_wrong_once_is_no_error(product, monkeypatch, how):
    link, tries = os.link, []

    def fail_once(source, target):
        tries.append(target)
        if len(tries) == 1:
            if how == "answer lost":
                link(source, target)
                raise FileExistsError(errno.EEXIST, "File exists")
            os.unlink(source)
        link(source, target)

    monkeypatch.setattr("pacbed.claims.os.link", fail_once)
    if how == "cleared away when following":
        lay(product)
    with sole_maker([product]):
        assert files(product) == [".0001.zarr.zip.claim"]
        assert read(product)["pid"] == os.getpid()
    assert len(tries) == (1 if how == "answer lost" else 2)
    assert files(product) == []


# After a process on this machine


def test_older_process_is_told_to_end_and_its_checkpoint_is_there(product, holder):
    log = []
    with sole_maker([product], log.append):
        # It is a child of this process, which has not been asked for its fate: a zombie has ended.
        assert Path(f"{product}.checkpoint").read_text() == "half"
        assert read(product)["pid"] == os.getpid()
    assert holder.wait(10) == 128 + signal.SIGTERM
    assert log == [
        f"process {holder.pid} on {socket.gethostname()} of an earlier run works on {product}: "
        "it is told to end, and its checkpoint is used"
    ]
    assert files(product) == ["0001.zarr.zip.checkpoint"]


def test_process_that_is_stopped_is_told_too(product, holder):
    holder.send_signal(signal.SIGSTOP)
    with sole_maker([product], timeout_s=10):
        assert Path(f"{product}.checkpoint").exists()
    assert holder.wait(10) == 128 + signal.SIGTERM


@pytest.mark.parametrize("reaped", [True, False])
def test_claim_of_a_process_that_was_killed_is_taken_over(product, holder, reaped):
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    if reaped:
        holder.wait()
    assert read(product)["pid"] == holder.pid
    log = []
    with sole_maker([product], log.append):
        assert read(product)["pid"] == os.getpid()
    assert [line for line in log if "told" in line] == []
    assert "has ended: its claim is taken over" in log[0]
    assert files(product) == []


@pytest.mark.parametrize("which", ["machine", "process"])
def test_process_that_has_the_number_of_the_older_one_is_let_alone(product, which):
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            boot, ticks = claims._stat(other.pid)[1].split()
            start = f"{boot} 1" if which == "process" else f"another {ticks}"
            lay(product, pid=other.pid, start=start)
            with sole_maker([product]):
                assert read(product)["pid"] == os.getpid()
            assert other.poll() is None
        finally:
            other.kill()


def test_process_is_recognised_by_its_start(product, holder):
    assert read(product)["start"] == claims._stat(holder.pid)[1]
    assert claims._stat(holder.pid)[1] != claims._stat(os.getpid())[1]


def test_process_that_does_not_end_is_not_killed(product):
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('deaf', flush=True); time.sleep(60)"
    )
    with process(script, product, "deaf") as deaf:
        lay(product, pid=deaf.pid, start=claims._stat(deaf.pid)[1])
        with (
            pytest.raises(PacbedError, match=rf"still works on .*0\.3 s .*kill {deaf.pid}"),
            sole_maker([product], timeout_s=0.3),
        ):
            pass
        assert deaf.poll() is None
    assert files(product) == [".0001.zarr.zip.claim"]
    assert read(product)["token"] == "abc"


def test_of_a_process_on_another_machine_nothing_is_known(product):
    lay(product, host="node17")
    with pytest.raises(PacbedError) as caught, sole_maker([product]):
        pass
    for part in ("process 4711 on node17", "2025-01-01T12:00", f"delete {claim_of(product)}"):
        assert part in str(caught.value)
    assert read(product)["host"] == "node17"


# After a job of SLURM


@pytest.mark.parametrize(
    "state",
    ["PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "REQUEUED", "NEW"],
)
def test_older_job_is_told_to_end_and_waited_for(product, slurm, state):
    slurm.job("1234", state)
    lay(product, job="1234", host="node17")
    log = []
    with sole_maker([product], log.append):
        assert slurm.calls == ["squeue", "scancel", "squeue", "squeue"]
        assert read(product)["pid"] == os.getpid()
    assert log == [
        f"job 1234 of an earlier run works on {product}: it is told to end, and its checkpoint "
        "is used"
    ]
    assert files(product) == []


@pytest.mark.parametrize("state", [None, "", *sorted(claims._ENDED)])
def test_job_that_has_ended_is_followed(product, slurm, state):
    if state is not None:
        slurm.job("1234", state)
    lay(product, job="1234", host="node17")
    with sole_maker([product]):
        assert read(product)["pid"] == os.getpid()
    assert slurm.calls == ["squeue"]


def test_job_some_of_whose_parts_work_has_not_ended(product, slurm):
    slurm.job("1234", "COMPLETED\nRUNNING")
    lay(product, job="1234", host="node17")
    with sole_maker([product]):
        assert "scancel" in slurm.calls


def test_all_jobs_are_asked_for(product, slurm, monkeypatch):
    """Settings of a user can keep squeue from telling of jobs that wait."""
    slurm.program("squeue", '[ -z "$SQUEUE_STATES" ] || exit 0\n' + SQUEUE)
    slurm.program("scancel", '[ -z "$SCANCEL_STATE" ] || exit 0\n' + SCANCEL)
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    monkeypatch.setenv("SCANCEL_STATE", "RUNNING")
    slurm.job("1234", "PENDING")
    lay(product, job="1234")
    with sole_maker([product]):
        assert "scancel" in slurm.calls
    assert "--states all" in (slurm.folder / "calls").read_text()


def test_job_that_does_not_end_is_an_error(product, slurm):
    slurm.program("scancel", 'echo "scancel $*" >> calls')
    slurm.job("1234", "COMPLETING")
    lay(product, job="1234", host="node17")
    with (
        pytest.raises(PacbedError, match=r"job 1234 still works .*scancel 1234"),
        sole_maker([product], timeout_s=0.2),
    ):
        pass
    assert slurm.calls.count("scancel") == 1
    assert read(product)["job"] == "1234"


def test_job_that_ends_by_itself_before_it_is_told_is_no_error(product, slurm):
    slurm.program("scancel", 'rm "$1"; echo "scancel: error: Invalid job id $1" >&2; exit 1')
    slurm.job("1234", "RUNNING")
    lay(product, job="1234")
    with sole_maker([product]):
        assert read(product)["pid"] == os.getpid()


def test_job_of_another_user_is_an_error(product, slurm):
    slurm.program("scancel", "echo 'Kill job error: Access/permission denied' >&2; exit 1")
    slurm.job("1234", "RUNNING")
    lay(product, job="1234")
    with pytest.raises(PacbedError, match=r"job 1234.*permission denied"), sole_maker([product]):
        pass
    assert read(product)["job"] == "1234"


@pytest.mark.parametrize("absent", [True, False])
def test_if_slurm_does_not_answer_nothing_is_known(product, slurm, monkeypatch, absent):
    if absent:
        (slurm.folder / "squeue").unlink()
        monkeypatch.setenv("PATH", str(slurm.folder))
        reason = "squeue: No such file or directory"
    else:
        reason = "slurm_load_jobs error: Unable to contact slurm controller"
        slurm.program("squeue", f"echo '{reason}' >&2; exit 1")
    lay(product, job="1234", host="node17")
    with pytest.raises(PacbedError) as caught, sole_maker([product]):
        pass
    for part in ("job 1234", "node17", "2025-01-01", reason, f"delete {claim_of(product)}"):
        assert part in str(caught.value)
    assert read(product)["job"] == "1234"


def test_slurm_may_be_silent_for_a_while(product, slurm):
    """Once the job has been told to end, the next answer is waited for."""
    slurm.program("squeue", "if [ -f busy ]; then rm busy; exit 1; fi\n" + SQUEUE)
    slurm.program("scancel", "touch busy\n" + SCANCEL)
    slurm.job("1234", "RUNNING")
    lay(product, job="1234")
    with sole_maker([product]):
        assert read(product)["pid"] == os.getpid()


@pytest.mark.parametrize("restarts", [None, "1"])  # Snakemake hides it from its jobs.
@pytest.mark.parametrize("host", [socket.gethostname(), "node17"])
def test_requeued_job_follows_itself(product, slurm, monkeypatch, restarts, host):
    slurm.job("1234", "RUNNING")
    monkeypatch.setenv("SLURM_JOB_ID", "1234")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node18")
    if restarts:
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    # Its number serves another process of this machine by now.
    lay(product, job="1234", host=host, pid=os.getppid())
    with sole_maker([product]):
        assert (read(product)["pid"], read(product)["restarts"]) == (os.getpid(), restarts)
    assert slurm.calls == []


def test_process_of_the_same_job_is_told_to_end_and_not_the_job(product, slurm, monkeypatch):
    """A whole workflow can run inside of one job."""
    slurm.job("1234", "RUNNING")
    monkeypatch.setenv("SLURM_JOB_ID", "1234")
    with process(HOLDER, product, "inside") as holder:
        assert read(product)["job"] == "1234"
        with sole_maker([product]):
            assert Path(f"{product}.checkpoint").exists()
        assert holder.wait(10) == 128 + signal.SIGTERM
    assert slurm.calls == []


@pytest.mark.parametrize("nodes", ["node[17-18]", "node17,gpu3"])
def test_of_a_process_of_the_same_job_on_another_node_nothing_is_known(product, monkeypatch, nodes):
    monkeypatch.setenv("SLURM_JOB_ID", "1234")
    monkeypatch.setenv("SLURM_JOB_NODELIST", nodes)
    lay(product, job="1234", host="node17")
    with pytest.raises(PacbedError, match="4711 on node17"), sole_maker([product]):
        pass
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with sole_maker([product]):
        assert read(product)["restarts"] == "1"


# Damaged claims

DAMAGED = {
    "empty": "",
    "cut": '{"token": "abc", "ho',
    "not text": "\udcff\udcfe",
    "no claim": "[1, 2]",
    "other keys": "{}",
    "outside": {"token": "../../x"},
    "group": {"pid": 0},
    "all": {"pid": -1},
    "no number": {"pid": "1"},
    "no job": {"job": "--user=me"},
}


def damage(product, how, age_s):
    content = DAMAGED[how]
    if isinstance(content, dict):
        lay(product, **content)
    else:
        claim_of(product).write_bytes(content.encode(errors="surrogateescape"))
    then = time.time() - age_s
    os.utime(claim_of(product), (then, then))


@pytest.mark.parametrize("how", DAMAGED)
def test_damaged_claim_that_is_old_is_taken_over(product, slurm, monkeypatch, how):
    # To fail with -1 would end all processes of the user.
    monkeypatch.setattr("pacbed.claims.os.kill", lambda pid, number: pytest.fail(f"kill {pid}"))
    damage(product, how, age_s=100)
    log = []
    with sole_maker([product], log.append):
        assert read(product)["pid"] == os.getpid()
    assert log == [
        f"the claim on {product}, {claim_of(product)}, is damaged and old: it is taken over"
    ]
    assert files(product) == []
    assert slurm.calls == []


def test_damaged_claim_that_is_new_is_waited_for(product, monkeypatch):
    monkeypatch.setattr(claims, "_WRITTEN_WITHIN_s", 100.5)
    damage(product, "empty", age_s=100)
    start = time.monotonic()
    with sole_maker([product]):
        assert time.monotonic() - start > 0.5


def test_claim_that_becomes_whole_is_heeded(product, monkeypatch):
    damage(product, "cut", age_s=0)
    monkeypatch.setattr(claims.time, "sleep", lambda s: lay(product, host="node17"))
    with pytest.raises(PacbedError, match="node17"), sole_maker([product]):
        pass


# Several at a time


def test_who_was_overtaken_does_not_touch_the_claim_of_the_faster_one(product, monkeypatch):
    """It has seen that the claim is of nobody; by the time it acts, it is of somebody."""
    lay(product)
    follow = claims._follow
    faster, log = [], []
    with ExitStack() as stack:

        def overtaken(*arguments):
            if faster:
                return follow(*arguments)
            faster.append(stack.enter_context(process(HOLDER, product, "inside")))
            result = follow(*arguments)
            assert files(product) == [".0001.zarr.zip.claim"]
            assert read(product)["pid"] == faster[0].pid
            return result

        monkeypatch.setattr(claims, "_follow", overtaken)
        with sole_maker([product], log.append):
            assert Path(f"{product}.checkpoint").exists()
        assert faster[0].wait(10) == 128 + signal.SIGTERM
    assert "told to end" in log[-1]
    assert files(product) == ["0001.zarr.zip.checkpoint"]


def lay_behind(product, other, **changes):
    """Lay a claim behind another, as one does who is about to follow it."""
    first = claim_of(product)
    kept = first.read_text()
    lay(product, **changes)
    first.rename(first.with_name(f"{first.name}.{other}"))
    first.write_text(kept)


def test_who_is_about_to_follow_is_told_to_end(product):
    lay(product)
    script = (
        "import sys, time; from pathlib import Path; from pacbed.machine import *;"
        "clear_away_on_sigterm()\n"
        "try: print('about', flush=True); time.sleep(60)\n"
        "finally: Path(sys.argv[1] + '.checkpoint').touch()"
    )
    with process(script, product, "about") as child:
        start = claims._stat(child.pid)[1]
        lay_behind(product, "abc", token="def", pid=child.pid, start=start)
        with sole_maker([product]):
            assert Path(f"{product}.checkpoint").exists()
            assert read(product)["pid"] == os.getpid()
        assert child.wait(10) == 128 + signal.SIGTERM
    assert files(product) == ["0001.zarr.zip.checkpoint"]


def test_what_processes_left_that_were_killed_in_the_act_is_cleared_away(product):
    lay(product)
    lay_behind(product, "abc", token="def")
    lay_behind(product, "def", token="123")
    product.with_name(f"{claim_of(product).name}.456.new").touch()
    product.with_name(f"{claim_of(product).name}.789").touch()
    kept = [".0001.zarr.zip.unfinished", ".0001.zarr.zipper.claim.789", "0001.zarr.zip"]
    for name in kept:
        product.with_name(name).touch()
    with sole_maker([product]):
        assert files(product) == sorted([".0001.zarr.zip.claim", *kept])
        assert read(product)["pid"] == os.getpid()
    assert files(product) == kept


def test_of_many_at_the_same_time_never_two_are_inside(product):
    lay(product)  # Of one that has ended: what is most difficult to share.
    with ExitStack() as stack:
        rivals = [stack.enter_context(process(RIVAL, product, "ready")) for _ in range(6)]
        for rival in rivals:
            rival.stdin.write("go\n")
            rival.stdin.flush()
        statuses = [rival.wait(60) for rival in rivals]
    # Python has put away its handlers if it is told while it ends anyway.
    assert set(statuses) <= {0, 128 + signal.SIGTERM, -signal.SIGTERM}
    lines = Path(f"{product}.log").read_text().split("\n")
    assert "not alone" not in lines
    # The last one is not told to end by anybody; one may be when it has done all.
    assert lines[-3:] == ["enter", "done", ""]
    assert lines.count("done") >= statuses.count(0) >= 1
    assert files(product) == ["0001.zarr.zip.lock", "0001.zarr.zip.log"]
