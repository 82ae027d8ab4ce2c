"""Mistakes and damage: said before anything is planned, named, and mended by the next run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from workspace import LOCAL

from pacbed.patterns.store import read_patterns
from pacbed.runs.locks import sole_maker
from pacbed.runs.results_folder import keep_config

ROOT = Path(__file__).resolve().parents[2]


# In the configuration


def test_a_mistake_in_the_configuration_stops_before_anything_is_planned(workspace):
    outcome = workspace.run(change={"dataset": {"electron": [1, 2]}})
    assert outcome.status != 0
    for message in ("dataset.electron = [1, 2]: unknown key", "did you mean 'electrons'?"):
        assert message in outcome.text
    assert "Traceback" not in outcome.text
    assert "Building DAG" not in outcome.text
    assert not (workspace.folder / "results").exists()


def test_a_key_that_is_there_twice_is_named_with_both_lines(workspace):
    overlay = workspace.folder / "twice.yaml"
    overlay.write_text("simulation:\n  layers: 2\nseed: 1\nsimulation:\n  pixels: 32\n")
    outcome = workspace.snakemake(
        "--dry-run", "--configfile", "tiny.yaml", "twice.yaml", tiny=False
    )
    assert outcome.status != 0
    assert "twice.yaml: 'simulation' is there twice, in lines 1 and 4" in outcome.text
    assert "Traceback" not in outcome.text
    assert "Building DAG" not in outcome.text


def test_nested_values_can_be_given_on_the_command_line(workspace):
    split = "{train: 0.6, validation: 0.2, test: 0.2}"
    given = f"draws={{count: 5, shared_strain: true, split: {split}}}"
    outcome = workspace.plan("--config", given, "microscope={semiangles_mrad: [6.35, 12.65]}")
    assert outcome.status == 0, outcome.text
    # Strain states that all semi-angles share are simulated once.
    assert (outcome.jobs["simulate"], outcome.jobs["simulate_undeformed"]) == (5, 1)
    for angle in ("6.35", "12.65"):
        assert f"results/patterns/{angle}mrad/00004.zarr.zip" in outcome.text


def test_results_of_another_configuration_are_not_overwritten(workspace):
    store = workspace.folder / "results/patterns/6.35mrad/00000.zarr.zip"
    store.parent.mkdir(parents=True)
    store.write_bytes(b"a store")
    other = workspace.config().changed({"simulation": {"layers": 7}})
    keep_config(workspace.folder / "results", other)
    outcome = workspace.run()
    assert outcome.status == 1
    assert "simulation.layers was 7, is 2" in outcome.text
    assert store.read_bytes() == b"a store"


def test_two_controllers_do_not_run_one_study(workspace):
    name = "results/patterns/6.35mrad/00000.zarr.zip"
    log = workspace.folder / "results/logs/patterns/6.35mrad/00000.log"
    # The job of the first waits here until the second has ended.
    with sole_maker(workspace.folder / name):
        first = workspace.start(*LOCAL, "--cores", "1", name)
        limit = time.monotonic() + 120
        while not (log.exists() and "waiting until it has ended" in log.read_text()):
            assert time.monotonic() < limit
            assert first.poll() is None
            time.sleep(0.1)
        second = workspace.run(name)
    assert second.status != 0
    assert "is running this study already, in results" in second.text
    text, _ = first.communicate(timeout=120)
    assert first.returncode == 0, text


# In a store


def test_a_truncated_store_is_named_and_made_again_by_the_next_run(copied, finished):
    name = "results/patterns/6.35mrad/00000.zarr.zip"
    dataset = "results/datasets/6.35mrad/2layers/train.zarr.zip"
    store = copied.folder / name
    store.write_bytes(store.read_bytes()[: store.stat().st_size // 2])
    (copied.folder / dataset).unlink()

    failed = copied.run(dataset)
    assert failed.status != 0
    assert f"{name} is damaged or incomplete" in failed.text
    assert "run again" in failed.text
    assert not (copied.folder / dataset).exists()
    assert not store.exists()
    assert (store.parent / "00000.zarr.zip.damaged").exists()

    mended = copied.run(dataset)
    assert mended.status == 0, mended.text
    assert mended.jobs == {"simulate": 1, "augment": 1}
    np.testing.assert_array_equal(
        read_patterns(store).patterns, read_patterns(finished.folder / name).patterns
    )
    assert (copied.folder / dataset).read_bytes() == (finished.folder / dataset).read_bytes()


# In a job

SCRIPT = """
import os, signal, sys
from pathlib import Path
from _job import job
from pacbed.exceptions import DamagedStoreError, PacbedError
from pacbed.storage.zipped import zip_writer

with job(sys.argv[1]):
    {code}
"""


@pytest.fixture
def run_job(tmp_path):
    """Run Python code as the script of a rule does; return its status, terminal output and log."""

    def run(code, log="log"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(code=code), log],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT / "workflow" / "scripts")},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr, (tmp_path / log).read_text()

    return run


def test_what_a_user_can_mend_is_one_line_in_the_log(run_job):
    outcome = run_job("raise PacbedError('this can be mended')")
    assert outcome == (1, "", "error: this can be mended\n")


def test_an_unforeseen_error_leaves_its_trace_in_the_log(run_job):
    status, terminal, log = run_job("1 / 0")
    assert status == 1
    assert terminal == ""
    assert log.startswith("Traceback")
    assert "ZeroDivisionError" in log


def test_a_job_prints_into_its_log_and_so_do_libraries_below_python(run_job):
    outcome = run_job("print('half done', flush=True); os.write(2, b'from below\\n')")
    assert outcome == (0, "", "half done\nfrom below\n")


def test_a_job_looks_for_garbage_only_in_what_it_makes(run_job):
    told = "import gc; print(gc.isenabled(), gc.get_freeze_count() > 1000)"
    assert run_job(told) == (0, "", "True True\n")


def test_a_job_that_is_told_to_end_cleans_up_behind_itself(run_job, tmp_path):
    status, _, _ = run_job(
        "with zip_writer(Path('store.zarr.zip')): os.kill(os.getpid(), signal.SIGTERM)"
    )
    assert status == 128 + signal.SIGTERM
    assert [p.name for p in tmp_path.iterdir()] == ["log"]


def test_a_damaged_store_is_moved_aside_by_the_jobs_that_read_it(run_job, tmp_path):
    # Datasets of several thicknesses read the same stores at the same time.
    (tmp_path / "00000.zarr.zip").write_bytes(b"half")
    for log in ("first", "second"):
        status, _, said = run_job("raise DamagedStoreError(Path('00000.zarr.zip'), 'no end')", log)
        assert status == 1
        assert said.startswith("error: 00000.zarr.zip is damaged or incomplete: no end")
    assert not (tmp_path / "00000.zarr.zip").exists()
    assert (tmp_path / "00000.zarr.zip.damaged").read_bytes() == b"half"
