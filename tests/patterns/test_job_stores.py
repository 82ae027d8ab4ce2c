"""The stores of a job: good ones are kept, whatever happens to the others."""

import errno
import os
import zipfile
from dataclasses import dataclass, replace

import numpy as np
import pytest

from pacbed.engines import SimulationRequest, SimulationResult
from pacbed.engines.request import PHYSICS_VERSION
from pacbed.exceptions import RequestError
from pacbed.patterns import store as store_module
from pacbed.patterns.job_stores import Outcome, WantedStore, make_waiting
from pacbed.patterns.store import read_patterns
from pacbed.specimen.crystal import MATERIALS
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture, Detector
from pacbed.storage.waiting import finish, put_aside
from pacbed.storage.zipped import checkpoint_of

REQUEST = SimulationRequest(
    material=MATERIALS["MoS2"],
    deformation=Deformation(),
    tilt_mrad=(0.0, 0.0),
    layers=1,
    energy_keV=80,
    aperture=Aperture(5.0),
    detector=Detector((40, 40), (8, 8)),
)


@dataclass(frozen=True)
class Settings:
    quality: int = 1


class Counting:
    """An engine that makes up patterns, counts them, and fails where it is told to."""

    name = "counting"

    def __init__(self, quality=1, fails=()):
        self.settings, self.fails, self.made = Settings(quality), fails, []

    def simulate_together(self, requests, progress=None, checkpoints=None):
        for request, checkpoint in zip(requests, checkpoints, strict=True):
            if request.seed in self.fails:
                raise RequestError(f"seed {request.seed} cannot be done")
            self.made.append((request.seed, request.aperture.semiangle_mrad))
            checkpoint.touch()
        provenance = {"engine": self.name, "settings": {"quality": self.settings.quality}}
        patterns = np.full((1, 8, 8), 1 / 64, np.float32)
        return [SimulationResult(patterns, provenance) for _ in requests]


@pytest.fixture
def folder(tmp_path):
    for angle in (5, 6):
        (tmp_path / f"{angle}mrad").mkdir()
    return tmp_path


def stores(folder, numbers=range(3), angles=(5,)):
    """Stores of draws, with the number as the seed."""
    return [
        WantedStore(
            folder / f"{angle}mrad" / f"{number:05d}.zarr.zip",
            replace(REQUEST, seed=number, aperture=Aperture(angle)),
            number,
        )
        for number in numbers
        for angle in angles
    ]


def paths(wanted):
    return [store.path for store in wanted]


def run(wanted, engine, log=lambda line: None):
    """As the script of the rule does."""
    put_aside(paths(wanted))
    outcome = make_waiting(wanted, engine, log)
    if not outcome.failed:
        finish(paths(wanted))
    return outcome


def names(folder):
    return sorted(p.name for p in (folder / "5mrad").iterdir())


def test_all_stores_appear_and_nothing_else(folder):
    assert run(stores(folder), Counting()) == Outcome()
    assert names(folder) == ["00000.zarr.zip", "00001.zarr.zip", "00002.zarr.zip"]
    attributes = read_patterns(stores(folder)[1].path).attributes
    assert (attributes["request"]["seed"], attributes["draw"]) == (1, 1)


def test_what_is_there_is_not_computed_again_and_keeps_its_bytes_and_time(folder):
    made = stores(folder)
    run(made, Counting())
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths(made)]
    said, engine = [], Counting()
    assert run(made, engine, said.append) == Outcome(found=True)
    assert engine.made == []
    assert said == [f"{n:05d}.zarr.zip is there already" for n in range(3)]
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths(made)] == before


def test_a_failing_draw_costs_no_other(folder):
    said, engine = [], Counting(fails={1})
    assert run(stores(folder), engine, said.append) == Outcome(["00001.zarr.zip"])
    assert said == ["error: 00001.zarr.zip: seed 1 cannot be done"]
    # None has its name, since Snakemake would delete it.
    assert names(folder) == [".00000.zarr.zip.finished", ".00002.zarr.zip.finished"]
    engine = Counting()
    assert run(stores(folder), engine) == Outcome(found=True)
    assert engine.made == [(1, 5)]
    assert names(folder) == ["00000.zarr.zip", "00001.zarr.zip", "00002.zarr.zip"]


@pytest.mark.parametrize(
    ("quality", "physics", "draw"),
    [
        (2, PHYSICS_VERSION, 0),
        (1, PHYSICS_VERSION + 1, 0),
        (1, PHYSICS_VERSION, 7),
        (1, PHYSICS_VERSION, None),
    ],
)
def test_a_store_of_other_settings_or_physics_or_of_another_draw_is_made_again(
    folder, monkeypatch, quality, physics, draw
):
    [store] = stores(folder, [0])
    run([store], Counting())
    monkeypatch.setattr(store_module, "PHYSICS_VERSION", physics)
    engine = Counting(quality)
    assert run([replace(store, draw=draw)], engine) == Outcome()
    assert engine.made == [(0, 5)]
    found = read_patterns(store.path).attributes
    assert found["settings"] == {"quality": quality}
    assert (found["physics_version"], found.get("draw")) == (physics, draw)


def test_a_damaged_store_is_made_again(folder):
    made = stores(folder)
    run(made, Counting())
    made[1].path.write_bytes(made[1].path.read_bytes()[:100])
    engine = Counting()
    run(made, engine)
    assert engine.made == [(1, 5)]


def test_a_store_that_cannot_be_read_now_is_neither_computed_again_nor_replaced(
    folder, monkeypatch
):
    def fail(*arguments):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    made = stores(folder)
    run(made, Counting())
    before = [path.read_bytes() for path in paths(made)]
    said, engine = [], Counting()
    with monkeypatch.context() as patched:
        patched.setattr(zipfile.ZipExtFile, "read", fail)
        outcome = run(made, engine, said.append)
    assert outcome.failed == [path.name for path in paths(made)]
    assert engine.made == []
    assert all("Stale file handle" in line for line in said)
    assert run(made, Counting()) == Outcome(found=True)
    assert [path.read_bytes() for path in paths(made)] == before


def test_another_semiangle_of_the_same_draw_leaves_those_that_are_there(folder):
    run(stores(folder), Counting())
    engine = Counting()
    assert run(stores(folder, angles=(5, 6)), engine) == Outcome(found=True)
    assert engine.made == [(0, 6), (1, 6), (2, 6)]


def test_a_simulation_that_was_begun_before_counts_as_found(folder):
    made = stores(folder)
    checkpoint_of(made[2].path).touch()
    assert run(made, Counting()) == Outcome(found=True)
    assert not any(checkpoint_of(path).exists() for path in paths(made))
