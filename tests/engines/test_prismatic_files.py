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


def test_atoms_and_edges_come_back_as_they_were(written, tmp_path):
    edges = np.array([4 * np.pi, 37 / 3, 2 * LAYER_A])  # more decimals than atoms have
    positions = np.random.default_rng(1).random((500, 3)) * edges * 0.999999
    numbers = np.where(np.arange(500) % 3, 16, 42)

    found_edges, columns = written(positions, edges, numbers)

    np.testing.assert_array_equal(found_edges, edges)
    np.testing.assert_array_equal(columns[:, 0], numbers)
    np.testing.assert_allclose(columns[:, 1:4], positions, rtol=0, atol=1.01e-6)
    np.testing.assert_array_equal(columns[:, 4:], np.tile([1, 0], (500, 1)))  # all there, static
    # The list ends with -1, without an empty line before.
    lines = (tmp_path / "atoms.xyz").read_text().splitlines()
    assert lines[-1] == "-1"
    assert len(lines) == 2 + 500 + 1
    assert min(map(len, lines[:-1])) > 3


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


# Output of Prismatic


def added(path, probes=PROBES, layers=LAYERS, grid=GRID):
    total = np.zeros((layers, *grid.output_points))
    add_patterns(path, total, grid, probes, LAYER_A)
    return total


@pytest.fixture
def output(tmp_path):
    """A copy of what Prismatic wrote."""
    return shutil.copy(OUTPUT, tmp_path / "patterns.h5")


def changed(group, name, change):
    """Replace an array, or a number, of a file by another."""
    values = change(np.asarray(group[name]))
    del group[name]
    group[name] = values


def test_patterns_of_all_probes_are_added_up():
    with h5py.File(OUTPUT) as file:
        cubes = [file[f"{CUBES}/CBED_array_depth000{n}/data"][:] for n in range(LAYERS)]
    expected = [cube.astype(float).sum(axis=(0, 1)) for cube in cubes]
    found = added(OUTPUT)
    np.testing.assert_array_equal(found, expected)
    assert found.shape == (2, 22, 18)
    assert not np.allclose(found[0], found[1], rtol=0.01)


def test_sum_does_not_depend_on_how_probes_are_shared_out_to_files(tmp_path):
    total = np.zeros((LAYERS, *GRID.output_points))
    for probe in range(PROBES):
        path = shutil.copy(OUTPUT, tmp_path / f"{probe}.h5")
        with h5py.File(path, "r+") as file:
            for cube in file[CUBES].values():
                changed(cube, "data", lambda data, probe=probe: data[probe : probe + 1])
        add_patterns(path, total, GRID, 1, LAYER_A)
    assert total.tobytes() == added(OUTPUT).tobytes()


def pixel(value):
    def change(data):
        data[1, 0, 11, 9] = value
        return data

    return change


def brighter(factor):
    return lambda data: data * np.float32([factor, 1])[:, None, None, None]


FIRST, SECOND = (f"CBED_array_depth000{n}" for n in range(2))


def shifted(axis):
    return lambda frequencies: frequencies + 0.5 / GRID.edges_A[axis]


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        (f"{SECOND}/data", pixel(np.nan), "probe 2 after 2 layers cannot be: its sum is nan"),
        (f"{SECOND}/data", pixel(np.inf), "probe 2 after 2 layers cannot be: its sum is inf"),
        (f"{SECOND}/data", pixel(-1e-6), "probe 2 after 2 layers cannot be.*smallest value -"),
        (f"{FIRST}/data", brighter(1.1), r"probe 1 after 1 layers cannot be: its sum is 1\.\d+ of"),
        (f"{FIRST}/data", brighter(0), "probe 1 after 1 layers cannot be: its sum is 0 of"),
        (f"{FIRST}/data", lambda data: data.swapaxes(2, 3), r"shape \(2, 1, 18, 22\) instead of"),
        (f"{SECOND}/dim3", shifted(0), "the axis x of the patterns is not .* Å with 44 pixels"),
        (f"{SECOND}/dim4", shifted(1), "the axis y of the patterns is not .* Å with 36 pixels"),
        (f"{FIRST}@", lambda depth: depth * np.nan, "layer 1 are those at a depth of nan"),
        (f"{FIRST}@", lambda depth: depth - 2, r"at a depth of 4\.15. Å instead of 6\.153 Å"),
        (SECOND, None, "patterns for 1 depths instead of 2"),
        (f"{SECOND}/data", None, "cannot be read: .*data"),
    ],
)
def test_output_that_is_not_what_was_asked_for_is_refused(output, name, change, complaint):
    with h5py.File(output, "r+") as file:
        if name.endswith("@"):
            changed(file[CUBES][name[:-1]].attrs, "output_depth", change)
        elif change:
            changed(file[CUBES], name, change)
        else:
            del file[CUBES][name]
    with pytest.raises(EngineError, match=complaint):
        added(output)


def test_output_of_more_depths_is_refused(output):
    with h5py.File(output, "r+") as file:
        file[CUBES].copy(SECOND, "CBED_array_depth0002")
    with pytest.raises(EngineError, match="patterns for 3 depths instead of 2"):
        added(output)


# A slightly wider box, of as many pixels.
WIDER = Grid((1.01 * GRID.edges_A[0], GRID.edges_A[1]), 0.3, 1)


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"probes": 3}, r"shape \(2, 1, 22, 18\) instead of \(3, 1, 22, 18\)"),
        ({"grid": WIDER}, "the axis x of the patterns"),
    ],
)
def test_output_for_other_probes_or_another_box_is_refused(asked, complaint):
    assert WIDER.points == GRID.points
    with pytest.raises(EngineError, match=complaint):
        added(OUTPUT, **asked)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.1, 0.5, 0.99, None])
def test_output_that_is_truncated_or_missing_cannot_be_read(output, part):
    whole = output.read_bytes()
    output.unlink()
    if part is not None:
        output.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(EngineError, match="the output of Prismatic cannot be read"):
        added(output)
