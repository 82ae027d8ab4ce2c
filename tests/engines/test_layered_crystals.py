"""Plane waves through crystals of other lattices: where discs lie, and what symmetry they have."""

import math
from dataclasses import replace
from functools import cache

import ase.build
import numpy as np
import pytest
from samples import (
    WAVELENGTH_A,
    detector,
    difference,
    patterns,
    reciprocal_lattice,
    requested,
    scattered,
)
from stacks import DISPLACEMENTS, mos2_on_graphene

from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.atoms import AtomTransmission
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.engines.planewave.multislice import Slicing, atomic_planes
from pacbed.engines.planewave.waves import Band, ReciprocalGrid
from pacbed.engines.prismatic import Layout, PrismaticSettings
from pacbed.exceptions import RequestError
from pacbed.reading.discs import nearest_reflection_mrad, reflections_mrad
from pacbed.specimen.crystal import MATERIALS, crystal_of, slab
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture, lorentz_factor, wavelength_A
from pacbed.specimen.polytypes import crystal
from pacbed.specimen.structure import Layering, crystal_of_atoms

COARSE = {"band_limit": 2.0, "incident_step_mrad": 4.0}
SCALE_mrad = 1e3 * wavelength_A(80)
SQRT3 = math.sqrt(3)


def of_atoms(name, displacements, layering, atoms):
    return crystal_of_atoms(atoms, atoms.get_chemical_symbols(), displacements, layering, name)


@cache
def stack():
    return of_atoms("the stack", DISPLACEMENTS, Layering(stack=True), mos2_on_graphene())


@cache
def wse2():
    """As ASE builds it, in its cell of one layer, with an inclined vector along the beam."""
    layer = ase.build.mx2("WSe2", "2H", a=3.282, thickness=3.348, vacuum=None)
    layer.cell[2] = [0, 3.282 / SQRT3, 6.48]
    layer.pbc = True
    return of_atoms("wse2", {"W": 0.065, "Se": 0.08}, Layering(), layer)


# Crystal, and angles of its innermost reflections without the direct beam: of a hexagonal lattice
# λ 2/√3 a, of a rectangular one λ/a where glide planes do not extinguish it.
def hexagonal(a):
    return 2 / (SQRT3 * a)


EXPECTED = {
    "graphene": (lambda: crystal("graphene"), 6, hexagonal(2.4617)),
    "hBN": (lambda: crystal("hBN"), 6, hexagonal(2.504)),
    "1T-TaS2": (lambda: crystal("1T-TaS2"), 6, hexagonal(3.3672)),
    "3R-MoS2": (lambda: crystal("3R-MoS2"), 6, hexagonal(3.1607)),
    "WSe2": (wse2, 6, hexagonal(3.282)),
    "black-phosphorus": (
        lambda: crystal("black-phosphorus"),
        4,
        math.hypot(1 / 3.3136, 1 / 4.3763),
    ),
    "MoS2 on graphene": (stack, 6, hexagonal(3.1613)),
}


def simulation(made, layers, motion="none", **changes):
    request = requested(semiangle=2, field=60, pixels=121, motion=motion)
    return replace(request, material=made, layers=layers, **changes)


@cache
def beams_of(name, layers):
    """Beams of the wave along the axis: angles (x, y) in mrad, and intensities after all layers."""
    made = EXPECTED[name][0]() if name in EXPECTED else crystal(name)
    library = scattered(simulation(made, layers), **COARSE)
    axis = int(np.hypot(*library.incident.directions_mrad.T).argmin())
    return library.g_mrad, library.beams[-1, axis].astype(float)


@pytest.mark.parametrize("name", EXPECTED)
def test_discs_lie_at_the_reflections_of_the_structure(name):
    made, count, g_per_A = EXPECTED[name]
    nearest = SCALE_mrad * g_per_A

    assert nearest_reflection_mrad(made(), 80) == pytest.approx(nearest, rel=1e-6)
    # Layers of black phosphorus are shifted, so that two of them extinguish these.
    g, intensity = beams_of(name, 1 if name == "black-phosphorus" else 2)
    here = np.abs(np.hypot(*g.T) - nearest) < 1e-3 * nearest
    assert here.sum() == count
    assert intensity[here].max() > 0.1 * intensity[np.hypot(*g.T) > 1].max()
    known = reflections_mrad(made(), 80, 40)
    inner = np.hypot(*g.T) < 39.9
    expected = np.abs(known[:, None] - g[None, inner]).sum(axis=-1).min(axis=0) < 1e-6
    assert intensity[inner][~expected].sum() < 0.02 * intensity[inner & (np.hypot(*g.T) > 1)].sum()


@pytest.mark.parametrize(("energy_keV", "wavelength"), [(30, 0.0697908), (300, 0.0196875)])
def test_discs_are_as_far_apart_as_the_wavelength_of_the_energy_says(energy_keV, wavelength):
    field = 1.6e3 * wavelength
    request = requested(semiangle=field / 30, field=field, pixels=121)
    request = replace(request, energy_keV=energy_keV)
    pattern = patterns(request, **COARSE)[0]
    centres = reciprocal_lattice((0, 0, 0), np.inf) * wavelength / WAVELENGTH_A
    x, y = np.meshgrid(request.detector.kx_mrad, request.detector.ky_mrad)
    away = np.hypot(x[..., None] - centres[:, 0], y[..., None] - centres[:, 1]).min(axis=-1)
    edge, pixel = field / 30, field / 121
    assert pattern[away < edge - pixel].min() > 100 * pattern[away > edge + pixel].max()


def turned(g, intensity, matrix):
    """How much beams change if the crystal is turned or mirrored, relative to all scattered."""
    inside = np.hypot(*g.T) < 60
    g, intensity = g[inside], intensity[inside]
    image = g @ np.transpose(matrix)
    partner = np.abs(image[:, None] - g[None]).sum(axis=-1)
    paired = partner.min(axis=1) < 1e-3
    other = intensity[partner.argmin(axis=1)]
    apart = np.where(paired, np.abs(intensity - other), intensity)
    return apart.sum() / intensity[np.hypot(*g.T) > 1].sum()


def rotation(degrees):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [[c, -s], [s, c]]


X_MIRRORED, Y_MIRRORED = [[-1, 0], [0, 1]], [[1, 0], [0, -1]]


@pytest.mark.parametrize(
    ("name", "layers", "kept", "broken"),
    [
        ("graphene", 1, [rotation(60), X_MIRRORED, Y_MIRRORED], []),
        ("graphene", 2, [rotation(120), X_MIRRORED], []),
        ("hBN", 1, [rotation(120), X_MIRRORED], []),
        ("1T-TaS2", 2, [rotation(120), X_MIRRORED], [rotation(60)]),
        ("3R-MoS2", 2, [rotation(120), X_MIRRORED], [rotation(60), Y_MIRRORED]),
        ("MoS2", 1, [X_MIRRORED], [Y_MIRRORED]),
        ("WSe2", 2, [rotation(120), X_MIRRORED], [rotation(180)]),
        ("black-phosphorus", 2, [X_MIRRORED, Y_MIRRORED, rotation(180)], [rotation(60)]),
    ],
)
def test_beams_have_the_symmetry_of_the_crystal(name, layers, kept, broken):
    beams = beams_of(name, layers)
    for operation in kept:
        assert turned(*beams, operation) < 1e-3
    for operation in broken:
        assert turned(*beams, operation) > 0.01


def test_two_layers_of_2h_and_3r_differ_and_one_does_not():
    known = crystal("3R-MoS2")
    hexagon, moved = known.cell_A, known.sites
    # 2Hc in the same primitive cell: the second layer has metal and chalcogen exchanged.
    first, other = (1 / 3, 2 / 3), (0.0, 0.0)
    place = {0: {"Mo": first, "S": other}, 1: {"Mo": other, "S": first}}
    sites = tuple(
        replace(s, position=place[int(s.depth_A > known.ends_A[0])][s.kind])
        for s in moved
        if s.depth_A < known.ends_A[1]
    )
    two_h = replace(known, polytype="2H", sites=sites, ends_A=known.ends_A[:2])
    a, c = known.vectors_A[0][0], 2 * known.ends_A[0]
    same = replace(MATERIALS["MoS2"], zigzag_A=a, armchair_A=a * SQRT3, stacking_A=c)
    same = replace(same, chalcogen_height_A=1.586)
    assert hexagon.shape == (2, 2)

    def pattern(made):
        settings = PlaneWaveSettings(**COARSE)
        return PlaneWaveEngine(settings).simulate(simulation(made, 2)).patterns.astype(float)

    found, primitive, orthogonal = (pattern(one) for one in (known, two_h, same))
    # The same crystal in a primitive cell, and in the orthogonal one.
    assert difference(primitive, orthogonal) < 1e-4
    assert difference(found[0], primitive[0]) < 1e-4
    assert difference(found[1], primitive[1]) > 0.02


def test_strain_moves_the_discs_of_an_oblique_cell_and_full_motion_is_computed():
    made = crystal("hBN")
    request = simulation(
        made,
        1,
        "full",
        deformation=Deformation.from_strain(0.03, -0.02, 0.01),
        aperture=Aperture(4.0),
        detector=detector(60, 61),
    )
    library = scattered(request, **COARSE, supercell=(5, 5), diffuse_waves=16)
    gradient = request.deformation.gradient
    undeformed = library.g_mrad @ gradient  # Fᵀ g
    inner = (np.hypot(*undeformed.T) < 25) & (np.hypot(*undeformed.T) > 1)
    np.testing.assert_allclose(
        np.hypot(*undeformed[inner].T), SCALE_mrad * hexagonal(2.504), rtol=1e-9
    )
    assert library.diffuse is not None
    total = library.synthesise(request.aperture, (0.0, 0.0), request.detector).patterns.sum()
    assert 0.97 < total < 1.0


def test_patterns_of_a_stack_are_kept_at_its_interfaces():
    made = stack()
    assert made.most_layers == 2
    assert made.layer_ends_A(2) == pytest.approx([1.5 + 3.175 + 1.7, 1.5 + 3.175 + 3.4 + 1.5])
    with pytest.raises(RequestError, match="is a stack of 2 layers, which does not repeat"):
        simulation(made, 3)
    # The first layer alone is MoS2, with its cell doubled: nothing of graphene.
    g, one = beams_of("MoS2 on graphene", 1)
    of_graphene = np.abs(np.hypot(*g.T) - SCALE_mrad * hexagonal(6.3226 / math.sqrt(7))) < 0.01
    assert of_graphene.sum() == 12
    _, two = beams_of("MoS2 on graphene", 2)
    assert one[of_graphene].max() < 1e-7
    assert np.sort(two[of_graphene])[-6:].min() > 1e-4


def test_a_request_of_any_crystal_survives_its_record():
    for made in (stack(), crystal("1T-TaS2"), wse2(), MATERIALS["MoS2"]):
        request = simulation(made, 1)
        assert type(request).from_dict(request.to_dict()) == request
        assert crystal_of(made.to_dict()) == made


def test_prismatic_gets_probes_in_an_orthogonal_cell_and_refuses_uneven_layers():
    made = crystal("graphene")
    np.testing.assert_allclose(
        made.orthogonal_cell_A(Deformation()), np.diag([2.4617, 2.4617 * SQRT3]), atol=1e-9
    )
    request = simulation(made, 2, aperture=Aperture(20.0))
    settings = PrismaticSettings(box_A="auto", probes="auto")
    layout = Layout.of(request, settings)
    assert len(layout.probes_A) >= 4
    with pytest.raises(RequestError, match="are not equally thick"):
        Layout.of(replace(request, material=stack()), settings)


def test_atoms_of_one_plane_share_a_slice_whatever_their_elements():
    made, phase = crystal("hBN"), SCALE_mrad / 1e3 * lorentz_factor(80)
    planes = atomic_planes(slab(made, Deformation(), 2), (1, 1))
    assert [plane.element for plane in planes] == ["B", "N"] * 2
    band = Band(2.5)
    grid = ReciprocalGrid.for_band(made.cell_A, band, 2, 4)
    atom = AtomTransmission(SCALE_mrad / 1e3, phase, band)

    slicing = Slicing.on_planes(planes, made.layer_ends_A(2), grid, atom, atom)

    assert [len(one.contents) for one in slicing.slices] == [2, 2]
    assert [one.thickness_A for one in slicing.slices] == [3.3306, 1.6653]
