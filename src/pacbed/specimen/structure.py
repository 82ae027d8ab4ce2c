"""From the atoms of a structure to a layered crystal: what is in plane, and what is a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

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
_Axis = Literal["a", "b", "c"]
_AXES: dict[_Axis, tuple[int, int, int]] = {"a": (1, 2, 0), "b": (2, 0, 1), "c": (0, 1, 2)}


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

    stacking_axis: _Axis = "c"
    stack: bool = False
    layer_ends_A: tuple[float, ...] | None = None
    period_A: float | None = None

    @classmethod
    def of(cls, said: Any) -> Layering:
        """Return what options of a command, or keys of a configuration, of these names say."""
        return cls(**{one.name: getattr(said, one.name) for one in fields(cls)})

    @property
    def in_plane(self) -> tuple[int, int]:
        """Numbers of the two vectors in plane: 1, 2 and 3 for a, b and c."""
        one, other, _ = _AXES[self.stacking_axis]
        return one + 1, other + 1


def crystal_of_atoms(
    atoms: ase.Atoms,
    kinds: Sequence[str],
    rms_displacement_A: dict[str, float],
    layering: Layering | None = None,
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

    Examples
    --------
    Of a structure file, ``ase.io.read`` gives the atoms.

    >>> import ase.build
    >>> cell = ase.build.mx2("WSe2", kind="1T", a=3.28, thickness=3.35, vacuum=1.6)
    >>> found = crystal_of_atoms(cell, list(cell.symbols), {"W": 0.07, "Se": 0.08})
    >>> found.kinds, found.layer_ends_A(layers=2)
    (('Se', 'W'), [6.55, 13.1])
    """
    layering = layering or Layering()
    upright = _Upright.of(atoms, layering, name)
    heights, period = upright.positions_A[:, 2], upright.period_A
    if not layering.stack and not period:
        raise RequestError(
            f"{name} has no vector along the beam, by which it would repeat: give its period "
            "(--period, material.period_A), or say that it is a whole stack (--stack, "
            "material.stack: true)"
        )
    gaps = _gaps(atoms, upright, layering.stack)
    if layering.stack:
        depth = heights.max() + _MARGIN_A - heights
        top = heights.max() + _MARGIN_A
        ends = [*sorted(top - middle for middle, _ in gaps), float(depth.max() + _MARGIN_A)]
    else:
        _check_vacuum(gaps, layering, name)
        if not gaps and not layering.layer_ends_A:
            _look_along_other_axes(atoms, layering, name)
        top, ends = _first_gap(gaps, heights, period)
        depth = (top - heights) % period
        ends = [*ends, period]
    if layering.layer_ends_A:
        total, first = ends[-1], float(depth.min())
        given = [round(first + end, 4) for end in sorted(layering.layer_ends_A)]
        if given[-1] > total + 1e-3:
            raise RequestError(
                f"{name} ends {total - first:.4g} Å below its first atoms: a layer cannot end at "
                f"{given[-1] - first:g} Å (--layer-ends, material.layer_ends_A)"
            )
        ends = [*(end for end in given if end < total - 1e-3), total]
    sites = [
        Site(kind, (round(float(u) % 1, 9) % 1, round(float(v) % 1, 9) % 1), round(float(d), 4))
        for kind, (u, v), d in zip(kinds, upright.fractions, _level(depth), strict=True)
    ]
    (ax, _), (bx, by) = upright.in_plane_A.tolist()
    along = "abc"[_AXES[layering.stacking_axis][0]]
    return LayeredCrystal(
        atoms.symbols.formula.reduce()[0].format("metal"),
        "",
        ((ax, 0.0), (bx, by)),
        tuple(sorted(sites, key=lambda site: site.depth_A)),
        tuple(round(float(end), 4) for end in ends),
        not layering.stack,
        upright.shift,
        (along, f"perpendicular to {along}"),
        rms_displacement_A,
    )


@dataclass(frozen=True)
class _Upright:
    """A structure whose in-plane vectors lie in the plane of x and y, the first along x.

    Parameters
    ----------
    in_plane_A
        These vectors as rows, shape (2, 2), Å.
    third_A
        The vector from layer to layer, shape (3,), Å.
    positions_A
        Of the atoms, shape (atoms, 3), Å.
    """

    in_plane_A: np.ndarray
    third_A: np.ndarray
    positions_A: np.ndarray

    @classmethod
    def of(cls, atoms: ase.Atoms, layering: Layering, name: str) -> _Upright:
        one, other, along = _AXES[layering.stacking_axis]
        x, y = atoms.cell.array[[one, other]]
        normal = np.cross(x, y)
        if not np.linalg.norm(normal) > 1e-3 or not (atoms.pbc[one] and atoms.pbc[other]):
            raise RequestError(
                f"{name} is not periodic in plane: besides the vector from layer to layer "
                f"({layering.stacking_axis}) the cell needs two others; it has edges of "
                f"{', '.join(f'{edge:.4g}' for edge in atoms.cell.lengths())} Å, periodic: "
                f"{', '.join('yes' if p else 'no' for p in atoms.pbc)}"
            )
        first, last = x / np.linalg.norm(x), normal / np.linalg.norm(normal)
        turn = np.array([first, np.cross(last, first), last]).T
        third = atoms.cell.array[along] @ turn
        if layering.period_A:
            third[2] = np.copysign(layering.period_A, third[2])
        return cls((np.array([x, y]) @ turn)[:, :2], third, atoms.positions @ turn)

    @property
    def period_A(self) -> float:
        """Period along the beam in Å."""
        return float(abs(self.third_A[2]))

    @property
    def fractions(self) -> np.ndarray:
        """In-plane positions as fractions of the in-plane vectors, shape (atoms, 2)."""
        return np.asarray(self.positions_A[:, :2] @ np.linalg.inv(self.in_plane_A))

    @property
    def shift(self) -> tuple[float, float]:
        """Shift of a period from the one above it, as fractions of the in-plane vectors."""
        down = -np.sign(self.third_A[2]) * self.third_A[:2] @ np.linalg.inv(self.in_plane_A)
        u, v = (np.round(down - np.rint(down), 9) + 0.0).tolist()
        return u, v


def _level(depth: np.ndarray) -> np.ndarray:
    """Give planes of atoms one depth each."""
    order = np.argsort(depth)
    level = depth.copy()
    plane = np.cumsum(np.diff(depth[order], prepend=depth[order[0]]) > _SAME_HEIGHT_A)
    for number in np.unique(plane):
        level[order[plane == number]] = depth[order[plane == number]].mean()
    return level


def _gaps(atoms: ase.Atoms, upright: _Upright, stack: bool) -> list[tuple[float, float]]:
    """Return the gaps between planes that no bond bridges: height of the middle, and width."""
    import ase
    from ase.data import covalent_radii
    from ase.neighborlist import neighbor_list

    heights, period = upright.positions_A[:, 2], None if stack else upright.period_A
    cell = np.zeros((3, 3))
    cell[:2, :2] = upright.in_plane_A
    cell[2] = [0, 0, np.ptp(heights) + 20.0] if stack else upright.third_A
    standing = ase.Atoms(atoms.numbers, upright.positions_A, cell=cell, pbc=(True, True, not stack))
    bonds = neighbor_list("iD", standing, (_BOND * covalent_radii[atoms.numbers]).tolist())
    low = heights[bonds[0]]
    high = low + bonds[1][:, 2]
    low, high = np.minimum(low, high), np.maximum(low, high)
    planes = np.unique(np.round(heights if period is None else heights % period, 5))
    if period is not None:
        planes = np.append(planes, planes[0] + period)
    found = []
    for below, above in pairwise(planes.tolist()):
        middle, width = (below + above) / 2, above - below
        images = [0.0] if period is None else period * np.arange(-2, 3)
        bridged = any(((low < middle + d) & (middle + d < high)).any() for d in images)
        if width > _SAME_HEIGHT_A and not bridged:
            found.append((float(middle), float(width)))
    return found


def _first_gap(
    gaps: list[tuple[float, float]], heights: np.ndarray, period: float
) -> tuple[float, list[float]]:
    """Return the height at which the first layer begins, and the depths at which others do."""
    if not gaps:
        # Not a layered crystal: its cell is a layer, and begins in the widest space between planes.
        planes = np.unique(np.round(heights % period, 5))
        widths = np.diff(planes, append=planes[0] + period)
        widest = int(widths.argmax())
        return float(planes[widest] + widths[widest] / 2), []
    middles = np.array([middle for middle, _ in gaps])
    # The one nearest to the upper end of the cell.
    away = np.abs((middles + period / 2) % period - period / 2)
    first = float(middles[away.argmin()])
    depths = sorted(float(d) for d in (first - middles) % period if 1e-6 < d < period - 1e-6)
    return first, depths


def _look_along_other_axes(atoms: ase.Atoms, layering: Layering, name: str) -> None:
    """Refuse a layered crystal whose layers are stacked along another axis."""
    if atoms.cell.rank < 3 or not atoms.pbc.all():
        return
    for axis in [a for a in _AXES if a != layering.stacking_axis]:
        other = replace(layering, stacking_axis=axis, period_A=None)
        if _gaps(atoms, _Upright.of(atoms, other, name), stack=False):
            raise RequestError(
                f"{name} has no gap between layers along {layering.stacking_axis}, but one along "
                f"{axis}: choose that direction from layer to layer (--stacking-axis {axis}, "
                f"material.stacking_axis: {axis}), or give the ends of layers (--layer-ends, "
                "material.layer_ends_A)"
            )


def _check_vacuum(gaps: list[tuple[float, float]], layering: Layering, name: str) -> None:
    widest = max((width for _, width in gaps), default=0.0)
    if widest > _VACUUM_A:
        raise RequestError(
            f"{name} has {widest:.3g} Å of vacuum along {layering.stacking_axis}, and would repeat "
            "with it: say that it is a whole stack (--stack, material.stack: true), give the "
            "distance after which it repeats (--period, material.period_A), or another direction "
            "from layer to layer (--stacking-axis, material.stacking_axis)"
        )
