"""Maps of a scan: right within their error bars, resumable, silent where there is no crystal."""

from dataclasses import replace

import numpy as np
import pytest
from small_scan import (
    LAYERS,
    PIXELS,
    FIELD_mrad,
    ROTATION_deg,
    SEMIANGLE_mrad,
    disc,
    small_scan,
    true_calibration,
)

from pacbed.exceptions import PacbedError
from pacbed.reading.maps.maker import MapMaker, strain_turn
from pacbed.reading.maps.making import _differing, make_map
from pacbed.reading.maps.points import PointPatterns
from pacbed.reading.maps.settings import MapSettings
from pacbed.reading.maps.store import QUANTITIES, read_map, write_map
from pacbed.reading.maps.sums import window_sums
from pacbed.reading.scans.scan import Scan, ScanOptions, open_scan
from pacbed.reading.scans.writing import WRITERS, write_scan
from pacbed.scattering.image_model import COLUMN
from pacbed.scattering.request import SeriesRequest
from pacbed.scattering.strain import StrainRange
from pacbed.specimen.crystal import MATERIALS

pytestmark = [pytest.mark.xdist_group("maps"), pytest.mark.slow]

VACUUM, MIXED, TURN = 8, 16, 32
KNOWN = {
    "pixel_mrad": FIELD_mrad / PIXELS,
    "step_nm": 0.5,
    "energy_keV": 80.0,
    "semiangle_mrad": SEMIANGLE_mrad,
}


@pytest.fixture(scope="module")
def small(small_series):
    return small_scan(small_series)


@pytest.fixture(scope="module")
def maker(small_series, small):
    settings = MapSettings(LAYERS, reference=(0, 0, 2, 6), model_error=0.0)
    return MapMaker(small.scan, small_series, true_calibration(), settings)


def like(maker, scan, settings):
    """Make maps of another scan; what is compiled, and the dictionaries, are those of a maker."""
    other = MapMaker(scan, maker.series, maker.calibration, settings)
    other.__dict__.update(fit=maker.fit, _thicknesses=maker._thicknesses)
    return other


@pytest.fixture(scope="module")
def found(maker, tmp_path_factory):
    return make_map(maker, tmp_path_factory.mktemp("map") / "parts", threads=2)


def deviations(found, small):
    """Return errors over their standard deviations, of points of the crystal."""
    crystal = small.layers > 0
    return np.array(
        [
            (found.values[name] - small.states[..., COLUMN[name]])[crystal]
            / found.values[f"{name}_sigma"][crystal]
            for name in QUANTITIES[:6]
        ]
    )


def test_errors_are_as_large_as_stated(found, small):
    away = deviations(found, small)
    assert np.abs(away).max() < 5
    assert 0.8 < np.sqrt((away**2).mean()) < 1.25


def test_thickness_is_right_and_nothing_is_claimed_in_vacuum(found, small):
    assert np.array_equal(found.values["layers"], small.layers)
    vacuum = small.layers == 0
    assert np.array_equal(found.flagged(VACUUM), vacuum)
    assert np.array_equal(~found.claimed, vacuum)
    assert np.isnan(found.values["chi2_per_pixel"][vacuum]).all()
    assert not found.values["flags"][~vacuum].any()
    assert np.array_equal(np.isnan(found.values["layers_probability"]), vacuum)
    assert (found.values["layers_probability"][~vacuum] > 0.5).all()


def test_chi2_is_that_of_the_noise(found):
    assert np.nanmedian(found.values["chi2_per_pixel"]) == pytest.approx(1, abs=0.05)


def test_patterns_of_points_leave_what_the_map_says(maker, found, small, small_series):
    patterns = PointPatterns(found, small.scan, small_series)
    for at in (3, 1), (5, 6):
        residuals = patterns.at(*at).residuals
        pixels = np.isfinite(residuals).sum() - len(maker.fit.settings.free)
        chi2 = found.values["chi2_per_pixel"][at]
        assert np.nansum(residuals**2) / pixels == pytest.approx(chi2, rel=1e-4)


def test_relative_strain_refers_to_the_reference_region(found):
    relative, strain = (found.values[n] for n in ("relative_strain_xx", "strain_xx"))
    assert relative[:, :2].mean() == pytest.approx(0, abs=1e-6)
    assert np.nanstd(relative - strain) < 1e-6


def test_where_points_lie_and_what_a_map_follows_from_are_kept(found, tmp_path):
    path = tmp_path / "map.zarr.zip"
    write_map(path, found)
    again = read_map(path)
    assert np.allclose(again.x_nm, 0.5 * np.arange(7))
    assert again.attributes["calibration"]["rotation_deg"] == ROTATION_deg
    assert again.attributes["provenance"]["settings"]["layers"] == list(LAYERS)


def test_a_map_that_was_stopped_goes_on(maker, found, tmp_path, monkeypatch):
    monkeypatch.setattr("pacbed.reading.maps.maker._PART_BYTES", 7 * 64 * 64 * 4 * 2)
    computed, whole = [], maker.rows
    monkeypatch.setattr(
        maker, "rows", lambda rows, *others: computed.append(rows[0]) or whole(rows, *others)
    )

    def stop(done, total, more=""):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_map(maker, tmp_path / "parts", stop)
    assert (tmp_path / "parts" / "rows-00000.npz").exists()
    again = make_map(maker, tmp_path / "parts")
    assert set(computed) == {0, 2, 4}
    assert computed.count(0) == 1
    assert np.allclose(
        again.values["strain_xx"], found.values["strain_xx"], atol=1e-5, equal_nan=True
    )


def test_a_second_pass_that_was_stopped_goes_on(maker, small, tmp_path, monkeypatch):
    spoilt = small.scan.patterns(slice(2, 5), slice(0, 4)).copy()
    spoilt[1, 1, :, 40:] *= 3  # nothing describes this point
    scan = Scan.of(spoilt, pixel_mrad=small.scan.pixel_mrad)
    settings = replace(maker.settings, reference=None)
    other = like(maker, scan, settings)
    fitted, neighbours, searched = [], other._from_states, other._searched
    monkeypatch.setattr(
        other, "_from_states", lambda *given: fitted.append("near") or neighbours(*given)
    )

    def stop(places):
        raise KeyboardInterrupt

    monkeypatch.setattr(other, "_searched", stop)
    with pytest.raises(KeyboardInterrupt):
        make_map(other, tmp_path / "parts")
    assert fitted
    monkeypatch.setattr(other, "_searched", lambda places: fitted.append("all") or searched(places))
    fitted.clear()
    again = make_map(other, tmp_path / "parts")
    assert fitted == ["all"]
    undisturbed = make_map(other, tmp_path / "undisturbed")
    for name, values in undisturbed.values.items():
        np.testing.assert_array_equal(again.values[name], values)
    assert again.flagged(4)[1, 1]
    assert not again.flagged(7)[~again.flagged(4)].any()


def test_parts_of_another_map_are_refused(maker, tmp_path):
    from pacbed.reading.maps.making import check_parts, fingerprint_of

    check_parts(tmp_path / "parts", fingerprint_of(maker))
    check_parts(tmp_path / "parts", fingerprint_of(maker))
    other = MapMaker(maker.scan, maker.series, maker.calibration, replace(maker.settings, window=2))
    with pytest.raises(PacbedError, match="another window"):
        check_parts(tmp_path / "parts", fingerprint_of(other))
    assert _differing({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}) == ["c"]


def test_a_map_is_the_same_whatever_file_its_scan_comes_from(maker, small, tmp_path):
    def of(scan, name):
        return make_map(like(maker, scan, MapSettings(LAYERS)), tmp_path / f"{name}.parts")

    counts = np.clip(small.scan.patterns(slice(1, 3), slice(4, 6)).round(), 0, None)
    scan = Scan.of(counts.astype(np.uint16), **KNOWN)
    expected = of(scan, "memory")
    assert expected.claimed.sum() == 3
    for ending in WRITERS:
        write_scan(tmp_path / f"scan{ending}", scan)
        options = ScanOptions(**(KNOWN if ending in (".mib", ".npy") else {}))
        found = of(open_scan(tmp_path / f"scan{ending}", options), ending)
        np.testing.assert_array_equal(found.x_nm, expected.x_nm)
        for name, values in expected.values.items():
            np.testing.assert_array_equal(found.values[name], values, err_msg=f"{name}, {ending}")


def test_few_electrons_are_read_within_their_error_bars(small_series, tmp_path):
    small = small_scan(small_series, electrons=2e4, vacuum=False, shape=(4, 6))
    maker = MapMaker(small.scan, small_series, true_calibration(), MapSettings((3, 5)))
    found = make_map(maker, tmp_path / "parts")
    away = deviations(found, small)
    assert np.array_equal(found.values["layers"], small.layers)
    assert np.abs(away).max() < 6
    assert 0.7 < np.sqrt((away**2).mean()) < 1.3


def test_a_window_has_the_error_bars_of_more_electrons(small_series, tmp_path):
    small = small_scan(small_series, electrons=1e5, vacuum=False, shape=(4, 4))
    sums = []
    for window in (1, 2):
        settings = MapSettings((3, 5), window=window, every=window)
        maker = MapMaker(small.scan, small_series, true_calibration(), settings)
        images = maker.images(maker.in_scan(np.array([[0, 0]])))
        assert np.allclose(maker._of_rows(np.array([0]))[0], images[0])
        sums.append(images.sum())
    assert sums[1] == pytest.approx(4 * sums[0], rel=0.05)
    assert maker.shape == (2, 2)


def test_patterns_without_numbers_claim_nothing(maker, small, tmp_path):
    patterns = small.scan.patterns(slice(0, 2)).copy()
    patterns[0] = np.nan
    scan = Scan.of(patterns, pixel_mrad=small.scan.pixel_mrad)
    found = make_map(like(maker, scan, MapSettings(LAYERS)), tmp_path / "parts")
    assert not found.claimed[0].any()
    assert found.claimed[1, :4].all()


def test_pixels_without_numbers_do_not_count(maker, small, tmp_path):
    part = slice(2, 4)
    patterns, random = small.scan.patterns(part).copy(), np.random.default_rng(1)
    patterns[0, 1, 26:35] = np.nan  # rows across the central disc
    patterns[1, 5][random.random((64, 64)) < 0.05] = np.nan
    patterns[1, 6, 20, 30:33] = np.inf
    scan = Scan.of(patterns, pixel_mrad=small.scan.pixel_mrad)
    other = like(maker, scan, replace(maker.settings, reference=None))
    found = make_map(other, tmp_path / "parts")
    assert np.array_equal(found.values["layers"], small.layers[part])
    assert found.values["chi2_per_pixel"].max() < 1.1
    cut = replace(small, states=small.states[part], layers=small.layers[part])
    assert np.abs(deviations(found, cut)).max() < 5
    assert any("At 3 of 14 points" in line for line in found.attributes["warnings"])


def test_a_window_is_filled_up_where_a_pattern_has_no_number():
    patterns = np.full((2, 2, 24, 24), 5.0, np.float32)
    patterns[0, 0, 3], patterns[:, :, 7, 7], patterns[0, :, 8, 8] = np.nan, np.nan, np.nan
    sums = window_sums(Scan.of(patterns), np.array([[0, 0]]), np.ones((2, 2)))[0]
    assert np.isnan(sums[7, 7])
    sums[7, 7] = 20
    assert np.allclose(sums, 20)


def test_a_scan_of_vacuum_is_refused(small_series, tmp_path):
    images = np.random.default_rng(0).poisson(4 * disc(1e5), (2, 2, 64, 64)).astype(np.float32)
    scan = Scan.of(images, pixel_mrad=60 / 64)
    maker = MapMaker(scan, small_series, true_calibration(), MapSettings(LAYERS))
    with pytest.raises(PacbedError, match="no crystal"):
        make_map(maker, tmp_path / "parts")


def test_a_wrong_semi_angle_is_said_by_chi2(small_series, small, tmp_path):
    scan = Scan.of(small.scan.patterns(slice(2, 3), slice(0, 3)), pixel_mrad=small.scan.pixel_mrad)
    maker = MapMaker(scan, small_series, true_calibration(semiangle_mrad=6.0), MapSettings((3,)))
    found = make_map(maker, tmp_path / "parts")
    assert np.nanmedian(found.values["chi2_per_pixel"]) > 1.5
    assert found.flagged(4).all()
    assert "beam energy, semi-angle" in found.attributes["warnings"][0]


@pytest.mark.parametrize(("formula", "energy_keV"), [("WSe2", 80), ("MoS2", 200)])
def test_another_crystal_or_energy_than_said_is_flagged_and_explained(
    made, small, formula, energy_keV, tmp_path
):
    crystal, stretch = MATERIALS[formula], StrainRange((0.96, 1.04))
    asked = SeriesRequest(crystal, energy_keV, 3, stretch, 6.35, 5.0, 76.0, 6, 1)
    series = made(f"{formula} at {energy_keV} keV", asked)
    scan = Scan.of(small.scan.patterns(slice(2, 3), slice(0, 3)), pixel_mrad=small.scan.pixel_mrad)
    maker = MapMaker(scan, series, true_calibration(), MapSettings((3,)))
    found = make_map(maker, tmp_path / "parts")
    assert found.flagged(7).all()
    assert "material, beam energy" in " ".join(found.attributes["warnings"])


def test_an_undetermined_turn_is_flagged(maker, found):
    other = MapMaker(
        maker.scan, maker.series, true_calibration(turn_told_apart=False), maker.settings
    )
    other.__dict__.update(fit=maker.fit, cut=maker.cut)
    seeds = maker.seeds()[1]
    flags = other._flags(_all_of(seeds, found.values["layers"].size))
    assert (flags & TURN).any()


def _all_of(seeds, count):
    from pacbed.reading.maps.found import Found

    whole = Found.none(count)
    whole.put(np.arange(len(seeds.layers)), seeds)
    return whole


def test_axes_of_the_scan_are_those_of_the_crystal_turned(maker, found, tmp_path):
    settings = replace(maker.settings, axes="scan", scan_rotation_deg=10.0)
    turned = make_map(like(maker, maker.scan, settings), tmp_path / "parts")
    at = 3, 1
    one, two = ({n: m.values[n][at] for n in QUANTITIES[:6]} for m in (found, turned))
    angle = np.deg2rad(one["rotation_deg"] - 10)
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s], [s, c]])
    tensor = np.array([[one["strain_xx"], one["strain_xy"]], [one["strain_xy"], one["strain_yy"]]])
    expected = turn @ tensor @ turn.T
    assert two["strain_xx"] == pytest.approx(expected[0, 0], abs=1e-5)
    assert two["strain_xy"] == pytest.approx(expected[0, 1], abs=1e-5)
    tilt = turn @ [one["tilt_x_mrad"], one["tilt_y_mrad"]]
    assert two["tilt_y_mrad"] == pytest.approx(tilt[1], abs=1e-3)
    assert np.allclose(
        strain_turn(np.array([angle]))[0] @ strain_turn(-np.array([angle]))[0], np.eye(3)
    )
