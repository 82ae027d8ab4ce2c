"""The table of errors: whole, traceable, and of one study only."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pacbed.examples.labels import OUTPUTS, PARAMETERS
from pacbed.exceptions import PacbedError
from pacbed.learning.specification import NetworkSpec
from pacbed.precision.bound_table import MAE_OF_SIGMA
from pacbed.precision.error_table import (
    Predicted,
    error_table,
    of_test_set,
    of_variant,
    read_of_one_study,
)
from pacbed.precision.metrics import errors
from pacbed.storage.tables import Study, read_table, write_table

TILT = NetworkSpec(6.35, 5, "strain-rotation-tilt", "linear")
NO_TILT = NetworkSpec(6.35, 5, "strain-rotation", "sqrt")
DOSES = (1e6, 5e7)


STUDY = Study.of({"seed": 1, "augmentation": {"pixels": 64}})


def predictions(outputs=TILT.outputs, split="test", seed=0, layers=5, semiangle_mrad=6.35):
    random = np.random.default_rng([seed, len(split)])
    draw = np.repeat(np.arange(20), 5)
    sample = {"semiangle_mrad": semiangle_mrad, "layers": layers, "split": split}
    table = pd.DataFrame({"draw": draw, "electrons": np.geomspace(*DOSES, 100)}).assign(**sample)
    for name in OUTPUTS[outputs]:
        table[f"true_{name}"] = random.normal(0, 1, 20)[draw]
        table[f"predicted_{name}"] = table[f"true_{name}"] + random.normal(0, 0.1, 100)
    return table


@pytest.fixture
def files(tmp_path):
    """Predictions of two networks for two sets."""
    made = []
    for network in (TILT, NO_TILT):
        for split in ("train", "test"):
            path = tmp_path / f"{network.outputs}_{split}.parquet"
            write_table(predictions(network.outputs, split), path, STUDY)
            made.append(Predicted(path, network, split))
    return made


@pytest.fixture
def discs(tmp_path):
    """Predictions of another method for the test set."""
    path = tmp_path / "discs.parquet"
    write_table(predictions("strain-rotation", seed=3), path, STUDY)
    return lambda method: Predicted(path, replace(NO_TILT, intensity="linear"), "test", method)


def test_every_network_set_parameter_and_dose_has_a_row(files):
    table, _ = error_table(files, "train", DOSES)
    assert len(table) == (6 + 4) * 2 * 11
    keys = ["method", "semiangle_mrad", "layers", "outputs", "intensity", "split"]
    assert list(table)[: len(keys)] == keys
    assert not table.duplicated([*keys, "parameter", "dose"]).any()
    without_bounds = ["bound_mae", "prior_bound_mae", "efficiency"]
    assert table[without_bounds].isna().all(axis=None)


def test_the_rows_are_the_errors_of_the_files(files):
    table, _ = error_table(files, "train", DOSES)
    train, test = (read_table(file.path) for file in files[2:])
    rows = table[
        (table["outputs"] == "strain-rotation")
        & (table["split"] == "test")
        & (table["dose"] == "all")
    ]
    expected = errors(test, train)
    pd.testing.assert_frame_equal(rows[list(expected)].reset_index(drop=True), expected)


def test_another_method_has_the_baseline_of_a_network_of_the_same_sample(files, discs):
    other = discs("discs")
    table, _ = error_table([*files, other], "train", DOSES)
    found = table[(table["method"] == "discs") & (table["dose"] == "all")].set_index("parameter")
    test, train = read_table(other.path), read_table(files[0].path)
    assert list(found.index) == list(PARAMETERS[:4])
    for name in PARAMETERS[:4]:
        baseline = np.abs(test[f"true_{name}"] - train[f"true_{name}"].mean()).mean()
        assert found.loc[name, "baseline_mae"] == pytest.approx(baseline)


SIGMAS = {"": 10, "_prior": 5, "_data": 4, "_known_scale": 8}


@pytest.fixture
def bounds(tmp_path):
    rows = [
        {"semiangle_mrad": 6.35, "layers": 5, "state": "undeformed", "parameter": parameter}
        | {"electrons": n, "probe_nm": 0.3, "sigma_lognormal": 1.0}
        | {f"sigma{name}": factor / np.sqrt(n) for name, factor in SIGMAS.items()}
        for parameter in PARAMETERS
        for n in np.geomspace(*DOSES, 5)
    ]
    path = tmp_path / "bounds.parquet"
    write_table(pd.DataFrame(rows), path, STUDY)
    return path


def test_the_bound_stands_beside_the_errors_at_the_doses_of_the_examples(files, bounds):
    table, _ = error_table(files, "train", DOSES, bounds)
    row = table[(table["split"] == "test") & (table["dose"] == "all")].iloc[0]
    expected = MAE_OF_SIGMA * (10 / np.sqrt(np.geomspace(*DOSES, 100))).mean()
    assert row["bound_mae"] == pytest.approx(expected, rel=1e-3)
    assert row["prior_bound_mae"] == pytest.approx(expected / 2, rel=1e-3)
    assert row["data_bound_mae"] == pytest.approx(0.4 * expected, rel=1e-3)
    assert row["efficiency"] == pytest.approx(row["prior_bound_mae"] / row["mae"])


def test_a_method_that_knows_the_scale_has_the_bound_of_a_known_scale(files, discs, bounds):
    table, _ = error_table([*files, discs("discs-calibrated")], "train", DOSES, bounds)
    all_doses = table[(table["dose"] == "all") & (table["split"] == "test")]
    known = all_doses[all_doses["method"] == "discs-calibrated"].iloc[0]
    other = all_doses[all_doses["method"] == "network"].iloc[0]
    assert known["bound_mae"] == pytest.approx(0.8 * other["bound_mae"])
    assert known[["prior_bound_mae", "efficiency"]].isna().all()


def test_a_set_without_predictions_cannot_be_the_baseline(files):
    with pytest.raises(
        PacbedError, match=r"no predictions of the validation set at 6.35 mrad and 5"
    ):
        error_table(files, "validation", DOSES)


def fixed(files, *names, value=1e-17):
    """Give parameters one true value but for rounding in all files."""
    for file in files:
        table = read_table(file.path)
        change = {f"true_{n}": value * np.arange(len(table)) for n in names if f"true_{n}" in table}
        write_table(table.assign(**change), file.path, STUDY)


def test_parameters_that_do_not_vary_are_left_out(files):
    fixed(files, "strain_xx", "strain_yy", "strain_xy")
    table, _ = error_table(files, "train", DOSES)
    assert set(table["parameter"]) == set(PARAMETERS[3:])


def test_a_parameter_that_varies_between_sets_only_is_not_left_out(files):
    """A set may have one draw."""
    for number, file in enumerate(files):
        table = read_table(file.path)
        write_table(table.assign(true_strain_xx=0.01 * number), file.path, STUDY)
    table, _ = error_table(files, "train", DOSES)
    assert "strain_xx" in set(table["parameter"])
    assert table.loc[table["parameter"] == "strain_xx", "r2"].isna().all()


def test_a_study_in_which_nothing_varies_is_refused(files):
    fixed(files, *PARAMETERS)
    with pytest.raises(PacbedError, match=r"none of the parameters .* varies: give one"):
        error_table(files, "train", DOSES)


def test_the_table_is_of_the_study_of_its_files_and_of_no_other(files, bounds, tmp_path):
    table, study = error_table(files, "train", DOSES, bounds)
    assert study == STUDY
    path = tmp_path / "errors.parquet"
    write_table(table, path, study)
    assert [len(one) for one in read_of_one_study(path, bounds)] == [len(table), 30]
    write_table(read_table(bounds), bounds, Study.of({"seed": 1, "augmentation": {"pixels": 128}}))
    for read in (
        lambda: read_of_one_study(path, bounds),
        lambda: error_table(files, "train", DOSES, bounds),
    ):
        with pytest.raises(
            PacbedError, match=r"bounds\.parquet .*augmentation\.pixels: 64 and 128"
        ):
            read()


def test_rows_of_the_test_set_and_of_a_variant_are_found(files):
    table, _ = error_table(files, "train", DOSES)
    shown = of_test_set(table)
    assert set(shown["split"]) == {"test"}
    assert set(shown["dose"]) == {"all"}
    assert len(shown) == 6 + 4
    assert len(of_variant(shown, "strain-rotation", "sqrt")) == 4
    assert of_variant(shown, "strain-rotation", "linear").empty


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"outputs": "strain-rotation"}, "'strain-rotation-tilt' .* was trained for other labels"),
        ({"layers": 3}, "layers = 3, not 5"),
        ({"semiangle_mrad": 12.65}, "semiangle_mrad = 12.65, not 6.35"),
        ({"split": "validation"}, "split = validation, not test"),
    ],
)
def test_predictions_of_other_labels_or_another_sample_or_set_are_refused(files, changed, said):
    write_table(predictions(**changed), files[1].path, STUDY)
    with pytest.raises(PacbedError, match=said) as caught:
        error_table(files, "train", DOSES)
    assert str(files[1].path) in str(caught.value)
