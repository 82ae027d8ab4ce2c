"""Tables in files: as they were written, whole, and of one study."""

import errno

import pandas as pd
import pyarrow.parquet as pq
import pytest

from pacbed.exceptions import DamagedStoreError, PacbedError
from pacbed.storage.tables import (
    UNKNOWN,
    Study,
    one_study,
    read_study,
    read_table,
    write_table,
)

TABLE = pd.DataFrame({"parameter": ["strain_xx"], "mae": [1 / 3], "dose": ["1"], "state": "00012"})
MOS2 = {"seed": 1, "simulation": {"material": {"formula": "MoS2"}, "energy_keV": 80}}
WSE2 = {"seed": 1, "simulation": {"material": {"formula": "WSe2"}, "energy_keV": 80}}
KINDS = pytest.mark.parametrize("kind", ["csv", "parquet"])


@KINDS
def test_a_table_is_read_as_it_was_written(tmp_path, kind):
    path = tmp_path / f"errors.{kind}"
    write_table(TABLE, path)
    pd.testing.assert_frame_equal(read_table(path), TABLE)
    assert read_study(path) == UNKNOWN
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@KINDS
def test_every_row_says_of_which_study_it_is_whatever_is_done_to_the_table(tmp_path, kind):
    path, study = tmp_path / f"errors.{kind}", Study.of(MOS2)
    write_table(pd.concat([TABLE, TABLE]), path, study)
    kept = pd.concat([read_table(path).query("mae > 0").assign(mae=1), TABLE.assign(study="else")])
    assert list(kept["study"]) == [study.digest] * 2 + ["else"]
    assert read_study(path).digest == study.digest


@pytest.mark.parametrize("kinds", [("csv", "csv"), ("csv", "parquet"), ("parquet", "parquet")])
def test_tables_of_different_studies_are_refused_naming_both(tmp_path, kinds):
    one, same, other = (
        tmp_path / f"{n}.{k}" for n, k in zip("abc", (*kinds, kinds[1]), strict=True)
    )
    for path, facts in ((one, MOS2), (same, MOS2), (other, WSE2)):
        write_table(TABLE, path, Study.of(facts))
    assert one_study(one, same).digest == Study.of(MOS2).digest
    with pytest.raises(PacbedError, match="are of different studies") as caught:
        one_study(one, same, other)
    assert str(one) in str(caught.value)
    assert str(other) in str(caught.value)
    if "csv" not in kinds:
        assert "simulation.material.formula: MoS2 and WSe2" in str(caught.value)
        assert "energy" not in str(caught.value)


def test_a_table_that_does_not_say_of_which_study_it_is_is_refused(tmp_path):
    write_table(TABLE, tmp_path / "errors.parquet", Study.of(MOS2))
    write_table(TABLE, tmp_path / "bounds.parquet")
    for names in (("errors", "bounds"), ("bounds", "bounds")):
        with pytest.raises(PacbedError, match=r"bounds\.parquet does not say of which study it is"):
            one_study(*(tmp_path / f"{name}.parquet" for name in names))


def test_rows_of_several_studies_in_one_file_are_refused(tmp_path):
    both = pd.concat([TABLE.assign(study=digest) for digest in ("00000001", "00000002")])
    write_table(both, tmp_path / "errors.csv")
    with pytest.raises(PacbedError, match="several studies: 00000001, 00000002"):
        read_study(tmp_path / "errors.csv")


def test_what_only_some_tables_say_must_agree_where_two_say_it(tmp_path):
    files = [tmp_path / f"{n}.parquet" for n in range(4)]
    for path, others in zip(files, ({}, {"engine": "a"}, {}, {"engine": "b"}), strict=True):
        write_table(TABLE, path, Study.of(MOS2, others))
    assert one_study(*files[:3]).facts["engine"] == "a"
    with pytest.raises(
        PacbedError, match=r"3\.parquet are of different studies \(engine: a and b\)"
    ):
        one_study(*files)


def test_the_digest_depends_on_facts_not_on_their_order_or_kind_of_sequence():
    one = Study.of({"seed": 1, "ranges": {"tilt_mrad": (-5, 5)}})
    assert one == Study.of({"ranges": {"tilt_mrad": [-5, 5]}, "seed": 1})
    assert one.digest != Study.of({"seed": 1, "ranges": {"tilt_mrad": [-5, 6]}}).digest


@KINDS
def test_a_table_that_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch, kind):
    path = tmp_path / f"errors.{kind}"
    write_table(TABLE, path)

    def full(*_, **__):
        (tmp_path / f".{path.name}.tmp").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(PacbedError, match=rf"cannot write .*errors\.{kind}: No space left"):
        write_table(TABLE.assign(mae=2), path)
    pd.testing.assert_frame_equal(read_table(path), TABLE)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@KINDS
def test_a_missing_and_a_damaged_table_are_named(tmp_path, kind):
    path = tmp_path / f"errors.{kind}"
    for read in (read_table, read_study):
        path.unlink(missing_ok=True)
        with pytest.raises(PacbedError, match=rf"errors\.{kind} does not exist: run the workflow"):
            read(path)
        path.write_bytes(b"PAR1 \xff no")
        with pytest.raises(DamagedStoreError, match=rf"errors\.{kind} is damaged"):
            read(path)


@KINDS
@pytest.mark.parametrize(
    "error",
    [OSError(errno.ESTALE, "Stale file handle"), ValueError("an option that is not known")],
)
def test_an_error_that_is_not_one_of_the_contents_is_no_damage(tmp_path, monkeypatch, kind, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(pd, "read_csv", fails)
    monkeypatch.setattr(pd, "read_parquet", fails)
    said = error.args[-1]
    with pytest.raises(PacbedError, match=rf"cannot read .*errors\.{kind}: {said}") as caught:
        read_table(tmp_path / f"errors.{kind}")
    assert not isinstance(caught.value, DamagedStoreError)


def test_a_table_that_is_not_there_is_missing_without_pyarrow_too(tmp_path, monkeypatch):
    monkeypatch.setattr("pacbed.storage.tables.pq", None)
    monkeypatch.setattr(pd, "read_parquet", None)
    with pytest.raises(PacbedError, match=r"errors\.parquet does not exist"):
        read_table(tmp_path / "errors.parquet")
