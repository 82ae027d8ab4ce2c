"""Run the workflow in a folder of its own, as small as it can be."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from pacbed.study.configuration import load
from pacbed.study.model import Configuration

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config" / "config.yaml"
# With Snakemake's messages of every job, instead of progress.
LOCAL = ("--profile", str(ROOT / "profiles" / "local"), "--printshellcmds")

TINY = yaml.safe_load((ROOT / ".test/config/config.yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Outcome:
    """How a call of Snakemake ended and what it said."""

    status: int
    text: str

    @property
    def jobs(self) -> dict[str, int]:
        """Number of jobs of every rule that were planned, from the table of job statistics."""
        table = self.text.partition("Job stats:")[2].partition("\n\n")[0]
        counts = {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}
        assert counts.pop("total", 0) == sum(counts.values())
        return counts

    @property
    def nothing_to_do(self) -> bool:
        """Whether Snakemake found everything done."""
        return self.status == 0 and "Nothing to be done" in self.text


@dataclass(frozen=True)
class Workspace:
    """A folder in which the workflow runs, with the tiny configuration or another."""

    folder: Path

    def run(self, *targets: str, cores: int = 2, change: dict | None = None) -> Outcome:
        """Run the workflow with the local profile, as a user does."""
        return self.snakemake(*LOCAL, "--cores", str(cores), *targets, change=change)

    def plan(self, *arguments: str, change: dict | None = None) -> Outcome:
        """Find out what would be done after a change of the configuration."""
        return self.snakemake("--dry-run", *arguments, change=change)

    def config(self) -> Configuration:
        """The configuration."""
        return load([self.folder / "tiny.yaml"])

    def snakemake(self, *arguments: str, change: dict | None = None, tiny: bool = True) -> Outcome:
        """Call Snakemake and wait for its end."""
        done = self.start(*arguments, change=change, tiny=tiny)
        text, _ = done.communicate(timeout=1800)
        return Outcome(done.returncode, text)

    def start(
        self,
        *arguments: str,
        change: dict | None = None,
        tiny: bool = True,
        environment: dict[str, str] | None = None,
        program: tuple[str, ...] = ("-m", "snakemake"),
    ) -> subprocess.Popen:
        """Call Snakemake."""
        overlays = ["tiny.yaml"] if tiny else []
        if change:
            (self.folder / "change.yaml").write_text(yaml.safe_dump(change))
            overlays.append("change.yaml")
        clean = {k: v for k, v in os.environ.items() if not k.startswith("SNAKEMAKE")}
        return subprocess.Popen(
            [
                *(sys.executable, *program),
                *("--snakefile", str(ROOT / "Snakefile")),
                *("--directory", str(self.folder)),
                *arguments,
                *(["--configfile", *overlays] if overlays else []),
            ],
            cwd=self.folder,
            env={**clean, "TF_CPP_MIN_LOG_LEVEL": "3", **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A shell lets what it runs in the background ignore Ctrl-C, and this would inherit it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def new_workspace(folder: Path) -> Workspace:
    folder.mkdir()
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return Workspace(folder)
