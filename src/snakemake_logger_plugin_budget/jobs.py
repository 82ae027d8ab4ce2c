"""What a job reserves, and what the benchmark files of finished jobs say.

Needs nothing but Python, so that programs without Snakemake can read benchmark files too.
"""

from __future__ import annotations

import ast
import csv
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PARTIAL = ".partial"
"""Ending of the file that marks a benchmark of a job that found a part of its work done."""


@dataclass(frozen=True)
class Job:
    """A job that is to run; None for what is not known."""

    rule: str
    threads: int = 1
    gpus: int = 0
    limit_s: float | None = None
    expected_s: float | None = None  # how long it is expected to run, and by what source
    expected_from: str | None = None
    output_MB: float | None = None  # what it is expected to write
    benchmark: str | None = None  # its benchmark file
    requests: Mapping[str, Any] = field(default_factory=dict)  # all other resources
    name: str = ""  # rule and wildcards
    logs: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        rule: str,
        threads: int,
        resources: Any,
        benchmark: str | None,
        wildcards: Mapping[str, str] | None = None,
        logs: Sequence[str] | None = None,
    ) -> Job:
        """Take it from what Snakemake knows of a job."""
        given = dict(resources.items()) if resources else {}
        own = ("expected_s", "expected_from", "output_mb")
        values = ", ".join(f"{name}={value}" for name, value in (wildcards or {}).items())
        return cls(
            rule=rule,
            threads=threads,
            gpus=reserved_gpus(given),
            limit_s=_number(given.get("runtime"), 60),
            expected_s=_number(given.get("expected_s")),
            expected_from=given.get("expected_from"),
            output_MB=_number(given.get("output_mb")),
            benchmark=benchmark and str(benchmark),
            requests={k: v for k, v in given.items() if k not in own and not k.startswith("_")},
            name=f"{rule} ({values})" if values else rule,
            logs=tuple(logs or ()),
        )


@dataclass(frozen=True)
class Finished:
    """A job that has run, as its benchmark file says."""

    rule: str
    threads: int
    gpus: int
    seconds: float
    expected_s: float | None = None
    partial: bool = False  # it found a part of its work done, and says nothing about others


@dataclass(frozen=True)
class Benchmarks:
    """The finished job of each benchmark file, and how many files do not name their job."""

    finished: Mapping[str, Finished]
    anonymous: int = 0


def reserved_gpus(resources: Mapping[str, Any]) -> int:
    """Return how many graphics cards a job reserves.

    Parameters
    ----------
    resources
        Of the job: ``gpu``, a number; ``gpu_model``, which alone means one card; ``gres`` as SLURM
        writes it, ``gpu[:type][:number][(S:sockets)]``, also as one of several separated by commas;
        ``--gpus-per-…`` or ``-G`` in ``slurm_extra``. The largest counts.
    """
    plain = _number(resources.get("gpu"))
    numbers = [int(plain) if plain is not None else int(bool(resources.get("gpu_model")))]
    generic = re.sub(r"\([^)]*\)|['\"\s]", "", str(resources.get("gres") or ""))
    cards = [item for item in generic.split(",") if re.match(r"(gres/)?gpu(:|$)", item)]
    numbers.append(sum(_count(item) for item in cards))
    extra = re.findall(
        r"(?:--gpus-per-\w+[=\s]|(?<!\S)-G\s*)([\w.:-]+)",
        re.sub(r"['\"]", " ", str(resources.get("slurm_extra") or "")),
    )
    return max(numbers + [_count(f"gpu:{value}") for value in extra])


def _count(item: str) -> int:
    """Return the number at the end of ``gpu[:type][:number]``: one if there is none."""
    number = re.search(r":(\d+)$", item)
    return int(number[1]) if number else 1


def folder_of(files: Iterable[str]) -> Path | None:
    """Return the folder that holds the benchmark files of a workflow, of which some are known.

    By custom it is named ``benchmarks``; otherwise it is the deepest that holds all of them.
    """
    parents = [Path(file).parent for file in files]
    if not parents:
        return None
    above = (parents[0], *parents[0].parents)
    shared = [f for f in above if all(p.is_relative_to(f) for p in parents)]
    named = [f for f in shared if f.name == "benchmarks"]
    # Not the whole working directory, nor anything above it.
    found = (named or shared or [Path()])[0]
    return found if found not in (Path(), Path("/")) else None


def read_benchmarks(folder: Path | None) -> Benchmarks:
    """Read all benchmark files below a folder."""
    finished: dict[str, Finished] = {}
    anonymous = 0
    for file in sorted(folder.rglob("*")) if folder else []:
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
    """Yield what a file of ``snakemake --benchmark-extended`` says."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".jsonl":
        rows: Iterable[Mapping[str, Any]] = map(json.loads, text.splitlines())
    else:
        csv.field_size_limit(sys.maxsize)  # the list of a job's input files is one field
        rows = csv.DictReader(text.split("\n"), delimiter="\t", quoting=csv.QUOTE_NONE)
    for row in rows:
        resources = row["resources"]
        if isinstance(resources, str):
            resources = ast.literal_eval(resources)
        yield Finished(
            rule=row["rule_name"],
            threads=int(row["threads"]),
            gpus=reserved_gpus(resources),
            seconds=float(row["s"]),
            expected_s=_number(resources.get("expected_s")),
            partial=file.with_name(f"{file.name}{PARTIAL}").exists(),
        )


def _number(value: Any, factor: float = 1) -> float | None:
    """Return a resource as a number; None if it has none, or none before the job starts."""
    try:
        return float(value) * factor
    except (TypeError, ValueError):
        return None
