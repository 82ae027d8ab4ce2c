"""What a run will cost, found out by planning it: a dry run of Snakemake with its budget plugin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacbed.exceptions import PacbedError
from pacbed.machine import usable_cores

# In a dry run Snakemake shows no rule with more threads than this, by default one.
UNLIMITED_CORES = 1_000_000


@dataclass(frozen=True)
class Limits:
    """What a run may cost; None for any amount.

    Parameters
    ----------
    core_hours, gpu_hours
        Of computing.
    storage_TB
        Of files to be written, in TB.
    """

    core_hours: float | None = None
    gpu_hours: float | None = None
    storage_TB: float | None = None

    def exceeded(self, budget: Mapping[str, Any]) -> Iterator[str]:
        """Yield a line for everything of which a budget has more.

        Where nothing is known of how long the jobs of a rule take, their time limit counts.
        """
        for what, name, limit in (
            ("core-hours", "core_hours", self.core_hours),
            ("GPU-hours", "gpu_hours", self.gpu_hours),
        ):
            needed = sum(_likely(rule, name) for rule in budget["rules"])
            if limit is not None and needed > limit:
                yield f"{needed:,.4g} {what}, of which there may be {limit:,g}"
        stored = budget["total"]["output_MB"] / 1e6
        if self.storage_TB is not None and stored > self.storage_TB:
            yield f"{stored:,.3g} TB of storage, of which there may be {self.storage_TB:,g} TB"


def _likely(rule: Mapping[str, Any], name: str) -> float:
    estimate = rule["estimate"][name]
    return float(estimate["likely"] if estimate else rule["ceiling"][name] or 0.0)


def plan(
    profile: Path,
    overlays: Sequence[Path] = (),
    snakefile: Path = Path("Snakefile"),
    directory: Path | None = None,
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

    Returns
    -------
    str
        The budget, as a table.
    dict
        The same as plain values (:func:`snakemake_logger_plugin_budget.text.budget_json`).

    Raises
    ------
    PacbedError
        If the workflow cannot be planned.
    """
    if not snakefile.is_file():
        raise PacbedError(
            f"there is no {snakefile}: run this in the folder of the workflow, or name its "
            "Snakefile by --snakefile"
        )
    settings = _read_profile(profile)
    with tempfile.TemporaryDirectory(prefix="pacbed-plan-") as folder:
        table, result = Path(folder) / "budget.txt", Path(folder) / "budget.json"
        command = [
            *(sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "rules"),
            *("--snakefile", str(snakefile), "--profile", str(profile)),
            *(["--directory", str(directory)] if directory else []),
            *(["--configfile", *(str(p.resolve()) for p in overlays)] if overlays else []),
            *("--logger", "budget", "--logger-budget-json", str(result)),
            *("--logger-budget-text", str(table)),
            *_at_a_time(settings),
        ]
        done = subprocess.run(
            command,
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not result.is_file():
            said = _complaint(done.stderr + done.stdout)
            raise PacbedError(f"Snakemake cannot plan this run:\n{said}")
        # Without anything to do there is no table.
        text = table.read_text(encoding="utf-8").strip("\n") if table.is_file() else ""
        return text, json.loads(result.read_text(encoding="utf-8"))


def _read_profile(profile: Path) -> dict[str, Any]:
    try:
        import yte  # by which Snakemake reads profiles
    except ImportError as error:
        raise PacbedError(
            "Snakemake is not installed: in the folder of the repository, pip install "
            "-e '.[workflow]'"
        ) from error
    # Snakemake prefers a file for its own version.
    files = [*sorted(profile.glob("config.v*+.yaml"), reverse=True), profile / "config.yaml"]
    try:
        with files[0].open(encoding="utf-8") as file:
            settings = yte.process_yaml(file, require_use_yte=True)
    except OSError as error:
        raise PacbedError(f"cannot read the profile {files[0]}: {error.strerror}") from error
    except Exception as error:  # of YAML or of the expressions in it
        raise PacbedError(f"{files[0]} is not a profile: {error}") from error
    if not isinstance(settings, dict):
        raise PacbedError(f"{files[0]} must be a mapping of keys to values")
    return settings


def _at_a_time(profile: Mapping[str, Any]) -> list[str]:
    """Return how many jobs or cores are going to be in use at a time, as options."""
    jobs, cores = profile.get("jobs"), profile.get("cores")
    if (profile.get("executor") or "local") != "local":
        limited = ["--logger-budget-jobs", str(jobs)] if isinstance(jobs, int) else []
        return ["--cores", str(UNLIMITED_CORES), *limited]
    numbers = [n for n in (cores, jobs) if isinstance(n, int)]
    number = str(numbers[0] if numbers else usable_cores())
    return ["--cores", number, "--logger-budget-cores", number]


def _environment() -> dict[str, str]:
    """Return the environment, less what would choose another profile or folder."""
    return {k: v for k, v in os.environ.items() if not k.startswith("SNAKEMAKE")}


def _complaint(text: str) -> str:
    """Return the end of what Snakemake says, where it says what is wrong."""
    lines = text.strip().splitlines()
    start = next((n for n, line in enumerate(lines) if "Error" in line or "xception" in line), -20)
    return "\n".join(lines[start:][:40])
