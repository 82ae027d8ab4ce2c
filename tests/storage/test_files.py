"""Files that appear whole or not at all, and whether they can."""

import errno
import os
import tempfile

import pytest

from pacbed.exceptions import PacbedError
from pacbed.storage.files import appearing_whole, check_space, check_writable, write_text


def test_what_can_be_written_leaves_nothing_behind(tmp_path):
    check_writable(tmp_path / "new" / "folder" / "file", None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "why"), [("file/new", "Not a directory"), ("folder", "Is a directory")]
)
def test_a_name_that_cannot_be_that_of_a_file_is_refused(tmp_path, name, why):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(PacbedError, match=rf"cannot write {tmp_path / name}: {why}; give another"):
        check_writable(tmp_path / name)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_where_no_file_can_be_made_is_refused(tmp_path, monkeypatch, number):
    def refuse(**options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(PacbedError, match=os.strerror(number)):
        check_writable(tmp_path / "file")


def test_the_folder_of_a_file_is_made(tmp_path):
    write_text(tmp_path / "new" / "file", "text")
    assert (tmp_path / "new" / "file").read_text() == "text"


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "folder"

    def fill(names):
        with appearing_whole(path, folder=True) as temporary:
            # What a job that was killed has left is not in it.
            assert list(temporary.iterdir()) == []
            for name in names:
                (temporary / name).touch()
                assert not path.exists()

    (path.parent / ".folder.tmp").mkdir(parents=True)
    (path.parent / ".folder.tmp" / "left").touch()
    with pytest.raises(PacbedError, match=f"cannot write {path}: "):
        fill(["a", "not/there"])
    assert list(path.parent.iterdir()) == []
    fill(["a", "b"])
    assert sorted(p.name for p in path.iterdir()) == ["a", "b"]
    assert list(path.parent.iterdir()) == [path]


def test_a_disk_without_room_is_named_before_anything_is_written(tmp_path):
    check_space(tmp_path / "new" / "a.h5", 1)
    with pytest.raises(PacbedError, match="free some space or choose"):
        check_space(tmp_path / "new" / "a.h5", 2**62)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="only the free space is known here")
def test_a_limit_of_the_user_counts_as_a_full_disk(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(PacbedError, match=r"cannot write .*a\.h5: File too large"):
            check_space(tmp_path / "a.h5", 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
