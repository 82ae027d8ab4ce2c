"""Prismatic's grid and slices, and settings that are refused."""

import math

import numpy as np
import pytest
from samples import MOS2

from pacbed.engines.prismatic import PrismaticSettings, native_detector
from pacbed.engines.prismatic.settings import Grid
from pacbed.exceptions import RequestError
from pacbed.specimen.crystal import MATERIALS

LAYER_A = MOS2.layer_thickness_A


# Grid


@pytest.mark.parametrize(
    ("edge_A", "pixel_A", "factor", "points"),
    [
        (400, 0.15, 4, 2672),  # the paper's
        (400, 0.15, 1, 2668),
        (400, 0.15, 2, 2664),
        (12.6452, 0.3, 1, 44),
        (10.951, 0.3, 1, 36),
        # Halfway between two, where single precision decides: as Prismatic was seen to do.
        (10.2, 0.1, 1, 104),
        (11.4, 0.1, 1, 112),
        (11.0, 0.5, 1, 24),
    ],
)
def test_points_are_the_nearest_multiple_of_four_times_the_factor(edge_A, pixel_A, factor, points):
    assert Grid((edge_A, 50.0), pixel_A, factor).points[0] == points
    assert Grid((50.0, edge_A), pixel_A, factor).points[1] == points


def test_grid_is_never_empty():
    assert Grid((1.0, 1.0), 0.5, 4).points == (4, 4)


def test_frequencies_of_a_pattern_are_multiples_of_one_over_the_edge():
    found = Grid((12.6452, 10.951), 0.3, 1).frequencies_per_A(1)
    assert len(found) == 18
    np.testing.assert_allclose(found, np.arange(-9, 9) / 10.951)


def test_native_detector_has_the_pixels_of_prismatic():
    detector = native_detector(PrismaticSettings(box_A=(400, 200)), energy_keV=80)
    assert detector.pixels == (1336, 664)
    assert np.diff(detector.kx_mrad)[0] == pytest.approx(0.1044, abs=5e-5)
    assert np.diff(detector.ky_mrad)[0] == pytest.approx(0.2088, abs=1e-4)


def test_there_is_no_native_detector_of_a_box_of_changing_size():
    with pytest.raises(RequestError, match="native pixels need a box of a fixed size"):
        native_detector(PrismaticSettings(box_A="auto"), energy_keV=80)


# Slices


def slices(thickness_A, slice_A):
    """Number of slices, as Prismatic computes it."""
    return int(np.ceil(np.float32(thickness_A) / np.float32(slice_A)))


def test_exact_quotient_would_make_a_slice_too_many():
    assert slices(20 * LAYER_A, 20 * LAYER_A / 60) == 61


@pytest.mark.parametrize("name", MATERIALS)
def test_every_layer_has_its_number_of_slices(name):
    layer_A = MATERIALS[name].layer_thickness_A
    for per_layer in range(1, 13):
        slice_A = PrismaticSettings(slices_per_layer=per_layer).slice_A(layer_A)
        assert per_layer * slice_A == pytest.approx(layer_A, rel=1e-4)
        for layers in range(1, 101):
            assert slices(layers * layer_A, slice_A) == layers * per_layer


# Refusals


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"pixel_A": 0.009}, "pixel_A must lie within 0.01 to 0.5 Å, not 0.009"),
        ({"pixel_A": 0.51}, "pixel_A must lie within 0.01 to 0.5 Å, not 0.51"),
        ({"pixel_A": math.nan}, "pixel_A must lie within 0.01 to 0.5 Å, not nan"),
        ({"slices_per_layer": 0}, "slices_per_layer must be 1 or more, not 0"),
        ({"interpolation_factor": 0}, "interpolation_factor must be 1 or more, not 0"),
        ({"potential_bound_A": 0.9}, "potential_bound_A must lie within 1 to 10 Å, not 0.9"),
        ({"potential_bound_A": 11}, "potential_bound_A must lie within 1 to 10 Å, not 11"),
        *(
            ({"box_A": box}, "box_A must be 'auto' or one or two lengths within 10 to 2000 Å, not ")
            for box in ("large", 9, 2001, math.nan, (400,), (400, 9), (400, 400, 123))
        ),
        ({"probe_region_A": 0.5}, "probe_region_A must lie within 1 to 2000 Å, not 0.5"),
        ({"probe_region_A": 2001}, "probe_region_A must lie within 1 to 2000 Å, not 2001"),
        *(
            ({"probes": probes}, "probes must be 'auto' or two numbers, 1 or more, not ")
            for probes in ("many", (448,), (16, 0), (2, 3, 4))
        ),
        ({"probes_per_configuration": "half"}, "must be 'all' or 'split', not 'half'"),
    ],
)
def test_impossible_settings_are_refused(settings, complaint):
    with pytest.raises(RequestError, match=complaint):
        PrismaticSettings(**settings)


def test_lists_of_a_configuration_file_are_the_same_settings_as_tuples():
    made = PrismaticSettings(box_A=[300, 200], probes=[4, 8])
    assert made == PrismaticSettings(box_A=(300, 200), probes=(4, 8))
    assert hash(made) == hash(PrismaticSettings(box_A=(300, 200), probes=(4, 8)))
