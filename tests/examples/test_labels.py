"""Labels: what the network sees lies in [-1, 1] and maps back to strain, rotation and tilt."""

import numpy as np
import pytest

from pacbed.examples.labels import OUTPUTS, PARAMETERS, LabelScaling
from pacbed.specimen.deformation import Deformation

SCALING = LabelScaling.from_ranges(
    "strain-rotation-tilt", stretch=(0.95, 1.05), rotation_deg=(-10, 10), tilt_mrad=(-5, 5)
)
HIGHEST = np.array([0.05, 0.05, 0.05, 10, 5, 5])


def test_the_network_predicts_strain_rotation_and_tilt_in_this_order():
    assert SCALING.parameters == (
        "strain_xx",
        "strain_yy",
        "strain_xy",
        "rotation_deg",
        "tilt_x_mrad",
        "tilt_y_mrad",
    )


def test_without_tilt_the_first_four_parameters_remain():
    scaling = LabelScaling.from_ranges("strain-rotation", (0.95, 1.05), (-10, 10), (-5, 5))
    assert scaling.parameters == OUTPUTS["strain-rotation"] == PARAMETERS[:4]
    np.testing.assert_allclose(scaling.scale(HIGHEST[:4]), 1)


def test_undeformed_is_zero():
    np.testing.assert_allclose(SCALING.scale(np.zeros(6)), 0, atol=1e-15)


def test_the_ends_of_the_ranges_map_to_minus_one_and_one():
    np.testing.assert_allclose(SCALING.scale(HIGHEST), 1)
    np.testing.assert_allclose(SCALING.scale(-HIGHEST), -1)


def test_the_largest_shear_has_label_one():
    # Principal stretches at both ends of the range, along the diagonals.
    shear = Deformation(1.05, 0.95, 45).strain[0, 1]
    scaled = SCALING.scale(np.array([0, 0, shear, 0, 0, 0]))
    assert scaled[2] == pytest.approx(1)


def test_labels_round_trip():
    physical = np.random.default_rng(0).uniform(-HIGHEST, HIGHEST, (100, 6))
    scaled = SCALING.scale(physical)
    assert np.abs(scaled).max() <= 1
    np.testing.assert_allclose(SCALING.unscale(scaled), physical, atol=1e-15)


def test_ranges_need_not_be_symmetric():
    scaling = LabelScaling.from_ranges("strain-rotation-tilt", (1.0, 1.04), (2, 6), (-1, 5))
    middle = np.array([0.02, 0.02, 0, 4, 2, 2])
    np.testing.assert_allclose(scaling.scale(middle), 0, atol=1e-12)
    ends = np.array([0.04, 0, 0.02, 2, 5, -1])
    np.testing.assert_allclose(scaling.scale(ends), [1, -1, 1, -1, 1, -1])


def test_what_does_not_vary_keeps_its_unit():
    scaling = LabelScaling.from_ranges("strain-rotation-tilt", (0.95, 1.05), (3, 3), (0, 0))
    values = np.array([0.05, 0.05, 0.05, 3, 0, 0])
    np.testing.assert_allclose(scaling.scale(values)[3:], 0)
    np.testing.assert_allclose(scaling.scale(values + 0.5)[3:], 0.5)
    np.testing.assert_allclose(scaling.unscale(scaling.scale(values)), values)


def test_a_stored_scaling_is_restored():
    assert LabelScaling.from_dict({k: list(v) for k, v in vars(SCALING).items()}) == SCALING
