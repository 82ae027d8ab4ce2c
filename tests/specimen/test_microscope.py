"""Wavelength, aperture and detector."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import erf

from pacbed.exceptions import RequestError
from pacbed.specimen.microscope import Aperture, Detector, lorentz_factor, wavelength_A

PIXELS = np.arange(-40, 41) * 0.5
EDGES = [
    pytest.param(Aperture(10), id="hard"),
    pytest.param(Aperture(10, 0.1), id="erf-sharp"),
    pytest.param(Aperture(10, 0.6), id="erf"),
    pytest.param(Aperture(10, 2.0), id="erf-wide"),
    pytest.param(Aperture(10, 0.6, "linear"), id="linear"),
    pytest.param(Aperture(10, 2.0, "linear"), id="linear-wide"),
]


# Wavelength


@pytest.mark.parametrize(
    ("energy_keV", "expected_A"), [(80, 0.0417572), (200, 0.0250793), (300, 0.0196875)]
)
def test_wavelength_is_that_of_the_textbooks(energy_keV, expected_A):
    assert wavelength_A(energy_keV) == pytest.approx(expected_A, abs=6e-8)


def test_electron_of_its_own_rest_energy_is_twice_as_heavy():
    assert lorentz_factor(510.99895) == pytest.approx(2)


# Aperture


@pytest.mark.parametrize("centre", [(0, 0), (0.25, 0.25), (0.137, -0.391), (3.3, -4.1)])
@pytest.mark.parametrize("aperture", EDGES)
def test_weights_sum_to_one_wherever_the_disc_lies(aperture, centre):
    weights = aperture.weights(PIXELS - centre[0], PIXELS - centre[1])
    assert weights.sum() == pytest.approx(1, abs=1e-3)
    oblong = aperture.weights(np.arange(-50, 51) * 0.4 - centre[0], np.arange(-30, 31) * 0.55)
    assert oblong.shape == (61, 101)
    assert oblong.sum() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("aperture", EDGES)
def test_centre_of_mass_of_the_weights_is_the_centre_of_the_disc(aperture):
    weights = aperture.weights(PIXELS - 0.137, PIXELS + 0.391)
    assert weights.sum(axis=0) @ PIXELS == pytest.approx(0.137, abs=0.01)
    assert weights.sum(axis=1) @ PIXELS == pytest.approx(-0.391, abs=0.01)


def test_part_of_a_disc_outside_the_grid_is_not_made_up_for():
    half = PIXELS[PIXELS > 0] - 0.25  # from the middle of the disc outwards
    assert Aperture(10).weights(half + 0.25, PIXELS).sum() == pytest.approx(0.5, abs=0.02)


def test_hard_edge_fills_every_pixel_by_the_area_inside():
    radius, step = 10.0, 0.5
    x, y = PIXELS - 0.137, PIXELS + 0.391
    weights = Aperture(radius).weights(x, y) * math.pi * radius**2 / step**2

    def area(centre_x, centre_y):
        def chord(u):
            half = math.sqrt(max(radius**2 - u**2, 0))
            top, bottom = min(centre_y + step / 2, half), max(centre_y - step / 2, -half)
            return max(top - bottom, 0)

        return quad(chord, centre_x - step / 2, centre_x + step / 2, limit=200)[0] / step**2

    distance = np.abs(np.hypot(x[None, :], y[:, None]) - radius)
    rows, columns = np.nonzero(distance < step)
    some = slice(None, None, 7)
    expected = [area(x[j], y[i]) for i, j in zip(rows[some], columns[some], strict=True)]
    assert sum(0.05 < e < 0.95 for e in expected) > 10
    np.testing.assert_allclose(weights[rows, columns][some], expected, atol=0.02)


def test_hard_edge_is_even_inside_and_dark_outside():
    radius = np.hypot(PIXELS[None, :], PIXELS[:, None])
    weights = Aperture(10).weights(PIXELS, PIXELS)
    np.testing.assert_allclose(weights[radius < 9.5], 0.25 / (math.pi * 100))
    assert (weights[radius > 10.5] == 0).all()


def test_erf_edge_follows_its_formula():
    radius = np.linspace(0, 20, 81)
    amplitude = 0.5 + 0.5 * erf((10 - radius) / (0.5 * 1.2))
    np.testing.assert_allclose(Aperture(10, 1.2).transmission(radius), amplitude**2)


def test_linear_edge_falls_from_one_to_zero_over_its_width():
    found = Aperture(10, 2, "linear").transmission(np.array([0, 8.9, 9.5, 10, 10.5, 11.1, 15]))
    np.testing.assert_allclose(found, [1, 1, 0.75**2, 0.5**2, 0.25**2, 0, 0])


@pytest.mark.parametrize("aperture", EDGES)
def test_aperture_is_dark_beyond_its_outer_radius(aperture):
    assert aperture.transmission(np.array(aperture.outer_mrad + 1e-6)) < 1e-12


def test_solid_angle_is_the_integral_of_the_transmission():
    assert Aperture(10).solid_angle_mrad2() == pytest.approx(math.pi * 100)
    # 2π ∫ r t² dr with t falling linearly from 1 at 9 to 0 at 11: t = (11 - r)/2.
    edge = quad(lambda r: 2 * math.pi * r * ((11 - r) / 2) ** 2, 9, 11)[0]
    expected = math.pi * 81 + edge
    assert Aperture(10, 2, "linear").solid_angle_mrad2() == pytest.approx(expected, rel=1e-6)


def test_soft_edge_becomes_hard_as_its_width_vanishes():
    hard = Aperture(10).weights(PIXELS, PIXELS)
    for profile in ("erf", "linear"):
        soft = Aperture(10, 1e-3, profile).weights(PIXELS, PIXELS)
        assert np.abs(soft - hard).sum() < 2e-3


# Detector


@pytest.mark.parametrize("pixels", [(256, 256), (255, 255), (6, 9), (2, 3)])
def test_zero_angle_lies_on_the_middle_of_even_pixels(pixels):
    detector = Detector((100, 80), pixels)
    for k, n, field in ((detector.kx_mrad, pixels[0], 100), (detector.ky_mrad, pixels[1], 80)):
        assert (len(k), k[n // 2]) == (n, 0)
        np.testing.assert_allclose(np.diff(k), field / n)


@pytest.mark.parametrize(("pixels", "reach"), [(4, 10), (5, 16)])
def test_reach_is_the_smallest_angle_to_the_last_pixel(pixels, reach):
    # Four pixels of 10 mrad: -20, -10, 0, 10. Five of 8 mrad: -16 ... 16.
    assert Detector((40, 80), (pixels, 100)).reach_mrad == pytest.approx(reach)


@pytest.mark.parametrize(
    ("made", "arguments", "complaint"),
    [
        (Aperture, (0,), "semi-angle must be positive, not 0 mrad"),
        (Aperture, (10, -1), "edge must be 0 or more, not -1"),
        (Detector, ((40, 40), (1, 40)), "at least 2 × 2 pixels"),
        (Detector, ((40, 0), (40, 40)), "field of view must be positive"),
    ],
)
def test_impossible_apertures_and_detectors_are_refused(made, arguments, complaint):
    with pytest.raises(RequestError, match=complaint):
        made(*arguments)
