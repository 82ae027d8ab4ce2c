"""The 2H crystals: cells, bonds, stacking, and what a deformation does to them."""

import ase.build
import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from pacbed.exceptions import RequestError
from pacbed.specimen.crystal import MATERIALS, Material, material, slab
from pacbed.specimen.deformation import Deformation

MOS2 = material("MoS2")
SHEARED = Deformation(1.04, 0.97, 30)


def unit_cell(of):
    return slab(of, Deformation(), 2)


def metals(atoms, formula="MoS2"):
    symbol, _ = material(formula).elements
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
    atoms = unit_cell(MOS2)
    np.testing.assert_allclose(atoms.cell.array, np.diag([3.1613, 5.4755, 12.3063]))
    assert atoms.symbols.formula.count() == {"S": 8, "Mo": 4}
    assert MOS2.layer_thickness_A == pytest.approx(6.15315)


@pytest.mark.parametrize("formula", MATERIALS)
def test_metal_sits_in_a_trigonal_prism_of_six_chalcogens(formula):
    atoms = unit_cell(material(formula))
    for index in metals(atoms, formula):
        prism = bonds(atoms, index)
        above, below = prism[prism[:, 2] > 0], prism[prism[:, 2] < 0]
        assert len(above) == len(below) == 3
        # A prism, not an antiprism: every chalcogen above has one straight below it.
        upper, lower = (sorted(np.round(h[:, :2], 6).tolist()) for h in (above, below))
        assert upper == lower
        # Trigonal: the three are 120° apart.
        angles = np.sort(np.degrees(np.arctan2(above[:, 1], above[:, 0])))
        np.testing.assert_allclose(np.diff(angles), 120, atol=0.2)


def test_metal_of_one_layer_lies_above_the_chalcogen_of_the_next():
    atoms = unit_cell(MOS2)
    upper, lower = 9.229725, 3.076575  # middles of the two layers, a quarter of the cell each way

    assert in_plane_sites(atoms, "Mo", upper) == in_plane_sites(atoms, "S", lower + 1.5875)
    assert in_plane_sites(atoms, "Mo", lower) == in_plane_sites(atoms, "S", upper + 1.5875)
    assert in_plane_sites(atoms, "Mo", upper) != in_plane_sites(atoms, "Mo", lower)


def test_first_layer_that_the_beam_meets_has_the_largest_z_and_stays_the_same_in_thicker_slabs():
    def first_layer(layers):
        atoms = slab(MOS2, Deformation(), layers)
        top = atoms.cell.array[2, 2] - 6.15315
        chosen = atoms[atoms.positions[:, 2] > top]
        assert len(chosen) == 6
        return chosen.symbols, chosen.positions - [0, 0, top]

    symbols, positions = first_layer(1)
    for layers in (2, 3, 4):
        more_symbols, more_positions = first_layer(layers)
        assert str(more_symbols) == str(symbols)
        np.testing.assert_allclose(more_positions, positions, atol=1e-9)


@pytest.mark.parametrize(("layer", "direction"), [(1, -1), (2, 1), (3, -1)])
def test_bonds_point_against_y_in_the_first_layer_and_along_y_in_the_next(layer, direction):
    # As in the reference patterns of Prismatic (tests/data); the other way round is a crystal
    # turned by 180°, whose tilts have the other sign.
    atoms = slab(MOS2, Deformation(), 4)
    middle = (4 - layer + 0.5) * 6.15315
    for index in metals(atoms):
        if abs(atoms.positions[index, 2] - middle) < 0.1:
            along_y = [bond for bond in bonds(atoms, index) if abs(bond[0]) < 0.01]
            np.testing.assert_allclose([b[1] for b in along_y], direction * 1.8252, atol=1e-3)
            assert len(along_y) == 2


def test_stacking_repeats_after_two_layers():
    two, four = slab(MOS2, Deformation(), 2), slab(MOS2, Deformation(), 4)
    doubled = two.repeat((1, 1, 2))
    np.testing.assert_allclose(four.cell.array, doubled.cell.array)
    for symbol in ("Mo", "S"):
        np.testing.assert_allclose(
            sorted(np.round(four.positions[four.symbols == symbol], 6).tolist()),
            sorted(np.round(doubled.positions[doubled.symbols == symbol], 6).tolist()),
        )


@pytest.mark.parametrize("formula", MATERIALS)
def test_monolayer_has_the_distances_of_ases_own_mx2(formula):
    ours = material(formula)
    atoms = slab(ours, Deformation(), 1)
    atoms.pbc = (True, True, False)
    theirs = ase.build.mx2(
        formula, "2H", a=ours.zigzag_A, thickness=2 * ours.chalcogen_height_A, vacuum=5
    )
    for pair in [(0, 0), (0, 1), (1, 1)]:
        kinds = tuple(ours.elements[i] for i in pair)
        found, expected = (np.sort(neighbor_list("d", a, {kinds: 8.0})) for a in (atoms, theirs))
        per_cell = len(atoms) // len(theirs)
        assert len(expected) > 0
        np.testing.assert_allclose(found, np.repeat(expected, per_cell), atol=3e-4)


@pytest.mark.parametrize("formula", MATERIALS)
def test_in_plane_lattice_is_hexagonal(formula):
    ours = material(formula)
    assert ours.armchair_A / ours.zigzag_A == pytest.approx(3**0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("formula", "metal", "chalcogen", "bond_A"),
    [
        ("MoS2", "Mo", "S", 2.41),
        ("MoSe2", "Mo", "Se", 2.53),
        ("WS2", "W", "S", 2.41),
        ("WSe2", "W", "Se", 2.53),
        ("MoTe2", "Mo", "Te", 2.73),
    ],
)
def test_bonds_are_as_long_as_measured(formula, metal, chalcogen, bond_A):
    assert material(formula).elements == (metal, chalcogen)
    atoms = unit_cell(material(formula))
    for index in metals(atoms, formula):
        lengths = np.linalg.norm(bonds(atoms, index), axis=1)
        np.testing.assert_allclose(lengths, bond_A, atol=0.02)


def test_no_two_atoms_of_a_deformed_slab_are_too_close():
    assert neighbor_list("d", slab(MOS2, SHEARED, 5), 2.2).size == 0


def test_deformation_moves_atoms_and_cell_by_the_gradient_and_leaves_z_alone():
    before, after = slab(MOS2, Deformation(), 3), slab(MOS2, SHEARED, 3)
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    gradient = np.array(
        [
            [1.04 * c * c + 0.97 * s * s, (1.04 - 0.97) * c * s],
            [(1.04 - 0.97) * c * s, 1.04 * s * s + 0.97 * c * c],
        ]
    )
    for old, new in (
        (before.positions, after.positions),
        (before.cell.array, after.cell.array),
    ):
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


def test_unknown_material_is_refused_with_those_that_are_known():
    with pytest.raises(RequestError, match=r"unknown material 'NbSe2'.*MoS2.*MoTe2"):
        material("NbSe2")
