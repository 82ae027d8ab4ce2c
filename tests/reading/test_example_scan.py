"""The example scan is what it says it is, each time the same."""

import numpy as np
import pytest

from pacbed.exceptions import PacbedError
from pacbed.reading.maps.example_scan import STRAINED, Ripple, small_ripple
from pacbed.reading.maps.store import read_map, write_map
from pacbed.reading.scans.overview import Overview
from pacbed.scattering.image import Camera


@pytest.fixture(scope="module")
def ripple():
    return small_ripple()


@pytest.fixture(scope="module")
def scan(ripple):
    return ripple.simulate()


def test_the_same_seed_makes_the_same_scan(ripple, scan):
    again = small_ripple().simulate()
    np.testing.assert_array_equal(again.source, scan.source)
    other = small_ripple(seed=20)
    assert not np.array_equal(other.truth["shift_x_px"], ripple.truth["shift_x_px"])


def test_it_is_made_of_counts_of_as_many_electrons(ripple, scan):
    assert scan.source.dtype == np.uint16
    assert scan.shape == (6, 5)
    seen = scan.source.sum(axis=(2, 3)) / ripple.counts_per_electron / ripple.truth["electrons"]
    assert 0.9 < seen.min() <= seen.max() < 1.05  # some are scattered beyond the camera


def test_it_has_both_thicknesses_a_corner_without_crystal_and_a_flat_part():
    truth = Ripple().truth
    assert set(np.unique(truth["layers"])) == {0, 3, 5}
    assert truth["layers"][0, -1] == 0
    assert 0.02 < (truth["layers"] == 0).mean() < 0.1
    assert not any(truth[name][:, :8].any() for name in STRAINED)
    assert np.abs(truth["strain_xx"]).max() == pytest.approx(0.012, rel=0.02)
    for name in STRAINED:  # functions of x alone
        assert np.ptp(truth[name], axis=0).max() == 0


def test_vacuum_shows_the_beam_alone(ripple, scan):
    overview = Overview.of(scan)
    bright = overview.bright / ripple.counts_per_electron / ripple.truth["electrons"]
    empty = ripple.truth["cover"] == 0
    assert bright[empty].min() > 0.9
    assert bright[(ripple.truth["cover"] == 1)].max() < bright[empty].min()
    assert overview.radius_px == pytest.approx(6.35 / scan.pixel_mrad, rel=0.1)


def test_the_centre_drifts_as_the_truth_says(ripple, scan):
    empty = np.argwhere(ripple.truth["cover"] == 0)
    for (row, column), one in zip(empty, scan.points(empty), strict=True):
        near = one[20:45, 20:45]
        y, x = np.mgrid[20:45, 20:45]
        found = np.array([(near * x).sum(), (near * y).sum()]) / near.sum() - 32
        shift = [ripple.truth[f"shift_{axis}_px"][row, column] for axis in "xy"]
        np.testing.assert_allclose(found, shift, atol=0.1)


def test_an_ellipse_is_that_of_the_model_of_images():
    camera = Camera(64, 64.0, 0.0, (0.0, 0.0), (0.01, 0.0))
    np.testing.assert_allclose(camera.matrix, [[1.01, 0], [0, 0.99]])
    assert Camera(64, 64.0, 30.0).directions_mrad().shape == (2, 64, 64)


def test_what_is_true_is_a_map(ripple, tmp_path):
    write_map(tmp_path / "truth.zarr.zip", ripple.truth_map())
    found = read_map(tmp_path / "truth.zarr.zip")
    assert found.shape == (6, 5)
    vacuum = ripple.truth["cover"] == 0
    assert np.isnan(found.values["strain_xx"][vacuum]).all()
    assert np.isfinite(found.values["strain_xx"][~vacuum]).all()
    assert (found.values["layers"][vacuum] == 0).all()
    assert found.attributes["provenance"]["seed"] == ripple.seed


@pytest.mark.parametrize("wrong", [{"points": (2, 8)}, {"pixels": 8}, {"electrons": 0.0}])
def test_impossible_scans_are_refused(wrong):
    with pytest.raises(PacbedError):
        small_ripple(**wrong)
