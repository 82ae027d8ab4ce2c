"""The scans of a configuration as calls of ``pacbed map``."""

import numpy as np
import pytest

from pacbed.cli.app import parsed
from pacbed.cli.map_jobs import call, check_files, map_jobs
from pacbed.exceptions import ConfigError
from pacbed.reading.maps.settings import MapSettings
from pacbed.specimen.crystal import MATERIALS
from pacbed.study.model import Configuration

GOOD = {"file": "a.mib", "layers": "1-10"}


def jobs(**changes):
    return map_jobs(Configuration().changed(changes))


def one(**options):
    return jobs(scans={"a": {**GOOD, **options}})["a"]


def test_options_are_those_of_the_command():
    found = one(
        window=3, every=2, reference=[0, 0, 20, 20], mirrored=False, flip_x=True, energy=80.0
    ).bound.arguments
    assert found["mapping"] == MapSettings(window=3, every=2, reference=(0, 0, 20, 20))
    scan = found["options"]
    assert (scan.mirrored, scan.flip_x, scan.flip_y, scan.energy_keV) == (False, True, False, 80)


def test_names_may_be_written_with_either_line():
    assert one(pixel_mrad=0.5).words == one(**{"pixel-mrad": 0.5}).words


def test_null_is_no_option():
    assert one(energy=None).words == one().words


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"windw": 3}, "Unknown option: --windw. Did you mean --window?"),
        ({"window": 0}, "--window 0 --every 1: these are points"),
        ({"counts_per_electron": 0}, "--counts-per-electron must be a positive number"),
        ({"window": 1.5}, 'unable to convert "1.5" into int'),
        ({"window": [1, 2]}, "an option has more values than it takes: 2"),
        ({"stretch": [4, 5]}, "principal stretches must lie within 0.5 and 2"),
        ({"energy": 80000}, "--energy must lie within 30 and 300 keV"),
        ({"turn": 45}, 'Invalid value "45" for --turn'),
        ({"reference": [0, 1]}, "--reference requires 4"),
        ({"layers": None}, "--layers requires an argument"),
        ({"layers": "five"}, "--layers five: write a number"),
        ({"pixel_mrad": -1}, "--pixel-mrad must lie within"),
        ({"material": "MoO3"}, "unknown material 'MoO3'"),
        ({"output": "b.zarr.zip"}, "output is given by the workflow"),
        ({"help": True}, "help is no option"),
        ({"pixel_mrad": 1, "pixel-mrad": 2}, "an option is there twice"),
    ],
)
def test_what_the_command_does_not_take_is_named_with_the_scan(options, said):
    with pytest.raises(ConfigError) as caught:
        one(**options)
    assert "  - scans.a: " in str(caught.value)
    assert said in str(caught.value)


def test_all_mistakes_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        jobs(scans={"a": {"file": "a.mib"}, "b": {**GOOD, "windw": 1}, "c": GOOD})
    assert [line[4:11] for line in str(caught.value).splitlines()[1:]] == ["scans.a", "scans.b"]


def test_the_crystal_and_the_beam_energy_are_those_of_the_study():
    study = {"material": vars(MATERIALS["MoSe2"]), "microscope": {"energy_keV": 60}}
    found = jobs(**study, scans={"a": GOOD, "b": {**GOOD, "energy": 200, "material": "WS2"}})
    assert found["a"].bound.arguments["structure"].material == "MoSe2"
    assert found["a"].energy_keV == 60
    assert found["b"].bound.arguments["structure"].material == "WS2"
    assert found["b"].energy_keV is None


def test_another_crystal_than_the_command_knows_is_not_mapped_as_a_known_one():
    wider = {"zigzag_A": 3.2}
    with pytest.raises(ConfigError, match="not MoS2 as pacbed map knows it"):
        jobs(material=wider, scans={"a": GOOD})
    of_series = jobs(material=wider, scans={"a": {**GOOD, "series": "s.zarr.zip"}})["a"]
    assert "structure" not in of_series.bound.arguments
    assert of_series.energy_keV is None
    assert of_series.files == ["a.mib", "s.zarr.zip"]


def test_a_structure_file_is_one_of_the_files(wse2):
    found = one(material=str(wse2), displacement=["W=0.065", "Se=0.08"])
    assert found.files == ["a.mib", str(wse2)]


def test_files_that_are_missing_are_named_at_once(tmp_path):
    (tmp_path / "there.npy").touch()
    made = {name: [f"{tmp_path}/{name}.map", f"{tmp_path}/{name}.json"] for name in "abc"}
    (tmp_path / "c.map").touch()
    scans = {
        "a": {"file": str(tmp_path / "there.npy"), "layers": 1, "calibration": "no.json"},
        # The calibration of another scan, which is to be made.
        "b": {"file": "no.npy", "layers": 1, "calibration": f"{tmp_path}/./a.json"},
        # Its map is finished, and the scan in an archive.
        "c": {"file": "archived.npy", "layers": 1},
    }
    with pytest.raises(ConfigError) as caught:
        check_files(jobs(scans=scans), made)
    assert str(caught.value).splitlines()[1:] == [
        "  - scans.a: there is no file no.json",
        "  - scans.b: there is no file no.npy",
    ]


def test_the_work_follows_from_the_size_of_the_scan(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((6, 8, 64, 64), np.uint16))
    whole = jobs(scans={"a": {"file": str(path), "layers": 1}})["a"]
    assert whole.work == (48, 12)
    assert jobs(scans={"a": {"file": str(path), "layers": 1, "every": 2}})["a"].work == (12, 3)
    assert one().work == (10_000, 10_000)  # of a file that is not there


@pytest.fixture
def scan(tmp_path):
    """A file that says no beam energy."""
    np.save(tmp_path / "a.npy", np.ones((4, 4, 24, 24), np.uint16))
    return tmp_path / "a.npy"


@pytest.fixture
def called(monkeypatch, scan):
    """Return a function that calls the job, and returns the arguments that the command gets."""
    given = {}

    def run(energy, *words):
        given.clear()
        output = scan.with_name("a.zarr.zip")
        call([str(scan), "--layers=1", *words, f"--output={output}"], energy, output)
        return given

    def command(scan, /, **arguments):
        given.update(arguments)

    monkeypatch.setattr("pacbed.cli.map_jobs.parsed", lambda words: (command, parsed(words)[1]))
    return run


def test_the_energy_of_the_study_is_used_where_nothing_else_says_one(called):
    assert called(80.0)["options"].energy_keV == 80
    assert called(None, "--energy=60")["options"].energy_keV == 60
    assert "options" not in called(None)
