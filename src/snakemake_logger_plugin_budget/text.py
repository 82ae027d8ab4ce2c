"""A budget or a bill as tables for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
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
    columns = (
        ("rule", "rule", str),
        ("to run", "to_run", "{:,}".format),
        ("done", "done", "{:,}".format),
        ("threads", "threads", _span),
        ("limit", "limit_s", _duration),
        ("core-h at most", "ceiling_core_h", _number),
        ("core-h likely", "core_h", _amount),
        ("GPUs", "gpus", _span),
        ("GPU-h at most", "ceiling_gpu_h", _number),
        ("GPU-h likely", "gpu_h", _amount),
        ("writes", "output_MB", _size),
    )
    rows = [rule for rule in budget.rules if not _is_small(rule)]
    # What each job has is no sum.
    total = replace(budget.total, done=0, threads=(0, 0), limit_s=0.0, gpus=(0, 0))
    lines = [*_notes(budget), *([note] if note else [])]
    return _rendered("Budget", columns, [*rows, total], lines, width)


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
    columns = (
        ("rule", "rule", str),
        ("finished", "finished", "{:,}".format),
        ("failed", "failed", "{:,}".format),
        ("left", "left", "{:,}".format),
        ("core-h used", "core_h", _number),
        ("GPU-h used", "gpu_h", _number),
        ("core-h to come", "left_core_h", _amount),
    )
    names = ("finished", "failed", "left", "core_h", "gpu_h")
    sums: dict[str, Any] = {n: sum(getattr(one, n) or 0 for one in bills) for n in names}
    rows = [*bills, RuleBill("total", **sums, left_core_h=Amount())]
    lines = [
        "Core-hours are reserved cores times the time of a job; of several attempts, the last.",
        *(f"Failed: {text}" for text in failures),
    ]
    return _rendered("What the finished jobs of this run used", columns, rows, lines, width)


def _rendered(
    title: str,
    columns: Iterable[tuple[str, str, Callable[[Any], str]]],
    rows: Sequence[Any],
    lines: Iterable[str],
    width: int,
) -> str:
    """Return a table of heading, attribute and format, without empty columns, and lines below.

    The last row is the total.
    """
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold")
    shown: list[list[str]] = []
    for heading, name, formatted in columns:
        values = [getattr(row, name) for row in rows]
        cells = ["–" if v is None else formatted(v) if v else "" for v in values]
        if not {"–", ""}.issuperset(cells):
            table.add_column(heading, justify="right" if shown else "left", no_wrap=True)
            shown.append(cells)
    *of_rules, total = zip(*shown, strict=True)
    for row in of_rules:
        table.add_row(*row)
    table.add_section()
    table.add_row(*total, style="bold")
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
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def _amount(amount: Amount) -> str:
    if amount.high == 0:
        return ""
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
    """Return the fewest and the most that a job reserves; nothing if none reserves any."""
    if span[1] == 0:
        return ""
    return str(span[0]) if span[0] == span[1] else f"{span[0]}–{span[1]}"
