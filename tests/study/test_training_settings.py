"""What the study hands to a training: the errors that its examples allow."""

import math

import pandas as pd
import pytest

from pacbed.examples.labels import PARAMETERS, LabelScaling
from pacbed.exceptions import PacbedError
from pacbed.study.model import Configuration
from pacbed.study.training_settings import error_scales, training_settings

SCALING = LabelScaling.from_ranges("strain-rotation-tilt", (0.95, 1.05), (-10, 10), (-5, 5))


@pytest.fixture
def bounds(tmp_path):
    """A table of two semi-angles: what can be read of a monolayer, and at one layer more."""
    mae = {
        (6.35, 1): (2e-4, 1e-4, 5e-5, 0.001, 20.0, math.nan),
        (6.35, 2): (1e-6,) * 6,
        (18.13, 1): (1e-3,) * 6,
    }
    rows = [
        {"semiangle_mrad": angle, "layers": layers, "parameter": name, "data_mae": value}
        for (angle, layers), values in mae.items()
        for name, value in zip(PARAMETERS, values, strict=True)
    ]
    path = tmp_path / "bounds_mean.parquet"
    pd.DataFrame(rows).to_parquet(path)
    return path


def test_scales_are_bounds_in_units_of_the_ranges(bounds):
    found = error_scales(bounds, 6.35, 1, SCALING)
    # Rotation is read better than a network can; tilt not at all, or it does not vary.
    assert found == pytest.approx((0.004, 0.002, 0.001, 1 / 3000, 1, 1))


def test_no_scale_is_finer_than_a_network_can_read(bounds):
    assert error_scales(bounds, 6.35, 2, SCALING) == (1 / 3000,) * 6


def test_scales_are_of_the_outputs_of_the_network(bounds):
    scaling = LabelScaling.from_ranges("strain-rotation", (0.95, 1.05), (-10, 10), (-5, 5))
    assert len(error_scales(bounds, 18.13, 1, scaling)) == 4


def test_a_table_without_the_thickness_is_refused(bounds):
    with pytest.raises(PacbedError, match=r"no bounds for 18\.13 mrad and 2 layers.*made again"):
        error_scales(bounds, 18.13, 2, SCALING)


def test_a_training_takes_the_scales_and_the_kind():
    training = {"schedule": "fast", "loss": "fisher"}
    study = Configuration(training=training)
    assert training_settings(study, "sqrt", (0.1,)).error_scales == (0.1,)
    made = training_settings(Configuration(network={"kind": "coarse-to-fine"}), "sqrt")
    assert (made.network.kind, made.network.intensity) == ("coarse-to-fine", "sqrt")
    assert made.error_scales is None
    with pytest.raises(ValueError, match="belong to the loss fisher"):
        training_settings(study, "sqrt")
    with pytest.raises(ValueError, match="belong to the loss fisher"):
        training_settings(Configuration(), "sqrt", (0.1,))
