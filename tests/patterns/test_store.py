"""The pattern store: what is written is read back, and damage never passes for zeros."""

import subprocess
import sys
import textwrap
import zipfile

import numpy as np
import pytest
import xarray
import zarr.storage

from pacbed.engines import SimulationRequest, SimulationResult, ThermalMotion
from pacbed.exceptions import StoreError
from pacbed.patterns.store import read_patterns, write_patterns
from pacbed.specimen.crystal import MATERIALS
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture, Detector

REQUEST = SimulationRequest(
    material=MATERIALS["MoS2"],
    deformation=Deformation(1.04, 0.97, 30),
    tilt_mrad=(2.0, -3.0),
    layers=3,
    energy_keV=80,
    aperture=Aperture(6.35),
    detector=Detector((40, 30), (8, 6)),
    thermal=ThermalMotion("coherent"),
    seed=5,
)
PATTERNS = np.random.default_rng(0).random((3, 6, 8)).astype(np.float32)
RESULT = SimulationResult(PATTERNS, {"engine": "none", "grid": (4, 5), "seconds": 0.1})


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "draw.zarr.zip"
    write_patterns(path, REQUEST, RESULT, {"revision": "abc"})
    return path


def damaged(path, contents):
    bad = path.with_name("damaged.zarr.zip")
    bad.write_bytes(contents)
    return bad


def assert_refused_by_name(path):
    with pytest.raises(StoreError, match=path.name):
        read_patterns(path)


def is_what_was_written(read):
    return (
        np.array_equal(read.patterns, PATTERNS)
        and np.array_equal(read.layers, [1, 2, 3])
        and np.array_equal(read.kx_mrad, REQUEST.detector.kx_mrad)
        and np.array_equal(read.ky_mrad, REQUEST.detector.ky_mrad)
    )


# Round trip


def test_what_was_written_is_read(store):
    read = read_patterns(store)
    assert read.patterns.dtype == np.float32
    assert is_what_was_written(read)


def test_request_and_provenance_are_read(store):
    attributes = read_patterns(store).attributes
    request = attributes["request"]
    assert request["deformation"] == {"stretch_1": 1.04, "stretch_2": 0.97, "angle_deg": 30}
    assert request["tilt_mrad"] == [2.0, -3.0]
    assert request["material"]["formula"] == "MoS2"
    assert request["seed"] == 5
    assert [attributes[name] for name in ("engine", "grid", "revision")] == ["none", [4, 5], "abc"]


def test_xarray_understands_axes_and_coordinates(store):
    with xarray.open_zarr(zarr.storage.ZipStore(store, mode="r")) as data:
        patterns = data["patterns"]
        assert patterns.dims == ("layer", "ky_mrad", "kx_mrad")
        np.testing.assert_array_equal(patterns.values, PATTERNS)
        np.testing.assert_array_equal(data.coords["layer"], [1, 2, 3])
        np.testing.assert_array_equal(data.coords["kx_mrad"], (np.arange(8) - 4) * 5.0)
        np.testing.assert_array_equal(data.coords["ky_mrad"], (np.arange(6) - 3) * 5.0)
        assert data.coords["kx_mrad"].attrs["units"] == "mrad"
        np.testing.assert_array_equal(patterns.sel(layer=2, kx_mrad=-5.0), PATTERNS[1, :, 3])


@pytest.mark.parametrize("layers", [[2], [3, 1]])
def test_some_layers_are_read_in_the_order_asked_for(store, layers):
    read = read_patterns(store, layers)
    assert read.layers.tolist() == layers
    np.testing.assert_array_equal(read.patterns, PATTERNS[np.array(layers) - 1])


def test_every_layer_is_a_chunk_of_its_own(store):
    with zipfile.ZipFile(store) as archive:
        chunks = [n for n in archive.namelist() if n.startswith("patterns/c/")]
    assert chunks == ["patterns/c/0/0/0", "patterns/c/1/0/0", "patterns/c/2/0/0"]


def test_pattern_of_zeros_is_read_as_zeros(tmp_path):
    path = tmp_path / "dark.zarr.zip"
    write_patterns(path, REQUEST, SimulationResult(np.zeros_like(PATTERNS), {}))
    np.testing.assert_array_equal(read_patterns(path).patterns, 0)


def test_equal_results_make_equal_bytes(tmp_path):
    first, second = tmp_path / "a" / "draw.zarr.zip", tmp_path / "b" / "draw.zarr.zip"
    for path in (first, second):
        write_patterns(path, REQUEST, RESULT)
    assert first.read_bytes() == second.read_bytes()


# Damage


@pytest.mark.parametrize("end", [0.0, 0.01, 0.3, 0.5, 0.9, 0.99, -23, -22, -10, -1])
def test_truncated_store_is_refused(store, end):
    contents = store.read_bytes()
    length = len(contents) + end if end < 0 else int(end * len(contents))
    assert_refused_by_name(damaged(store, contents[:length]))


def without(store, *removed):
    bad = store.with_name("damaged.zarr.zip")
    with zipfile.ZipFile(store) as source, zipfile.ZipFile(bad, "w") as target:
        assert set(removed) <= set(source.namelist())
        for name in source.namelist():
            if name not in removed:
                target.writestr(name, source.read(name))
    return bad


@pytest.mark.parametrize(
    "removed",
    [
        *[["patterns/c/2/0/0"], ["kx_mrad/c/0"], ["layer/c/0"], ["zarr.json"]],
        *[["ky_mrad/zarr.json"], ["patterns/zarr.json", "patterns/c/1/0/0"]],
    ],
)
def test_store_without_one_of_its_parts_is_refused(store, removed):
    assert_refused_by_name(without(store, *removed))


def test_missing_chunk_is_named_even_if_another_layer_is_read(store):
    with pytest.raises(StoreError, match="chunk patterns/c/2/0/0 is missing"):
        read_patterns(without(store, "patterns/c/2/0/0"), [1])


def test_zarr_store_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "other.zarr.zip"
    with zarr.storage.ZipStore(path, mode="w") as other:
        zarr.create_group(other).create_array("images", data=np.ones(3))
    with pytest.raises(StoreError, match=r"other\.zarr\.zip is a store of another kind"):
        read_patterns(path)


def test_layer_that_was_not_computed_is_refused(store):
    with pytest.raises(StoreError, match=r"draw\.zarr\.zip has layers 1 to 3, not \[0, 4\]"):
        read_patterns(store, [4, 1, 0])


# A full disk

WRITE_UNDER_A_LIMIT = """
    import resource, sys
    from dataclasses import replace
    from pathlib import Path

    import numpy as np

    from pacbed.engines import SimulationResult
    from pacbed.exceptions import StoreError
    from pacbed.specimen.microscope import Detector
    from pacbed.patterns.store import write_patterns

    sys.path.insert(0, sys.argv[1])
    from test_store import REQUEST

    path, limit = Path(sys.argv[2]), int(sys.argv[3])
    request = replace(REQUEST, detector=Detector((40, 40), (50, 50)))
    noise = np.random.default_rng(1).random((12, 50, 50)).astype(np.float32)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write_patterns(path, request, SimulationResult(noise, {}))
    except StoreError as error:
        print(error)
        sys.exit(3)
"""


def write_under_a_limit(path, limit_bytes):
    code, here = textwrap.dedent(WRITE_UNDER_A_LIMIT), __file__.rpartition("/")[0]
    command = [sys.executable, "-c", code, here, str(path), str(limit_bytes)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# A chunk of noise takes about 9 kB, the archive of twelve about 120 kB.
@pytest.mark.parametrize(
    "limit_bytes", [pytest.param(4_000, id="chunk"), pytest.param(20_000, id="archive")]
)
def test_failed_write_leaves_an_earlier_store_and_nothing_else(store, limit_bytes):
    before = store.read_bytes()

    attempt = write_under_a_limit(store, limit_bytes)

    assert attempt.returncode == 3, attempt.stderr
    assert f"cannot write {store}: File too large" in attempt.stdout
    assert "free some space or choose another folder" in attempt.stdout
    assert [p.name for p in store.parent.iterdir()] == [store.name]
    assert store.read_bytes() == before
    assert is_what_was_written(read_patterns(store))


def test_store_cannot_be_written_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write .*draw\.zarr\.zip"):
        write_patterns(tmp_path / "file" / "draw.zarr.zip", REQUEST, RESULT)
