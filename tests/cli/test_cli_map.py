"""`pacbed map` refuses what cannot become a map before anything is computed."""

import numpy as np
import pytest
from reading.small_scan import true_calibration

from pacbed.cli import main
from pacbed.cli.common import spent
from pacbed.cli.map import calibration_file
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
        (("--layers", "1", "--window", "3"), "--window 3 is larger than a scan of 2 × 3"),
        (("--layers", "1", "--reference", "0", "0", "4", "2"), "is no part of a scan of 2 × 3"),
        (("--layers", "1", "--series", "s", "--states", "6"), "leave out --states, or --series"),
        (("--layers", "1", "--calibration", "c", "--zigzag-near", "9"), "leave out --zigzag-near"),
        (("--layers", "1", "--model-error", "-1"), "--model-error must be a positive number"),
    ],
)
def test_what_is_unknown_or_impossible_is_said_at_once(scan, tmp_path, capsys, given, said):
    status, error = run(capsys, scan, "--output", tmp_path / "map.zarr.zip", *given)
    assert status == 1
    assert said in error


def test_a_map_is_not_replaced(scan, tmp_path, capsys):
    output = tmp_path / "map.zarr.zip"
    output.touch()
    status, error = run(capsys, scan, "--output", output, "--layers", "1")
    assert status == 1
    assert "is there already" in error


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--output", "scan.npy"), "scan.npy is read, and would be overwritten"),
        (("--output", "m", "--report", "./m"), "m and m would overwrite each other"),
        (("--output", "m", "--figure", "a.png", "--report", "a.png"), "overwrite each other"),
        (("--output", "m", "--report", "m.calibration.json"), "overwrite each other"),
        (("--output", "m", "--report", "m.parts/a.html"), "overwrite each other"),
        (("--output", "m", "--figure", "s.png", "--series", "s.png"), "would be overwritten"),
        (("--output", "m", "--report", "a.cif", "--material", "a.cif"), "would be overwritten"),
        (("--output", "m", "--figure", "scan.raw"), "name a figure .png or .pdf"),
        (("--output", "m", "--report", "scan.hdr"), "name it .html"),
    ],
)
def test_no_file_is_written_over_another_one(scan, capsys, monkeypatch, given, said):
    monkeypatch.chdir(scan.parent)
    before = scan.read_bytes()
    status, error = run(capsys, "scan.npy", "--layers", "1", *given)
    assert status == 1
    assert said in error
    assert scan.read_bytes() == before
    assert [path.name for path in scan.parent.iterdir()] == ["scan.npy"]


def test_calibrations_of_maps_of_other_names_do_not_meet(tmp_path):
    names = ("a.zarr.zip", "a.zip", "a.zarr", "b")
    assert len({calibration_file(tmp_path / name) for name in names}) == len(names)
    assert calibration_file(tmp_path / "a.zarr.zip") == tmp_path / "a.calibration.json"


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


def test_what_a_map_takes_is_said_before_anything_is_made(scan, tmp_path, capsys):
    words = ("--layers", "1", "--semiangle", "6.35", "--threads", "1")
    assert "6 points take about 2 min" in run(capsys, scan, "--output", tmp_path / "a", *words)[1]
    assert spent(40) == "about 1 min"
    assert spent(9000) == "about 2.5 hours"


def test_another_file_is_no_series(scan, tmp_path, capsys):
    words = ("--layers", "1", "--semiangle", "6.35", "--series", scan)
    status, error = run(capsys, scan, "--output", tmp_path / "map.zarr.zip", *words)
    assert status == 1
    assert "scan.npy" in error


def test_the_calibration_of_a_map_may_be_edited_and_used_for_it_again(scan, tmp_path, capsys):
    edited = tmp_path / "map.calibration.json"
    true_calibration(mirrored=None).write(edited)
    words = ("--layers", "1", "--calibration", edited, "--pixel-mrad", "0.9")
    status, error = run(capsys, scan, "--output", tmp_path / "map.zarr.zip", *words)
    assert status == 1
    assert "--material" in error  # as what is missing next; the semi-angle is known
    _, error = run(capsys, scan, "--output", tmp_path / "map.zarr.zip", *words, "--report", edited)
    assert "would overwrite each other" in error
