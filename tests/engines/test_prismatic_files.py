"""What is written for Prismatic, and how its output is read, checked and put on a detector."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from samples import MOS2

from pacbed.engines.prismatic.files import add_patterns, on_detector, write_atoms, write_probes
from pacbed.engines.prismatic.settings import Grid
from pacbed.exceptions import EngineError
from pacbed.specimen.microscope import Detector

OUTPUT = Path(__file__).parents[1] / "data" / "prismatic2_output.h5"
CUBES = "4DSTEM_simulation/data/datacubes"
GRID = Grid((4 * 3.1613, 2 * 5.4755), 0.3, 1)
LAYERS, PROBES, LAYER_A = 2, 2, MOS2.layer_thickness_A


# Atoms


def parsed_atoms(path):
    """Edges and columns, read as Prismatic does: up to the first line of three characters."""
    _, edges, *lines = path.read_text().split("\n")
    last = next(number for number, line in enumerate(lines) if len(line) <= 3)
    return np.array(edges.split(), float), np.array([line.split() for line in lines[:last]], float)


@pytest.fixture
def written(tmp_path):
    """Write atoms and read them as Prismatic does."""

    def write(positions, edges, numbers=None):
        path = tmp_path / "atoms.xyz"
        numbers = np.full(len(positions), 42) if numbers is None else numbers
        write_atoms(path, numbers, np.asarray(positions, float), np.asarray(edges, float))
        return parsed_atoms(path)

    return write


def test_atoms_and_edges_come_back_as_they_were(written):
    edges = np.array([4 * np.pi, 37 / 3, 2 * LAYER_A])  # more decimals than atoms have
    positions = np.random.default_rng(1).random((500, 3)) * edges * 0.999999
    numbers = np.where(np.arange(500) % 3, 16, 42)

    found_edges, columns = written(positions, edges, numbers)

    np.testing.assert_array_equal(found_edges, edges)
    np.testing.assert_array_equal(columns[:, 0], numbers)
    np.testing.assert_allclose(columns[:, 1:4], positions, rtol=0, atol=1.01e-6)


def test_prismatic_is_told_to_leave_out_and_displace_no_atom(written):
    _, columns = written(np.full((7, 3), 2.5), (10, 10, 6))
    assert columns.shape == (7, 6)
    np.testing.assert_array_equal(columns[:, 4:], np.tile([1, 0], (7, 1)))


def test_list_of_atoms_ends_with_minus_one_and_has_no_empty_line(tmp_path):
    path = tmp_path / "atoms.xyz"
    write_atoms(path, np.array([42, 16]), np.ones((2, 3)), np.array([10.0, 10.0, 6.0]))
    lines = path.read_text().splitlines()
    assert lines[-1] == "-1"
    assert min(len(line) for line in lines[:-1]) > 3
    assert len(lines) == 2 + 2 + 1


@pytest.mark.parametrize(
    "edges",
    [
        (10, 12),
        (10.0000007, 10.0000009),
        (37 / 3, 5 * np.pi),
        (8 * 3.1613 * 1.03, 5 * 5.4755 * 0.98),
        (400.1, 399.9),
    ],
)
@pytest.mark.parametrize("axis", [0, 1])
def test_atoms_outside_the_box_are_wrapped_into_it(written, edges, axis):
    edge = edges[axis]
    near = np.array([0, 1e-9, 4e-7, 6e-7, 1e-6, 1.4e-6, 0.1])
    around = np.concatenate([sign * near + k * edge for sign in (1, -1) for k in range(-2, 4)])
    positions = np.full((len(around), 3), 3.0)
    positions[:, axis] = around

    found = written(positions, (*edges, 6))[1][:, 1 + axis]

    assert (found >= 0).all()
    assert (found < edge).all()
    apart = (found - around) % edge
    assert np.minimum(apart, edge - apart).max() < 2.1e-6


def test_wrapping_moves_no_atom_along_another_axis(written):
    positions = np.array([[-0.25, 3.0, 4.0], [3.0, 12.5, 4.0], [3.0, 3.0, 6.01], [3.0, 3.0, -0.01]])
    expected = np.array([[9.75, 3.0, 4.0], [3.0, 0.5, 4.0], [3.0, 3.0, 6.01], [3.0, 3.0, -0.01]])
    np.testing.assert_allclose(written(positions, (10, 12, 6))[1][:, 1:4], expected, atol=1e-9)


# Probes


def test_probes_come_back_as_they_were(tmp_path):
    positions = np.random.default_rng(2).random((448, 2)) * 400
    write_probes(tmp_path / "probes.txt", positions)

    _, *lines, last = (tmp_path / "probes.txt").read_text().splitlines()

    assert last == "-1"
    found = np.array([line.split() for line in lines], float)
    np.testing.assert_allclose(found, positions, rtol=0, atol=0.51e-6)


# Detector


@pytest.fixture
def native():
    """Patterns of two layers without any symmetry."""
    return np.random.default_rng(3).random((2, 22, 18))


PIXEL = (3.3, 3.8)


def test_no_electron_is_lost_on_a_detector_that_holds_the_pattern(native):
    found = on_detector(native, PIXEL, Detector((124.0, 81.0), (29, 17)))
    assert found.shape == (2, 17, 29)
    np.testing.assert_allclose(found.sum(axis=(1, 2)), native.sum(axis=(1, 2)), rtol=1e-12)


def test_small_detector_gets_the_electrons_of_its_area():
    pattern = np.ones((1, 22, 18))
    found = on_detector(pattern, PIXEL, Detector((35.0, 45.0), (7, 9)))
    np.testing.assert_allclose(found, 5.0 * 5.0 / (3.3 * 3.8), rtol=1e-12)


def test_native_detector_gets_the_pattern_as_it_is(native):
    found = on_detector(native, PIXEL, Detector((22 * 3.3, 18 * 3.8), (22, 18)))
    np.testing.assert_allclose(found, native.transpose(0, 2, 1), rtol=0, atol=1e-12)


def test_pixel_of_twice_the_size_takes_half_of_the_neighbours(native):
    found = on_detector(native, PIXEL, Detector((5 * 6.6, 3 * 7.6), (5, 3)))
    weights = np.outer([0.5, 1, 0.5], [0.5, 1, 0.5])
    for row in range(3):
        for column in range(5):
            x, y = 11 + 2 * (column - 2), 9 + 2 * (row - 1)
            around = native[:, x - 1 : x + 2, y - 1 : y + 2]
            np.testing.assert_allclose(
                found[:, row, column], (around * weights).sum(axis=(1, 2)), rtol=1e-12
            )


def test_angle_along_x_becomes_a_column_and_along_y_a_row():
    pattern = np.zeros((1, 22, 18))
    pattern[0, 11 + 3, 9 - 2] = 1
    detector = Detector((31 * 3.3, 25 * 3.8), (31, 25))

    found = on_detector(pattern, PIXEL, detector)[0]

    row, column = np.unravel_index(found.argmax(), found.shape)
    assert detector.kx_mrad[column] == pytest.approx(3 * 3.3)
    assert detector.ky_mrad[row] == pytest.approx(-2 * 3.8)
    assert found[row, column] == pytest.approx(1)


# Output of Prismatic


def added(path, probes=PROBES, layers=LAYERS, grid=GRID):
    total = np.zeros((layers, *grid.output_points))
    add_patterns(path, total, grid, probes, LAYER_A)
    return total


@pytest.fixture
def output(tmp_path):
    """A copy of what Prismatic wrote."""
    return shutil.copy(OUTPUT, tmp_path / "patterns.h5")


@pytest.fixture
def spoilt(output):
    """Change something in a copy of what Prismatic wrote."""

    def spoil(change):
        with h5py.File(output, "r+") as file:
            change(file[CUBES])
        return output

    return spoil


def replace_data(cube, data):
    del cube["data"]
    cube["data"] = data


def test_patterns_of_all_probes_are_added_up():
    with h5py.File(OUTPUT) as file:
        expected = [
            file[f"{CUBES}/CBED_array_depth{depth:04d}/data"][:].astype(float).sum(axis=(0, 1))
            for depth in range(LAYERS)
        ]
    found = added(OUTPUT)
    np.testing.assert_array_equal(found, expected)
    assert found.shape == (2, 22, 18)
    assert not np.allclose(found[0], found[1], rtol=0.01)


def test_patterns_are_added_to_those_of_earlier_files():
    total = np.full((LAYERS, *GRID.output_points), 0.5)
    add_patterns(OUTPUT, total, GRID, PROBES, LAYER_A)
    np.testing.assert_allclose(total, added(OUTPUT) + 0.5, rtol=1e-12)


def test_sum_does_not_depend_on_how_probes_are_shared_out_to_files(tmp_path):
    total = np.zeros((LAYERS, *GRID.output_points))
    for probe in range(PROBES):
        path = shutil.copy(OUTPUT, tmp_path / f"{probe}.h5")
        with h5py.File(path, "r+") as file:
            for cube in file[CUBES].values():
                replace_data(cube, cube["data"][probe : probe + 1])
        add_patterns(path, total, GRID, 1, LAYER_A)
    assert total.tobytes() == added(OUTPUT).tobytes()


def set_pixel(value):
    def change(cubes):
        cubes["CBED_array_depth0001/data"][1, 0, 11, 9] = value

    return change


def scale(factor):
    def change(cubes):
        cubes["CBED_array_depth0000/data"][0] *= factor

    return change


def set_depth(value):
    def change(cubes):
        cubes["CBED_array_depth0000"].attrs["output_depth"] = np.float32(value)

    return change


def shift_axis(name, axis):
    def change(cubes):
        cubes[f"CBED_array_depth0001/{name}"][:] += 0.5 / GRID.edges_A[axis]

    return change


def turn(cubes):
    cube = cubes["CBED_array_depth0000"]
    replace_data(cube, cube["data"][:].transpose(0, 1, 3, 2))


def add_depth(cubes):
    cubes.copy("CBED_array_depth0001", "CBED_array_depth0002")


def remove(name):
    def change(cubes):
        del cubes[name]

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (add_depth, "patterns for 3 depths instead of 2"),
        (remove("CBED_array_depth0001"), "patterns for 1 depths instead of 2"),
        (remove("CBED_array_depth0001/data"), "cannot be read: .*data"),
        (set_pixel(np.nan), "probe 2 after 2 layers has values that are not finite"),
        (set_pixel(np.inf), "probe 2 after 2 layers has values that are not finite"),
        (set_pixel(-1e-6), "probe 2 after 2 layers cannot be.*smallest value -"),
        (scale(1.1), r"probe 1 after 1 layers cannot be: its sum is 1\.\d+ of"),
        (scale(0), "probe 1 after 1 layers cannot be: its sum is 0 of"),
        (turn, r"after 1 layers have the shape \(2, 1, 18, 22\) instead of \(2, 1, 22, 18\)"),
        (shift_axis("dim3", 0), r"the axis x of the patterns is not .* 12\.6452 Å with 44 pixels"),
        (shift_axis("dim4", 1), r"the axis y of the patterns is not .* 10\.951 Å with 36 pixels"),
        (set_depth(np.nan), "after layer 1 are those at a depth of nan"),
        (set_depth(4.1), r"after layer 1 are those at a depth of 4\.1 Å instead of 6\.153 Å"),
    ],
)
def test_output_that_is_not_what_was_asked_for_is_refused(spoilt, change, complaint):
    with pytest.raises(EngineError, match=complaint):
        added(spoilt(change))


@pytest.mark.parametrize("probes", [1, 3])
def test_output_for_another_number_of_probes_is_refused(probes):
    complaint = rf"shape \(2, 1, 22, 18\) instead of \({probes}, 1, 22, 18\)"
    with pytest.raises(EngineError, match=complaint):
        added(OUTPUT, probes=probes)


def test_output_of_another_box_is_refused():
    # A slightly wider one, of as many pixels.
    wider = Grid((1.01 * GRID.edges_A[0], GRID.edges_A[1]), 0.3, 1)
    assert wider.points == GRID.points
    with pytest.raises(EngineError, match="the axis x of the patterns"):
        added(OUTPUT, grid=wider)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.1, 0.5, 0.99])
def test_truncated_output_is_refused(output, part):
    whole = output.read_bytes()
    output.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(EngineError, match="the output of Prismatic cannot be read"):
        added(output)


def test_output_in_another_format_is_refused(output):
    output.write_text("Prismatic was here\n" * 1000)
    with pytest.raises(EngineError, match=r"cannot be read: .*file signature not found"):
        added(output)


def test_missing_output_is_refused(tmp_path):
    with pytest.raises(EngineError, match=r"cannot be read: .*No such file or directory"):
        added(tmp_path / "patterns.h5")
