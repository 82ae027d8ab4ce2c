"""``pacbed plan`` and ``doctor``: what a run will cost, and what this machine has for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.table import Table
from rich.text import Text

from pacbed.cli.common import busy, say, show_table
from pacbed.exceptions import BudgetExceeded, PacbedError

_COLOURS = {"ok": "green", "limited": "yellow", "missing": "red"}
Amount = Annotated[float | None, Parameter(validator=Number(gte=0))]


def plan(
    *,
    profile: Path = Path("profiles/slurm"),
    config: tuple[Path, ...] = (),
    max_core_hours: Amount = None,
    max_gpu_hours: Amount = None,
    max_storage_TB: Amount = None,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
    snakefile: Path = Path("Snakefile"),
    directory: Annotated[Path | None, Parameter(show_default="here")] = None,
) -> None:
    """Estimate what a run of the workflow will cost.

    Print what remains to be done: jobs, core-hours, GPU-hours, storage and wall-clock time, at
    most and likely. Nothing is run or submitted. If the likely figures are over a limit, the
    exit status is 3.

    Parameters
    ----------
    profile
        Folder of the profile with which it is going to run.
    config
        Overlays of config/config.yaml, as for snakemake --configfile; the last one wins.
    max_core_hours
        How many core-hours are likely to be used.
    max_gpu_hours
        How many GPU-hours are likely to be used.
    max_storage_TB
        How much may be written, in TB.
    json_file
        Also write the budget to this file, as JSON.
    snakefile
        The workflow.
    directory
        Folder where it is going to run.
    """
    from pacbed.runs.budget import plan as planned
    from pacbed.storage.files import check_apart, check_writable, write_text

    check_apart([json_file], [*config, snakefile])
    check_writable(json_file)
    with busy("planning"):
        limits = {
            "core-hours": max_core_hours,
            "gpu-hours": max_gpu_hours,
            "storage-tb": max_storage_TB,
        }
        table, budget = planned(profile, config, snakefile, directory, limits)
    print(f"{table}\nPlanned for {profile}; see --profile." if table else "Nothing to be done.")
    if json_file:
        write_text(json_file, json.dumps(budget, indent=2) + "\n")
    _warn_of_other_results(snakefile, config, directory or Path())
    if budget["exceeded"]:
        raise BudgetExceeded("over the limit: " + "; ".join(budget["exceeded"]))


def _warn_of_other_results(snakefile: Path, overlays: Sequence[Path], directory: Path) -> None:
    """Warn if a run would refuse the folder of results."""
    from pacbed.runs.results_folder import check_results
    from pacbed.study.configuration import load

    # The main file is at the top, or in the folder of the workflow.
    defaults = [folder / "config/config.yaml" for folder in snakefile.resolve().parents[:2]]
    if not (found := [path for path in defaults if path.is_file()]):
        return  # another workflow
    try:
        config = load([found[0], *overlays])
    except PacbedError:
        return  # of another workflow, with keys of its own, that has this one as a module
    try:
        check_results(directory / config.results, config)
    except PacbedError as error:
        say(f"warning: this run would not start: {error}")


def doctor(
    *, prismatic_python: Annotated[str | None, Parameter(show_default="that of pacbed")] = None
) -> None:
    """Find out what this machine has and what is missing.

    Look for what each part of the work needs, and print how to get what is missing.

    Parameters
    ----------
    prismatic_python
        Interpreter that has pyprismatic.
    """
    from pacbed.runs.doctor import examine

    table = Table(title="What this machine has")
    for column in ("part", "state", "found", "what to do"):
        table.add_column(column, overflow="fold")
    with busy("looking"):
        findings = examine(prismatic_python)
    part = ""
    for one in findings:
        if part and one.part != part:
            table.add_section()
        # As text: in names such as tensorflow[and-cuda] the brackets are no markup.
        cells = [Text(t) for t in ("" if one.part == part else one.part, one.found, one.advice)]
        table.add_row(cells[0], Text(one.state, _COLOURS[one.state]), *cells[1:])
        part = one.part
    show_table(table, 170)
