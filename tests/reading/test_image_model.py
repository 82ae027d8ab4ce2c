"""The batched model of images against that of the series, and its derivatives."""

import numpy as np
import pytest
from mtf_tables import gaussian_mtf
from small_series import APERTURE, PIXELS, FIELD_mrad, pattern, random_states

from pacbed.scattering.image import Camera
from pacbed.scattering.image_model import COLUMN, UNKNOWNS, Frame, ImageModel
from pacbed.scattering.mtf import MTF
from pacbed.scattering.series import ScatteringSeries
from pacbed.specimen.microscope import Aperture

pytestmark = pytest.mark.xdist_group("small series")

STEPS = {
    **dict.fromkeys(("strain_xx", "strain_yy", "strain_xy"), 1e-4),
    **dict.fromkeys(("log_scale", "ellipticity", "ellipticity_diagonal"), 1e-3),
    **dict.fromkeys(("background", "halo", "log_dose"), 1e-2),
    "log_semiangle": 2e-3,
    "blur_px": 0.02,
}


@pytest.mark.parametrize("layers", [1, 4])
def test_images_are_those_of_the_series(small_series, layers):
    model = ImageModel(
        small_series, APERTURE, layers, Frame.centred(PIXELS, FIELD_mrad), UNKNOWNS[:10]
    )
    states = random_states(3, 1e6)
    for state, image in zip(states, model.images(states), strict=True):
        expected = pattern(small_series, state, layers).ravel()
        assert np.abs(image - expected).sum() < 1e-4 * expected.sum()


def test_models_that_are_compiled_alike_are_compiled_once(small_series):
    again, frame = ScatteringSeries(small_series.path), Frame.centred(PIXELS, FIELD_mrad)
    one = ImageModel(small_series, APERTURE, 1, frame, UNKNOWNS[:10])
    assert ImageModel(again, APERTURE, 4, frame, UNKNOWNS[:10])._model is one._model
    others = [
        ImageModel(again, Aperture(6.0), 1, frame, UNKNOWNS[:10]),
        ImageModel(again, APERTURE, 1, frame.binned(2), UNKNOWNS[:10]),
        ImageModel(again, APERTURE, 1, frame, UNKNOWNS[:9]),
    ]
    assert len({other._model for other in [one, *others]}) == 4


@pytest.mark.parametrize("semiangle_mrad", [4.0, 11.5])
def test_no_part_of_larger_discs_is_missed(small_series, semiangle_mrad):
    frame, state = Frame.centred(PIXELS, FIELD_mrad), random_states(1, 1e6)[0]
    state[4:6] = 0.0
    wider = state.copy()
    wider[COLUMN["log_semiangle"]] = np.log(1.04)
    images = [
        ImageModel(small_series, Aperture(radius), 4, frame, ("log_semiangle",)).images(one[None])
        for radius, one in ((semiangle_mrad, wider), (1.04 * semiangle_mrad, state))
    ]
    assert np.abs(np.diff(images, axis=0)).sum() < 2e-4 * np.sum(images[1])


def test_derivatives_are_those_of_the_series(small_series):
    state = random_states(1, 1.0)[0]
    model = ImageModel(small_series, APERTURE, 4, Frame.centred(PIXELS, FIELD_mrad), UNKNOWNS[:10])
    columns = model.images_and_columns(state[None])[1][0].reshape(-1, PIXELS, PIXELS)
    camera = Camera(PIXELS, FIELD_mrad * np.exp(state[8]), state[3], tuple(state[6:8]))
    expected = small_series.image_and_derivatives(
        tuple(state[:3]), tuple(state[4:6]), APERTURE, 4, camera
    )
    of_numpy = [
        *expected.by_strain,
        expected.by_rotation,
        *expected.by_tilt,
        *expected.by_shift,
        expected.by_field,
        expected.expected,
    ]
    for name, one, other in zip(UNKNOWNS, columns, of_numpy, strict=False):
        assert np.abs(one - other).sum() < 0.02 * np.abs(other).sum(), name


@pytest.mark.parametrize("aperture", [APERTURE, Aperture(4.0, 0.4)])
def test_derivatives_by_all_unknowns_are_those_of_differences(small_series, aperture):
    model = ImageModel(small_series, aperture, 4, Frame.centred(PIXELS, FIELD_mrad), UNKNOWNS)
    state = random_states(1, 1.0)[0]
    state[10:] = 0.02, 0.03, 0.01, 0.01, -0.007, 0.8
    columns = model.images_and_columns(state[None])[1][0].reshape(-1, PIXELS, PIXELS)
    for number, name in enumerate(UNKNOWNS):
        step = np.zeros(len(UNKNOWNS))
        step[number] = STEPS.get(name, 0.05)
        low, high = model.images(np.stack([state - step, state + step]))
        slope = (high - low) / (2 * step[number])
        assert np.abs(columns[number].ravel() - slope).sum() < 0.03 * np.abs(slope).sum(), name


def test_pixels_put_together_hold_the_electrons_of_all(small_series):
    frame = Frame.centred(PIXELS, FIELD_mrad)
    states = random_states(2, 1e6)
    fine, coarse = (
        ImageModel(small_series, APERTURE, 4, f, UNKNOWNS[:10]).images(states)
        for f in (frame, frame.binned(2))
    )
    half = PIXELS // 2
    sums = fine.reshape(-1, half, 2, half, 2).sum(axis=(2, 4)).reshape(len(states), -1)
    # Edges of discs are straight in a pixel: of larger ones that is less true.
    assert np.abs(sums - coarse).sum() < 0.01 * sums.sum()


@pytest.mark.parametrize("free", [(), UNKNOWNS[:10]])
def test_a_given_mtf_blurs_images_and_their_derivatives(small_series, free):
    sharp, blurring = (Frame.centred(PIXELS, FIELD_mrad, m) for m in (None, MTF(gaussian_mtf(0.8))))
    states = random_states(2, 1e6)
    (image, columns), (seen, slopes) = (
        ImageModel(small_series, APERTURE, 4, frame, free).images_and_columns(states)
        for frame in (sharp, blurring)
    )
    # The last column is the image, by the logarithm of the dose.
    compared = [(seen, image, blurring.mtf.blurred)]
    compared += [(slopes[:, :-1], columns[:, :-1], blurring.mtf.filtered)] if free else []
    for found, expected, changed in compared:
        found, expected = (n.reshape(*n.shape[:-1], PIXELS, PIXELS) for n in (found, expected))
        expected = changed(expected)
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    if free:
        np.testing.assert_allclose(slopes[:, -1], seen)


def test_an_mtf_is_that_of_a_blur_and_is_known_to_pixels_put_together(small_series):
    frame, state = Frame.centred(PIXELS, FIELD_mrad), random_states(1, 1e6)
    given = Frame.centred(PIXELS, FIELD_mrad, MTF(gaussian_mtf(0.8)))
    state[:, COLUMN["blur_px"]] = 0.8
    blurred = ImageModel(small_series, APERTURE, 4, frame, ("blur_px",)).images(state)
    seen = ImageModel(small_series, APERTURE, 4, given, ()).images(state)
    assert np.abs(seen - blurred).sum() < 0.003 * seen.sum()
    pairs = seen.reshape(PIXELS // 2, 2, PIXELS // 2, 2).sum(axis=(1, 3)).ravel()
    coarse = ImageModel(small_series, APERTURE, 4, given.binned(2), ()).images(state)[0]
    assert np.abs(coarse - pairs).sum() < 0.03 * pairs.sum()


def test_a_pixel_in_the_centre_of_a_disc_is_lit(small_series):
    model = ImageModel(small_series, APERTURE, 1, Frame.centred(PIXELS, FIELD_mrad), UNKNOWNS[:10])
    image, columns = model.images_and_columns(np.zeros((1, len(UNKNOWNS))))
    assert np.isfinite(image).all()
    assert np.isfinite(columns).all()
