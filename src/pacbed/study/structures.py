"""Crystals by name or from structure files, and whether they can be what they are said to be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pacbed.exceptions import RequestError
from pacbed.specimen.crystal import Crystal, LayeredCrystal, Material, element_of, slab
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.polytypes import (
    CRYSTALS,
    crystal,
    is_hexagonal,
    polytypes_of,
    typical_displacement_A,
)
from pacbed.specimen.structure import Layering, crystal_of_atoms

if TYPE_CHECKING:
    import ase

    from pacbed.engines.request import Motion

_SUFFIXES = {".cif", ".xyz", ".extxyz", ".vasp", ".poscar", ".pdb", ".xsf", ".json", ".traj"}

# Thermal displacement per axis above which a crystal would have molten, and how much larger than in
# a known crystal it may be: 2.4 times is that of 1700 K. Molecules, with hydrogen, are softer.
_LARGEST_RMS_A, _LARGER = 0.3, 2.5
# Distances of neighbours, over the sum of their covalent radii.
_CLOSEST, _FARTHEST = 0.72, 1.35
# Largest ratio of an edge to that of the hexagonal crystal; strain is given elsewhere.
_HEXAGONAL = 1.1
# Metals and formulae whose layers are octahedral (1T), distorted (1T', Td) or otherwise not 2H, and
# those that stack 2H layers otherwise than MoS2: with the metals one above the other.
_NOT_2H = {
    *("Ti", "Zr", "Hf", "V", "Cr", "Co", "Ni", "Rh", "Pd", "Ir", "Pt", "Re", "Cd", "Sn", "Pb"),
    *("WTe2", "NbTe2", "TaTe2"),
}
_OTHER_2H = {"NbS2", "NbSe2", "TaS2", "TaSe2"}
_DISTORTED = {"WTe2": "Td", "ReS2": "1T'", "ReSe2": "1T'", "NbTe2": "1T''", "TaTe2": "1T''"}


def is_file(structure: str) -> bool:
    """Return whether a structure is given as a file, there or not, instead of a name."""
    path = Path(structure)
    named_as_file = path.suffix.lower() in _SUFFIXES or path.name.startswith(("POSCAR", "CONTCAR"))
    return path.is_file() or named_as_file or len(path.parts) > 1


def find(
    structure: str,
    displacements_A: Mapping[str, float],
    layering: Layering,
    usual_A: Mapping[str, float] | None = None,
) -> Crystal:
    """Return a crystal known by name, or that of a structure file.

    Parameters
    ----------
    structure
        Name or file.
    displacements_A
        Root-mean-square thermal displacement of elements or kinds of atoms, in Å, before those that
        are known or stand in the file.
    layering
        What in a file is in plane, and what is a layer.
    usual_A
        Those of a configuration that may only be its defaults: used where a file has none, if it
        has no elements but those that are named here or in `displacements_A`.

    Raises
    ------
    RequestError
        If it is not known, cannot be read, or has no thermal displacements.
    """
    usual_A = usual_A or {}
    if is_file(structure):
        path = Path(structure)
        changed = path.stat().st_mtime_ns if path.is_file() else 0
        given, usual = (tuple(sorted(one.items())) for one in (displacements_A, usual_A))
        return _read_once(path, changed, given, usual, layering)
    found = crystal(structure)
    if layering != Layering():
        raise RequestError(
            f"{found.name} is known by name, with its layers: only a structure file takes a "
            "stacking axis, a stack, ends of layers or a period"
        )
    _check_named(found.kinds, displacements_A, found.name)
    known = {**found.rms_displacement_A, **displacements_A}
    return replace(found, rms_displacement_A=known)  # type: ignore[type-var]


def _check_named(kinds: Sequence[str], displacements_A: Mapping[str, float], name: str) -> None:
    """Refuse displacements of atoms that a crystal does not have."""
    of_it = dict.fromkeys([*kinds, *(element_of(kind) for kind in kinds)])
    if unknown := [kind for kind in displacements_A if kind not in of_it]:
        raise RequestError(
            f"displacements are given of {', '.join(unknown)}, which {name} does not have: it has "
            f"{', '.join(of_it)}"
        )


@lru_cache(maxsize=16)
def _read_once(
    path: Path,
    changed_ns: int,
    displacements_A: tuple[tuple[str, float], ...],
    usual_A: tuple[tuple[str, float], ...],
    layering: Layering,
) -> LayeredCrystal:
    """Read a file again only if it has changed: a configuration asks for its crystal often."""
    return read_structure(path, dict(displacements_A), layering, dict(usual_A))


def read_structure(
    path: Path,
    displacements_A: Mapping[str, float],
    layering: Layering,
    usual_A: Mapping[str, float],
) -> LayeredCrystal:
    """Read a crystal from a file that ASE reads; see :func:`find`."""
    import ase.io

    if not path.is_file():
        raise RequestError(
            f"there is no file {path}: give a structure file (CIF, POSCAR, xyz) or a name: "
            f"{', '.join(CRYSTALS)}"
        )
    try:
        atoms = ase.io.read(path)
    except Exception as error:  # every format has its own
        said = str(error) and not isinstance(error, UnicodeError)
        raise RequestError(
            f"ASE cannot read {path} as a structure: "
            + (f"{type(error).__name__}: {error}" if said else "it is incomplete or damaged")
        ) from error
    if isinstance(atoms, list) or not len(atoms):
        raise RequestError(f"{path} holds no atoms")
    _check_occupancy(atoms, path)
    is_cif = path.suffix.lower() == ".cif"
    of_atoms = _displacements_of_cif(atoms, path, layering.in_plane) if is_cif else None
    kinds, known = _kinds(atoms, of_atoms)
    _check_named(kinds, displacements_A, str(path))
    described = {*atoms.symbols} <= {*usual_A, *map(element_of, displacements_A)}
    known = {**(usual_A if described else {}), **known, **displacements_A}
    kinds = [k if k in known else element_of(k) for k in kinds]
    of_it = {element_of(kind) for kind in kinds} | set(kinds)
    known = {kind: float(u) for kind, u in known.items() if kind in of_it}
    _ask_for_displacements(kinds, known, path)
    return crystal_of_atoms(atoms, kinds, known, layering, str(path))


def _check_occupancy(atoms: ase.Atoms, path: Path) -> None:
    for site in dict(atoms.info.get("occupancy", {})).values():
        if len(site) > 1 or any(abs(share - 1) > 1e-3 for share in site.values()):
            shares = ", ".join(f"{element} {share:g}" for element, share in site.items())
            raise RequestError(
                f"{path} has a site that is occupied in part ({shares}): an average atom scatters "
                "otherwise than the atoms. Give a structure, if need be a supercell, in which "
                "every site is full or absent"
            )


def _displacements_of_cif(
    atoms: ase.Atoms, path: Path, in_plane: tuple[int, int]
) -> list[float | None]:
    """Return the displacement of each atom, from the U or B of its site; None for not known."""
    from ase.io.cif import parse_cif

    sites = atoms.arrays.get("spacegroup_kinds")
    nothing: list[float | None] = [None] * len(atoms)
    # ASE takes the last structure of a file, and leaves out blocks without one.
    blocks = [block for block in parse_cif(str(path)) if block.has_structure()]
    if sites is None or not blocks:
        return nothing
    block: Any = blocks[-1]
    labels = block.get("_atom_site_label") or []
    found: list[float | None] = [None] * len(labels)
    for key, scale in (
        ("_atom_site_u_iso_or_equiv", 1.0),
        ("_atom_site_b_iso_or_equiv", 1 / (8 * math.pi**2)),
    ):
        for n, value in enumerate(block.get(key) or []):
            if isinstance(value, float | int) and value > 0:
                found[n] = math.sqrt(value * scale)
    # Along the beam it does not matter: in a layered crystal, in plane it is smaller.
    of_label = block.get("_atom_site_aniso_label") or []
    along = [block.get(f"_atom_site_aniso_u_{i}{i}") or [] for i in in_plane]
    for label, *values in zip(of_label, *along, strict=False):
        if label in labels and all(isinstance(v, float | int) and v > 0 for v in values):
            found[labels.index(label)] = math.sqrt(sum(values) / 2)
    if len(found) <= int(np.max(sites)):
        return nothing
    return [found[int(n)] for n in sites]


def _kinds(
    atoms: ase.Atoms, of_atoms: Sequence[float | None] | None
) -> tuple[list[str], dict[str, float]]:
    """Return the kind of each atom, and the displacement of kinds: numbered where they differ."""
    symbols = atoms.get_chemical_symbols()
    values = [u and round(u, 5) for u in of_atoms or [None] * len(symbols)]
    kinds, known = list(symbols), {}
    for element in dict.fromkeys(symbols):
        of_element = [n for n, symbol in enumerate(symbols) if symbol == element]
        different = sorted({u for n in of_element if (u := values[n])})
        if len(different) == 1:
            known[element] = different[0]
        for number, u in enumerate(different, 1) if len(different) > 1 else ():
            known[f"{element}{number}"] = u
            for n in of_element:
                kinds[n] = f"{element}{number}" if values[n] == u else kinds[n]
    return kinds, known


def _ask_for_displacements(kinds: Sequence[str], known: Mapping[str, float], path: Path) -> None:
    missing = [
        kind for kind in dict.fromkeys(kinds) if kind not in known and element_of(kind) not in known
    ]
    if not missing:
        return
    elements = {element_of(kind) for kind in kinds}
    typical = {kind: typical_displacement_A(element_of(kind), elements) for kind in missing}
    offered = ", ".join(f"{kind} {t[0]:g} (as in {t[1]})" for kind, t in typical.items() if t)
    options = " ".join(f"{kind}={t[0] if t else '...'}" for kind, t in typical.items())
    section = ", ".join(f"{kind}: {t[0] if t else '...'}" for kind, t in typical.items())
    unknown = [kind for kind, t in typical.items() if not t]
    raise RequestError(
        f"{path} has no thermal displacements of {', '.join(missing)}, root mean square per axis "
        f"in Å: give them (--displacement {options}; or material.rms_displacement_A: {{{section}}})"
        + (f". Typical at room temperature: {offered}" if offered else "")
        + (f". No typical value is known here of {', '.join(unknown)}" if unknown else "")
    )


def implausible(made: Crystal, motion: Motion = "full") -> Iterator[tuple[str, str]]:
    """Yield why a crystal can hardly be what is meant: the quantity, empty for all, and why."""
    still = [kind for kind, u in made.displacements_A.items() if u == 0]
    if still and motion != "none":
        yield (
            f"rms_displacement_A.{still[0]}",
            f" = 0: thermal motion is asked for, but {' and '.join(still)} "
            f"{'do' if len(still) > 1 else 'does'} not move; give displacements, or ask for static "
            "atoms "
            "(thermal_motion: none; --phonons 0 --no-debye-waller)",
        )
    elements = {element_of(kind) for kind in made.kinds}
    for kind, u in made.displacements_A.items():
        most, why = _LARGEST_RMS_A, ""
        known = typical_displacement_A(element_of(kind), elements)
        if known and "H" not in elements and _LARGER * known[0] < most:
            most, why = _LARGER * known[0], f", {_LARGER:g} times the {known[0]:g} of {known[1]}"
        if u > most:
            yield (
                f"rms_displacement_A.{kind}",
                f" = {u:g}: must be at most {most:.3g}{why}, root mean square per axis in Å; of a "
                f"B factor of {u:g} Å² it is √(B / 8π²) = {math.sqrt(u / (8 * math.pi**2)):.3f}",
            )
    of_2h = list(_of_2h(made)) if isinstance(made, Material) else []
    yield from of_2h or _of_distances(made)


def _of_2h(made: Material) -> Iterator[tuple[str, str]]:
    metal, _ = made.kinds
    known = [name for name in polytypes_of(made.formula) if name != made.formula]
    named = f"; take structure: {' or '.join(known)}" if known else ""
    if metal in _NOT_2H or made.formula in _NOT_2H:
        kind = _DISTORTED.get(made.formula, "1T")
        advice = named or f"; give a structure file of the {kind} crystal (structure: FILE)"
        yield (
            "formula",
            f" = {made.formula}: its layers are not those of a 2H crystal ({kind}), but would be "
            f"built so{advice}",
        )
    elif made.formula in _OTHER_2H:
        yield (
            "formula",
            f" = {made.formula}: its 2H crystal has the metals of all layers one above the other "
            "(2Ha), but would be stacked as MoS2 is, with the metal above the chalcogen"
            f"{named or '; give a structure file (structure: FILE)'}",
        )
    hexagonal = made.zigzag_A * math.sqrt(3)
    if not 1 / _HEXAGONAL < made.armchair_A / hexagonal < _HEXAGONAL:
        yield (
            "armchair_A",
            f" = {made.armchair_A:g}: must be about {hexagonal:.4g} Å, √3 times zigzag_A, as in a "
            "2H crystal; are the two exchanged, or those of a primitive cell?",
        )
    if made.chalcogen_height_A >= made.layer_thickness_A / 2:
        yield (
            "chalcogen_height_A",
            f" = {made.chalcogen_height_A}: must be less than half a layer, "
            f"{made.layer_thickness_A / 2:g} Å",
        )


def _of_distances(made: Crystal) -> Iterator[tuple[str, str]]:
    from ase.data import covalent_radii
    from ase.neighborlist import neighbor_list

    layers = made.most_layers or 3
    atoms = slab(made, Deformation(), layers)
    atoms.pbc = (True, True, False)
    radii = covalent_radii[atoms.numbers]
    first, second, distance = neighbor_list("ijd", atoms, (_FARTHEST * radii).tolist())
    share = distance / (radii[first] + radii[second])
    if len(share) and share.min() < _CLOSEST:
        n = int(share.argmin())
        pair = f"{atoms.symbols[first[n]]} and {atoms.symbols[second[n]]}"
        yield (
            "",
            f"{made.name}: {pair} are {distance[n]:.3g} Å apart, their covalent radii add up to "
            f"{radii[first[n]] + radii[second[n]]:.3g} Å; is a position, an edge of the cell or "
            "its unit wrong?",
        )
    alone = sorted(set(range(len(atoms))) - set(first.tolist()))
    if alone:
        yield (
            "",
            f"{made.name}: {atoms.symbols[alone[0]]} has no neighbour within {_FARTHEST:g} times "
            "the sum of covalent radii; is an edge of the cell or its unit wrong?",
        )


def described(made: Crystal) -> str:
    """Return a crystal in one line: cell, axes, layers."""
    (a, b), (ax, ay) = np.linalg.norm(made.cell_A, axis=1), made.axes
    angle = math.degrees(math.acos(np.prod(made.cell_A, axis=0).sum() / (a * b)))
    lattice = ", hexagonal" if is_hexagonal(made) else ""
    most = made.most_layers
    layers = f"{most} layers" if most else f"layers of {made.thickness_A(1):.4g} Å"
    return (
        f"{made.name}: cell {a:.4f} × {b:.4f} Å, {angle:.1f}°{lattice}; {layers}; x along {ax}, "
        f"y {'' if ay.startswith('perp') else 'along '}{ay}; displacements "
        + ", ".join(f"{kind} {u:g} Å" for kind, u in made.displacements_A.items())
    )
