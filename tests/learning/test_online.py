"""Training with examples that the device makes anew, and what makes trainings faster.

Run as a program, this file trains in a folder, to be killed there.
"""

import hashlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import center_of_mass
from test_augment import spot
from test_checkpoint import DATA, arrange_sigterm, assert_same, deterministic
from test_checkpoint import attempt as attempt_with
from test_training import SCALING, settings, spots

from pacbed.examples.augment import (
    AugmentationSettings,
    Transformation,
    draw_transformation,
    make_image,
)
from pacbed.examples.augment_layer import Augmentation
from pacbed.examples.dataset import Dataset
from pacbed.examples.labels import LabelScaling
from pacbed.examples.pattern_set import PatternSet
from pacbed.exceptions import PacbedError
from pacbed.learning import checkpoint as training_checkpoint
from pacbed.learning.checkpoint import fingerprint
from pacbed.learning.network import build_network
from pacbed.learning.prediction import predict
from pacbed.learning.schedule import OneCycleSchedule
from pacbed.learning.sequences import OnlineBatches, OnlineExamples
from pacbed.learning.training import DIVERGED, train
from pacbed.precision.metrics import errors
from pacbed.storage.zipped import checkpoint_of

PIXELS = 16
PIXEL_MRAD = (1.6, 1.2)
AUGMENTATION = AugmentationSettings(
    pixels=PIXELS,
    field_of_view_mrad=32,
    field_of_view_variation=0.03,
    rotation_deg=(-10, 10),
    translation_px=0.5,
    noise="poisson",
    electrons=(1e4, 1e6),
    image_mean=(0.2, 0.3),
)
TILT_TOO = LabelScaling.from_ranges("strain-rotation-tilt", (0.95, 1.05), (-10, 10), (-5, 5))
# In mrad for each strain: up to five pixels of an example.
PLACE = 200


def library(draws, seed):
    """Patterns whose spot lies where strain xx and yy say."""
    parameters = np.random.default_rng(seed).uniform(-1, 1, (draws, 5)) * [0.05, 0.05, 0.05, 5, 5]
    places = PLACE * parameters[:, :2]
    patterns = np.stack([spot(*place, 3.0, (41, 32), PIXEL_MRAD) for place in places])
    return PatternSet(patterns.astype(np.float32), PIXEL_MRAD, range(100, 100 + draws), parameters)


def stored(draws, examples, seed):
    """Examples of other patterns, as of a file."""
    source, source_of_noise = library(draws, seed), np.random.default_rng(seed)
    averaged = source.averaged(AUGMENTATION.pixel_mrad)
    chosen = np.arange(examples) % draws
    some = [draw_transformation(source_of_noise, AUGMENTATION) for _ in chosen]
    images = [
        make_image(averaged.patterns[n], PIXEL_MRAD, one, AUGMENTATION, source_of_noise)
        for n, one in zip(chosen, some, strict=True)
    ]
    labels = np.insert(source.parameters[chosen], 3, [one.rotation_deg for one in some], axis=1)
    electrons = np.array([one.electrons for one in some], np.float32)
    images = np.array(images, np.float16)
    return Dataset(images, labels.astype(np.float32), chosen, electrons, {"seed": seed})


def online(examples=80, draws=20, seed=3, address=(5, 20.0, 3)):
    return OnlineExamples(library(draws, seed), AUGMENTATION, examples, address)


ONLINE = online(), stored(8, 32, 4)
SOURCES = {"online": ONLINE, "stored": DATA}
EPOCHS, AVERAGED = 3, 2
NETWORK = {"filters": (4,), "dense": (8,), "intensity": "linear", "image_mean": (0.2, 0.3)}
CHANGES = {
    "network": NETWORK,
    "schedule": settings((EPOCHS, 0.02)).schedule,
    "averaged_epochs": AVERAGED,
}


def attempt(folder, report=None, source="online", **more):
    """Train a small network with a checkpoint; return the log."""
    return attempt_with(folder, report, SOURCES[source], **{**CHANGES, **more})


@pytest.fixture(scope="module", autouse=True)
def _deterministic():
    deterministic()


@pytest.fixture(autouse=True)
def _a_state_after_every_epoch(monkeypatch):
    monkeypatch.setattr(training_checkpoint, "PAUSE", 0)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a busy disk takes seconds


# Batches


def batches(data=ONLINE[0], scaling=SCALING, size=16, epoch=0, first=0):
    made = OnlineBatches(data, scaling, size)
    made.begin(epoch, first)
    return made


def assert_alike(one, two):
    (pattern, transformation), targets = one
    np.testing.assert_array_equal(pattern, two[0][0])
    np.testing.assert_array_equal(transformation, two[0][1])
    np.testing.assert_array_equal(targets, two[1])


def differ(one, two):
    return not np.array_equal(one[0][0], two[0][0]) and not np.array_equal(one[0][1], two[0][1])


def test_a_batch_does_not_depend_on_those_made_before():
    made = batches(epoch=3)
    ahead = [made[number] for number in range(5)]
    back = [made[number] for number in reversed(range(5))][::-1]
    for one, two in zip(ahead, back, strict=True):
        assert_alike(one, two)
    made.begin(1, 0)
    assert differ(made[2], ahead[2])
    made.begin(3, 2)
    assert_alike(made[0], ahead[2])
    assert_alike(made[2], ahead[4])


def test_an_epoch_that_begins_in_its_midst_is_shorter():
    made = batches(first=2)
    assert (made.total, len(made)) == (5, 3)


def test_the_last_batch_of_an_epoch_is_smaller():
    made = batches(online(examples=70))
    sizes = [len(made[number][1]) for number in range(len(made))]
    assert sizes == [16] * 4 + [6]
    for (pattern, transformation), targets in (made[3], made[4]):
        assert (pattern.shape, transformation.shape) == (targets.shape[:1], (len(targets), 6))


def test_batches_epochs_and_addresses_have_examples_of_their_own():
    addresses = [(5, 20.0, 3), (6, 20.0, 3), (5, 21.0, 3), (5, 20.0, 4)]
    seen = [
        batches(online(address=address), epoch=epoch)[number]
        for address in addresses
        for epoch in (0, 1)
        for number in (0, 1)
    ]
    for n, one in enumerate(seen):
        assert all(differ(one, two) for two in seen[:n])


def test_a_longer_epoch_begins_with_the_same_batches():
    assert_alike(batches(online(examples=1000))[3], batches()[3])


def test_networks_of_four_and_of_six_outputs_see_the_same_examples():
    four, six = (batches(scaling=scaling, epoch=2) for scaling in (SCALING, TILT_TOO))
    for number in range(5):
        (inputs, targets), (more_inputs, more_targets) = four[number], six[number]
        assert more_targets.shape[1] == 6
        assert_alike((inputs, targets), (more_inputs, more_targets[:, :4]))


def test_the_scaling_changes_labels_alone():
    (inputs, targets), (same, physical) = (
        batches(scaling=scaling)[1]
        for scaling in (SCALING, replace(SCALING, half_range=(1.0,) * 4))
    )
    assert_alike((inputs, targets), (same, targets))
    np.testing.assert_allclose(targets * SCALING.half_range, physical, rtol=1e-5)


def test_labels_are_those_of_the_pattern_and_the_drawn_rotation():
    (pattern, transformation), targets = batches(scaling=TILT_TOO)[1]
    labels = TILT_TOO.unscale(targets)
    parameters = ONLINE[0].library.parameters[pattern]
    np.testing.assert_allclose(labels[:, :3], parameters[:, :3], atol=1e-7)
    np.testing.assert_allclose(labels[:, 3], transformation[:, 0], atol=1e-5)
    np.testing.assert_allclose(labels[:, 4:], parameters[:, 3:], atol=1e-5)


def test_every_pattern_is_equally_likely():
    made = batches(size=10_000, data=online(examples=10_000))
    counts = np.bincount(made[0][0][0], minlength=20)
    assert len(counts) == 20
    assert np.abs(counts - 500).max() < 5 * np.sqrt(500)


def test_images_show_what_their_labels_say():
    data = online()
    averaged = data.library.averaged(AUGMENTATION.pixel_mrad)
    layer = Augmentation(averaged.patterns, PIXEL_MRAD, AUGMENTATION, seed=0)
    (pattern, transformation), targets = batches(data)[0]
    transformation[:, 4] = 1e9  # hardly any noise
    images = keras.ops.convert_to_numpy(layer(pattern, transformation))[..., 0]
    for image, row, label in zip(images, transformation, SCALING.unscale(targets), strict=True):
        one, angle = Transformation(*row), np.radians(label[3])
        kx, ky = PLACE * label[:2] * PIXELS / one.field_of_view_mrad
        x = np.cos(angle) * kx - np.sin(angle) * ky + one.shift_x_px
        y = np.sin(angle) * kx + np.cos(angle) * ky + one.shift_y_px
        # Of the middle of the spot: its far side may lie beyond the image.
        row, column = center_of_mass(np.where(image > image.max() / 3, image, 0))
        assert (column - 8, row - 8) == pytest.approx((x, y), abs=0.35)


def with_library(**changes):
    return replace(ONLINE[0], library=replace(ONLINE[0].library, **changes))


@pytest.mark.parametrize(
    "other",
    [
        with_library(patterns=library(20, 4).patterns),
        with_library(parameters=library(20, 4).parameters),
        with_library(draws=range(20)),
        online(examples=81),
        online(address=(6, 20.0, 3)),
        replace(ONLINE[0], settings=replace(AUGMENTATION, translation_px=1)),
    ],
    ids=["patterns", "parameters", "draws", "examples", "address", "augmentation"],
)
def test_other_examples_have_another_fingerprint(other):
    def digest(data):
        made = batches(data)
        return fingerprint(dict(made.attributes), made.arrays())

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


def test_settings_say_that_examples_were_made_online(learned):
    data = json.loads((learned / "settings.json").read_text())["data"]
    assert (data["online"], data["split"], data["examples"]) == (True, "train", 300)
    assert (data["seed"], data["semiangle_mrad"], data["layers"]) == (5, 20.0, 3)
    assert data["augmentation"]["noise"] == "poisson"


def test_the_kept_network_takes_images(learned):
    network = keras.saving.load_model(learned / "model.keras")
    assert network.input_shape == (None, PIXELS, PIXELS, 1)
    assert [layer.name for layer in network.layers if "augment" in layer.name] == []


# A training that was stopped or killed goes on


class Weights:
    """Collects the weights after every epoch, from what is kept of the unfinished training."""

    def __init__(self, folder):
        self.path = checkpoint_of(folder / "model.keras")
        self.seen = []

    def __call__(self, epoch, epochs, losses):
        with np.load(self.path) as kept:
            count = len(build_network(PIXELS, 4, (4,), (8,)).variables)
            self.seen.append([kept[f"variable_{n}"] for n in range(count)])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a function that makes a training that nothing interrupts, once of each source.

    It returns the folder, and the weights after each epoch.
    """

    @cache
    def of(source):
        folder = tmp_path_factory.mktemp(source)
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(training_checkpoint, "PAUSE", 0)
            weights = Weights(folder)
            assert attempt(folder, weights, source) == []
        return folder, weights.seen

    return of


def test_the_same_seed_gives_the_same_network_to_the_last_bit(whole, tmp_path):
    # In each epoch, whether their mean is wanted or not: the training goes on with its own weights.
    keras.utils.set_random_seed(99)
    again = Weights(tmp_path)
    attempt(tmp_path, again, averaged_epochs=0)
    folder, weights = whole("online")
    for one, two in zip(again.seen, weights, strict=True):
        for array, other in zip(one, two, strict=True):
            np.testing.assert_array_equal(array, other)
    alone, averaged = (pd.read_csv(path / "history.csv") for path in (tmp_path, folder))
    np.testing.assert_array_equal(alone["loss"], averaged["loss"])
    same = alone["validation_loss"] == averaged["validation_loss"]
    assert list(same) == [True, True, False]


STOPS = {
    # Within the last epoch, when the mean of the weights has begun; while another is validated.
    "online": ("on_train_batch_begin", EPOCHS, 2, "batch 3 of 5"),
    "stored": ("on_test_batch_begin", EPOCHS, 1, "the validation"),
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_training_stopped_by_sigterm_goes_on_to_the_same_end(
    whole, tmp_path, monkeypatch, source
):
    method, epoch, batch, place = STOPS[source]
    arrange_sigterm(monkeypatch, method, epoch, batch)
    with pytest.raises(SystemExit):
        attempt(tmp_path, source=source)
    [line] = attempt(tmp_path, source=source)
    assert line.startswith("goes on from ")
    assert place in line
    assert_same(tmp_path, whole(source)[0])


def test_a_training_killed_at_any_moment_goes_on_to_the_same_end(whole, tmp_path):
    for source in SOURCES:
        (tmp_path / source).mkdir()
    command = [sys.executable, __file__, *(str(tmp_path / source) for source in SOURCES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for source in SOURCES:
        log = attempt(tmp_path / source, source=source)
        assert [line.startswith("goes on from ") for line in log] == [True], log
        assert_same(tmp_path / source, whole(source)[0])


def train_until_killed(folder):
    """Train, and be killed at another moment each time, but after the first epoch."""
    deterministic()
    training_checkpoint.PAUSE = 0
    killer = threading.Timer(random.uniform(0, 0.2), os.kill, (os.getpid(), signal.SIGKILL))
    killer.daemon = True

    def report(epoch, epochs, losses):
        if epoch == 1:
            killer.start()
        if epoch == epochs - 1:
            killer.join()

    attempt(folder, report, folder.name)


# The mean of the weights


def kept_by_hand(weights, losses):
    """The weights that should be kept: of an epoch, or the mean from an epoch on."""
    best, first = int(np.argmin(losses)), EPOCHS - AVERAGED
    if best < first:
        return weights[best]
    return [np.mean(values, axis=0) for values in zip(*weights[first : best + 1], strict=True)]


@pytest.mark.parametrize("source", SOURCES)
def test_the_best_of_single_and_mean_weights_is_kept(whole, source):
    folder, weights = whole(source)
    losses = pd.read_csv(folder / "history.csv")["validation_loss"]
    # Online the last mean is best, of the stored examples an epoch before there is one.
    if keras.backend.backend() == "tensorflow":
        assert losses.argmin() == {"online": EPOCHS - 1, "stored": 0}[source]
    network = keras.saving.load_model(folder / "model.keras")
    expected = kept_by_hand(weights, losses)
    for variable, value in zip(network.variables, expected, strict=True):
        if "float" in str(variable.dtype):
            np.testing.assert_allclose(np.array(variable), value, rtol=1e-5, atol=1e-7)
    assert validation_loss(network, SOURCES[source][1]) == pytest.approx(losses.min(), rel=1e-4)


def validation_loss(network, data):
    predicted = network.predict(data.images[..., None], verbose=0)
    return np.mean((predicted - SCALING.scale(data.columns(SCALING.parameters))) ** 2)


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
    "other", [{"filters": (4, 6)}, {"dense": (8,)}, {"outputs": 6}, {"pixels": 24}]
)
def test_a_network_of_other_widths_is_no_beginning(tmp_path, other):
    known = {"pixels": PIXELS, "outputs": 4, "filters": (4, 8), "dense": (16,)}  # of LEARNING
    build_network(**{**known, **other}).save(tmp_path / "other.keras")
    said = r"cannot begin with the weights of .*other\.keras: .* other widths, outputs or images"
    with pytest.raises(PacbedError, match=said):
        train(*DATA, SCALING, LEARNING, tmp_path / "new", initial=tmp_path / "other.keras")
    assert not (tmp_path / "new").exists()


def test_a_file_that_is_no_network_is_no_beginning(tmp_path):
    (tmp_path / "other.keras").write_text("no network")
    with pytest.raises(PacbedError, match=r"cannot load .*other\.keras"):
        train(*DATA, SCALING, LEARNING, tmp_path / "new", initial=tmp_path / "other.keras")


# Divergence


def test_a_training_that_diverges_online_saves_patterns_and_transformations(tmp_path, monkeypatch):
    # A pattern without truth that is shown first in the fourth batch of the second epoch; stopped
    # before, so that this is not the fourth of the attempt.
    data = online(draws=200)
    seen = [set(batches(data, epoch=n // 5)[n % 5][0][0]) for n in range(9)]
    data.library.parameters[min(seen[8].difference(*seen[:8]))] = np.nan
    again = partial(attempt_with, tmp_path, data=(data, ONLINE[1]), **CHANGES)
    arrange_sigterm(monkeypatch, "on_train_batch_begin", 2, 1)
    with pytest.raises(SystemExit):
        again()
    said = (
        r"the loss of batch 4 of epoch 2 is nan: .*diverged.* 16 examples, [12] of them not finite"
    )
    with pytest.raises(PacbedError, match=said):
        again()
    assert [path.name for path in tmp_path.iterdir()] == [DIVERGED]
    (pattern, transformation), targets = batches(data, epoch=1)[3]
    assert 1 <= np.isnan(targets).any(axis=1).sum() <= 2
    with np.load(tmp_path / DIVERGED) as saved:
        np.testing.assert_array_equal(saved["pattern"], pattern)
        np.testing.assert_array_equal(saved["transformation"], transformation)
        np.testing.assert_array_equal(saved["targets"], targets)
        assert saved["epoch"] == 2
        assert saved["images"].shape == (16, PIXELS, PIXELS, 1)
        means = saved["images"].mean(axis=(1, 2, 3))
        np.testing.assert_allclose(means, transformation[:, 5], rtol=1e-4)


# Precision


@pytest.mark.parametrize(
    ("precision", "source"), [("mixed_bfloat16", "online"), ("mixed_float16", "stored")]
)
def test_a_network_trained_in_half_precision_is_kept_in_single(
    whole, tmp_path, monkeypatch, precision, source
):
    scaled = []

    class LossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
        def __init__(self, *arguments, **more):
            scaled.append(True)
            super().__init__(*arguments, **more)

    monkeypatch.setattr(keras.optimizers, "LossScaleOptimizer", LossScaleOptimizer)
    schedule = settings((1, 0.02)).schedule
    attempt(tmp_path, source=source, precision=precision, schedule=schedule, averaged_epochs=0)
    assert len(scaled) == (precision == "mixed_float16")
    network = keras.saving.load_model(tmp_path / "model.keras")
    assert not network.compiled
    assert {layer.compute_dtype for layer in network.layers} == {"float32"}
    losses = json.loads((tmp_path / "settings.json").read_text())["validation_loss"]
    own = validation_loss(network, SOURCES[source][1])
    assert losses["of_the_model"] == pytest.approx(own, rel=1e-4)
    assert losses["in_training"] != losses["of_the_model"]
    assert losses["in_training"] == pytest.approx(losses["of_the_model"], rel=0.05)
    # It is nearly the training in single precision.
    half, single = (
        pd.read_csv(folder / "history.csv")["loss"][0] for folder in (tmp_path, whole(source)[0])
    )
    assert half == pytest.approx(single, rel=0.05)


# XLA


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
def test_a_training_with_xla_is_nearly_the_same_and_goes_on_when_stopped(
    tmp_path, monkeypatch, recwarn
):
    # Random means of images would be others with XLA.
    network = {**NETWORK, "dense": (), "image_mean": (0.25, 0.25)}
    schedule = settings((2, 0.006)).schedule
    data = spots(64, 3), spots(32, 4)
    again = partial(attempt_with, data=data, network=network, schedule=schedule)
    again(tmp_path / "without")
    again(tmp_path / "whole", xla=True)
    arrange_sigterm(monkeypatch, "on_train_batch_begin", 2, 2)
    with pytest.raises(SystemExit):
        again(tmp_path / "stopped", xla=True)
    assert again(tmp_path / "stopped", xla=True) == ["goes on from epoch 2, batch 3 of 4"]
    assert_same(tmp_path / "stopped", tmp_path / "whole")
    assert not [str(one.message) for one in recwarn if "jit_compile" in str(one.message)]
    without, whole = (
        pd.read_csv(tmp_path / name / "history.csv").loc[0] for name in ("without", "whole")
    )
    np.testing.assert_allclose(whole, without, rtol=1e-3)
    one, two = ((tmp_path / name / "model.keras").read_bytes() for name in ("without", "whole"))
    assert one != two, "XLA was not used"
    losses = json.loads((tmp_path / "whole/settings.json").read_text())["validation_loss"]
    assert losses["of_the_model"] == pytest.approx(losses["in_training"], rel=1e-3)


# Other backends


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_make_the_same_examples_and_go_on_too(tmp_path, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    essential = [
        f"{__file__}::test_a_training_stopped_by_sigterm_goes_on_to_the_same_end[online]",
        *(str(Path(__file__).with_name("test_augment_layer.py")) + test for test in ESSENTIAL),
    ]
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
        env={**os.environ, **faster, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout
    assert f"{len(essential)} passed" in done.stdout


ESSENTIAL = [
    "::test_the_layer_resamples_as_the_path_that_writes_files[oblong-33]",
    "::test_a_poisson_number_has_the_rank_of_the_normal_one[5]",
    "::test_a_poisson_number_has_the_rank_of_the_normal_one[30]",
    "::test_lognormal_noise_has_the_poisson_mean_and_variance[20]",
]


if __name__ == "__main__":
    # Of what takes long, the import, before there is more than one process.
    children = []
    for folder in sys.argv[1:]:
        if not (child := os.fork()):
            train_until_killed(Path(folder))
            os._exit(1)
        children.append(child)
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert ends == [-signal.SIGKILL] * len(ends), ends
