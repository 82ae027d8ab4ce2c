"""From a pattern to an example: where things move, what is collected, and how it is counted."""

import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.ndimage import center_of_mass
from scipy.special import erf

from pacbed.examples.augment import (
    TRANSFORMATIONS,
    average_over_pixels,
    record,
    resample,
)
from pacbed.exceptions import RequestError
from pacbed.scattering.image import Camera
from pacbed.study.configuration import load
from pacbed.study.model import Configuration

ROOT = Path(__file__).resolve().parents[2]
PAPER = Configuration().augmentation()
FINE_MRAD = 0.5


def axis(pixels, pixel_mrad=FINE_MRAD):
    return (np.arange(pixels) - pixels // 2) * pixel_mrad


def spot(kx, ky, width=1.0, shape=(200, 200), pixel_mrad=(FINE_MRAD, FINE_MRAD)):
    """One electron in a Gaussian spot at angles (kx, ky) in mrad."""
    x, y = axis(shape[1], pixel_mrad[0]), axis(shape[0], pixel_mrad[1])
    density = np.exp(-((x[None, :] - kx) ** 2 + (y[:, None] - ky) ** 2) / (2 * width**2))
    return density * (pixel_mrad[0] * pixel_mrad[1] / (2 * math.pi * width**2))


def resampled(pattern, camera, pixel_mrad=(FINE_MRAD, FINE_MRAD)):
    averaged = average_over_pixels(pattern, pixel_mrad, camera.pixel_mrad)
    return resample(averaged, pixel_mrad, camera)


# Where things go


@pytest.mark.parametrize("pixels", [64, 63])
@pytest.mark.parametrize("field", [60.0, 64.0, 68.0])
@pytest.mark.parametrize(
    ("at", "gamma", "shift", "pixel_mrad"),
    [
        ((0.0, 0.0), 0, (0, 0), (FINE_MRAD, FINE_MRAD)),
        ((-3.3, 18.6), 0, (0, 0), (FINE_MRAD, FINE_MRAD)),
        ((4.0, 8.0), 0, (5.5, -3), (FINE_MRAD, FINE_MRAD)),
        # kx points right (columns), ky up (rows), as everywhere: γ turns counter-clockwise.
        ((15.0, 0.0), 10, (0, 0), (FINE_MRAD, FINE_MRAD)),
        ((15.0, 0.0), 90, (0, 0), (FINE_MRAD, FINE_MRAD)),
        ((10.0, 5.0), -8, (-4, 6), (FINE_MRAD, FINE_MRAD)),
        ((9.0, -6.0), 5, (0, 0), (0.8, 0.4)),
    ],
)
def test_a_spot_is_turned_about_zero_angle_then_scaled_then_shifted(
    pixels, field, at, gamma, shift, pixel_mrad
):
    pattern = spot(*at, width=1.5, shape=(250, 121), pixel_mrad=pixel_mrad)
    camera = Camera(pixels, field, gamma, shift)
    row, column = center_of_mass(resampled(pattern, camera, pixel_mrad))
    c, s = math.cos(math.radians(gamma)), math.sin(math.radians(gamma))
    turned = np.array([c * at[0] - s * at[1], s * at[0] + c * at[1]])
    expected = turned / (field / pixels) + pixels // 2 + shift
    assert (column, row) == pytest.approx(tuple(expected), abs=0.02)


# What is collected


@pytest.mark.parametrize("field", [60.0, 64.0, 68.0])
@pytest.mark.parametrize("rotation", [0, 7])
def test_electrons_within_the_field_are_conserved_and_others_lost(field, rotation):
    pattern = spot(5, -3, width=2) + 3 * spot(-10, 4, width=1.2) + spot(40, 0)
    image = resampled(pattern, Camera(64, field, rotation, (0.4, -1.3)))
    # To a per cent: bilinear interpolation has a beat where the two grids nearly match.
    assert image.sum() == pytest.approx(4, rel=1e-2)


def test_beyond_the_pattern_it_is_dark():
    image = resampled(np.ones((100, 100)), Camera(64, 80))
    assert image[32, 32] == pytest.approx((80 / 64 / FINE_MRAD) ** 2)
    assert image[:, :5].max() == 0


def test_a_pixel_collects_what_falls_on_its_area():
    # A spot narrower than a pixel, against the integral of a Gaussian over each pixel.
    width, at, shift = 0.9, (3.1, -6.7), (0.3, -0.6)
    pattern = spot(*at, width=width, shape=(640, 640), pixel_mrad=(0.2, 0.2))
    image = resampled(pattern, Camera(32, 64, shift_px=shift), (0.2, 0.2))

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
    image, flat = (
        resampled(one, Camera(32, field, rotation), (0.25, 0.25))
        for one in (comb, np.ones_like(comb))
    )
    np.testing.assert_allclose(image, flat, rtol=0.05)


# How it is counted (of the noise of examples: test_augment_layer.py)


@pytest.mark.parametrize("mu", [0.05, 1, 20, 1000])
def test_recorded_noise_has_its_distribution_with_mean_and_variance_of_poisson(mu):
    expected, random = np.full(100_000, float(mu)), np.random.default_rng(1)
    logarithm = np.log(record(expected, "lognormal", random).astype(float))
    variance = math.log1p(1 / mu)
    normal = (logarithm - math.log(mu) + variance / 2) / math.sqrt(variance)
    assert stats.kstest(normal, "norm").pvalue > 1e-4
    counted = np.bincount(record(expected, "poisson", random).astype(int))
    probable = 1e5 * stats.poisson.pmf(np.arange(len(counted)), mu)
    some = probable > 20
    square = np.sum((counted - probable)[some] ** 2 / probable[some])
    assert square < stats.chi2.ppf(1 - 1e-4, some.sum())


@pytest.mark.parametrize("model", ["lognormal", "poisson"])
def test_where_no_electron_is_expected_none_is_recorded(model):
    expected = np.tile([0.0, 5.0, 1e-3], (1000, 1))
    signal = record(expected, model, np.random.default_rng(5))
    assert np.all(signal[:, 0] == 0)
    assert np.all(np.isfinite(signal))


# The draws


@pytest.fixture(scope="module")
def drawn():
    uniform = np.random.default_rng(10).random((4000, 6))
    return dict(zip(TRANSFORMATIONS, PAPER.transformations(uniform).T, strict=True))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("rotation_deg", -10, 10),
        ("field_of_view_mrad", 93.75, 106.25),
        ("shift_x_px", -10, 10),
        ("shift_y_px", -10, 10),
        ("electrons", 6, 6 + math.log10(50)),
        ("image_mean", 0.2, 0.3),
    ],
)
def test_transformations_are_drawn_uniformly_from_their_ranges(drawn, name, low, high):
    """And the dose log-uniformly."""
    values = np.log10(drawn[name]) if name == "electrons" else drawn[name]
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
        extreme = Camera(one.pixels, largest, gamma, tuple(shift))
        image = resample(bright, (pixel, pixel), extreme)
        assert image.min() == pytest.approx(image.max(), rel=1e-6)


def test_the_reach_grows_with_everything_that_moves_the_pattern():
    still = replace(PAPER, field_of_view_variation=0, rotation_deg=(0, 0), translation_px=0)
    assert still.reach_mrad == pytest.approx(50, abs=0.5)
    for name, value in [
        ("field_of_view_variation", 0.1),
        ("rotation_deg", (-20, 0)),
        ("translation_px", 25.6),
    ]:
        moved = replace(still, **{name: value})
        growth = {"field_of_view_variation": 1.1, "rotation_deg": 1.2817, "translation_px": 1.2}
        assert moved.reach_mrad / still.reach_mrad == pytest.approx(growth[name], rel=2e-3)


def test_a_noise_that_there_is_not_is_refused():
    with pytest.raises(RequestError, match="noise must be lognormal or poisson, not 'gaussian'"):
        replace(PAPER, noise="gaussian")
