"""The network of the paper, and how it looks at intensities."""

from itertools import pairwise

import keras
import numpy as np
import pytest

from pacbed.exceptions import PacbedError
from pacbed.learning.network import Intensity, build_network, load_network

IMAGES = np.random.default_rng(0).gamma(1.0, size=(6, 16, 16, 1)).astype(np.float32)
TINY = {"pixels": 16, "outputs": 6, "filters": (3, 4), "dense": (8,)}


def weights_by_hand(pixels, outputs, filters, dense, head=None):
    """Count weights and biases: 3 × 3 kernels between channels, then full connections."""
    total, channels = 0, 1
    for width in filters:
        total += 9 * channels * width + width
        total += 9 * width * width + width
        channels, pixels = width, pixels // 2
    widths = [channels * (head or pixels) ** 2, *dense, outputs]
    return total + sum(a * b + b for a, b in pairwise(widths))


def array(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def means(images):
    return array(images).mean(axis=(1, 2, 3))


def scaled_to(mean, images):
    return images * (mean / means(images))[:, None, None, None]


# Size


def test_the_network_of_the_paper_has_35_million_parameters():
    assert build_network(256, 6).count_params() == 35_055_846


def test_with_a_pooled_head_it_has_3_6_million():
    assert build_network(256, 6, pooled_head=4).count_params() == 3_598_566


@pytest.mark.parametrize(
    ("pixels", "outputs", "filters", "dense", "head"),
    [
        (64, 4, (8, 16, 32, 64), (64, 32), None),
        (64, 6, (8, 16, 32), (64,), 2),
        (16, 6, (3, 4), (), None),
    ],
)
def test_widths_are_those_of_the_configuration(pixels, outputs, filters, dense, head):
    network = build_network(pixels, outputs, filters, dense, head)
    assert network.count_params() == weights_by_hand(pixels, outputs, filters, dense, head)
    assert network.output_shape == (None, outputs)


def test_without_tilt_two_outputs_and_their_weights_are_gone():
    six, four = (weights_by_hand(256, n, (32, 64, 128, 256), (512, 384, 256, 128)) for n in (6, 4))
    assert six == 35_055_846
    assert six - four == 2 * (128 + 1)


def test_hidden_layers_are_elu_and_the_output_is_linear():
    network = build_network(**TINY)
    kinds = {
        layer.name: layer.activation.__name__
        for layer in network.layers
        if hasattr(layer, "activation")
    }
    assert kinds.pop("parameters") == "linear"
    assert len(kinds) == 2 * 2 + 1
    assert set(kinds.values()) == {"elu"}


def test_the_same_seed_gives_the_same_initial_weights():
    first, again = (build_network(**TINY, seed=3).get_weights() for _ in range(2))
    other = build_network(**TINY, seed=4).get_weights()
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])


# Intensity


def test_linear_intensity_is_left_alone_in_prediction():
    np.testing.assert_allclose(Intensity("linear")(IMAGES), IMAGES, rtol=1e-6)


def test_square_root_intensity_keeps_the_mean_of_every_image():
    np.testing.assert_allclose(means(Intensity("sqrt")(IMAGES)), means(IMAGES), rtol=1e-5)


def test_square_root_intensity_is_proportional_to_the_square_root():
    ratio = np.asarray(Intensity("sqrt")(IMAGES)) / np.sqrt(IMAGES)
    for one in ratio:
        np.testing.assert_allclose(one, one.flat[0], rtol=1e-5)


def test_taking_the_root_before_or_after_scaling_the_mean_is_the_same():
    # The paper takes the root first and scales then; here images come already scaled.
    rooted = np.sqrt(IMAGES)
    expected = rooted * (0.25 / means(rooted))[:, None, None, None]
    scaled = IMAGES * (0.25 / means(IMAGES))[:, None, None, None]
    np.testing.assert_allclose(Intensity("sqrt")(scaled), expected, rtol=1e-5)


@pytest.mark.parametrize("scale", ["linear", "sqrt", "power"])
def test_in_training_every_image_gets_a_new_mean_from_the_range(scale):
    layer = Intensity(scale, image_mean=(0.2, 0.3))
    many = np.repeat(IMAGES, 100, axis=0)
    first, second = means(layer(many, training=True)), means(layer(many, training=True))
    assert first.min() > 0.1999
    assert first.max() < 0.3001
    assert first.mean() == pytest.approx(0.25, abs=0.01)
    assert first.std() == pytest.approx(0.1 / np.sqrt(12), rel=0.1)
    assert np.abs(np.corrcoef(first, second)[0, 1]) < 0.2


def test_in_training_an_image_changes_by_a_factor_only():
    ratio = np.asarray(Intensity("linear")(IMAGES, training=True)) / IMAGES
    for one in ratio:
        np.testing.assert_allclose(one, one.flat[0], rtol=1e-5)


def test_pixels_without_electrons_stay_dark():
    images = IMAGES.copy()
    images[:, :3] = 0
    shown = np.asarray(Intensity("sqrt")(images))
    assert np.all(shown[:, :3] == 0)
    assert np.all(np.isfinite(shown))


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match=r"one of \('linear', 'sqrt', 'power'\), not 'log'"):
        Intensity("log")


# A power that is learnt


def learnt(exponent, rate, images=IMAGES, steps=200):
    """Let a layer learn a power of images; return its exponent."""
    images = np.tile(scaled_to(0.25, images), (steps, 1, 1, 1))
    layer = Intensity("power", image_mean=(0.25, 0.25))
    model = keras.Sequential([keras.Input(images.shape[1:]), layer])
    model.compile(optimizer=keras.optimizers.SGD(rate), loss="mse", jit_compile=False)
    wanted = scaled_to(0.25, images**exponent)
    model.fit(images, wanted, batch_size=len(IMAGES), shuffle=False, verbose=0)
    return float(array(layer.exponent))


def test_the_power_begins_with_the_square_root():
    expected = array(Intensity("sqrt")(IMAGES))
    np.testing.assert_allclose(array(Intensity("power")(IMAGES)), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("exponent", [0.2, 1.0, 1.7])
def test_any_power_keeps_the_mean_of_every_image(exponent):
    layer = Intensity("power")
    layer.build(IMAGES.shape)
    layer.exponent.assign(exponent)
    shown = array(layer(IMAGES))
    np.testing.assert_allclose(means(shown), means(IMAGES), rtol=1e-5)
    for one in shown / np.maximum(IMAGES, 1e-6) ** exponent:
        np.testing.assert_allclose(one, one.flat[0], rtol=1e-4)


@pytest.mark.parametrize("exponent", [0.3, 0.8])
def test_the_exponent_is_learnt(exponent):
    assert learnt(exponent, rate=1.0) == pytest.approx(exponent, abs=0.02)


def test_the_exponent_is_learnt_from_images_with_dark_pixels_too():
    images = IMAGES.copy()
    images[:, :5] = 0
    assert learnt(0.8, rate=1.0, images=images) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(("exponent", "limit"), [(4.0, 2.0), (0.01, 0.1)])
def test_the_exponent_stays_within_limits(exponent, limit):
    assert learnt(exponent, rate=10.0, steps=20) == pytest.approx(limit)


def test_only_a_power_has_a_weight():
    count = {
        intensity: build_network(**TINY, intensity=intensity).count_params()
        for intensity in ("linear", "sqrt", "power")
    }
    assert count["power"] - 1 == count["linear"] == count["sqrt"]


# Precision


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_numbers_between_image_and_output_are_of_the_precision_asked_for(precision):
    network = build_network(**TINY, pooled_head=2, intensity="power", precision=precision)
    kinds = {layer.name: layer.compute_dtype for layer in network.layers}
    assert [kinds.pop(name) for name in ("image", "intensity", "parameters")] == ["float32"] * 3
    assert set(kinds.values()) == {precision.removeprefix("mixed_")}
    assert {"block1_conv1", "block2_pool", "head_pool", "flatten", "dense1"} < set(kinds)
    assert {weight.dtype for weight in network.weights} == {"float32"}
    assert array(network(IMAGES)).dtype == np.float32


@pytest.mark.parametrize(
    ("precision", "digits"), [("mixed_float16", 1e-3), ("mixed_bfloat16", 8e-3)]
)
def test_the_precision_changes_predictions_in_their_last_digits_alone(precision, digits):
    single, half = (build_network(**TINY, seed=3, precision=p) for p in ("float32", precision))
    for one, two in zip(single.weights, half.weights, strict=True):
        np.testing.assert_array_equal(array(one), array(two))
    expected, found = array(single(IMAGES)), array(half(IMAGES))
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    assert 0 < difference < 4 * digits


def test_without_a_word_the_precision_is_single():
    assert {layer.compute_dtype for layer in build_network(**TINY).layers} == {"float32"}


# Files


def test_a_network_that_was_saved_is_loaded(tmp_path):
    network = build_network(**TINY, intensity="power", seed=5)
    network.get_layer("intensity").exponent.assign(0.7)
    network.compile(loss="mse")
    network.save(tmp_path / "model.keras")
    loaded = load_network(tmp_path / "model.keras")
    for one, two in zip(loaded.weights, network.weights, strict=True):
        np.testing.assert_array_equal(array(one), array(two))
    np.testing.assert_array_equal(array(loaded(IMAGES)), array(network(IMAGES)))
    assert not loaded.compiled


def test_a_network_that_carries_code_is_refused_and_the_code_not_run(tmp_path):
    marker = tmp_path / "run"
    layer = keras.layers.Lambda(lambda x, path=str(marker): (open(path, "w").close(), x)[1])
    network = keras.Sequential([keras.Input((16, 16, 1)), layer])
    assert marker.exists()
    network.save(tmp_path / "model.keras")
    marker.unlink()
    with pytest.raises(PacbedError, match=r"cannot load .*model\.keras: .*[Ll]ambda"):
        load_network(tmp_path / "model.keras")
    assert not marker.exists()


def test_a_damaged_network_is_refused(tmp_path):
    path = tmp_path / "model.keras"
    build_network(**TINY).save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(PacbedError, match=r"cannot load .*model\.keras: .+"):
        load_network(path)
    with pytest.raises(PacbedError, match=r"cannot load .*absent\.keras: .+"):
        load_network(tmp_path / "absent.keras")


@pytest.mark.parametrize("intensity", ["linear", "sqrt", "power"])
def test_a_saved_network_predicts_the_same_and_needs_no_trusted_code(tmp_path, intensity):
    network = build_network(**TINY, intensity=intensity, image_mean=(0.1, 0.4))
    network.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(
        restored.predict(IMAGES, verbose=0), network.predict(IMAGES, verbose=0)
    )
    assert restored.get_layer("intensity").scale == intensity
    assert tuple(restored.get_layer("intensity").image_mean) == (0.1, 0.4)
