"""Examples made on the device: the same as those of files, and noise that counts electrons.

With other backends than TensorFlow, test_online.py runs some of these.
"""

import math
from dataclasses import astuple, fields, replace
from itertools import product

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats
from test_augment import FINE_MRAD, settings, spot, transformation

from pacbed.examples.augment import (
    Transformation,
    average_over_pixels,
    draw_transformations,
    make_image,
    resample,
)
from pacbed.examples.augment_layer import Augmentation, poisson, record
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
MILLION = 1_000_000


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def averaged(patterns, pixel_mrad, camera_pixel_mrad):
    return np.stack([average_over_pixels(one, pixel_mrad, camera_pixel_mrad) for one in patterns])


def images(layer, numbers, transformations):
    table = np.array([astuple(one) for one in transformations], np.float32)
    made = layer(ops.convert_to_tensor(np.array(numbers, np.int32)), ops.convert_to_tensor(table))
    return array(made)


def fractions(patterns, pixel_mrad, pixels, numbers, transformations):
    """Examples without noise, of shape (examples, pixels, pixels)."""
    layer = Augmentation(patterns, pixel_mrad, settings(pixels=pixels), seed=0)
    table = np.array([astuple(one) for one in transformations], np.float32)
    one = {
        field.name: ops.convert_to_tensor(table[:, n, None, None])
        for n, field in enumerate(fields(Transformation))
    }
    number = ops.convert_to_tensor(np.array(numbers, np.int32)[:, None, None])
    return array(layer._resample(number, one))


def assert_resampled_alike(patterns, pixel_mrad, pixels, transformations):
    """Check the layer against the path that writes files, with every pattern."""
    patterns = averaged(patterns, pixel_mrad, transformations[0].field_of_view_mrad / pixels)
    cases = list(product(range(len(patterns)), transformations))
    made = fractions(patterns, pixel_mrad, pixels, *zip(*cases, strict=True))
    for image, (number, one) in zip(made, cases, strict=True):
        expected = resample(patterns[number], pixel_mrad, one, pixels)
        assert expected.max() > 0
        np.testing.assert_allclose(image, expected, rtol=0, atol=1e-4 * expected.max())


# Where things go


@pytest.mark.parametrize("pixels", [32, 33])
@pytest.mark.parametrize(
    ("patterns", "pixel_mrad"),
    [(OBLONG, OBLONG_MRAD), (ODD, (FINE_MRAD, FINE_MRAD))],
    ids=["oblong", "odd"],
)
def test_the_layer_resamples_as_the_path_that_writes_files(patterns, pixel_mrad, pixels):
    # The widest show what lies beyond the pattern too.
    some = [
        transformation(rotation, field, shift)
        for rotation in (-10.3, 3.7, 90.1, 200.9)
        for field in (29.7, 33.1, 71.3)
        for shift in ((0.31, -0.17), (-4.9, 2.3))
    ]
    assert_resampled_alike(patterns, pixel_mrad, pixels, some)


@pytest.mark.parametrize(("pixels", "rotation"), [(256, 9.3), (255, -7.7)])
def test_it_does_so_with_the_pixels_of_the_paper(pixels, rotation):
    shape, pixel_mrad = (512, 500), (0.26, 0.25)
    patterns = np.stack([spot(x, 40, 0.7, shape, pixel_mrad) for x in (-42, 3)])
    some = [transformation(rotation, field, (9.3, -6.1)) for field in (93.9, 100.2, 106.1)]
    assert_resampled_alike(patterns, pixel_mrad, pixels, some)


def test_beyond_the_pattern_it_is_dark():
    bright = np.ones((1, 20, 30), np.float32)
    image = fractions(bright, (1.0, 1.0), 64, [0], [transformation(field=64, shift=(0.5, 0.5))])[0]
    rows, columns = np.nonzero(image)
    assert (rows.min(), rows.max()) == (32 - 10 + 1, 32 + 9)
    assert (columns.min(), columns.max()) == (32 - 15 + 1, 32 + 14)
    np.testing.assert_allclose(image[image > 0], 1, rtol=1e-5)


def test_nothing_of_another_pattern_is_seen():
    # A dark one between bright ones, shown far beyond its borders.
    patterns = np.ones((3, 12, 14), np.float32)
    patterns[1] = 0
    some = [transformation(gamma, 64, (3.3, -2.2)) for gamma in (0, 33, 190)]
    assert fractions(patterns, (1.0, 2.0), 32, [1] * 3, some).max() == 0
    assert fractions(patterns, (1.0, 2.0), 32, [2] * 3, some).max() > 0


def test_every_example_shows_its_own_pattern():
    patterns = np.stack([np.full((40, 40), value, np.float32) for value in range(1, 6)])
    numbers = [4, 0, 3, 3, 1]
    made = fractions(patterns, (1.0, 1.0), 8, numbers, [transformation(5, 8)] * 5)
    np.testing.assert_allclose(made[:, 4, 4], np.array(numbers) + 1, rtol=1e-5)


# How it is counted


def recorded(expected, model, seed):
    normal = keras.random.normal(expected.shape, seed=keras.random.SeedGenerator(seed))
    return array(record(ops.convert_to_tensor(expected), model, normal)).astype(np.float64)


def noise(mu, model, seed=1, count=MILLION):
    return recorded(np.full(count, mu, np.float32), model, seed)


def uniform_ranks(count=MILLION):
    """Standard normal numbers, one in the middle of each of as many parts of equal probability."""
    return stats.norm.ppf((np.arange(count) + 0.5) / count)


def poisson_of(mu, normal):
    mean = ops.full(normal.shape, float(mu), dtype="float32")
    return array(poisson(mean, ops.convert_to_tensor(normal.astype(np.float32))))


@pytest.fixture(scope="module")
def counted():
    """Poisson noise of some expected numbers, each made once."""
    return {mu: noise(mu, "poisson", seed) for seed, mu in enumerate(EXPECTED)}


EXPECTED = (0.05, 1, 5, 9.9, 10.1, 30, 1000)


@pytest.mark.parametrize("mu", EXPECTED)
def test_poisson_noise_counts_whole_electrons(counted, mu):
    np.testing.assert_array_equal(counted[mu], np.round(counted[mu]))
    assert counted[mu].min() >= 0


@pytest.mark.parametrize("mu", EXPECTED)
def test_poisson_noise_has_the_moments_of_poisson(counted, mu):
    # Five standard errors.
    assert counted[mu].mean() == pytest.approx(mu, abs=5 * math.sqrt(mu / MILLION))
    fourth = 1 / mu + 2
    assert counted[mu].var() == pytest.approx(mu, rel=5 * math.sqrt(fourth / MILLION))
    skewness = stats.skew(counted[mu])
    assert skewness == pytest.approx(1 / math.sqrt(mu), rel=0.05, abs=0.0125)


@pytest.mark.parametrize("mu", [0.05, 1, 5, 9.9])
def test_as_many_pixels_as_expected_record_no_electron(counted, mu):
    share = np.mean(counted[mu] == 0)
    expected = math.exp(-mu)
    assert share == pytest.approx(expected, abs=5 * math.sqrt(expected / MILLION))


@pytest.mark.parametrize("mu", EXPECTED)
def test_poisson_noise_is_distributed_as_poisson(counted, mu):
    # Pearson's test, of each number or of neighbouring ones, so that of all enough are expected.
    some = counted[mu][:300_000]
    edges = np.unique(stats.poisson.ppf([2e-3, *np.arange(0.02, 1, 0.02), 1 - 2e-3], mu))
    expected = np.diff(stats.poisson.cdf(edges, mu), prepend=0, append=1) * len(some)
    found = np.bincount(np.searchsorted(edges, some), minlength=len(expected))
    assert expected.min() > 50
    square = np.sum((found - expected) ** 2 / expected)
    assert square < stats.chi2.ppf(1 - 1e-4, len(expected) - 1)


@pytest.mark.parametrize("mu", [0.05, 1, 5, 9.9, 10.1, 30, 1000])
def test_a_poisson_number_has_the_rank_of_the_normal_one(mu):
    normal = uniform_ranks(100_000)
    made, expected = poisson_of(mu, normal), stats.poisson.ppf(stats.norm.cdf(normal), mu)
    assert np.abs(made - expected).max() <= 1
    assert np.mean(made != expected) < (2e-4 if mu < 10 else 3e-3)
    assert made.mean(dtype=float) == pytest.approx(expected.mean(), rel=1e-5, abs=1e-5)
    assert made.var(dtype=float) == pytest.approx(expected.var(), rel=5e-4)


def test_poisson_numbers_do_not_jump_where_they_are_computed_otherwise():
    normal = uniform_ranks()
    below, above = (poisson_of(mu, normal).astype(float) for mu in (9.9999, 10.0001))
    assert np.abs(above - below).max() <= 1
    assert np.mean(above != below) < 5e-3
    assert above.mean() == pytest.approx(below.mean(), abs=3e-3)
    assert above.var() == pytest.approx(below.var(), rel=2e-3)
    assert stats.skew(above) == pytest.approx(stats.skew(below), abs=0.01)


@pytest.mark.parametrize("mu", [0.05, 1, 20, 1000])
def test_lognormal_noise_is_lognormal_with_poisson_moments(mu):
    # The tails at small µ are too long for sample moments: take those that the logarithm implies.
    log = np.log(noise(mu, "lognormal", 3))
    m, v = log.mean(), log.var()
    assert np.mean((log - m) ** 3) / v**1.5 == pytest.approx(0, abs=0.02)
    assert np.mean((log - m) ** 4) / v**2 == pytest.approx(3, abs=0.05)
    assert np.exp(m + v / 2) == pytest.approx(mu, rel=0.02)
    assert np.expm1(v) * np.exp(2 * m + v) == pytest.approx(mu, rel=0.04)


@pytest.mark.parametrize("mu", [1, 20, 1000])
def test_lognormal_noise_has_the_poisson_mean_and_variance(mu):
    signal = noise(mu, "lognormal", 4)
    assert signal.mean() == pytest.approx(mu, abs=5e-3 * math.sqrt(mu))
    assert signal.var() == pytest.approx(mu, rel=0.04)


@pytest.mark.parametrize("model", ["lognormal", "poisson"])
def test_where_no_electron_is_expected_none_is_recorded(model):
    expected = np.tile(np.array([0, 5, 0, 1e-3, 1e-30], np.float32), (1000, 1))
    signal = recorded(expected, model, 5)
    assert np.all(signal[:, [0, 2]] == 0)
    assert np.all(np.isfinite(signal))
    assert signal[:, 1].mean() == pytest.approx(5, abs=0.4)


def test_each_pixel_has_noise_of_what_is_expected_there():
    expected = np.repeat(np.array([0.5, 8, 12, 200], np.float32), 100_000)
    for model in ("lognormal", "poisson"):
        signal = recorded(expected, model, 6).reshape(4, -1)
        np.testing.assert_allclose(signal.mean(axis=1), [0.5, 8, 12, 200], rtol=0.03)
        np.testing.assert_allclose(signal.var(axis=1), [0.5, 8, 12, 200], rtol=0.2)


# Whole examples


def layer_of(model, seed=7, pixels=24):
    # A pixel of the example is 1 mrad, those of the pattern about half of that.
    patterns = averaged(OBLONG, OBLONG_MRAD, 1.0)
    return Augmentation(patterns, OBLONG_MRAD, settings(pixels=pixels, noise=model), seed)


SOME = [
    transformation(5.0, 24.0, (0.3, -0.7), 3e4, 0.2),
    transformation(-8.0, 25.1, (-1.2, 0.4), 1e5, 0.3),
    transformation(2.0, 23.2, (0.0, 0.1), 3e3, 0.27),
]


@pytest.mark.parametrize("model", ["lognormal", "poisson"])
def test_images_have_the_drawn_means(model):
    made = images(layer_of(model), [0, 1, 1], SOME)
    assert made.shape == (3, 24, 24, 1)
    assert made.dtype == np.float32
    assert made.min() >= 0
    np.testing.assert_allclose(made.mean(axis=(1, 2, 3)), [0.2, 0.3, 0.27], rtol=1e-5)


@pytest.mark.parametrize("model", ["lognormal", "poisson"])
def test_an_image_without_a_single_electron_is_dark(model):
    dark = [replace(SOME[0], electrons=electrons) for electrons in (0.0, 1e-12)]
    made = images(layer_of(model), [0, 0], dark)
    assert np.all(np.isfinite(made))
    assert made[0].max() == 0


@pytest.mark.parametrize("model", ["lognormal", "poisson"])
def test_noise_differs_between_calls_and_between_examples(model):
    layer = layer_of(model)
    first, second = (images(layer, [0, 0], [SOME[0]] * 2)[..., 0] for _ in range(2))
    inner = (slice(6, 18), slice(6, 18))
    pairs = [(first[0], first[1]), (first[0], second[0]), (first[1], second[1])]
    for one, two in [*pairs, (first[0], second[1])]:
        assert np.mean(one[inner] == two[inner]) < 0.5
    # Not the same noise elsewhere: deviations from the mean are independent.
    many = images(layer, [0] * 400, [SOME[0]] * 400)[:, 6:18, 6:18, 0]
    deviation = (many - many.mean(axis=0)).reshape(200, 2, -1)
    correlation = np.mean(deviation[:, 0] * deviation[:, 1]) / np.mean(deviation**2)
    assert correlation == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("model", ["lognormal", "poisson"])
def test_the_same_state_of_the_seed_gives_the_same_noise(model):
    layer = layer_of(model)
    state = array(layer.seed_generator.state).copy()
    first = images(layer, [0, 1, 1], SOME)
    assert not np.array_equal(array(layer.seed_generator.state), state)
    layer.seed_generator.state.assign(state)
    np.testing.assert_array_equal(images(layer, [0, 1, 1], SOME), first)
    np.testing.assert_array_equal(images(layer_of(model), [0, 1, 1], SOME), first)
    assert not np.array_equal(images(layer_of(model, seed=8), [0, 1, 1], SOME), first)


@pytest.mark.parametrize("model", ["lognormal", "poisson"])
def test_many_examples_have_mean_and_variance_of_those_of_files(model):
    copies, pixels = 3000, 16
    one = transformation(7.0, 16.3, (0.4, -1.1), 6e3, 0.25)
    layer, random = layer_of(model, pixels=pixels), np.random.default_rng(12)
    online = images(layer, [0] * copies, [one] * copies)[..., 0].astype(np.float64)
    pattern, some = averaged(OBLONG, OBLONG_MRAD, 1.0)[0], settings(pixels=pixels, noise=model)
    stored = np.stack(
        [make_image(pattern, OBLONG_MRAD, one, some, random) for _ in range(copies)]
    ).astype(np.float64)
    # Where enough is recorded for its variance to be normally distributed.
    bright = stored.mean(axis=0) > 0.02 * stored.mean(axis=0).max()
    assert bright.sum() > 50
    for moment in (lambda values: values, lambda values: (values - values.mean(axis=0)) ** 2):
        first, second = moment(online), moment(stored)
        error = np.sqrt((first.var(axis=0) + second.var(axis=0)) / copies)[bright]
        score = (first.mean(axis=0) - second.mean(axis=0))[bright] / error
        assert np.abs(score).max() < 5
        assert np.abs(score.mean()) < 5 / math.sqrt(len(score))


def test_drawn_transformations_are_taken_as_they_are():
    table = draw_transformations(np.random.default_rng(3), settings(pixels=24), 5)
    table[:, 4] = 1e15  # hardly any noise
    made = images(layer_of("lognormal"), [0] * 5, [Transformation(*row) for row in table])
    pattern = averaged(OBLONG, OBLONG_MRAD, 1.0)[0]
    for image, row in zip(made[..., 0], table, strict=True):
        expected = resample(pattern, OBLONG_MRAD, Transformation(*row), 24)
        expected *= row[5] / expected.mean()
        np.testing.assert_allclose(image, expected, rtol=0, atol=1e-4 * expected.max())


# What the device can hold


def test_more_pixels_than_can_be_counted_are_refused():
    # No memory is needed for these.
    patterns = np.broadcast_to(np.float32(0), (2**15, 128, 512))
    with pytest.raises(PacbedError, match=r"32768 patterns of 512 × 128 pixels are too many"):
        Augmentation(patterns, (0.2, 0.2), settings(), seed=0)


def test_patterns_are_no_weights_that_are_trained_or_change():
    layer = layer_of("lognormal")
    assert layer.trainable_variables == []
    before = array(layer.patterns).copy()
    images(layer, [0, 1, 1], SOME)
    np.testing.assert_array_equal(array(layer.patterns), before)


def test_the_rarest_ranks_are_not_counted_to_the_end():
    # In single precision their rank is one, which no sum of probabilities reaches.
    mean = np.geomspace(1e-6, 0.1, 2000).astype(np.float32)
    for normal in (5.3, 5.6, 6.0):
        counted = ops.convert_to_numpy(poisson(mean, np.full_like(mean, normal)))
        assert counted.max() <= 8
