"""What a run will cost: a dry run of Snakemake with its budget plugin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pacbed.exceptions import PacbedError
from pacbed.runs import snakemake_adapter as adapter
from pacbed.runs.slurm import JobRequest, check_requests

# In a dry run Snakemake shows no rule with more threads than this, by default one.
UNLIMITED_CORES = 1_000_000
OVER_LIMIT_STATUS = 3


def plan(
    profile: Path,
    overlays: Sequence[Path] = (),
    snakefile: Path = Path("Snakefile"),
    directory: Path | None = None,
    limits: Mapping[str, float | None] = {},
) -> tuple[str, dict[str, Any]]:
    """Plan a run.

    Parameters
    ----------
    profile
        Folder of the profile with which it is going to run.
    overlays
        Configurations to lay over the default one.
    snakefile
        The workflow.
    directory
        Where it is going to run; the current folder if not given.
    limits
        What it may cost, by the names of options of the budget plugin (``core-hours``); None for
        any amount.

    Returns
    -------
    str
        The budget, as a table; empty if there is nothing to do.
    dict
        The same as plain values (:func:`snakemake_logger_plugin_budget.text.budget_json`); its key
        ``exceeded`` has a line for each limit that is exceeded.

    Raises
    ------
    PacbedError
        If the workflow cannot be planned, or SLURM's plugin would refuse its jobs.
    """
    if not snakefile.is_file():
        raise PacbedError(
            f"there is no {snakefile}: run this in the folder of the workflow, or name its "
            "Snakefile by --snakefile"
        )
    for path in overlays:
        if not path.is_file():
            raise PacbedError(f"--config {path}: there is no such file")
    with tempfile.TemporaryDirectory(prefix="pacbed-plan-") as folder:
        table, result = Path(folder) / "budget.txt", Path(folder) / "budget.json"
        arguments = [
            *("--dry-run", "--quiet", "rules"),
            *("--snakefile", str(snakefile), "--profile", str(profile)),
            *(["--directory", str(directory)] if directory else []),
            *(["--configfile", *(str(p.resolve()) for p in overlays)] if overlays else []),
            *("--logger", "budget", f"--logger-budget-json={result}"),
            f"--logger-budget-text={table}",
            *(f"--logger-budget-max-{k}={n}" for k, n in limits.items() if n is not None),
        ]
        given = adapter.options(arguments)
        jobs, cores = adapter.at_a_time(given)
        arguments += [f"--logger-budget-jobs={jobs}"] if jobs else []
        arguments += [f"--logger-budget-cores={cores}"] if cores else []
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", *arguments, f"--cores={cores or UNLIMITED_CORES}"],
            # Less what would choose another profile or folder.
            env={k: v for k, v in os.environ.items() if not k.startswith("SNAKEMAKE")},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in (0, OVER_LIMIT_STATUS) or not result.is_file():
            said = _complaint(done.stderr + done.stdout)
            raise PacbedError(f"Snakemake cannot plan this run:\n{said}")
        text = table.read_text(encoding="utf-8").strip("\n") if table.is_file() else ""
        budget = json.loads(result.read_text(encoding="utf-8"))
    if given.executor == adapter.SLURM:
        rules = [rule for rule in budget["rules"] if rule["to_run"]]
        check_requests(JobRequest(r["rule"], r["threads"][1], r["requests"]) for r in rules)
    return text, budget


def _complaint(text: str) -> str:
    """Return the end of what Snakemake says, where it says what is wrong."""
    lines = text.strip().splitlines()
    start = next((n for n, line in enumerate(lines) if "Error" in line or "xception" in line), -20)
    return "\n".join(lines[start:][:40])
