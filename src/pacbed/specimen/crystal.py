"""Cells of 2H transition-metal dichalcogenides, built with ASE.

The cell is the smallest orthogonal one: x along zigzag, y along armchair, two layers along z, AB
stacked (the metal of one layer above the chalcogen of the next). The beam travels towards -z, so
layer 1, the first that it meets, is the one with the larger z.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pacbed.exceptions import RequestError
from pacbed.specimen.deformation import Deformation

if TYPE_CHECKING:
    import ase

LAYERS_PER_CELL = 2

# In-plane fractional positions of the two interpenetrating sites of the orthogonal cell.
_SITE_A = np.array([[0.0, 0.0], [0.5, 0.5]])
_SITE_B = np.array([[0.0, 1 / 3], [0.5, 5 / 6]])


@dataclass(frozen=True)
class Material:
    """A 2H transition-metal dichalcogenide.

    Parameters
    ----------
    formula
        Chemical formula ``MX2``, the metal first.
    zigzag_A, armchair_A, stacking_A
        Edges of the orthogonal cell along x, y and z in Å; one layer is ``stacking_A / 2`` thick.
    chalcogen_height_A
        Distance of the chalcogen planes from the metal plane of their layer, in Å.
    rms_displacement_A
        Root-mean-square thermal displacement per axis of each element, in Å.

    Raises
    ------
    RequestError
        If the formula is not ``MX2`` or an element has no thermal displacement.
    """

    formula: str
    zigzag_A: float
    armchair_A: float
    stacking_A: float
    chalcogen_height_A: float
    rms_displacement_A: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        elements = self.elements  # refuses a wrong formula here, not deep inside a simulation
        missing = [e for e in elements if e not in self.rms_displacement_A]
        if missing:
            raise RequestError(
                f"no thermal displacement for {', '.join(missing)} in {self.formula}: "
                f"rms_displacement_A has {', '.join(self.rms_displacement_A) or 'nothing'}"
            )

    @property
    def elements(self) -> tuple[str, str]:
        """Metal and chalcogen."""
        found = re.fullmatch(r"([A-Z][a-z]?)([A-Z][a-z]?)2", self.formula)
        if not found or found[1] == found[2]:
            raise RequestError(
                f"material '{self.formula}' is not of the form MX2 (such as MoS2, WSe2)"
            )
        return found[1], found[2]

    @property
    def layer_thickness_A(self) -> float:
        """Thickness of one layer in Å."""
        return self.stacking_A / LAYERS_PER_CELL

    def in_plane_cell_A(self, deformation: Deformation) -> np.ndarray:
        """Return the in-plane vectors of the deformed cell as rows, shape (2, 2), in Å."""
        return np.diag([self.zigzag_A, self.armchair_A]) @ deformation.gradient.T


# MoS2 is the paper's cell. The others: a and c of the bulk 2H crystals, with the chalcogen height
# from z(X), after Schutte, De Boer & Jellinek, J. Solid State Chem. 70 (1987) 207 (WS2, WSe2) and
# Bronsema, De Boer & Jellinek, Z. Anorg. Allg. Chem. 540 (1986) 15 (MoSe2); MoTe2: Puotinen &
# Newnham, Acta Cryst. 14 (1961) 691. Displacements other than MoS2's are typical room-temperature
# values: measure or compute your own where diffuse scattering matters.
MATERIALS: dict[str, Material] = {
    m.formula: m
    for m in (
        Material("MoS2", 3.1613, 5.4755, 12.3063, 1.5875, {"Mo": 0.07535, "S": 0.08856}),
        Material("MoSe2", 3.289, 5.6967, 12.927, 1.669, {"Mo": 0.075, "Se": 0.085}),
        Material("WS2", 3.1532, 5.4615, 12.323, 1.571, {"W": 0.065, "S": 0.085}),
        Material("WSe2", 3.282, 5.6846, 12.96, 1.674, {"W": 0.065, "Se": 0.080}),
        Material("MoTe2", 3.519, 6.0951, 13.964, 1.814, {"Mo": 0.080, "Te": 0.085}),
    )
}


def material(formula: str) -> Material:
    """Return a material known by its formula.

    Raises
    ------
    RequestError
        If the formula is not among :data:`MATERIALS`.
    """
    try:
        return MATERIALS[formula]
    except KeyError:
        raise RequestError(
            f"unknown material '{formula}': known are {', '.join(MATERIALS)}; others can be "
            "described in the configuration under 'material'"
        ) from None


def slab(material: Material, deformation: Deformation, layers: int) -> ase.Atoms:
    """Build one deformed in-plane cell of a stack of layers.

    Parameters
    ----------
    material
        The undeformed crystal.
    deformation
        In-plane stretch; z is left alone (Yankovich et al. 2026, eq. 2).
    layers
        Number of monolayers.

    Returns
    -------
    ase.Atoms
        ``6 * layers`` atoms. The in-plane cell vectors are the deformed, in general oblique ones.
        The first layer that the beam meets has the largest z and its metal on the second site,
        (0, 1/3) and (1/2, 5/6) of the cell.
    """
    import ase  # here, since jobs that build no crystal read materials

    metal, chalcogen = material.elements
    thickness = material.layer_thickness_A
    height = material.chalcogen_height_A
    symbols: list[str] = []
    scaled: list[np.ndarray] = []
    for layer in range(layers):
        metal_site, chalcogen_site = (_SITE_B, _SITE_A) if layer % 2 == 0 else (_SITE_A, _SITE_B)
        centre = (layers - layer - 0.5) * thickness
        for element, site, z in (
            (chalcogen, chalcogen_site, centre + height),
            (metal, metal_site, centre),
            (chalcogen, chalcogen_site, centre - height),
        ):
            symbols += [element] * len(site)
            scaled.append(np.column_stack([site, np.full(len(site), z / (layers * thickness))]))
    cell = np.diag([0.0, 0.0, layers * thickness])
    cell[:2, :2] = material.in_plane_cell_A(deformation)
    return ase.Atoms(symbols, scaled_positions=np.concatenate(scaled), cell=cell, pbc=True)
