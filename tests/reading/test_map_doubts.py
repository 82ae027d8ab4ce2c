"""What a map says against itself."""

from types import SimpleNamespace

import numpy as np
import pytest
from small_scan import true_calibration

from pacbed.reading.maps.found import Found
from pacbed.reading.maps.maker import MapMaker, between_sides
from pacbed.reading.maps.settings import MapSettings
from pacbed.reading.maps.store import BITS, RELATIVE
from pacbed.reading.scans.scan import Scan
from pacbed.specimen.crystal import MATERIALS


def maker(**calibration):
    """Return what makes maps of MoS2 at 80 keV, whose discs are 15.3 mrad apart."""
    series = SimpleNamespace(request=SimpleNamespace(material=MATERIALS["MoS2"], energy_keV=80.0))
    scan = Scan.of(np.ones((4, 5, 32, 32)))
    return MapMaker(scan, series, true_calibration(**calibration), MapSettings((1,)))


@pytest.mark.parametrize(
    ("calibration", "said"),
    [({}, ""), ({"semiangle_mrad": 8.0}, "Discs overlap"), ({"residuals": 3.0}, "Residuals are 3")],
)
def test_what_the_calibration_speaks_against_is_kept_in_the_map(calibration, said):
    found = maker(**calibration)
    good = values(1.0, 0.0)
    assert found.warnings() == found._doubts(good, np.zeros(20))
    assert " ".join(found.warnings())[: len(said)] == said
    assert len(found.warnings()) == bool(said)


def values(chi2, relative, flags=0):
    """Return what is looked at, the same at all points."""
    found = {"chi2_per_pixel": chi2, RELATIVE[0]: relative, "flags": flags, "layers": 2}
    return {name: np.full((4, 5), value) for name, value in found.items()}


def test_a_wrong_model_and_a_reference_without_fits_are_said():
    said = maker()._doubts(values(2.0, np.nan), np.zeros(20))
    assert [line[:12] for line in said] == ["Residuals ar", "No fit in th"]


def test_many_points_at_the_edge_of_the_range_are_explained():
    edge = BITS["at the edge of the range"]
    assert (
        maker()
        ._doubts(values(1.0, 0.0, edge), np.zeros(20))[0]
        .startswith("At most points strain or tilt")
    )
    few = values(1.0, 0.0)
    few["flags"][:2] = edge
    assert maker()._doubts(few, np.zeros(20)) == []


STEP = ("33333333", "44333333", "55444333", "55555444", "55555555", "55555555")
EDGE = ("333200", "333320", "333332", "333333")


def numbers(lines):
    return np.array([list(map(int, line)) for line in lines])


@pytest.mark.parametrize(("lines", "between"), [(STEP, 4), (EDGE, 2), (("33455",), 4)])
def test_a_thin_strip_between_two_thicknesses_may_be_a_mixture(lines, between):
    layers = numbers(lines)
    assert np.array_equal(between_sides(layers), layers == between)
    terrace = np.repeat(np.repeat(layers, 2, 0), 2, 1)
    assert not between_sides(terrace).any()
    assert np.array_equal(between_sides(terrace, 2), terrace == between)


@pytest.mark.parametrize(
    "lines", [("3333", "3343", "3333"), ("3333", "3333", "4444"), ("3344", "3344")]
)
def test_what_is_no_strip_between_two_thicknesses_is_no_mixture(lines):
    assert not between_sides(numbers(lines)).any()


def test_missing_pixels_are_counted():
    good = values(1.0, 0.0)
    missing = np.zeros(20)
    missing[:3], missing[7] = 0.1, 1
    lost, some = maker()._doubts(good, missing)
    assert lost.startswith("1 of 20 points are mostly not finite")
    assert some.startswith("At 3 of 20 points 0.1 of the pixels are not finite")


def test_the_probability_of_a_thickness_is_that_of_the_one_that_is_taken(monkeypatch):
    one = maker()
    one.settings = MapSettings((3, 4, 5))
    places = np.stack([np.arange(9), np.zeros(9, int)], 1)
    own = np.full((9, 3), 1e-9)
    own[:, 0], own[4], own[8] = 1, (0.35, 0.05, 0.6), (0, 0, 1)  # an unsure one, and a sure one
    seeds = Found.none(9)
    seeds.layers[:] = np.array(one.settings.layers)[own.argmax(1)]
    seeds.probability[:] = own.max(1)
    monkeypatch.setattr(one, "_fitted", lambda images, starts, layers: fitted(len(images), layers))
    one._smooth(places, seeds, own, np.zeros((9, 1, 1)))
    assert seeds.layers.tolist() == [3] * 8 + [5]
    assert (seeds.probability > 0.9).all()


def fitted(count, number):
    found = Found.none(count)
    found.layers[:], found.probability[:] = number, 1
    return found


def test_a_thickness_that_is_tried_later_is_no_certainty():
    before, after = fitted(3, 3), fitted(3, np.array([3, 4, 4]))
    before.probability[:] = 0.5
    before.result.deviance[:], after.result.deviance[:] = 100, (50, 98, 50)
    after.result.chi2_per_pixel[:] = 1
    same, little, much = before.beside(np.arange(3), after)
    assert same == 0.5
    assert little == pytest.approx(np.e / (np.e + 2))
    assert much > 0.999
