"""Training: the weights that are kept, what they predict, and failures that leave nothing."""

import json
import re
from dataclasses import replace
from itertools import chain

import keras
import numpy as np
import pandas as pd
import pytest

from pacbed.examples.dataset import Dataset
from pacbed.examples.labels import PARAMETERS, LabelScaling
from pacbed.exceptions import PacbedError
from pacbed.learning.network import NetworkSettings
from pacbed.learning.prediction import predict
from pacbed.learning.schedule import OneCycleSchedule, SteppedSchedule
from pacbed.learning.training import PRODUCTS, TrainingSettings, make_optimizer, train
from pacbed.precision.metrics import errors
from pacbed.seeding import stream

PIXELS = 16
SCALING = LabelScaling.from_ranges("strain-rotation", (0.95, 1.05), (-10, 10), (-5, 5))
NETWORK = NetworkSettings(filters=(4, 8), dense=(16,))
SIMULATION = {
    "material": {"formula": "MoS2", "zigzag_A": 3.16},
    "energy_keV": 80,
    "thermal": {"motion": "full"},
    "aperture": {"edge_mrad": 0.0, "profile": "erf"},
}
AUGMENTATION = {"pixels": PIXELS, "field_of_view_mrad": 32.0, "image_mean": [0.2, 0.3]}


def settings(*steps, batch_size=16, seed=1, network=NETWORK):
    return TrainingSettings(network, SteppedSchedule(steps), batch_size, 0.9, seed)


def spots(examples, seed):
    """Images whose spot lies where strain xx and yy say; nothing else can be read from them."""
    random = np.random.default_rng(seed)
    labels = random.uniform(-1, 1, (examples, 6)) * [0.05, 0.05, 0.05, 10, 5, 5]
    axis = np.arange(PIXELS) - PIXELS // 2
    x, y = 80 * labels[:, 0, None, None], 80 * labels[:, 1, None, None]
    images = np.exp(-((axis[None, None, :] - x) ** 2 + (axis[None, :, None] - y) ** 2) / 4)
    images *= random.uniform(0.2, 0.3, (examples, 1, 1)) / images.mean(axis=(1, 2), keepdims=True)
    return Dataset(
        images=images.astype(np.float16),
        labels=labels.astype(np.float32),
        draws=1000 * seed + np.arange(examples),  # no two sets share a draw
        transformations=np.full((examples, 6), 1e7, np.float32),
        attributes={"seed": seed, "simulation": SIMULATION, "augmentation": AUGMENTATION},
    )


def understated(examples, seed):
    """The same, but labelled with a third of the truth: what is best on it comes half-way."""
    one = spots(examples, seed)
    labels = one.labels * np.array([1 / 3, 1 / 3, 0, 0, 0, 0], np.float32)
    return replace(one, labels=labels)


def deterministic():
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def validation_loss(folder, data):
    model = keras.saving.load_model(folder / "model.keras")
    predicted = model.predict(data.images[..., None], verbose=0)
    return np.mean((predicted - SCALING.scale(data.columns(SCALING.parameters))) ** 2)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learned")
    train(spots(512, 1), spots(64, 2), SCALING, settings((2, 0.01), (14, 0.05), (4, 0.01)), folder)
    return folder


# What is kept


def test_the_products_are_a_model_its_history_and_its_settings(learned):
    assert sorted(path.name for path in learned.iterdir()) == sorted(PRODUCTS)
    history = pd.read_csv(learned / "history.csv")
    assert list(history) == ["epoch", "learning_rate", "loss", "validation_loss"]
    assert list(history["epoch"]) == list(range(1, 21))
    assert np.isfinite(history).all().all()
    rates = [0.01] * 2 + [0.05] * 14 + [0.01] * 4
    np.testing.assert_allclose(history["learning_rate"], rates, rtol=1e-6)
    stored = json.loads((learned / "settings.json").read_text())
    assert LabelScaling.from_dict(stored["scaling"]) == SCALING
    assert stored["training"]["momentum"] == 0.9
    assert stored["data"] == spots(1, 1).attributes
    assert stored["validation_loss"] == {"in_training": history["validation_loss"].min()}
    # Two blocks, 4 × 4 × 8 flattened, one hidden layer, four outputs.
    convolutions = (9 + 1) * 4 + (36 + 1) * 4 + (36 + 1) * 8 + (72 + 1) * 8
    assert stored["parameters"] == convolutions + (128 + 1) * 16 + (16 + 1) * 4


def test_the_kept_weights_are_those_of_the_best_validation_epoch(tmp_path):
    validation = understated(64, 4)
    history = train(spots(256, 3), validation, SCALING, settings((12, 0.001)), tmp_path)
    losses = history["validation_loss"]
    assert 0 < losses.idxmin() < len(losses) - 1, "the best epoch was meant to be half-way"
    assert losses.iloc[[0, -1]].min() > 1.3 * losses.min()
    kept = validation_loss(tmp_path, validation)
    assert kept == pytest.approx(losses.min(), rel=1e-4)


def test_the_same_seed_gives_the_same_network(tmp_path):
    keras.utils.set_random_seed(99)
    seen = []

    def report(epoch, epochs, losses):
        seen.append((epoch, epochs, losses["loss"] > 0 < losses["val_loss"]))

    first, again, other = (
        train(spots(64, 1), spots(16, 2), SCALING, one, tmp_path / f"{n}", report)
        for n, one in enumerate(settings((2, 0.01), seed=seed) for seed in (5, 5, 6))
    )
    pd.testing.assert_frame_equal(again, first, rtol=1e-5)
    assert not np.allclose(other["loss"], first["loss"], rtol=1e-3)
    assert seen == 3 * [(1, 2, True), (2, 2, True)]


# What is learned


def predictions(folder, data):
    return predict(folder / "model.keras", folder / "settings.json", data)


def test_a_network_learns_to_read_what_the_images_show(learned):
    table = predictions(learned, spots(128, 7))
    found = errors(table, table).set_index("parameter")
    for name in ("strain_xx", "strain_yy"):
        assert found.loc[name, "mae"] < found.loc[name, "baseline_mae"] / 5
    # What the images do not show cannot be learned.
    assert found.loc["rotation_deg", "mae"] > 0.8 * found.loc["rotation_deg", "baseline_mae"]


def test_predictions_are_in_physical_units_next_to_the_truth(learned):
    data = spots(20, 8)
    data.images[2] = 0  # an image without an electron is no reason to fail
    table = predictions(learned, data)
    names = [(f"true_{name}", f"predicted_{name}") for name in PARAMETERS[:4]]
    assert list(table) == ["draw", "electrons", *chain(*names)]
    assert np.isfinite(table).all().all()
    np.testing.assert_array_equal(table["draw"], data.draws)
    np.testing.assert_allclose(table["true_rotation_deg"], data.labels[:, 3])
    model = keras.saving.load_model(learned / "model.keras")
    scaled = model.predict(data.images[..., None], verbose=0)
    np.testing.assert_allclose(table["predicted_strain_xx"], 0.05 * scaled[:, 0], rtol=1e-5)
    np.testing.assert_allclose(table["predicted_rotation_deg"], 10 * scaled[:, 3], rtol=1e-5)


def test_a_model_with_other_outputs_than_its_settings_is_refused(learned, tmp_path):
    stored = json.loads((learned / "settings.json").read_text())
    stored["scaling"] = vars(
        LabelScaling.from_ranges("strain-rotation-tilt", (0.95, 1.05), (-10, 10), (-5, 5))
    )
    other = tmp_path / "settings.json"
    other.write_text(json.dumps(stored))
    with pytest.raises(PacbedError, match=r"predicts 4 parameters, but .*settings\.json names 6"):
        predict(learned / "model.keras", other, spots(4, 1))


def test_images_of_another_size_are_refused(learned):
    larger = replace(spots(4, 1), images=np.zeros((4, 20, 20), np.float16))
    with pytest.raises(PacbedError, match=r"takes images of 16 pixels, the dataset has 20"):
        predictions(learned, larger)


def test_examples_of_another_simulation_are_refused(learned, tmp_path):
    crystal = {"formula": "WSe2", "zigzag_A": 3.28}
    foreign = {"simulation": {**SIMULATION, "material": crystal}}
    said = r"set is of another simulation than the training set: formula is WSe2, not MoS2\."
    with pytest.raises(PacbedError, match=said):
        predictions(learned, replace(spots(4, 9), attributes=foreign))
    sets = spots(32, 1), replace(spots(16, 2), attributes=foreign)
    with pytest.raises(PacbedError, match=said):
        train(*sets, SCALING, settings((1, 0.01)), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_camera_that_a_network_has_not_learnt_is_named(learned, capsys):
    data = spots(4, 9)
    with_mtf = {**data.attributes, "augmentation": {"mtf": {"points": [[0, 1], [0.5, 0.4]]}}}
    predictions(learned, replace(data, attributes=with_mtf))
    assert "not learnt this camera: the dataset has an MTF" in capsys.readouterr().out
    predictions(learned, data)
    assert "camera" not in capsys.readouterr().out
    camera = {"camera": {"ellipticity": [0, 0.01]}}
    elliptical = {**data.attributes, "augmentation": camera}
    predictions(learned, replace(data, attributes=elliptical))
    assert (
        "warning: the network has not learnt this camera: the dataset has ellipticity from 0 to "
        "0.01, not 0 to 0\n"
    ) in capsys.readouterr().out


# Failures


def test_sets_that_share_a_draw_are_refused(tmp_path):
    with pytest.raises(PacbedError, match=r"share 16 draws, such as number 1000.*draws\.split"):
        train(spots(64, 1), spots(16, 1), SCALING, settings((1, 0.01)), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_model_that_cannot_be_written_says_where(tmp_path, monkeypatch):
    def full(network, path, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", full)
    with pytest.raises(PacbedError, match=r"cannot write .*model\.keras.*: No space left"):
        train(spots(32, 1), spots(16, 2), SCALING, settings((1, 0.01)), tmp_path)
    assert not set(PRODUCTS) & {path.name for path in tmp_path.iterdir()}


def test_a_diverging_training_ends_at_once_and_saves_the_batch(tmp_path):
    said = r"the loss of batch [23] of epoch 1 is (nan|inf): the training has diverged\. Lower .*"
    said += r"learning_rate_steps.*\. Its batch of 16 examples, all of them finite, is in "
    with pytest.raises(PacbedError, match=said) as caught:
        train(spots(64, 1), spots(16, 2), SCALING, settings((5, 1e6)), tmp_path / "model")
    (file,) = (tmp_path / "model").iterdir()
    assert str(caught.value).endswith(str(file))
    with np.load(file) as saved:
        batch = int(re.search(r"batch (\d)", str(caught.value))[1])
        order = stream(1, "shuffle", 0).permutation(64)[16 * batch - 16 : 16 * batch]
        np.testing.assert_array_equal(saved["images"][..., 0], spots(64, 1).images[order])
        assert saved["targets"].shape == (16, 4)
        assert saved["epoch"] == 1


def test_images_that_are_not_finite_are_said_to_be_so(tmp_path):
    data = spots(64, 1)
    data.images[5, 3, 3] = np.nan
    with pytest.raises(PacbedError, match=r"1 of them not finite, is in .*diverged_batch\.npz"):
        train(data, spots(16, 2), SCALING, settings((5, 0.01)), tmp_path / "model")


def test_a_training_that_diverges_in_its_last_step_says_so_too(tmp_path):
    # One batch: its loss is that of the initial weights, only the validation sees what came of it.
    diverging = settings((1, 1e30), batch_size=64)
    with pytest.raises(PacbedError, match=r"validation loss after epoch 1 is .* diverged"):
        train(spots(64, 1), spots(16, 2), SCALING, diverging, tmp_path / "model")
    assert list((tmp_path / "model").iterdir()) == []


# Optimizers


def test_adam_scales_the_steps_of_each_weight():
    """Its first step changes every weight by the rate, whatever the gradient; momentum is kept."""
    schedule = OneCycleSchedule(4, 0.01, 0.0)
    one = TrainingSettings(NETWORK, schedule, 16, 0.7, 0, optimizer="adam")
    optimizer = make_optimizer(schedule.of_batches(4), one)
    assert optimizer.beta_1 == 0.7
    weights = keras.Variable([1.0, 1.0])
    optimizer.apply([keras.ops.array([1e-3, -50.0])], [weights])
    np.testing.assert_allclose(weights, [0.99, 1.01], rtol=1e-3)


@pytest.mark.parametrize("precision", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_the_loss_is_scaled_where_small_gradients_would_vanish(precision):
    one = replace(settings((1, 0.1)), precision=precision)
    made = make_optimizer(one.schedule.of_batches(4), one)
    scaled = isinstance(made, keras.optimizers.LossScaleOptimizer)
    assert scaled == (precision == "mixed_float16")
