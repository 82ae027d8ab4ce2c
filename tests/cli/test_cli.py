"""The command line: from a crystal to a picture, and mistakes reported in one line."""

import errno
import importlib.util
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import psutil
import pytest
import xarray
import zarr.storage
from rich.console import Console

from pacbed import __version__
from pacbed.cli import main
from pacbed.cli.app import BEGIN, COMMANDS, parsed
from pacbed.cli.common import busy, progress, quietly, say, stderr
from pacbed.patterns.store import read_patterns

ROOT = Path(__file__).resolve().parents[2]

TINY = ["--layers", "2", "--incident-step", "3", "--threads", "1"]
SMALL = ["--fov", "60", "--pixels", "24"]


def simulate(output, *options, semiangle=(6.35,)):
    return main(["simulate", "--semiangle", *semiangle, *TINY, *options, "--output", output])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "mos2.zarr.zip"
    assert simulate(path, "--fov", "60", "50", "--pixels", "48", "40", "--tilt", "2", "4.5") == 0
    return path


@pytest.fixture
def failing(tmp_path, complaint):
    """Run a simulation that must fail and leave nothing; return its last line."""

    def run(*options, status=1):
        words = ["simulate", "--semiangle", "6.35", *TINY, *options]
        lines = complaint(*words, "--output", tmp_path / "none.zarr.zip", status=status)
        assert not (tmp_path / "none.zarr.zip").exists()
        return lines.splitlines()[-1]

    return run


# pacbed simulate


def test_a_simulation_gives_a_pattern_for_every_layer_on_the_pixels_asked_for(store):
    found = xarray.open_zarr(zarr.storage.ZipStore(store, mode="r"))
    assert found["patterns"].dims == ("layer", "ky_mrad", "kx_mrad")
    assert found["patterns"].shape == (2, 40, 48)
    np.testing.assert_array_equal(found["layer"], [1, 2])
    np.testing.assert_allclose(found["kx_mrad"], (np.arange(48) - 24) * 60 / 48)
    np.testing.assert_allclose(found["ky_mrad"], (np.arange(40) - 20) * 50 / 40)


def test_every_option_of_the_first_command_reaches_the_store(tmp_path):
    path = tmp_path / "all.zarr.zip"
    command = (
        "simulate --engine planewave --material MoS2 --energy 80 --semiangle 18.13 "
        "--stretch 1.03 0.96 --theta 115 --tilt 2 -4.5 --layers 1 --phonons 0 --no-debye-waller "
        "--band-limit prismatic --fov 60 --pixels 24 --aperture-edge 3 --seed 0 --incident-step 6"
    )
    assert main([*command.split(), "--output", path]) == 0
    found = read_patterns(path)
    assert found.patterns.shape == (1, 24, 24)  # one number makes a square field
    request = found.attributes["request"]
    assert request["material"]["formula"] == "MoS2"
    assert request["energy_keV"] == 80
    assert request["tilt_mrad"] == [2, -4.5]
    assert request["deformation"] == {"stretch_1": 1.03, "stretch_2": 0.96, "angle_deg": 115}
    assert request["thermal"] == {"motion": "none"}
    assert (request["aperture"]["semiangle_mrad"], request["aperture"]["edge_mrad"]) == (18.13, 3)
    settings = found.attributes["settings"]
    assert (settings["band_limit"], settings["slices_per_layer"]) == ("prismatic", 3)


def test_several_semiangles_and_tilts_make_a_store_for_each_pair(tmp_path):
    tilts = ["--tilt", "0", "0", "--tilt", "3", "-2.5"]
    assert simulate(tmp_path / "mos2.zarr.zip", *tilts, *SMALL, semiangle=(6.35, 8)) == 0
    assert {p.name for p in tmp_path.iterdir()} == {
        f"mos2_{angle}mrad_tilt{tilt}.zarr.zip"
        for angle in (6.35, 8)
        for tilt in ("+0+0", "+3-2.5")
    }
    tilted = read_patterns(tmp_path / "mos2_8mrad_tilt+3-2.5.zarr.zip")
    assert tilted.attributes["request"]["tilt_mrad"] == [3, -2.5]
    assert tilted.attributes["request"]["aperture"]["semiangle_mrad"] == 8
    alone = tmp_path / "alone.zarr.zip"
    assert simulate(alone, *tilts[3:], *SMALL, semiangle=(8,)) == 0
    np.testing.assert_allclose(
        tilted.patterns, read_patterns(alone).patterns, atol=1e-4 * tilted.patterns.max()
    )


@pytest.mark.parametrize(
    ("options", "motion"),
    [
        ("", "full"),
        ("--phonons 0", "coherent"),
        ("--phonons 2", 2),
        ("--no-debye-waller", "none"),
        ("--phonons 0 --no-debye-waller", "none"),
    ],
)
def test_options_choose_thermal_motion(tmp_path, options, motion):
    path = tmp_path / "one.zarr.zip"
    supercell = ["--supercell", "3", "2", "--diffuse-waves", "16"]
    assert simulate(path, *SMALL, *supercell, *options.split()) == 0
    assert read_patterns(path, [1]).attributes["request"]["thermal"] == {"motion": motion}


def test_thermal_motion_fills_the_gaps_between_the_discs(tmp_path):
    def between_discs(*options):
        path = tmp_path / "one.zarr.zip"
        assert simulate(path, "--fov", "60", "--pixels", "60", *options, semiangle=(3,)) == 0
        store = read_patterns(path)
        radius = np.hypot(store.kx_mrad[None, :], store.ky_mrad[:, None])
        return store.patterns[1, (radius > 5) & (radius < 9)].sum(), store.attributes

    for alone in ("--phonons 0", "--no-debye-waller"):
        dark, attributes = between_discs(*alone.split())
        assert dark < 1e-8
        assert "phonon_noise" not in attributes
    sampled, _ = between_discs()
    assert 1e-5 < sampled < 0.01
    moving, attributes = between_discs("--phonons", "8", "--supercell", "4", "3")
    assert moving == pytest.approx(sampled, rel=0.2)
    assert attributes["configurations_per_wave"] == 8
    assert attributes["settings"]["supercell"] == [4, 3]
    assert len(attributes["phonon_noise"]) == 2
    assert attributes["seconds"] > 0
    assert attributes["peak_memory_MB"] > 50


def test_a_command_that_is_proposed_can_be_copied_whatever_the_name(tmp_path, capsys):
    path = tmp_path / "Öl 50% [a].zarr.zip"
    assert simulate(path, *SMALL, "--phonons", "0") == 0
    proposed = capsys.readouterr().out.rpartition("pacbed ")[2]
    assert shlex.split(proposed) == ["show", str(path)]


def test_a_log_has_a_line_about_progress(tmp_path, capsys):
    assert simulate(tmp_path / "one.zarr.zip", *SMALL, "--phonons", "0") == 0
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("plane waves: ")


def test_more_memory_than_the_machine_has_is_refused_with_what_to_change(failing, monkeypatch):
    monkeypatch.setattr("pacbed.engines.planewave.engine.memory_limit_bytes", lambda: 1_000_000)
    line = failing("--phonons", "2")
    assert "GB of memory would be needed, but this machine has 0.0 GB" in line
    assert "incident_step_mrad" in line


@pytest.mark.skipif(bool(importlib.util.find_spec("cupy")), reason="CuPy is installed")
def test_a_graphics_card_that_is_not_there_is_named(failing):
    line = failing("--device", "gpu")
    assert "device 'gpu' needs CuPy" in line
    assert "device 'cpu'" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--energy -80", "beam energy must lie within 30 to 300 keV, not -80"),
        ("--energy 80000", "beam energy must lie within 30 to 300 keV, not 80000"),
        ("--semiangle 0.00635", "if it is in rad, write 6.35"),
        ("--semiangle 6.35", "asked for twice"),
        ("--stretch 1 0", "principal stretches must be positive"),
        ("--stretch 3 2", "--stretch takes ratios of lengths: 1.03 for 3 %"),
        ("--stretch 0.97 1.02", "λ1 = 0.97 is smaller than λ2 = 1.02"),
        ("--pixels native", "only Prismatic has native pixels"),
        ("--pixels native 24", "--pixels takes numbers or the word 'native', not both"),
        ("--supercell 1 1", "supercell of 1 × 1 cells is 3.2 Å × 5.5 Å"),
        ("--phonons -1", "number of frozen-phonon configurations, not -1"),
        ("--phonons 1", "at least 2 configurations of each plane wave"),
        ("--slices 3", "thermal motion 'full' needs whole atoms on their planes"),
        ("--slices 3 --phonons 0", "thermal motion 'coherent' needs whole atoms on their planes"),
        ("--band-limit prismatic", "static atoms (thermal_motion: none; --phonons 0 --no-debye"),
        ("--engine prismatic --slices planes", "give their number per layer (--slices 3)"),
        ("--scratch 0", "--scratch must be greater than 0, not 0"),
        ("--log /dev/null/log", "cannot use /dev/null/log: Not a directory"),
    ],
)
def test_what_cannot_be_simulated_is_reported_in_one_line(failing, tmp_path, options, message):
    assert message in failing(*options.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--pixels 24 24 24", "--pixels accepts at most 2 elements. Got 3."),
        ("--supercell 3", "--supercell requires 2"),
        ("--layers 1.5", 'Invalid value for --layers: unable to convert "1.5" into int'),
        ("--threads 0", 'Invalid value "0" for --threads. Must be >= 1.'),
        ("--band-limit sharp", "Invalid value for --band-limit"),
        ("--semiangles 3", "Unknown option: --semiangles. Did you mean --semiangle?"),
    ],
)
def test_options_that_are_not_understood_are_named(failing, options, message):
    line = failing(*options.split(), status=2)
    assert message in line
    assert line.endswith("See pacbed simulate --help")


# A material of one's own


@pytest.fixture
def oxide(tmp_path):
    """A configuration of another crystal."""
    path = tmp_path / "oxide.yaml"
    path.write_text(
        "material: {formula: MoO2, zigzag_A: 2.82, armchair_A: 4.884, stacking_A: 12.1, "
        "chalcogen_height_A: 1.23, rms_displacement_A: {Mo: 0.08, O: 0.09}}\n"
    )
    return path


@pytest.mark.parametrize("named", [["--material", "MoO2"], []])
def test_a_material_that_a_configuration_describes_is_simulated(oxide, tmp_path, named):
    output = tmp_path / "moo2.zarr.zip"
    assert simulate(output, *named, "--config", oxide, *SMALL) == 0
    found = read_patterns(output).attributes["request"]["material"]
    assert (found["formula"], found["armchair_A"]) == ("MoO2", 4.884)


def test_a_material_that_is_not_known_is_reported_with_what_to_do(failing, oxide):
    line = failing("--material", "NbSe2")
    assert "unknown material 'NbSe2': known are MoS2," in line
    assert "described in the configuration under 'material' of a file that you name with " in line
    line = failing("--material", "TaS2", "--config", oxide)
    assert line.endswith("with --config (there, it is MoO2 now)")


# pacbed converge


# Of a setting, its values before and after, and whether thermal displacements differ.
REFINED = {
    "band limit (1/Å)": ("1.2", "2.4", False),
    "slices per layer": ("planes", "∞", False),
    "incident step (mrad)": ("3", "1.5", False),
    "supercell": ("3 × 2", "6 × 4", True),
    "knots of diffuse scattering (mrad)": ("20 and 8", "10 and 4", True),
    "waves of diffuse scattering": ("16", "32", True),
}
SETTINGS = list(REFINED)
OF_SLICES = {"slices per layer": ("2", "4", False)}
OF_CONFIGURATIONS = {"configurations": ("2", "4", True)}


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ("", REFINED),
        ("--phonons 0", {name: REFINED[name] for name in SETTINGS[:3]}),
        (
            "--phonons 2 --slices 2",
            {name: REFINED[name] for name in SETTINGS[:5]} | OF_SLICES | OF_CONFIGURATIONS,
        ),
    ],
)
def test_converge_refines_every_setting_and_draws_and_tabulates_what_changes(
    tmp_path, capsys, options, settings
):
    figure = tmp_path / "convergence.png"
    command = (
        "converge --semiangle 3 --layers 2 --supercell 3 2 --band-limit 1.2 --incident-step 3 "
        "--diffuse-waves 16 --diffuse-knots 20 8 --fov 40"
    )
    assert main([*command.split(), *options.split(), "--output", figure]) == 0
    printed = capsys.readouterr().out
    table = pd.read_csv(figure.with_suffix(".csv"))
    assert list(dict.fromkeys(table["setting"])) == list(settings)
    for name, (before, after, noisy) in settings.items():
        assert name in printed
        rows = table[table["setting"] == name]
        assert tuple(rows.iloc[0][["from", "to"]]) == (before, after)
        assert rows["layers"].tolist() == [1, 2]
        assert rows["relative_change"].between(1e-7, 0.3).all()
        assert rows["phonon_noise"].notna().all() == noisy
    assert figure.stat().st_size > 10_000


# pacbed show


def shown(store, path, *options):
    assert main(["show", store, *options, "--output", path]) == 0
    image = matplotlib.image.imread(path)[..., :3].mean(axis=2)
    assert image.std() > 0.05, "the picture is blank"
    return image


def test_show_draws_next_to_the_store_and_prints_where(store, capsys):
    assert main(["show", store]) == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == str(store.with_name("mos2.png"))
    assert captured.err.strip() == "shown: 50 mrad, the narrower side of the field"
    assert matplotlib.image.imread(store.with_name("mos2.png"))[..., :3].std() > 0.05


def test_show_draws_a_panel_for_every_thickness_and_narrows_the_field(store, tmp_path):
    one, two = (shown(store, tmp_path / "1.png", "--layers", *n) for n in (["1"], ["1", "2"]))
    assert two.shape[1] == pytest.approx(2 * one.shape[1], rel=0.02)
    narrow = shown(store, tmp_path / "20.png", "--layers", "1", "--fov", "20")
    assert narrow.mean() > 1.2 * one.mean()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--fov 0", "--fov must be between 0 and 50 mrad, not 0"),
        ("--fov 200", "--fov must be between 0 and 50 mrad, not 200"),
        ("--layers 1 3", "has layers 1 to 2: [3]?"),
        ("--output mos2.docx", "cannot draw mos2.docx"),
    ],
)
def test_show_names_what_it_cannot_draw(store, tmp_path, monkeypatch, complaint, options, message):
    monkeypatch.chdir(tmp_path)
    assert message in complaint("show", store, "--output", "mos2.png", *options.split())
    assert list(tmp_path.iterdir()) == []


def test_show_names_a_store_that_it_cannot_read(store, tmp_path, complaint):
    assert "absent.zarr.zip does not exist" in complaint("show", tmp_path / "absent.zarr.zip")
    assert str(tmp_path) in complaint("show", tmp_path)
    cut = tmp_path / "cut.zarr.zip"
    cut.write_bytes(store.read_bytes()[:-100])
    assert f"{cut} is damaged or incomplete" in complaint("show", cut)
    assert list(tmp_path.iterdir()) == [cut]


def test_show_on_a_full_disk_is_reported_in_one_line(store, tmp_path, complaint):
    output = tmp_path / "mos2.png"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        line = complaint("show", store, "--output", output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert line == f"error: cannot write {output}: {os.strerror(errno.EFBIG)}"
    assert list(tmp_path.iterdir()) == []


def test_show_on_a_read_only_disk_is_reported_in_one_line(store, tmp_path, monkeypatch, complaint):
    def read_only(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ("mkdir", "write_bytes", "unlink"):
        monkeypatch.setattr(Path, name, read_only)
    output = tmp_path / "new" / "mos2.png"
    assert complaint("show", store, "--output", output) == (
        f"error: cannot write {output}: Read-only file system"
    )


# pacbed network


def test_network_prints_the_layers_and_parameters_of_the_paper(capsys):
    assert main(["network"]) == 0
    printed = capsys.readouterr().out
    assert "35,055,846" in printed
    # The first convolution, the layer that holds nine tenths of the weights, and the output.
    for part in ("block1_conv1", "320", "33,554,944", "parameters", "774"):
        assert part in printed


def test_network_takes_overlays_of_the_paper_in_any_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    overlay = "network: {filters: [8, 16, 32, 64], dense: [64, 32], pooled_head: 4}\n"
    Path("small.yaml").write_text(overlay)
    assert main(["network", "--config", "small.yaml"]) == 0
    convolutions = sum(
        (9 * a + 1) * b + (9 * b + 1) * b for a, b in ((1, 8), (8, 16), (16, 32), (32, 64))
    )
    assert f"{convolutions + 1025 * 64 + 65 * 32 + 33 * 6:,}" in capsys.readouterr().out


# pacbed errors


def test_errors_prints_a_set_with_bound_and_baseline(tmp_path, capsys):
    rows = [
        ("strain_xx", "1", 0.001234, 0.0246, 0.0001),
        ("rotation_deg", "deg", 0.5, 5.0, 0.01),
        ("tilt_x_mrad", "mrad", 0.25, 2.5, 0.02),
    ]
    columns = ["parameter", "unit", "mae", "baseline_mae", "bound_mae"]
    frame = pd.DataFrame(rows, columns=columns)
    frame = frame.assign(
        semiangle_mrad=6.35, layers=10, outputs="strain-rotation-tilt", intensity="linear"
    )
    of_discs = frame.iloc[:1].assign(method="discs", outputs="", intensity="")
    sets = [
        frame.assign(split="test", method="network"),
        of_discs.assign(split="test", mae=0.05),
        frame.assign(split="train", method="network", mae=frame["mae"] / 10),
    ]
    path = tmp_path / "errors.csv"
    pd.concat(sets).to_csv(path, index=False)
    assert main(["errors", path]) == 0
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["6.35", "mrad,", "10", "layers"] in printed
    assert printed[-6:-2] == [
        ["network", "0.123", "0.5", "0.25"],
        ["discs", "5"],
        ["bound", "0.01", "0.01", "0.02"],
        ["always", "the", "mean", "2.46", "5", "2.5"],
    ]
    said = " ".join(word for line in printed[-2:] for word in line)
    assert said.startswith("The bound is of counted electrons.")
    assert main(["errors", path, "--split", "train"]) == 0
    assert "0.0123" in capsys.readouterr().out
    assert main(["errors", path, "--split", "validation"]) == 1
    assert "no errors of the validation set" in capsys.readouterr().err


@pytest.mark.parametrize("columns", [None, 80, 150])
def test_errors_are_as_wide_as_the_terminal(tmp_path, capsys, monkeypatch, columns):
    names = [f"strain_{axes}" for axes in ("xx", "yy", "xy")]
    names += ["rotation_deg", "tilt_x_mrad", "tilt_y_mrad"]
    frame = pd.DataFrame({"parameter": names}).assign(
        mae=0.000012345, baseline_mae=0.02, semiangle_mrad=32.94, layers=20, split="test"
    )
    variants = [
        frame.assign(method="network", outputs=f"strain-rotation{tilt}", intensity="sqrt")
        for tilt in ("", "-tilt")
    ]
    path = tmp_path / "errors.csv"
    pd.concat(variants).to_csv(path, index=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["errors", path]) == 0
    printed = capsys.readouterr().out
    assert max(len(line.rstrip()) for line in printed.splitlines()) <= (columns or 80)
    (row,) = [one for one in printed.splitlines() if one.startswith(" network without tilt")]
    assert row.split()[3:] == ["0.00123"] * 3 + ["1.23e-05"] * 3
    assert "…" not in printed


@pytest.mark.parametrize(
    "text", [None, "", "a,b\n1,2\n", "split,parameter,mae,baseline_mae\ntest,strain_xx,1,2\n"]
)
def test_errors_names_a_file_that_is_no_table_of_errors(tmp_path, complaint, text):
    path = tmp_path / "other.csv"
    if text is not None:
        path.write_text(text)
    assert "other.csv" in complaint("errors", path)


# pacbed plan


def test_a_configuration_that_is_not_there_is_named_before_anything_is_planned(complaint):
    line = complaint("plan", "--snakefile", ROOT / "Snakefile", "--config", "missing.yaml")
    assert line == "error: --config missing.yaml: there is no such file"


@pytest.mark.parametrize("config", ["results: results", "pacbed: {results: results}", None])
def test_a_plan_is_told_in_full_and_warns_where_it_can(tmp_path, monkeypatch, capsys, config):
    # Of a workflow that has this one as a module, the keys are not known.
    budget = {"exceeded": ["too much"]}
    monkeypatch.setattr("pacbed.runs.budget.plan", lambda *given: ("a table", budget))
    for folder in ("config", "workflow", "results"):
        (tmp_path / folder).mkdir()
    if config:
        (tmp_path / "config/config.yaml").write_text(config)
    (tmp_path / "results/config.yaml").write_text("no: study")
    monkeypatch.chdir(tmp_path)
    for snakefile in ("Snakefile", "workflow/Snakefile"):
        assert main(["plan", "--snakefile", snakefile, "--json", "plan.json"]) == 3
        said = capsys.readouterr()
        assert json.loads(Path("plan.json").read_text()) == budget
        Path("plan.json").unlink()
        assert said.out == "a table\nPlanned for profiles/slurm; see --profile.\n"
        assert ("warning: this run would not start" in said.err) == (config == "results: results")
        assert "error: over the limit: too much" in said.err


def test_a_plan_that_is_terminated_leaves_no_process_behind(tmp_path):
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "config.yaml").write_text("cores: 1\n")
    note = tmp_path / "pid"
    (tmp_path / "Snakefile").write_text(
        "import os, pathlib, time\n"
        f"pathlib.Path({str(note)!r}).write_text(str(os.getpid()))\n"
        "time.sleep(100)\n"
    )
    options = ["--snakefile", tmp_path / "Snakefile", "--profile", tmp_path / "profile"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    words = [sys.executable, "-m", "pacbed", "plan", *options]
    with subprocess.Popen(words, cwd=tmp_path, env=environment) as command:
        try:
            limit = time.monotonic() + 60
            while not (note.is_file() and note.read_text()):
                assert time.monotonic() < limit
                time.sleep(0.05)
            child = psutil.Process(int(note.read_text()))
            assert psutil.Process(command.pid) in child.parents()
            command.send_signal(signal.SIGTERM)
            assert command.wait(10) == 128 + signal.SIGTERM
            child.wait(10)
        finally:
            command.kill()


# Where nothing can be written


@pytest.mark.parametrize(
    "command",
    ["converge --output", "design --precision 0.05% --probe 0.15nm --figure"],
)
def test_a_figure_of_unknown_format_is_refused_before_anything_is_computed(command, complaint):
    line = complaint(*command.split(), "a.txt")
    assert line == "error: cannot draw a.txt: name a figure .png or .pdf"


@pytest.mark.parametrize(
    "command",
    [
        "simulate --output",
        "scatter --output",
        "converge --output",
        "evaluate model test.zarr.zip --output",
        "plan --json",
        *(f"design --precision 0.05% --probe 0.15nm --{name}" for name in ("save", "figure")),
    ],
)
def test_a_folder_that_cannot_be_written_is_named_before_anything_is_computed(complaint, command):
    line = complaint(*command.split(), "/dev/null/new/file.png")
    assert line == (
        "error: cannot write /dev/null/new/file.png: Not a directory; give another name or folder"
    )


# The command itself


def python(*arguments, stdout=subprocess.PIPE, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment}
    return subprocess.run(
        [sys.executable, *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        check=False,
    )


def test_the_package_runs_as_a_module(tmp_path):
    done = python("-m", "pacbed", "--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"pacbed {__version__}")
    done = python("-m", "pacbed", "show", tmp_path / "absent.zarr.zip")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_what_cannot_be_printed_is_an_error_in_one_line():
    with Path("/dev/full").open("w") as full:
        done = python("-m", "pacbed", "plan", "--help", stdout=full)
    assert done.returncode == 1
    assert done.stderr == "error: cannot use stdout: No space left on device\n"


def test_a_terminal_without_greek_letters_gets_question_marks():
    done = python("-m", "pacbed", "simulate", "--help", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "in ?." in done.stdout


def test_help_waits_for_no_large_library():
    code = (
        "import sys; from pacbed.cli import main\n"
        f"for words in {[[], *([name] for name in COMMANDS)]}:\n"
        "    main([*words, '--help']); print('imported', *words, '|', *sys.modules)\n"
    )
    lines = python("-c", code).stdout.splitlines()
    alone, *commands = (line.split("|") for line in lines if line.startswith("imported "))
    large = {"tensorflow", "keras", "zarr", "matplotlib", "pandas"}
    assert not set(alone[1].split()) & (large | {"numpy", "scipy", "ase"})
    assert [command.split()[1] for command, _ in commands] == list(COMMANDS)
    for command, modules in commands:
        imported = set(modules.split())
        assert "pacbed.cli.common" in imported
        assert not imported & large, command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simulat"], 'Unknown command "simulat". Did you mean "simulate"?'),
        (["simulate"], "parameter --output requires an argument"),
        (["view"], "parameter map requires an argument"),
        (["show", "--colour"], "Unknown option: --colour."),
        (["show", "a.zarr.zip", "b.zarr.zip"], "Unused Tokens: ['b.zarr.zip']"),
        (["errors", "a.csv", "--split", "tset"], 'Choose from: "train", "validation", "test"'),
        (["plan", "--max-core-hours", "-5"], "--max-core-hours. Must be >= 0"),
        (["show", "--cell", "--material", "hBN", "--layers", "0"], "--layers. Must be >= 1"),
    ],
)
def test_a_command_that_is_not_understood_says_why(complaint, arguments, message):
    line = complaint(*arguments, status=2)
    assert message in line
    assert line.endswith("--help")


def test_pacbed_alone_lists_the_commands(capsys):
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert all(f"│ {name} " in captured.err for name in COMMANDS)


def test_pacbed_alone_begins_with_five_commands_that_are_right(capsys):
    main([])
    said = capsys.readouterr().err
    assert len(BEGIN) == 5
    for line in BEGIN:
        assert said.index(line) < said.index("Usage")
        parsed(line.split()[1:])


@pytest.mark.parametrize("place", [0, 2])
def test_quiet_leaves_warnings_and_errors(place, tmp_path, capsys):
    words = ["show", str(tmp_path / "none.zarr.zip")]
    words.insert(place, "--quiet")
    assert main(words) == 1
    assert capsys.readouterr().err.startswith("error:")
    with quietly(True), progress(stderr()) as start:
        say("note: of no importance")
        start("points")(1, 2)
        say("warning: of importance")
    assert capsys.readouterr().err == "warning: of importance\n"
    with quietly(True), busy("planning", Console(force_terminal=True)):
        pass
    assert capsys.readouterr().out == ""


def test_verbose_shows_where_an_error_arose(tmp_path, capsys):
    assert main(["show", str(tmp_path / "none.zarr.zip"), "--verbose"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.splitlines()[-1].startswith("error:")


def test_ctrl_c_ends_a_command_with_its_status(monkeypatch, capsys):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("pacbed.patterns.store.read_patterns", interrupted)
    assert main(["show", "a.zarr.zip"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_a_shell_completes_commands_options_and_files(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["--install-completion", "--shell", "bash"]) == 0
    (tmp_path / "mos2.zarr.zip").touch()

    def completed(*words):
        lines = (
            f". {tmp_path}/.bashrc",
            f"COMP_WORDS=(pacbed {' '.join(words)}) COMP_CWORD={len(words)}",
            "_pacbed; echo ${COMPREPLY[@]}",
        )
        done = subprocess.run(["bash", "-c", "\n".join(lines)], cwd=tmp_path, capture_output=True)
        return done.stdout.decode().split()

    assert set(completed("s")) == {"scan", "scatter", "show", "simulate"}
    assert completed("simulate", "--semi") == ["--semiangle"]
    assert completed("show", "mo") == ["mos2.zarr.zip"]


def test_a_budget_does_not_overwrite_the_configuration(complaint, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("results: results/own\n", encoding="utf-8")
    assert "would be overwritten" in complaint("plan", "--config", own, "--json", own)
    assert own.read_text(encoding="utf-8") == "results: results/own\n"
