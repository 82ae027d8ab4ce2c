"""Maps that other programs open."""

import json
import sys

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from reading.synthetic_map import synthetic_map

from pacbed.exceptions import PacbedError
from pacbed.reading.maps.export import export_map


@pytest.fixture(scope="module")
def small():
    return synthetic_map(5, 8, 2.0)


def test_hyperspy_opens_a_signal_for_each_quantity(small, tmp_path):
    pytest.importorskip("rsciio", reason="RosettaSciIO is not installed")
    hyperspy = pytest.importorskip("hyperspy.api", reason="HyperSpy is not installed")
    export_map(small, tmp_path / "map.hspy")
    signals = {s.metadata.General.title: s for s in hyperspy.load(tmp_path / "map.hspy")}
    assert set(signals) == set(small.values)
    for name, signal in signals.items():
        np.testing.assert_array_equal(signal.data, small.values[name])
    strain = signals["strain_xx"]
    x, y = strain.axes_manager["x"], strain.axes_manager["y"]
    assert (x.size, x.scale, x.units) == (8, 2.0, "nm")
    assert (y.size, y.scale, y.units) == (5, 2.0, "nm")
    assert signals["tilt_x_mrad_sigma"].metadata.Signal.quantity == "tilt_x_mrad_sigma (mrad)"
    known = json.loads(strain.original_metadata.pacbed)
    assert known["calibration"]["pixel_mrad"] == 0.52


def test_py4dstem_reads_an_array_for_each_quantity(small, tmp_path):
    emdfile = pytest.importorskip("emdfile", reason="emdfile, by py4DSTEM, is not installed")
    export_map(small, tmp_path / "map.emd")
    root = emdfile.read(str(tmp_path / "map.emd"))
    strain = root.tree("strain_xx")
    np.testing.assert_array_equal(strain.data, small.values["strain_xx"])
    assert list(strain.dim_units) == ["nm", "nm"]
    assert list(strain.dim_names) == ["y", "x"]
    np.testing.assert_allclose(strain.dims[1], small.x_nm)
    assert root.tree("sigma_tilt_x_mrad").units == "mrad"
    assert root.metadata["pacbed"]["calibration"]["pixel_mrad"] == 0.52
    assert root.metadata["pacbed"]["material"] == "MoS2"


def test_an_emd_file_has_the_layout_of_emd_1(small, tmp_path):
    export_map(small, tmp_path / "map.emd")
    with h5py.File(tmp_path / "map.emd") as file:
        assert file.attrs["emd_group_type"] == "file"
        assert (file.attrs["version_major"], file.attrs["version_minor"]) == (1, 0)
        assert file["map"].attrs["emd_group_type"] == "root"
        arrays = [g for g in file["map"].values() if g.attrs["emd_group_type"] == "array"]
        assert len(arrays) == len(small.values)
        assert {"data", "dim0", "dim1"} == set(arrays[0])


def test_rosettasciio_reads_the_emd_file(small, tmp_path):
    emd = pytest.importorskip("rsciio.emd", reason="RosettaSciIO is not installed")
    export_map(small, tmp_path / "map.emd")
    found = {
        one["metadata"]["General"]["title"]: one for one in emd.file_reader(tmp_path / "map.emd")
    }
    assert len(found) == len(small.values)
    np.testing.assert_array_equal(found["strain_yy"]["data"], small.values["strain_yy"])
    assert [axis["units"] for axis in found["layers"]["axes"]] == ["nm", "nm"]


def test_a_tiff_file_has_a_named_page_for_each_quantity(small, tmp_path):
    export_map(small, tmp_path / "map.tif")
    with Image.open(tmp_path / "map.tif") as image:
        pages = {}
        for page in range(image.n_frames):
            image.seek(page)
            described = json.loads(image.tag_v2[270])
            pages[described["name"]] = described, np.array(image)
    assert list(pages) == list(small.values)
    for name, (_, values) in pages.items():
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, small.values[name])
    assert pages["tilt_x_mrad"][0]["units"] == "mrad"
    assert pages["tilt_x_mrad"][0]["step"] == 2.0
    assert pages["strain_xx"][0]["map"]["material"] == "MoS2"


def test_other_readers_open_the_tiff_file(small, tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    export_map(small, tmp_path / "map.tif")
    assert tifffile.imread(tmp_path / "map.tif").shape == (len(small.values), 5, 8)


def test_a_table_has_a_line_for_each_point(small, tmp_path):
    export_map(small, tmp_path / "map.csv")
    table = pd.read_csv(tmp_path / "map.csv")
    assert len(table) == 40
    assert table["x_nm"].max() == 14.0
    at = table[(table["row"] == 3) & (table["column"] == 6)].iloc[0]
    assert at["strain_xx"] == pytest.approx(small.values["strain_xx"][3, 6], rel=1e-6)


def test_an_unknown_format_is_named(small, tmp_path):
    with pytest.raises(PacbedError, match=r"\.hspy"):
        export_map(small, tmp_path / "map.docx")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rsciio.hspy", None)
    with pytest.raises(PacbedError, match="pip install"):
        export_map(small, tmp_path / "map.hspy")
    assert not list(tmp_path.iterdir())
