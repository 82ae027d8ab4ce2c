"""Drawings of what is done to the crystal: the deformed unit cell, and the tilt."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from ase.data import atomic_numbers, covalent_radii
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from pacbed.figures.style import PAGE, paper_style
from pacbed.specimen.crystal import Crystal, slab
from pacbed.specimen.deformation import Deformation

# Colours that the colour-blind tell apart (Okabe and Ito).
METAL, CHALCOGEN, ORIGINAL = "#0072B2", "#E69F00", "#D55E00"
COLOURS = (METAL, CHALCOGEN, "#009E73", "#CC79A7", "#56B4E9", "#000000")
SIZES = (34, 22, 22, 22, 22, 22)
# Bonds: of the distance to the nearest neighbour, and of the sum of covalent radii.
_NEAREST, _BOND = 1.15, 1.3
# Of a crystal so much is drawn, at least.
_SHOWN_A = 9.0


def deformed_cell_A(
    material: Crystal, deformation: Deformation, rotation_deg: float = 0.0
) -> np.ndarray:
    """Return the in-plane vectors of the deformed, then rotated cell as rows, shape (2, 2), in Å.

    The rotation is counter-clockwise, as that of the pattern in
    :func:`pacbed.examples.augment.resample`: turning the crystal turns its pattern by the same
    angle.
    """
    angle = np.radians(rotation_deg)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray(material.in_plane_cell_A(deformation) @ rotation.T)


def draw_cell(
    axes: Axes,
    material: Crystal,
    deformation: Deformation,
    rotation_deg: float,
    height_A: float,
) -> None:
    """Draw the deformed in-plane cell of one layer over the original one, seen along the beam.

    Both cells are centred. The view is `height_A` high, x to the right, y up.
    """
    cell = deformed_cell_A(material, deformation, rotation_deg)
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) - 0.5
    original = deformed_cell_A(material, Deformation())
    axes.add_patch(
        Polygon(corners @ original, fill=False, ec=ORIGINAL, lw=2, label="original cell")
    )
    axes.add_patch(Polygon(corners @ cell, fill=False, ec="black", lw=0.9, label="deformed cell"))
    atoms = _seen(material)
    for one, other in _bonds(atoms):
        axes.plot(*(atoms.places[[one, other]] @ cell).T, color="0.6", lw=1.5, zorder=1.5)
    for number, name in enumerate(atoms.elements):
        x, y = (atoms.places[atoms.symbols == name] @ cell).T
        axes.scatter(x, y, s=SIZES[number], color=COLOURS[number], lw=0, zorder=3, label=name)
    half = height_A / 2
    wide = half * axes.bbox.width / axes.bbox.height
    axes.set(xlim=(-wide, wide), ylim=(-half, half), xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_visible(False)


@dataclass(frozen=True)
class _Seen:
    """Atoms of one layer as they are seen in the cell, edges included.

    Parameters
    ----------
    symbols
        Chemical symbols, shape (atoms,).
    places
        Fractions of the cell, from its middle, shape (atoms, 2).
    positions_A
        Undeformed, shape (atoms, 3), Å.
    """

    symbols: np.ndarray
    places: np.ndarray
    positions_A: np.ndarray

    @property
    def elements(self) -> list[str]:
        """The heaviest first."""
        found = sorted(set(self.symbols.tolist()), key=lambda one: -atomic_numbers[one])
        return found[: len(COLOURS)]


def _seen(material: Crystal, layers: int = 1, cells: tuple[int, int] = (1, 1)) -> _Seen:
    atoms = slab(material, Deformation(), layers)
    symbols, places, heights = [], [], []
    for shift in np.ndindex(cells[0] + 1, cells[1] + 1):
        inside = (atoms.get_scaled_positions()[:, :2] % 1).round(6) % 1 + shift
        kept = (inside <= cells).all(axis=1)
        symbols += np.array(atoms.get_chemical_symbols())[kept].tolist()
        places.append(inside[kept])
        heights.append(atoms.positions[kept, 2])
    place = np.concatenate(places)
    in_plane = place @ material.in_plane_cell_A(Deformation())
    position = np.column_stack([in_plane, np.concatenate(heights)])
    return _Seen(np.array(symbols), place - np.array(cells) / 2, position)


def _bonds(atoms: _Seen) -> list[tuple[int, int]]:
    """Return pairs of atoms that are nearest neighbours of one of them, or nearly so."""
    apart = np.linalg.norm(atoms.positions_A[:, None] - atoms.positions_A, axis=-1)
    np.fill_diagonal(apart, np.inf)
    near = apart < _NEAREST * apart.min(axis=1)[:, None]
    radii = covalent_radii[[atomic_numbers[one] for one in atoms.symbols]]
    near &= apart < _BOND * (radii[:, None] + radii)
    pairs = np.argwhere(near | near.T)
    return [(int(i), int(j)) for i, j in pairs if i < j]


def draw_directions(axes: Axes, names: tuple[str, str] = ("zigzag", "armchair")) -> None:
    """Draw arrows along x and y in the lower left corner of a cell drawing, with their names."""
    left, bottom = axes.get_xlim()[0] + 0.55, axes.get_ylim()[0] + 0.5
    arrow = {"arrowstyle": "-|>", "lw": 0.8, "color": "black", "shrinkA": 0, "shrinkB": 0}
    for end in ((left + 1.5, bottom), (left, bottom + 1.5)):
        axes.annotate("", end, (left, bottom), arrowprops=arrow | {"mutation_scale": 6})
    x, y = names
    axes.text(left, bottom - 0.1, f"$x$, {x}", fontsize=6, va="top")
    axes.text(left - 0.1, bottom, f"$y$, {y}", fontsize=6, ha="right", rotation=90)


def show_crystal(material: Crystal, layers: int | None = None) -> Figure:
    """Draw some layers of an undeformed crystal along the beam, and from the side.

    The cell is drawn in the view along the beam, the ends of layers in that from the side. By
    default there are two layers, or all of a stack that does not repeat.
    """
    layers = layers or material.most_layers or 2
    with paper_style():
        figure, (top, side) = plt.subplots(1, 2, figsize=(PAGE, 0.5 * PAGE), layout="constrained")
        cell = material.in_plane_cell_A(Deformation())
        edges = np.linalg.norm(cell, axis=1)
        cells = tuple(max(1, int(np.ceil(_SHOWN_A / edge))) for edge in edges)
        atoms = _seen(material, layers, (cells[0], cells[1]))
        thickness = material.thickness_A(layers)
        x, y, z = (atoms.positions_A - [*(np.array(cells) / 2 @ cell), 0]).T
        for one, other in _bonds(atoms):
            line = {"color": "0.7", "lw": 0.8, "zorder": 1}
            top.plot(x[[one, other]], y[[one, other]], **line)
            side.plot(x[[one, other]], z[[one, other]] - thickness, **line)
        for number, name in enumerate(atoms.elements):
            of_it = atoms.symbols == name
            style = {"s": SIZES[number], "color": COLOURS[number], "lw": 0, "label": name}
            # The first layers that the beam meets are in front.
            order = np.argsort(z[of_it])
            top.scatter(x[of_it][order], y[of_it][order], zorder=2, **style)
            side.scatter(x[of_it], z[of_it] - thickness, zorder=2, **style)
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) - 0.5
        top.add_patch(Polygon(corners @ cell, fill=False, ec=ORIGINAL, lw=1.2, zorder=3))
        for end in (0.0, *material.layer_ends_A(layers)):
            side.axhline(-end, color="0.5", lw=0.5, ls=":", zorder=0)
        first, second = material.axes
        top.set(xlabel=f"$x$, {first} (Å)", ylabel=f"$y$, {second} (Å)", aspect="equal")
        side.set(xlabel=f"$x$, {first} (Å)", ylabel="depth (Å)", aspect="equal")
        side.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        top.set_title(f"{material.name}, {layers} layer{'s' * (layers > 1)}, along the beam")
        side.set_title("from the side; dotted: ends of layers")
        handles, labels = top.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def draw_tilt(axes: Axes, tilt_mrad: tuple[float, float], largest_mrad: float) -> None:
    """Draw a tilt (φx, φy) as an arrow in the plane of the pattern."""
    half = 1.45 * (largest_mrad or 1.0)
    for line in (axes.axhline, axes.axvline):
        line(0, color="0.75", lw=0.6, zorder=0)
    axes.text(0.96 * half, 0.06 * half, "$x$", color="0.45", fontsize=6, ha="right", va="bottom")
    axes.text(0.06 * half, 0.96 * half, "$y$", color="0.45", fontsize=6, ha="left", va="top")
    if any(tilt_mrad):
        arrow = {"arrowstyle": "-|>", "lw": 1.2, "color": METAL, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", tilt_mrad, (0, 0), arrowprops=arrow | {"mutation_scale": 8})
    else:
        axes.plot(0, 0, "o", ms=3, color=METAL)
    axes.set(xlim=(-half, half), ylim=(-half, half), xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_visible(False)
