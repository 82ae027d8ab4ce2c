"""Training with examples that the device makes anew, and what makes trainings faster."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from test_training import (
    SCALING,
    SIMULATION,
    deterministic,
    settings,
    spots,
    understated,
    validation_loss,
)

from pacbed.examples.augment_layer import Augmentation
from pacbed.examples.dataset import Dataset, read_dataset, write_dataset
from pacbed.examples.labels import LabelScaling
from pacbed.examples.pattern_set import PatternSet
from pacbed.examples.source import ExampleSource
from pacbed.exceptions import PacbedError
from pacbed.learning.checkpoint import fingerprint
from pacbed.learning.network import NetworkSettings, build_network
from pacbed.learning.prediction import predict
from pacbed.learning.schedule import OneCycleSchedule
from pacbed.learning.sequences import OnlineSequence, StoredSequence
from pacbed.learning.training import DIVERGED, train
from pacbed.precision.metrics import errors
from pacbed.study.model import Configuration

# What they share takes longer than they do: all in one process.
pytestmark = pytest.mark.xdist_group("online")

PIXELS = 16
PIXEL_MRAD = (1.6, 1.2)
AUGMENTATION = replace(
    Configuration().augmentation(),
    pixels=PIXELS,
    field_of_view_mrad=32,
    field_of_view_variation=0.03,
    translation_px=0.5,
    noise="poisson",
    electrons=(1e4, 1e6),
)
TILT_TOO = LabelScaling.from_ranges("strain-rotation-tilt", (0.95, 1.05), (-10, 10), (-5, 5))


def library(draws, seed):
    """Patterns whose spot lies where strain xx and yy say: up to five pixels from the centre."""
    parameters = np.random.default_rng(seed).uniform(-1, 1, (draws, 5)) * [0.05, 0.05, 0.05, 5, 5]
    kx = (np.arange(32) - 16) * PIXEL_MRAD[0] - 200 * parameters[:, 0, None, None]
    ky = (np.arange(41)[:, None] - 20) * PIXEL_MRAD[1] - 200 * parameters[:, 1, None, None]
    patterns = (np.exp(-(kx**2 + ky**2) / 18) / 30).astype(np.float32)
    return PatternSet(patterns, PIXEL_MRAD, range(100, 100 + draws), parameters, SIMULATION)


def online(examples=80, draws=20, seed=3, address=(5, 20.0, 3, "train"), **changes):
    source = ExampleSource(library(draws, seed), AUGMENTATION, examples, address)
    return replace(source, **changes)


def stored(draws, examples, seed):
    """Examples of other patterns, as of a file."""
    source = online(examples, draws, seed)
    pattern, transformation, key = source.draw(0, examples)
    images = Augmentation(source.library, AUGMENTATION).arrays(pattern, transformation, key)
    labels = source.labels(pattern, transformation).astype(np.float32)
    return Dataset(images.astype(np.float16), labels, pattern, transformation, source.attributes)


ONLINE = online(), stored(8, 32, 4)
SOURCES = {"online": ONLINE, "stored": (spots(72, 3), understated(40, 4))}
EPOCHS = 3
SMALL = settings((EPOCHS, 0.02), network=NetworkSettings(filters=(4,), dense=(8,)))


@pytest.fixture(scope="module", autouse=True)
def _deterministic():
    deterministic()


# Batches


def batches(source=ONLINE[0], scaling=SCALING, size=16, epoch=0):
    made = OnlineSequence(source, scaling, size)
    made.begin_epoch(epoch)
    return made


def assert_alike(one, two):
    for array, other in zip((*one[0], one[1]), (*two[0], two[1]), strict=True):
        np.testing.assert_array_equal(array, other)


def test_a_batch_depends_on_epoch_and_number_alone():
    made = batches(epoch=3)
    ahead = [made[number] for number in range(5)]
    made.begin_epoch(1)
    seen = [*ahead, *(made[number] for number in range(5))]
    keys = np.concatenate([key for (_, _, key), _ in seen])
    assert len(np.unique(keys, axis=0)) == 160
    made.begin_epoch(3)
    for number in reversed(range(5)):
        assert_alike(made[number], ahead[number])


def test_batches_of_any_size_have_the_same_examples_in_the_same_order():
    whole = batches(online(examples=1000), size=1000, epoch=2)[0]
    made = batches(online(examples=70), epoch=2)
    assert [len(made[number][1]) for number in range(len(made))] == [16] * 4 + [6]
    for number in range(len(made)):
        rows = slice(16 * number, min(16 * number + 16, 70))
        assert_alike(made[number], ([part[rows] for part in whole[0]], whole[1][rows]))


def test_labels_are_those_of_the_pattern_and_the_drawn_rotation():
    inputs, targets = batches(scaling=TILT_TOO, epoch=2)[1]
    labels, (pattern, transformation, _) = TILT_TOO.unscale(targets), inputs
    parameters = ONLINE[0].library.parameters[pattern]
    np.testing.assert_allclose(labels[:, :3], parameters[:, :3], atol=1e-7)
    np.testing.assert_allclose(labels[:, 3], transformation[:, 0], atol=1e-5)
    np.testing.assert_allclose(labels[:, 4:], parameters[:, 3:], atol=1e-5)
    assert_alike((inputs, targets[:, :4]), batches(epoch=2)[1])


def test_every_pattern_is_equally_likely():
    (pattern, _, _), _ = batches(online(examples=10_000), size=10_000)[0]
    counts = np.bincount(pattern, minlength=20)
    assert len(counts) == 20
    assert np.abs(counts - 500).max() < 5 * np.sqrt(500)


@pytest.mark.parametrize("noise", ["lognormal", "poisson"])
def test_the_first_epoch_has_the_examples_of_the_file(tmp_path, noise):
    source = online(examples=100, settings=replace(AUGMENTATION, noise=noise))
    write_dataset(tmp_path / "train.zarr.zip", source)
    data = read_dataset(tmp_path / "train.zarr.zip")
    sequence = OnlineSequence(source, SCALING, 7)
    layer = Augmentation(source.library, source.settings)
    images = np.concatenate([layer.arrays(*sequence[n][0]) for n in range(len(sequence))])
    np.testing.assert_array_equal(images.astype(np.float16), data.images)
    targets = np.concatenate([sequence[n][1] for n in range(len(sequence))])
    np.testing.assert_allclose(targets, StoredSequence(data, SCALING, 100)[0][1], rtol=1e-6)


def test_stored_examples_come_once_in_every_epoch_in_an_order_of_its_own():
    data = spots(70, 3)
    seen = []
    for epoch in (0, 1, 0):
        made = StoredSequence(data, SCALING, 16, shuffle_seed=5)
        made.begin_epoch(epoch)
        images = np.concatenate([made[number][0][..., 0] for number in range(len(made))])
        same = (data.images[None] == images[:, None]).all(axis=(2, 3))
        seen.append(same.argmax(axis=1).tolist())
    assert sorted(seen[0]) == sorted(seen[1]) == list(range(70))
    assert seen[0] != seen[1]
    assert seen[0] == seen[2]


@pytest.mark.parametrize(
    "other",
    [
        online(library=replace(ONLINE[0].library, patterns=library(20, 4).patterns)),
        online(library=replace(ONLINE[0].library, parameters=library(20, 4).parameters)),
        online(library=replace(ONLINE[0].library, draws=range(20))),
        online(examples=81),
        online(address=(6, 20.0, 3, "train")),
        online(settings=replace(AUGMENTATION, translation_px=1)),
    ],
    ids=["patterns", "parameters", "draws", "examples", "address", "augmentation"],
)
def test_other_examples_have_another_fingerprint(other):
    def digest(data):
        return fingerprint(dict(batches(data).attributes), batches(data).arrays)

    assert digest(other) != digest(ONLINE[0])
    assert digest(replace(other)) == digest(other)


# What is learned

LEARNING = replace(settings((1, 0.1)), schedule=OneCycleSchedule(8, 0.1, 0.25), batch_size=32)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learned")
    train(online(300, 200, 1), stored(40, 80, 2), SCALING, LEARNING, folder)
    return folder


def test_a_network_trained_online_reads_patterns_it_has_not_seen(learned):
    table = predict(learned / "model.keras", learned / "settings.json", stored(60, 120, 9))
    found = errors(table, table).set_index("parameter")
    for name in ("strain_xx", "strain_yy"):
        assert found.loc[name, "mae"] < found.loc[name, "baseline_mae"] / 3


def test_the_kept_network_takes_images_and_its_settings_say_how_they_were_made(learned):
    network = keras.saving.load_model(learned / "model.keras")
    assert network.input_shape == (None, PIXELS, PIXELS, 1)
    assert [layer.name for layer in network.layers if "augment" in layer.name] == []
    data = json.loads((learned / "settings.json").read_text())["data"]
    assert (data["online"], data["split"], data["examples"]) == (True, "train", 300)
    assert (data["seed"], data["semiangle_mrad"], data["layers"]) == (5, 20.0, 3)
    assert data["augmentation"]["noise"] == "poisson"


# The same to the last bit


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a function that makes a training, once of each source and number of epochs."""

    @cache
    def of(source, epochs=EPOCHS, averaged_epochs=0):
        folder = tmp_path_factory.mktemp(source)
        one = replace(SMALL, schedule=settings((epochs, 0.02)).schedule)
        train(*SOURCES[source], SCALING, replace(one, averaged_epochs=averaged_epochs), folder)
        return folder

    return of


def test_a_training_stopped_by_sigterm_goes_on_to_the_same_end(whole, tmp_path):
    def stop(epoch, epochs, losses):
        os.kill(os.getpid(), signal.SIGTERM)

    arguments = *ONLINE, SCALING, SMALL, tmp_path
    with pytest.raises(SystemExit):
        train(*arguments, stop)
    assert not (tmp_path / "model.keras").exists()
    epochs = []
    train(*arguments, lambda epoch, *_: epochs.append(epoch))
    assert epochs in ([2, 3], [3])
    for name in ("model.keras", "history.csv"):
        assert (tmp_path / name).read_bytes() == (whole("online") / name).read_bytes()


# The mean of the weights


def weights(folder):
    variables = keras.saving.load_model(folder / "model.keras").weights
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


@pytest.mark.parametrize("source", SOURCES)
def test_the_best_of_single_and_mean_weights_is_kept(whole, source):
    folder = whole(source, averaged_epochs=2)
    losses = pd.read_csv(folder / "history.csv")["validation_loss"]
    assert validation_loss(folder, SOURCES[source][1]) == pytest.approx(losses.min(), rel=1e-4)
    if source == "stored":  # best before there is a mean
        assert losses.argmin() == 0
        expected = weights(whole(source, 1))
    else:
        assert losses.argmin() == EPOCHS - 1
        # Of each the last epoch is best, so that its weights are those that are kept.
        singles = [whole(source, epochs) for epochs in (2, 3)]
        for one in singles:
            assert (
                best := pd.read_csv(one / "history.csv")["validation_loss"]
            ).argmin() + 1 == len(best)
        expected = [np.mean(pair, axis=0) for pair in zip(*map(weights, singles), strict=True)]
    for found, value in zip(weights(folder), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-7)


# Warm start


def test_a_training_begins_with_the_weights_of_another_network(learned, tmp_path):
    before = pd.read_csv(learned / "history.csv")["loss"]
    initial = learned / "model.keras"
    gentle = replace(LEARNING, schedule=settings((1, 1e-3)).schedule, seed=2)
    data = online(128, 200, 1), stored(8, 16, 2)
    history = train(*data, SCALING, gentle, tmp_path, initial=initial)
    assert history["loss"][0] < 0.65 * before[0]
    assert history["loss"][0] == pytest.approx(before.iloc[-1], rel=0.3)
    digest = hashlib.sha256(initial.read_bytes()).hexdigest()
    assert json.loads((tmp_path / "settings.json").read_text())["initial"] == digest


@pytest.mark.parametrize(
    "other", [{"filters": (4, 6)}, {"dense": (8,)}, {"outputs": 6}, {"pixels": 24}, None]
)
def test_a_network_of_other_widths_or_none_is_no_beginning(tmp_path, other):
    initial = tmp_path / "other.keras"
    said = (
        rf"cannot begin with the weights of {initial}: .* other layers, widths, outputs or images"
    )
    if other:
        sizes = other.pop("pixels", PIXELS), other.pop("outputs", 4)
        build_network(*sizes, replace(LEARNING.network, **other)).save(initial)
    else:
        said = rf"cannot load {initial}"
        initial.write_text("no network")
    with pytest.raises(PacbedError, match=said):
        train(*ONLINE, SCALING, LEARNING, tmp_path / "new", initial=initial)
    assert not (tmp_path / "new").exists()


# Divergence


def test_a_training_that_diverges_online_saves_what_its_batch_is_made_of(tmp_path):
    source = online(draws=200)
    # A pattern without truth that is shown first in the third batch.
    shown = [set(batches(source)[number][0][0]) for number in range(3)]
    source.library.parameters[min(shown[2] - shown[0] - shown[1])] = np.nan
    said = r"the loss of batch 3 of epoch 1 is nan: .*diverged.* 16 examples, [12] of them not fin"
    with pytest.raises(PacbedError, match=said):
        train(source, ONLINE[1], SCALING, SMALL, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [DIVERGED]
    (pattern, transformation, key), targets = batches(source)[2]
    with np.load(tmp_path / DIVERGED) as saved:
        np.testing.assert_array_equal(saved["pattern"], pattern)
        np.testing.assert_array_equal(saved["transformation"], transformation)
        np.testing.assert_array_equal(saved["targets"], targets)
        images = Augmentation(source.library, AUGMENTATION).arrays(pattern, transformation, key)
        np.testing.assert_array_equal(saved["images"][..., 0], images)


# Precision and XLA


@pytest.mark.parametrize(
    ("precision", "source"), [("mixed_bfloat16", "online"), ("mixed_float16", "stored")]
)
def test_a_network_trained_in_half_precision_is_kept_in_single(whole, tmp_path, precision, source):
    one = replace(SMALL, precision=precision, schedule=settings((1, 0.02)).schedule)
    history = train(*SOURCES[source], SCALING, one, tmp_path)
    network = keras.saving.load_model(tmp_path / "model.keras")
    assert not network.compiled
    assert {layer.compute_dtype for layer in network.layers} == {"float32"}
    losses = json.loads((tmp_path / "settings.json").read_text())["validation_loss"]
    own = validation_loss(tmp_path, SOURCES[source][1])
    assert losses["of_the_model"] == pytest.approx(own, rel=1e-4)
    assert losses["in_training"] != losses["of_the_model"]
    assert losses["in_training"] == pytest.approx(losses["of_the_model"], rel=0.05)
    # It is nearly the training in single precision.
    single = pd.read_csv(whole(source, 1) / "history.csv")["loss"][0]
    assert history["loss"][0] == pytest.approx(single, rel=0.05)


@pytest.fixture
def _without_determinism():
    """With deterministic operations Keras does not use XLA, whatever it is asked for."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("XLA is a choice with TensorFlow only")
    from tensorflow.python.framework import config

    config.disable_op_determinism()
    yield
    config.enable_op_determinism()


@pytest.mark.usefixtures("_without_determinism")
@pytest.mark.parametrize("source", SOURCES)
def test_a_training_with_xla_is_nearly_the_same(tmp_path, recwarn, source):
    # Random means of images would be others with XLA.
    network = replace(SMALL.network, dense=(), image_mean=(0.25, 0.25))
    one = replace(SMALL, network=network, schedule=settings((1, 0.006)).schedule)
    histories = [
        train(*SOURCES[source], SCALING, replace(one, xla=xla), tmp_path / str(xla)).loc[0]
        for xla in (False, True)
    ]
    assert not [str(one.message) for one in recwarn if "jit_compile" in str(one.message)]
    np.testing.assert_allclose(*histories, rtol=1e-3)
    models = [(tmp_path / name / "model.keras").read_bytes() for name in ("False", "True")]
    assert models[0] != models[1], "XLA was not used"
    losses = json.loads((tmp_path / "True/settings.json").read_text())["validation_loss"]
    assert losses["of_the_model"] == pytest.approx(losses["in_training"], rel=1e-3)


# Another backend

ESSENTIAL = [
    "test_the_layer_resamples_as_scipy[oblong-33]",
    "test_the_words_are_those_of_threefry",
    "test_normal_numbers_are_those_of_the_reference",
    "test_the_signal_has_the_rank_of_the_normal_number[5-poisson]",
    "test_the_signal_has_the_rank_of_the_normal_number[30-poisson]",
    "test_images_are_those_of_the_reference_and_have_the_drawn_means",
]


def test_another_backend_makes_the_same_examples_and_goes_on_too(tmp_path):
    pytest.importorskip("jax")
    layer = Path(__file__).parents[1] / "examples/test_augment_layer.py"
    training = f"{__file__}::test_a_training_stopped_by_sigterm_goes_on_to_the_same_end"
    essential = [*(f"{layer}::{test}" for test in ESSENTIAL), training]
    # Most of the time would go into the compilation of each small operation, and into TensorFlow,
    # which Keras imports where it is installed.
    (tmp_path / "tensorflow.py").write_text("raise ImportError\n")
    faster = {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-x", *essential],
        env={**os.environ, **faster, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout
    assert "11 passed" in done.stdout
