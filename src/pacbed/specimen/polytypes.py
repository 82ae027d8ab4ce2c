"""Crystals known by name: dichalcogenides of several polytypes, graphene, hBN, black phosphorus.

Cells are primitive where that is possible. x lies along zigzag and y along armchair, as in the 2H
crystals of the paper. Lattices and thermal displacements are those of room temperature. Their
sources, and what is an estimate: docs/crystals.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from difflib import get_close_matches

import numpy as np

from pacbed.exceptions import RequestError
from pacbed.specimen.crystal import MATERIALS, Crystal, LayeredCrystal, Site

# The threefold axes of a hexagonal layer, as fractions of the cell.
_A, _B, _C = (0.0, 0.0), (1 / 3, 2 / 3), (2 / 3, 1 / 3)
_DIRECTIONS = ("zigzag", "armchair")
_Planes = Sequence[tuple[str, tuple[float, float], float]]
"""Planes of a layer: element, place, and height above the middle in Å."""


def _stacked(
    name: tuple[str, str],
    vectors_A: tuple[tuple[float, float], tuple[float, float]],
    layer_A: float,
    layers: Sequence[_Planes],
    rms_displacement_A: dict[str, float],
) -> LayeredCrystal:
    """Stack layers of the same thickness, the first on top."""
    sites = [
        Site(element, (round(u % 1, 9), round(v % 1, 9)), round((n + 0.5) * layer_A - height, 6))
        for n, planes in enumerate(layers)
        for element, (u, v), height in planes
    ]
    polytype, formula = name
    return LayeredCrystal(
        formula,
        polytype,
        vectors_A,
        tuple(sorted(sites, key=lambda site: site.depth_A)),
        tuple(round((n + 1) * layer_A, 6) for n in range(len(layers))),
        directions=_DIRECTIONS,
        rms_displacement_A=rms_displacement_A,
    )


def _hexagonal(a_A: float) -> tuple[tuple[float, float], tuple[float, float]]:
    return (a_A, 0.0), (-a_A / 2, a_A * math.sqrt(3) / 2)


def _elements(formula: str) -> tuple[str, str]:
    metal = formula[:2] if formula[1].islower() else formula[:1]
    return metal, formula[len(metal) : -1]


def _prismatic_layer(
    formula: str, height_A: float, metal: tuple[float, float], chalcogen: tuple[float, float]
) -> _Planes:
    m, x = _elements(formula)
    return [(x, chalcogen, height_A), (m, metal, 0.0), (x, chalcogen, -height_A)]


def _1t(formula: str, a_A: float, c_A: float, height_A: float, rms: tuple[float, float]) -> Crystal:
    """Octahedral layers, one above the other."""
    m, x = _elements(formula)
    layer = [(x, _B, height_A), (m, _A, 0.0), (x, _C, -height_A)]
    displacements = dict(zip((m, x), rms, strict=True))
    return _stacked(("1T", formula), _hexagonal(a_A), c_A, [layer], displacements)


def _2h(formula: str, a_A: float, c_A: float, height_A: float, rms: tuple[float, float]) -> Crystal:
    """Trigonal prisms with the metals one above the other (2Ha), in contrast to MoS2 (2Hc)."""
    layers = [_prismatic_layer(formula, height_A, _B, chalcogen) for chalcogen in (_A, _C)]
    displacements = dict(zip(_elements(formula), rms, strict=True))
    return _stacked(("2H", formula), _hexagonal(a_A), c_A / 2, layers, displacements)


def _3r(formula: str, a_A: float, c_A: float, height_A: float, rms: tuple[float, float]) -> Crystal:
    """Trigonal prisms, each layer as the one before and shifted: its chalcogen below the metal."""
    places = ((_B, _A), (_C, _B), (_A, _C))
    layers = [_prismatic_layer(formula, height_A, *place) for place in places]
    displacements = dict(zip(_elements(formula), rms, strict=True))
    return _stacked(("3R", formula), _hexagonal(a_A), c_A / 3, layers, displacements)


def _graphite(name: str) -> Crystal:
    """Honeycombs, each shifted from the one before: AB, or ABC in the rhombohedral polytype."""
    honeycombs: list[_Planes] = [
        [("C", one, 0.0), ("C", other, 0.0)] for one, other in ((_A, _B), (_B, _C), (_C, _A))
    ]
    count = 3 if name == "3R-graphite" else 2
    return _stacked((name, "C"), _hexagonal(2.4617), 3.3553, honeycombs[:count], {"C": 0.056})


def _boron_nitride() -> Crystal:
    """Honeycombs with boron above nitrogen (AA')."""
    layers: list[_Planes] = [
        [("B", one, 0.0), ("N", other, 0.0)] for one, other in ((_A, _B), (_B, _A))
    ]
    vectors = _hexagonal(2.5040)
    return _stacked(("hBN", "BN"), vectors, 3.3306, layers, {"B": 0.060, "N": 0.060})


def _black_phosphorus() -> Crystal:
    """Puckered layers (Cmce), each shifted by half a cell along zigzag from the one before."""
    zigzag, stacking, armchair = 3.3136, 10.478, 4.3763
    y, z = 0.10168, 0.08056
    height = y * stacking
    layers: list[_Planes] = [
        [
            ("P", (shift, z), height),
            ("P", (shift + 0.5, 0.5 - z), height),
            ("P", (shift, -z), -height),
            ("P", (shift + 0.5, 0.5 + z), -height),
        ]
        for shift in (0.0, 0.5)
    ]
    vectors = (zigzag, 0.0), (0.0, armchair)
    return _stacked(("black-phosphorus", "P"), vectors, stacking / 2, layers, {"P": 0.085})


# a, c and height of the chalcogen above the metal in Å; displacements of metal and chalcogen.
_DICHALCOGENIDES: dict[Callable[..., Crystal], list[tuple[str, float, float, float, float, float]]]
_DICHALCOGENIDES = {
    _1t: [
        ("TaS2", 3.3672, 5.902, 1.513, 0.058, 0.069),
        ("TiS2", 3.407, 5.695, 1.4238, 0.085, 0.085),
        ("TiSe2", 3.540, 6.008, 1.5323, 0.085, 0.085),
        ("ZrS2", 3.662, 5.813, 1.4533, 0.080, 0.090),
        ("HfS2", 3.635, 5.837, 1.4593, 0.070, 0.090),
        ("PtSe2", 3.7278, 5.0813, 1.2957, 0.065, 0.080),
        ("SnS2", 3.647, 5.899, 1.4748, 0.095, 0.095),
        ("SnSe2", 3.811, 6.141, 1.5353, 0.095, 0.095),
        ("PbI2", 4.558, 6.986, 1.869, 0.130, 0.130),
    ],
    _2h: [
        ("NbSe2", 3.4459, 12.5607, 1.671, 0.075, 0.085),
        ("TaS2", 3.314, 12.097, 1.558, 0.058, 0.069),
    ],
    _3r: [
        ("MoS2", 3.1607, 18.344, 1.586, 0.07535, 0.08856),
        ("WS2", 3.158, 18.490, 1.571, 0.065, 0.085),
        ("MoSe2", 3.292, 19.392, 1.669, 0.075, 0.085),
    ],
}


def _known() -> dict[str, Crystal]:
    found: dict[str, Crystal] = dict(MATERIALS)
    for make, rows in _DICHALCOGENIDES.items():
        for formula, a, c, height, metal, chalcogen in rows:
            made = make(formula, a, c, height, (metal, chalcogen))
            found[made.name] = made
    return found | {
        one.name: one
        for one in (
            *map(_graphite, ("graphene", "graphite", "3R-graphite")),
            _boron_nitride(),
            _black_phosphorus(),
        )
    }


CRYSTALS: dict[str, Crystal] = _known()
"""All crystals known by name."""

_OTHER_NAMES = {
    **{f"2H-{formula}": formula for formula in MATERIALS},
    "BN": "hBN",
    "h-BN": "hBN",
    "phosphorene": "black-phosphorus",
    "2H-graphite": "graphite",
}


def crystal(name: str) -> Crystal:
    """Return a crystal known by name.

    Raises
    ------
    RequestError
        If it is not among :data:`CRYSTALS`.

    Examples
    --------
    >>> crystal("1T-SnS2").thickness_A(layers=3)
    17.697
    >>> crystal("hBN").cell_A.round(3)
    array([[ 2.504,  0.   ],
           [-1.252,  2.169]])
    """
    known = _OTHER_NAMES.get(name, name)
    if known in CRYSTALS:
        return CRYSTALS[known]
    formula = name.rpartition("-")[2]
    alike = [other for other, one in CRYSTALS.items() if one.formula == formula]
    advice = f". {formula} is known as {' and '.join(alike)}." if alike else "."
    spelled = {other.casefold(): other for other in CRYSTALS}
    if not alike and (near := get_close_matches(name.casefold(), spelled, n=1)):
        advice = f". Did you mean {spelled[near[0]]}?"
    raise RequestError(
        f"unknown material '{name}': known are {', '.join(CRYSTALS)}{advice} Others can be given "
        "by a structure file (CIF, POSCAR, xyz), or described in the configuration under 'material'"
    )


def typical_displacement_A(element: str, of: Collection[str]) -> tuple[float, str] | None:
    """Return a thermal displacement of an element in Å, and the crystal known by name it is of.

    That is the one that has most of some elements in common.
    """
    having = [(name, one) for name, one in CRYSTALS.items() if element in one.rms_displacement_A]
    if not having:
        return None
    name, one = max(having, key=lambda item: len(set(of) & set(item[1].kinds)))
    return one.rms_displacement_A[element], name


def polytypes_of(formula: str) -> list[str]:
    """Return the names of the crystals of a formula."""
    return [name for name, one in CRYSTALS.items() if one.formula == formula]


def is_hexagonal(one: Crystal) -> bool:
    """Return whether the undeformed cell is hexagonal, or an orthogonal one of such a lattice."""
    (a, b), angle = np.linalg.norm(one.cell_A, axis=1), _angle_deg(one.cell_A)
    if abs(angle - 90) < 0.1:
        return bool(abs(max(a, b) / min(a, b) / math.sqrt(3) - 1) < 1e-3)
    return bool(abs(a / b - 1) < 1e-3 and min(abs(angle - 60), abs(angle - 120)) < 0.1)


def _angle_deg(cell_A: np.ndarray) -> float:
    a, b = cell_A
    return math.degrees(math.acos(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))))
