"""A heterostructure with a common cell."""

import math

import ase.build
import numpy as np

DISPLACEMENTS = {"Mo": 0.075, "S": 0.089, "C": 0.055}


def mos2_on_graphene():
    """A commensurate stack: 2 × 2 cells of MoS2 on √7 × √7 of graphene, which is strained."""
    mos2 = ase.build.mx2("MoS2", "2H", a=3.1613, thickness=3.175, size=(2, 2, 1), vacuum=None)
    edge = 2 * 3.1613
    graphene = ase.build.graphene(a=edge / math.sqrt(7))
    wide = ase.build.make_supercell(graphene, [[3, 1, 0], [-1, 2, 0], [0, 0, 1]])
    # Turned so that its vectors are those of MoS2.
    place = wide.positions[:, :2] @ np.linalg.inv(wide.cell.array[:2, :2])
    low = mos2.positions[:, 2].min() - 3.4
    at = np.column_stack([place @ mos2.cell.array[:2, :2], np.full(len(place), low)])
    return mos2 + ase.Atoms("C" * len(at), at)
