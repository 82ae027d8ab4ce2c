"""Datasets: the examples of an address, labelled with what was done to them, whole or not there.

Run as a program, this file makes datasets whose memory is measured, or is killed while it does.
"""

import math
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import center_of_mass

from pacbed.engines import SimulationRequest, SimulationResult
from pacbed.engines.request import ThermalMotion
from pacbed.examples.dataset import read_dataset, refuse_other_simulation, write_dataset
from pacbed.examples.pattern_set import PatternSet, read_pattern_set
from pacbed.examples.source import ExampleSource
from pacbed.exceptions import DamagedStoreError, PacbedError, StoreError
from pacbed.machine import clear_away_on_sigterm, peak_memory_MB
from pacbed.patterns.store import write_patterns
from pacbed.specimen.crystal import MATERIALS
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture, Detector
from pacbed.study.model import Configuration

PAPER = Configuration().augmentation()
SETTINGS = replace(PAPER, pixels=16, field_of_view_mrad=32, translation_px=1)
ADDRESS = (7, 6.35, 5, "train")
DRAWS = [3, 8, 11]
# Strain xx, yy, xy and tilt x, y: recognisable numbers for each of the three draws.
PARAMETERS = np.array([[0.01, 0.02, 0.03, 4, 5], [-0.01, 0.04, 0, -2, 1], [0.05, 0, -0.02, 3, -3]])


def spot(kx, ky):
    axis = np.arange(64) - 32.0
    return np.exp(-((axis[None, :] - kx) ** 2 + (axis[:, None] - ky) ** 2) / 8) / (8 * math.pi)


PATTERNS = np.stack([spot(8, 0), spot(0, 8), spot(-8, 0)]).astype(np.float32)
SOURCE = ExampleSource(PatternSet(PATTERNS, (1.0, 1.0), DRAWS, PARAMETERS), SETTINGS, 70, ADDRESS)


def made(path, source=SOURCE, **changes):
    write_dataset(path, replace(source, **changes))
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return made(tmp_path_factory.mktemp("dataset") / "train.zarr.zip")


@pytest.fixture(scope="module")
def dataset(file):
    return read_dataset(file)


# What a dataset holds


def test_a_dataset_holds_images_labels_and_where_they_come_from(dataset):
    assert dataset.images.shape == (70, 16, 16)
    assert dataset.images.dtype == np.float16
    means = dataset.images.astype(float).mean(axis=(1, 2))
    np.testing.assert_allclose(means, dataset.transformations[:, 5], rtol=1e-3)
    assert (dataset.electrons >= 1e6).all()
    assert (dataset.electrons <= 5e7).all()
    assert set(dataset.draws) == set(DRAWS)
    strain_and_tilt = PARAMETERS[[DRAWS.index(draw) for draw in dataset.draws]]
    expected = np.insert(strain_and_tilt, 3, dataset.transformations[:, 0], axis=1)
    np.testing.assert_allclose(dataset.labels, expected, rtol=1e-6)
    found = dataset.columns(["tilt_y_mrad", "strain_xy"])
    np.testing.assert_array_equal(found, dataset.labels[:, [5, 2]])
    address = [dataset.attributes[name] for name in ("seed", "semiangle_mrad", "layers", "split")]
    assert tuple(address) == ADDRESS
    assert dataset.attributes["augmentation"]["noise"] == "lognormal"


def test_the_transformations_are_those_that_the_images_show(tmp_path):
    # Without noise, so that the spot of each draw can be found.
    still = replace(SETTINGS, pixels=32, electrons=(1e12, 1e12))
    examples = read_dataset(made(tmp_path / "still.zarr.zip", settings=still, examples=40))
    rotation, field, x, y = examples.transformations[:, :4].T
    angle = np.radians(rotation + np.array([{3: 0, 8: 90, 11: 180}[n] for n in examples.draws]))
    places = [center_of_mass(image.astype(float))[::-1] for image in examples.images]
    radius = 8 * 32 / field
    expected = np.stack([radius * np.cos(angle) + x, radius * np.sin(angle) + y], axis=1)
    np.testing.assert_allclose(np.array(places) - 16, expected, atol=0.05)
    np.testing.assert_array_equal(examples.fields_of_view_mrad, field)


# Same address, same example


@pytest.mark.parametrize("examples", [5, 64, 130, 1030])
def test_a_larger_set_begins_with_the_same_examples(dataset, tmp_path, examples):
    other = read_dataset(made(tmp_path / "other.zarr.zip", examples=examples))
    both = min(examples, 70)
    assert len(other.images) == len(other.transformations) == examples
    assert len(np.unique(other.electrons)) == examples
    for name in ("images", "labels", "draws", "transformations"):
        np.testing.assert_array_equal(getattr(other, name)[:both], getattr(dataset, name)[:both])


@pytest.mark.parametrize(
    "address",
    [(8, 6.35, 5, "train"), (7, 6.36, 5, "train"), (7, 6.35, 4, "train"), (7, 6.35, 5, "test")],
)
def test_seed_semiangle_layers_and_split_each_give_other_examples(address):
    numbers = [part.ravel() for part in SOURCE.draw(0, 70)[1:]]
    others = [part.ravel() for part in replace(SOURCE, address=address).draw(0, 70)[1:]]
    assert not any(np.intersect1d(*both).size for both in zip(numbers, others, strict=True))


def test_memory_does_not_grow_with_the_number_of_examples(tmp_path):
    command = [sys.executable, __file__, str(tmp_path / "train.zarr.zip"), "512", "8192"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    few, many = map(float, done.stdout.split()[-2:])
    # The images of the larger set take 67 MB, in half precision.
    assert many - few < 25


def measure_memory(path, sizes):
    for size in sizes:
        made(path, settings=replace(SETTINGS, pixels=64), examples=int(size))
        print(peak_memory_MB(), flush=True)


# Whole or not there


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_job_that_was_killed_begins_again_and_leaves_nothing(file, tmp_path, number):
    path = tmp_path / "train.zarr.zip"
    command = [sys.executable, __file__, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout.readline() == b"at work\n"
        program.send_signal(number)
        assert program.wait(20) != 0
    assert len(list(tmp_path.iterdir())) == (number == signal.SIGKILL)
    assert not path.exists()
    made(path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == file.read_bytes()


def wait_at_work(path):
    clear_away_on_sigterm()

    def progress(done, total):
        print("at work", flush=True)
        time.sleep(60)

    write_dataset(path, replace(SOURCE, examples=2000), progress)


def test_an_image_without_an_electron_is_refused_and_leaves_nothing(tmp_path):
    dark = replace(SETTINGS, noise="poisson", electrons=(1e-9, 1e-9))
    with pytest.raises(PacbedError, match=r"1e-09 electrons has no signal: raise dataset\.elec"):
        made(tmp_path / "dark.zarr.zip", settings=dark)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_of(tmp_path, monkeypatch):
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", lambda file: (_ for _ in ()).throw(full))
    with pytest.raises(StoreError, match=r"cannot write .*train\.zarr\.zip: No space left"):
        made(tmp_path / "train.zarr.zip")
    assert list(tmp_path.iterdir()) == []


# Damage


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A dataset of three shards."""
    return made(tmp_path_factory.mktemp("large") / "train.zarr.zip", examples=1030)


CHUNKS = ["images/c/1/0/0", "labels/c/1/0", "draw/c/1", "transformations/c/1/0"]


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_missing_chunk_is_named(large, tmp_path, chunk):
    path = tmp_path / "copied.zarr.zip"
    with zipfile.ZipFile(large) as source, zipfile.ZipFile(path, "w") as target:
        for name in set(source.namelist()) - {chunk}:
            target.writestr(name, source.read(name))
    with pytest.raises(DamagedStoreError, match=rf"copied\.zarr\.zip .*chunk {chunk} is missing"):
        read_dataset(path)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_dataset_is_named(large, tmp_path, kept):
    path, data = tmp_path / "copied.zarr.zip", large.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(DamagedStoreError, match=r"copied\.zarr\.zip is damaged"):
        read_dataset(path)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("place", [0, 0.4, 0.9, 1])
def test_a_flipped_bit_is_found_by_its_chunk(large, tmp_path, chunk, place):
    data = bytearray(large.read_bytes())
    with zipfile.ZipFile(large) as archive:
        member = archive.getinfo(chunk)
    first = member.header_offset + 30 + len(chunk)
    data[first + round(place * (member.file_size - 1))] ^= 1
    path = tmp_path / "flipped.zarr.zip"
    path.write_bytes(data)
    with pytest.raises(DamagedStoreError, match=rf"flipped\.zarr\.zip .*CRC.*{chunk}"):
        read_dataset(path)


# From pattern stores


def simulated(path, brightness=1.0, extra=None, **changes):
    given = {
        "material": MATERIALS["MoS2"],
        "deformation": Deformation(),
        "tilt_mrad": (0, 0),
        "layers": 3,
        "energy_keV": 80,
        "aperture": Aperture(6.35),
        "detector": Detector((40.0, 20.0), (8, 8)),
    }
    request = SimulationRequest(**{**given, **changes})
    layers = np.arange(1, 4, dtype=np.float32)[:, None, None]
    patterns = brightness * layers * np.ones((1, *request.detector.pixels[::-1]), np.float32)
    write_patterns(path, request, SimulationResult(patterns, {"engine": "planewave"}), extra)
    return path


def test_a_pattern_set_holds_one_thickness_of_every_draw(tmp_path):
    stores = [
        simulated(tmp_path / "1", 1, deformation=Deformation(1.04, 0.98, 0), tilt_mrad=(2, -3)),
        # Stretched along the first diagonal and squeezed along the other: positive shear.
        simulated(tmp_path / "2", 10, deformation=Deformation(1.03, 0.97, 45)),
    ]
    found = read_pattern_set(stores, [4, 6], 2)
    assert found.patterns.shape == (2, 8, 8)
    np.testing.assert_array_equal(found.patterns[:, 0, 0], [2, 20])
    assert found.pixel_mrad == pytest.approx((5.0, 2.5))
    assert list(found.draws) == [4, 6]
    expected = [[0.04, -0.02, 0, 2, -3], [0, 0, 0.03, 0, 0]]
    np.testing.assert_allclose(found.parameters, expected, atol=1e-12)


def test_a_store_of_another_draw_than_its_name_says_is_refused(tmp_path):
    stores = [simulated(tmp_path / f"{n:05d}", extra={"draw": n}) for n in (1, 2)]
    assert list(read_pattern_set(stores, [1, 2], 1).draws) == [1, 2]
    stores[0].write_bytes(stores[1].read_bytes())
    with pytest.raises(StoreError, match=r"00001 holds draw 2, not 1: .*simulate it again"):
        read_pattern_set(stores, [1, 2], 1)
    # The command line writes stores that are of no draw.
    read_pattern_set([simulated(tmp_path / "own")], [1], 1)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"detector": Detector((44.0, 20.0), (8, 8))}, "detector"),
        ({"detector": Detector((40.0, 20.0), (10, 8))}, "detector"),
        ({"material": MATERIALS["WSe2"]}, "material"),
        ({"energy_keV": 200}, "energy_keV"),
        ({"aperture": Aperture(6.35, 0.5)}, "aperture"),
        ({"thermal": ThermalMotion(8)}, "thermal"),
        ({"thermal": ThermalMotion("coherent")}, "thermal"),
        ({"extra": {"engine": "prismatic"}}, "engine"),
        ({"extra": {"settings": {"box_A": 30}}}, "settings"),
        ({"extra": {"physics_version": 99}}, "physics_version"),
    ],
)
def test_patterns_of_different_simulations_do_not_mix(tmp_path, changes, name):
    stores = [simulated(tmp_path / "1"), simulated(tmp_path / "2", **changes)]
    with pytest.raises(StoreError, match=rf"/2 was simulated otherwise than .*/1: its {name} is"):
        read_pattern_set(stores, [0, 1], 1)


def test_what_does_not_fit_is_refused_by_name(tmp_path):
    stores = [simulated(tmp_path / str(n)) for n in (1, 2)]
    read_pattern_set(stores, [0, 1], 1, 6.35)
    with pytest.raises(StoreError, match=r"/1 is of 6\.35 mrad, not of 33"):
        read_pattern_set(stores, [0, 1], 1, 33.0)
    with pytest.raises(StoreError, match=r"/1 has layers 1 to 3, not \[4\]"):
        read_pattern_set(stores, [0, 1], 4)
    stores[1].write_bytes(stores[1].read_bytes()[:-200])
    with pytest.raises(DamagedStoreError, match=r"/2 is damaged") as caught:
        read_pattern_set(stores, [0, 1], 1)
    assert caught.value.path == stores[1]


# Of what the patterns are


def of(tmp_path, **changes):
    """The attributes of a dataset of simulated patterns."""
    path = simulated(tmp_path / "1.zarr.zip", **changes)
    source = replace(SOURCE, library=read_pattern_set([path], [0], 1), examples=1)
    return read_dataset(made(tmp_path / "set.zarr.zip", source)).attributes


def test_the_dataset_knows_what_was_simulated(tmp_path):
    found = of(tmp_path, extra={"settings": {"step": 2}})["simulation"]
    assert found["material"]["formula"] == "MoS2"
    assert (found["engine"], found["settings"]) == ("planewave", {"step": 2})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"material": MATERIALS["WSe2"]}, "formula is WSe2, not MoS2. Use"),
        (
            {"material": replace(MATERIALS["MoS2"], zigzag_A=3.2)},
            "zigzag_A is 3.2, not 3.1613. Use",
        ),
        ({"energy_keV": 200}, "energy_keV is 200, not 80. Use"),
        ({"aperture": Aperture(6.35, 0.5)}, "aperture edge_mrad is 0.5, not 0.0. Use"),
        (
            {"thermal": ThermalMotion("coherent")},
            "thermal motion is without diffuse scattering, not frozen phonons. Use",
        ),
        (
            {"thermal": ThermalMotion("none")},
            "thermal motion is static atoms, not frozen phonons. Use",
        ),
    ],
)
def test_examples_of_another_simulation_are_refused(tmp_path, changes, said):
    trained_on, data = of(tmp_path), of(tmp_path, **changes)
    with pytest.raises(PacbedError, match=re.escape(said)):
        refuse_other_simulation(trained_on, data, "the set")


def test_another_engine_or_semiangle_is_no_reason_to_refuse(tmp_path):
    own = of(tmp_path, thermal=ThermalMotion(8))
    for other in (
        of(tmp_path, thermal=ThermalMotion(20), extra={"engine": "prismatic"}),
        of(tmp_path, thermal=ThermalMotion("full")),
        of(tmp_path, thermal=ThermalMotion(8), aperture=Aperture(7)),
    ):
        refuse_other_simulation(own, other, "the set")


if __name__ == "__main__":
    if sizes := sys.argv[2:]:
        measure_memory(Path(sys.argv[1]), sizes)
    else:
        wait_at_work(Path(sys.argv[1]))
