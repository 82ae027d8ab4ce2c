"""The doctor: what a machine has, what is missing, and what to do about it."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from pacbed.cli import main
from pacbed.engines.prismatic import process
from pacbed.exceptions import RequestError
from pacbed.runs.doctor import examine

ROOT = Path(__file__).resolve().parents[2]

TWO_CARDS = """echo 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1c4f-secret)'
echo 'GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-92ab-secret)'"""
H100 = "2 × NVIDIA H100 80GB HBM3"
CARDS = {"nvidia-smi": TWO_CARDS}
# A partition is listed once for each kind of its nodes, and may be named as a range.
SINFO = """[ "$*" = "-h -o %P %c %m %l %G" ] || exit 1
echo 'main*  64 256000+ 7-00:00:00 (null)'
echo 'gpu[1-2] 32 512000  infinite gpu:a100:4(S:0-1)'
echo 'gpu[1-2] 32 512000  infinite gpu:a100:4(S:0-1)'"""
SLURM = dict.fromkeys(("sbatch", "squeue", "sacct"), "exit 0") | {"sinfo": SINFO}
CONDA = {"conda": "echo conda 25.1.0"}
GIT = {"git": "echo git version 2.39.5"}
KERAS = {"keras": "3.15.1"}
PLUGIN = "pip install -e src/snakemake_logger_plugin_budget -e '.[workflow]'"
PRISMATIC = SimpleNamespace(python="/opt/py", version="2.0", gpu=True)


class Machine:
    """A machine with nothing but a working Python, until something is added."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.monkeypatch = folder, monkeypatch
        for name in ("bin", "packages", "keras"):
            (folder / name).mkdir()
        monkeypatch.setenv("PATH", str(folder / "bin"))
        monkeypatch.setenv("KERAS_HOME", str(folder / "keras"))
        monkeypatch.delenv("KERAS_BACKEND", raising=False)
        # Of packages, only those of the test; modules that are imported stay.
        library = sysconfig.get_path("stdlib")
        paths = [str(folder / "packages"), library, f"{library}/lib-dynload"]
        monkeypatch.setattr(sys, "path", paths)
        self.free(500)
        monkeypatch.setitem(sys.modules, "cupy", None)
        self.prismatic(RequestError("Prismatic 2.0 is needed: conda install it"))

    def programs(self, **scripts):
        for name, script in scripts.items():
            path = self.folder / "bin" / name
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)

    def packages(self, **versions):
        for name, version in versions.items():
            folder = self.folder / f"packages/{name.replace('-', '_')}-{version}.dist-info"
            folder.mkdir()
            text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            (folder / "METADATA").write_text(text)

    def prismatic(self, answer):
        """Have Prismatic looked for with this outcome; return what interpreters were asked."""
        asked = []

        def installation(python=None):
            asked.append(python)
            if isinstance(answer, Exception):
                raise answer
            return answer

        self.monkeypatch.setattr(process, "installation", installation)
        return asked

    def free(self, gigabytes):
        self.monkeypatch.setattr(
            "pacbed.runs.doctor.shutil.disk_usage",
            lambda folder: SimpleNamespace(free=gigabytes * 1e9),
        )

    def cupy(self, cards):
        """Install a CuPy that sees some cards."""
        for name in ("cupyx", "cupyx.scipy", "cupyx.scipy.fft", "cupy"):
            self.monkeypatch.setitem(sys.modules, name, ModuleType(name))
        sys.modules["cupyx"].scipy = sys.modules["cupyx.scipy"]
        sys.modules["cupyx.scipy"].fft = sys.modules["cupyx.scipy.fft"]
        runtime = SimpleNamespace(getDeviceCount=lambda: cards)
        sys.modules["cupy"].cuda = SimpleNamespace(runtime=runtime)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return Machine(tmp_path, monkeypatch)


def found(part, containing=""):
    """The one finding about a part that says something."""
    [one] = [f for f in examine() if f.part == part and containing in f.found]
    return one


# As a whole


def test_where_everything_is_there_nothing_is_to_do(machine):
    machine.programs(**CARDS, **SLURM, **CONDA, **GIT)
    workflow = {
        "snakemake": "9.27.1",
        "snakemake-executor-plugin-slurm": "2.8.0",
        "pyarrow": "26.0",
    }
    plugin = {"snakemake-logger-plugin-budget": "0.1.0"}
    reading = {"rosettasciio": "0.14.0", "dask": "2026.1.0", "bokeh": "3.8.0"}
    machine.packages(**KERAS, tensorflow="2.20.0", **reading, **workflow, **plugin)
    machine.cupy(2)
    machine.prismatic(PRISMATIC)
    assert {(f.state, f.advice) for f in examine()} == {("ok", "")}


def test_what_is_missing_is_no_error_and_has_advice(machine, capsys):
    findings = examine()
    missing = {f.part for f in findings if f.state == "missing"}
    assert missing == {"Prismatic engine", "learning", "reading", "workflow", "SLURM", "git"}
    assert all(bool(one.advice) == (one.state != "ok") for one in findings)

    assert main(["doctor"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    for part in {f.part for f in findings}:
        assert captured.out.count(f"│ {part} ") == 1
    for words in ("missing", "pip install -e '.[learning]'", "-e '.[workflow]'"):
        assert words in captured.out


def test_nothing_heavy_is_imported():
    program = "import sys; from pacbed.runs.doctor import examine; examine(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"tensorflow", "keras", "jax", "torch"}.isdisjoint(done.stdout.split())


# Part by part: what there is, and the finding that follows


@pytest.mark.parametrize(
    ("programs", "packages", "part", "containing", "expected", "advice"),
    [
        # A driver that does not work shows no card; cards are counted by kind.
        ({"nvidia-smi": "exit 9"}, {}, "learning", "no GPU visible", "limited", "with a GPU"),
        (
            {"nvidia-smi": f"{TWO_CARDS}\necho 'GPU 2: NVIDIA L4 (UUID: GPU-3)'"},
            *({}, "plane-wave engine", f"CPU only; {H100}, 1 × NVIDIA L4", "missing", "cupy"),
        ),
        # Learning: Keras, its backend, and a build for the cards that are there.
        ({}, {}, "learning", "no Keras, no tensorflow", "missing", "'.[learning]'"),
        (CARDS, {}, "learning", "no Keras, no tensorflow", "missing", "'.[gpu]'"),
        (
            *({}, KERAS | {"tensorflow-cpu": "2.20.0"}, "learning"),
            *("Keras 3.15.1, backend tensorflow-cpu 2.20.0", "ok", ""),
        ),
        (CARDS, KERAS | {"tensorflow": "2.20.0"}, "learning", H100, "ok", ""),
        (
            *(CARDS, KERAS | {"tensorflow-cpu": "2.20.0"}, "learning"),
            *(f"TensorFlow for CPUs only; {H100}", "limited", "'.[gpu]'"),
        ),
        ({}, {}, "reading", "no rosettasciio", "missing", "-e '.[reading]'"),
        ({}, {"bokeh": "2.4.3"}, "reading", "bokeh 2.4.3, older than 3.6", "limited", "browser"),
        # The workflow: versions that are new enough, plugins by their names, and conda itself.
        ({}, {"snakemake": "9.21.0"}, "workflow", "snakemake 9.21.0", "ok", ""),
        ({}, {"snakemake": "10.0"}, "workflow", "snakemake 10.0", "ok", ""),
        ({}, {"snakemake": "9.5.0"}, "workflow", "9.5.0, older than 9.21", "limited", PLUGIN),
        ({}, {}, "workflow", "no snakemake-executor-plugin-slurm", "missing", PLUGIN),
        ({}, {}, "workflow", "no snakemake-logger-plugin-budget", "missing", PLUGIN),
        (CONDA, {}, "workflow", "conda 25.1.0", "ok", ""),
        ({"conda": "echo conda 4.12.0"}, {}, "workflow", "older than 24.7.1", "limited", "--sdm"),
        ({"conda": "echo conda 9; exit 1"}, {}, "workflow", "no conda", "missing", "--sdm conda"),
        # SLURM: all of its commands, and partitions once each, as sinfo writes them.
        ({}, {}, "SLURM", "no sbatch, squeue, sacct", "missing", "log in"),
        ({"sbatch": "", "squeue": ""}, {}, "SLURM", "no sacct", "missing", "log in"),
        (SLURM, {}, "SLURM", "main*: 64 cores, 256000+ MB, at most 7-00:00:00, (null)\n", "ok", ""),
        (SLURM | {"sinfo": "exit 1"}, {}, "SLURM", "sinfo listed none", "limited", "partitions"),
        (SLURM | {"sinfo": "exit 0"}, {}, "SLURM", "sinfo listed none", "limited", "partitions"),
        (GIT, {}, "git", "git 2.39.5", "ok", ""),
        ({"git": "exit 1"}, {}, "git", "no git", "missing", "apt-get install git"),
    ],
)
def test_what_is_found_and_advised(machine, programs, packages, part, containing, expected, advice):
    machine.programs(**programs)
    machine.packages(**packages)
    one = found(part, containing)
    assert one.state == expected
    assert advice in one.advice


def test_cores_and_memory_are_those_that_may_be_used(machine, monkeypatch):
    monkeypatch.setattr("pacbed.runs.doctor.usable_cores", lambda: 12)
    monkeypatch.setattr("pacbed.runs.doctor.memory_limit_bytes", lambda: 48_000_000_000)
    assert found("machine", "12 cores, 48.0 GB of memory").state == "ok"


@pytest.mark.parametrize(("free", "expected"), [(500, "ok"), (20, "limited")])
def test_room_for_scratch_files_is_that_of_the_scratch_folder(machine, monkeypatch, free, expected):
    monkeypatch.setattr("pacbed.runs.doctor.tempfile.gettempdir", lambda: "/scratch")
    machine.free(free)
    one = found("machine", f"{free} GB free for scratch files in /scratch")
    assert one.state == expected
    assert ("TMPDIR" in one.advice) == (expected == "limited")


@pytest.mark.parametrize(
    ("programs", "cupy", "expected", "containing", "advice"),
    [
        ({}, None, "limited", "CPU only; no GPU visible", "pip install cupy-cuda12x"),
        (CARDS, None, "missing", f"CPU only; {H100}", "pip install cupy-cuda12x"),
        (CARDS, 2, "ok", f"CuPy; {H100}", ""),
        ({}, 0, "limited", "CPU only; no GPU visible", "no card is visible"),
    ],
)
def test_plane_waves_use_a_card_by_cupy(machine, programs, cupy, expected, containing, advice):
    machine.programs(**programs)
    if cupy is not None:
        machine.cupy(cupy)
    one = found("plane-wave engine", containing)
    assert one.state == expected
    assert advice in one.advice


@pytest.mark.parametrize(
    ("for_gpus", "programs", "expected"),
    [(False, {}, "ok"), (True, {}, "ok"), (True, CARDS, "ok"), (False, CARDS, "limited")],
)
def test_prismatic_should_be_built_for_the_cards_that_are_there(
    machine, for_gpus, programs, expected
):
    machine.programs(**programs)
    machine.prismatic(SimpleNamespace(python="/opt/py", version="1.2.0", gpu=for_gpus))
    kind = "GPUs" if for_gpus else "CPUs only"
    one = found("Prismatic engine", f"pyprismatic 1.2.0 for {kind}, of /opt/py")
    assert one.state == expected
    assert ("pyprismatic=2.0=gpu*" in one.advice) == (expected == "limited")


def test_prismatic_that_cannot_be_used_is_missing_for_the_reason_that_the_engine_gives(machine):
    machine.prismatic(RequestError("Prismatic 2.0 is needed, but this is version 1"))
    one = found("Prismatic engine")
    assert (one.state, one.advice) == ("missing", "Prismatic 2.0 is needed, but this is version 1")


def test_options_and_names_in_brackets_reach_the_table(machine, capsys):
    asked = machine.prismatic(PRISMATIC)
    machine.programs(**SLURM)
    assert main(["doctor", "--prismatic-python", "/opt/py"]) == 0
    printed = capsys.readouterr().out
    assert asked == ["/opt/py"]
    assert "pyprismatic 2.0 for GPUs, of /opt/py" in printed
    assert "gpu[1-2]: 32 cores, 512000 MB, at most infinite, gpu:a100:4(S:0-1)" in printed


@pytest.mark.parametrize(
    ("settings", "environment", "backend"),
    [
        ("{}", {"KERAS_BACKEND": "jax"}, "jax 0.6.0"),
        ('{"backend": "jax"}', {}, "jax 0.6.0"),
        ("{", {}, "tensorflow 2.20.0"),
        ("[]", {}, "tensorflow 2.20.0"),
    ],
)
def test_the_backend_is_that_which_keras_would_load(
    machine, monkeypatch, settings, environment, backend
):
    machine.packages(**KERAS, tensorflow="2.20.0", jax="0.6.0")
    (machine.folder / "keras" / "keras.json").write_text(settings)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert found("learning", "Keras").found == f"Keras 3.15.1, backend {backend}"


def test_a_controller_that_does_not_answer_is_not_waited_for(machine, monkeypatch):
    monkeypatch.setattr("pacbed.runs.doctor.ANSWER_s", 0.5)
    machine.programs(**SLURM | {"sinfo": f"/bin/sleep 30\n{SINFO}"})
    assert found("SLURM", "sinfo listed none within 0.5 s").state == "limited"
