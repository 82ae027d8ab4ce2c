"""A budget or a bill as tables for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from io import StringIO
from textwrap import fill
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from snakemake_logger_plugin_budget.budget import Amount, Budget, RuleBill, RuleBudget

SCHEMA = "snakemake-budget/2"


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
    table = _table("Budget", [*columns, "writes"])
    for rule in [*(r for r in budget.rules if not _is_small(r)), budget.total]:
        in_all = rule is budget.total
        cells = [_or_dash(rule.done, "{:,}".format), _span(rule.threads)]
        cells = ["", "", ""] if in_all else [*cells, _or_dash(rule.limit_s, _duration)]
        cells += [_or_dash(rule.ceiling_core_h, _number), _or_dash(rule.core_h, _amount)]
        if gpus and rule.gpus[1]:
            cells += ["" if in_all else _span(rule.gpus), _or_dash(rule.ceiling_gpu_h, _number)]
            cells += [_or_dash(rule.gpu_h, _amount)]
        elif gpus:
            cells += ["", "", ""]
        if in_all:
            table.add_section()
        cells += [_or_dash(rule.output_MB, _size)]
        table.add_row(rule.rule, f"{rule.to_run:,}", *cells, style="bold" if in_all else None)
    return _rendered(table, [*_notes(budget), *([note] if note else [])], width)


def _is_small(rule: RuleBudget) -> bool:
    """Return whether nothing is known of a rule, which then is not worth a benchmark."""
    return rule.done is None and rule.core_h is None


def _notes(budget: Budget) -> list[str]:
    if budget.throughput_s is None:
        chain = _duration(budget.critical_s)
        lines = [f"Wall-clock: at least {chain}, the longest chain of jobs."]
    else:
        limits = ((budget.jobs, "jobs"), (budget.cores, "cores"))
        at_a_time = " and ".join(f"{number:,} {what}" for number, what in limits if number)
        lines = [
            f"Wall-clock with {at_a_time} at a time: {_duration(budget.least_s)} to "
            f"{_duration(budget.most_s)}, without waiting in queues (longest chain of jobs "
            f"{_duration(budget.critical_s)}, all jobs {_duration(budget.throughput_s)})."
        ]
    lines.append("At most: what the jobs reserve, each until its limit, at the first attempt.")
    lines += [
        f"{r.rule}: a job is likely to take {_duration(r.job_s)}, more than its limit of "
        f"{_duration(r.limit_s)}."
        for r in budget.rules
        if r.job_s is not None and r.limit_s is not None and r.job_s > r.limit_s
    ]
    benchmarked = {r.rule for r in budget.rules if r.done is not None}
    if unlimited := [name for name in budget.unlimited if name in benchmarked]:
        lines.append(f"Without a limit, and not in the sum: {', '.join(unlimited)}.")
    sources: dict[str, list[str]] = {}
    for rule in (r for r in budget.rules if r.source):
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
    columns = ["rule", "finished", "failed", "left", "core-h used"]
    columns += ["GPU-h used"] if gpus else []
    table = _table("What the finished jobs of this run used", [*columns, "core-h to come"])
    for one in bills:
        cells = [one.rule, f"{one.finished:,}", _count(one.failed), _count(one.left)]
        cells.append(_or_dash(one.core_h, _number))
        if gpus:
            cells.append(_or_dash(one.gpu_h, _number))
        table.add_row(*cells, _or_dash(one.left_core_h, _amount) if one.failed + one.left else "")
    table.add_section()
    total = ["total", f"{sum(b.finished for b in bills):,}", _count(sum(b.failed for b in bills))]
    total += [_count(sum(b.left for b in bills)), _number(sum(b.core_h or 0 for b in bills))]
    total += [_number(sum(b.gpu_h or 0 for b in bills))] if gpus else []
    table.add_row(*total, "", style="bold")
    lines = [
        "Core-hours are reserved cores times the time of a job; of several attempts, the last."
    ]
    return _rendered(table, lines + [f"Failed: {text}" for text in failures], width)


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column == "rule" else "right", no_wrap=True)
    return table


def _rendered(table: Table, lines: Sequence[str], width: int) -> str:
    text = StringIO()
    console = Console(file=text, width=1000)
    console.print(table, width=console.measure(table).maximum)
    for line in lines:
        text.write(fill(line, width, subsequent_indent="    " if line[0] == " " else "") + "\n")
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def budget_json(budget: Budget, exceeded: Sequence[str] = ()) -> dict[str, Any]:
    """Return a budget as plain values, by the names of its attributes, and what it exceeds."""
    more = ("least_s", "most_s", "unknown", "unlimited")
    return (
        {"schema": SCHEMA}
        | asdict(budget)
        | {name: getattr(budget, name) for name in more}
        | {"exceeded": list(exceeded)}
    )


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


def _or_dash(value: Any, formatted: Callable[[Any], str]) -> str:
    return "–" if value is None else formatted(value)
