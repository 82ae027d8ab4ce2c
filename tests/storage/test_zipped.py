"""Zipped stores: what is damage and what is not, and that writing touches no other file."""

import errno
import io
import os
import zipfile

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore

from pacbed.exceptions import DamagedStoreError, MissingStoreError, StoreError
from pacbed.storage.zipped import open_store, reading, zip_writer

pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "store.zarr.zip"
    with zip_writer(path) as folder:
        group = zarr.create_group(LocalStore(folder))
        group.create_array("numbers", data=np.arange(1000), chunks=(500,))
        zarr.consolidate_metadata(group.store)
    return path


def read(path):
    with open_store(path) as group, reading(path):
        return np.asarray(group["numbers"])


def kind_of_failure(path):
    with pytest.raises(StoreError, match=path.name) as caught:
        read(path)
    return caught.type


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE, errno.EIO, errno.EINVAL])
@pytest.mark.parametrize("place", [(io, "open"), (zipfile.ZipExtFile, "read")])
def test_a_file_that_cannot_be_opened_or_read_is_not_damaged(store, monkeypatch, number, place):
    def fail(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(*place, fail)  # as zipfile calls it
    assert kind_of_failure(store) is StoreError


@pytest.mark.parametrize(
    ("name", "unknown"), [("zstd", "of next year"), ("int64", "int65"), ("regular", "irregular")]
)
def test_what_this_zarr_cannot_read_is_not_damaged(store, name, unknown):
    newer = store.with_name("newer.zarr.zip")
    with zipfile.ZipFile(store) as old, zipfile.ZipFile(newer, "w") as new:
        for member in old.namelist():
            contents = old.read(member)
            if member.endswith("zarr.json"):
                assert member == "zarr.json" or name.encode() in contents
                contents = contents.replace(f'"{name}"'.encode(), f'"{unknown}"'.encode())
            new.writestr(member, contents)
    assert kind_of_failure(newer) is StoreError


def test_no_file_is_not_a_damaged_one(tmp_path):
    assert kind_of_failure(tmp_path / "none.zarr.zip") is MissingStoreError


@pytest.mark.parametrize("save", [np.save, np.savetxt])
def test_what_never_was_a_store_is_not_a_damaged_one(tmp_path, save):
    path = tmp_path / "measured.npy"
    with open(path, "wb") as file:
        save(file, np.arange(1000))
    with pytest.raises(StoreError, match=r"measured\.npy is not a store, .*\.zarr\.zip") as caught:
        read(path)
    assert caught.type is StoreError


@pytest.mark.parametrize("left", [0, 2, 1000, -1])
@pytest.mark.parametrize("zeros", [False, True])
def test_a_store_that_was_cut_short_or_lost_is_damaged(store, left, zeros):
    kept = store.read_bytes()[:left]
    store.write_bytes(bytes(len(kept)) if zeros else kept)
    assert kind_of_failure(store) is DamagedStoreError


def test_every_flipped_bit_shows_as_damage_or_not_at_all(store):
    whole = store.read_bytes()
    found = set()
    with zipfile.ZipFile(store) as archive:
        directory = archive.start_dir
    places = [*range(0, directory, 31), *range(directory, len(whole))]
    for number, place in enumerate(places):
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << number % 8
        store.write_bytes(spoilt)
        try:
            assert np.array_equal(read(store), np.arange(1000))
        except StoreError as error:
            found.add(type(error))
    assert found == {DamagedStoreError}


def test_leavings_of_the_same_store_are_removed_and_no_others(tmp_path):
    left = tmp_path / ".[ab].zip.writing-killed"
    others = [tmp_path / f".{name}.writing-killed" for name in ("a.zip", "b.zip", "[ab].zip.zip")]
    for folder in (left, *others):
        folder.mkdir()
    with zip_writer(tmp_path / "[ab].zip") as folder:
        (folder / "file").write_text("new")
    assert not left.exists()
    assert all(folder.is_dir() for folder in others)
