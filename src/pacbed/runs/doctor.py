"""What a machine has of what the parts of the work need, and how to get the rest."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy
import scipy

from pacbed.engines.arrays import arrays
from pacbed.exceptions import PacbedError
from pacbed.machine import memory_limit_bytes, usable_cores

ANSWER_s = 10.0
SCRATCH_GB = 64  # that Prismatic writes of all probes in the paper's protocol
State = Literal["ok", "limited", "missing"]
HERE = "in the folder of this repository: pip install"
# Packages, and the oldest version of each.
OF_WORKFLOW = {
    "pyarrow": "15",
    "snakemake": "9.21",
    "snakemake-logger-plugin-budget": "0",
    "snakemake-executor-plugin-slurm": "2.8",
}
OF_READING = {"rosettasciio": "0.8", "dask": "2024.12", "bokeh": "3.6"}
OF_SLURM = ("sbatch", "squeue", "sacct")
GIT = "to record in results what code made them: apt-get install git, or module load git"
CONDA = (
    "for --sdm conda, environments made by Snakemake: install Miniforge (with mamba: mamba "
    "install conda)"
)
NO_GPU = "no GPU visible"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for."""

    part: str  # of the work, that needs it
    state: State  # limited: enough for some of the work
    found: str
    advice: str = ""  # what is missing for what, and how to get it; empty where all is well


def examine(prismatic_python: str | None = None) -> list[Finding]:
    """Look for what every part of the work needs.

    Parameters
    ----------
    prismatic_python
        Interpreter that has pyprismatic; that of this process if not given.
    """
    cards = re.findall(r"^GPU \d+: (.+?) \(UUID", _answer("nvidia-smi", "-L"), re.MULTILINE)
    gpus = ", ".join(f"{n} × {name}" for name, n in Counter(cards).items())
    findings = [
        *_machine(),
        *_plane_waves(gpus),
        _prismatic(prismatic_python, gpus),
        *_learning(gpus),
        *_reading(),
        *_workflow(),
        *_slurm(),
        _program("git", "git", "0", GIT),
    ]
    return [replace(one, advice="") if one.state == "ok" else one for one in findings]


def _machine() -> Iterator[Finding]:
    memory = memory_limit_bytes() / 1e9
    yield Finding("machine", "ok", f"{usable_cores()} cores, {memory:.1f} GB of memory")
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free / 1e9
    yield Finding(
        "machine",
        "ok" if free >= SCRATCH_GB else "limited",
        f"{free:.0f} GB free for scratch files in {folder}",
        f"Prismatic writes {SCRATCH_GB} GB in the paper's protocol, in portions where there is "
        "less: set TMPDIR to a folder on a larger local disk",
    )


def _plane_waves(gpus: str) -> Iterator[Finding]:
    part = "plane-wave engine"
    yield Finding(part, "ok", f"NumPy {numpy.__version__}, SciPy {scipy.__version__}")
    try:
        arrays("gpu")
        yield Finding(part, "ok", f"CuPy; {gpus or NO_GPU}")
    except PacbedError as error:
        state: State = "missing" if gpus else "limited"
        yield Finding(part, state, f"CPU only; {gpus or NO_GPU}", str(error))


def _prismatic(python: str | None, gpus: str) -> Finding:
    from pacbed.engines.prismatic.process import installation

    part = "Prismatic engine"
    try:
        found = installation(python)
    except PacbedError as error:
        return Finding(part, "missing", "no Prismatic 2.0", str(error))
    for_what = "GPUs" if found.gpu else "CPUs only"
    return Finding(
        part,
        "limited" if gpus and not found.gpu else "ok",
        f"pyprismatic {found.version} for {for_what}, of {found.python}",
        "to use the GPU: conda install -c conda-forge 'pyprismatic=2.0=gpu*'",
    )


def _learning(gpus: str) -> Iterator[Finding]:
    part, backend, keras = "learning", _keras_backend(), _version("keras")
    # TensorFlow goes by two names.
    names = [name for name in (backend, f"{backend}-cpu") if _version(name)]
    found = f"Keras {keras}" if keras else "no Keras"
    found += f", backend {names[0]} {_version(names[0])}" if names else f", no {backend}"
    install = f"{HERE} -e '.[{'gpu' if gpus else 'learning'}]'"
    state: State = "ok" if keras and names else "missing"
    yield Finding(part, state, found, f"to train networks, {install}")
    if not gpus:
        advice = "enough for the demo; to train the networks of the paper, find a node with a GPU"
        yield Finding(part, "limited", NO_GPU, advice)
    elif names == ["tensorflow-cpu"]:
        advice = f"to train on a GPU: pip uninstall tensorflow-cpu; then {install}"
        yield Finding(part, "limited", f"TensorFlow for CPUs only; {gpus}", advice)
    else:
        yield Finding(part, "ok", gpus)


def _keras_backend() -> str:
    """Return the backend that Keras would load, looked up as Keras does."""
    if name := os.environ.get("KERAS_BACKEND"):
        return name
    folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    with suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads((folder / "keras.json").read_text())["backend"])
    return "tensorflow"


def _reading() -> Iterator[Finding]:
    advice = f"for files of microscopes, and maps in the browser, {HERE} -e '.[reading]'"
    for package, oldest in OF_READING.items():
        yield _judged("reading", package, _version(package), oldest, advice)


def _workflow() -> Iterator[Finding]:
    advice = f"to run the workflow, {HERE} -e src/snakemake_logger_plugin_budget -e '.[workflow]'"
    for package, oldest in OF_WORKFLOW.items():
        yield _judged("workflow", package, _version(package), oldest, advice)
    yield _program("workflow", "conda", "24.7.1", CONDA)


def _slurm() -> Iterator[Finding]:
    part, absent = "SLURM", [name for name in OF_SLURM if not shutil.which(name)]
    yield Finding(
        part,
        "missing" if absent else "ok",
        f"no {', '.join(absent)}" if absent else ", ".join(OF_SLURM),
        "to run on a cluster, by --executor slurm: log in where its jobs are submitted",
    )
    if not shutil.which("sinfo"):
        return
    lines = _answer("sinfo", "-h", "-o", "%P %c %m %l %G").splitlines()
    rows = dict.fromkeys(tuple(row) for line in lines if len(row := line.split()) == 5)
    text = [f"{p}: {c} cores, {m} MB, at most {t}, {g}" for p, c, m, t, g in rows]
    yield Finding(
        part,
        "ok" if text else "limited",
        "\n".join(text) or f"sinfo listed none within {ANSWER_s:g} s",
        "for the partitions in a profile: ask those who run the cluster",
    )


def _program(part: str, name: str, oldest: str, advice: str) -> Finding:
    number = re.search(r"\d+(\.\d+)+", _answer(name, "--version"))
    return _judged(part, name, number and number[0], oldest, advice)


def _judged(part: str, name: str, version: str | None, oldest: str, advice: str) -> Finding:
    if version is None:
        return Finding(part, "missing", f"no {name}", advice)
    if _parts(version) < _parts(oldest):
        return Finding(part, "limited", f"{name} {version}, older than {oldest}", advice)
    return Finding(part, "ok", f"{name} {version}")


def _parts(version: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", version)[:3]]


def _version(package: str) -> str | None:
    """Return the version of a package of this Python, without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _answer(*command: str) -> str:
    """Return what a program prints; nothing if it is not there, fails or keeps one waiting."""
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
        return ""
