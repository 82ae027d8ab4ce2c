"""What every script does: write to the rule's log, and end with a message rather than a trace."""

import gc
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Nothing that is imported becomes garbage; to look for it takes a fifth of the start of TensorFlow.
gc.disable()
# Before TensorFlow is imported: its advice to those who build it is none for readers of a log.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
ROOT = Path(__file__).resolve().parents[2]
# In a conda environment of a rule the library is not installed: it runs from the checkout.
sys.path.insert(0, str(ROOT / "src"))

from pacbed.exceptions import DamagedStoreError, PacbedError  # noqa: E402
from pacbed.machine import clear_away_on_sigterm, end_with_controller  # noqa: E402
from snakemake_logger_plugin_budget.jobs import reserved_gpus  # noqa: E402


@contextmanager
def job(log: str) -> Iterator[None]:
    """Send all output to the log; report what a user can mend in one message.

    A damaged store is moved aside, so that the next run makes it again. SIGTERM, by which a
    cluster ends a job, ends the script in the ordinary way, so that it leaves nothing behind.
    """
    gc.freeze()
    gc.enable()
    clear_away_on_sigterm()
    end_with_controller()
    with open(log, "w", buffering=1, encoding="utf-8") as stream:
        # File descriptors, since libraries below Python write there too.
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
        try:
            yield
        except DamagedStoreError as error:
            aside = error.path.with_name(f"{error.path.name}.damaged")
            with suppress(FileNotFoundError):  # another job met it too
                error.path.replace(aside)
            print(f"error: {error} It was moved to {aside}: run again to make it anew.", flush=True)
            sys.exit(1)
        except PacbedError as error:
            print(f"error: {error}", flush=True)
            sys.exit(1)
        except Exception:
            traceback.print_exc()
            sys.exit(1)


def states_in(folders) -> list[Path]:
    """Return the files of strain states in some folders, in their order."""
    return [file for folder in folders for file in sorted(Path(folder).glob("*.zarr.zip"))]


def reserves_gpu(resources) -> bool:
    """Return whether a job has a graphics card, by whatever name."""
    return reserved_gpus(resources) > 0


def note_work_found(snakemake, found: bool) -> None:
    """Note whether a job needs less time than usual, so that no estimate is made of it.

    The budget plugin looks for the note next to the benchmark. Snakemake does not tell a script
    where that is: log and benchmark have the same name in two folders of the results.
    """
    results = Path(snakemake.config["results"])
    benchmark = results / "benchmarks" / Path(snakemake.log[0]).relative_to(results / "logs")
    note = benchmark.with_suffix(".tsv.partial")
    note.parent.mkdir(parents=True, exist_ok=True)
    if found:
        note.touch()
    else:
        note.unlink(missing_ok=True)


def git_revision() -> str:
    """Return the revision of the workflow, with a mark if files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    with suppress(OSError):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() or "unknown"
    return "unknown"
