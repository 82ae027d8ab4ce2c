"""The stores of a job: good ones are kept, whatever happens to the others."""

import errno
import os
import zipfile
from dataclasses import dataclass, replace

import numpy as np
import pytest

from pacbed.engines import SimulationRequest, SimulationResult
from pacbed.exceptions import RequestError
from pacbed.patterns.job_stores import JobStores, Outcome
from pacbed.patterns.store import read_patterns
from pacbed.specimen.crystal import material
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture, Detector
from pacbed.storage.waiting import waiting
from pacbed.storage.zipped import checkpoint_of

REQUEST = SimulationRequest(
    material=material("MoS2"),
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


def request_of(store):
    """The number of the store is the seed, and its folder the semi-angle."""
    number, angle = int(store.name[:5]), float(store.parent.name.removesuffix("mrad"))
    return replace(REQUEST, seed=number, aperture=Aperture(angle))


@pytest.fixture
def folder(tmp_path):
    for angle in (5, 6):
        (tmp_path / f"{angle}mrad").mkdir()
    return tmp_path


def batch(folder, numbers=range(3), angles=(5,), said=None):
    stores = [folder / f"{a}mrad" / f"{n:05d}.zarr.zip" for n in numbers for a in angles]
    log = (lambda line: None) if said is None else said.append
    return JobStores(stores, request_of, log)


def run(one, engine):
    """As the script of the rule does."""
    one.put_aside()
    outcome = one.simulate(engine)
    if not outcome.failed:
        one.finish()
    return outcome


def names(folder):
    return sorted(p.name for p in (folder / "5mrad").iterdir())


def test_all_stores_appear_and_nothing_else(folder):
    assert run(batch(folder), Counting()) == Outcome()
    assert names(folder) == ["00000.zarr.zip", "00001.zarr.zip", "00002.zarr.zip"]
    assert read_patterns(batch(folder).stores[1]).attributes["request"]["seed"] == 1


def test_what_is_there_is_not_computed_again_and_keeps_its_bytes_and_time(folder):
    one = batch(folder)
    run(one, Counting())
    before = [(s.read_bytes(), s.stat().st_mtime_ns) for s in one.stores]
    said, engine = [], Counting()
    assert run(batch(folder, said=said), engine) == Outcome(found=True)
    assert engine.made == []
    assert said == [f"{n:05d}.zarr.zip is there already" for n in range(3)]
    assert [(s.read_bytes(), s.stat().st_mtime_ns) for s in one.stores] == before


def test_a_failing_draw_costs_no_other(folder):
    said, engine = [], Counting(fails={1})
    assert run(batch(folder, said=said), engine) == Outcome(["00001.zarr.zip"])
    assert said == ["error: 00001.zarr.zip: seed 1 cannot be done"]
    # None has its name, since Snakemake would delete it.
    assert names(folder) == [".00000.zarr.zip.finished", ".00002.zarr.zip.finished"]
    engine = Counting()
    assert run(batch(folder), engine) == Outcome(found=True)
    assert engine.made == [(1, 5.0)]
    assert names(folder) == ["00000.zarr.zip", "00001.zarr.zip", "00002.zarr.zip"]


def test_good_stores_are_out_of_reach_before_anything_can_fail(folder):
    one = batch(folder)
    run(one, Counting())
    one.put_aside()
    assert not any(store.exists() for store in one.stores)
    assert all(waiting(store).exists() for store in one.stores)


def test_stores_of_other_settings_or_another_request_are_made_again(folder):
    run(batch(folder), Counting())
    engine = Counting(quality=2)
    assert run(batch(folder), engine) == Outcome()
    assert len(engine.made) == 3
    assert read_patterns(batch(folder).stores[0]).attributes["settings"] == {"quality": 2}


def test_a_damaged_store_is_made_again(folder):
    one = batch(folder)
    run(one, Counting())
    one.stores[1].write_bytes(one.stores[1].read_bytes()[:100])
    engine = Counting()
    run(one, engine)
    assert engine.made == [(1, 5.0)]


def test_a_store_that_cannot_be_read_now_is_neither_computed_again_nor_replaced(
    folder, monkeypatch
):
    one = batch(folder)
    run(one, Counting())
    before = [store.read_bytes() for store in one.stores]
    said, engine = [], Counting()
    with monkeypatch.context() as patched:
        patched.setattr(zipfile.ZipExtFile, "read", failing)
        outcome = run(batch(folder, said=said), engine)
    assert outcome.failed == [store.name for store in one.stores]
    assert engine.made == []
    assert all("Stale file handle" in line for line in said)
    assert run(batch(folder), Counting()) == Outcome(found=True)
    assert [store.read_bytes() for store in one.stores] == before


def failing(*arguments):
    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def test_what_waits_is_newer_than_a_store_of_an_earlier_request(folder):
    one = batch(folder)
    run(one, Counting())
    # Another request, whose job was killed before it gave names; the old stores stand.
    old = [store.read_bytes() for store in one.stores]
    one.put_aside()
    one.simulate(Counting(quality=2))
    for store, content in zip(one.stores, old, strict=True):
        store.write_bytes(content)
        os.utime(store, (1, 1))
    engine = Counting(quality=2)
    run(batch(folder), engine)
    assert engine.made == []


def test_another_semiangle_of_the_same_draw_leaves_those_that_are_there(folder):
    run(batch(folder), Counting())
    engine = Counting()
    assert run(batch(folder, angles=(5, 6)), engine) == Outcome(found=True)
    assert engine.made == [(0, 6.0), (1, 6.0), (2, 6.0)]


def test_a_simulation_that_goes_on_counts_as_begun(folder):
    one = batch(folder)
    checkpoint_of(one.stores[2]).touch()
    assert run(one, Counting()) == Outcome(found=True)


def test_checkpoints_go_when_their_stores_are_there(folder):
    one = batch(folder)
    run(one, Counting())
    assert not any(checkpoint_of(store).exists() for store in one.stores)
