"""Arrays in a file: read as they were written, or refused."""

import errno
import os
import zipfile

import numpy as np
import pytest

from pacbed.exceptions import DamagedStoreError, MissingStoreError, PacbedError, StoreError
from pacbed.storage.arrays import read_arrays, write_arrays


@pytest.fixture
def kept(tmp_path):
    path = tmp_path / "kept"
    write_arrays(path, sums=np.arange(6.0).reshape(2, 3), count=2, name="of this")
    return path


def test_what_was_written_is_read(kept):
    read = read_arrays(kept)
    np.testing.assert_array_equal(read["sums"], [[0, 1, 2], [3, 4, 5]])
    assert (int(read["count"]), str(read["name"])) == (2, "of this")
    assert [path.name for path in kept.parent.iterdir()] == ["kept"]


def test_no_file_is_not_a_damaged_one(tmp_path):
    with pytest.raises(MissingStoreError):
        read_arrays(tmp_path / "none")


def test_a_file_that_cannot_be_read_now_is_not_a_damaged_one(kept, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(zipfile.ZipExtFile, "read", fail)
    with pytest.raises(StoreError, match="kept") as caught:
        read_arrays(kept)
    assert caught.type is StoreError


def test_numpy_never_sees_a_damaged_file(kept, monkeypatch):
    whole = kept.read_bytes()
    place = whole.index(b"(2, 3)")  # the size of an array
    kept.write_bytes(whole[:place] + b"(9, 9)" + whole[place + 6 :])
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("NumPy believed it"))
    with pytest.raises(DamagedStoreError, match="wrong checksum"):
        read_arrays(kept)


def test_what_cannot_be_written_is_named_and_leaves_the_old(kept):
    (kept.parent / ".kept.tmp").mkdir()
    with pytest.raises(PacbedError, match=r"cannot write .*kept"):
        write_arrays(kept, sums=np.zeros(3))
    assert read_arrays(kept)["count"] == 2
