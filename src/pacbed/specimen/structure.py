"""From the atoms of a structure file to a layered crystal: what is in plane, and what is a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from pacbed.exceptions import RequestError
from pacbed.specimen.crystal import LayeredCrystal, Site

if TYPE_CHECKING:
    import ase

# Atoms are bonded if they are closer than the sum of their covalent radii times this.
_BOND = 1.2
# Heights that differ by less are those of one plane.
_SAME_HEIGHT_A = 0.02
# A wider gap between layers is vacuum.
_VACUUM_A = 5.0
# What is left free above and below the atoms of a stack.
_MARGIN_A = 1.5
_AXES: dict[str, tuple[int, int, int]] = {"a": (1, 2, 0), "b": (2, 0, 1), "c": (0, 1, 2)}


@dataclass(frozen=True)
class Layering:
    """What of a structure is in plane, and what is a layer.

    Parameters
    ----------
    stacking_axis
        The vector of the cell that leads from layer to layer; the two others are in plane. The beam
        travels along the normal of the plane, and meets the atoms of largest height first.
    stack
        Whether the structure is a whole stack, as a heterostructure, instead of a part that repeats
        along the beam.
    layer_ends_A
        Depths at which layers end, and patterns are kept, from the first plane of atoms, in Å. By
        default in every gap that no bond bridges; where there is none, at the end of the structure.
    period_A
        Distance after which the structure repeats along the beam, instead of the height of its
        cell, in Å.
    """

    stacking_axis: Literal["a", "b", "c"] = "c"
    stack: bool = False
    layer_ends_A: tuple[float, ...] | None = None
    period_A: float | None = None


def crystal_of_atoms(
    atoms: ase.Atoms,
    kinds: Sequence[str],
    rms_displacement_A: dict[str, float],
    layering: Layering = Layering(),
    name: str = "the structure",
) -> LayeredCrystal:
    """Make a layered crystal of the atoms of one cell.

    The first in-plane vector is turned to x.

    Parameters
    ----------
    atoms
        The cell.
    kinds
        Kind of each atom.
    rms_displacement_A
        Root-mean-square thermal displacement of each element or kind of atom, in Å.
    layering
        What is in plane, and what is a layer.
    name
        What the structure is called in messages.

    Raises
    ------
    RequestError
        If it is not periodic in plane, or what a layer is does not follow.
    """
    in_plane, heights, period, shift = _standing(atoms, layering, name)
    if layering.period_A:
        period = layering.period_A
    if not layering.stack and not period:
        raise RequestError(
            f"{name} has no vector along the beam, by which it would repeat: give its period "
            "(--period, material.period_A), or say that it is a whole stack (--stack, "
            "material.stack: true)"
        )
    place = _in_frame(atoms, in_plane)
    gaps = _gaps(atoms, in_plane, heights, None if layering.stack else period)
    if layering.stack:
        top = heights.max() + _MARGIN_A
        depth = top - heights
        ends = [*sorted(top - middle for middle, _ in gaps), float(depth.max() + _MARGIN_A)]
    else:
        assert period
        middle, ends = _first_gap(gaps, heights, period)
        _check_vacuum(gaps, layering, name)
        depth = (middle - heights) % period
        ends = [*ends, period]
    if layering.layer_ends_A:
        total, first = ends[-1], float(depth.min())
        given = [round(first + end, 4) for end in sorted(layering.layer_ends_A)]
        ends = [*(end for end in given if end < total - 1e-3), total]
    sites = [
        Site(kind, (round(float(u) % 1, 9) % 1, round(float(v) % 1, 9) % 1), round(float(d), 4))
        for kind, (u, v), d in zip(kinds, place, _level(depth), strict=True)
    ]
    x, y = (atoms.cell.array[n] for n in _AXES[layering.stacking_axis][:2])
    frame = _frame(x, y)
    a, b = ((float(v @ frame[0]), float(v @ frame[1])) for v in (x, y))
    first = "abc"[_AXES[layering.stacking_axis][0]]
    return LayeredCrystal(
        atoms.symbols.formula.reduce()[0].format("metal"),
        "",
        ((a[0], 0.0), b),
        tuple(sorted(sites, key=lambda site: site.depth_A)),
        tuple(round(float(end), 4) for end in ends),
        not layering.stack,
        shift,
        (first, f"perpendicular to {first}"),
        rms_displacement_A,
    )


def _frame(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return unit vectors as rows: along the first in-plane vector, across it, and the normal."""
    normal = np.cross(x, y)
    rows = [x / np.linalg.norm(x), None, normal / np.linalg.norm(normal)]
    rows[1] = np.cross(rows[2], rows[0])
    return np.array(rows)


def _standing(
    atoms: ase.Atoms, layering: Layering, name: str
) -> tuple[np.ndarray, np.ndarray, float, tuple[float, float]]:
    """Return in-plane vectors, heights of the atoms, period along the beam, and shift by period."""
    one, other, along = _AXES[layering.stacking_axis]
    in_plane, third = atoms.cell.array[[one, other]], atoms.cell.array[along]
    area = np.linalg.norm(np.cross(*in_plane))
    if not area > 1e-3 or not (atoms.pbc[one] and atoms.pbc[other]):
        raise RequestError(
            f"{name} is not periodic in plane: the cell needs two vectors besides that from layer "
            f"to layer ({layering.stacking_axis}), and has "
            f"{', '.join(f'{edge:.4g}' for edge in atoms.cell.lengths())} Å, periodic: "
            f"{', '.join('yes' if p else 'no' for p in atoms.pbc)}"
        )
    frame = _frame(*in_plane)
    heights, period = atoms.positions @ frame[2], float(third @ frame[2])
    # Each period lies below the one before: at minus the third vector.
    aside = -np.sign(period) * (third @ frame[:2].T)
    shift = np.linalg.solve((in_plane @ frame[:2].T).T, aside)
    shift = np.round(shift - np.rint(shift), 9) + 0.0
    return in_plane, heights, abs(period), (float(shift[0]), float(shift[1]))


def _in_frame(atoms: ase.Atoms, in_plane: np.ndarray) -> np.ndarray:
    """Return in-plane positions as fractions of the in-plane vectors, shape (atoms, 2)."""
    frame = _frame(*in_plane)
    return np.asarray(
        np.linalg.solve((in_plane @ frame[:2].T).T, (atoms.positions @ frame[:2].T).T).T
    )


def _level(depth: np.ndarray) -> np.ndarray:
    """Give planes of atoms one depth each."""
    order = np.argsort(depth)
    level = depth.copy()
    plane = np.cumsum(np.diff(depth[order], prepend=depth[order[0]]) > _SAME_HEIGHT_A)
    for number in np.unique(plane):
        level[order[plane == number]] = depth[order[plane == number]].mean()
    return level


def _gaps(
    atoms: ase.Atoms, in_plane: np.ndarray, heights: np.ndarray, period: float | None
) -> list[tuple[float, float]]:
    """Return the gaps between planes that no bond bridges: height of the middle, and width."""
    import ase
    from ase.data import covalent_radii
    from ase.neighborlist import neighbor_list

    frame = _frame(*in_plane)
    cell = np.zeros((3, 3))
    cell[:2] = in_plane @ frame.T
    third = atoms.cell.array[[n for n in range(3) if not any(_same(v, atoms, n) for v in in_plane)]]
    upright = third[0] @ frame.T if len(third) else np.zeros(3)
    reach = float(np.ptp(heights)) + 20.0
    cell[2] = [0, 0, reach] if period is None else [*upright[:2], period]
    upright_atoms = ase.Atoms(
        atoms.numbers, atoms.positions @ frame.T, cell=cell, pbc=(True, True, period is not None)
    )
    bonds = neighbor_list("iD", upright_atoms, (_BOND * covalent_radii[atoms.numbers]).tolist())
    low = heights[bonds[0]]
    high = low + bonds[1][:, 2]
    low, high = np.minimum(low, high), np.maximum(low, high)
    planes = np.unique(np.round(heights if period is None else heights % period, 3))
    if period is not None:
        planes = np.append(planes, planes[0] + period)
    found = []
    for below, above in zip(planes[:-1], planes[1:], strict=True):
        middle, width = (below + above) / 2, above - below
        images = [0.0] if period is None else period * np.arange(-2, 3)
        bridged = any(((low < middle + d) & (middle + d < high)).any() for d in images)
        if width > _SAME_HEIGHT_A and not bridged:
            found.append((float(middle), float(width)))
    return found


def _same(vector: np.ndarray, atoms: ase.Atoms, number: int) -> bool:
    return bool(np.array_equal(vector, atoms.cell.array[number]))


def _first_gap(
    gaps: list[tuple[float, float]], heights: np.ndarray, period: float
) -> tuple[float, list[float]]:
    """Return the height at which the first layer begins, and the depths at which others do."""
    if not gaps:
        # Not a layered crystal: its cell is a layer, and begins in the widest space between planes.
        planes = np.unique(np.round(heights % period, 3))
        widths = np.diff(planes, append=planes[0] + period)
        widest = int(widths.argmax())
        return float(planes[widest] + widths[widest] / 2), []
    middles = np.array([middle for middle, _ in gaps])
    # The one nearest to the upper end of the cell.
    away = np.abs((middles + period / 2) % period - period / 2)
    first = float(middles[away.argmin()])
    depths = sorted(float(d) for d in (first - middles) % period if 1e-6 < d < period - 1e-6)
    return first, depths


def _check_vacuum(gaps: list[tuple[float, float]], layering: Layering, name: str) -> None:
    widest = max((width for _, width in gaps), default=0.0)
    if widest > _VACUUM_A:
        raise RequestError(
            f"{name} has {widest:.3g} Å of vacuum along {layering.stacking_axis}, and would repeat "
            "with it: say that it is a whole stack (--stack, material.stack: true), give the "
            "distance after which it repeats (--period, material.period_A), or another direction "
            "from layer to layer (--stacking-axis, material.stacking_axis)"
        )
