"""Patterns of a map, measured and fitted again."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from mtf_tables import gaussian_mtf

from pacbed.exceptions import PacbedError
from pacbed.reading.maps.calibration import Calibration
from pacbed.reading.maps.found import Found
from pacbed.reading.maps.maker import MapMaker
from pacbed.reading.maps.points import PointPatterns, open_point_patterns, settings_of
from pacbed.reading.maps.settings import MapSettings
from pacbed.reading.maps.store import QUANTITIES, StrainMap, read_map, write_map
from pacbed.reading.scans.scan import Scan, ScanOptions
from pacbed.scattering.image import Camera
from pacbed.scattering.image_model import COLUMN
from pacbed.scattering.mtf import MTF

SHIFT = (0.7, -0.4)
ELECTRONS, GAIN = 3e5, 2.0
SETTINGS = {"layers": [3]}


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
    exact = {"shift_x_px": SHIFT[0], "shift_y_px": SHIFT[1], "electrons": ELECTRONS}
    values |= {name: np.full((2, 3), value) for name, value in exact.items()}
    layers = np.full((2, 3), 3)
    layers[1, 2] = 0
    known = {
        "material": "MoS2",
        "energy_keV": 80.0,
        "axes": "crystal",
        "calibration": asdict(
            Calibration(study.field_mrad / 64, 0, 6.35, 0, (32, 32), 0, counts_per_electron=GAIN)
        ),
        "provenance": {"settings": SETTINGS},
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


def test_a_copy_of_the_scan_need_not_say_the_distance_between_its_points(measured, small_series):
    strain_map, scan = measured
    near = replace(strain_map, x_nm=0.5 * np.arange(3), y_nm=0.5 * np.arange(2))
    copy = Scan.of(scan.patterns(slice(None)))
    found = PointPatterns(near, copy, small_series).at(1, 1).measured
    seen = np.isfinite(found)
    expected = scan.points(np.array([[1, 1]]))[0] / GAIN
    np.testing.assert_array_equal(found[seen], expected[seen])


@pytest.mark.parametrize("shape", [(1, 3), (2, 2), (4, 3)])
def test_a_scan_of_another_map_is_refused(measured, small_series, shape):
    other = Scan.of(np.ones((*shape, 64, 64)), step_nm=2.0)
    with pytest.raises(PacbedError, match=r"2 × 3 points.*name the scan of the map"):
        PointPatterns(measured[0], other, small_series)


def test_a_scan_that_is_smaller_than_a_window_is_refused(measured, small_series):
    strain_map, scan = measured
    known = {**strain_map.attributes, "provenance": {"settings": {**SETTINGS, "window": 3}}}
    with pytest.raises(PacbedError, match="name the scan of the map"):
        PointPatterns(replace(strain_map, attributes=known), scan, small_series)


def test_a_series_of_another_material_is_refused(measured, small_series):
    strain_map, scan = measured
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
        "settings": SETTINGS,
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
        ("layers", {"settings": SETTINGS}, "the map has no layers"),
        ("flags", {"calibration": {}}, "the map was changed, or is of another version"),
        ("flags", {"settings": {}}, "the map was changed, or is of another version"),
        ("flags", {"settings": [1]}, "the map was changed, or is of another version"),
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
    attributes = {**strain_map.attributes, "provenance": files | known, **known}
    values = {name: one for name, one in strain_map.values.items() if name != lost}
    with pytest.raises(PacbedError, match=said):
        open_point_patterns(StrainMap(values, strain_map.x_nm, strain_map.y_nm, attributes))


def test_options_of_a_scan_survive_json():
    given = {"area": [0, 1, 2, 3], "bins": 2}
    assert settings_of(ScanOptions, given) == ScanOptions(area=(0, 1, 2, 3), bins=2)


@pytest.mark.parametrize(("pixels", "bins"), [(64, 1), (600, 2)])
@pytest.mark.parametrize("axes", ["crystal", "scan"])
def test_a_map_holds_the_states_of_its_fits(small_series, study, axes, pixels, bins):
    random = np.random.default_rng(4)
    scan = Scan.of(random.poisson(9, (2, 3, pixels, pixels)), step_nm=2.0)
    centre = (pixels / 2 + 0.3, pixels / 2 - 0.8)
    calibration = Calibration(study.field_mrad / pixels, 0, 6.35, 0, centre, 20, blur_px=0.5)
    settings = MapSettings((3,), axes=axes, scan_rotation_deg=25)
    maker = MapMaker(scan, small_series, calibration, settings)
    assert maker.cut.bins == bins
    found = Found.none(6)
    found.layers[:], found.result.chi2_per_pixel[:], found.result.pixels[:] = 3, 1, 64**2
    found.result.states[:] = maker.common
    for name in (*QUANTITIES[:-1], "log_dose"):
        found.result.states[:, COLUMN[name]] = random.uniform(-1, 1, 6)
    values = maker.strain_map(found).values
    again = [
        maker.state({name: values[name][at] for name in QUANTITIES}) for at in np.ndindex(2, 3)
    ]
    np.testing.assert_allclose(again, found.result.states, atol=1e-12)
