"""What all patterns of a scan have in common is found by one joint fit."""

import json
import math
from contextlib import nullcontext

import numpy as np
import pytest
from mtf_tables import gaussian_mtf
from small_scan import (
    COMMON,
    DEAD,
    GAIN,
    LAYERS,
    READ_NOISE,
    CENTRE_px,
    ROTATION_deg,
    SEMIANGLE_mrad,
    disc,
    small_scan,
    true_calibration,
)

from pacbed.exceptions import PacbedError
from pacbed.reading.maps.calibrate import (
    _common_covariance,
    _Joint,
    _joint_step,
    _sample,
    _with_held,
    calibrate,
)
from pacbed.reading.maps.calibration import Calibration
from pacbed.reading.maps.cut import scattered
from pacbed.reading.maps.maker import MapMaker
from pacbed.reading.maps.settings import CalibrationSettings, MapSettings
from pacbed.reading.maps.sums import grid, window_sums
from pacbed.reading.scans.scan import Scan, ScanOptions
from pacbed.scattering.mtf import MTF
from pacbed.scattering.request import SeriesRequest
from pacbed.scattering.strain import StrainRange
from pacbed.specimen.polytypes import crystal

pytestmark = pytest.mark.xdist_group("maps")
SCALE = {"pixel_mrad": 60 / 64, "semiangle_mrad": SEMIANGLE_mrad}


@pytest.fixture(scope="module")
def found(small_series):
    made = small_scan(small_series)
    return calibrate(made.scan, small_series, MapSettings(LAYERS))


@pytest.mark.slow
def test_the_camera_and_the_geometry_are_found(found):
    true = SEMIANGLE_mrad * np.exp(COMMON["log_semiangle"])
    assert abs(found.semiangle_mrad - true) < 4 * found.semiangle_sigma_mrad < 0.06
    assert found.ellipticity == pytest.approx(COMMON["ellipticity"], abs=0.0015)
    assert found.ellipticity_diagonal == pytest.approx(COMMON["ellipticity_diagonal"], abs=0.0015)
    assert found.blur_px == pytest.approx(COMMON["blur_px"], abs=0.05)
    assert found.background + found.halo == pytest.approx(COMMON["background"], abs=0.005)
    assert found.counts_per_electron == pytest.approx(GAIN, rel=0.05)
    assert found.read_noise_counts == pytest.approx(READ_NOISE, abs=0.5)


@pytest.mark.slow
def test_the_orientation_and_the_centre_are_found(found):
    assert found.rotation_deg == pytest.approx(ROTATION_deg, abs=0.4)
    assert np.allclose(found.centre_px, CENTRE_px, atol=0.6)  # drift moves it


@pytest.mark.slow
def test_a_dead_pixel_is_masked(found):
    assert DEAD in found.masked_px
    assert len(found.masked_px) < 12


@pytest.mark.slow
def test_a_given_size_of_a_pixel_is_kept_and_its_uncertainty_is_that_of_strain(found):
    assert found.pixel_mrad == pytest.approx(60 / 64, rel=1e-4)
    assert found.common_sigma["strain_xx"] == pytest.approx(0.002, rel=0.2)
    assert found.common_sigma["strain_xy"] < 0.001


@pytest.mark.slow
def test_of_the_zigzag_axes_that_near_the_wanted_direction_is_taken(small_series):
    made = small_scan(small_series, vacuum=False, shape=(3, 4))
    settings, known = MapSettings((3, 5)), CalibrationSettings(zigzag_near_deg=90.0)
    joint = _Joint.begin(_sample(made.scan, settings), small_series, settings, known)
    away = (joint.rotation_deg - ROTATION_deg) % 60
    assert min(away, 60 - away) < 1
    assert abs(joint.rotation_deg - 90) <= 30


@pytest.mark.slow
def test_a_given_mtf_leaves_no_blur_to_be_fitted(small_series, tmp_path):
    mtf, table = MTF(gaussian_mtf(COMMON["blur_px"])), tmp_path / "mtf.csv"
    table.write_text("\n".join(f"{f},{value}" for f, value in mtf.points))
    scan = small_scan(small_series, vacuum=False, shape=(2, 3), two=(5, 5)).scan
    settings = MapSettings((5,))
    found = calibrate(scan, small_series, settings, CalibrationSettings(mtf=table))
    assert found.blur_px < 0.3
    found.write(tmp_path / "scan.calibration.json")
    again = Calibration.read(tmp_path / "scan.calibration.json")
    assert again == found
    assert again.mtf == mtf
    assert MapMaker(scan, small_series, again, settings).fit.frame.mtf == mtf


@pytest.mark.slow
def test_pixels_without_numbers_do_not_count(small_series):
    made = small_scan(small_series, vacuum=False, shape=(3, 4), two=(5, 5))
    patterns = made.scan.patterns(slice(0, 3)).copy()
    patterns[0, 1, 26:35], patterns[2, 2, :, 40], patterns[:, :, 5, 50] = np.nan, np.nan, np.inf
    settings, scan = MapSettings((5,)), Scan.of(patterns, energy_keV=80.0, **SCALE)
    joint = _Joint.begin(_sample(scan, settings), small_series, settings, CalibrationSettings())
    joint.start()
    joint.solve()
    joint.learn_noise()
    assert [0, 1] in joint.sample.places.tolist()
    assert joint.chi2.max() < 1.3 * np.median(joint.chi2)
    assert joint.gain == pytest.approx(GAIN, rel=0.1)
    assert (50, 5) in joint.calibration(scan, True).masked_px


@pytest.mark.slow
def test_a_crystal_that_is_the_same_after_half_a_turn_is_turned_as_wanted(made):
    asked = SeriesRequest(
        *(crystal("black-phosphorus"), 80, 2, StrainRange((0.97, 1.03)), 6.6, 5.0, 76.0),
        states=6,
        degree=1,
        motion="coherent",
    )
    series = made("phosphorus", asked)
    small = small_scan(series, vacuum=False, shape=(2, 3), two=(2, 2))
    settings, known = MapSettings((2,)), CalibrationSettings(zigzag_near_deg=150.0)
    joint = _Joint.begin(_sample(small.scan, settings), series, settings, known)
    assert joint.rotation_deg == pytest.approx(180 + ROTATION_deg, abs=1)
    joint.layers[:] = 2
    assert joint.choose_turn()


def test_eliminating_local_unknowns_gives_the_step_of_all():
    random = np.random.default_rng(0)
    points, local, common = 4, [0, 2, 3], [1, 4]
    roots = random.normal(size=(points, 5, 9))
    information = roots @ roots.transpose(0, 2, 1)
    slopes = random.normal(size=(points, 5))
    whole, right = np.zeros((14, 14)), np.zeros(14)
    for n in range(points):
        place = np.zeros((5, 14))
        place[local, 3 * n + np.arange(3)] = 1
        place[common, 12 + np.arange(2)] = 1
        whole += place.T @ information[n] @ place
        right += place.T @ slopes[n]
    expected = np.linalg.solve(whole, right)
    step, promised = _joint_step(information, slopes, local, common)
    assert np.allclose(step[:, local].ravel(), expected[:12])
    assert np.allclose(step[:, common], expected[12:])
    assert promised == pytest.approx(expected @ right)
    covariance, response = _common_covariance(information, local, common)
    inverse = np.linalg.inv(whole)
    assert np.allclose(covariance, inverse[12:, 12:])
    assert np.allclose((response @ covariance).reshape(12, 2), inverse[:12, 12:])


def test_the_uncertainty_of_what_was_held_goes_to_what_depends_on_it():
    covariance = np.array([[1e-10, 2e-10], [2e-10, 1e-6]])
    wider = _with_held(covariance, 0, 1e-3)
    assert wider[0, 0] == pytest.approx(1e-6)
    assert wider[1, 1] == pytest.approx(1e-6 + 4e-6, rel=1e-3)


def test_a_calibration_is_read_as_it_was_written_and_edited(tmp_path):
    path = tmp_path / "scan.calibration.json"
    before = true_calibration(common_sigma={"strain_xx": 0.002}, sources={"others": "fit"})
    before.write(path)
    assert Calibration.read(path) == before
    values = json.loads(path.read_text())
    values["rotation_deg"] = 5.0
    path.write_text(json.dumps(values))
    assert Calibration.read(path).rotation_deg == 5.0


@pytest.mark.parametrize("changed", [{"blur_px": "0.5"}, {"background": None}, {"halo": math.nan}])
def test_an_edited_calibration_must_hold_numbers(tmp_path, changed):
    path = tmp_path / "c.json"
    true_calibration().write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(PacbedError, match=r"c\.json is no calibration"):
        Calibration.read(path)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"pixel_mrad": 1}', '{"centre_px": [1]}', '{"other": 1, "centre_px": [1]}']
)
def test_another_file_is_no_calibration(tmp_path, text):
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(PacbedError, match=r"c\.json is no calibration"):
        Calibration.read(path)
    with pytest.raises(PacbedError, match="cannot read"):
        Calibration.read(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, ""),
        ({"bins": 2}, "pixels of 0.9375 mrad, not 1.875 mrad"),
        ({"mirrored": True}, "patterns that are not mirrored"),
        ({"crop_px": (0, 0, 30, 64)}, "larger patterns, with the centre at x 32.6, y 31.3"),
    ],
)
def test_a_calibration_of_other_patterns_is_refused(options, why):
    scan = Scan.of(np.ones((1, 1, 64, 64)), ScanOptions(**options), **SCALE)
    with pytest.raises(PacbedError, match=why) if why else nullcontext():
        true_calibration().check(scan)


def test_places_are_spread_evenly():
    places = grid((48, 48), 64)
    assert len(places) == 64
    assert np.array_equal(np.unique(places[:, 0]), np.arange(3, 48, 6))
    assert len(grid((1, 5), 64)) == 5


def test_only_what_lies_outside_the_central_disc_is_scattered():
    images = np.zeros((2, 32, 32))
    images[:, 16, 16] = 3
    images[1, 2, 2] = 1
    assert np.allclose(scattered(images, (16, 16), 5), [0, 0.25])


def test_a_window_adds_patterns_up():
    patterns = np.random.default_rng(0).poisson(3.0, (5, 6, 24, 24)).astype(np.float32)
    places, equal = np.array([[2, 3], [0, 0]]), MapSettings(window=3).window_weights
    sums = window_sums(Scan.of(patterns), places, equal)
    assert np.array_equal(sums[0], patterns[1:4, 2:5].sum((0, 1)))
    assert np.array_equal(sums[1], patterns[:2, :2].sum((0, 1)))
    # A pattern without numbers is left out, and where there is no other there is no sum.
    patterns[2, 3], patterns[:2, :2] = np.nan, np.nan
    holes = window_sums(Scan.of(patterns), places, equal)
    assert np.array_equal(holes[0], np.nansum(patterns[1:4, 2:5], (0, 1)))
    assert np.isnan(holes[1]).all()


def test_a_sum_with_weights_has_the_noise_of_electrons():
    patterns = np.random.default_rng(0).poisson(50.0, (5, 5, 200, 200))
    settings = MapSettings(window=5, weights="gauss")
    weights = settings.window_weights
    assert weights[2, 2] == 1 > weights[2, 3] > weights[2, 4] == weights[0, 2] > 0
    (total,) = window_sums(Scan.of(patterns), np.array([[2, 2]]), weights)
    assert total.mean() == pytest.approx(50 * settings.patterns, rel=0.01)
    assert total.var() == pytest.approx(total.mean(), rel=0.05)
    assert MapSettings(window=5).patterns == 25


def test_an_empty_scan_is_refused(small_series):
    for values, why in ((0.0, "empty"), (np.nan, "finite")):
        scan = Scan.of(np.full((3, 3, 64, 64), values, np.float32), **SCALE)
        with pytest.raises(PacbedError, match=why):
            calibrate(scan, small_series, MapSettings(LAYERS))


def test_a_scan_of_vacuum_is_refused(small_series):
    random = np.random.default_rng(0)
    images = random.poisson(disc(1e5), (3, 3, 64, 64)).astype(np.float32)
    scan = Scan.of(images, **SCALE)
    with pytest.raises(PacbedError, match="no crystal"):
        calibrate(scan, small_series, MapSettings(LAYERS))
