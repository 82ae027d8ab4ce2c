"""Drawings of what is done to the crystal: the deformed unit cell, and the tilt."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Polygon

from pacbed.specimen.crystal import Material, slab
from pacbed.specimen.deformation import Deformation

# Colours that the colour-blind tell apart (Okabe and Ito).
METAL, CHALCOGEN, ORIGINAL = "#0072B2", "#E69F00", "#D55E00"


def deformed_cell_A(
    material: Material, deformation: Deformation, rotation_deg: float = 0.0
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
    material: Material,
    deformation: Deformation,
    rotation_deg: float,
    height_A: float,
) -> None:
    """Draw the deformed in-plane cell of one layer over the original one, seen along the beam.

    Both cells are centred. The view is `height_A` high, x (zigzag) to the right, y (armchair) up.
    """
    cell = deformed_cell_A(material, deformation, rotation_deg)
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) - 0.5
    original = deformed_cell_A(material, Deformation())
    axes.add_patch(
        Polygon(corners @ original, fill=False, ec=ORIGINAL, lw=2, label="original cell")
    )
    axes.add_patch(Polygon(corners @ cell, fill=False, ec="black", lw=0.9, label="deformed cell"))
    metal, chalcogen = (_sites(material, element) for element in material.elements)
    bond = 1.01 * material.zigzag_A / np.sqrt(3)
    for one in metal:
        for other in chalcogen:
            if np.linalg.norm((one - other) @ original) < bond:
                axes.plot(*(np.array([one, other]) @ cell).T, color="0.6", lw=1.5, zorder=1.5)
    for name, sites, colour, size in zip(
        material.elements, (metal, chalcogen), (METAL, CHALCOGEN), (34, 22), strict=True
    ):
        x, y = (sites @ cell).T
        axes.scatter(x, y, s=size, color=colour, lw=0, zorder=3, label=name)
    half = height_A / 2
    wide = half * axes.bbox.width / axes.bbox.height
    axes.set(xlim=(-wide, wide), ylim=(-half, half), xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_visible(False)


def _sites(material: Material, element: str) -> np.ndarray:
    """Return where an element is seen in the cell, edges included, relative to its middle."""
    atoms = slab(material, Deformation(), 1)
    chosen = np.array(atoms.get_chemical_symbols()) == element
    inside = atoms.get_scaled_positions()[chosen, :2]
    images = np.concatenate([inside + shift for shift in np.ndindex(2, 2)]).round(6)
    return np.unique(images[(images <= 1).all(axis=1)], axis=0) - 0.5


def draw_directions(axes: Axes) -> None:
    """Draw arrows along x (zigzag) and y (armchair) in the lower left corner of a cell drawing."""
    left, bottom = axes.get_xlim()[0] + 0.55, axes.get_ylim()[0] + 0.5
    arrow = {"arrowstyle": "-|>", "lw": 0.8, "color": "black", "shrinkA": 0, "shrinkB": 0}
    for end in ((left + 1.5, bottom), (left, bottom + 1.5)):
        axes.annotate("", end, (left, bottom), arrowprops=arrow | {"mutation_scale": 6})
    axes.text(left, bottom - 0.1, "$x$, zigzag", fontsize=6, va="top")
    axes.text(left - 0.1, bottom, "$y$, armchair", fontsize=6, ha="right", rotation=90)


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
