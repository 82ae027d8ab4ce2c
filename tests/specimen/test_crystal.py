"""The 2H crystals: cells, bonds, stacking, and what a deformation does to them."""

import ase.build
import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from pacbed.exceptions import RequestError
from pacbed.specimen.crystal import MATERIALS, Material, slab
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.polytypes import crystal

MOS2 = MATERIALS["MoS2"]
SHEARED = Deformation(1.04, 0.97, 30)


def metals(atoms, formula="MoS2"):
    symbol, _ = MATERIALS[formula].kinds
    return np.flatnonzero(atoms.symbols == symbol)


def bonds(atoms, index):
    """Vectors from an atom to its neighbours within 3 Å."""
    centre, vectors = neighbor_list("iD", atoms, 3.0)
    return vectors[centre == index]


def in_plane_sites(atoms, symbol, z):
    """Fractional in-plane positions of the atoms of an element in the plane at z, sorted."""
    chosen = (atoms.symbols == symbol) & (np.abs(atoms.positions[:, 2] - z) < 0.1)
    return sorted(tuple(site) for site in np.round(atoms.get_scaled_positions()[chosen, :2], 6))


def test_cell_is_that_of_the_paper():
    atoms = slab(MOS2, Deformation(), 2)
    np.testing.assert_allclose(atoms.cell.array, np.diag([3.1613, 5.4755, 12.3063]))
    assert atoms.symbols.formula.count() == {"S": 8, "Mo": 4}
    assert MOS2.layer_thickness_A == pytest.approx(6.15315)


def test_metal_of_one_layer_lies_above_the_chalcogen_of_the_next():
    atoms = slab(MOS2, Deformation(), 2)
    upper, lower = 9.229725, 3.076575  # middles of the two layers, a quarter of the cell each way

    assert in_plane_sites(atoms, "Mo", upper) == in_plane_sites(atoms, "S", lower + 1.5875)
    assert in_plane_sites(atoms, "Mo", lower) == in_plane_sites(atoms, "S", upper + 1.5875)
    assert in_plane_sites(atoms, "Mo", upper) != in_plane_sites(atoms, "Mo", lower)


@pytest.mark.parametrize(
    ("layer", "of", "direction"), [(1, 1, -1), (1, 3, -1), (1, 4, -1), (2, 4, 1), (3, 4, -1)]
)
def test_bonds_point_against_y_in_the_first_layer_and_along_y_in_the_next(layer, of, direction):
    # As in the reference patterns of Prismatic (tests/data); the other way round is a crystal
    # turned by 180°, whose tilts have the other sign.
    atoms = slab(MOS2, Deformation(), of)
    middle = (of - layer + 0.5) * 6.15315
    of_layer = [n for n in metals(atoms) if abs(atoms.positions[n, 2] - middle) < 0.1]
    assert len(of_layer) == 2
    for index in of_layer:
        along_y = [bond for bond in bonds(atoms, index) if abs(bond[0]) < 0.01]
        np.testing.assert_allclose([b[1] for b in along_y], direction * 1.8252, atol=1e-3)
        assert len(along_y) == 2


@pytest.mark.parametrize("formula", MATERIALS)
def test_monolayer_has_the_distances_of_ases_own_mx2(formula):
    ours = MATERIALS[formula]
    atoms = slab(ours, Deformation(), 1)
    atoms.pbc = (True, True, False)
    theirs = ase.build.mx2(
        formula, "2H", a=ours.zigzag_A, thickness=2 * ours.chalcogen_height_A, vacuum=5
    )
    for pair in [(0, 0), (0, 1), (1, 1)]:
        kinds = tuple(ours.kinds[i] for i in pair)
        found, expected = (np.sort(neighbor_list("d", a, {kinds: 8.0})) for a in (atoms, theirs))
        per_cell = len(atoms) // len(theirs)
        assert len(expected) > 0
        np.testing.assert_allclose(found, np.repeat(expected, per_cell), atol=3e-4)


@pytest.mark.parametrize("formula", MATERIALS)
def test_in_plane_lattice_is_hexagonal(formula):
    ours = MATERIALS[formula]
    assert ours.armchair_A / ours.zigzag_A == pytest.approx(3**0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("formula", "metal", "chalcogen", "bond_A"),
    [
        ("MoS2", "Mo", "S", 2.41),
        ("MoSe2", "Mo", "Se", 2.53),
        ("WS2", "W", "S", 2.41),
        ("WSe2", "W", "Se", 2.53),
        ("MoTe2", "Mo", "Te", 2.72),
    ],
)
def test_bonds_are_as_long_as_measured(formula, metal, chalcogen, bond_A):
    assert MATERIALS[formula].kinds == (metal, chalcogen)
    atoms = slab(MATERIALS[formula], Deformation(), 2)
    for index in metals(atoms, formula):
        lengths = np.linalg.norm(bonds(atoms, index), axis=1)
        np.testing.assert_allclose(lengths, bond_A, atol=0.02)


def test_no_two_atoms_of_a_deformed_slab_are_too_close():
    assert neighbor_list("d", slab(MOS2, SHEARED, 5), 2.2).size == 0


def test_deformation_moves_atoms_and_cell_by_the_gradient_and_leaves_z_alone():
    before, after = slab(MOS2, Deformation(), 3), slab(MOS2, SHEARED, 3)
    # R(30°) diag(1.04, 0.97) R(30°)ᵀ
    gradient = 1.005 * np.eye(2) + 0.035 * np.array([[0.5, 3**0.5 / 2], [3**0.5 / 2, -0.5]])
    for old, new in ((before.positions, after.positions), (before.cell.array, after.cell.array)):
        np.testing.assert_allclose(new[:, :2], (gradient @ old[:, :2].T).T, atol=1e-12)
        np.testing.assert_array_equal(new[:, 2], old[:, 2])
    assert np.abs(after.cell.array[0, 1]) > 0.05  # the deformed cell is an oblique one


@pytest.mark.parametrize("formula", ["MoS", "MoS3", "S2Mo", "MoSSe", "Mo", "Mo2S4", "mo-s!"])
def test_formula_that_is_not_mx2_is_refused(formula):
    with pytest.raises(RequestError, match=rf"'{formula}' is not of the form MX2"):
        Material(formula, 3.16, 5.47, 12.3, 1.59, {"Mo": 0.08, "S": 0.09, "Se": 0.09})


@pytest.mark.parametrize(
    ("known", "said"),
    [({"Mo": 0.08}, "for S in MoS2.*has Mo"), ({}, "for Mo, S in MoS2.*has nothing")],
)
def test_missing_displacement_is_refused_by_the_name_of_its_element(known, said):
    with pytest.raises(RequestError, match=f"no thermal displacement {said}"):
        Material("MoS2", 3.16, 5.47, 12.3, 1.59, known)


@pytest.mark.parametrize("made", [MOS2, crystal("graphene")])
def test_more_layers_than_anyone_has_are_refused_at_once(made):
    with pytest.raises(RequestError, match="1,000,000,000 layers are too many"):
        made.thickness_A(10**9)


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("MoS2", (False, False)),
        ("hBN", (False, False)),
        ("graphene", (True, False)),
        ("black-phosphorus", (True, True)),
    ],
)
def test_some_crystals_are_the_same_after_half_a_turn(name, same):
    assert tuple(crystal(name).same_after_half_turn(layers) for layers in (1, 2)) == same
