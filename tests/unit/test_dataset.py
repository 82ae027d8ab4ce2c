"""Datasets: the same examples however they are made, labelled with what was done to them."""

import math
import zipfile

import numpy as np
import pytest
from scipy.ndimage import center_of_mass

from pacbed.augment import AugmentationSettings
from pacbed.crystal import material
from pacbed.dataset import Library, load_library, read_dataset, write_dataset
from pacbed.deformation import Deformation
from pacbed.engines import SimulationRequest, SimulationResult
from pacbed.errors import DamagedStoreError, StoreError
from pacbed.microscope import Aperture, Detector
from pacbed.patterns import write_patterns

SETTINGS = AugmentationSettings(
    pixels=16,
    field_of_view_mrad=32,
    field_of_view_variation=0.0625,
    rotation_deg=(-10, 10),
    translation_px=1,
    noise="lognormal",
    electrons=(1e6, 5e7),
    image_mean=(0.2, 0.3),
)
ADDRESS = (7, 6.35, 5, "train")
DRAWS = [3, 8, 11]
# Strain xx, yy, xy and tilt x, y: recognisable numbers for each of the three draws.
PARAMETERS = np.array([[0.01, 0.02, 0.03, 4, 5], [-0.01, 0.04, 0, -2, 1], [0.05, 0, -0.02, 3, -3]])


def spot(kx, ky):
    axis = np.arange(64) - 32.0
    return np.exp(-((axis[None, :] - kx) ** 2 + (axis[:, None] - ky) ** 2) / 8) / (8 * math.pi)


@pytest.fixture(scope="module")
def library():
    patterns = np.stack([spot(8, 0), spot(0, 8), spot(-8, 0)]).astype(np.float32)
    return Library(patterns, (1.0, 1.0), DRAWS, PARAMETERS)


def made(path, library, examples=70, settings=SETTINGS, address=ADDRESS, threads=1):
    write_dataset(path, library, settings, examples, address, threads)
    return path


@pytest.fixture(scope="module")
def file(library, tmp_path_factory):
    return made(tmp_path_factory.mktemp("dataset") / "train.zarr.zip", library)


@pytest.fixture(scope="module")
def dataset(file):
    return read_dataset(file)


# What a dataset holds


def test_a_dataset_has_the_examples_that_were_asked_for(dataset):
    assert dataset.images.shape == (70, 16, 16)
    assert dataset.labels.shape == (70, 6)
    assert dataset.draws.shape == dataset.electrons.shape == (70,)


def test_images_are_kept_in_half_precision_with_their_drawn_mean(dataset):
    assert dataset.images.dtype == np.float16
    means = dataset.images.astype(float).mean(axis=(1, 2))
    assert np.all((means > 0.1999) & (means < 0.3001))
    assert means.std() > 0.02


def test_every_pattern_is_chosen_and_every_dose_lies_in_its_range(dataset):
    assert set(dataset.draws) == set(DRAWS)
    assert dataset.electrons.min() >= 1e6
    assert dataset.electrons.max() <= 5e7
    assert len(np.unique(dataset.electrons)) == 70


def test_strain_and_tilt_are_those_of_the_draw(dataset):
    chosen = PARAMETERS[[DRAWS.index(draw) for draw in dataset.draws]]
    np.testing.assert_allclose(dataset.labels[:, [0, 1, 2, 4, 5]], chosen, rtol=1e-6)


def test_columns_are_found_by_their_names(dataset):
    found = dataset.columns(["tilt_y_mrad", "strain_xy"])
    np.testing.assert_array_equal(found, dataset.labels[:, [5, 2]])


def test_the_fourth_label_is_the_angle_by_which_the_pattern_has_turned(library, tmp_path):
    # Shown without shift and noise, so that the spot of each draw can be found.
    still = AugmentationSettings(
        **{**vars(SETTINGS), "pixels": 32, "translation_px": 0, "electrons": (1e12, 1e12)}
    )
    examples = read_dataset(made(tmp_path / "still.zarr.zip", library, 40, still))
    initial = {3: 0, 8: 90, 11: 180}
    for image, label, draw in zip(examples.images, examples.labels, examples.draws, strict=True):
        row, column = center_of_mass(image.astype(float))
        turned = math.degrees(math.atan2(row - 16, column - 16)) - initial[int(draw)]
        assert (turned + 180) % 360 - 180 == pytest.approx(label[3], abs=0.3)
    assert np.ptp(examples.labels[:, 3]) > 10


def test_the_dataset_tells_where_it_comes_from(dataset):
    assert dataset.attributes["seed"] == 7
    assert dataset.attributes["semiangle_mrad"] == 6.35
    assert dataset.attributes["layers"] == 5
    assert dataset.attributes["split"] == "train"
    assert dataset.attributes["augmentation"]["noise"] == "lognormal"


# Same seed, same examples


def test_threads_do_not_change_a_byte(file, library, tmp_path):
    other = made(tmp_path / "other.zarr.zip", library, threads=2)
    assert other.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("examples", [5, 130])
def test_a_larger_set_begins_with_the_same_examples(dataset, library, tmp_path, examples):
    other = read_dataset(made(tmp_path / "other.zarr.zip", library, examples))
    both = min(examples, 70)
    np.testing.assert_array_equal(other.images[:both], dataset.images[:both])
    np.testing.assert_array_equal(other.labels[:both], dataset.labels[:both])
    np.testing.assert_array_equal(other.draws[:both], dataset.draws[:both])


@pytest.mark.parametrize(
    "address",
    [(8, 6.35, 5, "train"), (7, 6.36, 5, "train"), (7, 6.35, 4, "train"), (7, 6.35, 5, "test")],
)
def test_seed_semiangle_layers_and_set_each_give_other_examples(
    dataset, library, tmp_path, address
):
    other = read_dataset(made(tmp_path / "other.zarr.zip", library, address=address))
    assert not np.intersect1d(other.electrons, dataset.electrons).size


# Damage


@pytest.fixture
def copied(file, tmp_path):
    path = tmp_path / "copied.zarr.zip"
    path.write_bytes(file.read_bytes())
    return path


def entries(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_entries(path, contents):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)


@pytest.mark.parametrize("array", ["images", "labels", "draw", "electrons"])
def test_a_missing_chunk_is_named(copied, array):
    contents = entries(copied)
    [chunk] = [name for name in contents if name.startswith(f"{array}/c/")]
    del contents[chunk]
    write_entries(copied, contents)
    with pytest.raises(DamagedStoreError, match=rf"copied\.zarr\.zip .*chunk {chunk} is missing"):
        read_dataset(copied)


def test_a_missing_shard_of_a_large_set_is_named(library, tmp_path):
    path = made(tmp_path / "large.zarr.zip", library, 1030)
    assert read_dataset(path).images.shape[0] == 1030
    contents = entries(path)
    del contents["images/c/1/0/0"]
    write_entries(path, contents)
    with pytest.raises(DamagedStoreError, match=r"large\.zarr\.zip .*images/c/1/0/0 is missing"):
        read_dataset(path)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_dataset_is_named(copied, kept):
    data = copied.read_bytes()
    copied.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(DamagedStoreError, match=r"copied\.zarr\.zip is damaged"):
        read_dataset(copied)


def test_a_flipped_bit_is_noticed(copied):
    data = bytearray(copied.read_bytes())
    name = b"images/c/0/0/0"
    data[data.index(name) + len(name) + 1000] ^= 1
    copied.write_bytes(data)
    with pytest.raises(DamagedStoreError, match=r"copied\.zarr\.zip is damaged"):
        read_dataset(copied)


def test_a_dataset_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"absent\.zarr\.zip does not exist"):
        read_dataset(tmp_path / "absent.zarr.zip")


def test_a_failure_leaves_nothing_behind(library, tmp_path):
    broken = Library(library.patterns, (1.0, 1.0), DRAWS, PARAMETERS[:1])
    with pytest.raises(IndexError):
        made(tmp_path / "broken.zarr.zip", broken)
    assert list(tmp_path.iterdir()) == []


# From pattern stores


def simulated(path, brightness, field=40.0, pixels=8, stretch=(1, 1, 0), tilt=(0, 0)):
    request = SimulationRequest(
        material=material("MoS2"),
        deformation=Deformation(*stretch),
        tilt_mrad=tilt,
        layers=3,
        energy_keV=80,
        aperture=Aperture(6.35),
        detector=Detector((field, field / 2), (pixels, pixels)),
    )
    layers = np.arange(1, 4)[:, None, None]
    patterns = brightness * layers * np.ones((3, pixels, pixels), np.float32)
    write_patterns(path, request, SimulationResult(patterns, {}))
    return path


def test_a_library_holds_one_thickness_of_every_draw(tmp_path):
    stores = [simulated(tmp_path / f"{n}.zarr.zip", n) for n in (1, 10)]
    found = load_library(stores, [4, 6], 2)
    assert found.patterns.shape == (2, 8, 8)
    np.testing.assert_array_equal(found.patterns[:, 0, 0], [2, 20])
    assert found.pixel_mrad == pytest.approx((5.0, 2.5))
    assert list(found.draws) == [4, 6]


def test_a_library_knows_what_was_simulated(tmp_path):
    stores = [
        simulated(tmp_path / "1.zarr.zip", 1, stretch=(1.04, 0.98, 0), tilt=(2, -3)),
        # Stretched along the first diagonal and squeezed along the other: positive shear.
        simulated(tmp_path / "2.zarr.zip", 1, stretch=(1.03, 0.97, 45)),
    ]
    expected = [[0.04, -0.02, 0, 2, -3], [0, 0, 0.03, 0, 0]]
    np.testing.assert_allclose(load_library(stores, [0, 1], 1).parameters, expected, atol=1e-12)


def test_a_library_of_a_thickness_that_was_not_simulated_is_refused(tmp_path):
    store = simulated(tmp_path / "1.zarr.zip", 1)
    with pytest.raises(StoreError, match=r"1\.zarr\.zip has layers 1 to 3, not \[4\]"):
        load_library([store], [0], 4)


@pytest.mark.parametrize("other", [{"field": 44.0}, {"pixels": 10}])
def test_patterns_of_different_detectors_do_not_mix(tmp_path, other):
    stores = [simulated(tmp_path / "1.zarr.zip", 1), simulated(tmp_path / "2.zarr.zip", 1, **other)]
    with pytest.raises(StoreError, match=r"2\.zarr\.zip has other pixels than .*1\.zarr\.zip"):
        load_library(stores, [0, 1], 1)


def test_a_truncated_store_stops_the_library_by_name(tmp_path):
    stores = [simulated(tmp_path / f"{n}.zarr.zip", 1) for n in (1, 2)]
    stores[1].write_bytes(stores[1].read_bytes()[:-200])
    with pytest.raises(DamagedStoreError, match=r"2\.zarr\.zip is damaged") as caught:
        load_library(stores, [0, 1], 1)
    assert caught.value.path == stores[1]
