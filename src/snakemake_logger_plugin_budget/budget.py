"""What a number of jobs will cost: the ceiling, as reserved, and an estimate."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from snakemake_logger_plugin_budget.jobs import Benchmarks, Finished, Job

HOUR_s = 3600.0


@dataclass(frozen=True)
class Amount:
    """An estimated amount: the likely value, and what lies a quarter of the way from both ends.

    With fewer than four finished jobs the ends are those of all of them; without any, all three
    values are that of the cost model.
    """

    likely: float
    low: float
    high: float

    def __mul__(self, factor: float) -> Amount:
        return Amount(self.likely * factor, self.low * factor, self.high * factor)

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.likely + other.likely, self.low + other.low, self.high + other.high)


NOTHING = Amount(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class RuleBudget:
    """What the jobs of one rule will cost.

    Parameters
    ----------
    rule
        Its name.
    to_run
        Jobs that are to run.
    done
        Jobs whose benchmark file is there; None if the rule writes none.
    threads, gpus
        Reserved by a job: the smallest and the largest number.
    limit_s
        Time limit of a job in seconds, the longest; None if one of them has none.
    ceiling_core_h, ceiling_gpu_h
        Reserved for all jobs until their limits; None if one of them has none.
    job_s
        Seconds that a job is expected to take, the longest; None if that is not known.
    core_h, gpu_h
        Estimates for all jobs.
    work_s
        Seconds that all jobs take one after another.
    output_MB
        What all jobs write, in MB; None if the rule does not say.
    source
        Where the estimate comes from.
    """

    rule: str
    to_run: int
    done: int | None
    threads: tuple[int, int]
    gpus: tuple[int, int]
    limit_s: float | None
    ceiling_core_h: float | None
    ceiling_gpu_h: float | None
    job_s: float | None
    core_h: Amount | None
    gpu_h: Amount | None
    work_s: float | None
    output_MB: float | None
    source: str


@dataclass(frozen=True)
class Wall:
    """How long a run takes, by its estimates.

    Parameters
    ----------
    critical_s
        The longest chain of jobs that wait for each other, in seconds, however many run at a time.
    throughput_s
        All jobs, with as many at a time as the limit allows, in seconds; None without a limit.
    """

    critical_s: float
    throughput_s: float | None

    @property
    def least_s(self) -> float:
        """It cannot take less."""
        return max(self.critical_s, self.throughput_s or 0.0)

    @property
    def most_s(self) -> float:
        """It takes no more if the machines are there (Graham 1969), waiting in queues aside."""
        return self.critical_s + (self.throughput_s or 0.0)


@dataclass(frozen=True)
class Budget:
    """What a run will cost.

    Parameters
    ----------
    rules
        By rule, in the order of the workflow.
    wall
        How long it takes.
    jobs, cores
        How many jobs or cores at a time; None if that is not limited, or not known.
    anonymous
        Benchmark files that do not say what job they are of.
    """

    rules: Sequence[RuleBudget]
    wall: Wall
    jobs: int | None = None
    cores: int | None = None
    anonymous: int = 0

    @property
    def ceiling_core_h(self) -> float:
        """Reserved core-hours of the rules whose jobs have a limit."""
        return sum(r.ceiling_core_h or 0.0 for r in self.rules)

    @property
    def ceiling_gpu_h(self) -> float:
        """Reserved GPU-hours of the rules whose jobs have a limit."""
        return sum(r.ceiling_gpu_h or 0.0 for r in self.rules)

    @property
    def core_h(self) -> Amount:
        """Estimated core-hours of the rules of which something is known."""
        return sum(filter(None, (r.core_h for r in self.rules)), NOTHING)

    @property
    def gpu_h(self) -> Amount:
        """Estimated GPU-hours of the rules of which something is known."""
        return sum(filter(None, (r.gpu_h for r in self.rules)), NOTHING)

    @property
    def output_MB(self) -> float:
        """Storage of the rules of which it is known, in MB."""
        return sum(r.output_MB or 0.0 for r in self.rules)

    @property
    def unknown(self) -> list[str]:
        """Rules of whose duration nothing is known."""
        return [r.rule for r in self.rules if r.to_run and r.core_h is None]

    @property
    def unlimited(self) -> list[str]:
        """Rules whose jobs have no time limit."""
        return [r.rule for r in self.rules if r.to_run and r.limit_s is None]


@dataclass
class Run:
    """What is known of a run: what is planned, and what has been done.

    Parameters
    ----------
    jobs
        Jobs that are to run.
    edges
        Pairs of rules of which the second needs the first.
    order
        Rules in the order of the workflow.
    """

    jobs: list[Job] = field(default_factory=list)
    edges: list[tuple[str, str]] = field(default_factory=list)
    order: list[str] = field(default_factory=list)


def budget(
    run: Run, benchmarks: Benchmarks, jobs: int | None = None, cores: int | None = None
) -> Budget:
    """Work out what a run will cost.

    Parameters
    ----------
    run
        What is to run.
    benchmarks
        What has run. Planned jobs of which there is one are to run again, and still tell how long
        they take.
    jobs, cores
        How many jobs or cores at a time.
    """
    planned = {job.benchmark for job in run.jobs}
    by_rule: dict[str, list[Job]] = defaultdict(list)
    finished: dict[str, list[Finished]] = defaultdict(list)
    done: dict[str, int] = defaultdict(int)
    # Snakemake names jobs in no fixed order, on which the last bits of a sum depend.
    for job in sorted(run.jobs, key=lambda job: (job.rule, job.benchmark or "")):
        by_rule[job.rule].append(job)
    for file, one in benchmarks.finished.items():
        finished[one.rule].append(one)
        done[one.rule] += file not in planned
    names = dict.fromkeys([*run.order, *(job.rule for job in run.jobs), *finished])
    rules = [
        _rule_budget(name, by_rule[name], finished[name], done[name])
        for name in names
        if by_rule[name] or finished[name]
    ]
    return Budget(rules, _wall(rules, run.edges, jobs, cores), jobs, cores, benchmarks.anonymous)


def _rule_budget(
    rule: str, jobs: Sequence[Job], finished: Sequence[Finished], done: int
) -> RuleBudget:
    typical = [one for one in finished if not one.partial]
    pace = _pace(typical)
    estimates = [(job, _estimate(job, pace, typical)) for job in jobs]
    known = [(job, amount) for job, amount in estimates if amount is not None]
    complete = len(known) == len(jobs)
    limits = [job.limit_s for job in jobs]
    benchmarked = bool(finished) or any(job.benchmark for job in jobs)
    return RuleBudget(
        rule=rule,
        to_run=len(jobs),
        done=done if benchmarked else None,
        threads=_range(job.threads for job in jobs or finished),
        gpus=_range(job.gpus for job in jobs or finished),
        limit_s=None if None in limits else max((s for s in limits if s), default=None),
        ceiling_core_h=_sum(_hours(job.limit_s, job.threads) for job in jobs),
        ceiling_gpu_h=_sum(_hours(job.limit_s, job.gpus) if job.gpus else 0.0 for job in jobs),
        job_s=max((amount.likely for _, amount in known), default=None) if complete else None,
        core_h=_total((job.threads, amount) for job, amount in known) if complete else None,
        gpu_h=_total((job.gpus, amount) for job, amount in known) if complete else None,
        work_s=sum(amount.likely for _, amount in known) if complete else None,
        output_MB=_sum(job.output_MB for job in jobs),
        source=_source(jobs, typical, pace) if complete and jobs else "",
    )


def _pace(finished: Sequence[Finished]) -> Amount | None:
    """Return how many times as long as expected finished jobs took."""
    return _quartiles([one.ratio for one in finished if one.ratio is not None])


def _estimate(job: Job, pace: Amount | None, finished: Sequence[Finished]) -> Amount | None:
    """Return how long a job takes, in seconds.

    What is expected of it, corrected by how finished jobs of its rule compare with what was
    expected of them; else the time that these took; else what is expected.
    """
    if job.expected_s is not None and pace:
        return pace * job.expected_s
    if finished:
        return _quartiles([one.seconds for one in finished])
    if job.expected_s is not None:
        return Amount(job.expected_s, job.expected_s, job.expected_s)
    return None


def _source(jobs: Sequence[Job], finished: Sequence[Finished], pace: Amount | None) -> str:
    if not finished:
        texts = dict.fromkeys(job.expected_from or "expected_s of the rule" for job in jobs)
        return "; ".join(texts)
    count = f"{len(finished)} finished job{'s' if len(finished) > 1 else ''}"
    if pace and any(job.expected_s is not None for job in jobs):
        return f"{count}: {pace.likely:.2g} × the cost model"
    return f"{count}: median"


def _quartiles(values: Sequence[float]) -> Amount | None:
    if not values:
        return None
    middle = statistics.median(values)
    if len(values) < 4:
        return Amount(middle, min(values), max(values))
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Amount(middle, low, high)


def _total(parts: Iterable[tuple[int, Amount]]) -> Amount:
    """Return the hours of jobs, each times what it reserves."""
    return sum((amount * (reserved / HOUR_s) for reserved, amount in parts), NOTHING)


def _wall(
    rules: Sequence[RuleBudget],
    edges: Iterable[tuple[str, str]],
    jobs: int | None,
    cores: int | None,
) -> Wall:
    throughputs = []
    if jobs:
        throughputs.append(sum(r.work_s or 0.0 for r in rules) / jobs)
    if cores:
        throughputs.append(sum(r.core_h.likely for r in rules if r.core_h) * HOUR_s / cores)
    longest = {r.rule: r.job_s or 0.0 for r in rules}
    return Wall(_critical_s(longest, edges), max(throughputs, default=None))


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


def _range(values: Iterable[int]) -> tuple[int, int]:
    numbers = list(values)
    return min(numbers), max(numbers)


def _hours(seconds: float | None, reserved: int) -> float | None:
    return None if seconds is None else seconds * reserved / HOUR_s


def _sum(values: Iterable[float | None]) -> float | None:
    """Return the sum, or None if a part of it is not known."""
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total if math.isfinite(total) else None


@dataclass(frozen=True)
class RuleBill:
    """What the jobs of one rule have cost in a run.

    Parameters
    ----------
    rule
        Its name.
    finished, failed, left
        Numbers of jobs: that ended well, that failed in the end, and that are still to run.
    core_h, gpu_h
        What the finished ones used; None if some of them have no benchmark file.
    left_core_h, left_gpu_h
        What those that failed or are left will use, if they are like the finished ones.
    """

    rule: str
    finished: int
    failed: int
    left: int
    core_h: float | None
    gpu_h: float | None
    left_core_h: Amount | None
    left_gpu_h: Amount | None


def bill(rule: str, used: Sequence[Finished | None], failed: int, left: int) -> RuleBill:
    """Add up what the finished jobs of a rule used; None stands for one without a benchmark."""
    known = [one for one in used if one is not None]
    complete = len(known) == len(used)
    pending = failed + left
    seconds = _quartiles([one.seconds for one in known if not one.partial])
    threads, gpus = (
        (statistics.mean(o.threads for o in known), statistics.mean(o.gpus for o in known))
        if known
        else (0.0, 0.0)
    )
    return RuleBill(
        rule,
        len(used),
        failed,
        left,
        sum(o.seconds * o.threads for o in known) / HOUR_s if complete else None,
        sum(o.seconds * o.gpus for o in known) / HOUR_s if complete else None,
        seconds * (pending * threads / HOUR_s) if seconds else None,
        seconds * (pending * gpus / HOUR_s) if seconds else None,
    )
