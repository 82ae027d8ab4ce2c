"""Snakemake logger plugin that tells what a run will cost, and what it has cost.

    snakemake --dry-run --cores 1000 --logger budget

prints the jobs to run, what they reserve and what they are likely to use, by rule. At the end of a
real run it prints what was used, and which jobs failed. In a real run Snakemake tells a logger of
jobs only as they start; a workflow that wants the budget first calls :func:`budget_of_run` in its
``onstart``. It works with any workflow; it knows more where

- rules have a ``benchmark:`` and Snakemake writes it with ``--benchmark-extended``: finished jobs
  tell how long those to come will take;
- rules say in their ``resources`` what they expect before any job has run: ``expected_s``
  (seconds), ``expected_from`` (where that comes from) and ``output_mb`` (MB that a job writes);
- a job that found a part of its work done writes a file named as its benchmark file and
  ``.partial``, so that no estimate is made of it;
- it is told how many jobs or cores are in use at a time (``--logger-budget-jobs``,
  ``--logger-budget-cores``), from which follows how long all of it takes.

In a dry run Snakemake shows rules with no more threads than ``--cores``, by default one: give a
large number to plan for a cluster.
"""

# No `from __future__ import annotations`: Snakemake makes options of the types of the settings.
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from logging import LogRecord
from pathlib import Path
from typing import Any, Optional

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase

from snakemake_logger_plugin_budget.budget import Run, bill, budget
from snakemake_logger_plugin_budget.jobs import Job, folder_of, read_benchmarks
from snakemake_logger_plugin_budget.text import bill_json, bill_text, budget_json, budget_text

CORES_NOTE = (
    "No job is shown with more threads than --cores: give a large number to plan for a cluster."
)
LOG_WIDTH = 120


@dataclass
class LogHandlerSettings(LogHandlerSettingsBase):
    """Settings of the plugin."""

    json: Optional[Path] = field(
        default=None,
        metadata={"help": "Also write the budget or the bill to this file, as JSON."},
    )
    text: Optional[Path] = field(
        default=None,
        metadata={"help": "Write the table to this file, and not to the terminal."},
    )
    jobs: Optional[int] = field(
        default=None,
        metadata={"help": "Jobs that run at a time, for the wall-clock time."},
    )
    cores: Optional[int] = field(
        default=None,
        metadata={"help": "Cores in use at a time, for the wall-clock time."},
    )


@dataclass(frozen=True)
class _Started:
    """A job that was started or planned, and how to name it."""

    job: Job
    name: str
    logs: tuple[str, ...]


class LogHandler(LogHandlerBase):
    """Gathers what Snakemake says of jobs, and adds it up when Snakemake ends."""

    settings: LogHandlerSettings

    def __post_init__(self) -> None:
        """Start with nothing."""
        self.started: dict[int, _Started] = {}
        self.finished: set[int] = set()
        self.failed: dict[int, tuple[str, ...]] = {}
        self.counts: Mapping[str, int] = {}
        self.run = Run()
        self.broken = self.closed = False

    def emit(self, record: LogRecord) -> None:
        """Take note of an event."""
        takes = {
            LogEvent.JOB_INFO: self._job_info,
            LogEvent.JOB_FINISHED: self._job_finished,
            LogEvent.JOB_ERROR: self._job_error,
            LogEvent.RUN_INFO: self._run_info,
            LogEvent.RULEGRAPH: self._rulegraph,
            LogEvent.ERROR: self._error,
        }
        event = getattr(record, "event", None)
        if event not in takes:
            return
        try:
            takes[event](record)
        except Exception:  # as every handler: an event that is not understood ends no run
            self.handleError(record)

    def _job_info(self, event: Any) -> None:
        if not (event.output or event.shellcmd or event.benchmark):
            return  # the target, which has nothing to do
        wildcards = ", ".join(f"{k}={v}" for k, v in (event.wildcards or {}).items())
        name = f"{event.rule_name} ({wildcards})" if wildcards else event.rule_name
        job = Job.of(event.rule_name, event.threads, event.resources, event.benchmark)
        self.started[event.jobid] = _Started(job, name, tuple(event.log or ()))

    def _job_finished(self, event: Any) -> None:
        self.finished.add(event.job_id)
        self.failed.pop(event.job_id, None)  # it was tried again

    def _job_error(self, event: Any) -> None:
        self.failed[event.jobid] = tuple(event.log or ())

    def _error(self, event: Any) -> None:
        self.broken = True

    def _run_info(self, event: Any) -> None:
        self.counts = self.counts or {k: n for k, n in event.stats.items() if k != "total"}

    def _rulegraph(self, event: Any) -> None:
        graph = event.rulegraph
        self.run.order = list(dict.fromkeys(node["rule"] for node in graph.get("nodes", ())))
        self.run.edges = [(e["sourcerule"], e["targetrule"]) for e in graph.get("links", ())]

    def close(self) -> None:
        """Say it."""
        super().close()
        if self.closed:
            return
        self.closed = True
        try:
            if self.common_settings.dryrun and not self.broken:
                self._close_plan()
            elif self.counts and not self.common_settings.dryrun:
                self._close_run()
        except Exception as error:  # which Snakemake would pass over in silence
            print(f"budget: cannot be worked out: {error!r}", file=sys.stderr)

    def _close_plan(self) -> None:
        self.run.jobs = [one.job for one in self.started.values()]
        folder = folder_of(job.benchmark for job in self.run.jobs if job.benchmark)
        settings = self.settings
        found = budget(self.run, read_benchmarks(folder), settings.jobs, settings.cores)
        if self.run.jobs:
            limited = settings.jobs is None and settings.cores is None
            self._print(budget_text(found, CORES_NOTE if limited else None, _width()))
        self._write_json(budget_json(found))

    def _close_run(self) -> None:
        files = {i: one.job.benchmark for i, one in self.started.items() if one.job.benchmark}
        benchmarks = read_benchmarks(folder_of(files.values())).finished
        failed = Counter(self.started[i].job.rule for i in self.failed if i in self.started)
        bills = []
        for rule in dict.fromkeys([*self.run.order, *self.counts]):
            ended = [i for i in self.finished if i in self.started and self._rule(i) == rule]
            used = [benchmarks.get(str(Path(files[i]))) if i in files else None for i in ended]
            left = self.counts.get(rule, 0) - len(ended) - failed[rule]
            if any(i in files for i in ended) or failed[rule]:
                bills.append(bill(rule, used, failed[rule], max(0, left)))
        failures = [self._failure(i) for i in sorted(self.failed)]
        if bills or failures:
            self._print(bill_text(bills, failures, _width()))
        self._write_json(bill_json(bills, failures))

    def _rule(self, number: int) -> str:
        return self.started[number].job.rule

    def _failure(self, number: int) -> str:
        started = self.started.get(number)
        name, logs = (started.name, started.logs) if started else (f"job {number}", ())
        return f"{name}; see {', '.join(logs or self.failed[number])}"

    def _print(self, text: str) -> None:
        if self.settings.text:
            _write(Path(self.settings.text), text + "\n")
        else:
            print(text, file=sys.stdout if self.common_settings.stdout else sys.stderr, flush=True)

    def _write_json(self, content: dict[str, Any]) -> None:
        if self.settings.json:
            _write(Path(self.settings.json), json.dumps(content, indent=2) + "\n")

    @property
    def writes_to_stream(self) -> bool:
        """Snakemake's own messages stay."""
        return False

    @property
    def writes_to_file(self) -> bool:
        """Not as a log file."""
        return False

    @property
    def has_filter(self) -> bool:
        """All events are wanted, however quiet Snakemake is to be."""
        return True

    @property
    def has_formatter(self) -> bool:
        """Nothing is formatted."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """The longest chain of jobs follows from it."""
        return True


def budget_of_run(dag: Any, jobs: int | None = None, cores: int | None = None) -> str:
    """Return the budget of a run that starts, as a table.

    Parameters
    ----------
    dag
        Of Snakemake: ``workflow.dag``.
    jobs, cores
        How many jobs or cores are in use at a time.
    """
    run = Run()
    for job in dag.needrun_jobs():
        if job.output:
            run.jobs.append(Job.of(job.rule.name, job.threads, job.resources, job.benchmark))
        needed = (other.rule.name for other in dag.dependencies[job])
        run.edges += [(name, job.rule.name) for name in needed]
    run.edges = list(dict.fromkeys(run.edges))
    run.order = [rule.name for rule in dag.workflow.rules]
    folder = folder_of(job.benchmark for job in run.jobs if job.benchmark)
    return budget_text(budget(run, read_benchmarks(folder), jobs, cores), width=_width())


def _width() -> int:
    """Return how long lines may be; in a log the width of a terminal is not known."""
    return shutil.get_terminal_size((LOG_WIDTH, 0)).columns


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        print(f"budget: cannot write {path}: {error.strerror}", file=sys.stderr)
