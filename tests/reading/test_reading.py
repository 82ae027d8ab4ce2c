"""What is read of patterns that a series made: the truth, within its error bars."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from pacbed.cli.read import _print
from pacbed.exceptions import PacbedError
from pacbed.figures.readings import measured_and_fitted
from pacbed.reading.fit import AT_EDGE
from pacbed.reading.patterns import Pattern, clean
from pacbed.reading.reading import READ, ReadSettings, read_patterns
from pacbed.reading.window import find_radius_px, window
from pacbed.scattering.image import Camera
from pacbed.scattering.image_model import COLUMN, UNKNOWNS, Frame, ImageModel
from pacbed.specimen.microscope import Aperture

pytestmark = pytest.mark.xdist_group("reading")

APERTURE, PIXELS, FIELD = Aperture(6.0), 96, 48.0
TRUTH = np.array([0.008, -0.006, 0.005, 2.0, 1.0, -0.5])
SPACING = 15.25


def measured(series, seed=0, shift=(0.0, 0.0), layers=2, electrons=3e6, gain=1.0):
    camera = Camera(PIXELS, FIELD, TRUTH[3], shift)
    image = series.image(TRUTH[:3], tuple(TRUTH[4:]), APERTURE, layers, camera)
    counts = np.random.default_rng(seed).poisson(electrons * np.maximum(image, 0))
    return gain * counts.astype(float)


def windows(images, pixel_mrad=FIELD / PIXELS, mirrored=False):
    return [
        window(
            clean(Pattern(f"{n}.npy", image, np.ones(image.shape, bool)), mirrored=mirrored),
            pixel_mrad,
            APERTURE.semiangle_mrad,
            SPACING,
            32.0,
        )
        for n, image in enumerate(images)
    ]


def deviations(one, truth=TRUTH):
    return np.array([(one.value(n) - t) / one.sigma(n) for n, t in zip(READ, truth, strict=True)])


@pytest.fixture(scope="module")
def readings(coherent_series):
    plain = measured(coherent_series)
    dead = measured(coherent_series, seed=1, gain=30.0)
    dead[45:48, 50] *= 0.5  # still bright
    images = {
        "plain": plain,
        "gain": measured(coherent_series, seed=2, gain=30.0),
        "off centre": measured(coherent_series, seed=3, shift=(9.0, -12.0)),
        "turned": measured(coherent_series, seed=4)[::-1, ::-1],
        "turned by 90°": np.rot90(measured(coherent_series, seed=5)).copy(),
        "mirrored": plain[:, ::-1],
        "dead": dead,
        "one layer": measured(coherent_series, seed=6, layers=1),
        "one layer, few electrons": measured(coherent_series, seed=6, layers=1, electrons=1e5),
    }
    settings = ReadSettings(APERTURE, (1, 2), pixel_uncertainty=0.002)
    found = read_patterns(coherent_series, windows(images.values()), settings)
    return dict(zip(images, found, strict=True))


def test_what_lies_at_the_edge_of_its_range_is_named(readings, monkeypatch, capsys):
    monkeypatch.setattr(
        "pacbed.cli.read.show_table", lambda table, width: print(*table.columns[-1].cells)
    )
    flags = ("scale differs", AT_EDGE)
    _print([replace(readings["plain"], flags=flags, at_edge=("log_scale", "blur_px"))])
    assert capsys.readouterr().out == f"scale differs; {AT_EDGE} (log_scale, blur_px)\n"
    assert readings["plain"].at_edge == ()


def test_strain_beyond_the_series_lies_at_its_edge(coherent_series):
    frame = Frame.centred(PIXELS, FIELD)
    model = ImageModel(coherent_series, APERTURE, 2, frame, UNKNOWNS[:10])
    state = np.zeros((1, len(UNKNOWNS)))
    state[0, :2], state[0, COLUMN["log_dose"]] = (0.05, 0.045), math.log(3e6)
    images = np.random.default_rng(0).poisson(model.images(state)).reshape(1, PIXELS, PIXELS)
    settings = ReadSettings(APERTURE, (2,), pixel_uncertainty=0.002)
    [one] = read_patterns(coherent_series, windows(images.astype(float)), settings)
    assert AT_EDGE in one.flags
    assert one.at_edge == ("strain_xx", "strain_yy", "strain_xy")


@pytest.mark.parametrize(
    "name", ["plain", "gain", "off centre", "turned", "turned by 90°", "dead", "one layer"]
)
def test_the_truth_lies_within_the_error_bars(readings, name):
    one = readings[name]
    assert np.abs(deviations(one)).max() < 4
    assert one.sigma("strain_xx") < 1e-3
    assert "bad chi2" not in one.flags
    assert one.value("log_dose") == pytest.approx(np.log(3e6), abs=0.1)


def test_a_known_scale_is_kept_and_its_uncertainty_is_that_of_strain(coherent_series):
    settings = ReadSettings(APERTURE, (2,), free=("semiangle",), pixel_uncertainty=0.002)
    [one] = read_patterns(coherent_series, windows([measured(coherent_series)]), settings)
    scale, xx, yy, xy = (COLUMN[n] for n in ("log_scale", "strain_xx", "strain_yy", "strain_xy"))
    assert abs(one.value("log_scale")) < 1e-4
    assert one.sigma("log_scale") == pytest.approx(0.002)
    # Angles that are larger than they are taken for mean a crystal that is stretched less.
    assert one.sigma("strain_xx") == pytest.approx(0.002, rel=0.2)
    assert one.covariance[scale, [xx, yy]] == pytest.approx(-(0.002**2), rel=0.2)
    assert abs(one.covariance[scale, xy]) < 0.1 * 0.002**2
    assert np.abs(deviations(one)).max() < 4


def test_a_scale_from_the_discs_is_as_uncertain_as_their_radius(coherent_series):
    """A semi-angle that is wrong by 1 % makes a strain that is wrong by as much, and says so."""
    aperture = Aperture(1.01 * APERTURE.semiangle_mrad)
    settings = ReadSettings(aperture, (2,), semiangle_uncertainty=0.01)
    [one] = read_patterns(coherent_series, windows([measured(coherent_series)]), settings)
    assert one.value("log_scale") == pytest.approx(0.01, abs=2e-3)
    assert one.value("strain_xx") == pytest.approx(TRUTH[0] - 0.01, abs=2e-3)
    assert one.sigma("strain_xx") == pytest.approx(0.01, rel=0.1)
    assert one.sigma("log_scale") == pytest.approx(0.01, rel=0.1)
    assert one.sigma("strain_xy") < 1e-3
    assert np.abs(deviations(one)).max() < 4


@pytest.mark.parametrize(("uncertainty", "differs"), [(0.0115, False), (0.002, True)])
def test_a_known_radius_corrects_the_scale(coherent_series, uncertainty, differs):
    wrong = windows([measured(coherent_series)], 0.985 * FIELD / PIXELS)
    settings = ReadSettings(APERTURE, (2,), pixel_uncertainty=uncertainty)
    [one] = read_patterns(coherent_series, wrong, settings)
    assert one.value("log_scale") == pytest.approx(-np.log(0.985), abs=2e-3)
    assert ("scale differs" in one.flags) == differs
    if not differs:
        assert np.abs(deviations(one)).max() < 4


def test_layers_are_told_with_their_probability(readings):
    assert [readings[n].layers for n in ("plain", "one layer")] == [2, 1]
    assert sum(readings["plain"].probabilities.values()) == pytest.approx(1)
    assert readings["plain"].probabilities[2] > 0.99


def test_the_gain_follows_from_the_residuals(readings):
    for name, gain in (("plain", 1.0), ("gain", 30.0)):
        assert readings[name].counts_per_electron == pytest.approx(gain, rel=0.05)
        assert "relative chi2" in readings[name].flags


def test_a_turn_is_found_or_said_to_be_undetermined(readings):
    assert readings["turned by 90°"].turned_deg in (90.0, 270.0)
    assert readings["turned"].turned_deg == 180
    assert readings["plain"].told_apart
    thin = readings["one layer, few electrons"]
    assert not thin.told_apart  # it looks the same turned by 180° and tilted the other way
    assert "turn by 180° undetermined" in thin.flags
    assert thin.to_dict()["turned_by_180"] == "undetermined"


def test_a_mirrored_pattern_is_one_of_the_opposite_shear_rotation_and_tilt(readings):
    opposite = TRUTH * [1, 1, -1, -1, -1, 1]
    assert np.abs(deviations(readings["mirrored"], opposite)).max() < 4


def test_the_centre_is_that_of_the_pattern(readings):
    assert readings["off centre"].centre_px == pytest.approx((57.0, 36.0), abs=0.05)


def test_pixels_far_from_the_fit_are_masked(readings):
    assert "are far from the fit" in readings["dead"].window.pattern.notes[-1]
    assert not readings["dead"].window.mask[45:48, 50].any()


def test_residuals_are_noise(readings):
    one = readings["gain"]
    assert np.nanstd(one.residuals[one.fitted > 0.5]) == pytest.approx(1, abs=0.1)


def test_what_was_found_can_be_written_and_drawn(readings):
    found = json.loads(json.dumps(readings["plain"].to_dict(), allow_nan=False))
    assert found["strain_xx"] == pytest.approx(TRUTH[0], abs=1e-3)
    assert {f"{name}_sigma" for name in READ} <= set(found)
    figure = measured_and_fitted(list(readings.values()))
    assert len(figure.subfigs) == 6


def test_with_a_known_gain_chi2_tells_whether_the_model_fits(coherent_series):
    """Background, read noise, unknown scale; and a pattern of another thickness."""
    noisy = measured(coherent_series, seed=7, gain=2.0) - 10
    noisy += np.random.default_rng(8).normal(0, 3, noisy.shape)
    images = [noisy, measured(coherent_series, seed=9, gain=2.0, layers=1)]
    pixel = APERTURE.semiangle_mrad / find_radius_px(
        Pattern("a.npy", noisy, np.ones(noisy.shape, bool))
    )
    settings = ReadSettings(APERTURE, (2,), free=("background",), counts_per_electron=2.0)
    good, bad = read_patterns(coherent_series, windows(images, pixel), settings)
    assert np.abs(deviations(good)).max() < 4
    assert good.chi2_per_pixel == pytest.approx(1, abs=0.06)
    assert good.flags in ((), ("turn by 180° undetermined",))
    assert good.sigma("log_scale") > 0
    assert good.pixel_mrad == pytest.approx(FIELD / PIXELS, rel=2e-3)
    assert "bad chi2" in bad.flags


def test_impossible_settings_are_refused():
    with pytest.raises(PacbedError, match="cannot both be unknown"):
        ReadSettings(APERTURE, (1,), free=("semiangle",))
    with pytest.raises(PacbedError, match="not both"):
        ReadSettings(APERTURE, (1,), counts_per_electron=1.0, electrons=1e6)


def test_where_a_network_is_far_off_a_dictionary_says_where_to_begin(coherent_series, monkeypatch):
    made = []

    def model(*given):
        made.append(given[3])
        return ImageModel(*given)

    monkeypatch.setattr("pacbed.reading.fit.ImageModel", model)
    settings = ReadSettings(APERTURE, (1, 2), pixel_uncertainty=0.002)
    wrong = np.array([-0.02, 0.02, -0.015, -9.0, -4.0, 4.0])
    image = measured(coherent_series)
    starts = np.stack([wrong, np.full_like(wrong, np.nan)])  # the second is not known
    for one in read_patterns(coherent_series, windows([image, image]), settings, starts):
        assert np.abs(deviations(one)).max() < 4
    assert len(set(made)) == len(made)  # nothing was compiled twice
