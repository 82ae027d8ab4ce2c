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
SINFO = """[ "$*" = "-h -o %P %c %m %l %G" ] || exit 1
echo 'main*  64 256000+ 7-00:00:00 (null)'
echo 'gpu    32 512000  2-00:00:00 gpu:a100:4(S:0-1)'
echo 'gpu    32 512000  2-00:00:00 gpu:a100:4(S:0-1)'"""


class Machine:
    """A machine with nothing but a working Python, until something is added."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.monkeypatch = folder, monkeypatch
        self.programs, self.packages = folder / "bin", folder / "packages"
        for new in (self.programs, self.packages, folder / "keras"):
            new.mkdir()
        monkeypatch.setenv("PATH", str(self.programs))
        monkeypatch.setenv("KERAS_HOME", str(folder / "keras"))
        monkeypatch.delenv("KERAS_BACKEND", raising=False)
        # Of packages, only those of the test; modules that are imported stay.
        library = sysconfig.get_path("stdlib")
        monkeypatch.setattr(sys, "path", [str(self.packages), library, f"{library}/lib-dynload"])
        monkeypatch.setattr(
            "pacbed.runs.doctor.shutil.disk_usage", lambda folder: SimpleNamespace(free=5e11)
        )
        monkeypatch.setitem(sys.modules, "cupy", None)
        self.prismatic(RequestError("Prismatic 2.0 is needed: conda install it"))

    def program(self, name, script="exit 0"):
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def package(self, name, version):
        folder = self.packages / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )

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

    def cupy(self, cards):
        """Install a CuPy that sees some cards."""
        for name in ("cupyx", "cupyx.scipy", "cupyx.scipy.fft", "cupy"):
            self.monkeypatch.setitem(sys.modules, name, ModuleType(name))
        sys.modules["cupyx"].scipy = sys.modules["cupyx.scipy"]
        sys.modules["cupyx.scipy"].fft = sys.modules["cupyx.scipy.fft"]
        sys.modules["cupy"].cuda = SimpleNamespace(
            runtime=SimpleNamespace(getDeviceCount=lambda: cards)
        )


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return Machine(tmp_path, monkeypatch)


def found(part, containing=""):
    """The one finding about a part that says something."""
    [one] = [f for f in examine() if f.part == part and containing in f.found]
    return one


def complete(machine):
    machine.program("nvidia-smi", TWO_CARDS)
    machine.program("sinfo", SINFO)
    machine.program("conda", "echo conda 25.1.0")
    machine.program("git", "echo git version 2.39.5")
    for name in ("sbatch", "squeue", "sacct"):
        machine.program(name)
    for name, version in (
        ("keras", "3.15.1"),
        ("tensorflow", "2.20.0"),
        ("snakemake", "9.27.1"),
        ("snakemake-executor-plugin-slurm", "2.8.0"),
        ("snakemake-logger-plugin-budget", "0.1.0"),
    ):
        machine.package(name, version)
    machine.cupy(2)
    machine.prismatic(SimpleNamespace(python="/opt/bin/python", version="2.0", gpu=True))


# As a whole


def test_where_everything_is_there_nothing_is_to_do(machine):
    complete(machine)
    assert {(f.state, f.advice) for f in examine()} == {("ok", "")}


def test_where_nothing_is_there_everything_has_advice(machine):
    findings = examine()
    assert {f.part: f.state for f in findings if f.state != "limited"} == {
        "machine": "ok",
        "plane-wave engine": "ok",
        "Prismatic engine": "missing",
        "learning": "missing",
        "workflow": "missing",
        "SLURM": "missing",
        "git": "missing",
    }
    for one in findings:
        assert bool(one.advice) == (one.state != "ok"), one
        assert "\n" not in one.advice
        assert "://" not in one.advice


def test_what_is_missing_is_no_error_and_commands_keep_their_brackets(machine, capsys):
    assert main(["doctor"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    for part in dict.fromkeys(f.part for f in examine()):
        assert captured.out.count(f"│ {part} ") == 1
    for words in ("missing", "pip install -e '.[cpu]'", "-e '.[workflow]'"):
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
    assert "pacbed.runs.doctor" in done.stdout.split()
    assert {"tensorflow", "keras", "jax", "torch"}.isdisjoint(done.stdout.split())


# Part by part: what there is, and the finding that follows

CARDS = {"nvidia-smi": TWO_CARDS}
H100 = "2 × NVIDIA H100 80GB HBM3"
KERAS = {"keras": "3.15.1"}
SLURM = dict.fromkeys(("sbatch", "squeue", "sacct"), "") | {"sinfo": SINFO}
PLUGIN = "pip install -e src/snakemake_logger_plugin_budget -e '.[workflow]'"


@pytest.mark.parametrize(
    ("programs", "packages", "part", "containing", "expected", "advice"),
    [
        # A driver that does not work shows no card.
        ({"nvidia-smi": "exit 9"}, {}, "learning", "no GPU visible", "limited", "with a GPU"),
        ({"nvidia-smi": "echo none"}, {}, "learning", "no GPU visible", "limited", ""),
        # Learning: Keras, its backend, and a build for the cards that are there.
        ({}, {}, "learning", "no Keras, no tensorflow, its backend", "missing", "'.[cpu]'"),
        (CARDS, {}, "learning", "no Keras, no tensorflow, its backend", "missing", "'.[gpu]'"),
        (
            *({}, KERAS | {"tensorflow-cpu": "2.20.0"}, "learning"),
            *("Keras 3.15.1, backend tensorflow-cpu 2.20.0", "ok", ""),
        ),
        (CARDS, KERAS | {"tensorflow": "2.20.0"}, "learning", f"{H100}", "ok", ""),
        (
            *(CARDS, KERAS | {"tensorflow-cpu": "2.20.0"}, "learning"),
            *(f"TensorFlow for CPUs only; {H100}", "limited", "'.[gpu]'"),
        ),
        # The workflow: versions that are new enough, and plugins by their names.
        ({}, {"snakemake": "9.21.0"}, "workflow", "snakemake 9.21.0", "ok", ""),
        ({}, {"snakemake": "10.0"}, "workflow", "snakemake 10.0", "ok", ""),
        ({}, {"snakemake": "9.5.0"}, "workflow", "9.5.0, older than 9.21", "limited", PLUGIN),
        ({}, {}, "workflow", "no snakemake-executor-plugin-slurm", "missing", PLUGIN),
        ({}, {}, "workflow", "no snakemake-logger-plugin-budget", "missing", PLUGIN),
        # Snakemake needs conda itself.
        ({}, {}, "workflow", "no conda", "missing", "--sdm conda"),
        ({"conda": "echo conda 25.1.0", "mamba": ""}, {}, "workflow", "conda 25.1.0", "ok", ""),
        ({"conda": "echo conda 4.12.0"}, {}, "workflow", "older than 24.7.1", "limited", "--sdm"),
        ({"conda": "echo conda 9; exit 1"}, {}, "workflow", "no conda", "missing", "--sdm conda"),
        ({"mamba": ""}, {}, "workflow", "mamba, no conda", "limited", "mamba install conda"),
        # SLURM: all of its commands, and partitions once each, as sinfo writes them.
        ({}, {}, "SLURM", "no sbatch, squeue or sacct", "missing", "log in"),
        ({"sinfo": SINFO}, {}, "SLURM", "no sbatch, squeue or sacct", "missing", "log in"),
        (SLURM, {}, "SLURM", "sbatch, squeue, sacct", "ok", ""),
        (
            *(SLURM, {}, "SLURM", "main*: 64 cores, 256000+ MB, at most 7-00:00:00, (null)\n"),
            *("ok", ""),
        ),
        (
            *({"sbatch": "", "squeue": ""}, {}, "SLURM", "only sbatch and squeue", "limited"),
            "log in",
        ),
        (SLURM | {"sinfo": "exit 1"}, {}, "SLURM", "sinfo listed none", "limited", "partitions"),
        (SLURM | {"sinfo": "exit 0"}, {}, "SLURM", "sinfo listed none", "limited", "partitions"),
        ({"git": "echo git version 2.39.5"}, {}, "git", "git 2.39.5", "ok", ""),
        ({"git": "exit 1"}, {}, "git", "no git", "missing", "apt-get install git"),
    ],
)
def test_what_is_found_and_advised(machine, programs, packages, part, containing, expected, advice):
    for name, script in programs.items():
        machine.program(name, script or "exit 0")
    for name, version in packages.items():
        machine.package(name, version)
    one = found(part, containing)
    assert one.state == expected
    assert advice in one.advice
    assert bool(one.advice) == (expected != "ok")


def test_cores_and_memory_are_those_that_may_be_used(machine, monkeypatch):
    monkeypatch.setattr("pacbed.runs.doctor.usable_cores", lambda: 12)
    monkeypatch.setattr("pacbed.runs.doctor.memory_limit_bytes", lambda: 48_000_000_000)
    assert found("machine", "12 cores, 48.0 GB of memory").state == "ok"


@pytest.mark.parametrize(("free", "expected"), [(500, "ok"), (20, "limited")])
def test_room_for_scratch_files_is_that_of_the_scratch_folder(machine, monkeypatch, free, expected):
    sizes = {"/scratch": SimpleNamespace(free=free * 1e9)}
    monkeypatch.setattr("pacbed.runs.doctor.tempfile.gettempdir", lambda: "/scratch")
    monkeypatch.setattr("pacbed.runs.doctor.shutil.disk_usage", sizes.__getitem__)
    one = found("machine", f"{free} GB free for scratch files in /scratch")
    assert one.state == expected
    assert ("TMPDIR" in one.advice) == (expected == "limited")


@pytest.mark.parametrize(
    ("cards", "cupy", "expected", "containing", "advice"),
    [
        (False, None, "limited", "CPU only; no GPU visible", "pip install cupy-cuda12x"),
        (True, None, "missing", f"CPU only; {H100}", "pip install cupy-cuda12x"),
        (True, 2, "ok", f"CuPy; {H100}", ""),
        (False, 0, "limited", "CPU only; no GPU visible", "no card is visible"),
    ],
)
def test_plane_waves_use_a_card_by_cupy(machine, cards, cupy, expected, containing, advice):
    if cards:
        machine.program("nvidia-smi", TWO_CARDS)
    if cupy is not None:
        machine.cupy(cupy)
    one = found("plane-wave engine", containing)
    assert one.state == expected
    assert advice in one.advice


def test_cards_of_different_kinds_are_counted_apart_and_without_serial_numbers(machine):
    machine.program("nvidia-smi", f"{TWO_CARDS}\necho 'GPU 2: NVIDIA L4 (UUID: GPU-3)'")
    assert found("plane-wave engine", "CPU only").found == f"CPU only; {H100}, 1 × NVIDIA L4"


@pytest.mark.parametrize(
    ("built_for_gpus", "cards", "expected"),
    [(False, False, "ok"), (True, False, "ok"), (True, True, "ok"), (False, True, "limited")],
)
def test_prismatic_should_be_built_for_the_cards_that_are_there(
    machine, built_for_gpus, cards, expected
):
    if cards:
        machine.program("nvidia-smi", TWO_CARDS)
    machine.prismatic(SimpleNamespace(python="/opt/py", version="1.2.0", gpu=built_for_gpus))
    kind = "GPUs" if built_for_gpus else "CPUs only"
    one = found("Prismatic engine", f"pyprismatic 1.2.0 for {kind}, of /opt/py")
    assert one.state == expected
    assert ("pyprismatic=2.0=gpu*" in one.advice) == (expected == "limited")


def test_prismatic_that_cannot_be_used_is_missing_for_the_reason_that_the_engine_gives(machine):
    reason = "Prismatic 2.0 is needed, but this is version 1: it has no pattern after each layer"
    machine.prismatic(RequestError(reason))
    one = found("Prismatic engine")
    assert (one.state, one.advice) == ("missing", reason)


def test_prismatic_is_looked_for_in_the_interpreter_that_is_named(machine, capsys):
    asked = machine.prismatic(SimpleNamespace(python="/opt/py", version="2.0", gpu=False))
    assert main(["doctor", "--prismatic-python", "/opt/py"]) == 0
    assert main(["doctor"]) == 0
    assert asked == ["/opt/py", None]
    assert capsys.readouterr().out.count("pyprismatic 2.0 for CPUs only, of /opt/py") == 2


@pytest.mark.parametrize("how", ["environment", "file"])
def test_the_backend_is_that_which_keras_is_told_to_load(machine, how):
    machine.package("keras", "3.15.1")
    machine.package("tensorflow-cpu", "2.20.0")
    if how == "environment":
        machine.monkeypatch.setenv("KERAS_BACKEND", "jax")
    else:
        (machine.folder / "keras" / "keras.json").write_text('{"backend": "jax"}')
    assert found("learning", "Keras").found == "Keras 3.15.1, no jax, its backend"
    machine.package("jax", "0.6.0")
    one = found("learning", "Keras")
    assert (one.state, one.found) == ("ok", "Keras 3.15.1, backend jax 0.6.0")


@pytest.mark.parametrize("settings", ["{", "{}", "[]", '{"backend": "tensorflow"}'])
def test_the_backend_is_tensorflow_unless_the_settings_of_keras_say_otherwise(machine, settings):
    machine.package("keras", "3.15.1")
    machine.package("tensorflow", "2.20.0")
    (machine.folder / "keras" / "keras.json").write_text(settings)
    assert found("learning", "Keras").found == "Keras 3.15.1, backend tensorflow 2.20.0"


def test_a_controller_that_does_not_answer_is_not_waited_for(machine, monkeypatch):
    monkeypatch.setattr("pacbed.runs.doctor.ANSWER_s", 0.5)
    for name, script in (SLURM | {"sinfo": f"/bin/sleep 30\n{SINFO}"}).items():
        machine.program(name, script or "exit 0")
    assert found("SLURM", "sinfo listed none within 0.5 s").state == "limited"


def test_partitions_are_printed_as_sinfo_wrote_them(machine, capsys):
    script = 'echo "gpu[1-2] 32 512000 infinite gpu:a100:4"'
    for name, text in (SLURM | {"sinfo": script}).items():
        machine.program(name, text or "exit 0")
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "gpu[1-2]: 32 cores, 512000 MB, at most infinite, gpu:a100:4" in printed
