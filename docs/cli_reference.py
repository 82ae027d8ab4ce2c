"""Write docs/cli.md, the reference of the commands, from the parser of the command line."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from pacbed.cli.main import HelpFormatter, _parser
from pacbed.machine import usable_cores

ROOT = Path(__file__).resolve().parents[1]

INTRODUCTION = """\
# Commands

Reference of the `pacbed` command, made from its parser by `make docs`; `pacbed COMMAND --help` says
the same. The workflow itself is run by `snakemake` ([tutorial](tutorial.md)); its keys are in
[config/README.md](../config/README.md).

The exit status is 0, or 1 after an error, which is said in one message, 2 if the command line is
wrong, 3 if a plan is over a limit, and 130 after Ctrl-C. Nothing is written under its final name
before it is whole. `pacbed --version` prints the version.
"""

EXAMPLES = {
    "simulate": "pacbed simulate --semiangle 6.35 18.13 --tilt 3 -2 --phonons 2 "
    "--output mos2.zarr.zip",
    "show": "pacbed show mos2.zarr.zip --layers 1 10 20",
    "compare": "pacbed compare a.zarr.zip b.zarr.zip --output compare.pdf",
    "converge": "pacbed converge --semiangle 6.35 --layers 5 --supercell 4 3",
    "network": "pacbed network --config config/demo.yaml",
    "train": "pacbed train --config config/demo.yaml --semiangle 6.35 --layers 5 "
    "--output my-network",
    "evaluate": "pacbed evaluate my-network results/demo/datasets/6.35mrad/5layers/test.zarr.zip",
    "errors": "pacbed errors results/demo/tables/errors.csv",
    "design": "pacbed design --precision 0.05% --probe 0.3nm "
    "--bounds results/demo/tables/bounds.parquet",
    "plan": "pacbed plan --profile profiles/slurm --config my-study.yaml --max-core-hours 50000",
    "doctor": "pacbed doctor",
}

MORE = {
    "simulate": "[Engines and their accuracy](engines.md)",
    "converge": "[Convergence](engines.md#convergence)",
    "train": "[Training](training.md#one-network-without-snakemake)",
    "evaluate": "[Training](training.md#one-network-without-snakemake)",
    "design": "[The bound](bound.md)",
    "plan": "[On a cluster](cluster.md)",
}


def commands() -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the commands, by name."""
    [found] = [a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(found.choices)


def reference() -> str:
    """Return the text of docs/cli.md."""
    return "\n".join([INTRODUCTION, *(_section(name, one) for name, one in commands().items())])


def _section(name: str, parser: argparse.ArgumentParser) -> str:
    lines = [f"## pacbed {name}", "", " ".join((parser.description or "").split()), ""]
    lines += ["```sh", EXAMPLES[name], "```", ""]
    if name in MORE:
        lines += [f"See {MORE[name]}.", ""]
    for group in parser._action_groups:
        actions = [a for a in group._group_actions if not isinstance(a, argparse._HelpAction)]
        if not actions:
            continue
        if group.title not in ("positional arguments", "options"):
            lines += [f"{group.title}:".capitalize(), ""]
        lines += ["| | |", "| --- | --- |"]
        lines += [f"| {_name(action)} | {_help(action)} |" for action in actions]
        lines.append("")
    return "\n".join(lines)


def _name(action: argparse.Action) -> str:
    formatter = HelpFormatter("pacbed")
    metavar = action.dest if not action.option_strings else action.dest.upper()
    values = "" if action.nargs == 0 else formatter._format_args(action, metavar)
    if action.choices is not None:
        values = ", ".join(map(str, action.choices))
    names = ", ".join(f"`{name}`" for name in action.option_strings)
    return f"{names} {values}".strip() + (" (required)" if names and action.required else "")


def _help(action: argparse.Action) -> str:
    text = " ".join(HelpFormatter("pacbed")._expand_help(action).split())
    if action.dest == "threads":  # whatever machine wrote this
        text = text.replace(f"(default: {usable_cores()})", "(default: all usable cores)")
    if isinstance(action.default, list | tuple):
        values = " ".join(map(str, action.default))
        default = f" (default: {values})" if values else ""
        text = text.replace(f" (default: {action.default})", default)
    text = re.sub(r"( \(default: True\))+$", " (default: True)", text)
    return text.replace("|", "\\|")


if __name__ == "__main__":
    (ROOT / "docs/cli.md").write_text(reference(), encoding="utf-8")
