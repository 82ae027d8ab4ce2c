"""Training and judging one network by hand: the same network as the workflow's, kindly told."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import yaml
from workspace import CONFIG, TINY

import pacbed.learning.training
from pacbed.cli import main
from pacbed.engines import SimulationResult
from pacbed.examples.dataset import read_dataset, write_dataset
from pacbed.examples.labels import OUTPUTS
from pacbed.examples.pattern_set import read_pattern_set
from pacbed.examples.source import ExampleSource
from pacbed.learning import checkpoint as training_checkpoint
from pacbed.learning.network import NetworkSettings
from pacbed.learning.prediction import predict
from pacbed.learning.schedule import OneCycleSchedule, SteppedSchedule
from pacbed.learning.training import TrainingSettings, train
from pacbed.patterns.store import write_patterns
from pacbed.precision.metrics import errors
from pacbed.specimen.deformation import Deformation
from pacbed.storage.zipped import checkpoint_of
from pacbed.study.configuration import load
from pacbed.study.draws import SPLITS
from pacbed.study.model import Configuration
from pacbed.study.training_settings import training_settings

# Ten draws, three epochs of four batches, the last of which is smaller.
# What they share takes longer than they do: all in one process.
pytestmark = pytest.mark.xdist_group("pacbed train")

CHANGES = {
    "draws": {"count": 10, "split": {"train": 0.6, "validation": 0.2, "test": 0.2}},
    "dataset": TINY["dataset"] | {"examples": {"train": 56, "validation": 24, "test": 24}},
    "training": {"batch_size": 16, "learning_rate_steps": [{"epochs": 3, "rate": 0.003}]},
}
FILES = ["history.csv", "model.keras", "settings.json"]
DATASETS = Path("results/datasets/6.35mrad")
PATTERNS = Path("results/patterns/6.35mrad")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder with a configuration, and what the workflow would have made by it."""
    folder = tmp_path_factory.mktemp("workspace")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY | CHANGES))
    config = load([folder / "tiny.yaml"])
    random = np.random.default_rng(0)
    splits = config.draws.splits()
    stores = [folder / PATTERNS / f"{draw:05d}.zarr.zip" for draw in range(len(splits))]
    for store in stores:
        stretch = sorted(random.uniform(0.95, 1.05, 2), reverse=True)
        tilt = tuple(random.uniform(-5, 5, 2))
        request = config.request(6.35, Deformation(*stretch, 30.0), tilt)
        patterns = random.uniform(0.5, 1, (2, 32, 32)).astype(np.float32) / 32**2
        write_patterns(store, request, SimulationResult(patterns, {}))
    for layers, split in [(layers, split) for layers in (1, 2) for split in SPLITS]:
        draws = [draw for draw, name in enumerate(splits) if name == split]
        path = folder / DATASETS / f"{layers}layers" / f"{split}.zarr.zip"
        path.parent.mkdir(parents=True, exist_ok=True)
        source = ExampleSource.read(
            [stores[draw] for draw in draws],
            draws,
            config.augmentation(),
            getattr(config.dataset.examples, split),
            (config.seed, 6.35, layers, split),
        )
        write_dataset(path, source)
    return folder


@pytest.fixture(autouse=True)
def configured(workspace, monkeypatch):
    """Be in the folder; note how the framework is set up, which a process can do only once."""
    monkeypatch.chdir(workspace)
    monkeypatch.setattr(training_checkpoint, "PAUSE", 0)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a busy disk takes seconds
    calls = []
    monkeypatch.setattr(pacbed.learning.training, "configure", lambda *a, **k: calls.append((a, k)))
    tf.config.experimental.enable_op_determinism()
    return calls


def command(output, *options, layers=2, change=None):
    overlays = ["tiny.yaml"]
    if change:
        (output.parent / "change.yaml").write_text(yaml.safe_dump(change))
        overlays.append(output.parent / "change.yaml")
    words = ["train", "--semiangle", "6.35", "--layers", layers, "--output", output, *options]
    return [*words, "--config", CONFIG, *overlays]


def trained(output, *options, **more):
    assert main(command(output, *options, **more)) == 0
    assert sorted(path.name for path in output.iterdir()) == FILES
    return output


@pytest.fixture(scope="module")
def model(workspace, tmp_path_factory):
    """A network that nothing interrupted."""
    output = tmp_path_factory.mktemp("model") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace)
        patch.setattr(pacbed.learning.training, "configure", lambda *a, **k: None)
        return trained(output)


def weights(folder):
    return [np.array(v) for v in keras.saving.load_model(folder / "model.keras").variables]


def assert_same(folder, other):
    for name in ("history.csv", "settings.json"):
        assert (folder / name).read_text() == (other / name).read_text()
    for one, two in zip(weights(folder), weights(other), strict=True):
        np.testing.assert_array_equal(one, two)


# pacbed train


def test_the_network_is_that_of_the_workflow(model, tmp_path):
    config = load([Path("tiny.yaml")])
    sets = (DATASETS / "2layers" / f"{split}.zarr.zip" for split in ("train", "validation"))
    train(
        *map(read_dataset, sets),
        config.deformation.label_scaling("strain-rotation-tilt"),
        TrainingSettings(
            network=NetworkSettings(filters=(4, 8), dense=(16,)),
            schedule=SteppedSchedule(((3, 0.003),)),
            batch_size=16,
            momentum=0.9,
            seed=config.seed,
        ),
        tmp_path / "by_hand",
    )
    assert_same(model, tmp_path / "by_hand")


def test_a_training_says_how_good_it_is_and_how_to_evaluate_it(tmp_path, capsys, configured):
    chosen = "--outputs", "strain-rotation", "--intensity", "sqrt"
    output = trained(tmp_path / "model", *chosen, "--threads", "3", layers=1)
    said = capsys.readouterr()
    losses = pd.read_csv(output / "history.csv")["validation_loss"]
    assert f"lowest validation loss {losses.min():.4g}, after epoch" in said.out
    evaluate = f"pacbed evaluate {output} {DATASETS}/1layers/test.zarr.zip"
    assert said.out.strip().endswith(evaluate)
    assert said.err.count("\n") == 1
    assert "epochs: 3 of 3 after" in said.err
    assert "validation " in said.err
    ((threads,), more), *_ = configured
    assert (threads, more["deterministic"]) == (3, True)
    stored = json.loads((output / "settings.json").read_text())
    assert stored["scaling"]["parameters"] == list(OUTPUTS["strain-rotation"])
    assert stored["training"]["network"]["intensity"] == "sqrt"
    assert stored["data"]["layers"] == 1


def test_a_terminal_shows_a_bar(tmp_path, capsys, monkeypatch):
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", "120")):
        monkeypatch.setenv(name, value)
    trained(tmp_path / "model")
    said = capsys.readouterr().err
    assert "3/3" in said
    assert "validation 0." in said
    assert "epochs: 3 of 3" not in said


def test_examples_are_made_online_of_patterns_that_may_be_elsewhere(workspace, tmp_path):
    change = {"results": "nowhere", "training": {"data": "online"}}
    (tmp_path / "patterns").symlink_to(workspace / PATTERNS)
    elsewhere = "--data", workspace / DATASETS / "2layers", "--patterns", tmp_path / "patterns"
    output = trained(tmp_path / "model", *elsewhere, change=change)
    data = json.loads((output / "settings.json").read_text())["data"]
    assert data["online"] is True
    assert (data["examples"], data["layers"], data["semiangle_mrad"]) == (56, 2, 6.35)


def test_adam_and_averaged_epochs_are_of_the_fast_schedule_only():
    fast = {"epochs": 7, "averaged_epochs": 2}

    def made(**training):
        return training_settings(Configuration(seed=5, training=training), "sqrt")

    paper, adam = made(fast=fast), made(schedule="fast", fast=fast)
    assert isinstance(adam.schedule, OneCycleSchedule)
    assert (adam.schedule.epochs, adam.averaged_epochs, adam.seed) == (7, 2, 5)
    assert (paper.averaged_epochs, paper.optimizer) == (0, "sgd")
    assert adam.optimizer == "adam"
    assert made(schedule="fast", fast=fast | {"optimizer": "sgd"}).optimizer == "sgd"


# pacbed train, stopped


@pytest.fixture
def signal_after_epoch(monkeypatch):
    """Return a function that makes a signal come after some epoch, once."""

    def arrange(epoch, number):
        numbers = [number]

        def report(done, total, more=""):
            if done == epoch and numbers:
                os.kill(os.getpid(), numbers.pop())

        monkeypatch.setattr("pacbed.cli.common.sparse_progress", lambda *arguments: report)

    return arrange


def test_ctrl_c_ends_a_training_and_the_same_command_continues(
    model, tmp_path, capsys, signal_after_epoch
):
    signal_after_epoch(2, signal.SIGINT)
    output = tmp_path / "model"
    assert main(command(output)) == 130
    assert "to continue, give the same command again" in capsys.readouterr().err
    assert checkpoint_of(output / "model.keras").exists()
    assert not (output / "model.keras").exists()
    assert_same(trained(output), model)


def test_sigterm_ends_it_too(tmp_path, capsys, signal_after_epoch):
    signal_after_epoch(2, signal.SIGTERM)
    with pytest.raises(SystemExit, match=f"^{128 + signal.SIGTERM}$"):
        main(command(tmp_path / "model"))
    assert "to continue, give the same command again" in capsys.readouterr().err
    assert checkpoint_of(tmp_path / "model" / "model.keras").exists()


def test_ctrl_c_before_the_training_leaves_nothing_to_continue(tmp_path, capsys, monkeypatch):
    def interrupted(path):
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("went on")

    monkeypatch.setattr("pacbed.examples.dataset.read_dataset", interrupted)
    assert main(command(tmp_path / "model")) == 130
    assert "to continue" not in capsys.readouterr().err
    assert list((tmp_path / "model").iterdir()) == []


def test_a_finished_training_is_not_repeated(model, capsys):
    before = {name: (model / name).read_bytes() for name in FILES}
    trained(model)
    said = capsys.readouterr()
    assert f"{model / 'model.keras'} is there already" in said.err
    assert "epochs: 3 of 3" not in said.err
    assert "lowest validation loss" in said.out
    assert {name: (model / name).read_bytes() for name in FILES} == before


def test_a_model_of_another_training_is_replaced_after_a_warning(model, tmp_path, capsys):
    output = shutil.copytree(model, tmp_path / "model")
    trained(output, "--intensity", "sqrt")
    said = capsys.readouterr().err
    assert said.count(f"warning: {output / 'model.keras'} is of another training") == 1
    stored = json.loads((output / "settings.json").read_text())
    assert stored["training"]["network"]["intensity"] == "sqrt"


# pacbed train, with what cannot be used


def failing(complaint, tmp_path, *options, **more):
    said = complaint(*command(tmp_path / "model", *options, **more))
    assert not (tmp_path / "model" / "model.keras").exists()
    return said


def test_a_missing_dataset_is_named_with_the_command_that_makes_it(complaint, tmp_path):
    change = {"results": "nowhere"}
    said = failing(complaint, tmp_path, change=change)
    folder = "nowhere/datasets/6.35mrad/2layers"
    assert f"{folder}/train.zarr.zip and 1 more do not exist" in said
    assert (
        f"  snakemake --profile profiles/local {folder}/train.zarr.zip "
        f"{folder}/validation.zarr.zip --configfile " in said
    )
    assert "tiny.yaml" in said.partition("--configfile")[2]
    assert "--data" in said


def test_missing_patterns_are_named_with_the_command_that_makes_them(
    workspace, complaint, tmp_path
):
    change = {"results": "nowhere", "training": {"data": "online"}}
    data = "--data", workspace / DATASETS / "2layers"
    said = failing(complaint, tmp_path, *data, change=change)
    assert "nowhere/patterns/6.35mrad/00000.zarr.zip and 5 more do not exist" in said
    target = "nowhere/models/6.35mrad/2layers/strain-rotation-tilt_linear/model.keras"
    assert f"{target} --until simulate augment" in said


def test_the_network_to_begin_with_is_that_of_the_next_thickness(complaint, tmp_path, model):
    change = {
        "training": {"warm_start": "thinner"},
        "variants": [TINY["variants"][0] | {"layers": "all"}],
    }
    neighbour = "results/models/6.35mrad/1layers/strain-rotation-tilt_linear/model.keras"
    said = failing(complaint, tmp_path, change=change)
    assert f"{neighbour} does not exist" in said
    assert f"profiles/local {neighbour} --configfile" in said
    output = trained(tmp_path / "model", "--initial", model / "model.keras", change=change)
    assert "initial" in json.loads((output / "settings.json").read_text())


def test_errors_are_weighted_by_a_table_of_bounds(complaint, tmp_path):
    fisher = {"loss": "fisher", "schedule": "fast", "fast": {"epochs": 1, "batch_size": 16}}
    change = {"training": fisher}
    said = failing(complaint, tmp_path, change=change)
    table = "results/tables/bounds_mean.parquet"
    assert f"{table} does not exist" in said
    assert f"profiles/local {table} --configfile" in said
    one = {"semiangle_mrad": 6.35, "layers": 2, "data_mae": 0.001}
    rows = [{**one, "parameter": name} for name in OUTPUTS["strain-rotation-tilt"]]
    given = tmp_path / "bounds.parquet"
    pd.DataFrame(rows).to_parquet(given)
    output = trained(tmp_path / "model", "--bounds", given, change=change)
    training = json.loads((output / "settings.json").read_text())["training"]
    assert training["error_scales"][0] == pytest.approx(0.02)
    table = predict(*(output / name for name in FILES[1:]), read_dataset(TEST))
    assert np.isfinite(table["predicted_tilt_x_mrad"]).all()


@pytest.mark.parametrize("option", ["--data", "--initial"])
def test_what_was_named_and_is_missing_is_reported_without_advice(complaint, tmp_path, option):
    said = failing(complaint, tmp_path, option, tmp_path / "absent")
    assert str(tmp_path / "absent") in said
    assert f"not exist: see {option}" in said
    assert "snakemake" not in said


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ("--semiangle 12.65", None, "--semiangle 12.65: microscope.semiangles_mrad of the config"),
        ("--layers 7", None, "--layers 7: dataset.layers of the configuration has 1, 2"),
        (f"--data {DATASETS}/1layers", None, "layers is 1, not 2"),
        ("", {"field_of_view_mrad": 90}, "field_of_view_mrad is 100, not 90"),
    ],
)
def test_what_the_configuration_does_not_have_is_refused(
    complaint, tmp_path, options, change, message
):
    change = change and {"dataset": change}
    assert message in failing(complaint, tmp_path, *options.split(), change=change)


def test_examples_that_are_otherwise_others_are_used_with_a_warning(tmp_path, capsys):
    change = {"examples": {"train": 999}, "camera": {"blur_px": [0, 1]}}
    trained(tmp_path / "model", change={"dataset": change})
    said = capsys.readouterr().err
    assert said.count("warning") == 2
    assert "train.zarr.zip is not what the configuration asks for: examples is 56, not 999" in said
    assert (
        "validation.zarr.zip is not what the configuration asks for: camera is perfect, not" in said
    )


def test_a_folder_that_cannot_be_written_is_named(complaint, tmp_path):
    (tmp_path / "file").write_text("in the way")
    said = complaint(*command(tmp_path / "file" / "model"))
    assert f"cannot write {tmp_path / 'file' / 'model'}" in said


# pacbed evaluate


TEST = DATASETS / "2layers" / "test.zarr.zip"


def test_errors_are_printed_beside_those_of_the_mean(model, capsys):
    assert main(["evaluate", model, TEST]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert f"{TEST}, 24 examples" in said.out
    table = predict(model / "model.keras", model / "settings.json", read_dataset(TEST))
    found = errors(table, table).set_index("parameter")
    lines = {line.split()[1]: line for line in said.out.splitlines() if line.startswith("│")}
    for name, label, factor in (
        ("strain_xy", "strain_xy (%)", 100),
        ("rotation_deg", "rotation (°)", 1),
        ("tilt_y_mrad", "tilt_y (mrad)", 1),
    ):
        cells = [cell.strip() for cell in lines[label.split()[0]].strip("│").split("│")]
        row = factor * found.loc[name, ["mae", "rmse", "bias", "p95", "baseline_mae"]]
        assert cells[0] == label
        np.testing.assert_allclose(
            [float(cell) for cell in cells[1:]], row.astype(float), rtol=5e-3
        )


def test_predictions_are_written_as_the_workflow_does_of_several_with_the_dataset(
    model, tmp_path, capsys
):
    output, validation = tmp_path / "predictions.parquet", TEST.with_name("validation.zarr.zip")
    assert main(["evaluate", model, TEST, "--output", output]) == 0
    expected = predict(model / "model.keras", model / "settings.json", read_dataset(TEST))
    pd.testing.assert_frame_equal(pd.read_parquet(output), expected)
    assert list(tmp_path.iterdir()) == [output]
    capsys.readouterr()
    assert main(["evaluate", model, TEST, validation, "--output", output]) == 0
    table = pd.read_parquet(output)
    assert table["dataset"].tolist() == [str(TEST)] * 24 + [str(validation)] * 24
    said = capsys.readouterr().out
    assert f"{TEST}, 24 examples" in said
    assert f"{validation}, 24 examples" in said


def test_a_dataset_of_another_thickness_is_evaluated_with_a_warning(model, capsys):
    other = DATASETS / "1layers" / "test.zarr.zip"
    assert main(["evaluate", model, other]) == 0
    said = capsys.readouterr()
    assert f"warning: {other} is not what {model / 'model.keras'} was trained for" in said.err
    assert "layers is 1, not 2" in said.err
    assert f"{other}, 24 examples" in said.out


CRYSTAL = {"formula": "WSe2", "zigzag_A": 3.282}


@pytest.mark.parametrize(
    ("change", "crystal", "message"),
    [
        ({"pixels": 32}, {}, "does not fit {model}: pixels is 32, not 16"),
        ({"field_of_view_mrad": 90}, {}, "does not fit {model}: field_of_view_mrad is 90, not 100"),
        ({}, CRYSTAL, "is of another simulation than the training set: formula is WSe2, not MoS2"),
    ],
)
def test_a_dataset_of_another_field_or_crystal_is_refused_before_anything_is_predicted(
    model, tmp_path, complaint, change, crystal, message
):
    library = read_pattern_set([PATTERNS / "00000.zarr.zip"], [0], 2)
    shown = {**library.simulation["material"], **crystal}
    library = replace(library, simulation={**library.simulation, "material": shown})
    settings = replace(load([Path("tiny.yaml")]).augmentation(), **change)
    path = tmp_path / "other.zarr.zip"
    write_dataset(path, ExampleSource(library, settings, 4, (1, 6.35, 2, "test")))
    said = complaint("evaluate", model, TEST, path)
    assert f"{path} {message.format(model=model / 'model.keras')}" in said


@pytest.mark.parametrize(
    ("name", "message"),
    [("model.keras", "cannot load {}"), ("settings.json", "{} is not what pacbed train writes")],
)
def test_what_is_missing_or_damaged_of_a_model_is_named(model, tmp_path, complaint, name, message):
    other = shutil.copytree(model, tmp_path / "other")
    (other / name).write_bytes((other / name).read_bytes()[:-100])
    assert message.format(other / name) in complaint("evaluate", other, TEST)
    (other / name).unlink()
    assert f"{other / name} does not exist" in complaint("evaluate", other, TEST)


def test_a_dataset_that_is_none_is_named(model, tmp_path, complaint):
    absent = tmp_path / "absent.zarr.zip"
    assert f"{absent} does not exist" in complaint("evaluate", model, TEST, absent)
    store = PATTERNS / "00000.zarr.zip"
    assert f"{store} is a store of another kind" in complaint("evaluate", model, store)
    cut = tmp_path / "cut.zarr.zip"
    cut.write_bytes(TEST.read_bytes()[:-100])
    assert f"{cut} is damaged or incomplete" in complaint("evaluate", model, cut)
