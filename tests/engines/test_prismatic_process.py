"""How Prismatic is called: its input, its output, and all that can go wrong with its processes.

In its place stands a program that does what a test wants (``stand_in_prismatic.py``).
"""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import stand_in_prismatic
from samples import detector, requested

from pacbed.engines import ThermalMotion
from pacbed.engines import engine as make_engine
from pacbed.engines.prismatic import (
    Execution,
    Layout,
    PrismaticSettings,
    memory_bytes,
    native_detector,
)
from pacbed.engines.prismatic import engine as engine_module
from pacbed.engines.prismatic.checkpoint import Checkpoint
from pacbed.engines.prismatic.engine import PrismaticEngine
from pacbed.engines.prismatic.process import installation
from pacbed.engines.prismatic.settings import Grid
from pacbed.exceptions import EngineError, RequestError, StoreError
from pacbed.patterns.store import read_patterns
from pacbed.specimen.microscope import Aperture
from pacbed.storage.zipped import checkpoint_of

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = Path(stand_in_prismatic.__file__)

BOX = PrismaticSettings(box_A=30, probe_region_A=22, probes=(2, 2))
SHAKING = requested(30.0, layers=2, field=100, pixels=56, motion=3, seed=5)
STATIC = requested(30.0, layers=2, field=100, pixels=56, seed=5)


class StandIn:
    """An interpreter with a made-up Prismatic, in a home and a scratch folder of its own."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.monkeypatch = folder, monkeypatch
        self.scratch, self.home, self.here = (folder / name for name in ("scratch", "home", "here"))
        for new in (self.scratch, self.home, self.here):
            new.mkdir()
        self.python = folder / "python"
        self.python.write_text(f"#!/bin/sh\nexec '{sys.executable}' -u '{STAND_IN}' \"$@\"\n")
        self.python.chmod(0o755)
        monkeypatch.setattr(tempfile, "tempdir", str(self.scratch))
        monkeypatch.setenv("TMPDIR", str(self.scratch))
        monkeypatch.setenv("HOME", str(self.home))
        monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
        monkeypatch.chdir(self.here)
        self.does("write")

    def does(self, what, first=1):
        """From a run on, do this; and count the runs from one again."""
        record = self.folder / f"record{len(list(self.folder.glob('record*')))}"
        record.mkdir()
        for name, value in (("RECORD", record), ("DOES", what), ("FROM", first)):
            self.monkeypatch.setenv(f"STAND_IN_{name}", str(value))

    @property
    def given(self):
        """The parameters of the runs so far."""
        return [json.loads(text(run, "parameters.json")) for run in self.runs]

    @property
    def runs(self):
        """The folders with the input of the runs so far."""
        return sorted(Path(os.environ["STAND_IN_RECORD"]).glob("*"))

    def engine(self, settings=BOX, log=lambda line: None, threads=1, device="cpu", **execution):
        run = Execution(str(self.python), **execution)
        return PrismaticEngine(settings, threads, device, run, log)

    def simulate(self, request=SHAKING, progress=None, checkpoint=None, **options):
        return self.engine(**options).simulate(request, progress, checkpoint).patterns

    def fails(self, what, first=1, request=STATIC, **options):
        """Return what is said when a run does this."""
        self.does(what, first)
        with pytest.raises(EngineError) as caught:
            self.simulate(request, **options)
        return str(caught.value)

    def command(self, output):
        """The same as `simulate`, as a command in a process of its own."""
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "pacbed", "simulate", "--engine", "prismatic"),
                *("--prismatic-python", str(self.python), "--semiangle", "30", "--layers", "2"),
                *("--fov", "100", "--pixels", "56", "--phonons", "3", "--seed", "5"),
                *("--box", "30", "--probe-region", "22", "--probes", "2", "2", "--threads", "1"),
                *("--output", str(output)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    return StandIn(tmp_path, monkeypatch)


@pytest.fixture
def undisturbed(stand_in):
    return stand_in.simulate()


def text(run, name):
    return (run / name).read_text()


def about(run):
    return json.loads(text(run, "call.json"))


def probes(run):
    return stand_in_prismatic.read_probes(run / "probes.txt")


def wait_until(condition, limit_s=60):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def room_GB(settings, patterns, potentials=0, layers=2):
    """What the patterns of some probes and some potentials take."""
    grid = Grid((30, 30), settings.pixel_A, settings.interpolation_factor)
    pattern = 4 * layers * math.prod(grid.output_points)
    potential = 4 * layers * settings.slices_per_layer * math.prod(grid.points)
    return (patterns * pattern + potentials * potential) / 1e9


# What Prismatic is given


def test_prismatic_computes_nothing_random_and_no_aberrations(stand_in):
    request = replace(STATIC, tilt_mrad=(2.5, -1.5), energy_keV=100.0)
    settings = replace(
        BOX, pixel_A=0.12, slices_per_layer=5, interpolation_factor=2, potential_bound_A=4.0
    )
    stand_in.simulate(request, settings=settings, threads=3)
    [given] = stand_in.given
    expected = {
        "algorithm": "multislice",
        "numFP": 1,
        **dict.fromkeys(("includeThermalEffects", "includeOccupancy"), False),
        **dict.fromkeys(("probeDefocus", "C3", "C5", "zStart", "numGPUs"), 0),
        **dict.fromkeys(("potential3D", "save4DOutput"), True),
        **dict.fromkeys(("realspacePixelSizeX", "realspacePixelSizeY"), 0.12),
        **dict.fromkeys(("interpolationFactorX", "interpolationFactorY"), 2),
        "potBound": 4.0,
        "numSlices": 5,
        "probeXtilt": 2.5,
        "probeYtilt": -1.5,
        "E0": 100,
        "probeSemiangle": 30.0,
        "numThreads": 3,
    }
    assert {name: given[name] for name in expected} == expected
    assert isinstance(given["maxFileSize"], int)


def test_static_atoms_are_those_of_the_crystal(stand_in):
    stand_in.simulate(STATIC)
    edges = stand_in_prismatic.read_edges(stand_in.runs[0] / "atoms.xyz")
    atoms = stand_in_prismatic.read_atoms(stand_in.runs[0] / "atoms.xyz")
    np.testing.assert_allclose(edges, [30, 30, 2 * STATIC.material.layer_thickness_A])
    assert set(atoms[:, 0]) == {42, 16}
    assert len(set(atoms[:, 3])) == 6  # S, Mo, S; twice


def input_of(stand_in, seed):
    stand_in.does("write")
    stand_in.simulate(replace(SHAKING, seed=seed))
    return [
        ((run / "atoms.xyz").read_bytes(), (run / "probes.txt").read_bytes())
        for run in stand_in.runs
    ]


def test_input_depends_on_the_seed_and_not_on_the_time(stand_in, monkeypatch):
    now = time.time()
    first = input_of(stand_in, seed=1)
    monkeypatch.setattr(time, "time", lambda: now)
    again, other = input_of(stand_in, seed=1), input_of(stand_in, seed=2)
    assert first == again
    assert len({atoms for atoms, _ in first + other}) == 6
    assert len({probes for _, probes in first + other}) == 2


# What comes of its output


def written(run):
    """What the stand-in wrote in a run, shape (layer, probe, x, y)."""
    metadata = stand_in_prismatic.Metadata()
    for name, value in json.loads(text(run, "parameters.json")).items():
        setattr(metadata, name, value)
    axes = stand_in_prismatic.frequencies(metadata, [30.0, 30.0])
    atoms = stand_in_prismatic.read_atoms(run / "atoms.xyz")
    return stand_in_prismatic.made_up_patterns(atoms, probes(run), axes, 2).astype(float)


def test_patterns_are_the_mean_over_probes_and_configurations_of_what_prismatic_wrote(stand_in):
    patterns = stand_in.simulate(replace(SHAKING, detector=native_detector(BOX, 80)))
    assert [len(probes(run)) for run in stand_in.runs] == [4, 4, 4]
    assert len({text(run, "probes.txt") for run in stand_in.runs}) == 1
    mean = np.mean([written(run) for run in stand_in.runs], axis=(0, 2))  # (layer, x, y)
    upright = mean.transpose(0, 2, 1)
    assert abs(mean - upright).max() > 0.1 * mean.max()
    np.testing.assert_allclose(patterns, upright, rtol=1e-5, atol=1e-9)


def test_split_probes_are_seen_once_and_weigh_the_same(stand_in):
    # Seven between three configurations: shares of two or three must not make a difference.
    settings = replace(BOX, probes=(7, 1), probes_per_configuration="split")
    request = replace(SHAKING, detector=native_detector(BOX, 80))
    result = stand_in.engine(settings).simulate(request)
    shares = [probes(run) for run in stand_in.runs]
    assert sorted(map(len, shares)) == [2, 2, 3]
    mean = sum(written(run).sum(axis=1) for run in stand_in.runs) / 7
    np.testing.assert_allclose(result.patterns, mean.transpose(0, 2, 1), rtol=1e-5, atol=1e-9)
    assert "phonon_noise" not in result.provenance  # halves of other probes tell nothing of it

    stand_in.does("write")
    stand_in.simulate(STATIC, settings=replace(settings, probes_per_configuration="all"))
    assert sorted(chain(*shares)) == sorted(probes(stand_in.runs[0]))


def test_noise_of_the_mean_is_told_from_two_halves_of_the_configurations(stand_in):
    request = replace(SHAKING, detector=native_detector(BOX, 80))
    found = stand_in.engine().simulate(request).provenance["phonon_noise"]
    one, two, three = (written(run).mean(axis=1) for run in stand_in.runs)
    apart = abs((one + three) / 2 - two).sum(axis=(1, 2))
    mean = (one + two + three).sum(axis=(1, 2)) / 3
    # The halves differ by sqrt(1/2 + 1/1) of the noise of one, the mean has sqrt(1/3) of it.
    assert found == pytest.approx(apart / mean / 1.5**0.5 / 3**0.5, abs=2e-6)
    assert min(found) > 0.01


def test_electrons_within_the_band_limit_are_told_wherever_the_detector_ends(stand_in):
    request = replace(SHAKING, detector=detector(62, 31))
    result = stand_in.engine().simulate(request)
    told = result.provenance["fraction_within_band"]
    assert told == pytest.approx([0.98, 0.98**2], abs=1e-5)
    assert (result.patterns.sum(axis=(1, 2)) < np.array(told) - 1e-4).all()


def test_requests_together_are_kept_each_and_told_as_one(stand_in, tmp_path):
    requests = [replace(SHAKING, thermal=ThermalMotion(1), seed=seed) for seed in (5, 6)]
    checkpoints = [tmp_path / "one", tmp_path / "two"]
    told = []
    results = stand_in.engine().simulate_together(
        requests, lambda *counts: told.append(counts), checkpoints
    )
    assert told == sorted(told)
    assert told[-1] == (8, 8)

    stand_in.does("exit")
    again = stand_in.engine().simulate_together(requests, checkpoints=checkpoints)
    assert stand_in.runs == []
    one, two = (result.patterns.tobytes() for result in again)
    assert [one, two] == [result.patterns.tobytes() for result in results]
    assert one != two


def test_probes_are_computed_in_portions_that_fit_into_the_scratch_folder(stand_in):
    settings = replace(BOX, slices_per_layer=1, probes=(4, 3))
    request = replace(SHAKING, thermal=ThermalMotion(2))
    at_once = stand_in.simulate(request, settings=settings)
    assert [len(probes(run)) for run in stand_in.runs] == [12, 12]

    stand_in.does("write")
    told = []
    patterns = stand_in.simulate(
        request,
        settings=settings,
        scratch_GB=room_GB(settings, 3.5, potentials=2),
        progress=lambda *counts: told.append(counts),
    )
    assert [len(probes(run)) for run in stand_in.runs] == [3] * 8
    imported = [given.get("importPotential", False) for given in stand_in.given]
    assert imported == [False, True, True, True] * 2  # once per configuration it is computed
    assert patterns.tobytes() == at_once.tobytes()
    assert told == sorted(told)
    assert told[-1] == (24, 24)


@pytest.mark.parametrize(
    ("limit", "in_memory", "portions"),
    [("memory", False, [12]), ("memory", True, [3] * 4), ("disk", False, [3] * 4)],
)
def test_neither_memory_nor_disk_of_the_scratch_folder_is_filled(
    stand_in, monkeypatch, limit, in_memory, portions
):
    settings = replace(BOX, slices_per_layer=1, probes=(4, 3))
    grid = Grid((30, 30), settings.pixel_A, settings.interpolation_factor)
    monkeypatch.setattr(engine_module, "is_in_memory", lambda folder: in_memory)
    room = 1e9 * room_GB(settings, 3.5, potentials=2)
    if limit == "memory":
        needed = memory_bytes(STATIC, settings, grid, 1)
        monkeypatch.setattr(engine_module, "memory_limit_bytes", lambda: needed + room)
    else:
        free = SimpleNamespace(free=1.25 * room)  # of which a fifth is left
        monkeypatch.setattr(engine_module.shutil, "disk_usage", lambda folder: free)
    stand_in.simulate(STATIC, settings=settings)
    assert [len(probes(run)) for run in stand_in.runs] == portions


@pytest.mark.parametrize("probes", [(1, 1), (6, 4)])
def test_without_room_for_one_probe_the_scratch_folder_is_named(stand_in, probes):
    settings = replace(BOX, slices_per_layer=1, probes=probes)
    room = room_GB(settings, 0.9, potentials=2 if math.prod(probes) > 1 else 0)
    with pytest.raises(RequestError, match="TMPDIR") as caught:
        stand_in.simulate(settings=settings, scratch_GB=room)
    assert str(stand_in.scratch) in str(caught.value)
    assert stand_in.runs == []


@pytest.mark.parametrize(
    ("does", "at_least"), [("write", {2, 3, 6, 7, 10, 11, 12}), ("print_across_itself", {12})]
)
def test_progress_counts_probes_of_all_configurations_and_never_goes_back(stand_in, does, at_least):
    stand_in.does(does)
    told = []
    stand_in.simulate(progress=lambda *counts: told.append(counts))
    done = [done for done, total in told if total == 12]
    assert done == sorted(done)
    assert len(done) == len(told)
    assert at_least <= set(done)
    assert done[-1] == 12


def test_every_line_is_logged(stand_in):
    lines = []
    stand_in.simulate(STATIC, log=lines.append)
    steps = [f"Computing Probe Position #{n}/4" for n in range(4)]
    assert lines == ["Prismatic stand-in", *steps, "a last word, as an error"]


# Files and folders


def test_prismatic_works_in_a_folder_and_a_home_of_its_own(stand_in):
    stand_in.simulate()
    for run in stand_in.runs:
        cwd, home = about(run)["cwd"], about(run)["home"]
        assert cwd == home
        assert Path(cwd).parent == stand_in.scratch
    assert not any(stand_in.scratch.iterdir())
    assert not any(stand_in.home.iterdir())
    assert not any(stand_in.here.iterdir())


def test_folder_of_a_process_that_was_killed_is_removed_that_of_a_living_one_is_not(stand_in):
    hold = (
        "import time; from pacbed.engines.prismatic.process import scratch_folder\n"
        "with scratch_folder() as folder:\n"
        "    (folder / 'large').write_text('much')\n"
        "    print(folder, flush=True)\n"
        "    time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True) as other:
        try:
            folder = Path(other.stdout.readline().strip())
            assert folder.parent == stand_in.scratch
            stand_in.simulate(STATIC)
            assert (folder / "large").is_file()
        finally:
            other.kill()
    assert folder.is_dir()
    stand_in.simulate(STATIC)
    assert not any(stand_in.scratch.iterdir())


# What can go wrong


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("exit", ["exit status 1", "reading atoms | std::bad_alloc of doom"]),
        ("sigkill", ["SIGKILL", "want of memory", "Prismatic stand-in"]),
        ("sigsegv", ["SIGSEGV", "Prismatic stand-in"]),
        # What else can be wrong with its output: test_prismatic_files.
        ("write_nothing", ["cannot be read"]),
    ],
)
def test_a_failure_says_what_happened_and_leaves_nothing(stand_in, what, said):
    message = stand_in.fails(what)
    assert all(part in message for part in said), message
    assert ("memory" in message) == (what == "sigkill")
    assert not any(stand_in.scratch.iterdir())


def test_a_call_that_hangs_is_stopped_with_all_that_it_started(stand_in):
    message = stand_in.fails("hang", call_limit_h=3 / 3600)
    assert "did not end within 0.000833 h" in message
    assert "thinking" in message
    [run] = stand_in.runs
    wait_until(lambda: gone(about(run)["pid"]), 10)
    wait_until(lambda: gone(int(text(run, "helper.pid"))), 10)
    assert not any(stand_in.scratch.iterdir())


@pytest.mark.parametrize(
    ("changes", "settings", "said"),
    [
        ({"aperture": Aperture(30.0, 1.0)}, {}, "aperture_edge must be 0"),
        ({"thermal": ThermalMotion("full")}, {}, "cannot compute thermal motion 'full'"),
        ({"thermal": ThermalMotion("coherent")}, {}, "number of frozen-phonon configurations"),
        ({"detector": detector(100, 90)}, {}, "finer than Prismatic's own"),
        ({"detector": detector(150, 56)}, {}, "band limit"),
        ({}, {"probe_region_A": 5}, "larger probe_region_A"),
        ({}, {"probes_per_configuration": "split", "probes": (2, 1)}, "cannot be split"),
    ],
)
def test_what_prismatic_cannot_do_is_refused_before_it_is_started(
    stand_in, changes, settings, said
):
    request, chosen = replace(SHAKING, **changes), replace(BOX, **settings)
    with pytest.raises(RequestError, match=said):
        Layout.of(request, chosen)
    with pytest.raises(RequestError, match=said):
        stand_in.simulate(request, settings=chosen)
    assert stand_in.runs == []


def test_what_does_not_fit_into_memory_is_refused_before_it_is_started(stand_in, monkeypatch):
    monkeypatch.setattr(engine_module, "memory_limit_bytes", lambda: 1_000_000)
    with pytest.raises(RequestError, match="smaller box_A"):
        stand_in.simulate()
    assert stand_in.runs == []


def test_a_card_is_used_by_a_build_for_it_and_refused_without(stand_in, monkeypatch, tmp_path):
    with pytest.raises(RequestError, match="not built for graphics cards"):
        stand_in.engine(device="gpu")
    core = tmp_path / "core.so"
    core.write_bytes(b"\x7fELF\x00COMPILED FOR GPU\x00")
    monkeypatch.setenv("STAND_IN_CORE", str(core))
    stand_in.simulate(STATIC, device="gpu")
    assert stand_in.given[0]["numGPUs"] == 1


# What is kept of a calculation that was cut short


def test_finished_configurations_outlive_a_failure(stand_in, undisturbed, tmp_path):
    kept = tmp_path / "kept"
    stand_in.fails("exit", first=3, request=SHAKING, checkpoint=kept)
    stand_in.does("write")
    told = []
    patterns = stand_in.simulate(
        # How Prismatic is run does not matter to what was kept.
        **{"checkpoint": kept, "threads": 2, "scratch_GB": 1.0},
        progress=lambda *counts: told.append(counts),
    )
    assert len(stand_in.runs) == 1
    assert patterns.tobytes() == undisturbed.tobytes()
    assert min(told)[0] >= 8
    assert told[-1] == (12, 12)


@pytest.mark.parametrize(
    ("changes", "settings", "version"),
    [
        ({"seed": 6}, {}, {}),
        ({"aperture": Aperture(29.0)}, {}, {}),
        ({}, {"pixel_A": 0.14}, {}),
        ({}, {}, {"__version__": "another"}),
        ({}, {}, {"PHYSICS_VERSION": 0}),
    ],
)
def test_what_was_kept_of_another_calculation_is_ignored(
    stand_in, tmp_path, monkeypatch, changes, settings, version
):
    kept = tmp_path / "kept"
    stand_in.simulate(STATIC, checkpoint=kept)
    stand_in.does("write")
    for name, value in version.items():
        monkeypatch.setattr(engine_module, name, value)
    other = {"request": replace(STATIC, **changes), "settings": replace(BOX, **settings)}
    patterns = stand_in.simulate(**other, checkpoint=kept)
    assert len(stand_in.runs) == 1
    assert patterns.tobytes() == stand_in.simulate(**other).tobytes()


def test_what_was_kept_and_cannot_be_read_now_is_not_ignored(stand_in, tmp_path, monkeypatch):
    def stale(path):
        raise StoreError(f"cannot read {path}: Stale file handle")

    monkeypatch.setattr("pacbed.engines.prismatic.checkpoint.read_arrays", stale)
    with pytest.raises(StoreError, match=r"cannot read .*kept: Stale"):
        stand_in.simulate(checkpoint=tmp_path / "kept")
    assert stand_in.runs == []


def test_nothing_that_can_be_read_wrongly_comes_out_of_a_damaged_checkpoint(tmp_path):
    kept = tmp_path / "kept"
    shape = (2, 1, 2, 3)
    Checkpoint(kept, "mine", np.ones(shape), np.ones(1), 2).save()
    whole = kept.read_bytes()
    for place in range(len(whole)):
        spoilt = bytearray(whole)
        spoilt[place] ^= 0x21
        kept.write_bytes(spoilt)
        loaded = Checkpoint.load(kept, "mine", shape)
        # Not all bytes of an archive matter.
        assert loaded.configurations in (0, 2)
        assert (loaded.sums == (loaded.configurations > 0)).all()


@pytest.fixture
def hanging(stand_in, tmp_path):
    """A command at work on its second configuration, and what it writes."""
    output = tmp_path / "x.zarr.zip"
    stand_in.does("hang", first=2)
    with stand_in.command(output) as command:
        try:
            wait_until(
                lambda: len(stand_in.runs) == 2 and (stand_in.runs[1] / "helper.pid").exists()
            )
            assert checkpoint_of(output).is_file()
            yield command, output
        finally:
            command.kill()


def test_a_killed_command_continues_from_the_last_configuration(stand_in, undisturbed, hanging):
    command, output = hanging
    command.kill()
    command.wait()
    child, helper = about(stand_in.runs[1])["pid"], int(text(stand_in.runs[1], "helper.pid"))
    wait_until(lambda: gone(child), 10)
    psutil.Process(helper).kill()  # the stand-in's own: Prismatic starts none
    command.stdout.close()
    assert not output.exists()

    stand_in.does("write")
    with stand_in.command(output) as command:
        said, _ = command.communicate(timeout=120)
    assert command.returncode == 0, said
    assert len(stand_in.runs) == 2
    assert read_patterns(output).patterns.tobytes() == undisturbed.tobytes()
    assert not checkpoint_of(output).exists()
    assert not any(stand_in.scratch.iterdir())


def test_a_terminated_command_clears_away_and_keeps_what_is_finished(stand_in, hanging):
    command, output = hanging
    command.send_signal(signal.SIGTERM)
    assert command.wait(30) == 143
    for pid in (about(stand_in.runs[1])["pid"], int(text(stand_in.runs[1], "helper.pid"))):
        wait_until(lambda pid=pid: gone(pid), 10)
    assert not any(stand_in.scratch.iterdir())
    assert checkpoint_of(output).is_file()
    assert not output.exists()


# Looking for Prismatic


CONDA = "conda install -c conda-forge 'pyprismatic=2.0=cpu*'"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Make a package pyprismatic for the interpreter of the tests."""

    def make(init, core="", version=None):
        folder = tmp_path / "packages" / "pyprismatic"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(init)
        (folder / "core.py").write_text(core)
        if version:
            about = folder.with_name(f"pyprismatic-{version}.dist-info")
            about.mkdir()
            (about / "METADATA").write_text(f"Name: pyprismatic\nVersion: {version}\n")
        monkeypatch.setenv("PYTHONPATH", str(folder.parent))
        return folder

    return make


@pytest.mark.parametrize(
    ("init", "said"),
    [
        ("raise ImportError('none')", ["none", CONDA, sys.executable, "planewave"]),
        ("class Metadata:\n    fields = ['numFP']", ["this is version 1", "{folder}", CONDA]),
    ],
    ids=["none", "version 1"],
)
def test_without_prismatic_two_the_installation_is_told(package, init, said):
    folder = package(init)
    with pytest.raises(RequestError, match=r"Prismatic 2\.0 is needed") as caught:
        make_engine(PrismaticSettings())
    assert all(part.format(folder=folder) in str(caught.value) for part in said)


@pytest.mark.parametrize(("core", "gpu"), [("", False), ("# COMPILED FOR GPU", True)])
def test_version_two_is_found(package, core, gpu):
    init = "from . import core\nclass Metadata:\n    fields = ['numFP', 'probes_file']"
    folder = package(init, core, version="2.0.7")
    found = installation()
    assert (found.python, found.version, found.gpu) == (sys.executable, "2.0.7", gpu)
    assert Path(found.path) == folder


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (None, "python' cannot be run: No such file"),
        ("echo hello", "does not describe its pyprismatic: hello"),
        ("kill -ILL $$", "was killed by SIGILL while it imported pyprismatic"),
    ],
)
def test_an_interpreter_that_cannot_be_used_is_named(tmp_path, script, said):
    python = tmp_path / "python"
    if script:
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
    with pytest.raises(RequestError, match=said):
        installation(str(python))
