"""A scan is the same whatever file it comes from, and what is wrong with a file is said."""

import tracemalloc
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import zarr

from pacbed.exceptions import PacbedError
from pacbed.reading.scans.files import Axis, Contents
from pacbed.reading.scans.overview import Overview
from pacbed.reading.scans.scan import Scan, ScanOptions, open_scan
from pacbed.reading.scans.writing import WRITERS, _signal, write_scan

ALL = slice(None)
KNOWN = {"pixel_mrad": 0.65, "step_nm": 2.0, "energy_keV": 80.0, "semiangle_mrad": 6.35}


@pytest.fixture(scope="module")
def counts():
    """Patterns that no flip and no exchange of axes leaves as they are."""
    return np.random.default_rng(3).poisson(4, (5, 6, 26, 32)).astype(np.uint16)


@pytest.fixture(scope="module")
def scan(counts):
    return Scan.of(counts, **KNOWN)


def test_a_scan_of_an_array_has_its_patterns(scan, counts):
    assert scan.shape == (5, 6)
    assert scan.pattern_shape == (26, 32)
    assert scan.patterns(slice(1, 3), slice(2, 6, 2)).dtype == np.float32
    np.testing.assert_array_equal(scan.patterns(slice(1, 3), slice(2, 6, 2)), counts[1:3, 2:6:2])
    np.testing.assert_array_equal(scan.points([[4, 5], [0, 2]]), counts[[4, 0], [5, 2]])


def test_means_and_sums_of_pieces_are_those_of_all(scan, counts, monkeypatch):
    monkeypatch.setattr("pacbed.reading.scans.overview._BLOCK_BYTES", 8 * counts_of_a_row(scan))
    monkeypatch.setattr("pacbed.reading.scans.overview._disc", lambda *_: ((20, 10), 4.2, []))
    overview = Overview.of(scan)
    np.testing.assert_allclose(overview.mean, counts.mean(axis=(0, 1)))
    np.testing.assert_allclose(overview.sums, counts.sum(axis=(2, 3)))
    near = np.hypot(*np.ogrid[-10:16, -20:12]) <= 4.2
    np.testing.assert_allclose(overview.bright, counts[..., near].sum(axis=-1))


def test_blocks_cover_all_rows_and_fit(scan):
    blocks = list(scan.blocks(2 * 4 * counts_of_a_row(scan)))
    assert [(b.start, b.stop) for b in blocks] == [(0, 2), (2, 4), (4, 5)]
    assert len(list(scan.blocks(1))) == 5


def counts_of_a_row(scan):
    return scan.shape[1] * scan.pattern_shape[0] * scan.pattern_shape[1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"flip_x": True}, lambda p: p[..., ::-1]),
        ({"mirrored": True}, lambda p: p[..., ::-1]),
        ({"mirrored": True, "flip_x": True}, lambda p: p),
        ({"flip_y": True}, lambda p: p[..., ::-1, :]),
        ({"transpose": True}, lambda p: p.swapaxes(-1, -2)),
        ({"flip_x": True, "transpose": True}, lambda p: p[..., ::-1].swapaxes(-1, -2)),
        ({"crop_px": (2, 1, 32, 25)}, lambda p: p[..., 1:25, 2:32]),
        ({"area": (1, 2, 6, 4)}, lambda p: p[2:4, 1:6]),
    ],
)
def test_options_do_what_they_say(counts, options, expected):
    scan = Scan.of(counts, ScanOptions(**options))
    found = scan.patterns(ALL)
    np.testing.assert_array_equal(found, expected(counts))
    assert found.shape == (*scan.shape, *scan.pattern_shape)
    np.testing.assert_array_equal(scan.points([[1, 2]])[0], found[1, 2])


def test_a_turn_moves_the_x_axis_to_the_y_axis():
    pattern = np.zeros((1, 1, 33, 33))
    pattern[0, 0, 16, 26] = 1  # along x
    for turn, place in ((90, (26, 16)), (180, (16, 6)), (270, (6, 16))):
        turned = Scan.of(pattern, ScanOptions(turn_deg=turn)).patterns(ALL)[0, 0]
        assert np.unravel_index(turned.argmax(), turned.shape) == place


def test_bins_sum_counts_and_make_pixels_larger(counts):
    counts = np.tile(counts, (1, 1, 2, 2))
    scan = Scan.of(counts, ScanOptions(bins=2), pixel_mrad=0.4)
    assert scan.pixel_mrad == pytest.approx(0.8)
    assert scan.pattern_shape == (26, 32)
    found = scan.patterns(ALL).sum(axis=(2, 3))
    np.testing.assert_allclose(found, counts.sum(axis=(2, 3)))


def test_patterns_that_are_not_finite_do_not_count(counts):
    values = counts.astype(float)
    values[2] = np.nan
    scan = Scan.of(values)
    overview = Overview.of(scan)
    np.testing.assert_allclose(overview.mean, counts[[0, 1, 3, 4]].mean(axis=(0, 1)))
    assert np.isnan(overview.sums[2]).all()
    assert np.isfinite(overview.sums[[0, 1, 3, 4]]).all()
    assert "6 of 30 patterns are not finite" in " ".join(overview.notes)
    values[0, 0, 3, 4:6] = np.nan
    assert "2 pixels are not finite in some patterns" in " ".join(
        Overview.of(Scan.of(values)).notes
    )


@pytest.mark.parametrize("ending", WRITERS)
def test_a_scan_goes_through_files(scan, counts, ending, tmp_path):
    path = tmp_path / f"scan{ending}"
    write_scan(path, scan)
    found = open_scan(path)
    np.testing.assert_array_equal(found.patterns(ALL), counts)
    np.testing.assert_array_equal(found.points([[3, 1], [0, 5]]), counts[[3, 0], [1, 5]])
    np.testing.assert_array_equal(found.patterns(slice(3, 4), slice(1, 6, 2)), counts[3:4, 1:6:2])
    if ending not in (".npy", ".mib"):
        assert {name: getattr(found, name) for name in KNOWN} == pytest.approx(KNOWN)
    else:
        assert found.pixel_mrad is None


def test_other_formats_are_read(scan, counts, tmp_path):
    np.savez(tmp_path / "a.npz", counts)
    zarr.save_array(tmp_path / "a.zarr", counts)
    mrc(tmp_path / "a.mrc", counts.reshape(30, 26, 32))
    tiff = pytest.importorskip("tifffile")
    tiff.imwrite(tmp_path / "a.tif", counts.reshape(30, 26, 32))
    for name in ("a.npz", "a.zarr", "a.mrc", "a.tif"):
        found = open_scan(tmp_path / name, ScanOptions(scan_shape=(5, 6)))
        np.testing.assert_array_equal(found.patterns(ALL), counts, err_msg=name)


def test_a_row_of_merlin_takes_a_shape(scan, counts, tmp_path):
    write_scan(tmp_path / "a.mib", scan)
    found = open_scan(tmp_path / "a.mib", ScanOptions(scan_shape=(3, 10)))
    np.testing.assert_array_equal(found.patterns(ALL), counts.reshape(3, 10, 26, 32))
    with pytest.raises(PacbedError, match="holds 30 patterns, not 4 × 7"):
        open_scan(tmp_path / "a.mib", ScanOptions(scan_shape=(4, 7)))


def test_empad_is_read_without_its_last_rows(tmp_path):
    frames = np.random.default_rng(0).normal(size=(4, 3, 130, 128)).astype("<f4")
    frames.tofile(tmp_path / "scan_x3_y4.raw")
    (tmp_path / "a.xml").write_text(
        '<root><raw_file filename="scan_x3_y4.raw"/><pix_x>3</pix_x><pix_y>4</pix_y></root>'
    )
    found = open_scan(tmp_path / "a.xml")
    assert found.kind == "EMPAD"
    np.testing.assert_array_equal(found.patterns(ALL), frames[..., :128, :])


def test_blockfile_is_read(counts, scan, tmp_path):
    blockfile = pytest.importorskip("rsciio.blockfile")
    square = counts[..., :26].astype(np.uint8)
    with pytest.warns(UserWarning, match="cm units"):
        blockfile.file_writer(str(tmp_path / "a.blo"), _signal(tmp_path, square, scan))
    found = open_scan(tmp_path / "a.blo")
    assert (found.kind, found.pixel_mrad) == ("Blockfile", None)
    np.testing.assert_array_equal(found.patterns(ALL), square)


def mrc(path, stack):
    """Write an MRC file of 16 bits, as of the format of 2014."""
    head = np.zeros(256, "<i4")
    head[:4] = *stack.shape[::-1], 6
    head[7:10] = stack.shape[::-1]
    head[52] = int.from_bytes(b"MAP ", "little")
    head[53] = 0x4444
    path.write_bytes(head.tobytes() + stack.astype("<u2").tobytes())


def test_hdf5_of_nobody_is_read(counts, tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["small"] = np.zeros((4, 5))
        file["result/patterns"] = counts
        file["result/patterns"].attrs["pixel_mrad"] = 0.5
    found = open_scan(tmp_path / "a.h5")
    assert (found.kind, found.pixel_mrad) == ("HDF5", 0.5)
    np.testing.assert_array_equal(found.patterns(slice(1, 3)), counts[1:3])


def test_what_py4dstem_writes_is_read_with_its_calibrations(counts, tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs.update(emd_group_type="file", version_major=1, version_minor=0)
        root = file.create_group("cube_root")
        root.attrs["emd_group_type"] = "root"
        cube = root.create_group("cube")
        cube.attrs.update(emd_group_type="array", python_class="DataCube")
        cube["data"] = counts
        for n in range(4):
            cube[f"dim{n}"] = [0.0, 1.0]
            cube[f"dim{n}"].attrs.update(name=f"dim{n}", units="pixels")
        known = root.create_group("metadatabundle/calibration")
        known["Q_pixel_size"], known["Q_pixel_units"] = 0.02, "A^-1"
        known["R_pixel_size"], known["R_pixel_units"] = 20.0, "A"
    found = open_scan(tmp_path / "a.h5", ScanOptions(energy_keV=80))
    np.testing.assert_array_equal(found.patterns(ALL), counts)
    assert (found.kind, found.step_nm) == ("EMD", 2.0)
    assert found.pixel_mrad == pytest.approx(1e3 * 0.02 * 0.041757, rel=1e-4)


def test_zspy_is_read_without_zarr_2(counts, tmp_path):
    group = zarr.open_group(tmp_path / "a.zspy", mode="w", zarr_format=2)
    inner = group.create_group("Experiments/ripple")
    inner.create_array("data", data=counts, chunks=(2, 2, 26, 32))
    scales = (("nm", 3.0), ("nm", 3.0), ("1/nm", 0.25), ("1/nm", 0.25))
    for n, (units, scale) in enumerate(scales):
        axis = {"units": units, "scale": scale, "size": counts.shape[n], "navigate": n < 2}
        inner.create_group(f"axis-{n}").attrs.update(axis)
    beam = inner.create_group("metadata/Acquisition_instrument/TEM")
    beam.attrs["beam_energy"] = 200.0
    found = open_scan(tmp_path / "a.zspy")
    np.testing.assert_array_equal(found.patterns(ALL), counts)
    assert (found.step_nm, found.energy_keV) == (3.0, 200.0)
    assert found.pixel_mrad == pytest.approx(0.25 * 2.5079, rel=1e-4)  # wavelength in pm


@pytest.mark.parametrize(
    ("units", "nm"), [("nm", 1), ("Å", 0.1), ("A", 0.1), ("um", 1e3), ("µm", 1e3), ("m", 1e9)]
)
def test_units_of_length(units, nm):
    assert Axis(4, 2.0, units).length_nm == pytest.approx(2 * nm)


@pytest.mark.parametrize("units", ["1/nm", "1 / nm", "nm^-1", "nm⁻¹", "nm**-1", "1/(nm)"])
def test_units_of_frequency(units):
    assert Axis(4, 2.0, units).per_nm == pytest.approx(2)
    assert Axis(4, 2.0, units.replace("nm", "Å")).per_nm == pytest.approx(20)
    assert Axis(4, 2.0, units).length_nm is None


def test_frequencies_become_angles_with_the_energy_of_an_option(counts, tmp_path):
    hspy = pytest.importorskip("hyperspy.api")
    signal = hspy.signals.Signal2D(counts)
    for axis, units, scale in zip(
        signal.axes_manager.signal_axes, ("1/Å", "1/Å"), (0.02, 0.02), strict=True
    ):
        axis.units, axis.scale = units, scale
    signal.save(tmp_path / "a.hspy")
    unknown = open_scan(tmp_path / "a.hspy")
    assert unknown.pixel_mrad is None
    assert "--energy" in " ".join(unknown.notes)
    known = open_scan(tmp_path / "a.hspy", ScanOptions(energy_keV=80))
    assert known.pixel_mrad == pytest.approx(1e3 * 0.02 * 0.041757, rel=1e-4)


def test_patterns_that_come_first_are_put_last(counts):
    axes = (Axis(26, 1, "mrad"), Axis(32, 1, "mrad"), Axis(5, 1, "nm"), Axis(6, 1, "nm"))
    found = Contents(counts.transpose(2, 3, 0, 1), "EMD", axes).upright()
    np.testing.assert_array_equal(found.values, counts)
    assert found.notes


def test_what_an_option_says_wins_and_is_said(scan, tmp_path):
    write_scan(tmp_path / "a.zarr.zip", scan)
    found = open_scan(tmp_path / "a.zarr.zip", ScanOptions(energy_keV=200, pixel_mrad=0.7))
    assert (found.energy_keV, found.pixel_mrad) == (200, 0.7)
    said = " ".join(found.notes)
    assert "80 keV in the file; 200" in said
    assert "0.65 mrad in the file; 0.7" in said


def test_an_impossible_energy_is_not_used(scan, tmp_path):
    write_scan(tmp_path / "a.zarr.zip", replace(scan, energy_keV=8e4))
    found = open_scan(tmp_path / "a.zarr.zip")
    assert found.energy_keV is None
    assert "not within 30 and 300 keV" in found.notes[0]


def test_a_row_of_patterns_needs_a_shape(counts, tmp_path):
    np.save(tmp_path / "row.npy", counts.reshape(30, 26, 32))
    with pytest.raises(PacbedError, match=r"row of 30 patterns .* --scan-shape .* example 5 6"):
        open_scan(tmp_path / "row.npy")
    with pytest.raises(PacbedError, match=r"30 patterns, not 4 × 7 = 28"):
        open_scan(tmp_path / "row.npy", ScanOptions(scan_shape=(4, 7)))
    found = open_scan(tmp_path / "row.npy", ScanOptions(scan_shape=(5, 6)))
    np.testing.assert_array_equal(found.patterns(slice(1, 4, 2), slice(2, 4)), counts[1:4:2, 2:4])


def test_merlin_that_was_interrupted_keeps_its_lines(scan, counts, tmp_path):
    path = tmp_path / "a.mib"
    write_scan(path, scan)
    path.write_bytes(path.read_bytes()[: int(0.7 * path.stat().st_size)])
    found = open_scan(path)
    assert found.shape == (3, 6)
    assert "18 of 30 patterns" in " ".join(found.notes)
    np.testing.assert_array_equal(found.patterns(ALL), counts[:3])


@pytest.mark.parametrize("ending", [".hspy", ".emd", ".zarr.zip", ".npy"])
def test_a_file_that_was_cut_short_is_refused(scan, tmp_path, ending):
    path = tmp_path / f"a{ending}"
    write_scan(path, scan)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(PacbedError, match="cannot read"):
        open_scan(path).patterns(ALL)


def test_files_that_are_no_scans_are_refused(tmp_path):
    (tmp_path / "a.xyz").write_text("hello")
    (tmp_path / "a.dm4").write_bytes(b"hello" * 100)
    (tmp_path / "a.hspy").write_bytes(b"hello" * 100)
    (tmp_path / "empty.npy").touch()
    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "flat.npy", np.zeros((40, 40)))
    np.save(tmp_path / "complex.npy", np.zeros((4, 4, 40, 40), complex))
    np.save(tmp_path / "none.npy", np.zeros((0, 4, 40, 40)))
    np.save(tmp_path / "coarse.npy", np.zeros((2, 4, 10, 40)))
    np.save(tmp_path / "objects.npy", np.array([{}]))
    for name, why in {
        "missing.npy": "does not exist",
        "a.xyz": "the format '.xyz' is unknown",
        "a.dm4": "cannot read .* as DigitalMicrograph",
        "a.hspy": "as HDF5",
        "empty.npy": "is empty",
        "folder": "is a folder",
        "flat.npy": "four dimensions .* pacbed read",
        "complex.npy": "complex numbers",
        "none.npy": "is empty",
        "coarse.npy": "at least 24",
        "objects.npy": "pickled objects",
    }.items():
        with pytest.raises(PacbedError, match=why):
            open_scan(tmp_path / name)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"crop_px": (0, 0, 40, 26)}, "check --crop$"),
        ({"area": (3, 0, 3, 2)}, "check --area"),
        ({"bins": 2}, "at least 24"),
    ],
)
def test_options_that_do_not_fit_are_refused(counts, options, why):
    with pytest.raises(PacbedError, match=why):
        Scan.of(counts, ScanOptions(**options))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"bins": 0}, "--bins 1 or more"),
        ({"pixel_mrad": -1.0}, "--pixel-mrad must lie within"),
        ({"scan_shape": (0, 4)}, "--scan-shape"),
        ({"energy_keV": 80000.0}, "--energy must lie within 30 and 300 keV, not 80000"),
        ({"semiangle_mrad": 0.00635}, "--semiangle must lie within 0.1 and 200 mrad"),
        ({"step_nm": float("nan")}, "--step must lie within"),
    ],
)
def test_impossible_options_are_refused(options, why):
    with pytest.raises(PacbedError, match=why):
        ScanOptions(**options)


def test_pixels_that_are_no_squares_are_refused_unless_a_size_is_given(counts, tmp_path):
    hspy = pytest.importorskip("hyperspy.api")
    signal = hspy.signals.Signal2D(counts)
    for axis, scale in zip(signal.axes_manager.signal_axes, (0.5, 0.6), strict=True):
        axis.units, axis.scale = "mrad", scale
    signal.save(tmp_path / "a.hspy")
    with pytest.raises(PacbedError, match="must be squares"):
        open_scan(tmp_path / "a.hspy")
    assert open_scan(tmp_path / "a.hspy", ScanOptions(pixel_mrad=0.5)).pixel_mrad == 0.5


def test_a_large_scan_is_read_by_pieces(tmp_path):
    path = tmp_path / "large.npy"
    sparse = np.lib.format.open_memmap(path, "w+", np.uint16, (64, 64, 128, 128))  # 134 MB
    sparse[10, 20] = 7
    del sparse
    scan = open_scan(path)
    tracemalloc.start()
    total = sum(float(scan.patterns(rows).sum()) for rows in scan.blocks(2**24))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 7 * 128 * 128
    assert peak < 3 * 2**24


@pytest.mark.parametrize("ending", WRITERS)
def test_of_a_file_only_the_patterns_that_are_wanted_are_read(ending, tmp_path):
    patterns = np.zeros((32, 32, 64, 64), np.uint16)  # 8.4 MB
    patterns[20, 7] = 3
    path = tmp_path / f"scan{ending}"
    write_scan(path, Scan.of(patterns))
    open_scan(path).points([[0, 0]])  # imports what it needs
    tracemalloc.start()
    found = open_scan(path).points([[20, 7], [3, 30]])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found, patterns[[20, 3], [7, 30]])
    assert peak < patterns.nbytes / 3


def test_of_a_large_scan_some_points_are_looked_at(scan, counts, monkeypatch):
    monkeypatch.setattr("pacbed.reading.scans.overview._MOST_BYTES", scan.source.nbytes / 4)
    overview = Overview.of(scan)
    assert overview.stride == 2
    assert overview.sums.shape == (3, 3)
    np.testing.assert_allclose(overview.sums, counts.sum(axis=(2, 3))[::2, ::2])
    assert "1 of 4 points" in overview.notes[0]


def test_an_empty_scan_is_refused():
    with pytest.raises(PacbedError, match="empty"):
        Overview.of(Scan.of(np.zeros((4, 4, 32, 32))))


def test_without_rosettasciio_the_rest_is_read(counts, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rsciio", None)
    np.save(tmp_path / "a.npy", counts)
    (tmp_path / "a.dm4").write_bytes(b"1")
    assert open_scan(tmp_path / "a.npy").shape == (5, 6)
    with pytest.raises(PacbedError, match=r"pacbed\[reading\]"):
        open_scan(tmp_path / "a.dm4")


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"zarr_format": 3, "node_type": "group", "attributes": 1}']
)
def test_an_archive_that_only_looks_like_zarr_is_refused(tmp_path, content):
    with zipfile.ZipFile(tmp_path / "a.zarr.zip", "w") as archive:
        archive.writestr("zarr.json", content)
    with pytest.raises(PacbedError, match="cannot read"):
        open_scan(tmp_path / "a.zarr.zip")


def test_patterns_of_a_damaged_archive_are_refused(tmp_path):
    path = tmp_path / "a.zarr.zip"
    write_scan(path, Scan.of(np.random.default_rng(0).random((2, 2, 24, 24))))
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 255
    path.write_bytes(content)
    with pytest.raises(PacbedError, match="the file is damaged"):
        open_scan(path).patterns(ALL)
