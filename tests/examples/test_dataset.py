"""Datasets: the same examples however they are made, labelled with what was done to them."""

import functools
import io
import math
import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from scipy.ndimage import center_of_mass

from pacbed.engines import SimulationRequest, SimulationResult
from pacbed.examples import dataset as module
from pacbed.examples.augment import (
    AugmentationSettings,
    average_over_pixels,
    draw_transformation,
    make_image,
)
from pacbed.examples.dataset import read_dataset, write_dataset
from pacbed.examples.pattern_set import PatternSet, read_pattern_set
from pacbed.exceptions import DamagedStoreError, PacbedError, StoreError
from pacbed.machine import clear_away_on_sigterm
from pacbed.patterns.store import read_patterns, write_patterns
from pacbed.seeding import stream
from pacbed.specimen.crystal import material
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture, Detector
from pacbed.storage.archive import GrowingArchive
from pacbed.storage.zipped import checkpoint_of

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


def spots():
    patterns = np.stack([spot(8, 0), spot(0, 8), spot(-8, 0)]).astype(np.float32)
    return PatternSet(patterns, (1.0, 1.0), DRAWS, PARAMETERS)


@pytest.fixture(scope="module")
def library():
    return spots()


def made(path, library, examples=70, settings=SETTINGS, address=ADDRESS, threads=1, **options):
    write_dataset(path, library, settings, examples, address, threads, **options)
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


def test_an_example_is_what_its_own_random_stream_makes_of_the_averaged_pattern(dataset, library):
    for number in (0, 37, 69):
        random = stream(7, "example", 6.35, 5, "train", number)
        pattern = library.patterns[int(random.integers(3))]
        transformation = draw_transformation(random, SETTINGS)
        averaged = average_over_pixels(pattern, (1.0, 1.0), 2.0)
        image = make_image(averaged, (1.0, 1.0), transformation, SETTINGS, random)
        np.testing.assert_array_equal(dataset.images[number], image.astype(np.float16))


def test_the_library_of_the_caller_stays_as_it_is(library, tmp_path):
    before = library.patterns.copy()
    made(tmp_path / "train.zarr.zip", library)
    np.testing.assert_array_equal(library.patterns, before)


def test_processes_do_not_change_a_byte(whole, library, tmp_path, small_shards):
    other = made(tmp_path / "other.zarr.zip", library, MANY, threads=3)
    assert other.read_bytes() == whole.read_bytes()


def test_a_small_set_is_made_without_starting_processes(library, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "Processes", None)
    made(tmp_path / "small.zarr.zip", library, 1030, threads=8)


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


@pytest.mark.parametrize("chunk", ["images/c/1/0/0", "labels/c/1/0", "draw/c/1", "electrons/c/1"])
@pytest.mark.parametrize("place", [0, 0.4, 0.9, 1])
def test_a_flipped_bit_is_found_by_its_chunk_and_examples(whole, tmp_path, chunk, place):
    data = bytearray(whole.read_bytes())
    with zipfile.ZipFile(whole) as archive:
        member = archive.getinfo(chunk)
    first = member.header_offset + 30 + len(chunk)
    data[first + round(place * (member.file_size - 1))] ^= 1
    path = tmp_path / "flipped.zarr.zip"
    path.write_bytes(data)
    with pytest.raises(DamagedStoreError, match=rf"chunk {chunk} of examples 64 to 127: .*CRC"):
        read_dataset(path)


@pytest.mark.parametrize("chunk", ["images/c/1/0/0", "labels/c/1/0", "draw/c/1", "electrons/c/1"])
@pytest.mark.parametrize("kept", [0, 0.5, 0.99])
def test_a_truncated_chunk_is_found_by_its_name_and_examples(whole, tmp_path, chunk, kept):
    contents = entries(whole)
    contents[chunk] = contents[chunk][: int(kept * len(contents[chunk]))]
    write_entries(tmp_path / "short.zarr.zip", contents)
    with pytest.raises(DamagedStoreError, match=rf"chunk {chunk} of examples 64 to 127: "):
        read_dataset(tmp_path / "short.zarr.zip")


def test_a_dataset_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"absent\.zarr\.zip does not exist"):
        read_dataset(tmp_path / "absent.zarr.zip")


# Killed, and gone on with


@pytest.fixture
def small_shards(monkeypatch):
    """Five shards in the tests, and several processes although it is not worth them."""
    monkeypatch.setattr(module, "_SHARD", 64)
    monkeypatch.setattr(module, "_WORTH_PIXELS", 1)


MANY = 290


@pytest.fixture(scope="module")
def whole(library, tmp_path_factory):
    """A dataset of five shards that was made without a disturbance."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SHARD", 64)
        return made(tmp_path_factory.mktemp("whole") / "train.zarr.zip", library, MANY)


def write_until_killed(path, threads):
    """Make the dataset of the tests up to its second shard, say so, and wait for the end."""
    clear_away_on_sigterm()
    module._SHARD, module._WORTH_PIXELS = 64, 1

    def progress(done, total):
        if done == 128:
            print(*(child.pid for child in psutil.Process().children()), flush=True)
            time.sleep(60)

    made(path, spots(), MANY, threads=threads, progress=progress)


def killed(path, number, threads):
    """Kill a process that makes the dataset; return which others it had started."""
    command = [sys.executable, __file__, str(path), str(threads)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, start_new_session=True) as program:
        others = [psutil.Process(int(pid)) for pid in program.stdout.readline().split()]
        # A terminal or a cluster signals to all processes of a job.
        (os.kill if number == signal.SIGKILL else os.killpg)(program.pid, number)
        assert program.wait(20) != 0
        assert program.stderr.read().count(b"Traceback") == (number == signal.SIGINT)
    assert not path.exists()
    return others


def resumed(path, library, examples=MANY, threads=1, **options):
    """Make a dataset; return how many examples were done before its first shard, and the log."""
    done, lines = [], []
    made(
        path,
        library,
        examples,
        threads=threads,
        progress=lambda number, total: done.append(number),
        log=lines.append,
        **options,
    )
    assert sorted(done) == done
    assert done[-1] == examples
    assert list(path.parent.iterdir()) == [path]
    return done[0] - 64, lines


@pytest.mark.parametrize(
    ("number", "threads"),
    [(signal.SIGKILL, 1), (signal.SIGKILL, 2), (signal.SIGTERM, 2), (signal.SIGINT, 2)],
)
def test_what_was_killed_goes_on_and_no_byte_differs(
    library, whole, tmp_path, small_shards, number, threads
):
    path = tmp_path / "train.zarr.zip"
    others = killed(path, number, threads)
    assert len(others) == (threads if threads > 1 else 0)
    assert psutil.wait_procs(others, timeout=5)[1] == []
    assert resumed(path, library) == (128, ["goes on after 128 examples that are there already"])
    assert path.read_bytes() == whole.read_bytes()


class EndError(BaseException):
    """As SystemExit, by which SIGTERM ends a job, but of the tests."""


@pytest.fixture
def unfinished(library, tmp_path, small_shards):
    """A dataset of which two shards are done."""
    path = tmp_path / "train.zarr.zip"

    def progress(done, total):
        if done == 128:
            raise EndError

    with pytest.raises(EndError):
        made(path, library, MANY, progress=progress)
    assert list(tmp_path.iterdir()) == [checkpoint_of(path)]
    return path


@pytest.mark.parametrize(
    ("lost", "kept"), [(0, 64), (0.1, 64), (0.4, 64), (0.6, 0), (0.9999, 0), (1, 0)]
)
def test_a_shard_that_is_not_whole_is_made_again(unfinished, library, whole, lost, kept):
    archive = checkpoint_of(unfinished) / "archive"
    size = archive.stat().st_size
    os.truncate(archive, size - max(1, int(lost * size)))
    assert resumed(unfinished, library)[0] == kept
    assert unfinished.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(("place", "kept"), [(-1, 64), (-700, 64), (0.3, 0), (0, 0)])
def test_a_shard_with_a_flipped_bit_is_made_again(unfinished, library, whole, place, kept):
    archive = checkpoint_of(unfinished) / "archive"
    data = bytearray(archive.read_bytes())
    data[int(place * len(data)) if 0 < place < 1 else place] ^= 1
    archive.write_bytes(data)
    assert resumed(unfinished, library)[0] == kept
    assert unfinished.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("rest", [b"\0" * 5000, b"PK\3\4", b"PK\5\6" + bytes(18)])
def test_what_follows_the_last_whole_shard_is_cut_off(unfinished, library, whole, rest):
    with open(checkpoint_of(unfinished) / "archive", "ab") as archive:
        archive.write(rest)
    assert resumed(unfinished, library)[0] == 128
    assert unfinished.read_bytes() == whole.read_bytes()


def test_a_kill_before_the_file_gets_its_name_costs_no_shard(
    library, whole, tmp_path, small_shards, monkeypatch
):
    path = tmp_path / "train.zarr.zip"
    archive, rename = checkpoint_of(path) / "archive", os.replace

    def end_or_rename(old, new):
        if old == archive:
            raise EndError
        rename(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", end_or_rename)
        with pytest.raises(EndError):
            made(path, library, MANY)
    assert archive.read_bytes() == whole.read_bytes()
    lines = []
    made(path, library, MANY, log=lines.append)
    assert lines == [f"goes on after {MANY} examples that are there already"]
    assert path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"settings": replace(SETTINGS, electrons=(1e6, 4e7))},
        {"address": (8, *ADDRESS[1:])},
        {"examples": 350},
        {"library": replace(spots(), patterns=np.roll(spots().patterns, 1, axis=2))},
        {"library": replace(spots(), parameters=PARAMETERS[::-1])},
        {"library": replace(spots(), draws=[3, 8, 12])},
        {"library": replace(spots(), pixel_mrad=(1.0, 1.01))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_work_begins_anew(unfinished, library, tmp_path_factory, change):
    asked = {"library": library, "examples": MANY, **change}
    done, [line] = resumed(unfinished, **asked)
    assert done == 0
    assert "is of other patterns, other settings or another version" in line
    other = made(tmp_path_factory.mktemp("other") / "train.zarr.zip", **asked)
    assert unfinished.read_bytes() == other.read_bytes()


def test_another_version_begins_anew(unfinished, library, monkeypatch):
    monkeypatch.setattr(module, "__version__", "0.0.1")
    assert resumed(unfinished, library)[0] == 0


def workers():
    """The processes that this one has started to make examples; other tests have others."""
    children = psutil.Process().children()
    return [child for child in children if "pacbed.examples.processes" in child.cmdline()]


def test_a_process_that_is_killed_is_told_of_and_what_is_done_stays(
    library, tmp_path, small_shards
):
    path = tmp_path / "train.zarr.zip"

    def progress(done, total):
        if done == 64:
            workers()[0].kill()

    with pytest.raises(StoreError, match=r"ended by SIGKILL.* memory .*fewer threads"):
        made(path, library, 40 * 64, threads=2, progress=progress)
    assert not workers()
    assert resumed(path, library, 40 * 64)[0] >= 64


def test_a_failure_leaves_nothing_behind(library, tmp_path):
    broken = PatternSet(library.patterns, (1.0, 1.0), DRAWS, PARAMETERS[:1])
    with pytest.raises(IndexError):
        made(tmp_path / "broken.zarr.zip", broken)
    assert list(tmp_path.iterdir()) == []


def test_what_goes_wrong_in_a_process_goes_wrong_here(library, tmp_path, small_shards):
    dark = replace(SETTINGS, noise="poisson", electrons=(1e-9, 1e-9))
    with pytest.raises(PacbedError, match=r"raise dataset\.electrons"):
        made(tmp_path / "dark.zarr.zip", library, MANY, dark, threads=2)
    assert list(tmp_path.iterdir()) == []
    assert not workers()


def test_a_full_disk_is_told_of(library, tmp_path, small_shards, monkeypatch):
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", lambda file: (_ for _ in ()).throw(full))
    with pytest.raises(StoreError, match=r"cannot write .*train\.zarr\.zip: No space left"):
        made(tmp_path / "train.zarr.zip", library, MANY, threads=2)
    assert list(tmp_path.iterdir()) == []


def test_archives_may_be_larger_than_four_gigabytes(tmp_path):
    (tmp_path / "late").write_bytes(b"here")
    with open(tmp_path / "archive", "a+b") as file:
        archive = GrowingArchive(file, [["late"]])
        file.truncate(5 << 30)  # takes no space
        file.seek(0, io.SEEK_END)
        archive.append(tmp_path)
        archive.finish()
    with zipfile.ZipFile(tmp_path / "archive") as found:
        assert found.read("late") == b"here"


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
    found = read_pattern_set(stores, [4, 6], 2)
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
    np.testing.assert_allclose(read_pattern_set(stores, [0, 1], 1).parameters, expected, atol=1e-12)


@pytest.mark.parametrize("own", [False, True])
def test_every_pattern_of_an_averaged_library_is_averaged(own):
    raw = replace(spots(), pixel_mrad=(1.0, 0.5))
    averaged = raw.averaged(3.0, raw.patterns if own else None)
    for before, after in zip(spots().patterns, averaged.patterns, strict=True):
        np.testing.assert_array_equal(after, average_over_pixels(before, (1.0, 0.5), 3.0))
    assert averaged.patterns.dtype == np.float32
    assert np.array_equal(raw.patterns, spots().patterns) is not own
    assert (averaged.pixel_mrad, averaged.draws) == (raw.pixel_mrad, raw.draws)


def test_a_library_of_a_thickness_that_was_not_simulated_is_refused(tmp_path):
    store = simulated(tmp_path / "1.zarr.zip", 1)
    with pytest.raises(StoreError, match=r"1\.zarr\.zip has layers 1 to 3, not \[4\]"):
        read_pattern_set([store], [0], 4)


@pytest.mark.parametrize("other", [{"field": 44.0}, {"pixels": 10}])
def test_patterns_of_different_detectors_do_not_mix(tmp_path, other):
    stores = [simulated(tmp_path / "1.zarr.zip", 1), simulated(tmp_path / "2.zarr.zip", 1, **other)]
    with pytest.raises(StoreError, match=r"2\.zarr\.zip has other pixels than .*1\.zarr\.zip"):
        read_pattern_set(stores, [0, 1], 1)


def test_a_truncated_store_stops_the_library_by_name(tmp_path):
    stores = [simulated(tmp_path / f"{n}.zarr.zip", 1) for n in (1, 2)]
    stores[1].write_bytes(stores[1].read_bytes()[:-200])
    with pytest.raises(DamagedStoreError, match=r"2\.zarr\.zip is damaged") as caught:
        read_pattern_set(stores, [0, 1], 1)
    assert caught.value.path == stores[1]


def test_patterns_of_another_semiangle_are_refused_by_name(tmp_path):
    store = simulated(tmp_path / "1.zarr.zip", 1)
    angle = read_patterns(store).attributes["request"]["aperture"]["semiangle_mrad"]
    read_pattern_set([store], [0], 1, angle)
    with pytest.raises(StoreError, match=r"1\.zarr\.zip is of .* mrad, not of 33"):
        read_pattern_set([store], [0], 1, 33.0)


# By the script of the workflow

SNAKEFILE = """
rule augment:
    input: {stores}
    output: "{{split}}.zarr.zip"
    log: "logs/{{split}}.log"
    threads: 2
    params:
        seed=7, semiangle_mrad=6.35, layers=2, draws=[4, 6],
        augmentation={augmentation}, examples={examples},
    script: "{script}"
"""


def test_the_job_of_the_workflow_ends_with_its_run_and_goes_on(tmp_path):
    stores = [simulated(tmp_path / f"{n}.zarr.zip", n) for n in (1, 10)]
    settings = replace(SETTINGS, pixels=64, field_of_view_mrad=16)
    section = {name: value for name, value in vars(settings).items() if name != "rotation_deg"}
    augmentation = {"deformation": {"rotation_deg": [-10, 10]}, "dataset": section}
    script = Path(__file__).parents[2] / "workflow/scripts/augment.py"
    examples = 10 * 512  # ten shards, and just as many as two processes are worth
    (tmp_path / "Snakefile").write_text(
        SNAKEFILE.format(
            stores=list(map(str, stores)),
            augmentation=augmentation,
            examples=examples,
            script=script,
        )
    )
    path, log = tmp_path / "train.zarr.zip", tmp_path / "logs/train.log"
    growing = checkpoint_of(path) / "archive"
    run = functools.partial(
        subprocess.Popen,
        [sys.executable, "-m", "snakemake", path.name, "--cores", "2", "--nolock"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    with run() as controller:
        deadline = time.monotonic() + 200
        while not (growing.exists() and growing.stat().st_size > 2e6):
            assert controller.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        jobs = psutil.Process(controller.pid).children(recursive=True)
        assert sum("pacbed.examples.processes" in " ".join(job.cmdline()) for job in jobs) == 2
        controller.kill()
    assert psutil.wait_procs(jobs, timeout=20)[1] == []
    assert not path.exists()
    with run() as controller:
        assert controller.wait(200) == 0, log.read_text()
    assert "goes on after" in log.read_text()
    assert not checkpoint_of(path).exists()
    found = read_dataset(path)
    assert len(np.unique(found.electrons)) == examples
    address = (7, 6.35, 2, "train")
    made(tmp_path / "few.zarr.zip", read_pattern_set(stores, [4, 6], 2), 64, settings, address)
    few = read_dataset(tmp_path / "few.zarr.zip")
    np.testing.assert_array_equal(found.images[:64], few.images)
    np.testing.assert_array_equal(found.draws[:64], few.draws)


if __name__ == "__main__":
    write_until_killed(Path(sys.argv[1]), int(sys.argv[2]))
