"""What Snakemake says of a job, and what the benchmark files of finished jobs say."""

from __future__ import annotations

import ast
import csv
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PARTIAL = ".partial"
"""Ending of the file that marks a benchmark of a job that found a part of its work done."""


@dataclass(frozen=True)
class Job:
    """A job that is to run.

    Parameters
    ----------
    rule
        Name of its rule.
    threads, gpus
        What it reserves.
    limit_s
        Its time limit in seconds; None if it has none.
    expected_s
        How long it is expected to run, in seconds, by the rule's resource ``expected_s``.
    expected_from
        Where that number comes from, by the resource ``expected_from``.
    output_MB
        What it is expected to write, in MB, by the resource ``output_mb``.
    benchmark
        Its benchmark file.
    """

    rule: str
    threads: int = 1
    gpus: int = 0
    limit_s: float | None = None
    expected_s: float | None = None
    expected_from: str | None = None
    output_MB: float | None = None
    benchmark: str | None = None

    @classmethod
    def of(cls, rule: str, threads: int, resources: Any, benchmark: str | None) -> Job:
        """Take it from what Snakemake knows of a job."""
        given = dict(resources.items()) if resources else {}
        return cls(
            rule=rule,
            threads=threads,
            gpus=gpus(given),
            limit_s=_scaled(given.get("runtime"), 60),
            expected_s=_scaled(given.get("expected_s")),
            expected_from=given.get("expected_from"),
            output_MB=_scaled(given.get("output_mb")),
            benchmark=benchmark and str(benchmark),
        )


@dataclass(frozen=True)
class Finished:
    """A job that has run, as its benchmark file tells.

    Parameters
    ----------
    rule
        Name of its rule.
    threads, gpus
        What it reserved.
    seconds
        How long it ran.
    expected_s
        How long it was expected to run; None if its rule does not say.
    partial
        Whether it found a part of its work done, and so tells nothing of others.
    """

    rule: str
    threads: int
    gpus: int
    seconds: float
    expected_s: float | None
    partial: bool = False

    @property
    def ratio(self) -> float | None:
        """How many times as long as expected it took."""
        return self.seconds / self.expected_s if self.expected_s else None


@dataclass(frozen=True)
class Benchmarks:
    """The benchmark files of a run.

    Parameters
    ----------
    finished
        Finished job by file; a file may hold several repetitions, which count as one job.
    anonymous
        Number of files that do not say what job they are of.
    """

    finished: Mapping[str, Finished]
    anonymous: int = 0


def gpus(resources: Mapping[str, Any]) -> int:
    """Return how many graphics cards a job reserves, by the resource ``gpu`` or ``gres``."""
    if (number := _scaled(resources.get("gpu"))) is not None:
        return int(number)
    # Such as gpu, gpu:2 or gpu:a100:2, possibly among others.
    found = re.findall(r"\bgpu(?::[a-zA-Z]\w*)?(?::(\d+))?(?=,|$)", str(resources.get("gres", "")))
    return sum(int(number or 1) for number in found)


def folder_of(files: Iterable[str]) -> Path | None:
    """Return the folder that holds the benchmark files of a workflow, of which some are known.

    By custom it is named ``benchmarks``; otherwise it is the deepest that holds all of them.
    """
    parents = [Path(file).parent for file in files]
    if not parents:
        return None
    for folder in (parents[0], *parents[0].parents):
        if folder.name == "benchmarks" and all(p.is_relative_to(folder) for p in parents):
            return folder
    shared = [f for f in (parents[0], *parents[0].parents) if all(map(_within(f), parents))]
    # Not the whole working directory, nor anything above it.
    return shared[0] if shared and shared[0] not in (Path("."), Path("/")) else None


def _within(folder: Path) -> Any:
    return lambda path: path.is_relative_to(folder)


def read_benchmarks(folder: Path | None) -> Benchmarks:
    """Read all benchmark files below a folder."""
    finished: dict[str, Finished] = {}
    anonymous = 0
    files = sorted(folder.rglob("*")) if folder and folder.is_dir() else []
    for file in files:
        if not file.is_file() or file.suffix == PARTIAL:
            continue
        try:
            found = list(_records(file))
        except (OSError, ValueError, TypeError, KeyError, SyntaxError, csv.Error):
            anonymous += 1
            continue
        if found:
            finished[str(file)] = found[-1]
    return Benchmarks(finished, anonymous)


def _records(file: Path) -> Iterator[Finished]:
    """Yield what a file of ``snakemake --benchmark-extended`` tells."""
    if file.suffix == ".jsonl":
        rows: Iterable[Mapping[str, Any]] = map(json.loads, file.read_text().splitlines())
    else:
        # The list of a job's input files is one field.
        csv.field_size_limit(sys.maxsize)
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    for row in rows:
        resources = row["resources"]
        if isinstance(resources, str):
            resources = ast.literal_eval(resources)
        yield Finished(
            rule=row["rule_name"],
            threads=int(row["threads"]),
            gpus=gpus(resources),
            seconds=float(row["s"]),
            expected_s=_scaled(resources.get("expected_s")),
            partial=file.with_name(f"{file.name}{PARTIAL}").exists(),
        )


def _scaled(value: Any, factor: float = 1) -> float | None:
    """Return a resource as a number; None if it has none, or none before the job starts."""
    try:
        return float(value) * factor
    except (TypeError, ValueError):
        return None
