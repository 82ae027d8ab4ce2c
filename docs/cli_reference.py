"""Write docs/cli.md, the reference of the commands, from the command line itself."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from pacbed.cli.app import COMMANDS, application

ROOT = Path(__file__).resolve().parents[1]

INTRODUCTION = """\
# Commands

Reference of the `pacbed` command, made from the command line by `make docs`; `pacbed COMMAND
--help` prints the same. The workflow itself is run by `snakemake` ([tutorial](tutorial.md)); its
keys are in [config/README.md](../config/README.md).

The exit status tells what came of it (table). Nothing is written under its final
name before it is whole. `pacbed --version` prints the version.

| status | meaning |
| --- | --- |
| 0 | done |
| 1 | an error, which is reported in one message |
| 2 | the command line is wrong, or empty |
| 3 | a plan is over a limit |
| 130 | stopped by Ctrl-C |

Every command takes `--quiet`, which leaves only warnings and errors on stderr (results are still
printed on stdout), and `--verbose`, which shows where an error arose. In a log, progress is a line
now and then.

`pacbed --install-completion`, once, lets bash, zsh or fish complete commands, options and names of
files with the tab key.
"""

EXAMPLES = {
    "simulate": "pacbed simulate --semiangle 6.35 18.13 --tilt 3 -2 --phonons 2 "
    "--output mos2.zarr.zip",
    "scatter": "pacbed scatter --output mos2.series.zarr.zip --layers 10 --semiangle 18.13",
    "read": "pacbed read measured.npy --series mos2.series.zarr.zip --semiangle 6.35 --layers 1-10 "
    "--figure a.png",
    "map": "pacbed map ripple.hspy --material MoS2 --layers 1-6 --not-mirrored "
    "--output map.zarr.zip",
    "scan": "pacbed scan --example ripple --output ripple.hspy",
    "inspect": "pacbed inspect scan.dm4 --semiangle 6.35 --not-mirrored --figure scan.png",
    "view": "pacbed view map.zarr.zip",
    "export": "pacbed export map.zarr.zip map.pdf map.html map.hspy",
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
    "simulate": "[Engines](engines.md)",
    "scatter": "[Scattering series](series.md)",
    "read": "[Reading measured patterns](read.md)",
    "map": "[Scans](scans.md#how-a-map-is-made)",
    "scan": "[Scans](scans.md#the-example-scan)",
    "inspect": "[Scans](scans.md#files)",
    "view": "[Look at a map](view.md)",
    "export": "[Look at a map](view.md#in-other-programs)",
    "converge": "[Convergence](accuracy.md#convergence)",
    "train": "[Training](training.md#one-network-without-snakemake)",
    "evaluate": "[Training](training.md#one-network-without-snakemake)",
    "design": "[The bound](bound.md)",
    "plan": "[On a cluster](cluster.md)",
}


def reference() -> str:
    """Return the text of docs/cli.md."""
    made = application(COMMANDS).generate_docs(output_format="markdown")
    sections = re.split(r"^## pacbed (\S+)\n", made, flags=re.M)[1:]
    pairs = zip(sections[::2], sections[1::2], strict=True)
    return INTRODUCTION + "".join(_section(name, text) for name, text in pairs if name in COMMANDS)


def _section(name: str, text: str) -> str:
    """Return what cyclopts writes about a command, with an example and in lines that fit."""
    text = re.sub(r"^```console\n(.*?)```\n", "", text, flags=re.M | re.S)  # a long usage line
    text = re.sub(r"\n {4,}", " ", text).replace("``", "`")
    text = re.sub(r"\*\[(default|choices): (.*?)\]\*", r"[\1: \2]", text)
    example = f"```sh\n{EXAMPLES[name]}\n```" + (f"\n\nSee {MORE[name]}." if name in MORE else "")
    before, found, after = text.strip().partition("\n\n**")
    lines = f"## pacbed {name}\n\n{before}\n\n{example}{found}{after}".splitlines()
    return "\n" + "\n".join(line for long in lines for line in _wrapped(long)) + "\n"


def _wrapped(line: str) -> list[str]:
    indent = "  " if line.startswith("* ") else ""
    options = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.wrap(line, 116, subsequent_indent=indent, **options) or [""]


if __name__ == "__main__":
    (ROOT / "docs/cli.md").write_text(reference(), encoding="utf-8")
