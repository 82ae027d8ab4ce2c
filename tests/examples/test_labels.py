"""Labels: what the network sees lies in [-1, 1] and maps back to strain, rotation and tilt."""

import numpy as np
import pytest

from pacbed.examples.labels import OUTPUTS, PARAMETERS, LabelScaling, display_unit, head
from pacbed.specimen.deformation import Deformation

SCALING = LabelScaling.from_ranges(
    "strain-rotation-tilt", stretch=(0.95, 1.05), rotation_deg=(-10, 10), tilt_mrad=(-5, 5)
)
HIGHEST = np.array([0.05, 0.05, 0.05, 10, 5, 5])


def test_zero_and_the_ends_of_the_ranges_map_to_zero_and_one():
    assert SCALING.parameters == PARAMETERS
    np.testing.assert_allclose(SCALING.scale(np.zeros(6)), 0, atol=1e-15)
    np.testing.assert_allclose(SCALING.scale([-HIGHEST, HIGHEST]), [[-1] * 6, [1] * 6])
    without_tilt = LabelScaling.from_ranges("strain-rotation", (0.95, 1.05), (-10, 10), (-5, 5))
    assert without_tilt.parameters == OUTPUTS["strain-rotation"] == PARAMETERS[:4]
    np.testing.assert_allclose(without_tilt.scale(HIGHEST[:4]), 1)


def test_the_largest_shear_has_label_one():
    # Principal stretches at both ends of the range, along the diagonals.
    shear = Deformation(1.05, 0.95, 45).strain[0, 1]
    scaled = SCALING.scale(np.array([0, 0, shear, 0, 0, 0]))
    assert scaled[2] == pytest.approx(1)


def test_labels_round_trip_and_a_stored_scaling_is_restored():
    physical = np.random.default_rng(0).uniform(-HIGHEST, HIGHEST, (100, 6))
    restored = LabelScaling.from_dict({k: list(v) for k, v in vars(SCALING).items()})
    assert restored == SCALING
    np.testing.assert_allclose(restored.unscale(SCALING.scale(physical)), physical, atol=1e-15)


def test_ranges_need_not_be_symmetric():
    scaling = LabelScaling.from_ranges("strain-rotation-tilt", (1.0, 1.04), (2, 6), (-1, 5))
    middle = np.array([0.02, 0.02, 0, 4, 2, 2])
    np.testing.assert_allclose(scaling.scale(middle), 0, atol=1e-12)
    ends = np.array([0.04, 0, 0.02, 2, 5, -1])
    np.testing.assert_allclose(scaling.scale(ends), [1, -1, 1, -1, 1, -1])


def test_units_and_heads_of_quantities():
    assert display_unit("relative_strain_xx") == (100, "%")
    assert display_unit("rotation_deg_sigma") == (1, "°")
    assert display_unit("chi2_per_pixel") == (1, "")
    assert [head(name) for name in PARAMETERS[2:5]] == ["ε_xy (%)", "γ (°)", "φ_x (mrad)"]


def test_what_does_not_vary_keeps_its_unit():
    scaling = LabelScaling.from_ranges("strain-rotation-tilt", (0.95, 1.05), (3, 3), (0, 0))
    values = np.array([0.05, 0.05, 0.05, 3, 0, 0])
    np.testing.assert_allclose(scaling.scale(values)[3:], 0)
    np.testing.assert_allclose(scaling.scale(values + 0.5)[3:], 0.5)
    np.testing.assert_allclose(scaling.unscale(scaling.scale(values)), values)
