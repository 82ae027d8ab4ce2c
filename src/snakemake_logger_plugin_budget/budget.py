"""What a number of jobs will cost: the ceiling, as reserved, and an estimate."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from snakemake_logger_plugin_budget.jobs import Benchmarks, Finished, Job

HOUR_s = 3600.0


@dataclass(frozen=True)
class Amount:
    """An estimated amount: the likely value, and what lies a quarter of the way from both ends.

    With fewer than four finished jobs the ends are those of all of them; without any, all three
    values are that of the cost model.
    """

    likely: float = 0.0
    low: float = 0.0
    high: float = 0.0

    def __mul__(self, factor: float) -> Amount:
        return Amount(self.likely * factor, self.low * factor, self.high * factor)

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.likely + other.likely, self.low + other.low, self.high + other.high)


@dataclass(frozen=True)
class RuleBudget:
    """What the jobs of one rule, or of all rules, will cost; None for what is not known."""

    rule: str
    to_run: int
    done: int | None  # jobs whose benchmark file is there; None if the rule writes none
    threads: tuple[int, int]  # reserved by a job, the fewest and the most; so gpus
    gpus: tuple[int, int]
    limit_s: float | None  # the longest time limit of a job
    ceiling_core_h: float | None  # what all jobs reserve until their limits
    ceiling_gpu_h: float | None
    job_s: float | None  # how long a job is expected to take, the longest
    core_h: Amount | None  # estimates for all jobs
    gpu_h: Amount | None
    work_s: float | None  # how long all jobs take one after another
    output_MB: float | None  # what all jobs write
    source: str = ""  # where the estimates come from
    requests: Mapping[str, Any] = field(default_factory=dict)  # resources of one of the jobs


@dataclass(frozen=True)
class Budget:
    """What a run will cost, by rule in the order of the workflow and in all."""

    rules: Sequence[RuleBudget]
    total: RuleBudget
    critical_s: float  # the longest chain of jobs that wait for each other
    throughput_s: float | None  # all jobs, as many at a time as may be; None without a limit
    jobs: int | None  # how many jobs or cores at a time; None if that is not known
    cores: int | None
    anonymous: int  # benchmark files that do not say what job they are of

    @property
    def least_s(self) -> float:
        """The run cannot take less."""
        return max(self.critical_s, self.throughput_s or 0.0)

    @property
    def most_s(self) -> float:
        """It takes no more if the machines are there (Graham 1969), without waiting in queues."""
        return self.critical_s + (self.throughput_s or 0.0)

    @property
    def unknown(self) -> list[str]:
        """Rules of whose duration nothing is known."""
        return [r.rule for r in self.rules if r.to_run and r.core_h is None]

    @property
    def unlimited(self) -> list[str]:
        """Rules whose jobs have no time limit."""
        return [r.rule for r in self.rules if r.to_run and r.limit_s is None]


def exceeded(
    budget: Budget,
    core_hours: float | None = None,
    gpu_hours: float | None = None,
    storage_TB: float | None = None,
) -> list[str]:
    """Return a line for each limit that a budget exceeds; None for any amount.

    The time limits of jobs count where nothing is known of how long they take.
    """
    rules = budget.rules
    needed = {
        "core-hours": sum(r.core_h.likely if r.core_h else r.ceiling_core_h or 0 for r in rules),
        "GPU-hours": sum(r.gpu_h.likely if r.gpu_h else r.ceiling_gpu_h or 0 for r in rules),
        "TB of storage": (budget.total.output_MB or 0.0) / 1e6,
    }
    limits = (core_hours, gpu_hours, storage_TB)
    lines = [
        f"{amount:,.4g} {what} are likely to be needed, {limit:,g} are allowed"
        for (what, amount), limit in zip(needed.items(), limits, strict=True)
        if limit is not None and amount > limit
    ]
    unknown = [r.rule for r in rules if r.gpu_h is None and r.ceiling_gpu_h is None and r.to_run]
    if unknown and gpu_hours is not None:
        lines.append(f"the GPU-hours of {', '.join(unknown)} are not known: set a time limit")
    return lines


@dataclass
class Run:
    """What is to run, and how rules depend on each other."""

    jobs: list[Job] = field(default_factory=list)
    edges: list[tuple[str, str]] = field(default_factory=list)  # the second rule needs the first
    order: list[str] = field(default_factory=list)  # of the rules in the workflow


def budget(
    run: Run, benchmarks: Benchmarks, jobs: int | None = None, cores: int | None = None
) -> Budget:
    """Work out what a run will cost.

    Parameters
    ----------
    run
        What is to run.
    benchmarks
        What has run. Planned jobs of which there is one are to run again, and still show how long
        they take.
    jobs, cores
        How many jobs or cores at a time.
    """
    # Snakemake names jobs in no fixed order, on which the last bits of a sum depend.
    planned = sorted(run.jobs, key=lambda job: (job.rule, job.benchmark or ""))
    again = {job.benchmark for job in planned}
    names = [*run.order, *(job.rule for job in run.jobs)]
    names += [one.rule for one in benchmarks.finished.values()]
    rules = []
    for name in dict.fromkeys(names):
        to_run = [job for job in planned if job.rule == name]
        finished = {file: one for file, one in benchmarks.finished.items() if one.rule == name}
        if to_run or finished:
            done = len(finished.keys() - again)
            rules.append(_rule_budget(name, to_run, list(finished.values()), done))
    total = _in_all(rules)
    at_a_time = [(total.work_s or 0.0) / jobs] if jobs else []
    if cores:
        at_a_time.append((total.core_h or Amount()).likely * HOUR_s / cores)
    longest = {r.rule: r.job_s or 0.0 for r in rules}
    critical_s, throughput_s = _critical_s(longest, run.edges), max(at_a_time, default=None)
    return Budget(rules, total, critical_s, throughput_s, jobs, cores, benchmarks.anonymous)


def _in_all(rules: Sequence[RuleBudget]) -> RuleBudget:
    """Add up what is known of the rules."""

    def known(name: str) -> list[Any]:
        return [value for rule in rules if (value := getattr(rule, name)) is not None]

    return RuleBudget(
        rule="total",
        to_run=sum(known("to_run")),
        done=sum(known("done")),
        threads=_range([number for span in known("threads") for number in span]),
        gpus=_range([number for span in known("gpus") for number in span]),
        limit_s=max(known("limit_s"), default=None),
        job_s=max(known("job_s"), default=None),
        core_h=sum(known("core_h"), Amount()),
        gpu_h=sum(known("gpu_h"), Amount()),
        **{
            name: sum(known(name))
            for name in ("ceiling_core_h", "ceiling_gpu_h", "work_s", "output_MB")
        },
    )


def _rule_budget(
    rule: str, jobs: Sequence[Job], finished: Sequence[Finished], done: int
) -> RuleBudget:
    typical = [one for one in finished if not one.partial]
    # How many times as long as expected finished jobs took.
    pace = _quartiles([one.seconds / one.expected_s for one in typical if one.expected_s])
    usual = _quartiles([one.seconds for one in typical])
    count = f"{len(typical)} finished job{'s' if len(typical) > 1 else ''}"
    estimates = [_estimate(job, pace, usual, count) for job in jobs]
    times, limits = [amount for amount, _ in estimates], [job.limit_s for job in jobs]
    likely = [amount.likely if amount else None for amount in times]
    reserved = jobs or finished
    threads, gpus = [one.threads for one in reserved], [one.gpus for one in reserved]
    return RuleBudget(
        rule=rule,
        to_run=len(jobs),
        done=done if finished or any(job.benchmark for job in jobs) else None,
        threads=_range(threads),
        gpus=_range(gpus),
        limit_s=_all_or_none(max, limits),
        ceiling_core_h=_hours(limits, threads, 0.0),
        ceiling_gpu_h=_hours(limits, gpus, 0.0),
        job_s=_all_or_none(max, likely),
        core_h=_hours(times, threads, Amount()),
        gpu_h=_hours(times, gpus, Amount()),
        work_s=_all_or_none(sum, likely),
        output_MB=_all_or_none(sum, [job.output_MB for job in jobs]),
        source="; ".join(dict.fromkeys(text for _, text in estimates)) if all(times) else "",
        requests=jobs[0].requests if jobs else {},
    )


def _estimate(
    job: Job, pace: Amount | None, usual: Amount | None, count: str
) -> tuple[Amount | None, str]:
    """Return how long a job takes, in seconds, and how that is known.

    What is expected of it, at the pace of finished jobs; else what these took; else as expected.
    """
    if job.expected_s is not None and pace:
        return pace * job.expected_s, f"{count}: {pace.likely:.2g} × the cost model"
    if usual:
        return usual, f"{count}: median"
    if job.expected_s is not None:
        expected = Amount(job.expected_s, job.expected_s, job.expected_s)
        return expected, job.expected_from or "expected_s of the rule"
    return None, ""


def _quartiles(values: Sequence[float]) -> Amount | None:
    if not values:
        return None
    middle = statistics.median(values)
    if len(values) < 4:
        return Amount(middle, min(values), max(values))
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Amount(middle, low, high)


def _hours(times: Iterable[Any], reserved: Iterable[int], zero: Any) -> Any:
    """Return the hours that jobs reserve so many of something for some time, in seconds.

    None if a time is not known; nothing that is reserved needs none.
    """
    pairs = [(time, number) for time, number in zip(times, reserved, strict=False) if number]
    if any(time is None for time, _ in pairs):
        return None
    return sum((time * (number / HOUR_s) for time, number in pairs), zero)


def _critical_s(longest: Mapping[str, float], edges: Iterable[tuple[str, str]]) -> float:
    """Return the longest path through the rules; a rule without jobs to run takes no time."""
    needs: dict[str, list[str]] = defaultdict(list)
    for first, second in edges:
        if first != second:  # a rule that needs itself is counted once
            needs[second].append(first)
    ends: dict[str, float] = {}

    def end(rule: str, waiting: frozenset[str]) -> float:
        if rule not in ends:
            before = (end(r, waiting | {rule}) for r in needs[rule] if r not in waiting)
            ends[rule] = max(before, default=0.0) + longest.get(rule, 0.0)
        return ends[rule]

    return max((end(rule, frozenset()) for rule in [*longest, *list(needs)]), default=0.0)


def _range(values: Sequence[int]) -> tuple[int, int]:
    return min(values, default=0), max(values, default=0)


def _all_or_none(function: Any, values: Sequence[float | None]) -> float | None:
    """Return the sum or the largest of values; None without any, or if one is not known."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return None
    return float(function(known))


@dataclass(frozen=True)
class RuleBill:
    """What the jobs of one rule have cost in a run; None for what is not known."""

    rule: str
    finished: int
    failed: int  # in the end, after all attempts
    left: int  # still to run
    core_h: float | None  # used by the finished ones
    gpu_h: float | None
    left_core_h: Amount | None  # of those that failed or are left, if they are like the finished


def bill(rule: str, used: Sequence[Finished | None], failed: int, left: int) -> RuleBill:
    """Add up what the finished jobs of a rule used; None stands for one without a benchmark."""
    known = [one for one in used if one is not None]
    complete = len(known) == len(used)
    seconds = _quartiles([one.seconds for one in known if not one.partial])
    threads = statistics.mean(one.threads for one in known) if known else 0.0
    to_come = None if failed + left else Amount()
    if seconds:
        to_come = seconds * ((failed + left) * threads / HOUR_s)
    return RuleBill(
        rule,
        len(used),
        failed,
        left,
        sum(o.seconds * o.threads for o in known) / HOUR_s if complete else None,
        sum(o.seconds * o.gpus for o in known) / HOUR_s if complete else None,
        to_come,
    )
