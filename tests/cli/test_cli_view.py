"""``pacbed view`` and ``pacbed export``."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from urllib.request import urlopen

import pytest
from reading.synthetic_map import synthetic_map

from pacbed.cli import main
from pacbed.reading.maps.store import write_map


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("map") / "map.zarr.zip"
    write_map(path, synthetic_map(6, 9))
    return path


def test_a_map_is_exported_to_several_files(written, tmp_path, capsys):
    names = ["map.emd", "map.tif", "map.csv", "map.png", "map.html"]
    assert main(["export", written, *(tmp_path / name for name in names)]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in names]
    assert all((tmp_path / name).stat().st_size for name in names)


def test_all_formats_are_named_before_anything_is_written(written, tmp_path, capsys):
    assert main(["export", written, tmp_path / "map.csv", tmp_path / "map.doc"]) == 1
    said = capsys.readouterr().err
    for ending in (".hspy", ".emd", ".png", ".html"):
        assert ending in said
    assert not (tmp_path / "map.csv").exists()


def test_what_is_no_map_is_refused(tmp_path, capsys):
    (tmp_path / "other.zarr.zip").write_bytes(b"no map")
    assert main(["export", tmp_path / "other.zarr.zip", tmp_path / "map.csv"]) == 1
    assert "other.zarr.zip" in capsys.readouterr().err
    assert main(["view", tmp_path / "none.zarr.zip", "--no-browser"]) == 1
    assert "none.zarr.zip" in capsys.readouterr().err


def test_the_scan_of_a_map_is_not_overwritten(tmp_path, complaint):
    scan, path = tmp_path / "scan.hspy", tmp_path / "map.zarr.zip"
    scan.write_bytes(b"a scan")
    made = synthetic_map(4, 5)
    write_map(path, replace(made, attributes={"provenance": {"scan": str(scan)}}))
    assert "would be overwritten" in complaint("export", path, scan)
    assert scan.read_bytes() == b"a scan"


def test_nothing_that_a_map_follows_from_is_overwritten(tmp_path, complaint, monkeypatch):
    path, scan = tmp_path / "map.csv", tmp_path / "scan.hspy"
    write_map(path, replace(synthetic_map(4, 5), attributes={"provenance": {"scan": "scan.hspy"}}))
    before = path.read_bytes()
    scan.write_bytes(b"a scan")
    for name in ("link.png", "hard.png"):
        getattr(tmp_path / name, "hardlink_to" if name == "hard.png" else "symlink_to")(scan)
        assert "would be overwritten" in complaint("export", path, tmp_path / name)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "would be overwritten" in complaint("export", "../map.csv", "../scan.hspy")
    assert "would be overwritten" in complaint("export", path, "../elsewhere/../map.csv")
    assert "overwrite each other" in complaint("export", path, "a.csv", "../elsewhere/a.csv")
    assert (path.read_bytes(), scan.read_bytes()) == (before, b"a scan")


@pytest.mark.parametrize("name", ["moved.hspy", "moved.emd", "moved.tif"])
def test_what_may_be_a_measurement_is_not_replaced(written, tmp_path, complaint, name):
    (tmp_path / name).write_bytes(b"a scan")
    assert "is there already" in complaint("export", written, tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"a scan"


def test_a_scan_that_was_named_must_be_there(written, tmp_path, capsys):
    assert main(["view", written, "--scan", tmp_path / "none.hspy", "--no-browser"]) == 1
    assert "none.hspy" in capsys.readouterr().err


def test_a_map_is_served_until_it_is_interrupted(written):
    pytest.importorskip("bokeh", reason="Bokeh is not installed")
    command = [sys.executable, "-m", "pacbed", "view", written, "--no-browser"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    try:
        line = process.stdout.readline()
        assert "map.zarr.zip" in line
        with urlopen(line.split()[0], timeout=120) as answer:
            assert b"map.zarr.zip" in answer.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert "patterns are not shown" in process.stderr.read()
    finally:
        process.kill()
