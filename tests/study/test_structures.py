"""Structure files and named crystals in configurations, and mistakes that get a message."""

import math

import ase.build
import ase.io
import pytest
import yaml

from pacbed.exceptions import ConfigError, RequestError
from pacbed.runs.results_folder import check_results, keep_config
from pacbed.specimen.crystal import MATERIALS
from pacbed.specimen.structure import Layering
from pacbed.study.configuration import load
from pacbed.study.model import Configuration
from pacbed.study.sections import MaterialSection
from pacbed.study.structures import _displacements_of_cif, described, find, implausible

DISPLACEMENTS = {"W": 0.065, "Se": 0.08}


def study(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return load([path])


def refused(tmp_path, text):
    with pytest.raises(ConfigError) as caught:
        study(tmp_path, text)
    return str(caught.value)


CIF = """data_it
_cell_length_a 3.28
_cell_length_b 3.28
_cell_length_c 12.96
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 120
_symmetry_space_group_name_H-M 'P 63/m m c'
_space_group_IT_number 194
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
_atom_site_{of}_iso_or_equiv
W1 W 0.33333 0.66667 0.25 1.0 {w}
Se1 Se 0.33333 0.66667 0.6211 {occupancy} {se}
"""


# Files


@pytest.mark.parametrize(
    ("of", "w", "se", "expected"),
    [("U", 0.0049, 0.0064, (0.07, 0.08)), ("B", 0.3948, 0.5053, (0.0707, 0.08))],
)
def test_thermal_displacements_are_read_from_a_cif(tmp_path, of, w, se, expected):
    path = tmp_path / "it.cif"
    path.write_text(CIF.format(of=of, w=w, se=se, occupancy=1.0))
    found = find(str(path), {}, Layering())
    assert found.displacements_A["W"] == pytest.approx(expected[0], abs=1e-4)
    assert found.displacements_A["Se"] == pytest.approx(expected[1], abs=1e-4)
    given = find(str(path), {"W": 0.05}, Layering())
    assert given.displacements_A["W"] == 0.05


def test_displacements_of_a_file_come_before_those_that_stand_in_every_configuration(tmp_path):
    path = tmp_path / "it.cif"
    # WSe2 with sulfur, whose displacement MoS2 has, too.
    path.write_text(CIF.format(of="U", w=0.0049, se=0.0144, occupancy=1.0).replace("Se", "S"))
    section = MaterialSection(structure=str(path))
    assert section.material().displacements_A["S"] == pytest.approx(0.12)
    assert section.model_copy(
        update={"rms_displacement_A": {"Mo": 0.07535, "S": 0.09}}
    ).material().displacements_A["S"] == pytest.approx(0.09)


def test_defaults_of_the_configuration_are_no_displacements_of_another_crystal(tmp_path):
    path = tmp_path / "it.cif"
    text = CIF.format(of="none", w=0.0, se=0.0, occupancy=1.0).replace("Se", "S")
    path.write_text(text)
    with pytest.raises(RequestError, match="no thermal displacements of W, S,"):
        MaterialSection(structure=str(path)).material()
    usual = {"Mo": 0.07535, "S": 0.08856}
    given = MaterialSection(structure=str(path), rms_displacement_A={**usual, "W": 0.07})
    assert given.material().displacements_A == {"S": 0.08856, "W": 0.07}
    path.write_text(text.replace("W", "Mo"))
    assert MaterialSection(structure=str(path)).material().displacements_A == usual


def test_displacements_along_the_beam_are_left_out_whatever_axis_that_is(tmp_path):
    path = tmp_path / "it.cif"
    anisotropic = """loop_
_atom_site_aniso_label
_atom_site_aniso_U_11
_atom_site_aniso_U_22
_atom_site_aniso_U_33
W1 0.0064 0.0064 0.0225
Se1 0.0064 0.0064 0.0225
"""
    path.write_text(CIF.format(of="U", w=0.01, se=0.01, occupancy=1.0) + anisotropic)
    atoms = ase.io.read(path)
    tungsten = [_displacements_of_cif(atoms, path, Layering(axis).in_plane)[0] for axis in "ca"]
    assert tungsten == pytest.approx([0.08, math.sqrt((0.0064 + 0.0225) / 2)], abs=1e-4)


def test_structures_after_a_block_without_one_keep_their_displacements(tmp_path):
    path = tmp_path / "it.cif"
    text = CIF.format(of="U", w=0.0049, se=0.0064, occupancy=1.0)
    path.write_text(f"data_global\n_publ_contact_author 'nobody'\n{text}")
    assert find(str(path), {}, Layering()).displacements_A["W"] == pytest.approx(0.07)


def test_displacements_of_atoms_that_are_not_there_are_refused(wse2):
    for structure, given in (("1T-TiS2", {}), (str(wse2), DISPLACEMENTS)):
        with pytest.raises(RequestError, match=r"Sb, which .* does not have: it has"):
            find(structure, {**given, "Sb": 0.2}, Layering())


def test_layers_cannot_end_below_the_structure(wse2):
    with pytest.raises(RequestError, match="a layer cannot end at 50 Å"):
        find(str(wse2), DISPLACEMENTS, Layering(layer_ends_A=(4.0, 50.0)))


def test_site_that_is_occupied_in_part_is_refused(tmp_path):
    path = tmp_path / "it.cif"
    path.write_text(CIF.format(of="U", w=0.005, se=0.006, occupancy=0.9))
    with pytest.raises(RequestError, match=r"occupied in part \(Se 0.9\)"):
        find(str(path), {}, Layering())


def test_missing_displacements_are_asked_for_with_typical_values_and_their_source(wse2):
    with pytest.raises(RequestError) as caught:
        find(str(wse2), {}, Layering())
    said = str(caught.value)
    assert "no thermal displacements of W, Se" in said
    assert "--displacement W=0.065 Se=0.08" in said
    assert "Typical at room temperature: W 0.065 (as in WSe2), Se 0.08 (as in WSe2)" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no file"),
        (b"nonsense", "ASE cannot read"),
        (b"\xf5\xff\n" * 9, "it is incomplete or damaged"),
    ],
)
def test_a_file_that_is_absent_or_none_is_named(tmp_path, content, said):
    path = tmp_path / "it.cif"
    if content:
        path.write_bytes(content)
    with pytest.raises(RequestError, match=said):
        find(str(path), {}, Layering())


def test_layering_of_a_named_crystal_is_refused():
    with pytest.raises(RequestError, match="only a structure file takes a stacking axis"):
        find("graphene", {}, Layering(stacking_axis="b"))


def test_a_crystal_is_described_in_a_line(wse2):
    found = described(find(str(wse2), DISPLACEMENTS, Layering()))
    assert "WSe2: cell 3.2820 × 3.2820 Å, 120.0°, hexagonal; layers of 6.48 Å; x along a" in found


# Configurations


@pytest.mark.parametrize("text", ["material: hBN", "material: {structure: hBN}"])
def test_a_crystal_is_named_in_a_configuration(tmp_path, text):
    found = study(tmp_path, text)
    assert found.material.material().name == found.material.name == "hBN"
    # What is written down is read again.
    again = Configuration.model_validate(yaml.safe_load(yaml.safe_dump(found.plain())))
    assert again == found


def test_a_configuration_without_structure_is_what_it_was():
    section = Configuration().material
    assert "structure" not in section.plain()
    assert set(section.plain()) == {
        *("formula", "zigzag_A", "armchair_A", "stacking_A"),
        *("chalcogen_height_A", "rms_displacement_A"),
    }
    assert section.material() == MATERIALS["MoS2"]


def test_results_know_the_content_of_a_structure_file(tmp_path, wse2):
    text = f"material: {{structure: {wse2}, rms_displacement_A: {{W: 0.065, Se: 0.08}}}}"
    results = tmp_path / "results"
    (results / "patterns/6mrad").mkdir(parents=True)
    (results / "patterns/6mrad/00000.zarr.zip").touch()
    keep_config(results, study(tmp_path, text))
    assert check_results(results, study(tmp_path, text)) == []
    wse2.write_text(wse2.read_text().replace("3.282", "3.382"))
    with pytest.raises(ConfigError, match="crystal in the structure file was"):
        check_results(results, study(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("material: SnS2", "SnS2 is known as 1T-SnS2"),
        (
            "material: {structure: hBN, zigzag_A: 2.5}",
            "zigzag_A = 2.5: is of crystals described by",
        ),
        ("material: {stack: true}", "material.stack = True: is of structure files"),
        ("material: {structure: hBN, stacking_axis: b}", "hBN is known by name, with its layers"),
        ("material: none.cif", "material: there is no file none.cif"),
        # 1T as 2H, distorted crystals, NbSe2's other stacking.
        (
            "material: {formula: PbI2, zigzag_A: 4.557, armchair_A: 7.893, stacking_A: 13.96, "
            "chalcogen_height_A: 1.87, rms_displacement_A: {Pb: 0.13, I: 0.13}}",
            "PbI2: its layers are not those of a 2H crystal (1T), but would be built so; take "
            "structure: 1T-PbI2",
        ),
        (
            "material: {formula: VSe2, rms_displacement_A: {V: 0.08, Se: 0.09}}",
            "VSe2: its layers are not those of a 2H crystal (1T), but would be built so",
        ),
        (
            "material: {formula: WTe2, rms_displacement_A: {W: 0.07, Te: 0.08}}",
            "WTe2: its layers are not those of a 2H crystal (Td), but would be built so; give a "
            "structure file of the Td crystal",
        ),
        (
            "material: {formula: NbSe2, zigzag_A: 3.44, armchair_A: 5.958, stacking_A: 12.55, "
            "chalcogen_height_A: 1.68, rms_displacement_A: {Nb: 0.08, Se: 0.09}}",
            "one above the other (2Ha), but would be stacked as MoS2 is, with the metal above the "
            "chalcogen; take structure: 2H-NbSe2",
        ),
        # Edges exchanged, and a = b.
        (
            "material: {zigzag_A: 5.4755, armchair_A: 3.1613}",
            "are the two exchanged, or those of a primitive cell?",
        ),
        ("material: {armchair_A: 3.1613}", "or those of a primitive cell?"),
        # A B factor for a displacement; no displacement.
        (
            "material: {structure: graphene, rms_displacement_A: {C: 0.45}}",
            "of a B factor of 0.45 Å² it is √(B / 8π²) = 0.075",
        ),
        (
            "material: {rms_displacement_A: {S: 0}}",
            "material.rms_displacement_A.S = 0: thermal motion is asked for, but S does not move",
        ),
        # Bonds that cannot be.
        ("material: {chalcogen_height_A: 0.1}", "S and S are 0.2 Å apart"),
    ],
)
def test_mistakes_are_named(tmp_path, text, said):
    assert said in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("name", "displacements", "refused"),
    [
        # B factors of room temperature.
        ("graphite", {"C": 0.2}, ["C"]),
        ("3R-MoS2", {"Mo": 0.25, "S": 0.3}, ["Mo", "S"]),
        ("2H-NbSe2", {"Nb": 0.3, "Se": 0.25}, ["Nb", "Se"]),
        # Displacements of soft crystals, and of hot ones.
        ("1T-PbI2", {"Pb": 0.2, "I": 0.28}, []),
        ("graphite", {"C": 0.12}, []),
        ("black-phosphorus", {"P": 0.17}, []),
    ],
)
def test_b_factors_are_told_from_displacements_by_those_of_known_crystals(
    name, displacements, refused
):
    found = dict(implausible(find(name, displacements, Layering())))
    assert set(found) == {f"rms_displacement_A.{kind}" for kind in refused}
    for kind in refused:
        why = found[f"rms_displacement_A.{kind}"]
        b_factor = displacements[kind]
        assert f"of a B factor of {b_factor} Å² it is √(B / 8π²) = " in why
        assert float(why.split()[-1]) == pytest.approx(math.sqrt(b_factor / 79), abs=1e-3)


def test_molecules_may_be_softer_than_graphite(tmp_path):
    path = tmp_path / "benzene.xyz"
    molecule = ase.build.molecule("C6H6", cell=[7, 7, 5], pbc=True)
    molecule.write(path)
    made = find(str(path), {"C": 0.22, "H": 0.28}, Layering(stack=True))
    assert list(implausible(made)) == []


def test_zero_displacement_is_right_for_static_atoms(tmp_path):
    text = "{material: {rms_displacement_A: {S: 0}}, simulation: {thermal_motion: none}}"
    assert study(tmp_path, text).material.material().rms_A("S") == 0


def test_layers_that_a_stack_does_not_have_are_refused(tmp_path):
    path = tmp_path / "layer.vasp"
    layer = ase.build.graphene(vacuum=8)
    layer.write(path)
    text = (
        f"material: {{structure: {path}, stack: true, rms_displacement_A: {{C: 0.055}}}}"
        "\nsimulation: {engine: planewave}"
    )
    assert "simulation.layers = 20: must be at most 1, the layers of C" in refused(tmp_path, text)


def test_no_known_crystal_is_implausible_and_a_squeezed_one_is(wse2):
    found = find(str(wse2), DISPLACEMENTS, Layering())
    assert list(implausible(found)) == []
    wse2.write_text(wse2.read_text().replace("3.282", "1.282"))
    ((_, why),) = implausible(find(str(wse2), DISPLACEMENTS, Layering()))
    assert "their covalent radii add up to" in why
