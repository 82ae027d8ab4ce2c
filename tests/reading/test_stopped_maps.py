"""What is done of a map that was stopped stays, is used again, and is never mixed with another."""

import numpy as np
import pytest
import zarr
from small_scan import GAIN, true_calibration

from pacbed.cli import main
from pacbed.cli.map_jobs import call
from pacbed.exceptions import PacbedError
from pacbed.reading.maps.calibration import Calibration
from pacbed.reading.maps.found import Found
from pacbed.reading.maps.maker import MapMaker
from pacbed.reading.maps.making import check_parts, forget_parts, scan_state
from pacbed.reading.maps.points import open_point_patterns
from pacbed.reading.maps.store import read_map
from pacbed.reading.scans.scan import open_scan

ROWS = 4


@pytest.fixture
def work(tmp_path, small_series, monkeypatch, capsys):
    """A command that maps a scan; what would be computed is made up, and counted."""
    return Work(tmp_path, small_series.path, monkeypatch, capsys)


class Work:
    def __init__(self, folder, series, monkeypatch, capsys):
        self.scan, self.map = folder / "scan.npy", folder / "map.zarr.zip"
        self.parts, self.saved = folder / "map.zarr.zip.parts", folder / "map.calibration.json"
        self.series, self.capsys = series, capsys
        self.rows, self.calibrated, self.stop_at = [], 0, None
        np.save(self.scan, np.random.default_rng(0).poisson(9, (ROWS, 3, 64, 64)).astype("u2"))
        monkeypatch.setattr("pacbed.reading.maps.maker._PART_BYTES", 1)
        monkeypatch.setattr("pacbed.reading.maps.calibrate.calibrate", self._calibrate)
        monkeypatch.setattr("pacbed.learning.training.configure", lambda *given, **more: None)
        monkeypatch.setattr(MapMaker, "crystal", lambda maker, images: None)
        monkeypatch.setattr(MapMaker, "seeds", lambda maker: (np.zeros((2, 2), int), fitted(2)))
        monkeypatch.setattr(MapMaker, "rows", lambda maker, rows, *others: self._rows(rows))

    def _calibrate(self, *given):
        self.calibrated += 1  # never the same
        return true_calibration(blur_px=0.1 * self.calibrated, mirrored=None)

    def _rows(self, rows):
        if self.stop_at is not None and rows[0] >= self.stop_at:
            raise KeyboardInterrupt
        self.rows.append(int(rows[0]))
        return fitted(3 * len(rows))

    def words(self, *more):
        known = ("--energy=80", "--semiangle=6.35", "--pixel-mrad=0.9375", "--threads=1")
        given = ("--layers=3", f"--series={self.series}", f"--output={self.map}", *known)
        return [str(word) for word in (self.scan, *given, *more)]

    def run(self, *more, stop_at=None):
        self.stop_at, self.rows = stop_at, []
        status = main(["map", *self.words(*more)])
        return status, " ".join(self.capsys.readouterr().err.split())

    def stopped(self):
        assert self.run(stop_at=2)[0] == 130
        assert self.rows == [0, 1]

    def goes_on(self):
        assert self.run()[0] == 0
        assert self.rows == [2, 3]
        assert self.calibrated == 1
        assert read_map(self.map).shape == (ROWS, 3)


def fitted(count):
    found = Found.none(count)
    found.layers[:], found.probability[:] = 3, 1
    found.result.converged[:] = True
    found.result.chi2_per_pixel[:] = found.result.deviance[:] = 1
    found.result.pixels[:] = 64**2
    return found


@pytest.mark.parametrize(
    "wrong",
    [["--window=2"], ["--zigzag-near=9"], ["--area", "0", "0", "3", "3"], ["--energy=300"]],
)
def test_a_refused_call_leaves_the_parts_of_a_stopped_map(work, wrong):
    work.stopped()
    before = {path.name: path.read_bytes() for path in work.parts.iterdir()}
    status, error = work.run(*wrong)
    assert status == 1
    assert "error:" in error
    assert {path.name: path.read_bytes() for path in work.parts.iterdir()} == before
    work.goes_on()


def test_a_scan_that_was_changed_is_not_continued(work):
    work.stopped()
    np.save(work.scan, np.ones((ROWS, 3, 64, 64), "u2"))
    status, error = work.run()
    assert status == 1
    assert "another scan_file, values: delete the folder to begin anew" in error
    assert work.rows == []


def test_a_change_is_seen_in_a_folder_and_in_the_values(tmp_path):
    values = np.random.default_rng(0).random((2, 2, 24, 24), np.float32)
    array = zarr.create_array(tmp_path / "a.zarr", data=values, chunks=(1, 1, 24, 24))
    before = scan_state(open_scan(tmp_path / "a.zarr"))
    assert before == scan_state(open_scan(tmp_path / "a.zarr"))
    array[1, 1] = 0
    after = scan_state(open_scan(tmp_path / "a.zarr"))
    assert [name for name in before if before[name] != after[name]] == ["scan_file", "values"]


@pytest.mark.parametrize("content", [b"", b"PK\3\4 broken", None])
@pytest.mark.parametrize(("name", "again"), [("rows-00001.npz", [1, 2, 3]), ("seeds.npz", [2, 3])])
def test_a_part_that_is_damaged_is_made_again(work, name, again, content):
    work.stopped()
    path = work.parts / name
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2 :: 97] = b"\0" * len(changed[len(whole) // 2 :: 97])
    path.write_bytes(bytes(changed) if content is None else content)
    status, said = work.run()
    assert status == 0
    assert f"{name} is damaged, and made again" in said
    assert work.rows == again


def test_a_part_of_an_earlier_version_is_made_again(work):
    work.stopped()
    path = work.parts / "rows-00001.npz"
    with np.load(path) as arrays:
        found = dict(arrays)
    np.savez(path, **found | {"at_edge": found["at_edge"].any(axis=1)})
    status, said = work.run()
    assert status == 0
    assert "is damaged, and made again (it is of an earlier version)" in said
    assert work.rows == [1, 2, 3]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
@pytest.mark.parametrize(
    ("name", "said"),
    [("calibration.json", "is damaged: the scan"), ("map.json", "does not say of which")],
)
def test_a_map_of_which_nothing_is_known_begins_anew(work, name, said, content):
    work.stopped()
    (work.parts / name).write_bytes(content)
    status, error = work.run()
    assert status == 0
    assert said in error
    assert work.rows == [0, 1, 2, 3]
    assert read_map(work.map).attributes["calibration"] == {
        **read_map(work.map).attributes["calibration"],
        "blur_px": 0.2,
    }


def test_an_edited_calibration_is_kept(work):
    work.stopped()
    edited = true_calibration(blur_px=2.0, mirrored=None)
    edited.write(work.saved)
    status, said = work.run()
    assert status == 0
    assert "map.calibration.1.json: to use it, give it with --calibration" in said
    assert Calibration.read(work.saved.with_name("map.calibration.1.json")) == edited
    assert Calibration.read(work.saved).blur_px == 0.1


def test_a_calibration_that_is_used_stays_as_it_was_written(work):
    text = work.saved
    true_calibration(mirrored=None).write(text)
    text.write_text(text.read_text().replace("\n", "") + " ")
    before = text.read_text()
    assert work.run(f"--calibration={text}")[0] == 0
    assert text.read_text() == before
    assert not text.with_name("map.calibration.1.json").exists()


def test_a_job_of_the_workflow_continues_or_begins_anew(work):
    work.stopped()
    with pytest.raises(PacbedError, match="300 keV"):  # no option of another map, but a wrong one
        call(work.words("--energy=300"), None, work.map)
    work.rows, work.stop_at = [], 3
    with pytest.raises(KeyboardInterrupt):
        call(work.words(), None, work.map)
    assert work.rows == [2]
    work.rows, work.stop_at = [], None
    call(work.words("--least-electrons=1"), None, work.map)
    assert work.rows == [0, 1, 2, 3]
    assert "begins anew" in work.capsys.readouterr().err
    assert not work.parts.exists()


@pytest.mark.parametrize(("window", "first"), [(1, 0.0), (2, 0.5), (3, 1.0)])
def test_a_point_of_the_map_lies_in_the_middle_of_its_window(work, monkeypatch, window, first):
    monkeypatch.setattr(MapMaker, "rows", lambda maker, *others: fitted(maker.shape[1]))
    assert work.run(f"--window={window}")[0] == 0
    found = read_map(work.map)
    assert found.x_nm.tolist() == [first + n for n in range(4 - window)]
    assert found.y_nm[0] == first
    measured = open_point_patterns(found).at(0, 0).measured
    seen = np.isfinite(measured)
    expected = np.load(work.scan)[:window, :window].sum(axis=(0, 1)) / GAIN
    np.testing.assert_allclose(measured[seen], expected[seen], rtol=1e-6)


def test_nothing_of_a_map_that_is_forgotten_remains(tmp_path):
    for name in ("map.json", "calibration.json", "seeds.npz", "rows-00000.npz", "again-0a.npz"):
        (tmp_path / name).touch()
    (tmp_path / "of-somebody-else.npz").touch()
    assert forget_parts(tmp_path) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["of-somebody-else.npz"]


def test_parts_that_cannot_be_read_are_not_taken_for_damaged(tmp_path):
    (tmp_path / "map.json").mkdir()  # also root cannot read it
    (tmp_path / "rows-00000.npz").touch()
    with pytest.raises(PacbedError, match="cannot read"):
        check_parts(tmp_path, {})
    assert (tmp_path / "rows-00000.npz").exists()
