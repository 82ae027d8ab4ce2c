"""Examples made on the device: as the reference makes them, and with noise that counts electrons.

With other backends than TensorFlow, test_online.py runs some of these.
"""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import reference
from keras import ops
from scipy import stats
from test_augment import FINE_MRAD, PAPER, spot

from pacbed.examples.augment import TRANSFORMATIONS, resample
from pacbed.examples.augment_layer import (
    Augmentation,
    normal_numbers,
    poisson,
    record,
    threefry,
)
from pacbed.examples.pattern_set import PatternSet
from pacbed.examples.source import ExampleSource
from pacbed.exceptions import PacbedError

# Two patterns, longer in y than in x, with pixels longer in x than in y.
OBLONG_MRAD = (0.8, 0.5)
OBLONG = np.stack(
    [
        spot(9, -6, 1.5, (110, 61), OBLONG_MRAD) + 0.3 * spot(-5, 12, 4, (110, 61), OBLONG_MRAD),
        spot(-3, 2, 2.5, (110, 61), OBLONG_MRAD) + 1e-4,
    ]
)
ODD = np.stack([spot(4, 7, 1.2, (81, 93)), spot(-11, -3, 3, (81, 93)) + 2e-4])


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def library(patterns, pixel_mrad):
    numbers = range(len(patterns))
    return PatternSet(patterns, pixel_mrad, numbers, np.zeros((len(patterns), 5)))


def transformation(rotation, field, shift=(0.0, 0.0), electrons=1e12, mean=0.25):
    return reference.Example(rotation, field, *shift, electrons, mean)


def keys(count, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(2**32, size=(count, 2), dtype=np.uint32).view(np.int32)


def fractions(patterns, pixel_mrad, pixels, numbers, transformations):
    """The share of the electrons in every pixel, of patterns that are taken as averaged."""
    layer = Augmentation(library(patterns, pixel_mrad), replace(PAPER, pixels=pixels))
    layer.patterns.assign(patterns.astype(np.float32).ravel())
    some = np.array(transformations, np.float32)
    one = {name: some[:, n, None, None] for n, name in enumerate(TRANSFORMATIONS)}
    number = ops.convert_to_tensor(np.array(numbers, np.int32)[:, None, None])
    return array(layer._resample(number, {k: ops.convert_to_tensor(v) for k, v in one.items()}))


# Where things go


@pytest.mark.parametrize(
    ("patterns", "pixel_mrad", "pixels", "fields"),
    [
        # The widest show what lies beyond the pattern too.
        (OBLONG, OBLONG_MRAD, 32, (29.7, 33.1, 71.3)),
        (OBLONG, OBLONG_MRAD, 33, (29.7, 33.1, 71.3)),
        (ODD, (FINE_MRAD, FINE_MRAD), 32, (29.7, 33.1, 71.3)),
        (ODD, (FINE_MRAD, FINE_MRAD), 33, (29.7, 33.1, 71.3)),
        (np.stack([spot(3, 40, 0.7, (512, 500), (0.26, 0.25))]), (0.26, 0.25), 256, (93.9,)),
    ],
    ids=["oblong-32", "oblong-33", "odd-32", "odd-33", "paper"],
)
def test_the_layer_resamples_as_scipy(patterns, pixel_mrad, pixels, fields):
    shifts, angles = ((0.31, -0.17), (-4.9, 2.3)), (-10.3, 3.7, 90.1, 200.9)
    some = [transformation(*one) for one in product(angles, fields, shifts)]
    patterns = np.stack(list(library(patterns, pixel_mrad).averaged(fields[0] / pixels)))
    cases = list(product(range(len(patterns)), some))
    made = fractions(patterns, pixel_mrad, pixels, *zip(*cases, strict=True))
    for image, (number, one) in zip(made, cases, strict=True):
        expected = resample(patterns[number], pixel_mrad, reference.camera(one, pixels))
        assert expected.max() > 0
        np.testing.assert_allclose(image, expected, rtol=0, atol=1e-4 * expected.max())


def test_every_example_shows_its_own_pattern_and_nothing_of_another():
    # A dark one between bright ones, shown far beyond its borders.
    patterns = np.stack([np.full((12, 14), value, np.float32) for value in (1, 0, 3)])
    some = [transformation(gamma, 64, (3.3, -2.2)) for gamma in (0, 33, 190)]
    assert fractions(patterns, (1.0, 2.0), 32, [1] * 3, some).max() == 0
    made = fractions(patterns, (1.0, 2.0), 8, [2, 0, 1, 2], [transformation(5, 8)] * 4)
    np.testing.assert_allclose(made[:, 4, 4], np.array([3, 1, 0, 3]) / 2, rtol=1e-5)


# The numbers of the noise


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # From the known answers of Random123, the authors' own implementation.
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_the_words_are_those_of_threefry(counter, key, expected):
    words = np.array([[word] for word in (*key, *counter)], np.uint32)
    made = threefry(*map(ops.convert_to_tensor, words.view(np.int32)))
    assert tuple(array(word).view(np.uint32)[0] for word in made) == expected
    assert tuple(word[0] for word in reference.threefry(words[:2], words[2:])) == expected


@pytest.mark.parametrize("pixels", [16, 17])
def test_normal_numbers_are_those_of_the_reference(pixels):
    made = array(normal_numbers(ops.convert_to_tensor(keys(5)), pixels))
    expected = [reference.normal_numbers(key, pixels) for key in keys(5)]
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def standard():
    """Normal numbers of examples whose addresses follow each other, shape (250, 64, 64)."""
    source = ExampleSource(library(OBLONG, OBLONG_MRAD), PAPER, 250, (1, 6.35, 5, "train"))
    return array(normal_numbers(ops.convert_to_tensor(source.draw(0, 250)[2]), 64)).astype(float)


def test_normal_numbers_are_normal(standard):
    for some in (standard.ravel()[:200_000], standard[:, 0, 0]):
        assert stats.kstest(some, "norm").pvalue > 1e-4


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.s_[:, :, 1:], np.s_[:, :, :-1]),
        (np.s_[:, 1:], np.s_[:, :-1]),
        (np.s_[:, :32], np.s_[:, 32:]),  # made of the same pairs of words
        (np.s_[1:], np.s_[:-1]),
        (np.s_[::2, ::-1], np.s_[1::2, ::-1]),
    ],
    ids=["columns", "rows", "halves", "examples", "pairs"],
)
def test_pixels_and_examples_are_independent(standard, one, other):
    for power in (1, 2):  # a relation of sizes alone would not show in the numbers themselves
        first, second = (standard[part].ravel() ** power for part in (one, other))
        correlation = np.corrcoef(first, second)[0, 1]
        assert correlation == pytest.approx(0, abs=5 / math.sqrt(first.size))


# How it is counted


@pytest.mark.parametrize("model", ["lognormal", "poisson"])
@pytest.mark.parametrize("mu", [0.05, 1, 5, 9.9, 9.9999, 10.0001, 10.1, 30, 1000])
def test_the_signal_has_the_rank_of_the_normal_number(mu, model):
    # One in the middle of each of as many parts of equal probability.
    rank = (np.arange(100_000) + 0.5) / 100_000
    normal = stats.norm.ppf(rank)
    inputs = np.full(len(rank), mu, np.float32), normal.astype(np.float32)
    expected, given = map(ops.convert_to_tensor, inputs)
    made = array(record(expected, model, given)).astype(float)
    if model == "lognormal":
        sigma = math.sqrt(math.log1p(1 / mu))
        scale = mu / math.sqrt(1 + 1 / mu)
        np.testing.assert_allclose(made, stats.lognorm.ppf(rank, sigma, scale=scale), rtol=1e-5)
        if mu >= 1:  # or the tails would be too long for sample moments
            assert made.mean() == pytest.approx(mu, rel=1e-4)
            assert made.var() == pytest.approx(mu, rel=0.02)
        return
    true = stats.poisson.ppf(rank, mu)
    assert np.abs(made - true).max() <= 1
    assert np.mean(made != true) < (2e-4 if mu < 10 else 3e-3)
    assert made.mean() == pytest.approx(mu, rel=2e-5, abs=2e-5)
    assert made.var() == pytest.approx(mu, rel=1e-3)


def test_the_rarest_ranks_are_not_counted_to_the_end():
    # In single precision their rank is one, which no sum of probabilities reaches.
    mean = np.geomspace(1e-6, 0.1, 2000).astype(np.float32)
    for normal in (5.3, 5.6, 6.0):
        assert array(poisson(mean, np.full_like(mean, normal))).max() <= 8


@pytest.mark.parametrize("model", ["lognormal", "poisson"])
def test_where_no_electron_is_expected_none_is_recorded(model):
    expected = np.tile(np.array([0, 1e-30, 5], np.float32), (1000, 1))
    normal = np.random.default_rng(6).standard_normal(expected.shape, np.float32)
    signal = array(record(ops.convert_to_tensor(expected), model, ops.convert_to_tensor(normal)))
    assert np.all(signal[:, 0] == 0)
    assert np.all(np.isfinite(signal))


# Whole examples

CAMERA = replace(PAPER, pixels=24, field_of_view_mrad=24)
SOME = [
    transformation(5.0, 24.0, (0.3, -0.7), 3e4, 0.2),
    transformation(-8.0, 25.1, (-1.2, 0.4), 1e5, 0.3),
    transformation(2.0, 23.2, (0.0, 0.1), 3e3, 0.27),
]


def layer_of(model):
    return Augmentation(library(OBLONG, OBLONG_MRAD), replace(CAMERA, noise=model))


def images(layer, numbers, transformations, some_keys):
    inputs = np.array(numbers, np.int32), np.array(transformations, np.float32), some_keys
    return array(layer(*map(ops.convert_to_tensor, inputs)))


@pytest.mark.parametrize("model", ["lognormal", "poisson"])
def test_images_are_those_of_the_reference_and_have_the_drawn_means(model):
    layer, numbers = layer_of(model), [0, 1, 1]
    made = images(layer, numbers, SOME, keys(3))
    assert made.shape == (3, 24, 24, 1)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made.mean(axis=(1, 2, 3)), [0.2, 0.3, 0.27], rtol=1e-5)
    averaged = list(library(OBLONG, OBLONG_MRAD).averaged(1.0))
    some = replace(CAMERA, noise=model)
    expected = [
        reference.image(averaged[number], OBLONG_MRAD, one, some, key)
        for number, one, key in zip(numbers, SOME, keys(3), strict=True)
    ]
    # Where nothing but the far tail of a spot is seen, interpolation in single precision shows.
    lit = np.array(expected) > 1e-3 * np.max(expected)
    made, expected = made[..., 0][lit], np.array(expected)[lit]
    # The same to half precision; a rank may be rounded to another count.
    same = np.abs(made - expected) <= 2.0**-11 * np.maximum(made, expected)
    assert np.mean(same) > (1 - 2e-3 if model == "poisson" else 1 - 1e-9)
    np.testing.assert_allclose(made, expected, atol=0.1 * expected.max())


@pytest.mark.parametrize("model", ["lognormal", "poisson"])
def test_an_example_does_not_depend_on_the_others_of_its_batch(model):
    layer = layer_of(model)
    inputs = [0, 1] * 32, [SOME[n % 3] for n in range(64)], keys(64)
    together = images(layer, *inputs)
    again = images(layer, *(part[::-1] for part in inputs))[::-1]
    alone = np.concatenate(
        [images(layer, *(part[n : n + 1] for part in inputs)) for n in range(0, 64, 9)]
    )
    # To the last bit, since the device adds up each image by itself.
    np.testing.assert_array_equal(again, together)
    np.testing.assert_array_equal(alone, together[::9])
    assert not np.array_equal(together[0], together[6]), "other keys, other noise"


@pytest.mark.parametrize("model", ["lognormal", "poisson"])
def test_an_image_without_a_single_electron_is_dark(model):
    dark = [SOME[0]._replace(electrons=electrons) for electrons in (0.0, 1e-12)]
    made = images(layer_of(model), [0, 0], dark, keys(2))
    assert np.all(np.isfinite(made))
    assert made[0].max() == 0


# What the device can hold


def test_more_pixels_than_can_be_counted_are_refused():
    # No memory is needed for these.
    patterns = np.broadcast_to(np.float32(0), (2**15, 128, 512))
    with pytest.raises(PacbedError, match=r"32768 patterns of 512 × 128 pixels are too many"):
        Augmentation(library(patterns, (0.2, 0.2)), PAPER)


def test_patterns_are_no_weights_that_are_trained_or_change():
    layer = layer_of("lognormal")
    assert layer.trainable_variables == []
    before = array(layer.patterns).copy()
    images(layer, [0, 1, 1], SOME, keys(3))
    np.testing.assert_array_equal(array(layer.patterns), before)
