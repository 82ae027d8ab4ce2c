"""What a machine has of what the parts of the work need, and how to get the rest."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy
import scipy

from pacbed.engines.arrays import arrays
from pacbed.exceptions import PacbedError
from pacbed.machine import memory_limit_bytes, usable_cores

ANSWER_s = 10.0
# What Prismatic writes of all probes in the paper's protocol.
SCRATCH_GB = 64
OLDEST = {"snakemake": "9.21", "snakemake-executor-plugin-slurm": "2.8", "conda": "24.7.1"}
State = Literal["ok", "limited", "missing"]
CHECKOUT = "in the folder of this repository"
WORKFLOW = f"{CHECKOUT}: pip install -e src/snakemake_logger_plugin_budget -e '.[workflow]'"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Parameters
    ----------
    part
        Part of the work that needs it.
    state
        ``limited``: enough for some of the work.
    found
        What there is.
    advice
        What is missing for what, and how to get it; empty where all is well.
    """

    part: str
    state: State
    found: str
    advice: str = ""


def examine(prismatic_python: str | None = None) -> list[Finding]:
    """Look for what every part of the work needs.

    Parameters
    ----------
    prismatic_python
        Interpreter that has pyprismatic; that of this process if not given.
    """
    gpus = _gpus()
    return [
        *_machine(),
        *_plane_waves(gpus),
        _prismatic(prismatic_python, gpus),
        *_learning(gpus),
        *_workflow(),
        *_slurm(),
        _git(),
    ]


def _finding(part: str, found: str, advice: str, state: State) -> Finding:
    """Return a finding, with advice unless all is well."""
    return Finding(part, state, found, "" if state == "ok" else advice)


def _machine() -> Iterator[Finding]:
    memory = memory_limit_bytes() / 1e9
    yield Finding("machine", "ok", f"{usable_cores()} cores, {memory:.1f} GB of memory")
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free / 1e9
    found = f"{free:.0f} GB free for scratch files in {folder}"
    advice = (
        f"Prismatic writes {SCRATCH_GB} GB in the paper's protocol, in portions where there is "
        "less: set TMPDIR to a folder on a larger local disk"
    )
    yield _finding("machine", found, advice, "ok" if free >= SCRATCH_GB else "limited")


def _plane_waves(gpus: Sequence[str]) -> Iterator[Finding]:
    part = "plane-wave engine"
    yield Finding(part, "ok", f"NumPy {numpy.__version__}, SciPy {scipy.__version__}")
    try:
        arrays("gpu")
        yield Finding(part, "ok", f"CuPy; {_listed(gpus)}")
    except PacbedError as error:
        state: State = "missing" if gpus else "limited"
        yield Finding(part, state, f"CPU only; {_listed(gpus)}", str(error))


def _prismatic(python: str | None, gpus: Sequence[str]) -> Finding:
    from pacbed.engines.prismatic.process import installation

    part = "Prismatic engine"
    try:
        found = installation(python)
    except PacbedError as error:
        return Finding(part, "missing", "no Prismatic 2.0", str(error))
    for_what = "GPUs" if found.gpu else "CPUs only"
    text = f"pyprismatic {found.version} for {for_what}, of {found.python}"
    advice = "to use the GPU: conda install -c conda-forge 'pyprismatic=2.0=gpu*'"
    return _finding(part, text, advice, "limited" if gpus and not found.gpu else "ok")


def _learning(gpus: Sequence[str]) -> Iterator[Finding]:
    part, backend, keras = "learning", _keras_backend(), _version("keras")
    # TensorFlow goes by two names.
    names = [n for n in (backend, f"{backend}-cpu") if _version(n)]
    found = f"Keras {keras}" if keras else "no Keras"
    found += (
        f", backend {names[0]} {_version(names[0])}" if names else f", no {backend}, its backend"
    )
    install = f"{CHECKOUT}: pip install -e '.[{'gpu' if gpus else 'cpu'}]'"
    state: State = "ok" if keras and names else "missing"
    yield _finding(part, found, f"to train networks, {install}", state)
    if not gpus:
        advice = "enough for the demo; to train the networks of the paper, find a node with a GPU"
        yield Finding(part, "limited", _listed(gpus), advice)
    elif names == ["tensorflow-cpu"]:
        advice = f"to train on a GPU: pip uninstall tensorflow-cpu; then {install}"
        yield Finding(part, "limited", f"TensorFlow for CPUs only; {_listed(gpus)}", advice)
    else:
        yield Finding(part, "ok", _listed(gpus))


def _keras_backend() -> str:
    """Return the backend that Keras would load, looked up as Keras does."""
    if name := os.environ.get("KERAS_BACKEND"):
        return name
    folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    with suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads((folder / "keras.json").read_text())["backend"])
    return "tensorflow"


def _workflow() -> Iterator[Finding]:
    part = "workflow"
    for package in (
        "snakemake",
        "snakemake-logger-plugin-budget",
        "snakemake-executor-plugin-slurm",
    ):
        yield _program(part, package, _version(package), f"to run the workflow, {WORKFLOW}")
    conda = _number(_answer("conda", "--version"))
    advice = "for --sdm conda, environments made by Snakemake: install Miniforge"
    others = [name for name in ("mamba", "micromamba") if shutil.which(name)]
    if others and not conda:
        advice = f"Snakemake calls conda itself, for --sdm conda: {others[0]} install conda"
        yield Finding(part, "limited", f"{' and '.join(others)}, no conda", advice)
    else:
        yield _program(part, "conda", conda, advice)


def _slurm() -> Iterator[Finding]:
    part = "SLURM"
    there = [name for name in ("sbatch", "squeue", "sacct") if shutil.which(name)]
    advice = "to run on a cluster, by --executor slurm: log in where its jobs are submitted"
    if not there:
        yield Finding(part, "missing", "no sbatch, squeue or sacct", advice)
        return
    found = ", ".join(there) if len(there) == 3 else f"only {' and '.join(there)}"
    yield _finding(part, found, advice, "ok" if len(there) == 3 else "limited")
    lines = (_answer("sinfo", "-h", "-o", "%P %c %m %l %G") or "").splitlines()
    rows = dict.fromkeys(tuple(row) for line in lines if len(row := line.split()) == 5)
    text = [f"{p}: {c} cores, {m} MB, at most {t}, {g}" for p, c, m, t, g in rows]
    found = "\n".join(text) or f"sinfo listed none within {ANSWER_s:g} s"
    advice = "for the partitions in a profile: ask those who run the cluster"
    yield _finding(part, found, advice, "ok" if text else "limited")


def _git() -> Finding:
    advice = "to record in results what code made them: apt-get install git, or module load git"
    return _program("git", "git", _number(_answer("git", "--version")), advice)


def _program(part: str, name: str, version: str | None, advice: str) -> Finding:
    """Return the finding about a program of some version, or None of it."""
    if version is None:
        return Finding(part, "missing", f"no {name}", advice)
    oldest = OLDEST.get(name, "0")
    if _parts(version) < _parts(oldest):
        return Finding(part, "limited", f"{name} {version}, older than {oldest}", advice)
    return Finding(part, "ok", f"{name} {version}")


def _gpus() -> list[str]:
    listed = _answer("nvidia-smi", "-L") or ""
    return re.findall(r"^GPU \d+: (.+?) \(UUID", listed, re.MULTILINE)


def _listed(gpus: Sequence[str]) -> str:
    """Return as a text what cards the driver lists."""
    return ", ".join(f"{n} × {name}" for name, n in Counter(gpus).items()) or "no GPU visible"


def _version(package: str) -> str | None:
    """Return the version of a package of this Python, without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _answer(*command: str) -> str | None:
    """Return what a program prints; None if it is not there, fails or keeps one waiting."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            timeout=ANSWER_s,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _number(answer: str | None) -> str | None:
    found = re.search(r"\d+(\.\d+)+", answer or "")
    return found[0] if found else None


def _parts(version: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", version)[:3]]
