"""Patterns of a map, measured and fitted again."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from mtf_tables import gaussian_mtf

from pacbed.exceptions import PacbedError
from pacbed.reading.map_store import QUANTITIES, StrainMap, read_map, write_map
from pacbed.reading.point_patterns import (
    PointPatterns,
    in_crystal_axes,
    open_point_patterns,
    settings_of,
)
from pacbed.reading.scans import Scan, ScanOptions
from pacbed.scattering.image import Camera
from pacbed.scattering.mtf import MTF

SHIFT = (0.7, -0.4)
ELECTRONS, GAIN = 3e5, 2.0


@pytest.fixture(scope="module")
def measured(small_series, study):
    """A scan of two by three points of three layers, the last one vacuum, and its map."""
    random = np.random.default_rng(3)
    truth = {name: random.uniform(-1, 1, (2, 3)) for name in QUANTITIES}
    widths = dict(zip(QUANTITIES, (0.008, 0.008, 0.005, 5, 2, 2, 0, 0, 0), strict=True))
    values = {name: widths[name] * truth[name] for name in QUANTITIES}
    scan = np.zeros((2, 3, 64, 64), np.float32)
    for place in np.ndindex(2, 3):
        one = {name: float(values[name][place]) for name in QUANTITIES}
        camera = Camera(64, study.field_mrad, one["rotation_deg"], SHIFT)
        image = small_series.image(
            tuple(one[n] for n in QUANTITIES[:3]),
            (one["tilt_x_mrad"], one["tilt_y_mrad"]),
            study.aperture,
            3,
            camera,
        )
        scan[place] = GAIN * random.poisson(ELECTRONS * np.maximum(image, 0))
    layers = np.full((2, 3), 3)
    layers[1, 2] = 0
    known = {
        "material": "MoS2",
        "energy_keV": 80.0,
        "axes": "crystal",
        "calibration": {
            "pixel_mrad": study.field_mrad / 64,
            "semiangle_mrad": 6.35,
            "centre_px": [32.0, 32.0],
            "counts_per_electron": GAIN,
        },
        "provenance": {"settings": {"window": 1}},
    }
    at = 2.0 * np.arange(3), 2.0 * np.arange(2)
    return StrainMap({**values, "layers": layers}, *at, known), Scan.of(scan, step_nm=2.0)


@pytest.fixture(scope="module")
def patterns(measured, small_series):
    return PointPatterns(*measured, small_series)


def test_a_given_mtf_is_that_of_the_fit(measured, small_series):
    strain_map, scan = measured
    known = {**strain_map.attributes["calibration"], "mtf": asdict(MTF(gaussian_mtf(1.0)))}
    attributes = {**strain_map.attributes, "calibration": known}
    found = PointPatterns(replace(strain_map, attributes=attributes), scan, small_series).at(0, 0)
    # These patterns are sharp.
    assert np.nanmean(found.residuals**2) > 1.2


def test_the_fit_of_the_map_leaves_noise(patterns):
    for place in ((0, 0), (1, 1)):
        found = patterns.at(*place)
        assert found.measured.shape == found.fitted.shape == found.residuals.shape
        assert np.nanmean(found.residuals**2) == pytest.approx(1, abs=0.1)
        assert np.nansum(found.measured) == pytest.approx(found.fitted.sum(), rel=0.01)


def test_another_strain_leaves_more_than_noise(measured, small_series):
    strain_map, scan = measured
    strained = {**strain_map.values, "strain_xx": strain_map.values["strain_xx"] + 0.03}
    other = StrainMap(strained, strain_map.x_nm, strain_map.y_nm, strain_map.attributes)
    found = PointPatterns(other, scan, small_series).at(0, 0)
    assert np.nanmean(found.residuals**2) > 1.5


def test_where_nothing_was_fitted_this_is_said(patterns):
    with pytest.raises(PacbedError, match="nothing was fitted"):
        patterns.at(1, 2)


def test_a_scan_or_a_series_of_another_map_is_refused(measured, small_series):
    strain_map, scan = measured
    with pytest.raises(PacbedError, match="beyond"):
        PointPatterns(strain_map, Scan.of(scan.patterns(slice(0, 1)), step_nm=2.0), small_series)
    other = StrainMap(
        strain_map.values,
        strain_map.x_nm,
        strain_map.y_nm,
        {**strain_map.attributes, "material": "WS2"},
    )
    with pytest.raises(PacbedError, match="WS2"):
        PointPatterns(other, scan, small_series)


def test_scan_and_series_are_found_again(measured, small_series, tmp_path):
    strain_map, scan = measured
    np.save(tmp_path / "scan.npy", scan.patterns(slice(0, 2)))
    provenance = {
        "scan": str(tmp_path / "scan.npy"),
        "scan_options": {"step_nm": 2.0, "pixel_mrad": 60 / 64, "crop_px": None, "unknown": 1},
        "series": str(small_series.path),
        "settings": {"window": 1},
    }
    attributes = {**strain_map.attributes, "provenance": provenance}
    kept = StrainMap(strain_map.values, strain_map.x_nm, strain_map.y_nm, attributes)
    write_map(tmp_path / "map.zarr.zip", kept)
    again = read_map(tmp_path / "map.zarr.zip")
    assert open_point_patterns(again).at(0, 1).measured.shape == (64, 64)
    (tmp_path / "scan.npy").unlink()
    with pytest.raises(PacbedError, match="--scan"):
        open_point_patterns(again)


@pytest.mark.parametrize(
    ("lost", "known", "said"),
    [
        ("layers", {"settings": {"window": 1}}, "the map has no layers"),
        ("flags", {"settings": {"window": "a"}}, "the map was changed, or is of another version"),
        ("flags", {"scan_options": {"bins": "a"}}, "the map was changed, or is of another version"),
    ],
)
def test_a_map_of_which_something_is_missing_is_refused(
    measured, small_series, tmp_path, lost, known, said
):
    strain_map, scan = measured
    np.save(tmp_path / "scan.npy", scan.patterns(slice(None)))
    files = {"scan": str(tmp_path / "scan.npy"), "series": str(small_series.path)}
    attributes = {**strain_map.attributes, "provenance": {**files, **known}}
    values = {name: one for name, one in strain_map.values.items() if name != lost}
    with pytest.raises(PacbedError, match=said):
        open_point_patterns(StrainMap(values, strain_map.x_nm, strain_map.y_nm, attributes))


def test_options_of_a_scan_survive_json():
    given = {"area": [0, 1, 2, 3], "bins": 2}
    assert settings_of(ScanOptions, given) == ScanOptions(area=(0, 1, 2, 3), bins=2)


def test_strain_and_tilt_turn_with_the_crystal():
    found = in_crystal_axes(np.array([0.01, 0.0, 0.0, 90.0, 1.0, 0.0]))
    np.testing.assert_allclose(found, [0, 0.01, 0, 90, 0, -1], atol=1e-12)
    found = in_crystal_axes(np.array([0.01, 0.0, 0.0, 90.0, 1.0, 0.0]), 90.0)
    np.testing.assert_allclose(found, [0.01, 0, 0, 90, 1, 0], atol=1e-12)
