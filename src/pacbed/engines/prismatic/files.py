"""Files that Prismatic reads and writes."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import scipy.sparse

from pacbed.engines.prismatic.settings import Grid
from pacbed.exceptions import EngineError
from pacbed.specimen.microscope import Detector

_DECIMALS = 6
# An electron more than there are, from rounding in single precision.
_ROUNDING = 1e-3


def write_atoms(
    path: Path, numbers: np.ndarray, positions_A: np.ndarray, edges_A: np.ndarray
) -> None:
    """Write atoms in Prismatic's XYZ format.

    A comment, the edges of the box, a line ``Z x y z occupancy displacement`` for each atom, and
    -1. Without the last line, or with an empty one before it, Prismatic reads on or stops early.
    It displaces nothing and leaves nothing out itself: occupancy is 1, displacement 0. Positions,
    shape (atoms, 3), are wrapped into the box along x and y.
    """
    rounded = np.round(positions_A, _DECIMALS)
    # After rounding: what is wrapped must not be rounded up to the edge again.
    rounded[:, :2] %= edges_A[:2]
    rounded[:, :2] = np.where(rounded[:, :2] >= edges_A[:2] - 10.0**-_DECIMALS, 0, rounded[:, :2])
    with open(path, "w", encoding="ascii") as file:
        file.write("atoms of one frozen-phonon configuration\n")
        file.write(" ".join(repr(float(edge)) for edge in edges_A) + "\n")
        columns = np.column_stack([numbers, rounded])
        np.savetxt(file, columns, fmt=f"%d %.{_DECIMALS}f %.{_DECIMALS}f %.{_DECIMALS}f 1 0")
        file.write("-1\n")


def write_probes(path: Path, positions_A: np.ndarray) -> None:
    """Write probe positions, shape (probes, 2), Å: a comment, ``x y`` for each, and -1."""
    with open(path, "w", encoding="ascii") as file:
        file.write("probe positions\n")
        np.savetxt(file, positions_A, fmt=f"%.{_DECIMALS}f")
        file.write("-1\n")


def add_patterns(path: Path, total: np.ndarray, grid: Grid, probes: int, layer_A: float) -> None:
    """Add the patterns of all probes in an HDF5 file of Prismatic's to a total.

    That has the shape (layers, nx, ny), float64. The order of additions is that of the probes, so
    that the sum does not depend on how they are shared out to files.

    Raises
    ------
    EngineError
        If the file is not what was asked for: other numbers of layers or probes, another grid,
        values that are not finite, or more electrons than there were.
    """
    try:
        with h5py.File(path, "r") as file:
            cubes = file.get("4DSTEM_simulation/data/datacubes", {})
            names = sorted(name for name in cubes if name.startswith("CBED_array_depth"))
            if len(names) != len(total):
                raise EngineError(
                    f"Prismatic wrote patterns for {len(names)} depths instead of {len(total)}"
                )
            for layer, name in enumerate(names):
                _check_cube(cubes[name], grid, probes, layer + 1, layer_A)
                for probe in range(probes):
                    _add(cubes[name]["data"][probe, 0], total[layer], layer + 1, probe)
    # What h5py raises on a damaged file.
    except (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise EngineError(f"the output of Prismatic cannot be read: {error}") from error


def keep_potential(output: Path, kept: Path) -> None:
    """Copy what Prismatic wrote, except for the patterns, so that it can import its potential.

    Raises
    ------
    EngineError
        If it cannot be copied.
    """
    try:
        with h5py.File(output, "r") as source, h5py.File(kept, "w") as target:
            old, new = source["4DSTEM_simulation"], target.create_group("4DSTEM_simulation")
            new.attrs.update(old.attrs)
            for name in old.keys() - {"data"}:
                old.copy(name, new)
            data = new.create_group("data")
            for name in old["data"].keys() - {"datacubes"}:
                old["data"].copy(name, data)
    except (OSError, KeyError) as error:
        raise EngineError(f"the potential of Prismatic cannot be kept: {error}") from error


def _check_cube(cube: h5py.Group, grid: Grid, probes: int, layer: int, layer_A: float) -> None:
    expected = (probes, 1, *grid.output_points)
    if cube["data"].shape != expected:
        raise EngineError(
            f"patterns after {layer} layers have the shape {cube['data'].shape} instead of "
            f"{expected} (probes, 1, qx, qy)"
        )
    depth = float(np.ravel(cube.attrs["output_depth"])[0])
    if not abs(depth - layer * layer_A) <= 0.01 * layer_A:
        raise EngineError(
            f"the patterns after layer {layer} are those at a depth of {depth:.4g} Å instead of "
            f"{layer * layer_A:.4g} Å"
        )
    for axis, name in enumerate(("dim3", "dim4")):
        # To a thousandth of a pixel at the edge of the pattern.
        frequencies = grid.frequencies_per_A(axis)
        if not np.allclose(cube[name][:], frequencies, rtol=0, atol=1e-3 / grid.edges_A[axis]):
            raise EngineError(
                f"the axis {'xy'[axis]} of the patterns is not that of a box of "
                f"{grid.edges_A[axis]:g} Å with {grid.points[axis]} pixels"
            )


def _add(pattern: np.ndarray, total: np.ndarray, layer: int, probe: int) -> None:
    electrons, least = pattern.sum(dtype=float), pattern.min()
    if not 0 < electrons <= 1 + _ROUNDING or least < 0:  # or one of them is not a number
        raise EngineError(
            f"the pattern of probe {probe + 1} after {layer} layers cannot be: its sum is "
            f"{electrons:.5g} of the incident electrons, its smallest value {least:.2g}"
        )
    total += pattern


def on_detector(patterns: np.ndarray, pixel_mrad: tuple[float, float], on: Detector) -> np.ndarray:
    """Share out patterns to the (no smaller) pixels of a detector by the overlap of areas.

    Of the shape (layers, nx, ny), zero angle on ``n // 2``, they become (layers, ny, nx). Electrons
    outside the detector are lost, others are not.
    """
    x, y = (
        _overlaps(patterns.shape[1 + axis], pixel_mrad[axis], axis_mrad)
        for axis, axis_mrad in enumerate((on.kx_mrad, on.ky_mrad))
    )
    return np.stack([y @ (x @ pattern).T for pattern in patterns])


def _overlaps(points: int, pixel_mrad: float, centres_mrad: np.ndarray) -> scipy.sparse.csr_array:
    """Return what part of each pixel (column) falls onto each pixel of the detector (row)."""
    width = centres_mrad[1] - centres_mrad[0]
    edges = (np.arange(points + 1) - points // 2 - 0.5) * pixel_mrad
    low = np.maximum(centres_mrad[:, None] - width / 2, edges[None, :-1])
    high = np.minimum(centres_mrad[:, None] + width / 2, edges[None, 1:])
    return scipy.sparse.csr_array(np.clip(high - low, 0, None) / pixel_mrad)
