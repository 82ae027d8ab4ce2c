"""`pacbed map` refuses what cannot become a map before anything is computed."""

import numpy as np
import pytest

from pacbed.cli import main
from pacbed.runs.locks import lock


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "scan.npy"
    np.save(path, np.ones((2, 3, 64, 64), np.uint16))
    return path


def run(capsys, *words):
    status = main(["map", *map(str, words)])
    return status, " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--layers", "0-3"), "--layers 0-3"),
        (("--layers", "1-3"), "give it with --semiangle"),
        (("--layers", "1-3", "--semiangle", "6.35"), "--material"),
        (("--layers", "1-3", "--semiangle", "6.35", "--material", "MoS2"), "--energy"),
    ],
)
def test_what_is_not_known_is_asked_for(scan, tmp_path, capsys, given, said):
    status, error = run(capsys, scan, "--output", tmp_path / "map.zarr.zip", *given)
    assert status == 1
    assert said in error


def test_a_map_is_not_replaced(scan, tmp_path, capsys):
    output = tmp_path / "map.zarr.zip"
    output.touch()
    status, error = run(capsys, scan, "--output", output, "--layers", "1")
    assert status == 1
    assert "is there already" in error


def test_a_folder_that_cannot_be_written_is_said_at_once(scan, tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.touch()
    status, error = run(capsys, scan, "--output", blocked / "map.zarr.zip", "--layers", "1")
    assert status == 1
    assert "cannot write" in error


def test_two_maps_into_one_file_are_refused(scan, tmp_path, capsys):
    output = tmp_path / "map.zarr.zip"
    held = lock(tmp_path / f".{output.name}.lock")
    status, error = run(capsys, scan, "--output", output, "--layers", "1", "--semiangle", "6.35")
    held.release()
    assert status == 1
    assert "makes a map into" in error


def test_another_file_is_no_series(scan, tmp_path, capsys):
    words = ("--layers", "1", "--semiangle", "6.35", "--series", scan)
    status, error = run(capsys, scan, "--output", tmp_path / "map.zarr.zip", *words)
    assert status == 1
    assert "scan.npy" in error
