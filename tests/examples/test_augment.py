"""From a pattern to an example: where things move, what is collected, and how it is counted."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import center_of_mass
from scipy.special import erf

from pacbed.examples.augment import (
    AugmentationSettings,
    Transformation,
    average_over_pixels,
    draw_transformation,
    make_image,
    record,
    resample,
)
from pacbed.exceptions import PacbedError
from pacbed.study.configuration import load

ROOT = Path(__file__).resolve().parents[2]
PAPER = AugmentationSettings(
    pixels=256,
    field_of_view_mrad=100,
    field_of_view_variation=0.0625,
    rotation_deg=(-10, 10),
    translation_px=10,
    noise="lognormal",
    electrons=(1e6, 5e7),
    image_mean=(0.2, 0.3),
)
FINE_MRAD = 0.5


def settings(**changes):
    return AugmentationSettings(**{**vars(PAPER), **changes})


def transformation(
    rotation=0.0, field=64.0, shift=(0.0, 0.0), electrons=1e12, mean=0.25
) -> Transformation:
    return Transformation(rotation, field, *shift, electrons, mean)


def axis(pixels, pixel_mrad=FINE_MRAD):
    return (np.arange(pixels) - pixels // 2) * pixel_mrad


def spot(kx, ky, width=1.0, shape=(200, 200), pixel_mrad=(FINE_MRAD, FINE_MRAD)):
    """One electron in a Gaussian spot at angles (kx, ky) in mrad."""
    x, y = axis(shape[1], pixel_mrad[0]), axis(shape[0], pixel_mrad[1])
    density = np.exp(-((x[None, :] - kx) ** 2 + (y[:, None] - ky) ** 2) / (2 * width**2))
    return density * (pixel_mrad[0] * pixel_mrad[1] / (2 * math.pi * width**2))


def resampled(pattern, one, pixels=64, pixel_mrad=(FINE_MRAD, FINE_MRAD)):
    averaged = average_over_pixels(pattern, pixel_mrad, one.field_of_view_mrad / pixels)
    return resample(averaged, pixel_mrad, one, pixels)


# Where things go


@pytest.mark.parametrize("pixels", [64, 63])
@pytest.mark.parametrize("field", [60.0, 64.0, 68.0])
@pytest.mark.parametrize("at", [(0.0, 0.0), (12.0, -7.0), (-3.3, 18.6)])
def test_a_spot_lands_on_the_pixel_of_its_angle(pixels, field, at):
    image = resampled(spot(*at), transformation(field=field), pixels)
    row, column = center_of_mass(image)
    assert column == pytest.approx(at[0] / (field / pixels) + pixels // 2, abs=0.02)
    assert row == pytest.approx(at[1] / (field / pixels) + pixels // 2, abs=0.02)


def test_the_shift_is_in_pixels_of_the_example():
    image = resampled(spot(4, 8), transformation(field=128, shift=(5.5, -3)))
    row, column = center_of_mass(image)
    assert (column, row) == pytest.approx((32 + 4 / 2 + 5.5, 32 + 8 / 2 - 3), abs=0.01)


@pytest.mark.parametrize("gamma", [-10, 3, 10, 90])
def test_a_positive_rotation_turns_the_pattern_counter_clockwise(gamma):
    # kx points right (columns), ky up (rows), as everywhere.
    image = resampled(spot(15, 0), transformation(rotation=gamma))
    row, column = center_of_mass(image)
    angle = math.degrees(math.atan2(row - 32, column - 32))
    assert angle == pytest.approx(gamma, abs=0.05)


def test_the_rotation_is_about_zero_angle_and_comes_before_the_shift():
    image = resampled(spot(10, 5), transformation(rotation=8, shift=(-4, 6)))
    row, column = center_of_mass(image)
    c, s = math.cos(math.radians(8)), math.sin(math.radians(8))
    expected = 32 + 10 * c - 5 * s - 4, 32 + 10 * s + 5 * c + 6
    assert (column, row) == pytest.approx(expected, abs=0.01)


def test_patterns_may_have_oblong_pixels_and_fields():
    pattern = spot(9, -6, width=1.5, shape=(250, 121), pixel_mrad=(0.8, 0.4))
    image = resampled(pattern, transformation(rotation=5), pixel_mrad=(0.8, 0.4))
    row, column = center_of_mass(image)
    c, s = math.cos(math.radians(5)), math.sin(math.radians(5))
    assert (column, row) == pytest.approx((32 + 9 * c + 6 * s, 32 + 9 * s - 6 * c), abs=0.02)
    assert image.sum() == pytest.approx(pattern.sum(), rel=1e-3)


# What is collected


@pytest.mark.parametrize("field", [60.0, 64.0, 68.0])
@pytest.mark.parametrize("rotation", [0, 7])
def test_electrons_are_conserved(field, rotation):
    pattern = spot(5, -3, width=2) + 3 * spot(-10, 4, width=1.2)
    image = resampled(pattern, transformation(rotation=rotation, field=field, shift=(0.4, -1.3)))
    # To a per cent: bilinear interpolation has a beat where the two grids nearly match.
    assert image.sum() == pytest.approx(4, rel=1e-2)


def test_what_lies_outside_the_field_is_lost():
    pattern = spot(0, 0) + spot(40, 0)
    assert resampled(pattern, transformation(field=64)).sum() == pytest.approx(1, rel=2e-3)


def test_beyond_the_pattern_it_is_dark():
    image = resampled(np.ones((100, 100)), transformation(field=80))
    assert image[32, 32] == pytest.approx((80 / 64 / FINE_MRAD) ** 2)
    assert image[:, :5].max() == 0


def test_a_pixel_collects_what_falls_on_its_area():
    # A spot narrower than a pixel, against the integral of a Gaussian over each pixel.
    width, at, shift = 0.9, (3.1, -6.7), (0.3, -0.6)
    pattern = spot(*at, width=width, shape=(640, 640), pixel_mrad=(0.2, 0.2))
    image = resampled(pattern, transformation(shift=shift), 32, (0.2, 0.2))

    def share(angle, offset):
        edges = (np.arange(33) - 0.5 - 16 - offset) * 2.0 - angle
        return np.diff(0.5 * erf(edges / (math.sqrt(2) * width)))

    expected = np.outer(share(at[1], shift[1]), share(at[0], shift[0]))
    np.testing.assert_allclose(image, expected, atol=0.02 * expected.max())


@pytest.mark.parametrize("rotation", [0, 4, 10])
@pytest.mark.parametrize("field", [57.0, 64.0, 71.0])
def test_what_is_finer_than_a_pixel_averages_out(rotation, field):
    # Every second pixel of the pattern bright: sampled at points, the example would be a moiré.
    rows, columns = np.indices((400, 400))
    comb = 2.0 * ((rows + columns) % 2)
    image = resampled(comb, transformation(rotation=rotation, field=field), 32, (0.25, 0.25))
    flat = resampled(
        np.ones_like(comb), transformation(rotation=rotation, field=field), 32, (0.25,) * 2
    )
    np.testing.assert_allclose(image, flat, rtol=0.05)


# How it is counted


@pytest.mark.parametrize("model", ["lognormal", "poisson"])
@pytest.mark.parametrize("mu", [0.05, 1, 20, 1000])
def test_noise_has_the_poisson_mean(model, mu):
    signal = record(np.full(1_000_000, float(mu)), model, np.random.default_rng(1))
    # Five standard errors of the mean of a million.
    assert signal.mean() == pytest.approx(mu, abs=5e-3 * math.sqrt(mu))


@pytest.mark.parametrize(
    ("model", "mu"),
    [
        ("poisson", 0.05),
        ("poisson", 1),
        ("poisson", 20),
        ("poisson", 1000),
        ("lognormal", 1),
        ("lognormal", 20),
        ("lognormal", 1000),
    ],
)
def test_noise_has_the_poisson_variance(model, mu):
    signal = record(np.full(1_000_000, float(mu)), model, np.random.default_rng(2))
    assert signal.var() == pytest.approx(mu, rel=0.04)


@pytest.mark.parametrize("mu", [0.05, 1, 20, 1000])
def test_lognormal_noise_is_lognormal_with_poisson_moments(mu):
    # The tails at small µ are too long for sample moments: take those that the logarithm implies.
    log = np.log(record(np.full(1_000_000, float(mu)), "lognormal", np.random.default_rng(3)))
    m, v = log.mean(), log.var()
    assert np.mean((log - m) ** 3) / v**1.5 == pytest.approx(0, abs=0.02)
    assert np.exp(m + v / 2) == pytest.approx(mu, rel=0.02)
    assert np.expm1(v) * np.exp(2 * m + v) == pytest.approx(mu, rel=0.04)


def test_poisson_noise_counts_whole_electrons():
    signal = record(np.full(1000, 2.5), "poisson", np.random.default_rng(4))
    np.testing.assert_array_equal(signal, np.round(signal))


@pytest.mark.parametrize("model", ["lognormal", "poisson"])
def test_where_no_electron_is_expected_none_is_recorded(model):
    expected = np.array([0.0, 5.0, 0.0, 1e-3])
    signal = record(np.tile(expected, (1000, 1)), model, np.random.default_rng(5))
    assert np.all(signal[:, [0, 2]] == 0)
    assert np.all(np.isfinite(signal))
    assert signal[:, 1].mean() == pytest.approx(5, abs=0.4)


# Whole examples


@pytest.mark.parametrize("model", ["lognormal", "poisson"])
@pytest.mark.parametrize("mean", [0.2, 0.3])
def test_an_image_has_the_drawn_mean(model, mean):
    random = np.random.default_rng(6)
    image = make_image(
        spot(2, 3, width=8),
        (FINE_MRAD, FINE_MRAD),
        transformation(electrons=1e5, mean=mean),
        settings(pixels=64, noise=model),
        random,
    )
    assert image.shape == (64, 64)
    assert image.dtype == np.float32
    assert image.mean() == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("model", ["lognormal", "poisson"])
def test_noise_is_that_of_the_electrons_in_a_pixel_of_the_example(model):
    # The dose is that of the whole beam: here a pattern whose pixels have 1e-6 of it each, so
    # that a pixel of the example, four times four of them, expects 160 of 1e7 electrons.
    flat, random = np.full((300, 300), 1e-6), np.random.default_rng(7)
    one = transformation(rotation=5, field=128, electrons=1e7)
    images = [
        make_image(flat, (FINE_MRAD,) * 2, one, settings(pixels=64, noise=model), random)
        for _ in range(20)
    ]
    relative = np.stack(images)[:, 6:-6, 6:-6] / np.mean(images, axis=0)[6:-6, 6:-6] - 1
    assert relative.var() == pytest.approx((1 / 160) * (19 / 20), rel=0.05)


def test_noise_comes_after_resampling_and_is_independent_in_every_pixel():
    flat, random = np.full((300, 300), 1e-6), np.random.default_rng(8)
    one = transformation(rotation=7, field=100, shift=(0.5, 0.5), electrons=1e7)
    image = make_image(flat, (FINE_MRAD,) * 2, one, settings(pixels=128), random)
    inner = image[14:-14, 14:-14] - image[14:-14, 14:-14].mean()
    assert inner.std() > 0
    for neighbour in (inner[:, 1:] * inner[:, :-1], inner[1:] * inner[:-1]):
        assert neighbour.mean() / inner.var() == pytest.approx(0, abs=0.05)


def test_a_higher_dose_is_less_noisy_not_brighter():
    random = np.random.default_rng(9)
    flat = np.full((300, 300), 1e-6)

    def image(electrons):
        one = transformation(electrons=electrons)
        return make_image(flat, (FINE_MRAD,) * 2, one, settings(pixels=64), random)

    low, high = image(1e7), image(1e9)
    assert low.mean() == pytest.approx(high.mean(), rel=1e-5)
    assert low.std() / high.std() == pytest.approx(10, rel=0.1)


def test_an_image_without_a_single_electron_is_refused():
    one = transformation(electrons=1e-9)
    with pytest.raises(PacbedError, match=r"raise dataset\.electrons"):
        make_image(
            spot(0, 0),
            (FINE_MRAD, FINE_MRAD),
            one,
            settings(pixels=64, noise="poisson"),
            np.random.default_rng(11),
        )


# The draws


@pytest.fixture(scope="module")
def drawn():
    random = np.random.default_rng(10)
    made = [vars(draw_transformation(random, PAPER)) for _ in range(4000)]
    return {name: np.array([one[name] for one in made]) for name in made[0]}


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("rotation_deg", -10, 10),
        ("field_of_view_mrad", 93.75, 106.25),
        ("shift_x_px", -10, 10),
        ("shift_y_px", -10, 10),
        ("image_mean", 0.2, 0.3),
    ],
)
def test_transformations_are_drawn_uniformly_from_their_ranges(drawn, name, low, high):
    assert_uniform(drawn[name], low, high)


def test_the_dose_is_drawn_log_uniformly(drawn):
    assert_uniform(np.log10(drawn["electrons"]), 6, 6 + math.log10(50))


def assert_uniform(values, low, high):
    assert low <= values.min()
    assert values.max() <= high
    share = np.searchsorted(np.sort(values), np.linspace(low, high, 11)[1:-1]) / len(values)
    # Kolmogorov-Smirnov: 1.63/√n at the 1 % level.
    np.testing.assert_allclose(share, np.arange(1, 10) / 10, atol=2 / math.sqrt(len(values)))


def test_transformations_are_drawn_independently(drawn):
    correlation = np.corrcoef(np.array(list(drawn.values())))
    assert np.abs(correlation - np.eye(len(drawn))).max() < 5 / math.sqrt(4000)


@pytest.mark.parametrize("overlays", [[], ["demo.yaml"]], ids=["paper", "demo"])
def test_no_example_of_the_shipped_configurations_reaches_beyond_the_pattern(overlays):
    config = load([ROOT / "config" / name for name in overlays])
    one, stored = config.augmentation(), config.detector()
    pixel = stored.field_of_view_mrad[0] / stored.pixels[0]
    bright = np.ones(stored.pixels)
    largest = one.field_of_view_mrad * (1 + one.field_of_view_variation)
    shifts = (-one.translation_px, one.translation_px)
    for gamma, *shift in product(one.rotation_deg, shifts, shifts):
        extreme = transformation(rotation=gamma, field=largest, shift=shift)
        image = resample(bright, (pixel, pixel), extreme, one.pixels)
        assert image.min() == pytest.approx(image.max(), rel=1e-6)


def test_the_reach_grows_with_everything_that_moves_the_pattern():
    still = settings(field_of_view_variation=0, rotation_deg=(0, 0), translation_px=0)
    assert still.reach_mrad == pytest.approx(50, abs=0.5)
    for name, value in [
        ("field_of_view_variation", 0.1),
        ("rotation_deg", (-20, 0)),
        ("translation_px", 25.6),
    ]:
        moved = settings(**{**vars(still), name: value})
        growth = {"field_of_view_variation": 1.1, "rotation_deg": 1.2817, "translation_px": 1.2}
        assert moved.reach_mrad / still.reach_mrad == pytest.approx(growth[name], rel=2e-3)
