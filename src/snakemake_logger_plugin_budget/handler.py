"""The handler, to which Snakemake reports what becomes of its jobs, and its options."""

# No `from __future__ import annotations`: Snakemake makes options of the types of the settings.
import json
import logging
import os
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from logging import LogRecord
from pathlib import Path
from typing import Any, Optional

from rich.console import Console
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase

from snakemake_logger_plugin_budget import snakemake_names
from snakemake_logger_plugin_budget.budget import Budget, HOUR_s, Run, bill, budget, exceeded
from snakemake_logger_plugin_budget.jobs import Job, folder_of, read_benchmarks
from snakemake_logger_plugin_budget.progress import RunProgress, UNKNOWN_s
from snakemake_logger_plugin_budget.text import bill_json, bill_text, budget_json, budget_text

CORES_NOTE = (
    "No job is shown with more threads than --cores: give a large number to plan for a cluster."
)
LOG_WIDTH = 120
OVER_LIMIT_STATUS = 3
# Events that are shown besides warnings, errors, and messages that are no events.
SHOWN = (LogEvent.JOB_ERROR, LogEvent.GROUP_ERROR)
OVER_LIMIT = f"End with status {OVER_LIMIT_STATUS} if more than that is likely to be needed: "


def _option(text: str) -> Any:
    return field(default=None, metadata={"help": text})


@dataclass
class LogHandlerSettings(LogHandlerSettingsBase):
    """Options of the plugin."""

    json: Optional[Path] = _option("Write the budget or the bill to this file, as JSON.")  # noqa: RUF009
    progress: bool = field(
        default=False,
        metadata={"help": "Show how far a run is, instead of a message for every step of a job."},
    )
    text: Optional[Path] = _option("Write the table to this file, and not to the terminal.")  # noqa: RUF009
    jobs: Optional[int] = _option("Jobs that run at a time, for the wall-clock time.")
    cores: Optional[int] = _option("Cores in use at a time, for the wall-clock time.")
    max_core_hours: Optional[float] = _option(OVER_LIMIT + "core-hours.")
    max_gpu_hours: Optional[float] = _option(OVER_LIMIT + "GPU-hours.")
    max_storage_tb: Optional[float] = _option(OVER_LIMIT + "storage, in TB.")


class LogHandler(LogHandlerBase):
    """Gathers what Snakemake says of jobs, and adds it up when Snakemake ends."""

    settings: LogHandlerSettings
    # All events are wanted, however quiet Snakemake is to be; the graph of the rules gives the
    # longest chain of jobs.
    writes_to_file = False
    has_filter = True
    needs_rulegraph = True

    @property
    def writes_to_stream(self) -> bool:
        """Whether progress is shown here, and Snakemake's own messages are not."""
        if not self.settings.progress:
            return False
        common = self.common_settings
        more = common.dryrun or common.verbose or common.debug_dag or common.printshellcmds
        return not (more or common.quiet)

    @property
    def has_formatter(self) -> bool:
        """Whether Snakemake need not provide its own, which messages of errors are shown with."""
        return not self.writes_to_stream

    def __post_init__(self) -> None:
        """Start with nothing."""
        self.progress = RunProgress(self._console()) if self.writes_to_stream else None
        self.said: set[str] = set()
        self.jobs: dict[int, Job] = {}  # that were planned or started
        self.rules: dict[int, str] = {}  # of these, and of the target
        self.finished: set[int] = set()
        self.failed: dict[int, tuple[str, ...]] = {}
        self.counts: Mapping[str, int] = {}
        self.run = Run()
        self.broken = self.closed = False

    def _console(self) -> Console:
        common = self.common_settings
        return Console(stderr=not common.stdout, no_color=common.nocolor or None, highlight=False)

    def emit(self, record: LogRecord) -> None:
        """Take note of an event."""
        try:
            self._take(record)
            if self.progress:
                self._show(self.progress, record)
        except Exception:  # as every handler: an event that is not understood ends no run
            self.handleError(record)

    def _take(self, event: Any) -> None:
        match getattr(event, "event", None):
            case LogEvent.JOB_INFO:
                self.rules[event.jobid] = event.rule_name
                if event.output or event.shellcmd or event.benchmark:  # the target has nothing
                    known = (event.rule_name, event.threads, event.resources, event.benchmark)
                    self.jobs[event.jobid] = Job.of(*known, event.wildcards, event.log)
            case LogEvent.JOB_FINISHED:
                self.finished.add(event.job_id)
                self.failed.pop(event.job_id, None)  # it was tried again
            case LogEvent.JOB_ERROR:
                self.failed[event.jobid] = tuple(event.log or ())
            case LogEvent.RUN_INFO:
                counts = {rule: n for rule, n in event.stats.items() if rule != "total"}
                self.counts = self.counts or counts
            case LogEvent.RULEGRAPH:
                graph = event.rulegraph
                self.run.order = list(dict.fromkeys(n["rule"] for n in graph.get("nodes", ())))
                links = graph.get("links", ())
                self.run.edges = [(one["sourcerule"], one["targetrule"]) for one in links]
            case LogEvent.ERROR:
                self.broken = True

    def _show(self, progress: RunProgress, event: Any) -> None:
        """Show progress, and what else is not said of every job."""
        kind, grave = getattr(event, "event", None), event.levelno >= logging.WARNING
        match kind:
            case LogEvent.JOB_INFO:
                progress.counts = self.counts
                progress.started(event.rule_name)
            case LogEvent.JOB_FINISHED if rule := self.rules.get(event.job_id):
                progress.ended(rule)
            case LogEvent.JOB_ERROR if rule := self.rules.get(event.jobid):
                progress.ended(rule, well=False)
        if not (grave or kind in (None, *SHOWN)) or hasattr(event, "quietness"):
            return
        # What is the same for every job is said once.
        if (text := self.format(event)) and (grave or text not in self.said):
            self.said.add(text)
            red = event.levelno >= logging.ERROR
            progress.say(text, "red" if red else "yellow" if grave else "")

    def close(self) -> None:
        """Report the budget of a dry run, or the bill of a run.

        A dry run that is over a limit ends here with status 3.
        """
        super().close()
        if self.closed:
            return
        self.closed, over_limit = True, False
        if self.progress:
            self.progress.close()
        try:
            if self.common_settings.dryrun and not self.broken:
                over_limit = self._close_plan()
            elif self.counts and not self.common_settings.dryrun:
                self._close_run()
        except Exception as error:  # which Snakemake would pass over in silence
            print(f"budget: cannot be worked out: {error!r}", file=sys.stderr)
        if over_limit:  # Snakemake passes over other exceptions of a handler in silence
            raise SystemExit(OVER_LIMIT_STATUS)

    def _close_plan(self) -> bool:
        self.run.jobs = list(self.jobs.values())
        found = _budget(self.run, self.settings.jobs, self.settings.cores)
        if self.run.jobs:
            limited = self.settings.jobs is None and self.settings.cores is None
            self._print(budget_text(found, CORES_NOTE if limited else None, _width()))
        lines = self.exceeded(found)
        self._write_json(budget_json(found, lines))
        return bool(lines)

    def exceeded(self, found: Budget) -> list[str]:
        """Return, and print, which limits a budget exceeds."""
        limits = self.settings
        lines = exceeded(found, limits.max_core_hours, limits.max_gpu_hours, limits.max_storage_tb)
        for line in lines:
            print(f"budget: over the limit: {line}", file=sys.stderr)
        return lines

    def _close_run(self) -> None:
        known = [job.benchmark for job in self.jobs.values() if job.benchmark]
        benchmarks = read_benchmarks(folder_of(known)).finished
        failed = Counter(self.jobs[i].rule for i in self.failed if i in self.jobs)
        bills = []
        for rule in dict.fromkeys([*self.run.order, *self.counts]):
            jobs = [self.jobs[i] for i in self.finished if i in self.jobs]
            files = [job.benchmark for job in jobs if job.rule == rule]
            used = [benchmarks.get(str(Path(file))) if file else None for file in files]
            left = self.counts.get(rule, 0) - len(files) - failed[rule]
            if any(files) or failed[rule]:
                bills.append(bill(rule, used, failed[rule], max(0, left)))
        failures = []
        for number, logs in sorted(self.failed.items()):
            job = self.jobs.get(number, Job("", name=f"job {number}"))
            failures.append(f"{job.name}; see {', '.join(job.logs or logs)}")
        if bills or failures:
            self._print(bill_text(bills, failures, _width()))
        self._write_json(bill_json(bills, failures))

    def _print(self, text: str) -> None:
        if self.settings.text:
            _write(self.settings.text, text)
        else:
            print(text, file=sys.stdout if self.common_settings.stdout else sys.stderr, flush=True)

    def _write_json(self, content: dict[str, Any]) -> None:
        if self.settings.json:
            _write(self.settings.json, json.dumps(content, indent=2, default=str))


def start(workflow: Any) -> None:
    """Print the budget of a run that starts, and end the run with status 3 if it is over a limit.

    For the ``onstart`` of a workflow: without it a limit holds for dry runs only.

    Parameters
    ----------
    workflow
        The variable ``workflow`` of a Snakefile.
    """
    ours = next((h for h in snakemake_names.handlers(workflow) if isinstance(h, LogHandler)), None)
    found = _budget(snakemake_names.planned(workflow), *snakemake_names.at_a_time(workflow))
    print(budget_text(found, width=_width()), file=sys.stderr)
    if ours and ours.progress:
        likely = [(r.rule, r.to_run, r.core_h) for r in found.rules]
        ours.progress.expected_s = {
            rule: max(core_h.likely * HOUR_s / n, UNKNOWN_s)
            for rule, n, core_h in likely
            if n and core_h
        }
    if ours and ours.exceeded(found):
        raise SystemExit(OVER_LIMIT_STATUS)


def _budget(run: Run, jobs: int | None, cores: int | None) -> Budget:
    folder = folder_of(job.benchmark for job in run.jobs if job.benchmark)
    return budget(run, read_benchmarks(folder), jobs, cores)


def _width() -> int:
    """Return how long lines may be; in a log the width of a terminal is not known."""
    return shutil.get_terminal_size((LOG_WIDTH, 0)).columns


def _write(path: Path, text: str) -> None:
    """Write a file that appears whole; one that cannot be written ends no run."""
    temporary = Path(path).with_name(f".{Path(path).name}.{os.getpid()}")
    try:
        temporary.write_text(f"{text}\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        print(f"budget: cannot write {path}: {error.strerror}", file=sys.stderr)
