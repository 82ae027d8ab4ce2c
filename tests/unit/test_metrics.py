"""Errors of predictions, against values worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from pacbed.errors import PacbedError
from pacbed.labels import PARAMETERS
from pacbed.metrics import UNITS, errors

# Errors +1, -3, +2 and +4 degrees.
PREDICTIONS = pd.DataFrame(
    {
        "draw": [0, 1, 2, 3],
        "electrons": [1e6] * 4,
        "true_rotation_deg": [0.0, 2.0, -4.0, 6.0],
        "predicted_rotation_deg": [1.0, -1.0, -2.0, 10.0],
    }
)
# Its mean, 3 degrees, is what one would always answer.
TRAINING = pd.DataFrame({"true_rotation_deg": [2.0, 4.0], "predicted_rotation_deg": [0.0, 0.0]})


@pytest.fixture
def row():
    table = errors(PREDICTIONS, TRAINING)
    assert len(table) == 1
    return table.iloc[0]


def test_the_parameter_is_named_with_its_unit_and_number_of_examples(row):
    assert (row["parameter"], row["unit"], row["examples"]) == ("rotation_deg", "deg", 4)


def test_mae_is_the_mean_size_of_the_errors(row):
    assert row["mae"] == pytest.approx((1 + 3 + 2 + 4) / 4)


def test_rmse_is_the_root_of_the_mean_squared_error(row):
    assert row["rmse"] == pytest.approx(np.sqrt((1 + 9 + 4 + 16) / 4))


def test_bias_is_positive_if_predictions_are_too_large(row):
    assert row["bias"] == pytest.approx((1 - 3 + 2 + 4) / 4)


def test_the_baseline_always_answers_the_mean_of_the_training_set(row):
    assert row["baseline_mae"] == pytest.approx((3 + 1 + 7 + 3) / 4)


def test_95_percent_of_the_errors_are_not_larger_than_p95():
    random = np.random.default_rng(0)
    size, sign = random.permutation(np.arange(1, 102)), random.choice([-1, 1], 101)
    table = pd.DataFrame({"true_rotation_deg": 5.0, "predicted_rotation_deg": 5.0 + sign * size})
    assert errors(table, TRAINING)["p95"].item() == pytest.approx(96)


def test_perfect_predictions_have_no_error():
    perfect = PREDICTIONS.assign(predicted_rotation_deg=PREDICTIONS["true_rotation_deg"])
    row = errors(perfect, TRAINING).iloc[0]
    assert (row[["mae", "rmse", "bias", "p95"]] == 0).all()


def test_every_parameter_has_its_own_row_in_the_order_of_the_outputs():
    columns = {
        f"{kind}_{name}": [0.0, 1.0] for name in PARAMETERS for kind in ("true", "predicted")
    }
    table = pd.DataFrame(columns)
    found = errors(table, table)
    assert tuple(found["parameter"]) == PARAMETERS
    assert list(found["unit"]) == ["1", "1", "1", "deg", "mrad", "mrad"] == list(UNITS.values())


@pytest.mark.parametrize("nothing", [PREDICTIONS.head(0), PREDICTIONS[["draw", "electrons"]]])
def test_nothing_to_compare_is_an_error(nothing):
    with pytest.raises(PacbedError, match="no predictions"):
        errors(nothing, TRAINING)
