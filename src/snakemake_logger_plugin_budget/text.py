"""A budget or a bill as tables for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from io import StringIO
from textwrap import fill
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from snakemake_logger_plugin_budget.budget import Amount, Budget, HOUR_s, RuleBill, RuleBudget

SCHEMA = "snakemake-budget/1"


def budget_text(budget: Budget, note: str | None = None, width: int = 80) -> str:
    """Return a budget as a table with its sums, sources, wall-clock time and a note below.

    Parameters
    ----------
    budget
        The budget.
    note
        A line for the end.
    width
        Of the lines, but no figure of the table is cut off for it.
    """
    gpus = any(rule.gpus[1] for rule in budget.rules)
    columns = ["rule", "to run", "done", "threads", "limit", "core-h at most", "core-h likely"]
    columns += ["GPUs", "GPU-h at most", "GPU-h likely"] if gpus else []
    table = Table(title="Budget", box=SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in [*columns, "writes"]:
        table.add_column(column, justify="left" if column == "rule" else "right", no_wrap=True)
    for rule in (r for r in budget.rules if not _is_small(r)):
        cells = [rule.rule, f"{rule.to_run:,}", _or_dash(rule.done, "{:,}".format)]
        cells += [_span(rule.threads), _or_dash(rule.limit_s, _duration)]
        cells += [_or_dash(rule.ceiling_core_h, _number), _or_dash(rule.core_h, _amount)]
        if gpus and rule.gpus[1]:
            cells += [_span(rule.gpus), _or_dash(rule.ceiling_gpu_h, _number)]
            cells += [_or_dash(rule.gpu_h, _amount)]
        elif gpus:
            cells += ["", "", ""]
        table.add_row(*cells, _or_dash(rule.output_MB, _size))
    table.add_section()
    total = ["total", f"{sum(r.to_run for r in budget.rules):,}", "", "", ""]
    total += [_number(budget.ceiling_core_h), _amount(budget.core_h)]
    total += ["", _number(budget.ceiling_gpu_h), _amount(budget.gpu_h)] if gpus else []
    table.add_row(*total, _size(budget.output_MB), style="bold")
    return _rendered(table, [*_notes(budget), *([note] if note else [])], width)


def _is_small(rule: RuleBudget) -> bool:
    """Return whether nothing is known of a rule, which then is not worth a benchmark."""
    return rule.done is None and rule.core_h is None


def _notes(budget: Budget) -> list[str]:
    wall, lines = budget.wall, []
    at_a_time = " and ".join(
        f"{number:,} {what}"
        for number, what in ((budget.jobs, "jobs"), (budget.cores, "cores"))
        if number
    )
    if wall.throughput_s is None:
        lines.append(
            f"Wall-clock: at least {_duration(wall.critical_s)}, the longest chain of jobs."
        )
    else:
        lines.append(
            f"Wall-clock with {at_a_time} at a time: {_duration(wall.least_s)} to "
            f"{_duration(wall.most_s)}, without waiting in queues (longest chain of jobs "
            f"{_duration(wall.critical_s)}, all jobs {_duration(wall.throughput_s)})."
        )
    lines.append("At most: what the jobs reserve, each until its limit, at the first attempt.")
    lines += [
        f"{r.rule}: a job is likely to take {_duration(r.job_s)}, more than its limit of "
        f"{_duration(r.limit_s)}."
        for r in budget.rules
        if r.job_s is not None and r.limit_s is not None and r.job_s > r.limit_s
    ]
    if unlimited := [
        r.rule for r in budget.rules if r.rule in budget.unlimited and r.done is not None
    ]:
        lines.append(f"Without a limit, and not in the sum: {', '.join(unlimited)}.")
    sources: dict[str, list[str]] = {}
    for rule in (r for r in budget.rules if r.to_run and r.source):
        sources.setdefault(rule.source, []).append(rule.rule)
    if sources:
        lines.append("Likely, by:")
        lines += [f"  {', '.join(rules)}: {source}" for source, rules in sources.items()]
    if budget.unknown:
        lines.append(f"Of unknown duration, and not in the sum: {', '.join(budget.unknown)}.")
    if budget.anonymous:
        lines.append(
            f"{budget.anonymous} benchmark files do not name their job and are not used: run with "
            "--benchmark-extended."
        )
    return lines


def bill_text(bills: Sequence[RuleBill], failures: Sequence[str], width: int = 80) -> str:
    """Return what a run has used as a table, with its failures below."""
    gpus = any(b.gpu_h for b in bills)
    table = Table(
        title="What the finished jobs of this run used",
        box=SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
    )
    columns = ["rule", "finished", "failed", "left", "core-h used"]
    columns += ["GPU-h used"] if gpus else []
    for column in [*columns, "core-h to come"]:
        table.add_column(column, justify="left" if column == "rule" else "right", no_wrap=True)
    for one in bills:
        cells = [one.rule, f"{one.finished:,}", _count(one.failed), _count(one.left)]
        cells.append(_or_dash(one.core_h, _number))
        if gpus:
            cells.append(_or_dash(one.gpu_h, _number))
        pending = one.failed + one.left
        table.add_row(*cells, _or_dash(one.left_core_h, _amount) if pending else "")
    table.add_section()
    total = ["total", f"{sum(b.finished for b in bills):,}", _count(sum(b.failed for b in bills))]
    total += [_count(sum(b.left for b in bills)), _number(sum(b.core_h or 0 for b in bills))]
    total += [_number(sum(b.gpu_h or 0 for b in bills))] if gpus else []
    table.add_row(*total, "", style="bold")
    lines = [
        "Core-hours are reserved cores times the time of a job; of several attempts, the last."
    ]
    lines += [f"Failed: {text}" for text in failures]
    return _rendered(table, lines, width)


def _rendered(table: Table, lines: Sequence[str], width: int) -> str:
    console = Console(file=StringIO(), width=1000)
    widest = console.measure(table).maximum
    console.print(table, width=widest)
    for line in lines:
        indent = "    " if line.startswith("  ") else ""
        console.file.write(fill(line, width, subsequent_indent=indent) + "\n")
    assert isinstance(console.file, StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def budget_json(budget: Budget) -> dict[str, Any]:
    """Return a budget as plain values."""
    return {
        "schema": SCHEMA,
        "rules": [
            {
                "rule": r.rule,
                "jobs": {"to_run": r.to_run, "done": r.done},
                "threads": {"min": r.threads[0], "max": r.threads[1]},
                "gpus": {"min": r.gpus[0], "max": r.gpus[1]},
                "limit_min": None if r.limit_s is None else r.limit_s / 60,
                "ceiling": {"core_hours": r.ceiling_core_h, "gpu_hours": r.ceiling_gpu_h},
                "estimate": {
                    "core_hours": r.core_h and asdict(r.core_h),
                    "gpu_hours": r.gpu_h and asdict(r.gpu_h),
                    "longest_job_s": r.job_s,
                    "source": r.source,
                },
                "output_MB": r.output_MB,
            }
            for r in budget.rules
        ],
        "total": {
            "jobs": sum(r.to_run for r in budget.rules),
            "ceiling": {"core_hours": budget.ceiling_core_h, "gpu_hours": budget.ceiling_gpu_h},
            "estimate": {"core_hours": asdict(budget.core_h), "gpu_hours": asdict(budget.gpu_h)},
            "output_MB": budget.output_MB,
            "unknown": budget.unknown,
            "without_limit": budget.unlimited,
        },
        "wall_clock": {
            "jobs_at_a_time": budget.jobs,
            "cores_at_a_time": budget.cores,
            "critical_path_h": budget.wall.critical_s / HOUR_s,
            "throughput_h": None
            if budget.wall.throughput_s is None
            else budget.wall.throughput_s / HOUR_s,
            "least_h": budget.wall.least_s / HOUR_s,
            "most_h": budget.wall.most_s / HOUR_s,
        },
    }


def bill_json(bills: Sequence[RuleBill], failures: Sequence[str]) -> dict[str, Any]:
    """Return what a run has used as plain values."""
    return {"schema": SCHEMA, "used": [asdict(b) for b in bills], "failures": list(failures)}


def _number(value: float) -> str:
    """Return three significant digits, or all before the decimal point."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def _amount(amount: Amount) -> str:
    text = _number(amount.likely)
    if amount.high - amount.low > 0.005 * amount.likely:
        text += f" ({_number(amount.low)}–{_number(amount.high)})"
    return text


def _size(megabytes: float) -> str:
    for unit, size in (("TB", 1e6), ("GB", 1e3)):
        if megabytes >= size:
            return f"{megabytes / size:.3g} {unit}"
    return f"{megabytes:.3g} MB"


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size or (unit != "d" and seconds >= size):
            return f"{_number(seconds / size)} {unit}"
    return f"{seconds:.2g} s"


def _span(span: tuple[int, int]) -> str:
    return str(span[0]) if span[0] == span[1] else f"{span[0]}–{span[1]}"


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _or_dash(value: Any, formatted: Any) -> str:
    return "–" if value is None else str(formatted(value))
