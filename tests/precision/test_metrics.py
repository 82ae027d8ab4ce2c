"""Errors of predictions, against values worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from pacbed.exceptions import PacbedError
from pacbed.precision.metrics import errors, errors_by_dose, interval

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


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("parameter", "rotation_deg"),
        ("unit", "deg"),
        ("examples", 4),
        ("mae", (1 + 3 + 2 + 4) / 4),
        ("rmse", np.sqrt((1 + 9 + 4 + 16) / 4)),
        ("bias", (1 - 3 + 2 + 4) / 4),  # positive if predictions are too large
        ("baseline_mae", (3 + 1 + 7 + 3) / 4),  # of the mean of the training set
        ("r2", 1 - (1 + 9 + 4 + 16) / (1 + 1 + 25 + 25)),
        ("sd", np.nan),  # no draw has two examples
        ("no_lattice", 0),
        ("flagged", 0),
    ],
)
def test_errors_are_summarised(row, column, value):
    assert row[column] == pytest.approx(value, nan_ok=True)


def test_95_percent_of_the_errors_are_not_larger_than_p95():
    random = np.random.default_rng(0)
    size, sign = random.permutation(np.arange(1, 102)), random.choice([-1, 1], 101)
    table = pd.DataFrame({"true_rotation_deg": 5.0, "predicted_rotation_deg": 5.0 + sign * size})
    table["draw"] = 0
    assert errors(table, TRAINING)["p95"].item() == pytest.approx(96)


@pytest.mark.parametrize("nothing", [PREDICTIONS.head(0), PREDICTIONS[["draw", "electrons"]]])
def test_nothing_to_compare_is_an_error(nothing):
    with pytest.raises(PacbedError, match="no predictions"):
        errors(nothing, TRAINING)


def many(draws=40, each=25, between=1.0, within=0.0, bias=0.0, seed=0):
    """Predictions whose errors have a part that a draw's examples share, and one of each."""
    random = np.random.default_rng(seed)
    draw = np.repeat(np.arange(draws), each)
    true = random.uniform(-10, 10, draws)[draw]
    error = bias + random.normal(0, between, draws)[draw] + random.normal(0, within, len(draw))
    electrons = np.exp(random.uniform(np.log(1e6), np.log(5e7), len(draw)))
    columns = {"true_rotation_deg": true, "predicted_rotation_deg": true + error}
    return pd.DataFrame({"draw": draw, "electrons": electrons, **columns})


def test_sd_is_that_among_examples_of_one_draw():
    row = errors(many(between=3.0, within=0.5, bias=2.0), TRAINING).iloc[0]
    assert row["sd"] == pytest.approx(0.5, rel=0.05)
    assert (row["examples"], row["draws"]) == (1000, 40)


def test_r2_is_no_number_where_the_truth_does_not_vary_but_by_rounding():
    strain = 1e-17 * np.arange(4)
    table = PREDICTIONS.assign(true_rotation_deg=3.0, true_strain_xx=strain, predicted_strain_xx=0)
    assert errors(table, table)["r2"].isna().all()


SKEWED = {
    "half-normal": lambda random, size: np.abs(random.normal(0, np.sqrt(np.pi / 2), size)),
    "gamma": lambda random, size: random.gamma(3, 1 / 3, size),
    "exponential": lambda random, size: random.exponential(1, size),
    "lognormal": lambda random, size: random.lognormal(-0.125, 0.5, size),
}
"""Distributions of the mean absolute error of a draw, of mean 1."""


@pytest.mark.parametrize("draws", [5, 13, 100])
@pytest.mark.parametrize("shape", SKEWED)
def test_95_percent_of_the_intervals_hold_the_error_of_infinitely_many_draws(draws, shape):
    random = np.random.default_rng([draws, len(shape)])
    inside = 0
    for _ in range(4000):
        counts = random.integers(20, 41, draws)
        within = 1 + 0.3 * random.normal(size=draws) / np.sqrt(counts)
        low, high = interval(counts * SKEWED[shape](random, draws) * within, counts)
        inside += low < 1 < high
    assert 0.93 <= inside / 4000 <= 0.97


def test_the_interval_counts_draws_not_examples():
    """A hundred times as many examples of the same draws tell hardly more."""
    few, more = (errors(many(each=n), TRAINING).iloc[0] for n in (1, 100))
    width = [row["mae_high"] - row["mae_low"] for row in (few, more)]
    assert width[1] == pytest.approx(width[0], rel=0.3)


def test_the_interval_is_absent_for_two_draws_and_nothing_wide_without_errors():
    perfect = PREDICTIONS.assign(predicted_rotation_deg=PREDICTIONS["true_rotation_deg"])
    row = errors(perfect, TRAINING).iloc[0]
    assert (row[["mae", "mae_low", "mae_high", "rmse", "bias", "p95"]] == 0).all()
    for draws in (1, 2, 3):
        row = errors(many(draws=draws), TRAINING).iloc[0]
        assert row[["mae_low", "mae_high"]].isna().all() == (draws < 3)


def test_each_tenth_of_the_doses_has_its_rows():
    table = errors_by_dose(many(), TRAINING, (1e6, 5e7))
    assert list(table["dose"]) == ["all", *map(str, range(1, 11))]
    tenths = table[1:]
    assert tenths["examples"].sum() == table["examples"].iloc[0] == 1000
    assert np.allclose(tenths["electrons_high"].iloc[:-1], tenths["electrons_low"].iloc[1:])
    assert tenths["electrons_low"].iloc[0] == 1e6
    assert tenths["electrons_high"].iloc[-1] == pytest.approx(5e7)
    # Log-uniform doses: each tenth holds about as many.
    assert tenths["examples"].min() > 70


def test_an_example_belongs_to_the_tenth_of_its_dose():
    edges = np.geomspace(1e6, 5e7, 11)
    table = many().assign(electrons=np.sqrt(edges[3] * edges[4]))
    table["electrons"] = table["electrons"].mask(table["draw"] == 0, 5e7)
    table["electrons"] = table["electrons"].mask(table["draw"] == 1, 1e6)
    found = errors_by_dose(table, TRAINING, (1e6, 5e7)).set_index("dose")["examples"]
    assert found.to_dict() == {"all": 1000, "1": 25, "4": 950, "10": 25}


def test_the_bound_is_that_of_the_doses_of_the_examples_and_efficiency_its_share_of_the_mae():
    asked = []

    def bound(parameter, electrons):
        asked.append((parameter, len(electrons)))
        return tuple((factor / np.sqrt(electrons)).mean() for factor in (10, 5, 2))

    table = errors_by_dose(many(), TRAINING, (1e6, 5e7), bound).set_index("dose")
    assert asked[0] == ("rotation_deg", 1000)
    whole = table.loc["all"]
    assert whole["bound_mae"] == pytest.approx((10 / np.sqrt(many()["electrons"])).mean())
    assert whole["data_bound_mae"] == pytest.approx(whole["bound_mae"] / 5)
    assert whole["efficiency"] == pytest.approx(whole["prior_bound_mae"] / whole["mae"])
    assert table.loc["1", "bound_mae"] > table.loc["10", "bound_mae"]


def test_strains_are_also_given_in_percent_and_other_parameters_are_not():
    strain = many().rename(columns=lambda c: c.replace("rotation_deg", "strain_xx"))
    both = pd.concat([strain, many().filter(like="rotation")], axis=1)
    table = errors_by_dose(both, both, (1e6, 5e7))
    assert list(table[:2]["unit"]) == ["1", "deg"]
    table = table.set_index(["dose", "parameter"])
    row = table.loc[("all", "strain_xx")]
    for name in ("mae", "mae_low", "rmse", "bias", "sd", "p95", "baseline_mae"):
        assert row[f"{name}_percent"] == pytest.approx(100 * row[name])
    assert np.isnan(table.loc[("all", "rotation_deg"), "mae_percent"])


def test_one_dose_has_no_tenths_and_doses_outside_of_the_range_are_refused():
    table = errors_by_dose(many().assign(electrons=1e6), TRAINING, (1e6, 1e6))
    assert list(table["dose"]) == ["all"]
    with pytest.raises(PacbedError, match="not of the range 1e\\+03 to 2e\\+03"):
        errors_by_dose(many(), TRAINING, (1e3, 2e3))


def test_the_share_of_images_in_which_nothing_was_found_is_told():
    table = many(draws=4, each=25).assign(discs=[0] * 10 + [7] * 90)
    assert errors(table, TRAINING)["no_lattice"].item() == pytest.approx(0.1)
    assert errors(many(), TRAINING)["no_lattice"].item() == 0


def test_the_share_of_fits_with_a_flag_is_told():
    table = many(draws=4, each=25).assign(flags=["bad chi2"] * 10 + [""] * 90)
    assert errors(table, TRAINING)["flagged"].item() == pytest.approx(0.1)
    assert errors(table, TRAINING)["no_lattice"].item() == 0
