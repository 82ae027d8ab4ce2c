"""Layered crystals: what repeats in plane, and where the atoms of each layer are.

The beam travels towards -z, so that layer 1, the first that it meets, is the one with the larger z.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pacbed.exceptions import RequestError
from pacbed.specimen.deformation import Deformation

if TYPE_CHECKING:
    import ase

LAYERS_PER_CELL = 2

MOST_LAYERS = 10_000
"""More are a mistake, and would take all memory."""

# In-plane fractional positions of the two interpenetrating sites of the orthogonal cell.
_SITE_A = np.array([[0.0, 0.0], [0.5, 0.5]])
_SITE_B = np.array([[0.0, 1 / 3], [0.5, 5 / 6]])

# Largest multiple of a cell in which an orthogonal one is looked for.
_LARGEST_MULTIPLE = 6
# Structure factors below this share of the largest are zero.
_EXTINCT = 1e-6


def _numbers(layers: int) -> range:
    """Return the numbers of some layers, from zero."""
    if layers > MOST_LAYERS:
        raise RequestError(f"{layers:,} layers are too many: ask for at most {MOST_LAYERS:,}")
    return range(layers)


def element_of(kind: str) -> str:
    """Return the element of a kind of atom: ``S1`` is sulphur, of a site that has its own motion.

    Raises
    ------
    RequestError
        If it does not begin with a chemical symbol.
    """
    found = re.match(r"[A-Z][a-z]?", kind)
    if not found:
        raise RequestError(f"'{kind}' is no chemical symbol, with or without a number")
    return found[0]


@dataclass(frozen=True)
class Atoms:
    """The atoms of one in-plane cell of a stack of layers.

    Parameters
    ----------
    kinds
        Kind of each atom; see :func:`element_of`.
    positions
        Fractions of the cell, the third of the thickness of the stack, shape (atoms, 3).
    """

    kinds: list[str]
    positions: np.ndarray


class Crystal(ABC):
    """A crystal of layers whose patterns are simulated layer by layer.

    Its in-plane cell may be of any shape. Attributes that every crystal has: `formula`, chemical
    formula, and `rms_displacement_A`, root-mean-square thermal displacement per axis in Å of each
    element, or of each kind of atom.
    """

    formula: str
    rms_displacement_A: Mapping[str, float]

    @property
    @abstractmethod
    def name(self) -> str:
        """What the crystal is called."""

    @property
    @abstractmethod
    def cell_A(self) -> np.ndarray:
        """In-plane vectors of the undeformed cell as rows, shape (2, 2), in Å."""

    @property
    @abstractmethod
    def period_A(self) -> float:
        """Period along the beam in Å; of a stack that does not repeat, the mean of its layers."""

    @property
    @abstractmethod
    def kinds(self) -> tuple[str, ...]:
        """Kinds of atoms that there are."""

    @property
    @abstractmethod
    def planes_per_layer(self) -> float:
        """Number of planes of atoms in a layer, on average."""

    @property
    def most_layers(self) -> int | None:
        """Number of layers that there are; None for any number."""
        return None

    @property
    def axes(self) -> tuple[str, str]:
        """What x and y are, in which labels are given."""
        return "zigzag", "armchair"

    @abstractmethod
    def layer_ends_A(self, layers: int) -> list[float]:
        """Return the depths at which layers end, and patterns are kept, in Å."""

    @abstractmethod
    def stack(self, layers: int) -> Atoms:
        """Return the atoms of one cell of some layers."""

    def thickness_A(self, layers: int) -> float:
        """Return the thickness of some layers in Å."""
        return self.layer_ends_A(layers)[-1]

    def rms_A(self, kind: str) -> float:
        """Return the root-mean-square thermal displacement of a kind of atom in Å."""
        known = self.rms_displacement_A
        return known[kind] if kind in known else known[element_of(kind)]

    @property
    def displacements_A(self) -> dict[str, float]:
        """Root-mean-square thermal displacement of each kind of atom in Å."""
        return {kind: self.rms_A(kind) for kind in self.kinds}

    def in_plane_cell_A(self, deformation: Deformation) -> np.ndarray:
        """Return the in-plane vectors of the deformed cell as rows, shape (2, 2), in Å."""
        return np.asarray(self.cell_A @ deformation.gradient.T)

    @property
    def shortest_edge_A(self) -> float:
        """Length of the shorter vector of the cell in Å."""
        return float(np.linalg.norm(self.cell_A, axis=1).min())

    def orthogonal_multiple(self) -> np.ndarray:
        """Return the smallest cell with a right angle, in vectors of the cell, shape (2, 2).

        Its first vector is the first of the cell. The cell itself if there is no such cell among
        its small multiples.
        """
        a, b = self.cell_A
        for m in range(1, _LARGEST_MULTIPLE + 1):
            n = -m * (b @ a) / (a @ a)
            if abs(n - round(n)) < 1e-4:
                return np.array([[1, 0], [round(n), m]])
        return np.eye(2, dtype=int)

    def orthogonal_cell_A(self, deformation: Deformation) -> np.ndarray:
        """Return the vectors of that cell, deformed, as rows, shape (2, 2), in Å."""
        return np.asarray(self.orthogonal_multiple() @ self.in_plane_cell_A(deformation))

    def visible(self, hk: np.ndarray, layers: int) -> np.ndarray:
        """Tell which reflections a layer, of some, has by itself.

        A reflection that every layer extinguishes, as by a centred cell or a glide plane, is none
        of their stack either. One that only the stack extinguishes is seen at other thicknesses.

        Parameters
        ----------
        hk
            Indices in the reciprocal lattice of the cell, shape (reflections, 2).
        layers
            Number of layers to look at.
        """
        from ase.data import atomic_numbers  # here, since jobs that build no crystal read materials

        atoms, ends = self.stack(layers), self.layer_ends_A(layers)
        depth = (1 - atoms.positions[:, 2]) * ends[-1]
        layer = np.minimum(np.searchsorted(ends, depth, side="right"), layers - 1)
        weights = np.array([atomic_numbers[element_of(kind)] for kind in atoms.kinds], float)
        waves = weights * np.exp(-2j * np.pi * hk @ atoms.positions[:, :2].T)
        found = np.zeros(len(hk), bool)
        for number in np.unique(layer):
            of_layer = layer == number
            sum_of_layer = np.abs(waves[:, of_layer].sum(axis=1))
            found |= sum_of_layer > _EXTINCT * weights[of_layer].sum()
        return found

    def same_after_half_turn(self, layers: int) -> bool:
        """Tell whether some layers, turned by 180° about the beam, are the same but for a shift."""
        atoms = self.stack(layers)
        kinds, place, depth = np.array(atoms.kinds), atoms.positions[:, :2], atoms.positions[:, 2]
        alike = (kinds[:, None] == kinds) & (np.abs(depth[:, None] - depth) < 1e-6)
        for shift in place[alike[0]] + place[0]:
            away = shift - place[:, None] - place
            met = alike & (np.abs(away - away.round()).max(axis=-1) < 1e-4)
            if met.any(axis=1).all():
                return True
        return False

    def to_dict(self) -> dict[str, Any]:
        """Return the crystal as nested plain values; see :func:`crystal_of`."""
        return asdict(self)  # type: ignore[call-overload]

    def _check_displacements(self) -> None:
        missing = [
            kind
            for kind in self.kinds
            if kind not in self.rms_displacement_A
            and element_of(kind) not in self.rms_displacement_A
        ]
        if missing:
            raise RequestError(
                f"no thermal displacement for {', '.join(missing)} in {self.name}: "
                f"rms_displacement_A has {', '.join(self.rms_displacement_A) or 'nothing'}"
            )


@dataclass(frozen=True)
class Material(Crystal):
    """A 2H transition-metal dichalcogenide.

    The cell is the smallest orthogonal one: x along zigzag, y along armchair, two layers along z,
    AB stacked (the metal of one layer above the chalcogen of the next).

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
        self._check_displacements()  # and a wrong formula, here and not deep inside a simulation

    @property
    def name(self) -> str:
        """The formula."""
        return self.formula

    @property
    def kinds(self) -> tuple[str, str]:
        """Metal and chalcogen."""
        found = re.fullmatch(r"([A-Z][a-z]?)([A-Z][a-z]?)2", self.formula)
        if not found or found[1] == found[2]:
            raise RequestError(
                f"material '{self.formula}' is not of the form MX2 (such as MoS2, WSe2)"
            )
        return found[1], found[2]

    @property
    def cell_A(self) -> np.ndarray:
        """The edges along x and y, as vectors."""
        return np.diag([self.zigzag_A, self.armchair_A])

    @property
    def period_A(self) -> float:
        """Two layers."""
        return self.stacking_A

    @property
    def planes_per_layer(self) -> float:
        """Chalcogen, metal, chalcogen."""
        return 3

    @property
    def layer_thickness_A(self) -> float:
        """Thickness of one layer in Å."""
        return self.stacking_A / LAYERS_PER_CELL

    def layer_ends_A(self, layers: int) -> list[float]:
        """Return the depths at which layers end, midway between them, in Å."""
        return [(number + 1) * self.layer_thickness_A for number in _numbers(layers)]

    def stack(self, layers: int) -> Atoms:
        """Return the atoms of one cell of some layers.

        The first layer that the beam meets has its metal on the second site, (0, 1/3) and
        (1/2, 5/6) of the cell.
        """
        metal, chalcogen = self.kinds
        thickness, height = self.layer_thickness_A, self.chalcogen_height_A
        kinds: list[str] = []
        scaled: list[np.ndarray] = []
        for layer in range(layers):
            sites = (_SITE_B, _SITE_A) if layer % 2 == 0 else (_SITE_A, _SITE_B)
            metal_site, chalcogen_site = sites
            centre = (layers - layer - 0.5) * thickness
            for element, site, z in (
                (chalcogen, chalcogen_site, centre + height),
                (metal, metal_site, centre),
                (chalcogen, chalcogen_site, centre - height),
            ):
                kinds += [element] * len(site)
                scaled.append(np.column_stack([site, np.full(len(site), z / (layers * thickness))]))
        return Atoms(kinds, np.concatenate(scaled))


@dataclass(frozen=True)
class Site:
    """An atom of a cell.

    Parameters
    ----------
    kind
        Element, followed by a number where sites of an element differ in their thermal motion.
    position
        In-plane position as fractions of the cell.
    depth_A
        Distance from the entrance surface in Å.
    """

    kind: str
    position: tuple[float, float]
    depth_A: float


@dataclass(frozen=True)
class LayeredCrystal(Crystal):
    """Any crystal that is periodic in plane.

    Parameters
    ----------
    formula
        Chemical formula.
    polytype
        Stacking, such as ``1T``, or the name of the crystal; empty if it has none.
    vectors_A
        In-plane vectors of the cell as rows, the first along x, in Å.
    sites
        Atoms of a period along the beam, or of the whole stack.
    ends_A
        Depths at which its layers end, ascending, in Å. The last one is the period, or the
        thickness of the stack.
    repeats
        Whether the sites repeat along the beam.
    shift
        In-plane shift of each period from the one before, as fractions of the cell.
    directions
        What x and y are.
    rms_displacement_A
        Root-mean-square thermal displacement per axis of each element or kind of atom, in Å.

    Raises
    ------
    RequestError
        If the vectors are parallel, a layer is empty, or a kind has no thermal displacement.
    """

    formula: str
    polytype: str
    vectors_A: tuple[tuple[float, float], tuple[float, float]]
    sites: tuple[Site, ...]
    ends_A: tuple[float, ...]
    repeats: bool = True
    shift: tuple[float, float] = (0.0, 0.0)
    directions: tuple[str, str] = ("a", "perpendicular to a")
    rms_displacement_A: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        a, b = np.linalg.norm(self.cell_A, axis=1)
        area = abs(np.linalg.det(self.cell_A))
        if not area > 1e-3 * a * b:
            raise RequestError(
                f"{self.name} is not periodic in plane: its vectors are {self.vectors_A} Å"
            )
        ends, depths = np.array(self.ends_A), np.array([site.depth_A for site in self.sites])
        if not len(ends) or np.diff(ends, prepend=0.0).min() <= 0:
            raise RequestError(f"layers of {self.name} must end one after another, not {ends} Å")
        if not len(depths) or depths.min() < 0 or depths.max() > ends[-1]:
            raise RequestError(f"atoms of {self.name} must lie within 0 to {ends[-1]:g} Å")
        layer = np.searchsorted(ends, depths, side="right")
        if empty := sorted(set(range(len(ends))) - set(np.minimum(layer, len(ends) - 1).tolist())):
            raise RequestError(
                f"layer {empty[0] + 1} of {self.name} has no atoms: its layers end at "
                f"{', '.join(f'{end:.4g}' for end in ends)} Å"
            )
        self._check_displacements()

    @property
    def name(self) -> str:
        """Polytype and formula, or what else the crystal is called."""
        if re.fullmatch(r"\d[A-Za-z']*", self.polytype):
            return f"{self.polytype}-{self.formula}"
        return self.polytype or self.formula

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of atoms, in the order of the sites."""
        return tuple(dict.fromkeys(site.kind for site in self.sites))

    @property
    def cell_A(self) -> np.ndarray:
        """In-plane vectors as rows, shape (2, 2), in Å."""
        return np.array(self.vectors_A, float)

    @property
    def period_A(self) -> float:
        """Period along the beam in Å; of a stack that does not repeat, the mean of its layers."""
        return self.ends_A[-1] if self.repeats else self.ends_A[-1] / len(self.ends_A)

    @property
    def planes_per_layer(self) -> float:
        """Number of planes of atoms in a layer, on average."""
        return len({round(site.depth_A, 6) for site in self.sites}) / len(self.ends_A)

    @property
    def most_layers(self) -> int | None:
        """Number of layers that there are; None for any number."""
        return None if self.repeats else len(self.ends_A)

    @property
    def axes(self) -> tuple[str, str]:
        """What x and y are, in which labels are given."""
        return self.directions

    def layer_ends_A(self, layers: int) -> list[float]:
        """Return the depths at which layers end, and patterns are kept, in Å."""
        known, period = len(self.ends_A), self.ends_A[-1]
        return [n // known * period + self.ends_A[n % known] for n in _numbers(layers)]

    def stack(self, layers: int) -> Atoms:
        """Return the atoms of one cell of some layers.

        Raises
        ------
        RequestError
            If there are fewer layers.
        """
        if self.most_layers and layers > self.most_layers:
            raise RequestError(f"{self.name} has {self.most_layers} layers, not {layers}")
        ends = self.layer_ends_A(layers)
        within = np.array([site.depth_A for site in self.sites])
        place = np.array([site.position for site in self.sites])
        kinds: list[str] = []
        scaled: list[np.ndarray] = []
        known = len(self.ends_A)
        for number in range(-(-layers // known)):
            depth = within + number * self.ends_A[-1]
            layer = np.minimum(np.searchsorted(self.ends_A, within, side="right"), known - 1)
            order = np.argsort(depth, kind="stable")
            chosen = order[(number * known + layer < layers)[order]]
            kinds += [self.sites[n].kind for n in chosen]
            shifted = place[chosen] + number * np.array(self.shift)
            scaled.append(np.column_stack([shifted, 1 - depth[chosen] / ends[-1]]))
        return Atoms(kinds, np.concatenate(scaled))


def crystal_of(values: Mapping[str, Any]) -> Crystal:
    """Make a crystal of :meth:`Crystal.to_dict`, with lists or tuples."""
    if "zigzag_A" in values:
        return Material(**values)
    a, b = map(_pair, values["vectors_A"])
    sites = tuple(Site(s["kind"], _pair(s["position"]), s["depth_A"]) for s in values["sites"])
    parts = {
        "vectors_A": (a, b),
        "sites": sites,
        "ends_A": tuple(values["ends_A"]),
        "shift": _pair(values["shift"]),
        "directions": tuple(values["directions"]),
    }
    return LayeredCrystal(**{**values, **parts})


def _pair(values: Sequence[float]) -> tuple[float, float]:
    x, y = values
    return x, y


# MoS2 is the paper's cell. The others: a and c of the bulk 2H crystals, with the chalcogen height
# from z(X); docs/crystals.md names their sources. Displacements other than MoS2's are estimates.
MATERIALS: dict[str, Material] = {
    m.formula: m
    for m in (
        Material("MoS2", 3.1613, 5.4755, 12.3063, 1.5875, {"Mo": 0.07535, "S": 0.08856}),
        Material("MoSe2", 3.289, 5.6967, 12.927, 1.668, {"Mo": 0.075, "Se": 0.085}),
        Material("WS2", 3.1532, 5.4615, 12.323, 1.571, {"W": 0.065, "S": 0.085}),
        Material("WSe2", 3.282, 5.6846, 12.96, 1.671, {"W": 0.065, "Se": 0.080}),
        Material("MoTe2", 3.5182, 6.0937, 13.9736, 1.803, {"Mo": 0.080, "Te": 0.085}),
    )
}


def slab(crystal: Crystal, deformation: Deformation, layers: int) -> ase.Atoms:
    """Build one deformed in-plane cell of a stack of layers.

    Parameters
    ----------
    crystal
        The undeformed crystal.
    deformation
        In-plane stretch; z is left alone (Yankovich et al. 2026, eq. 2).
    layers
        Number of layers.

    Returns
    -------
    ase.Atoms
        The in-plane cell vectors are the deformed, in general oblique ones. The first layer that
        the beam meets has the largest z. The array ``kinds`` has the kinds of atoms.

    Examples
    --------
    >>> from pacbed.specimen.polytypes import crystal
    >>> atoms = slab(crystal("MoS2"), Deformation(1.02, 1.0, 0.0), layers=2)
    >>> str(atoms.symbols), atoms.cell.lengths().round(3)
    ('S2Mo2S4Mo2S2', array([ 3.225,  5.476, 12.306]))
    """
    import ase  # here, since jobs that build no crystal read materials

    atoms = crystal.stack(layers)
    cell = np.diag([0.0, 0.0, crystal.thickness_A(layers)])
    cell[:2, :2] = crystal.in_plane_cell_A(deformation)
    symbols = [element_of(kind) for kind in atoms.kinds]
    made = ase.Atoms(symbols, scaled_positions=atoms.positions, cell=cell, pbc=True)
    made.set_array("kinds", np.array(atoms.kinds))
    return made
