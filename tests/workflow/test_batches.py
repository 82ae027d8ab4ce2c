"""Several draws in one job: fewer jobs, the same stores, and none computed twice."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from workspace import new_workspace

from pacbed.patterns.store import read_patterns

# What they share takes longer than they do: all in one process.
pytestmark = pytest.mark.xdist_group("batches")

BATCHES = {"draws": {"count": 20}, "execution": {"draws_per_job": 10}}
PATTERNS = "results/patterns/6.35mrad"
LOG = "results/logs/patterns/6.35mrad/0000x.log"
TARGET = f"{PATTERNS}/00002.zarr.zip"


@pytest.fixture(scope="module")
def batch(finished, tmp_path_factory):
    """A folder in which the first ten draws were simulated, after a first attempt failed.

    Two stores were there before.
    """
    made = new_workspace(tmp_path_factory.mktemp("batch") / "batch")
    (made.folder / PATTERNS).mkdir(parents=True)
    for number in range(2):
        name = f"{PATTERNS}/{number:05d}.zarr.zip"
        shutil.copy2(finished.folder / name, made.folder / name)
    # Nothing can be written where a folder is.
    in_the_way = made.folder / PATTERNS / ".00003.zarr.zip.finished" / "in the way"
    in_the_way.mkdir(parents=True)
    first = made.run(TARGET, change=BATCHES)
    first_log = (made.folder / LOG).read_text()
    kept = sorted(p.name for p in (made.folder / PATTERNS).glob(".*.finished") if p.is_file())
    in_the_way.rmdir()
    in_the_way.parent.rmdir()
    second = made.run(TARGET, change=BATCHES)
    return SimpleNamespace(
        workspace=made,
        folder=made.folder,
        first=first,
        first_log=first_log,
        kept=kept,
        second=second,
        second_log=(made.folder / LOG).read_text(),
    )


def test_one_job_simulates_ten_draws(batch):
    assert batch.second.jobs == {"simulate": 1}
    stores = sorted(p.name for p in (batch.folder / PATTERNS).glob("*.zarr.zip"))
    assert stores == [f"{n:05d}.zarr.zip" for n in range(10)]


def test_a_draw_that_fails_is_named_and_the_others_are_kept(batch):
    assert batch.first.status == 1
    assert "error: 00003.zarr.zip: " in batch.first_log
    assert batch.kept == [f".{n:05d}.zarr.zip.finished" for n in range(10) if n != 3]


def test_another_attempt_computes_only_what_is_missing(batch):
    assert batch.second.status == 0, batch.second.text
    there = [line for line in batch.second_log.splitlines() if line.endswith("is there already")]
    assert there == [f"{n:05d}.zarr.zip is there already" for n in range(10) if n != 3]
    assert "simulation of 00003: " in batch.second_log


def test_nothing_is_left_beside_the_stores(batch):
    assert [p.name for p in (batch.folder / PATTERNS).iterdir() if p.name.startswith(".")] == []


def test_a_failure_deletes_nothing_that_was_good(batch, finished):
    for number in range(2):
        name = f"{PATTERNS}/{number:05d}.zarr.zip"
        assert (batch.folder / name).read_bytes() == (finished.folder / name).read_bytes()
    assert "00000.zarr.zip is there already\n00001.zarr.zip is there already" in batch.first_log


def test_the_patterns_do_not_depend_on_the_batch(batch, finished):
    for number in (2, 3):
        name = f"{PATTERNS}/{number:05d}.zarr.zip"
        one, other = (read_patterns(w.folder / name) for w in (batch, finished))
        np.testing.assert_array_equal(one.patterns, other.patterns)


def test_another_number_of_draws_per_job_reruns_nothing(batch):
    change = {"draws": {"count": 10}, "execution": {"draws_per_job": 1}}
    for number in (0, 9):
        name = f"{PATTERNS}/{number:05d}.zarr.zip"
        assert batch.workspace.plan(name, change=change).nothing_to_do


def test_shared_strain_states_are_simulated_together_for_every_semiangle(workspace):
    change = {
        **BATCHES,
        "draws": {"count": 10, "shared_strain": True},
        "microscope": {"semiangles_mrad": [6.35, 12.65]},
        "simulation": {"thermal_motion": "coherent"},
    }
    outcome = workspace.run(TARGET, change=change)
    assert outcome.status == 0, outcome.text
    assert outcome.jobs == {"simulate": 1}
    for number in range(10):
        stores = [
            read_patterns(workspace.folder / f"results/patterns/{angle}mrad/{number:05d}.zarr.zip")
            for angle in (6.35, 12.65)
        ]
        assert [store.attributes["draw"] for store in stores] == [number, number]
        one, other = (store.attributes["request"] for store in stores)
        assert [r["aperture"]["semiangle_mrad"] for r in (one, other)] == [6.35, 12.65]
        assert (one["deformation"], one["seed"]) == (other["deformation"], other["seed"])
        assert one["tilt_mrad"] != other["tilt_mrad"]
        assert not np.array_equal(stores[0].patterns, stores[1].patterns)


def test_a_study_has_fewer_and_longer_jobs(workspace):
    outcome = workspace.plan("--quiet", "reason", change=BATCHES)
    assert outcome.jobs["simulate"] == 2
    assert "runtime=300" in outcome.text
