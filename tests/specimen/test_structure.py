"""Crystals by name and from atoms: bonds, layers, axes, and what is refused."""

import math
import re

import ase
import ase.build
import numpy as np
import pytest
from ase.neighborlist import neighbor_list
from ase.spacegroup import crystal as of_spacegroup

from pacbed.exceptions import RequestError
from pacbed.specimen.crystal import MATERIALS, LayeredCrystal, Site, slab
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.polytypes import CRYSTALS, crystal, is_hexagonal, typical_displacement_A
from pacbed.specimen.structure import Layering, crystal_of_atoms

# Shortest distance of unlike atoms, or of atoms, in Å; published values.
BONDS = {
    "1T-TaS2": ("Ta", "S", 2.46),
    "1T-TiS2": ("Ti", "S", 2.43),
    "1T-TiSe2": ("Ti", "Se", 2.55),
    "1T-ZrS2": ("Zr", "S", 2.56),
    "1T-HfS2": ("Hf", "S", 2.56),
    "1T-PtSe2": ("Pt", "Se", 2.51),
    "1T-SnS2": ("Sn", "S", 2.56),
    "1T-SnSe2": ("Sn", "Se", 2.68),
    "1T-PbI2": ("Pb", "I", 3.23),
    "2H-NbSe2": ("Nb", "Se", 2.60),
    "2H-TaS2": ("Ta", "S", 2.47),
    "3R-MoS2": ("Mo", "S", 2.41),
    "3R-WS2": ("W", "S", 2.41),
    "3R-MoSe2": ("Mo", "Se", 2.53),
    "graphene": ("C", "C", 1.42),
    "graphite": ("C", "C", 1.42),
    "3R-graphite": ("C", "C", 1.42),
    "hBN": ("B", "N", 1.446),
    "black-phosphorus": ("P", "P", 2.224),
}


@pytest.mark.parametrize("name", [name for name in CRYSTALS if "-" in name or name[0].islower()])
def test_bonds_of_named_crystals_are_as_long_as_measured(name):
    one, other, bond = BONDS[name]
    atoms = slab(crystal(name), Deformation(), 4)
    kinds, lengths = neighbor_list("id", atoms, {(one, other): 1.03 * bond})
    assert set(kinds.tolist()) >= set(np.flatnonzero(atoms.symbols == one).tolist())
    assert lengths.min() == pytest.approx(bond, abs=0.012)
    # Of a metal six neighbours, of the others three.
    counts = np.bincount(kinds, minlength=len(atoms))[atoms.symbols == one]
    expected = {"P": 2, "C": 3, "B": 3}.get(one, 6)
    assert set(counts.tolist()) <= ({2, 3} if one == "P" else {expected})


@pytest.mark.parametrize(
    ("name", "over"),
    [
        ("2H-NbSe2", [("Nb", "Nb")]),
        ("3R-MoS2", [("Mo", "S")]),
        ("1T-TaS2", [("Ta", "Ta"), ("S", "S")]),
        ("hBN", [("B", "N"), ("N", "B")]),
        ("graphite", [("C", "C")]),
    ],
)
def test_layers_are_stacked_as_they_should_be(name, over):
    made = crystal(name)
    atoms, ends = made.stack(2), made.layer_ends_A(2)
    first = (1 - atoms.positions[:, 2]) * ends[1] < ends[0]
    places = [tuple(p) for p in np.round(atoms.positions[:, :2] % 1, 4).tolist()]
    of = {
        layer: {(k, p) for k, p, here in zip(atoms.kinds, places, layer_of, strict=True) if here}
        for layer, layer_of in (("upper", first), ("lower", ~first))
    }
    for upper, lower in over:
        above = {place for kind, place in of["upper"] if kind == upper}
        assert above & {place for kind, place in of["lower"] if kind == lower}


def test_rhombohedral_crystal_repeats_after_three_layers_and_hexagonal_after_two():
    for name, layers in (("3R-MoS2", 3), ("3R-graphite", 3), ("graphite", 2), ("1T-TaS2", 1)):
        assert len(crystal(name).ends_A) == layers


def test_bonds_of_the_first_layer_point_as_in_the_2h_crystal():
    # Metal at (1/3, 2/3): from there a chalcogen lies along -y, as in the cell of the paper.
    for made in (crystal("3R-MoS2"), MATERIALS["MoS2"]):
        atoms = slab(made, Deformation(), 1)
        index, vectors = neighbor_list("iD", atoms, 2.6)
        along_y = vectors[(atoms.symbols[index] == "Mo") & (np.abs(vectors[:, 0]) < 1e-3)]
        assert (along_y[:, 1] < 0).all()
        assert len(along_y)


def test_named_crystals_that_are_hexagonal_say_so():
    assert [name for name in CRYSTALS if not is_hexagonal(crystal(name))] == ["black-phosphorus"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("TaS2", "TaS2 is known as 1T-TaS2 and 2H-TaS2. Others"),
        ("kryptonite", "black-phosphorus. Others can be given by"),
        ("mos2", "Did you mean MoS2?"),
        ("Graphen", "Did you mean graphene?"),
    ],
)
def test_unknown_name_is_refused_with_polytypes_that_are_known(name, said):
    with pytest.raises(RequestError, match=f"unknown material '{name}'.*{re.escape(said)}"):
        crystal(name)


def test_typical_displacements_are_those_of_the_crystal_that_is_most_alike():
    assert typical_displacement_A("Se", {"W", "Se"}) == (0.08, "WSe2")
    assert typical_displacement_A("Se", {"Nb", "Se"})[1] == "2H-NbSe2"
    assert typical_displacement_A("U", {"U"}) is None


# From atoms


def made(atoms, displacements, **layering):
    kinds = atoms.get_chemical_symbols()
    return crystal_of_atoms(atoms, kinds, displacements, Layering(**layering), "it")


def wse2():
    return of_spacegroup(
        ["W", "Se"],
        [(1 / 3, 2 / 3, 0.25), (1 / 3, 2 / 3, 0.6211)],
        spacegroup=194,
        cellpar=[3.282, 3.282, 12.96, 90, 90, 120],
    )


def phosphorus():
    cell = [3.3136, 10.478, 4.3763, 90, 90, 90]
    return of_spacegroup(["P"], [(0, 0.10168, 0.08056)], spacegroup=64, cellpar=cell)


def distances(one, layers):
    atoms = slab(one, Deformation(), layers)
    atoms.pbc = (True, True, False)
    return np.sort(neighbor_list("d", atoms, 4.5)) / 1.0


def test_layers_are_found_in_the_gaps_that_no_bond_bridges():
    found = made(wse2(), {"W": 0.065, "Se": 0.08})
    assert found.formula == "WSe2"
    assert found.ends_A == pytest.approx((6.48, 12.96), abs=1e-3)
    # The same crystal as that of the paper's kind, in a cell of half the size.
    ours, theirs = distances(MATERIALS["WSe2"], 2), distances(found, 2)
    np.testing.assert_allclose(ours, np.repeat(theirs, 2), atol=0.01)


def test_layers_may_be_stacked_along_another_axis():
    found = made(phosphorus(), {"P": 0.085}, stacking_axis="b")
    assert found.axes == ("c", "perpendicular to c")
    np.testing.assert_allclose(found.cell_A, [[4.3763, 0], [0, 3.3136]], atol=1e-9)
    np.testing.assert_allclose(
        distances(found, 2), distances(crystal("black-phosphorus"), 2), atol=1e-3
    )
    with pytest.raises(RequestError, match=r"no gap .* along c, but one along b: .*axis b"):
        made(phosphorus(), {"P": 0.085})


def test_inclined_vector_along_the_beam_shifts_each_period():
    # Rhombohedral graphite in its cell of one layer.
    a = 2.46
    layer = ase.build.graphene(a=a)
    layer.cell[2] = [0, a / math.sqrt(3), 3.35]
    layer.pbc = True
    found = made(layer, {"C": 0.055})
    assert len(found.ends_A) == 1
    np.testing.assert_allclose(distances(found, 3), distances(crystal("3R-graphite"), 3), atol=0.01)


def test_left_handed_and_turned_cells_are_the_same_crystal():
    usual = made(wse2(), {"W": 0.065, "Se": 0.08})
    turned = wse2()
    turned.rotate(90, "x", rotate_cell=True)
    again = made(turned, {"W": 0.065, "Se": 0.08})
    np.testing.assert_allclose(again.cell_A, usual.cell_A, atol=1e-6)
    np.testing.assert_allclose(distances(again, 2), distances(usual, 2), atol=1e-4)
    upside_down = wse2()
    upside_down.cell[2] *= -1
    upside_down.wrap()
    np.testing.assert_allclose(
        distances(made(upside_down, {"W": 0.065, "Se": 0.08}), 2), distances(usual, 2), atol=1e-4
    )


def test_sites_of_an_element_may_move_differently():
    atoms = wse2()
    kinds = [
        f"Se{1 + n % 2}" if symbol == "Se" else symbol for n, symbol in enumerate(atoms.symbols)
    ]
    found = crystal_of_atoms(atoms, kinds, {"W": 0.06, "Se": 0.08, "Se2": 0.1}, name="it")
    assert found.displacements_A == {"W": 0.06, "Se1": 0.08, "Se2": 0.1}
    assert set(slab(found, Deformation(), 2).symbols) == {"W", "Se"}


def test_a_monolayer_with_vacuum_is_a_stack_or_has_a_period():
    layer = ase.build.graphene(vacuum=8)
    layer.pbc = True
    with pytest.raises(RequestError, match=r"16 Å of vacuum along c.*--stack.*--period"):
        made(layer, {"C": 0.055})
    alone = made(layer, {"C": 0.055}, stack=True)
    assert alone.most_layers == 1
    repeated = made(layer, {"C": 0.055}, period_A=3.35)
    assert repeated.layer_ends_A(3) == pytest.approx([3.35, 6.7, 10.05])


@pytest.mark.parametrize("pbc", [(True, True, False), (True, True, True)])
def test_a_crystal_with_vacuum_and_a_period_has_no_gap_along_another_axis(pbc):
    gold = ase.build.fcc100("Au", (1, 1, 2), vacuum=5)
    gold.pbc = pbc
    assert made(gold, {"Au": 0.08}, period_A=4.08).ends_A == pytest.approx((4.08,))


def test_ends_of_layers_may_be_given():
    found = made(wse2(), {"W": 0.065, "Se": 0.08}, layer_ends_A=(1.0, 2.5))
    first = min(site.depth_A for site in found.sites)
    assert found.ends_A == pytest.approx((first + 1.0, first + 2.5, 12.96), abs=1e-3)
    with pytest.raises(RequestError, match="layer 2 of WSe2 has no atoms"):
        made(wse2(), {"W": 0.065, "Se": 0.08}, layer_ends_A=(5.0, 6.0))


@pytest.mark.parametrize("pbc", [(True, False, True), (False, False, False)])
def test_what_is_not_periodic_in_plane_is_refused(pbc):
    atoms = wse2()
    atoms.pbc = pbc
    with pytest.raises(RequestError, match="not periodic in plane"):
        made(atoms, {"W": 0.065, "Se": 0.08})


def test_a_molecule_is_refused():
    with pytest.raises(RequestError, match="not periodic in plane"):
        made(ase.build.molecule("C6H6"), {"C": 0.05, "H": 0.1})


def test_crystal_with_parallel_vectors_or_without_displacements_is_refused():
    sites, ends = (Site("C", (0.0, 0.0), 1.0),), (3.0,)
    with pytest.raises(RequestError, match="not periodic in plane"):
        LayeredCrystal(
            "C", "", ((1.0, 0.0), (2.0, 0.0)), sites, ends, rms_displacement_A={"C": 0.1}
        )
    with pytest.raises(RequestError, match="no thermal displacement for C"):
        LayeredCrystal("C", "", ((1.0, 0.0), (0.0, 2.0)), sites, ends)
