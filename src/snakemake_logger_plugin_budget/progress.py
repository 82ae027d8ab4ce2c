"""How far a run is: one live display on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINES = 10
"""How many lines a log has at most, besides the last."""
UNKNOWN_s = 1.0  # a job of which nothing is known: a small one


class RunProgress:
    """What is shown of a run.

    Parameters
    ----------
    console
        Where it is shown.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.counts: Mapping[str, int] = {}
        self.expected_s: Mapping[str, float] = {}
        self._running: Counter[str] = Counter()
        self._finished: Counter[str] = Counter()
        self._began_s = 0.0
        self._steps = 0  # of a log, that are behind
        self._live: Progress | None = None

    def say(self, text: str, style: str = "") -> None:
        """Print a message above the display."""
        self.console.print(Text(text, style), soft_wrap=True)

    def started(self, rule: str) -> None:
        """Show that a job runs, the first of which starts the display."""
        self._running[rule] += 1
        if not self._began_s:
            self._began_s = time.monotonic()
            if self.console.is_terminal and not self.console.is_dumb_terminal:
                self._live = _display(self.console)
                self._live.add_task("", jobs=self._jobs())
                self._live.start()
        self._show()

    def ended(self, rule: str, well: bool = True) -> None:
        """Show that a job has ended."""
        self._running[rule] -= 1
        self._finished[rule] += well
        self._show()

    def close(self) -> None:
        """Remove the display."""
        if self._live:
            self._live.stop()
            self._live = None
        elif self._began_s:
            self._print_line()
        self._began_s = 0.0

    def _work_s(self, jobs: Mapping[str, int]) -> float:
        return sum(self.expected_s.get(rule, UNKNOWN_s) * n for rule, n in jobs.items())

    def _jobs(self) -> str:
        return f"{self._finished.total()} of {sum(self.counts.values())}"

    def _show(self) -> None:
        done, total = self._work_s(self._finished), self._work_s(self.counts)
        if self._live:
            running = ", ".join(
                f"{n} × {rule}" if n > 1 else rule for rule, n in (+self._running).items()
            )
            self._live.update(
                self._live.task_ids[0],
                completed=done,
                total=total,
                description=running,
                jobs=self._jobs(),
            )
        elif total and (step := int(LINES * done / total)) > self._steps and step < LINES:
            self._steps = step
            self._print_line(f", {done / total:.0%} of the work")

    def _print_line(self, more: str = "") -> None:
        minutes, seconds = divmod(round(time.monotonic() - self._began_s), 60)
        self.say(f"{self._jobs()} jobs{more}, after {minutes}:{seconds:02d} min")


def _display(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.fields[jobs]} jobs"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", style="cyan"),
        console=console,
        transient=True,
        # Jobs take minutes, and what remains is known from several.
        speed_estimate_period=3600,
    )
