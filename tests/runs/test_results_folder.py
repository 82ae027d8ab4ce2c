"""A folder of results: one run at a time, and not of another configuration."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest
import yaml
from workspace import CONFIG

from pacbed.engines.request import PHYSICS_VERSION
from pacbed.exceptions import ConfigError, PacbedError
from pacbed.runs.results_folder import (
    check_results,
    keep_config,
    note_jobs,
    noted_jobs,
    take_lock,
)
from pacbed.study.configuration import load


@pytest.fixture(scope="module")
def default():
    return load([CONFIG])


@pytest.fixture
def results(tmp_path, default):
    """A folder with two patterns of the default configuration."""
    folder = tmp_path / "results"
    for name in ("6.35mrad/00000", "18.13mrad/undeformed"):
        store = folder / "patterns" / f"{name}.zarr.zip"
        store.parent.mkdir(parents=True)
        store.touch()
    keep_config(folder, default)
    return folder


# The lock

HOLDER = """
import sys, time
from pathlib import Path
from pacbed.runs.results_folder import take_lock
lock = take_lock(Path(sys.argv[1]))
print("has it", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "has it\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_run_is_told_which_process_runs_the_study_until_that_has_ended(holder, tmp_path):
    with pytest.raises(PacbedError, match=f"process {holder.pid} on .* is running this study"):
        take_lock(tmp_path)
    holder.kill()
    holder.wait()
    assert take_lock(tmp_path).is_locked


def test_a_run_knows_what_jobs_the_one_before_submitted(tmp_path):
    first = take_lock(tmp_path)
    assert noted_jobs(tmp_path, first) is None
    note_jobs(tmp_path, "a-name")
    first.release()
    for _ in range(2):  # also when the second ends before it has submitted anything
        later = take_lock(tmp_path)
        jobs = noted_jobs(tmp_path, later)
        assert (jobs.name, jobs.has_ended) == ("a-name", True)
        assert jobs.owner.startswith(f"process {os.getpid()} on ")
        later.release()


def test_a_run_on_another_machine_is_not_known_to_have_ended(tmp_path):
    # Not every file system shows machines each other's locks.
    (tmp_path / "run.jobs").write_text("a-name\nprocess 7 on login2\n")
    jobs = noted_jobs(tmp_path, take_lock(tmp_path))
    assert (jobs.owner, jobs.has_ended) == ("process 7 on login2", False)


def test_without_locks_no_run_is_known_to_have_ended(tmp_path, monkeypatch):
    note_jobs(tmp_path, "a-name")

    def flock(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(UserWarning, match="has no locks"):
        held = take_lock(tmp_path)
    assert not noted_jobs(tmp_path, held).has_ended


# The configuration


def test_a_new_folder_takes_any_configuration_and_one_with_results_the_same(
    results, tmp_path, default
):
    assert check_results(tmp_path / "new", default) == []
    assert check_results(results, default) == []
    assert yaml.safe_load((results / "config.yaml").read_text()) == default.plain()


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("simulation", "layers", 10, "simulation.layers was 20, is 10"),
        ("deformation", "tilt_mrad", [-1, 1], r"deformation.tilt_mrad was \[-5, 5\], is \[-1, 1\]"),
        ("draws", "shared_strain", True, "draws.shared_strain was False, is True"),
        ("simulation", "thermal_motion", 5, "simulation.thermal_motion was 10, is 5"),
    ],
)
def test_patterns_of_another_configuration_are_not_overwritten(
    results, default, section, key, value, said
):
    other = default.changed({section: {key: value}})
    with pytest.raises(ConfigError, match=said) as error:
        check_results(results, other)
    assert "has patterns (2) made with another configuration" in str(error.value)
    assert "Nothing was started" in str(error.value)


def test_patterns_of_a_physics_that_was_mended_are_not_overwritten(results, default, monkeypatch):
    was, new = PHYSICS_VERSION, PHYSICS_VERSION + 1
    monkeypatch.setattr("pacbed.runs.results_folder.PHYSICS_VERSION", new)
    with pytest.raises(ConfigError, match=rf"physics version.* was {was}, is {new}"):
        check_results(results, default)


def test_patterns_of_unknown_physics_are_not_overwritten(results, default):
    text = (results / "config.yaml").read_text()
    (results / "config.yaml").write_text(text.partition("\n")[2])
    said = rf"physics version.* was unknown, is {PHYSICS_VERSION}"
    with pytest.raises(ConfigError, match=said):
        check_results(results, default)


def test_without_patterns_nothing_is_lost(results, default):
    for store in (results / "patterns").glob("*/*.zip"):
        store.unlink()
    other = default.changed({"simulation": {"layers": 10}})
    assert check_results(results, other) == ["simulation.layers was 20, is 10"]


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("draws", "count", 2000),
        ("microscope", "semiangles_mrad", [6.35]),
        ("dataset", "noise", "poisson"),
        ("training", "momentum", 0.8),
        ("deformation", "rotation_deg", [-5, 5]),
    ],
)
def test_what_needs_no_pattern_anew_may_change_and_is_said(results, default, section, key, value):
    (said,) = check_results(results, default.changed({section: {key: value}}))
    assert said.startswith(f"{section}.{key} was ")


def test_how_simulations_are_run_may_change_without_a_word(results, default):
    other = default.changed({"execution": {"draws_per_job": 10}})
    assert check_results(results, other) == []


@pytest.mark.parametrize("text", ["seed: [", "", "seed: 2026", "- 1"])
def test_a_damaged_record_is_not_taken_for_agreement(results, default, text):
    (results / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml cannot be read"):
        check_results(results, default)
