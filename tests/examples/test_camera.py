"""What a camera adds to examples: within its ranges, by the address alone, by default nothing."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from mtf_tables import gaussian_mtf
from scipy.ndimage import affine_transform, gaussian_filter
from test_augment import FINE_MRAD, PAPER, spot

from pacbed.examples.augment import (
    TRANSFORMATIONS,
    AugmentationSettings,
    reaching_camera,
    resample,
)
from pacbed.examples.augment_layer import Augmentation
from pacbed.examples.camera import CAMERA, CameraSettings, not_learnt
from pacbed.examples.pattern_set import PatternSet
from pacbed.examples.source import ExampleSource
from pacbed.scattering.image import Camera
from pacbed.scattering.mtf import MTF

PIXELS = 48
SPOT = np.stack([spot(6, -4, 1.5, (121, 121)) + 0.5 * spot(-5, 7, 2, (121, 121))])
LIBRARY = PatternSet(SPOT, (FINE_MRAD,) * 2, [0], np.zeros((1, 5)))
FIELD_mrad = 0.7 * FINE_MRAD * 121
# Hardly any noise, and nothing else that differs from example to example.
STILL = replace(
    PAPER,
    pixels=PIXELS,
    field_of_view_mrad=FIELD_mrad,
    field_of_view_variation=0.0,
    rotation_deg=(7.0, 7.0),
    translation_px=0.0,
    electrons=(1e14, 1e14),
    image_mean=(0.25, 0.25),
)


def images(examples=1, number=0, **camera):
    """Transformations by name, and images."""
    settings = replace(STILL, camera=CameraSettings(**camera) if camera else None)
    source = ExampleSource(LIBRARY, settings, examples, (1, 6.35, 5, "train"))
    drawn = source.draw(number, number + examples)
    made = Augmentation(LIBRARY, settings).arrays(*drawn)
    return dict(zip(settings.columns, drawn[1].T, strict=True)), made


def scaled(image):
    return image * (0.25 / image.mean())


@pytest.fixture(scope="module")
def plain():
    return images()[1][0]


# Settings


def test_by_default_nothing_is_drawn_or_stored():
    assert PAPER.camera is None
    assert PAPER.columns == TRANSFORMATIONS
    assert "camera" not in PAPER.described()
    assert CameraSettings().perfect
    assert CameraSettings(ellipticity_direction_deg=(10, 20)).perfect


def test_settings_survive_being_stored():
    settings = replace(PAPER, camera=CameraSettings(blur_px=(0.0, 1.0)))
    stored = settings.described()
    stored["camera"] = {name: list(ends) for name, ends in stored["camera"].items()}
    assert AugmentationSettings(**stored).camera == settings.camera


def test_what_is_drawn_is_uniform_and_an_ellipse_has_a_direction():
    ends = {one.name: (0.01 * n, 0.02 * n) for n, one in enumerate(fields(CameraSettings), 1)}
    ends["ellipticity"], ends["ellipticity_direction_deg"] = (0.01, 0.02), (20.0, 30.0)
    drawn = CameraSettings(**ends).drawn(np.random.default_rng(1).random((5000, len(CAMERA))))
    for name, values in zip(CAMERA[2:], drawn.T[2:], strict=True):
        low, high = ends[name]
        assert low <= values.min() < low * 1.01
        assert high * 0.99 < values.max() <= high
    e, d = drawn[:, 0], drawn[:, 1]
    size, direction = np.hypot(e, d), np.degrees(np.arctan2(d, e)) / 2
    np.testing.assert_allclose([size.min(), size.max()], [0.01, 0.02], rtol=0.01)
    np.testing.assert_allclose([direction.min(), direction.max()], [20, 30], rtol=0.01)


def test_priors_are_the_spread_of_what_is_drawn():
    camera = CameraSettings(ellipticity=(0.0, 0.02), blur_px=(0.5, 1.5), dead_pixels=(0.0, 0.1))
    drawn = camera.drawn(np.random.default_rng(2).random((40_000, len(CAMERA))))
    found = camera.priors()
    assert list(found) == ["ellipticity", "ellipticity_diagonal", "blur_px"]
    for name, (mean, sigma) in found.items():
        values = drawn[:, CAMERA.index(name)]
        assert mean == pytest.approx(values.mean(), abs=0.02 * values.std())
        assert sigma == pytest.approx(values.std(), rel=0.02)


def test_what_a_network_has_not_seen_is_named():
    seen, wider = CameraSettings(ellipticity=(0, 0.01)), CameraSettings(ellipticity=(0, 0.02))
    assert not_learnt(wider, seen) == not_learnt(None, None) == not_learnt(seen, None) == []
    assert not_learnt(seen, wider) == ["ellipticity from 0 to 0.02, not 0 to 0.01"]
    assert not_learnt(None, CameraSettings(halo=(0.1, 0.1))) == ["halo from 0.1 to 0.1, not 0 to 0"]
    assert not_learnt(CameraSettings(halo=(0.1, 0.1)), None) == ["halo from 0 to 0, not 0.1 to 0.1"]
    turned = replace(seen, ellipticity_direction_deg=(-20, 20))
    assert not_learnt(seen, turned) == []
    [said] = not_learnt(turned, seen)
    assert said == "ellipticity_direction_deg from 0 to 180, not -20 to 20"


# Images


def test_the_rest_of_an_example_is_the_same_with_any_camera(plain):
    known, made = images(ellipticity=(1e-9, 1e-9), blur_px=(0, 1e-3), gain_noise=(0, 1e-9))
    np.testing.assert_allclose(made[0], plain, rtol=1e-4, atol=1e-5 * plain.max())
    usual = images()[0]
    for name in TRANSFORMATIONS:
        np.testing.assert_array_equal(known[name], usual[name])


def test_a_given_mtf_blurs_as_the_gaussian_that_it_is_of():
    settings = replace(STILL, mtf=MTF(gaussian_mtf(0.8)))
    source = ExampleSource(LIBRARY, settings, 1, (1, 6.35, 5, "train"))
    found = Augmentation(LIBRARY, settings).arrays(*source.draw(0, 1))[0]
    blurred = images(blur_px=(0.8, 0.8))[1][0]
    np.testing.assert_allclose(found, blurred, atol=0.01 * blurred.max())
    assert np.abs(blurred - images()[1][0]).max() > 0.05 * blurred.max()


def test_an_mtf_survives_being_stored():
    settings = replace(PAPER, mtf=MTF(((0, 1), (0.5, 0.4))))
    stored = json.loads(json.dumps(settings.described()))
    assert AugmentationSettings(**stored).mtf == settings.mtf
    assert "mtf" not in PAPER.described()


def test_an_ellipse_moves_what_the_pattern_shows():
    e, d = 0.03, -0.02
    size, direction = np.hypot(e, d), np.degrees(np.arctan2(d, e)) / 2
    known, made = images(ellipticity=(size, size), ellipticity_direction_deg=(direction,) * 2)
    assert known["ellipticity"] == pytest.approx(e)
    assert known["ellipticity_diagonal"] == pytest.approx(d)
    c, s = np.cos(np.radians(7)), np.sin(np.radians(7))
    # Of (x, y), and then of (y, x).
    pixel = FIELD_mrad / PIXELS / FINE_MRAD
    matrix = (pixel * np.array([[c, s], [-s, c]]) @ [[1 + e, d], [d, 1 - e]])[::-1, ::-1]
    offset = 60 - matrix @ np.full(2, PIXELS // 2)
    averaged = next(LIBRARY.averaged(STILL.pixel_mrad))
    expected = scaled(affine_transform(averaged, matrix, offset, (PIXELS, PIXELS), order=1))
    np.testing.assert_allclose(made[0], expected, atol=2e-4 * expected.max())


def test_a_blur_is_gaussian_and_leaves_a_flat_image_flat(plain):
    _, made = images(blur_px=(1.3, 1.3))
    expected = gaussian_filter(plain.astype(float), 1.3, truncate=8)
    np.testing.assert_allclose(made[0], scaled(expected), atol=2e-4 * expected.max())
    flat = images(blur_px=(3, 3), background=(5, 5))[1][0]
    corner = flat[:8, :8]
    np.testing.assert_allclose(corner, corner.mean(), rtol=1e-3)


def test_background_and_halo_are_fractions_of_the_electrons(plain):
    share = SPOT[0].sum() * plain / plain.sum()
    flat = images(background=(0.3, 0.3))[1][0]
    part = images(halo=(0.3, 0.3))[1][0]
    inside = next(LIBRARY.averaged(1.0)).sum()
    assert inside == pytest.approx(SPOT[0].sum(), rel=1e-3)
    # In the corner there is nothing else.
    ratio = flat[:5, :5].mean() / flat.mean()
    assert ratio == pytest.approx(0.3 / (0.3 + share.sum()), rel=0.02)
    assert part[PIXELS // 2, 2] > 1.2 * part[2, 2] > 0


def test_the_same_steps_with_numpy_make_the_same_image():
    ranges = {"ellipticity": (0.03, 0.03), "ellipticity_direction_deg": (20, 20)}
    ranges |= {"blur_px": (0.8, 0.8), "background": (0.4, 0.4), "halo": (0.2, 0.2)}
    ranges |= {"beam_stop_mrad": (1.5, 2.5)}
    camera = CameraSettings(**ranges).middle()
    made = images(**{**ranges, "beam_stop_mrad": (2.0, 2.0)})[1][0]
    averaged = next(LIBRARY.averaged(STILL.pixel_mrad))
    ellipse = camera["ellipticity"], camera["ellipticity_diagonal"]
    view = Camera(PIXELS, FIELD_mrad, 7.0, ellipticity=ellipse)
    image = resample(averaged, (FINE_MRAD,) * 2, view)
    expected = scaled(reaching_camera(image, camera, STILL.pixel_mrad))
    np.testing.assert_allclose(made, expected, atol=5e-4 * expected.max())


def test_a_beam_stop_hides_the_middle():
    made = images(beam_stop_mrad=(2.0, 2.0))[1][0]
    axis = (np.arange(PIXELS) - PIXELS // 2) * STILL.pixel_mrad
    radius = np.hypot(axis, axis[:, None])
    assert made[radius < 1.99].max() == 0
    assert made[(radius > 2.01) & (radius < 4)].min() > 0
    assert made.mean() == pytest.approx(0.25)


def test_dead_pixels_and_gain_differ_from_example_to_example(plain):
    lit = plain > 1e-3 * plain.max()
    made = images(200, dead_pixels=(0.1, 0.1))[1][:, lit]
    assert (made == 0).mean() == pytest.approx(0.1, abs=0.005)
    assert np.abs((made == 0).mean(axis=0) - 0.1).max() < 0.12
    gain = images(200, gain_noise=(0.05, 0.05))[1][:, lit] / plain[lit]
    assert gain.std() == pytest.approx(0.05, rel=0.03)
    assert np.abs(np.corrcoef(gain[0], gain[1])[0, 1]) < 0.15


def test_an_example_follows_from_its_address_alone():
    ranges = {"ellipticity": (0, 0.02), "blur_px": (0, 1), "dead_pixels": (0, 0.1)}
    ranges |= {"gain_noise": (0, 0.02), "background": (0, 0.2), "beam_stop_mrad": (0, 1)}
    together = images(6, **ranges)
    alone = images(1, 4, **ranges)
    np.testing.assert_allclose(together[1][4], alone[1][0], rtol=2e-6)
    np.testing.assert_array_equal(together[1][4] == 0, alone[1][0] == 0)
    assert all(together[0][name][4] == alone[0][name][0] for name in together[0])
    assert len(set(together[0]["blur_px"])) == 6


def test_an_ellipse_needs_a_wider_and_finer_pattern():
    wide = replace(PAPER, camera=CameraSettings(ellipticity=(0, 0.02)))
    assert wide.reach_mrad == pytest.approx(1.02 * PAPER.reach_mrad)
    assert wide.smallest_pixel_mrad == pytest.approx(0.98 * PAPER.smallest_pixel_mrad)
