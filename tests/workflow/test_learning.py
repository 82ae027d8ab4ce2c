"""Ways of learning besides the paper's: online, on one cycle, from a neighbour, with a power."""

import hashlib
import json
import shutil

import keras
import pandas as pd
import pytest
from workspace import Workspace

import pacbed.learning.network  # noqa: F401  (the layers of the models)

# What they share takes longer than they do: all in one process.
pytestmark = pytest.mark.xdist_group("learning")

ONE_CYCLE = {"epochs": 2, "batch_size": 16, "peak_rate": 1e-3, "averaged_epochs": 1}
VARIANT = {"outputs": "strain-rotation", "intensity": "power", "semiangles_mrad": "all"}
CHANGE = {
    "training": {
        "data": "online",
        "schedule": "fast",
        "warm_start": "thinner",
        "precision": "mixed_bfloat16",
        "fast": ONE_CYCLE,
    },
    "variants": [{**VARIANT, "layers": "all"}],
}
ERRORS = "results/tables/errors.csv"
MODELS = "results/models/6.35mrad/{}layers/strain-rotation_power"


@pytest.fixture(scope="module")
def learned(finished, tmp_path_factory):
    """What was finished in the paper's way, learnt once more in another."""
    folder = tmp_path_factory.mktemp("learning") / "online"
    shutil.copytree(finished.folder, folder)
    for file in (folder / "results/datasets/6.35mrad").glob("*layers/train.zarr.zip"):
        file.unlink()
    workspace = Workspace(folder)
    planned = workspace.plan(change=CHANGE)
    assert planned.status == 0, planned.text
    outcome = workspace.run(ERRORS, change=CHANGE)
    assert outcome.status == 0, outcome.text
    return workspace, planned


def settings(learned, layers):
    folder = learned[0].folder / MODELS.format(layers)
    return json.loads((folder / "settings.json").read_text())


def test_patterns_and_the_sets_for_validation_and_test_are_used_as_they_are(learned):
    jobs = learned[1].jobs
    assert not {"simulate", "augment"} & set(jobs)
    assert jobs["train"] == jobs["predict"] == 2


def test_no_training_set_is_written(learned):
    assert not list((learned[0].folder / "results").rglob("train.zarr.zip"))
    assert settings(learned, 1)["data"]["online"] is True
    assert settings(learned, 1)["data"]["examples"] == 32


def test_errors_are_tabulated_for_validation_and_test(learned):
    errors = pd.read_csv(learned[0].folder / ERRORS)
    assert set(errors["split"]) == {"validation", "test"}
    assert set(errors["intensity"]) == {"power"}
    assert errors["baseline_mae"].notna().all()


def test_a_network_begins_with_that_of_the_next_thinner_sample(learned):
    thinner = learned[0].folder / MODELS.format(1) / "model.keras"
    assert "initial" not in settings(learned, 1)
    digest = hashlib.sha256(thinner.read_bytes()).hexdigest()
    assert settings(learned, 2)["initial"] == digest


def test_the_rate_is_that_of_one_cycle(learned):
    history = pd.read_csv(learned[0].folder / MODELS.format(2) / "history.csv")
    assert len(history) == 2
    # Two batches per epoch: 1e-3 after one, its half half-way down, nothing at the end.
    assert history["learning_rate"].iloc[0] == pytest.approx(1e-3)


def test_the_exponent_is_learnt_and_kept_in_single_precision(learned):
    model = keras.saving.load_model(learned[0].folder / MODELS.format(2) / "model.keras")
    exponent = model.get_layer("intensity").exponent
    assert 0.4 < float(exponent) < 0.6
    assert float(exponent) != 0.5
    assert {weight.dtype for weight in model.weights} == {"float32"}
    losses = settings(learned, 2)["validation_loss"]
    assert losses["of_the_model"] == pytest.approx(losses["in_training"], rel=0.05)


def test_a_second_run_does_nothing(learned):
    assert learned[0].run(ERRORS, change=CHANGE).nothing_to_do


def test_keys_of_the_other_schedule_make_nothing_run_again(finished):
    change = {"training": {"fast": {"epochs": 3, "batch_size": 8}}}
    assert set(finished.plan(change=change).jobs) == {"summary", "all"}  # which shows all keys
