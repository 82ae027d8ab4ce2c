"""The table of errors: whole, traceable, and of one study only."""

from pathlib import Path

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
    refuse_mixture,
)
from pacbed.precision.metrics import errors
from pacbed.storage.tables import read_table, write_table

TILT = NetworkSpec(6.35, 5, "strain-rotation-tilt", "linear")
NO_TILT = NetworkSpec(6.35, 5, "strain-rotation", "sqrt")
DOSES = (1e6, 5e7)


def predictions(outputs=TILT.outputs, split="test", seed=0, **data):
    random = np.random.default_rng([seed, len(split)])
    draw = np.repeat(np.arange(20), 5)
    table = pd.DataFrame({"draw": draw, "electrons": np.geomspace(*DOSES, 100)})
    for name in OUTPUTS[outputs]:
        table[f"true_{name}"] = random.normal(0, 1, 20)[draw]
        table[f"predicted_{name}"] = table[f"true_{name}"] + random.normal(0, 0.1, 100)
    augmentation = {"pixels": 64, "field_of_view_mrad": 100.0}
    study = {"seed": 1, "augmentation": augmentation, "semiangle_mrad": 6.35, "layers": 5}
    table.attrs["data"] = study | {"split": split} | data
    return table


@pytest.fixture
def files(tmp_path):
    """Predictions of two networks for two sets."""
    made = []
    for network in (TILT, NO_TILT):
        for split in ("train", "test"):
            path = tmp_path / f"{network.outputs}_{split}.parquet"
            write_table(predictions(network.outputs, split), path)
            made.append(Predicted(path, network, split))
    return made


def rewrite(file, **changes):
    write_table(predictions(file.network.outputs, file.split, **changes), file.path)


def test_every_network_set_parameter_and_dose_has_a_row(files):
    table = error_table(files, "train", DOSES)
    assert len(table) == (6 + 4) * 2 * 11
    keys = ["method", "semiangle_mrad", "layers", "outputs", "intensity", "split"]
    assert list(table)[: len(keys)] == keys
    assert not table.duplicated([*keys, "parameter", "dose"]).any()


def test_the_rows_are_the_errors_of_the_files(files):
    table = error_table(files, "train", DOSES)
    train, test = (read_table(file.path) for file in files[2:])
    rows = table[
        (table["outputs"] == "strain-rotation")
        & (table["split"] == "test")
        & (table["dose"] == "all")
    ]
    expected = errors(test, train)
    pd.testing.assert_frame_equal(rows[list(expected)].reset_index(drop=True), expected)


def test_another_method_has_the_baseline_of_a_network_of_the_same_sample(files, tmp_path):
    path = tmp_path / "discs.parquet"
    write_table(predictions("strain-rotation", seed=3), path)
    network = NetworkSpec(6.35, 5, "strain-rotation", "linear")
    table = error_table([*files, Predicted(path, network, "test", "discs")], "train", DOSES)
    discs = table[(table["method"] == "discs") & (table["dose"] == "all")].set_index("parameter")
    test, train = read_table(path), read_table(files[0].path)
    assert list(discs.index) == list(PARAMETERS[:4])
    for name in PARAMETERS[:4]:
        baseline = np.abs(test[f"true_{name}"] - train[f"true_{name}"].mean()).mean()
        assert discs.loc[name, "baseline_mae"] == pytest.approx(baseline)


SIGMAS = {"": 10, "_prior": 5, "_data": 4, "_known_scale": 8}


def bounds(**changes):
    rows = [
        {"semiangle_mrad": 6.35, "layers": 5, "state": "undeformed", "parameter": parameter}
        | {"electrons": n}
        | {f"sigma{name}": factor / np.sqrt(n) for name, factor in SIGMAS.items()}
        for parameter in PARAMETERS
        for n in np.geomspace(*DOSES, 5)
    ]
    table = pd.DataFrame(rows)
    table.attrs["study"] = {"pixels": 64, "field_of_view_mrad": 100} | changes
    return Path("tables/bounds.parquet"), table


def test_the_bound_stands_beside_the_errors_at_the_doses_of_the_examples(files):
    table = error_table(files, "train", DOSES, bounds())
    row = table[(table["split"] == "test") & (table["dose"] == "all")].iloc[0]
    expected = MAE_OF_SIGMA * (10 / np.sqrt(np.geomspace(*DOSES, 100))).mean()
    assert row["bound_mae"] == pytest.approx(expected, rel=1e-3)
    assert row["prior_bound_mae"] == pytest.approx(expected / 2, rel=1e-3)
    assert row["data_bound_mae"] == pytest.approx(0.4 * expected, rel=1e-3)
    assert row["efficiency"] == pytest.approx(row["prior_bound_mae"] / row["mae"])


def test_a_method_that_knows_the_scale_has_the_bound_of_a_known_scale(files, tmp_path):
    path = tmp_path / "discs.parquet"
    write_table(predictions("strain-rotation", seed=3), path)
    network = NetworkSpec(6.35, 5, "strain-rotation", "linear")
    made = [*files, Predicted(path, network, "test", "discs-calibrated")]
    table = error_table(made, "train", DOSES, bounds())
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


def test_tables_that_are_shown_together_are_of_one_study(files, tmp_path):
    table = error_table(files, "train", DOSES)
    path, of_bounds = bounds()
    refuse_mixture((Path("errors.parquet"), table), (path, of_bounds))
    _, others = bounds(pixels=128)
    with pytest.raises(PacbedError, match="are of different configurations") as caught:
        refuse_mixture((Path("errors.parquet"), table), (path, others))
    assert "errors.parquet" in str(caught.value)
    assert str(path) in str(caught.value)
    write_table(table, tmp_path / "errors.parquet")
    write_table(others, tmp_path / "bounds.parquet")
    with pytest.raises(PacbedError, match="pixels: 64 and 128"):
        read_of_one_study(tmp_path / "errors.parquet", tmp_path / "bounds.parquet")


def test_rows_of_the_test_set_and_of_a_variant_are_found(files):
    table = error_table(files, "train", DOSES)
    shown = of_test_set(table)
    assert set(shown["split"]) == {"test"}
    assert set(shown["dose"]) == {"all"}
    assert len(shown) == 6 + 4
    assert len(of_variant(shown, "strain-rotation", "sqrt")) == 4
    assert of_variant(shown, "strain-rotation", "linear").empty


def test_without_bounds_there_is_no_number(files):
    table = error_table(files, "train", DOSES)
    assert table[["bound_mae", "prior_bound_mae", "efficiency"]].isna().all(axis=None)


def test_a_missing_file_is_named(files):
    files[3].path.unlink()
    with pytest.raises(PacbedError, match=rf"{files[3].path} does not exist: run the workflow"):
        error_table(files, "train", DOSES)


def test_a_damaged_file_is_named(files):
    files[3].path.write_bytes(b"PAR1 no")
    with pytest.raises(PacbedError, match=rf"{files[3].path} is damaged"):
        error_table(files, "train", DOSES)


def test_a_model_trained_for_other_labels_is_refused(files):
    write_table(predictions("strain-rotation"), files[1].path)
    with pytest.raises(PacbedError, match="was trained for other labels") as caught:
        error_table(files, "train", DOSES)
    assert str(files[1].path) in str(caught.value)
    assert "strain-rotation-tilt" in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"layers": 3}, "layers = 3, not 5"), ({"semiangle_mrad": 12.65}, "= 12.65, not 6.35")],
)
def test_predictions_of_another_sample_are_refused(files, changed, said):
    rewrite(files[1], **changed)
    with pytest.raises(PacbedError, match=said) as caught:
        error_table(files, "train", DOSES)
    assert str(files[1].path) in str(caught.value)


def test_predictions_of_another_set_are_refused(files):
    write_table(predictions(split="validation"), files[1].path)
    with pytest.raises(PacbedError, match="split = validation, not test"):
        error_table(files, "train", DOSES)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": 2}, "seed: 1 and 2"),
        ({"augmentation": {"pixels": 128, "field_of_view_mrad": 100.0}}, "pixels: 64 and 128"),
    ],
)
def test_predictions_of_mixed_configurations_are_refused_naming_both(files, changed, said):
    path, network = files[3].path, files[3].network
    table = predictions(network.outputs, "test")
    table.attrs["data"] |= changed
    write_table(table, path)
    with pytest.raises(PacbedError, match="of different configurations") as caught:
        error_table(files, "train", DOSES)
    for part in (files[0].path, path, said):
        assert str(part) in str(caught.value)


def test_bounds_of_another_camera_are_refused(files):
    with pytest.raises(PacbedError, match=r"bounds\.parquet are of different .*128"):
        error_table(files, "train", DOSES, bounds(pixels=128))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_is_read_as_it_was_written(tmp_path, kind):
    table = pd.DataFrame({"parameter": ["strain_xx"], "mae": [1 / 3], "dose": ["1"], "unit": "1"})
    write_table(table, tmp_path / f"errors.{kind}")
    pd.testing.assert_frame_equal(read_table(tmp_path / f"errors.{kind}"), table)
    assert [p.name for p in tmp_path.iterdir()] == [f"errors.{kind}"]


def test_a_table_that_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "errors.parquet"
    write_table(pd.DataFrame({"a": [1]}), path)

    def full(table, file, **options):
        Path(file).write_bytes(b"PAR1")
        raise OSError(28, "no space left")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    with pytest.raises(PacbedError, match=r"cannot write .*errors\.parquet: no space left"):
        write_table(pd.DataFrame({"a": [2]}), path)
    assert read_table(path)["a"].item() == 1
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
