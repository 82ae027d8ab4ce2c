"""The network of the paper, and how it looks at intensities."""

from itertools import pairwise

import keras
import numpy as np
import pytest

from pacbed.network import Intensity, build_network

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


def means(images):
    return np.asarray(images).mean(axis=(1, 2, 3))


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


@pytest.mark.parametrize("scale", ["linear", "sqrt"])
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
    with pytest.raises(ValueError, match="'linear' or 'sqrt', not 'log'"):
        Intensity("log")


# Files


@pytest.mark.parametrize("intensity", ["linear", "sqrt"])
def test_a_saved_network_predicts_the_same_and_needs_no_trusted_code(tmp_path, intensity):
    network = build_network(**TINY, intensity=intensity, image_mean=(0.1, 0.4))
    network.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(
        restored.predict(IMAGES, verbose=0), network.predict(IMAGES, verbose=0)
    )
    assert restored.get_layer("intensity").scale == intensity
    assert tuple(restored.get_layer("intensity").image_mean) == (0.1, 0.4)
