"""``pacbed scan`` and ``pacbed inspect``."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from pacbed.cli import main
from pacbed.cli.scans import truth_path
from pacbed.reading.maps.example_scan import Ripple, small_ripple
from pacbed.reading.maps.store import read_map
from pacbed.reading.scans.scan import open_scan


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Write the scan of the command, of few points, simulated coarsely."""
    path = tmp_path_factory.mktemp("scan") / "ripple.hspy"
    with pytest.MonkeyPatch.context() as patch:
        whole, coarse = Ripple.simulate, small_ripple()
        patch.setattr(
            Ripple,
            "simulate",
            lambda asked, report: whole(
                replace(asked, motion=coarse.motion, settings=coarse.settings), report
            ),
        )
        arguments = ["--points", "6", "5", "--pixels", "64", "--electrons", "2e4", "--seed", "4"]
        assert main(["scan", "--example", "ripple", "--output", str(path), *arguments]) == 0
    return path


def test_the_example_is_written_with_what_is_true(file):
    opened = open_scan(file)
    assert (opened.shape, opened.pattern_shape) == ((6, 5), (64, 64))
    truth = read_map(truth_path(file))
    assert truth.shape == (6, 5)
    assert np.median(truth.values["electrons"]) == pytest.approx(2e4, rel=0.02)
    assert truth.attributes["provenance"]["seed"] == 4


@pytest.mark.parametrize("name", ["a.hspy", "a.emd", "a.mib", "a.zarr.zip", "a.npy"])
def test_the_truth_lies_next_to_the_scan(tmp_path, name):
    assert truth_path(tmp_path / name) == tmp_path / "a.truth.zarr.zip"


def test_what_is_in_a_file_and_what_is_missing_is_printed(file, tmp_path, capsys):
    picture = tmp_path / "a.png"
    assert main(["inspect", str(file), "--figure", str(picture)]) == 0
    said = capsys.readouterr().out
    for part in ("6 × 5", "64 × 64", "1.3 mrad", "80 keV", "6.35 mrad", "uint16", "--mirrored"):
        assert part in said
    for part in ("--energy", "--pixel-mrad", "--step "):
        assert part not in said
    assert picture.stat().st_size > 10_000


def test_options_are_applied(file, tmp_path, capsys):
    values = open_scan(file).patterns(slice(None))
    np.save(tmp_path / "a.npy", values.reshape(30, 64, 64))
    options = ["--scan-shape", "6", "5", "--bins", "2", "--turn", "90", "--flip-x", "--pixel-mrad"]
    more = ["1.3", "--not-mirrored", "--area", "1", "0", "5", "6", "--energy", "80"]
    picture = tmp_path / "a.pdf"
    arguments = [str(tmp_path / "a.npy"), *options, *more, "--figure", str(picture)]
    assert main(["inspect", *arguments]) == 0
    said = capsys.readouterr().out
    assert "used 6 × 4" in said
    assert "used 32 × 32" in said
    assert "2.6 mrad" in said
    assert "not mirrored" in said
    assert "--semiangle" in said


def test_a_file_of_unknown_format_is_refused_before_anything_is_simulated(complaint, tmp_path):
    assert "scans are written as .hspy" in complaint("scan", "--output", str(tmp_path / "a.dm4"))


def test_a_scan_that_cannot_be_written_is_refused_before_anything_is_simulated(
    complaint, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "rsciio.hspy", None)
    assert "RosettaSciIO is needed" in complaint("scan", "--output", str(tmp_path / "a.hspy"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["a.mib", "a.hdr", "a.truth.zarr.zip"])
def test_a_scan_that_is_there_is_not_replaced(complaint, tmp_path, there):
    (tmp_path / there).write_bytes(b"measured")
    assert f"{there} is there already" in complaint("scan", "--output", tmp_path / "a.mib")
    assert (tmp_path / there).read_bytes() == b"measured"


def test_a_row_of_patterns_is_refused_with_the_option_that_helps(complaint, tmp_path):
    np.save(tmp_path / "a.npy", np.ones((30, 64, 64)))
    assert "--scan-shape" in complaint("inspect", str(tmp_path / "a.npy"))


def test_a_scan_that_memory_does_not_hold_is_refused(complaint, tmp_path):
    size = ["--points", "4", "100000000"]
    said = complaint("scan", "--output", str(tmp_path / "a.npy"), *size)
    assert "more than half of the memory" in said


def test_a_figure_is_no_scan_and_no_other_format(complaint, file, tmp_path):
    assert "name a figure .png" in complaint("inspect", file, "--figure", tmp_path / "a.doc")
    picture = tmp_path / "scan.tif"
    picture.write_bytes(file.read_bytes())
    assert "would be overwritten" in complaint("inspect", picture, "--figure", picture)
    assert picture.read_bytes() == file.read_bytes()


def test_a_calibration_is_read_before_a_series_is_made(complaint, file, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    wrong = tmp_path / "wrong.json"
    wrong.write_text("{", encoding="utf-8")
    given = ["--layers", "1-3", "--material", "MoS2", "--calibration", wrong]
    assert "wrong.json" in complaint("map", file, "--output", tmp_path / "m.zarr.zip", *given)
    assert not (tmp_path / "cache").exists()


def test_a_report_does_not_overwrite_the_scan(complaint, file, tmp_path):
    given = ["--layers", "1-3", "--material", "MoS2", "--report", file]
    line = complaint("map", file, "--output", tmp_path / "m.zarr.zip", *given)
    assert "would be overwritten" in line
