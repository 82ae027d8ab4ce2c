"""What every script does: write to the rule's log, and end with a message rather than a trace."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# In a conda environment of a rule the library is not installed: it runs from the checkout.
sys.path.insert(0, str(ROOT / "src"))

from pacbed.errors import DamagedStoreError, PacbedError  # noqa: E402


@contextmanager
def job(log: str) -> Iterator[None]:
    """Send output to the log; report what a user can mend in one message.

    A damaged store is moved aside, so that the next run makes it again.
    """
    with (
        open(log, "w", buffering=1, encoding="utf-8") as stream,
        redirect_stdout(stream),
        redirect_stderr(stream),
    ):
        try:
            yield
        except DamagedStoreError as error:
            aside = error.path.with_name(f"{error.path.name}.damaged")
            error.path.replace(aside)
            print(f"error: {error} (It was moved to {aside}; run again to make it anew.)")
            sys.exit(1)
        except PacbedError as error:
            print(f"error: {error}")
            sys.exit(1)


def sparse_progress(what: str, seconds: float = 30) -> Callable[[int, int], None]:
    """Return a progress function that writes a line now and then."""
    started = written = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal written
        now = time.monotonic()
        if done == total or now - written > seconds:
            written = now
            print(f"{what}: {done} of {total} after {now - started:.0f} s", flush=True)

    return progress


def git_revision() -> str | None:
    """Return the revision of the workflow, if it is a git checkout."""
    head = ROOT / ".git" / "HEAD"
    try:
        text = head.read_text().strip()
        if text.startswith("ref: "):
            text = (head.parent / text.removeprefix("ref: ")).read_text().strip()
    except OSError:
        return None
    return text
