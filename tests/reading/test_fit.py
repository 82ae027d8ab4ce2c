"""Fits reach the Cramér-Rao bound, and say when they do not."""

import numpy as np
import pytest
from mtf_tables import gaussian_mtf
from small_series import APERTURE, PIXELS, FIELD_mrad, pattern, random_states

from pacbed.exceptions import RequestError
from pacbed.reading.fit import Fit, FitSettings
from pacbed.scattering.image_model import ALWAYS_FREE, COLUMN, UNKNOWNS, Frame, ImageModel
from pacbed.scattering.mtf import MTF

# What they share takes longer than they do: all in one process.
pytestmark = pytest.mark.xdist_group("small series")

FRAME = Frame.centred(PIXELS, FIELD_mrad)
# As far from the truth as a small network is.
NETWORK_ERROR = [0.002, 0.002, 0.002, 0.2, 0.3, 0.3, 0.5, 0.5, 0.005]


def noisy(expected, seed=0):
    return np.random.default_rng(seed).poisson(expected).astype(np.float32)


def starts_near(states, seed=1):
    random = np.random.default_rng(seed)
    starts = states.copy()
    starts[:, :9] += random.normal(size=(len(states), 9)) * NETWORK_ERROR
    starts[:, COLUMN["log_dose"]] = 0
    return starts


@pytest.fixture(scope="module")
def measured(small_series):
    states = random_states(24, 3e6)
    return states, noisy([pattern(small_series, state, 4) for state in states])


@pytest.fixture(scope="module")
def fit(small_series):
    return Fit(small_series, APERTURE, 4, FRAME)


def test_errors_are_as_large_as_stated(fit, measured):
    states, images = measured
    result = fit.fit(images, starts_near(states))
    deviation = (result.states - states)[:, :10] / result.sigma[:, :10]
    assert result.converged.all()
    assert result.flags == [""] * len(states)
    assert np.abs(deviation).max() < 5
    assert np.all(np.abs(np.sqrt((deviation**2).mean(axis=0)) - 1) < 0.5)
    assert np.abs(result.chi2_per_pixel - 1).max() < 6 * np.sqrt(2 / PIXELS**2)


def test_a_pattern_is_fitted_alone_as_among_others(fit, measured):
    states, images = measured
    starts = starts_near(states)
    together, alone = fit.fit(images[:3], starts[:3]), fit.fit(images[2:3], starts[2:3])
    assert np.abs(alone.states[0] - together.states[2]).max() < 1e-6


def test_a_given_mtf_makes_fits_of_blurred_patterns_right(small_series, fit, measured):
    states, _ = measured
    mtf = MTF(gaussian_mtf(0.8))
    expected = [mtf.blurred(pattern(small_series, state, 4)) for state in states[:8]]
    images, starts = noisy(np.maximum(expected, 0)), starts_near(states[:8])
    knowing = Fit(small_series, APERTURE, 4, Frame.centred(PIXELS, FIELD_mrad, mtf))
    found, ignoring = knowing.fit(images, starts), fit.fit(images, starts)
    deviation = (found.states - states[:8])[:, :10] / found.sigma[:, :10]
    assert np.abs(deviation).max() < 5
    assert np.abs(found.chi2_per_pixel - 1).max() < 6 * np.sqrt(2 / PIXELS**2)
    assert ignoring.chi2_per_pixel.min() > 1.3


def test_what_is_masked_does_not_matter(fit, measured):
    states, images = measured
    spoilt, masks = images[:2].copy(), np.ones_like(images[:2], bool)
    spoilt[:, 20:24, 30:50] = np.nan
    spoilt[:, 40, 40] = 1e9
    masks[:, 20:24, 30:50] = masks[:, 40, 40] = False
    result = fit.fit(spoilt, starts_near(states[:2]), masks=masks)
    deviation = (result.states - states[:2])[:, :10] / result.sigma[:, :10]
    assert result.flags == ["", ""]
    assert np.abs(deviation).max() < 5


def test_a_given_variance_is_that_of_the_result(fit, measured):
    states, images = measured
    starts = starts_near(states[:2])
    counted = fit.fit(images[:2], starts)
    expected = np.stack([fit.model().images(one[None])[0] for one in counted.states])
    variances = 4 * np.maximum(expected, 1).reshape(images[:2].shape)
    wide = fit.fit(images[:2], starts, variances)
    ratio = wide.sigma[:, :10] / counted.sigma[:, :10]
    assert np.all((ratio > 1.7) & (ratio < 2.2))
    assert np.all(wide.chi2_per_pixel < 0.35)


def test_a_prior_holds_what_the_pattern_does_not_tell(small_series, measured):
    states, images = measured
    settings = FitSettings(priors={"tilt_x_mrad": (0.5, 1e-6)})
    result = Fit(small_series, APERTURE, 4, FRAME, settings).fit(
        images[:2], starts_near(states[:2])
    )
    assert np.abs(result.column("tilt_x_mrad") - 0.5).max() < 1e-4
    assert np.all(result.sigma[:, COLUMN["tilt_x_mrad"]] <= 1e-6)
    assert not any("not converged" in flags for flags in result.flags)


CAMERA = {
    "background": 0.05,
    "log_semiangle": 0.02,
    "ellipticity": 0.01,
    "ellipticity_diagonal": -0.005,
    "blur_px": 1.0,
}


@pytest.fixture(scope="module")
def distorted(small_series):
    """Patterns of a camera that is not as it is thought to be."""
    states = random_states(6, 1e7)
    for name, value in CAMERA.items():
        states[:, COLUMN[name]] = value
    expected = ImageModel(small_series, APERTURE, 4, FRAME, UNKNOWNS).images(states)
    return states, noisy(expected.reshape(-1, PIXELS, PIXELS))


def test_a_distorted_camera_is_fitted_where_it_is_free(small_series, distorted):
    states, images = distorted
    starts = starts_near(states)
    starts[:, 10:] = 0
    starts[:, COLUMN["blur_px"]] = 0.5
    settings = FitSettings((*ALWAYS_FREE, *CAMERA), priors={"log_scale": (0.0, 0.02)})
    result = Fit(small_series, APERTURE, 4, FRAME, settings).fit(images, starts)
    free = [COLUMN[name] for name in settings.free]
    deviation = (result.states - states)[:, free] / result.sigma[:, free]
    assert result.flags == [""] * len(states)
    assert np.abs(deviation).max() < 5


def test_a_distorted_camera_is_told_by_chi2_where_it_is_not_free(fit, distorted):
    states, images = distorted
    starts = starts_near(states)
    starts[:, 10:] = 0
    assert all("bad chi2" in flags for flags in fit.fit(images, starts).flags)


def test_a_strain_beyond_the_series_is_flagged(small_series, fit):
    states = random_states(1, 1e7)
    states[0, :3] = 0.05, 0.045, 0.0
    model = ImageModel(small_series, APERTURE, 4, FRAME, UNKNOWNS[:10])
    images = noisy(model.images(states).reshape(1, PIXELS, PIXELS))
    starts = states.copy()
    starts[0, :3] = 0.02, 0.02, 0.0
    result = fit.fit(images, starts)
    assert "at the edge of the range" in result.flags[0]
    edge = [name for name, at in zip(UNKNOWNS, result.at_edge[0], strict=True) if at]
    assert edge == ["strain_xx", "strain_yy", "strain_xy"]


@pytest.mark.parametrize(
    ("name", "end", "flagged"),
    [
        ("blur_px", 5.0, True),
        ("blur_px", 0.0, False),
        ("background", 5.0, True),
        ("background", -0.5, False),
        ("halo", 5.0, True),
        ("halo", -0.5, False),
    ],
)
def test_only_the_upper_end_of_what_may_be_none_is_an_edge(
    small_series, measured, name, end, flagged
):
    states, images = measured
    starts = states[:1].copy()
    starts[0, COLUMN[name]] = end
    beyond = 2 * end or -1.0
    settings = FitSettings((name,), priors={name: (beyond, 1e-6)})
    result = Fit(small_series, APERTURE, 4, FRAME, settings).fit(images[:1], starts, bins=(2,))
    assert result.column(name)[0] == end
    assert ("at the edge of the range" in result.flags[0]) == flagged
    assert result.at_edge[0, COLUMN[name]] == flagged


def test_where_putting_pixels_together_leaves_too_few_all_are_compared(fit, measured):
    states, images = measured
    plain, fallen_back = (
        fit.fit(images[:1], starts_near(states[:1]), bins=bins) for bins in ((1,), (8,))
    )
    assert PIXELS // 8 < 24
    assert np.array_equal(plain.states, fallen_back.states)


def test_an_unknown_that_there_is_not_is_refused():
    with pytest.raises(RequestError, match="no unknown 'elipticity'"):
        FitSettings(free=("elipticity",))
