"""A map is one file that says what is in it."""

import zipfile
from dataclasses import replace

import numpy as np
import pytest
import xarray
import zarr
from reading.synthetic_map import synthetic_map

from pacbed.cli import main
from pacbed.exceptions import DamagedStoreError, MissingStoreError, StoreError
from pacbed.reading.maps.store import FLAGS, QUANTITIES, StrainMap, read_map, write_map


@pytest.fixture(scope="module")
def small():
    return synthetic_map(6, 9)


@pytest.fixture
def written(small, tmp_path):
    path = tmp_path / "map.zarr.zip"
    write_map(path, small)
    return path


def test_what_is_written_is_read(small, written):
    found = read_map(written)
    assert set(found.values) == set(small.values)
    for name, values in small.values.items():
        np.testing.assert_array_equal(found.values[name], values, name)
        assert found.values[name].dtype == values.dtype
    np.testing.assert_array_equal(found.x_nm, small.x_nm)
    np.testing.assert_array_equal(found.y_nm, small.y_nm)
    assert found.attributes["calibration"] == small.attributes["calibration"]
    assert found.common_sigma("strain_xx") == 0.002
    assert found.common_sigma("relative_strain_xx") == 0


def test_xarray_opens_it_with_axes_units_and_flags(small, written):
    with xarray.open_zarr(zarr.storage.ZipStore(written, mode="r")) as data:
        assert dict(data.sizes) == {"y": 6, "x": 9}
        assert data.strain_xx.dims == ("y", "x")
        assert set(QUANTITIES) <= set(data.data_vars)
        assert data.x.attrs["units"] == "nm"
        assert data.tilt_x_mrad.attrs["units"] == "mrad"
        assert data.rotation_deg_sigma.attrs["units"] == "degree"
        assert all(data[name].attrs["long_name"] for name in data.variables)
        assert data.strain_xx.attrs["common_sigma"] == 0.002
        assert data.flags.attrs["flag_masks"] == list(FLAGS)
        assert len(data.flags.attrs["flag_meanings"].split()) == len(FLAGS)
        assert data.layers.dtype == np.int16
        assert data.flags.dtype == np.uint8
        at = data.strain_xx.sel(x=4.0, y=2.0)
        assert float(at) == small.values["strain_xx"][1, 2]


def test_equal_maps_make_equal_files(small, written, tmp_path):
    write_map(tmp_path / "again.zarr.zip", small)
    assert written.read_bytes() == (tmp_path / "again.zarr.zip").read_bytes()


def test_a_map_in_which_nothing_is_claimed_can_be_kept(tmp_path):
    nothing = np.full((2, 3), np.nan, np.float32)
    values = {"strain_xx": nothing, "flags": np.full((2, 3), 8, np.uint8)}
    write_map(tmp_path / "m.zarr.zip", StrainMap(values, np.arange(3.0), np.arange(2.0)))
    found = read_map(tmp_path / "m.zarr.zip")
    assert not found.claimed.any()
    assert found.flagged(8).all()


def test_positions_may_be_points(small, tmp_path):
    one = StrainMap(small.values, small.x_nm, small.y_nm, {"coordinate_units": "points"})
    write_map(tmp_path / "m.zarr.zip", one)
    assert read_map(tmp_path / "m.zarr.zip").coordinate_units == "points"


def test_attributes_may_hold_numbers_of_numpy_and_paths(small, tmp_path):
    odd = {"a": np.float32(0.5), "b": np.arange(2), "c": tmp_path, "d": {"e": np.nan}}
    write_map(tmp_path / "m.zarr.zip", StrainMap(small.values, small.x_nm, small.y_nm, odd))
    found = read_map(tmp_path / "m.zarr.zip").attributes
    assert found["a"] == 0.5
    assert found["b"] == [0, 1]
    assert found["c"] == str(tmp_path)
    assert found["d"] == {"e": None}


def test_what_is_no_map_is_refused(small, tmp_path):
    path = tmp_path / "m.zarr.zip"
    with pytest.raises(StoreError, match="no 'stress'"):
        write_map(path, StrainMap({"stress": np.zeros((6, 9))}, small.x_nm, small.y_nm))
    with pytest.raises(StoreError, match="shape"):
        write_map(path, StrainMap({"strain_xx": np.zeros((5, 9))}, small.x_nm, small.y_nm))
    assert not path.exists()
    with pytest.raises(MissingStoreError):
        read_map(path)
    with zarr.storage.ZipStore(path, mode="w") as store:
        zarr.create_group(store)
    with pytest.raises(StoreError, match="pacbed map"):
        read_map(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"values": {"layers": np.ones((6, 9, 2))}}, "layers cannot be used"),
        ({"values": {"strain_xx": np.ones((2, 9))}}, "strain_xx cannot be used"),
        ({"x_nm": np.arange(4.0)}, "strain_xx"),
        ({"attributes": {"common_sigma": [1]}}, "common_sigma cannot be used"),
        ({"attributes": {"common_sigma": {"strain_xx": "a"}}}, "common_sigma of strain_xx"),
        ({"attributes": {"energy_keV": "80"}}, "energy_keV cannot be used"),
        ({"attributes": {"warnings": 3}}, "warnings cannot be used"),
        ({"attributes": {"provenance": [1]}}, "provenance cannot be used"),
    ],
)
def test_a_map_that_was_changed_is_refused_in_one_message(small, tmp_path, changes, said):
    path = tmp_path / "m.zarr.zip"
    known = {
        name: {**getattr(small, name), **changes.get(name, {})} for name in ("values", "attributes")
    }
    with zarr.storage.ZipStore(path, mode="w") as store:
        said_of = {"kind": "strain map", "format": 1, **known["attributes"]}
        group = zarr.create_group(store, attributes=said_of)
        at = {"x": changes.get("x_nm", small.x_nm), "y": small.y_nm}
        for name, values in {**known["values"], **at}.items():
            group.create_array(name, data=values, chunks=values.shape)
    with pytest.raises(StoreError, match=said):
        read_map(path)


@pytest.mark.parametrize(
    "content", ["[]", '{"zarr_format": 3, "node_type": "group", "attributes": [1]}', "{", "3"]
)
def test_an_archive_that_only_looks_like_a_store_is_refused(tmp_path, content):
    with zipfile.ZipFile(tmp_path / "m.zarr.zip", "w") as archive:
        archive.writestr("zarr.json", content)
    with pytest.raises(StoreError, match=r"m\.zarr\.zip"):
        read_map(tmp_path / "m.zarr.zip")


@pytest.mark.parametrize("lost", ["layers", "flags", "rotation_deg", "layers_probability"])
def test_a_map_without_a_quantity_is_shown_without_it(small, tmp_path, lost):
    values = {name: one for name, one in small.values.items() if name != lost}
    write_map(tmp_path / "m.zarr.zip", replace(small, values=values))
    assert main(["export", str(tmp_path / "m.zarr.zip"), str(tmp_path / "m.html")]) == 0


def test_a_damaged_map_is_not_read(written):
    content = written.read_bytes()
    written.write_bytes(content[: len(content) // 2])
    with pytest.raises(DamagedStoreError):
        read_map(written)
