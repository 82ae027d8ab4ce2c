"""What is planned: the paper's study in full, and after a change only what depends on it."""

import os
import re
import shutil

import pytest
from workspace import ROOT

from pacbed.figures import TITLES

# Jobs of each rule for the tiny configuration, from the last to the first that a change can touch.
FIGURES = [f"figure_{name}" for name in TITLES]
ERRORS = dict.fromkeys(("errors", *FIGURES[5:], "summary", "all"), 1)
EVALUATION = {"predict": 2, **ERRORS}
TRAINING = {"train": 2, **EVALUATION}
EXAMPLES = {"augment": 6, **TRAINING}
CAMERA = {"bounds": 1, "figure_fig4": 1, **EXAMPLES}
SIMULATED = {"simulate_undeformed": 1, "simulate_gallery": 1, "simulate_bound": 1}
PATTERNS = {"simulate": 4, **SIMULATED, **dict.fromkeys(FIGURES[:4], 1), **CAMERA}
EVERYTHING = {"draws": 1, **PATTERNS}

ANOTHER_NETWORK = [
    {
        "outputs": "strain-rotation-tilt",
        "intensity": "linear",
        "semiangles_mrad": "all",
        "layers": [1, 2],
    },
    {"outputs": "strain-rotation", "intensity": "sqrt", "semiangles_mrad": "all", "layers": [1]},
]


def steps(rate):
    return {"training": {"learning_rate_steps": [{"epochs": 1, "rate": rate}]}}


def test_a_new_folder_plans_everything(workspace):
    assert workspace.plan().jobs == EVERYTHING


def test_repeating_a_default_in_an_overlay_or_how_it_is_computed_changes_nothing(finished):
    # The first changes the order of the keys, and how a number is written.
    change = {
        "material": {"zigzag_A": 3.1613},
        "microscope": {"energy_keV": 80.0},
        "simulation": {"thermal_motion": "auto"},
        "dataset": {"noise": "lognormal"},
        "training": {"momentum": 0.9},
        "deformation": {"tilt_mrad": [-5, 5]},
        "execution": {"scratch_GB": 7},
    }
    assert finished.plan(change=change).nothing_to_do


def test_keys_that_do_not_matter_to_plane_waves_change_only_the_report_of_them(finished):
    simulation = {
        "thermal_motion": "full",
        "prismatic": {"slices_per_layer": 4},
        "auxiliary_engine": "same",
    }
    assert finished.plan(change={"simulation": simulation}).jobs == {"summary": 1, "all": 1}


@pytest.mark.parametrize(
    ("change", "planned"),
    [
        pytest.param(steps(2e-3), TRAINING, id="learning rate"),
        pytest.param({"network": {"dense": [8]}}, TRAINING, id="network"),
        pytest.param({"dataset": {"noise": "poisson"}}, CAMERA, id="noise"),
        pytest.param({"deformation": {"rotation_deg": [-5, 5]}}, CAMERA, id="rotation"),
        pytest.param(
            {"dataset": {"examples": {"test": 17}}},
            {"augment": 2, **EVALUATION},
            id="test set",
        ),
        pytest.param(
            {"variants": ANOTHER_NETWORK},
            # The data of one layer exist already, for the other variant.
            {"train": 1, **EVALUATION, "predict": 1},
            id="variants",
        ),
        pytest.param({"microscope": {"aperture_edge_mrad": 1}}, PATTERNS, id="aperture edge"),
        pytest.param({"simulation": {"thermal_motion": "none"}}, PATTERNS, id="thermal motion"),
        # Four draws more; what is simulated beside them does not depend on them.
        pytest.param({"draws": {"count": 8}}, {"draws": 1, "simulate": 4, **EXAMPLES}, id="draws"),
        pytest.param(
            {"bound": {"strain_step": 0.001}},
            {"simulate_bound": 1, "bounds": 1, **ERRORS},
            id="steps of the bound",
        ),
        pytest.param(
            {"bound": {"deformed_states": 1}},
            {"simulate_bound": 1, "bounds": 1, **ERRORS},
            id="states of the bound",
        ),
        pytest.param({"seed": 1}, EVERYTHING, id="seed"),
    ],
)
def test_a_changed_key_reruns_only_what_depends_on_it(finished, change, planned):
    assert finished.plan(change=change).jobs == planned


def test_a_mended_mistake_in_the_physics_simulates_everything_again(
    finished, tmp_path, monkeypatch
):
    (tmp_path / "sitecustomize.py").write_text(
        "import pacbed.engines.request as request\nrequest.PHYSICS_VERSION += 1\n"
    )
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    assert finished.plan().jobs == PATTERNS


def test_a_structure_file_that_changed_is_simulated_again(workspace, wse2):
    wse2.rename(workspace.folder / "wse2.cif")
    targets = [
        "results/patterns/6.35mrad/00000.zarr.zip",
        *(f"results/series/{states}" for states in ("states0", "6.35mrad/test0")),
    ]
    for target in targets:
        (workspace.folder / target).mkdir(parents=True)
        os.utime(workspace.folder / target, (1e9, 1e9))
    change = {
        "material": {"structure": "wse2.cif", "rms_displacement_A": {"W": 0.065, "Se": 0.08}},
        "simulation": {"planewave": {"strain_states": 6, "supercell": [4, 4]}},
        "dataset": {"pool": 20},
    }
    planned = workspace.plan(*targets, "--rerun-triggers", "mtime", change=change)
    assert planned.jobs == {"simulate": 1, "scatter": 1, "scatter_draw": 1}


def test_error_bars_of_networks_are_compared_with_their_errors(workspace):
    outcome = workspace.plan(change={"network": {"uncertainty": True}})
    assert outcome.jobs == {"calibration": 1, **EVERYTHING}
    # It is a result, which is made again if it is lost.
    assert re.search(r"rule all:\n +input: .*calibration\.csv", outcome.text)
    # Of all networks, also of those that do not read tilt.
    inputs = re.search(r"rule calibration:\n +input: (.*)", outcome.text)
    assert inputs.group(1).count("predictions_test") == EVERYTHING["predict"]


def test_another_semiangle_leaves_those_that_exist(finished):
    outcome = finished.plan(change={"microscope": {"semiangles_mrad": [6.35, 12.65]}})
    # As many jobs as for the first semi-angle, and the crystal is drawn.
    assert outcome.jobs == {job: n for job, n in EVERYTHING.items() if job != "figure_cell"}
    for files in (r"patterns/{}mrad/\d", "datasets/{}mrad/", "models/{}mrad/"):
        assert re.search(f"output: results/{files.format('12.65')}", outcome.text)
        # What is beside the draws is made by one job for both, which computes what is missing.
        assert not re.search(f"output: results/{files.format('6.35')}", outcome.text)


@pytest.fixture
def clone(tmp_path):
    """Another clone of the repository; all of its files are new."""
    folder = tmp_path / "clone"
    for name in ("workflow", "config", "profiles"):
        shutil.copytree(ROOT / name, folder / name, copy_function=shutil.copyfile)
    shutil.copyfile(ROOT / "Snakefile", folder / "Snakefile")
    profile = ("--profile", str(folder / "profiles" / "local"))
    return folder, ("--snakefile", str(folder / "Snakefile"), *profile)


def test_another_clone_plans_nothing_for_results_that_are_copied(copied, clone):
    assert copied.plan(*clone[1]).nothing_to_do
    # Nor where the records of Snakemake are lost.
    shutil.rmtree(copied.folder / ".snakemake")
    assert copied.plan(*clone[1]).nothing_to_do


@pytest.mark.parametrize(
    ("script", "planned"),
    [("simulate", PATTERNS), ("report", {"summary": 1, "all": 1})],
)
def test_a_script_that_was_edited_is_run_again(copied, clone, script, planned):
    folder, options = clone
    with (folder / f"workflow/scripts/{script}.py").open("a") as file:
        file.write("print('more')\n")
    assert copied.plan(*options).jobs == planned


def test_a_lost_figure_is_drawn_again_and_nothing_else_is_done(copied):
    for file in ("fig5.png", "fig6.pdf"):
        (copied.folder / "results" / "figures" / file).unlink()
    assert copied.plan().jobs == {"figure_fig5": 1, "figure_fig6": 1, "summary": 1, "all": 1}
