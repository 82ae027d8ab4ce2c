"""The coarse-to-fine network: it rectifies the image by its answers, and corrects these."""

import json
import math
import os
import signal
from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pytest
from test_online import AUGMENTATION, ONLINE, PIXELS, TILT_TOO, online, stored
from test_training import SCALING, deterministic, settings
from threadpoolctl import threadpool_limits

from pacbed.examples.augment import resample
from pacbed.examples.labels import NUISANCES
from pacbed.exceptions import PacbedError
from pacbed.learning.fine import fit_looks
from pacbed.learning.loss import relative_to
from pacbed.learning.network import (
    NetworkSettings,
    Products,
    build_network,
    load_network,
    part_of_steps,
)
from pacbed.learning.prediction import predict
from pacbed.learning.rectify import Rectify
from pacbed.learning.schedule import OneCycleSchedule
from pacbed.learning.sequences import OnlineSequence, StoredSequence
from pacbed.learning.training import on_device, train
from pacbed.precision.metrics import errors
from pacbed.scattering.image import Camera

TWICE = NetworkSettings((4,), (8, 6), intensity="sqrt", kind="coarse-to-fine")
SMALL = settings((2, 0.02), network=TWICE)


@pytest.fixture(scope="module", autouse=True)
def _deterministic():
    deterministic()


def array(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def learnt(scaling):
    return scaling.with_nuisances(AUGMENTATION.translation_px, AUGMENTATION.field_of_view_variation)


def built(pixels=PIXELS, scaling=SCALING, network=TWICE, precision="float32"):
    outputs = len(scaling.parameters)
    return build_network(pixels, outputs, network, 3, precision, learnt(scaling))


# Rectified images


def discs(kx, ky):
    """A pattern without symmetry, with discs as wide as some pixels."""
    places = [(0, 0, 1), (14, 3, 0.8), (-9, 12, 0.5), (4, -16, 0.7)]
    return sum(h * np.exp(-((kx - x) ** 2 + (ky - y) ** 2) / 40) for x, y, h in places)


STRAIN, ROTATION_deg, SHIFT_px, FIELD_mrad = (0.03, -0.02, 0.015), 7.0, (2.3, -1.6), 67.0


def strained_example():
    """Make an image of 64 pixels as examples are made, of a nominal field of 64 mrad."""
    axis = (np.arange(400) - 200) * 0.25
    kx, ky = axis[None, :], axis[:, None]
    xx, yy, xy = STRAIN
    pattern = discs((1 + xx) * kx + xy * ky, xy * kx + (1 + yy) * ky)
    brighter = (FIELD_mrad / 64 / 0.25) ** 2
    camera = Camera(64, FIELD_mrad, ROTATION_deg, SHIFT_px)
    return resample(pattern, (0.25, 0.25), camera) / brighter


@pytest.mark.parametrize("scaling", [SCALING, TILT_TOO], ids=["without tilt", "with tilt"])
@pytest.mark.parametrize(("size", "pitch_px"), [(48, 1.0), (36, 1.4)])
def test_the_right_answer_shows_the_undeformed_pattern(scaling, size, pitch_px):
    whole = scaling.with_nuisances(5, 0.0625)
    tilt = [1.5, -2.0] if scaling is TILT_TOO else []
    log_scale = math.log(FIELD_mrad / 64)
    answer = whole.scale(np.array([*STRAIN, ROTATION_deg, *tilt, *SHIFT_px, log_scale]))
    layer = Rectify(size, pitch_px, whole.centre, whole.half_range)
    image = strained_example()[None, ..., None]
    shown = array(layer(image, answer[None].astype(np.float32)))
    assert shown.shape == (1, size, size, 1)
    axis = (np.arange(size) - size // 2) * pitch_px
    expected = discs(axis[None, :], axis[:, None])
    np.testing.assert_allclose(shown[0, ..., 0], expected, atol=0.02)
    wrong = array(layer(image, 0 * answer[None].astype(np.float32)))
    assert np.abs(wrong[0, ..., 0] - expected).max() > 0.3


# The network


@pytest.mark.parametrize(
    ("pixels", "coarse", "rectified"), [(16, 8, 12), (96, 48, 72), (128, 64, 96), (256, 64, 128)]
)
def test_it_looks_at_a_coarse_image_and_at_a_rectified_one(pixels, coarse, rectified):
    network = built(pixels)
    assert network.input_shape == (None, pixels, pixels, 1)
    assert network.output_shape == (None, 4)
    assert network.get_layer("coarse").output.shape[1] == coarse
    for look in (1, 2):
        layer = network.get_layer(f"rectified{look}")
        assert layer.output.shape[1] == rectified
        assert layer.size * layer.pitch_px == pytest.approx(0.75 * pixels)


def test_the_outputs_are_the_first_answer_and_its_corrections():
    network = built(scaling=TILT_TOO)
    first = np.arange(1, 10) / 10
    biases = {"first_answer": first, "correction1": first / 5, "correction2": first / 50}
    for name, bias in biases.items():
        layer = network.get_layer(name)
        layer.kernel.assign(0 * layer.kernel)
        layer.bias.assign(bias)
    images = np.random.default_rng(1).gamma(1.0, size=(2, PIXELS, PIXELS, 1))
    np.testing.assert_allclose(array(network(images)), 2 * [1.22 * first[:6]], rtol=1e-5)
    np.testing.assert_allclose(array(part_of_steps(network)(images)), 2 * [first], rtol=1e-5)
    seen = keras.Model(network.input, network.get_layer("known2").output)
    np.testing.assert_allclose(array(seen(images)), 2 * [1.2 * first], rtol=1e-5)
    whole = learnt(TILT_TOO)
    for look in (1, 2):
        rectify = network.get_layer(f"rectified{look}")
        assert (rectify.centre, rectify.half_range) == (whole.centre, whole.half_range)


def test_answers_and_components_are_joined_with_all_products():
    answer, components = np.array([[0.5, -1.0]]), np.array([[5.0, 7.0, 11.0]])
    joined = [0.5, -1, 0.25, -0.5, 1, 5, 7, 11, 2.5, 3.5, 5.5, -5, -7, -11]
    assert array(Products()(answer, components)).tolist() == [joined]
    far = array(Products()(np.array([[1e4, -1e4]]), components))
    np.testing.assert_allclose(far, Products()(np.array([[1.3, -1.3]]), components))


def test_steps_teach_the_part_of_steps_alone():
    network = part_of_steps(built(network=replace(TWICE, uncertainty=True)))
    names = {weight.path.split("/")[0] for weight in network.weights}
    assert names == {"block1_conv1", "block1_conv2", "dense1", "dense2", "first_answer"}


def test_an_answer_that_is_no_number_comes_through():
    network = built()
    bias = network.get_layer("first_answer").bias
    bias.assign(bias + np.nan)
    images = np.random.default_rng(1).gamma(1.0, size=(2, PIXELS, PIXELS, 1))
    assert np.isnan(array(network(images))).all()


@pytest.mark.parametrize("intensity", ["linear", "sqrt", "power"])
def test_a_brighter_image_gives_the_same_answer(intensity):
    network = built(network=replace(TWICE, intensity=intensity))
    images = np.random.default_rng(1).gamma(1.0, size=(3, PIXELS, PIXELS, 1))
    images[2] = 0  # without an electron
    found = array(network(images))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(array(network(2 * images)), found, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_saved_network_is_loaded_without_trusted_code(tmp_path, precision):
    network = built(precision=precision)
    correction = network.get_layer("correction1").kernel
    correction.assign(0.01 * keras.random.normal(correction.shape, seed=1))
    network.save(tmp_path / "model.keras")
    loaded = load_network(tmp_path / "model.keras")
    images = np.random.default_rng(1).gamma(1.0, size=(3, PIXELS, PIXELS, 1))
    np.testing.assert_array_equal(array(loaded(images)), array(network(images)))


def test_the_network_of_the_paper_needs_no_first_answer():
    with pytest.raises(ValueError, match="needs the scaling of its first answer"):
        build_network(PIXELS, 4, TWICE)
    assert build_network(PIXELS, 4, replace(TWICE, kind="paper")).output_shape == (None, 4)


# What it is trained on


def test_labels_are_followed_by_shifts_and_scale():
    source, whole = online(examples=20), learnt(TILT_TOO)
    made = OnlineSequence(source, whole, 20)
    (_, transformation, _), targets = made[0]
    found = dict(zip(whole.parameters, whole.unscale(targets).T, strict=True))
    np.testing.assert_allclose(found["shift_x_px"], transformation[:, 2], atol=1e-5)
    np.testing.assert_allclose(found["shift_y_px"], transformation[:, 3], atol=1e-5)
    nominal_mrad = AUGMENTATION.field_of_view_mrad
    np.testing.assert_allclose(np.exp(found["log_scale"]) * nominal_mrad, transformation[:, 1])
    np.testing.assert_array_equal(targets[:, :6], OnlineSequence(source, TILT_TOO, 20)[0][1])
    assert np.abs(targets[:, -3:]).max() < 1.1
    data = stored(8, 20, 4)
    kept = StoredSequence(data, whole, 20)[0][1]
    np.testing.assert_allclose(
        kept[:, -3:], OnlineSequence(online(20, 8, 4), whole, 20)[0][1][:, -3:], atol=1e-5
    )
    assert whole.parameters[-3:] == NUISANCES


def test_errors_count_in_units_of_what_can_be_read():
    loss = relative_to((0.001, 0.1))
    small, large = np.array([[1e-4, 1e-2]]), np.array([[0.1, 10.0]])
    assert array(loss(np.zeros((1, 2)), small)) == pytest.approx(0.005, rel=0.01)
    assert array(loss(np.zeros((1, 2)), large)) == pytest.approx(99, rel=0.01)


# Training


def test_a_stopped_training_goes_on_to_the_same_end(tmp_path):
    def stop(epoch, epochs, losses):
        os.kill(os.getpid(), signal.SIGTERM)

    def stop_again(line):
        if line.startswith("look 1"):
            raise KeyboardInterrupt

    data = *ONLINE, SCALING, replace(SMALL, optimizer="adam")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    history = train(*data, whole)
    with pytest.raises(SystemExit):
        train(*data, stopped, stop)
    with pytest.raises(KeyboardInterrupt):
        train(*data, stopped, log=stop_again)
    assert not (stopped / "model.keras").exists()
    train(*data, stopped)
    for name in ("model.keras", "history.csv"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()
    # The best weights are those of the best first answer.
    kept = part_of_steps(load_network(whole / "model.keras"))
    told = StoredSequence(ONLINE[1], learnt(SCALING), 1000)[0]
    wrong = kept.predict(told[0], verbose=0) - told[1]
    assert np.mean(wrong**2) == pytest.approx(history["validation_loss"].min(), rel=1e-3)
    said = json.loads((whole / "settings.json").read_text())["training"]
    assert said["network"]["kind"] == "coarse-to-fine"


def test_it_reads_patterns_that_it_has_not_seen_and_better_with_corrections(tmp_path):
    one = replace(SMALL, schedule=OneCycleSchedule(8, 0.01, 0.25), optimizer="adam")
    lines = []
    validation = stored(40, 80, 2)
    train(online(300, 200, 1), validation, SCALING, one, tmp_path, log=lines.append)
    said = [f"look {look} of 2: 1,200 examples regressed on 14 components" for look in (1, 2)]
    assert lines == said
    data = stored(60, 120, 9)
    table = predict(tmp_path / "model.keras", tmp_path / "settings.json", data)
    found = errors(table, table).set_index("parameter")
    said = json.loads((tmp_path / "settings.json").read_text())["validation_mae"]
    assert list(said) == list(SCALING.parameters)
    for name in ("strain_xx", "strain_yy"):
        assert found.loc[name, "mae"] < found.loc[name, "baseline_mae"] / 6
        assert said[name] == pytest.approx(found.loc[name, "mae"], rel=0.5)
    network = load_network(tmp_path / "model.keras")
    truth = SCALING.scale(data.columns(SCALING.parameters))[:, :2]  # strain xy moves nothing
    outputs = [network.get_layer(name).output for name in ("known1", "known2", "answer2")]
    looks = keras.Model(network.input, outputs)
    answers = looks.predict(data.images[..., None], verbose=0)
    first, second, third = (np.abs(answer[:, :2] - truth).mean(axis=0) for answer in answers)
    assert (second < 0.9 * first).all()
    assert (third < 0.9 * first).all()
    # What cannot be read is not made worse.
    truth = learnt(SCALING).scale(validation.columns(learnt(SCALING).parameters))
    answers = looks.predict(validation.images[..., None], verbose=0)
    first, second, third = (np.abs(answer - truth).mean(axis=0) for answer in answers)
    assert (second <= first + 1e-6).all()
    assert (third <= second + 1e-6).all()


def test_the_second_part_does_not_depend_on_threads():
    found = set()
    for threads in (1, 2):
        network, batches = built(), OnlineSequence(online(300, 200, 1), learnt(SCALING), 16)
        validation = StoredSequence(stored(40, 80, 2), learnt(SCALING), 16)
        put = partial(on_device, source=batches.source)
        with threadpool_limits(threads, "blas"):
            fit_looks(network, batches, validation, put, 0)
        found.add(array(network.get_layer("correction2").kernel).tobytes())
    assert len(found) == 1


def test_examples_of_a_file_and_half_precision_are_as_good(tmp_path):
    one = replace(SMALL, schedule=settings((3, 0.01)).schedule, precision="mixed_bfloat16")
    validation = stored(40, 80, 2)
    data = stored(300, 900, 1), replace(validation, draws=validation.draws + 1000)
    train(*data, SCALING, replace(one, optimizer="adam"), tmp_path)
    said = json.loads((tmp_path / "settings.json").read_text())
    losses = said["validation_loss"]
    assert losses["of_the_model"] == pytest.approx(losses["in_training"], rel=0.05)
    first = part_of_steps(load_network(tmp_path / "model.keras"))
    truth = SCALING.scale(validation.columns(SCALING.parameters))
    wrong = np.abs(first.predict(validation.images[..., None], verbose=0)[:, :4] - truth)
    for name, before in zip(("strain_xx", "strain_yy"), wrong.mean(axis=0) * 0.05, strict=False):
        assert said["validation_mae"][name] < before


def test_a_network_of_another_kind_is_no_beginning(tmp_path):
    build_network(PIXELS, 4, replace(TWICE, kind="paper")).save(tmp_path / "paper.keras")
    with pytest.raises(PacbedError, match="cannot begin with the weights of"):
        train(*ONLINE, SCALING, SMALL, tmp_path / "new", initial=tmp_path / "paper.keras")


@pytest.mark.filterwarnings("ignore:You are saving a model")
@pytest.mark.parametrize("built", [True, False])
def test_a_network_from_elsewhere_is_no_beginning(built, tmp_path):
    layers = [keras.layers.Flatten(), keras.layers.Dense(3)]
    foreign = keras.Sequential(([keras.Input((PIXELS, PIXELS, 1))] if built else []) + layers)
    foreign.save(tmp_path / "foreign.keras")
    with pytest.raises(PacbedError, match="cannot begin with the weights of"):
        train(*ONLINE, SCALING, SMALL, tmp_path / "new", initial=tmp_path / "foreign.keras")
