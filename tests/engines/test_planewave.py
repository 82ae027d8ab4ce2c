"""The physics of the plane-wave engine: geometry of the discs, tilt, rotation, conservation."""

import math
import re
import threading
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from samples import (
    MOS2,
    SHEARED,
    SMALL,
    STRETCHED,
    WAVELENGTH_A,
    detector,
    difference,
    patterns,
    reciprocal_lattice,
    requested,
    scattered,
    shaking,
    simulate,
    synthesised,
)
from scipy import ndimage
from scipy.integrate import trapezoid
from threadpoolctl import threadpool_info, threadpool_limits

from pacbed.engines import ThermalMotion
from pacbed.engines.planewave import PlaneWaveSettings, check_motion
from pacbed.engines.planewave import engine as planewave
from pacbed.engines.planewave.atoms import AtomTransmission, analytic_form_factor, kirkland
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.engines.planewave.library import Recorder, ScatteringLibrary
from pacbed.engines.planewave.multislice import Slicing, atomic_planes
from pacbed.engines.planewave.waves import Band, Cone, IncidentGrid, ReciprocalGrid
from pacbed.exceptions import EngineError, RequestError
from pacbed.specimen.crystal import slab
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture, lorentz_factor, wavelength_A

# Geometry of the discs


def lit(pattern):
    return pattern > 1e-4 * pattern.max()


def disc_centres(pattern, detector):
    """Centres (x, y) in mrad of the separate bright areas of a pattern."""
    areas, count = ndimage.label(lit(pattern))
    rows, columns = np.transpose(ndimage.center_of_mass(areas > 0, areas, range(1, count + 1)))
    pixel = detector.field_of_view_mrad[0] / detector.pixels[0]
    return np.column_stack([columns, rows]) * pixel + [detector.kx_mrad[0], detector.ky_mrad[0]]


def farthest(centres, expected):
    """Largest distance from a disc to the nearest expected centre."""
    distances = np.linalg.norm(centres[:, None] - expected[None], axis=-1)
    return distances.min(axis=1).max()


@pytest.mark.parametrize(
    ("strain", "mistaken"),
    [
        ((0.0, 0.0, 0.0), None),
        (STRETCHED, (-0.02, 0.03, 0.0)),  # along armchair instead of zigzag
        (SHEARED, (0.0, 0.0, -0.04)),
    ],
)
def test_discs_lie_on_the_reciprocal_lattice_of_the_deformed_crystal(strain, mistaken):
    # Of 2 mrad, well apart.
    request = requested(semiangle=2, strain=strain, layers=2, field=40, pixels=161)
    centres = disc_centres(patterns(request)[1], request.detector)
    expected = reciprocal_lattice(strain, reach_mrad=17.5)
    assert len(centres) == len(expected) == 7
    assert farthest(centres, expected) < 0.05
    if mistaken:
        assert farthest(centres, reciprocal_lattice(mistaken, reach_mrad=17.5)) > 0.5


# Tilt


def test_tilt_moves_intensity_not_discs():
    upright = requested(semiangle=5, layers=10, field=40, pixels=81)
    tilted = replace(upright, tilt_mrad=(4.0, -3.0))

    before, after = (patterns(r)[9] for r in (upright, tilted))

    # But for pixels of which next to nothing lies within a disc.
    assert np.count_nonzero(lit(after) != lit(before)) <= 4
    assert difference(after, before) > 0.2


@pytest.mark.parametrize("axis", [0, 1])
def test_tilt_shifts_the_filling_of_every_disc_by_the_tilt(axis):
    # tan φ = 3e-3, and pixels of 0.5 mrad: the filling moves by six of them.
    upright = requested(semiangle=7, layers=10, field=50.5, pixels=101)
    tilt = np.zeros(2)
    tilt[axis] = 1e3 * math.atan(3e-3)
    shift = tuple(np.roll((0, 6), axis))  # (rows, columns)

    still = patterns(upright)[9]
    tilted = patterns(replace(upright, tilt_mrad=tuple(tilt)))[9]

    k = upright.detector.kx_mrad
    direction = np.array([3.0, 0.0]) if axis == 0 else np.array([0.0, 3.0])
    for centre in reciprocal_lattice((0, 0, 0), 17.5):
        x, y = k[None, :] - centre[0], k[:, None] - centre[1]
        inside = (np.hypot(x, y) < 6.2) & (np.hypot(x - direction[0], y - direction[1]) < 6.2)
        inside &= np.hypot(x + direction[0], y + direction[1]) < 6.2
        moved, wrong = (np.roll(still, np.multiply(s, shift), (0, 1)) for s in (1, -1))
        right = np.abs(tilted - moved)[inside].sum() / tilted[inside].sum()
        opposite = np.abs(tilted - wrong)[inside].sum() / tilted[inside].sum()
        assert right < 0.002
        assert opposite > 0.05


@pytest.mark.parametrize("motion", ["none", "coherent"])
def test_mirrored_tilt_of_a_symmetric_crystal_gives_the_mirrored_pattern(motion):
    right, left = (patterns(requested(tilt=(x, 2.0), layers=5, motion=motion)) for x in (5.0, -5.0))
    assert difference(right[:, :, ::-1], left) < 1e-5
    assert difference(right[4], left[4]) > 0.05


# Symmetry


def test_undeformed_crystal_gives_a_pattern_that_is_its_own_mirror_image():
    # The plane through the metal-chalcogen bonds: x to -x.
    found = patterns(requested(semiangle=12.65, layers=4))
    assert difference(found[3, :, ::-1], found[3]) < 1e-4
    assert difference(found[3, ::-1, :], found[3]) > 1e-3  # but y to -y is no symmetry


def test_mirrored_shear_gives_the_mirrored_pattern():
    one = patterns(requested(strain=(0.01, -0.02, 0.03), tilt=(3.0, 1.0), layers=3))
    other = patterns(requested(strain=(0.01, -0.02, -0.03), tilt=(-3.0, 1.0), layers=3))
    assert difference(one[:, :, ::-1], other) < 2e-4
    assert difference(one[2], other[2]) > 0.02


def rotated(pattern, angle_deg, detector):
    """The pattern turned counter-clockwise about zero angle."""
    c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    x, y = np.meshgrid(detector.kx_mrad, detector.ky_mrad)
    pixel = detector.field_of_view_mrad[0] / detector.pixels[0]
    columns = (c * x + s * y) / pixel + detector.pixels[0] // 2
    rows = (-s * x + c * y) / pixel + detector.pixels[1] // 2
    return ndimage.map_coordinates(pattern, [rows, columns], order=3)


def within(detector, radius_mrad):
    return np.hypot(detector.kx_mrad[None, :], detector.ky_mrad[:, None]) < radius_mrad


@pytest.mark.parametrize("layers", [1, 4])
def test_pattern_has_the_threefold_axis_of_the_crystal(layers):
    request = requested(semiangle=9, edge=2, layers=layers, field=60, pixels=151)
    found = patterns(request)[-1]
    # Around the central disc, which is nearly round whatever the crystal.
    ring = within(request.detector, 28) & ~within(request.detector, 13)

    def changed_by_turning(angle_deg):
        return difference(rotated(found, angle_deg, request.detector)[ring], found[ring])

    assert changed_by_turning(120) < 0.001
    assert changed_by_turning(60) > 0.005


ANGLE_deg = 8.0


class Turned(Deformation):
    """A stretch, and then a turn, of the crystal."""

    @property
    def gradient(self):
        c, s = math.cos(math.radians(ANGLE_deg)), math.sin(math.radians(ANGLE_deg))
        return np.array([[c, -s], [s, c]]) @ super().gradient


def test_rotating_the_pattern_equals_rotating_the_crystal():
    strain = (0.02, -0.01, 0.015)
    request = requested(semiangle=9, edge=2, strain=strain, layers=5, field=60, pixels=151)

    straight = patterns(request)[4]
    turned = patterns(replace(request, deformation=Turned.from_strain(*strain)))[4]

    inside = within(request.detector, 28)

    def compared(angle_deg):
        return difference(rotated(straight, angle_deg, request.detector)[inside], turned[inside])

    assert compared(ANGLE_deg) < 0.002
    assert compared(-ANGLE_deg) > 0.05


# Kinematic limit


@pytest.fixture
def faint(monkeypatch):
    """Atoms that scatter a hundredth as much as they do."""
    monkeypatch.setattr(planewave, "lorentz_factor", lambda energy: 0.01 * lorentz_factor(energy))


@pytest.mark.parametrize("slices_per_layer", [1, 3, 4])
def test_slices_together_hold_the_whole_potential_of_the_atoms(slices_per_layer):
    planes = atomic_planes(slab(MOS2, Deformation(), 2), (1, 1))
    grid = ReciprocalGrid.for_band(MOS2.in_plane_cell_A(Deformation()), Band(2.5), 1.5, 3)
    ends = MOS2.layer_ends_A(2)
    slicing = Slicing.equal(planes, ends, slices_per_layer, grid, analytic_form_factor, 1.0)

    mean_phase = sum(
        len(planes[plane].sites) * slicing.tables[table][0, 0, 0]
        for one in slicing.slices
        for plane, table in one.contents
    )

    atoms = 4 * kirkland("Mo").scattering_factor(0.0) + 8 * kirkland("S").scattering_factor(0.0)
    assert mean_phase == pytest.approx(atoms / (3.1613 * 5.4755), rel=1e-5)


@pytest.mark.parametrize("slices_per_layer", ["planes", 24])
@pytest.mark.parametrize("layers", [1, 2, 5])
@pytest.mark.parametrize(
    ("strain", "direction_mrad"),
    [((0.0, 0.0, 0.0), (0.0, 0.0)), ((0.02, -0.01, 0.03), (9.0, -14.0))],
)
@pytest.mark.usefixtures("faint")
def test_faint_crystal_scatters_kinematically(strain, direction_mrad, layers, slices_per_layer):
    tilt = tuple(-1e3 * math.atan(1e-3 * d) for d in direction_mrad)
    request = requested(2, strain, tilt, layers)
    library = scattered(request, slices_per_layer=slices_per_layer, incident_step_mrad=4.0)

    atoms = slab(MOS2, request.deformation, layers)
    depth = atoms.cell.array[2, 2] - atoms.positions[:, 2]
    area = abs(np.linalg.det(atoms.cell.array[:2, :2]))
    g = library.g_mrad / (1e3 * WAVELENGTH_A)
    factors = {s: kirkland(s).scattering_factor(np.hypot(*g.T)) for s in ("Mo", "S")}
    for direction, found in zip(library.incident.directions_mrad, library.beams[-1], strict=True):
        k = direction / (1e3 * WAVELENGTH_A)
        # Twice the excitation error times λ, from the curvature of the Ewald sphere.
        curvature = WAVELENGTH_A * (((k + g) ** 2).sum(axis=1) - (k**2).sum())
        structure = sum(
            factors[atom.symbol]
            * np.exp(-2j * np.pi * g @ atom.position[:2] + 1j * np.pi * curvature * z)
            for atom, z in zip(atoms, depth, strict=True)
        )
        amplitude = 0.01 * WAVELENGTH_A * lorentz_factor(80) * structure / area
        expected = np.abs(amplitude) ** 2

        diffracted = np.hypot(*g.T) > 0.01
        strong = diffracted & (expected > 0.01 * expected[diffracted].max())
        assert strong.sum() > 20
        np.testing.assert_allclose(found[strong], expected[strong], rtol=0.02)


def at_normal_incidence(library):
    """Intensities of the beams of the wave along the axis of the crystal, after one layer."""
    along_axis = (library.incident.directions_mrad == 0).all(axis=1)
    return library.beams[0, along_axis][0]


def asymmetry(library):
    """How much opposite beams differ."""
    g, intensity = library.g_mrad, at_normal_incidence(library)
    opposite = [np.argmin(np.hypot(*(g + one).T)) for one in g]
    strong = (intensity > 0.001 * np.sort(intensity)[-2]) & (np.hypot(*g.T) > 1)
    assert strong.sum() > 10
    return np.abs(intensity - intensity[opposite])[strong].sum() / intensity[strong].sum()


def test_faint_monolayer_obeys_friedels_law_and_a_real_one_does_not(request):
    assert asymmetry(scattered(requested(2))) > 0.03
    request.getfixturevalue("faint")
    assert asymmetry(scattered(requested(2))) < 0.005


@pytest.mark.usefixtures("faint")
def test_thermal_motion_damps_beams_by_the_debye_waller_factor():
    shaking = replace(MOS2, rms_displacement_A={"Mo": 0.09, "S": 0.09})
    still, damped = (
        scattered(replace(requested(2, motion=motion), material=shaking))
        for motion in ("none", "coherent")
    )

    g2 = (still.g_mrad**2).sum(axis=1) / (1e3 * WAVELENGTH_A) ** 2
    before, after = at_normal_incidence(still), at_normal_incidence(damped)
    strong = (before > 1e-8) & (g2 > 0)
    assert strong.sum() > 10
    np.testing.assert_allclose(
        after[strong] / before[strong], np.exp(-4 * np.pi**2 * 0.09**2 * g2[strong]), rtol=0.02
    )


# Conservation


STATIC = requested(tilt=(3.0, -2.0), layers=10, edge=2)
SHAKING = shaking(layers=8, edge=2)
FULL = replace(SHAKING, thermal=ThermalMotion("full"))
NARROW = {"band_limit": 2.5}
COARSE = {"supercell": (4, 3), "incident_step_mrad": 3.0}
PRISMATIC = {"band_limit": "prismatic", "slices_per_layer": 3}


@pytest.mark.parametrize(
    ("request_", "settings", "reach_mrad", "left", "accuracy"),
    [
        (STATIC, NARROW, 101, 0.92, 2e-4),
        (STATIC, {**NARROW, "slices_per_layer": 3}, 101, 0.94, 2e-4),
        (STATIC, PRISMATIC, 69, 0.95, 2e-4),
        (SHAKING, {**COARSE, **NARROW}, 97, 0.96, 0.002),
        (SHAKING, {**COARSE, **PRISMATIC}, 69, 0.96, 0.002),
        (FULL, {**COARSE, **NARROW}, 97, 0.96, 0.002),
    ],
)
def test_detector_of_the_whole_band_catches_what_the_band_limit_leaves(
    request_, settings, reach_mrad, left, accuracy
):
    request = replace(request_, detector=detector(2 * reach_mrad, 61))
    library = scattered(request, **settings)
    size = 2 * reach_mrad + 27  # the band, an aperture's edge and the tilt
    result = synthesised(library, request, on=detector(size, size))
    # The edge of the band is a step, at which splines of diffuse scattering swing below zero.
    caught = result.patterns.sum(axis=(1, 2), dtype=float) * (1 - result.clipped)
    np.testing.assert_allclose(caught, result.within_band, atol=accuracy)
    assert result.within_band[-1] < left  # so that the loss is more than what this test allows


def test_band_limit_stays_in_place_when_the_crystal_is_tilted():
    # A quarter of 1/0.15 Å is 69.6 mrad; interpolation smears it over one or two waves.
    request = requested(tilt=(10.0, 0.0), layers=10, field=139, pixels=139)
    library = scattered(request, **PRISMATIC)
    beyond = detector(171, 171)
    profile = synthesised(library, request, on=beyond).patterns[9].sum(axis=0)
    k = beyond.kx_mrad
    for side in (-1, 1):
        inside = profile[(side * k > 61) & (side * k < 67)].mean()
        outside = profile[(side * k > 74) & (side * k < 80)].mean()
        assert outside < 0.02 * inside


@pytest.mark.parametrize("motion", ["none", "coherent"])
@pytest.mark.parametrize("energy_keV", [80, 300])
@pytest.mark.parametrize(
    ("settings", "rounding"), [({}, 1e-5), (PRISMATIC, 1e-5), ({"band_limit": 10}, 5e-5)]
)
def test_no_wave_gains_from_the_crystal(settings, rounding, energy_keV, motion):
    if settings == PRISMATIC and motion == "coherent":
        pytest.skip("equal slices have no mean transmissions")
    request = requested(2, SHEARED, (-2.0, -1.0), layers=10, motion=motion)
    library = scattered(replace(request, energy_keV=energy_keV), incident_step_mrad=4.0, **settings)
    left = np.vstack([np.ones(library.within_band.shape[1]), library.within_band])
    assert (np.diff(left, axis=0) < rounding).all()
    assert (library.beams.sum(axis=2) <= library.within_band + 1e-5).all()
    assert (library.beams >= 0).all()


@pytest.mark.parametrize("motion", ["none", "full"])
@pytest.mark.parametrize("band_limit", [2.5, 8.0])
def test_a_layer_loses_from_the_band_what_its_atoms_scatter_beyond_it(band_limit, motion):
    request = requested(2, motion=motion)
    (left,) = simulate(request, band_limit=band_limit, **SMALL).provenance["fraction_within_band"]

    atom = AtomTransmission(WAVELENGTH_A, WAVELENGTH_A * lorentz_factor(80), Band(20))
    q = np.linspace(band_limit, 20, 2000)
    beyond = [trapezoid(2 * np.pi * q * np.abs(atom(e, q, 0 * q)) ** 2, q) for e in ("Mo", "S")]
    lost = np.dot([2, 4], beyond) / (MOS2.zigzag_A * MOS2.armchair_A)
    assert 1 - left == pytest.approx(lost, rel=0.15)


def test_a_calculation_that_makes_electrons_is_reported(monkeypatch):
    # Sums of transmissions instead of products: where tails of neighbours overlap, |T| > 1.
    def sum_alone(self, atoms, cell_A, shape):
        return np.zeros(shape, complex)

    monkeypatch.setattr(AtomTransmission, "overlap", sum_alone)
    request = replace(requested(2, layers=10), energy_keV=300)
    with pytest.raises(EngineError, match=r"a wave has 1\.\d+ electrons .* for every one before"):
        scattered(request, band_limit=10, incident_step_mrad=4.0)


def test_whole_atoms_on_planes_are_what_thin_slices_give_in_a_wide_band():
    request = requested(4, STRETCHED, layers=2, field=120)
    dark_field = ~within(request.detector, 6)
    planes = patterns(request)[:, dark_field]

    def apart(**settings):
        return difference(patterns(request, **settings)[:, dark_field], planes)

    assert apart(slices_per_layer=48, band_limit=10.0) < 0.01
    # Thick slices do not bend the wave in the core of an atom, a narrow band has no core.
    assert apart(slices_per_layer=6, band_limit=10.0) > 0.03
    assert apart(slices_per_layer=48, band_limit=3.3) > 0.015


def test_wider_band_than_the_converged_one_changes_little():
    request = requested(12.65, SHEARED, layers=20, field=90, pixels=91, motion="coherent")
    converged, wider = (patterns(request, band_limit=b) for b in ("converged", 5.0))
    changes = [difference(*pair) for pair in zip(converged, wider, strict=True)]
    assert max(changes) < 0.01, np.round(changes, 4)


@pytest.mark.parametrize("semiangle", [2.1, 6.35, 12.65])
def test_smaller_detector_sees_the_same_intensities(semiangle):
    # With 2.1 mrad, discs just touch the last row of the smaller detector.
    large = requested(semiangle=semiangle, layers=2, field=50.5, pixels=101)
    small = replace(large, detector=detector(26.5, 53))
    middle = slice(50 - 26, 50 + 27)
    np.testing.assert_allclose(
        patterns(small), patterns(large)[:, middle, middle], rtol=1e-4, atol=1e-9
    )


@pytest.mark.parametrize(("supercell", "semiangle"), [((4, 3), 3.0), ((8, 5), 4.5)])
def test_smaller_detector_sees_the_same_diffuse_scattering(supercell, semiangle):
    # Beams beside the detector are not diffuse, though the fit of what is diffuse reaches there.
    large = requested(semiangle=semiangle, layers=2, field=60.5, pixels=121, motion=2)
    small = replace(large, detector=detector(12.5, 25))
    settings = {"supercell": supercell, "incident_step_mrad": 3.0}
    inner = patterns(large, **settings)[:, 48:73, 48:73]
    k = small.detector.kx_mrad
    outside = np.hypot(k[None, :], k[:, None]) > semiangle + 1

    found = patterns(small, **settings)

    # Fits of different width end in different places.
    assert difference(found[1, outside], inner[1, outside]) < 0.2
    assert difference(found[1], inner[1]) < 1e-3


@pytest.mark.parametrize(
    ("made", "settings"),
    [
        (requested, {}),
        (partial(shaking, semiangle=3), SMALL),
        (partial(shaking, semiangle=3, motion="full"), SMALL),
    ],
)
def test_first_layers_do_not_depend_on_how_many_follow(made, settings):
    thin, thick = (patterns(made(layers=n), **settings) for n in (2, 4))
    np.testing.assert_array_equal(thick[:1], thin[:1])
    # After the last layer the waves travel to the exit surface, after others to the next atoms.
    assert difference(thick[1], thin[1]) < 1e-6


def test_tail_of_the_potential_below_the_last_layer_changes_almost_nothing():
    # Equal slices cut it off where another layer follows.
    thin, thick = (patterns(requested(layers=n), slices_per_layer=3) for n in (3, 6))
    for layer in range(2):
        assert difference(thick[layer], thin[layer]) < 1e-6
    assert 0 < difference(thick[2], thin[2]) < 1e-3


# Interpolation between incident waves


def test_intensity_that_varies_smoothly_over_a_disc_is_interpolated():
    incident = IncidentGrid.over([Cone(10)], 1.5)
    x, y = incident.directions_mrad.T

    def shape(x, y):
        return 1 + 0.3 * np.cos(2 * np.pi * (x - 0.4) / 14) * np.sin(2 * np.pi * (y + 1) / 17)

    library = ScatteringLibrary(
        incident=incident,
        g_mrad=np.zeros((1, 2)),
        beams=shape(x, y)[None, :, None].astype(np.float32),
        within_band=shape(x, y)[None],
    )
    screen, aperture = detector(30, 101), Aperture(10)

    found = library.synthesise(aperture, (0.0, 0.0), screen)

    kx, ky = np.meshgrid(screen.kx_mrad, screen.ky_mrad)
    expected = aperture.weights(screen.kx_mrad, screen.ky_mrad) * shape(kx, ky)
    assert difference(found.patterns[0], expected) < 0.002
    # What is summed over the aperture is interpolated alike.
    assert found.within_band[0] == pytest.approx(expected.sum(), abs=2e-4)


@pytest.mark.parametrize(
    ("request_", "supercell", "step"),
    [
        (requested(12.65, (0.02, -0.01, 0.02), (3.0, -4.0), 20, pixels=121), (1, 1), 1.5),
        (shaking(semiangle=5, layers=20, field=80), (3, 2), 1.65),
    ],
)
def test_doubling_the_incident_grid_changes_no_pattern(request_, supercell, step):
    coarse, fine = (
        synthesised(
            scattered(request_, shared_phonons=True, supercell=supercell, incident_step_mrad=each),
            request_,
        ).patterns.astype(float)
        for each in (step, step / 2)
    )
    changes = [difference(c, f) for c, f in zip(coarse, fine, strict=True)]
    assert max(changes) < 0.005, np.round(changes, 4)


# Several patterns from one calculation


@pytest.mark.parametrize(
    ("one", "settings", "limit"),
    [
        (requested(semiangle=9, strain=SHEARED, layers=8, field=50, pixels=51), {}, 3e-4),
        (shaking(semiangle=6, layers=4, field=50, pixels=51), SMALL, 5e-4),
    ],
)
def test_patterns_computed_together_are_those_computed_alone(one, settings, limit):
    requests = [
        one,
        replace(one, tilt_mrad=(4.0, -3.0)),
        replace(one, aperture=Aperture(4, 1), tilt_mrad=(-2.0, 6.0)),
        replace(one, detector=detector(80, 61)),
    ]
    engine = PlaneWaveEngine(PlaneWaveSettings(**settings), threads=2)
    for request, result in zip(requests, engine.simulate_together(requests), strict=True):
        alone = patterns(request, **settings)
        assert result.patterns.shape == alone.shape
        assert difference(result.patterns, alone) < limit


def test_large_apertures_computed_with_a_small_one_leave_it_as_it_is():
    # Waves beyond the rim of an aperture enter by way of the splines.
    small = requested(semiangle=4, tilt=(3.0, -2.0), layers=20, field=50, pixels=51)
    large = replace(small, aperture=Aperture(20))
    together = PlaneWaveEngine(threads=2).simulate_together([small, large])[0].patterns
    alone = patterns(small)
    changes = [difference(t, a) for t, a in zip(together, alone, strict=True)]
    assert max(changes) < 0.003, np.round(changes, 4)


@pytest.mark.parametrize(
    "change",
    [
        {"deformation": Deformation(1.01)},
        {"layers": 2},
        {"energy_keV": 60},
        {"seed": 1},
        {"thermal": ThermalMotion("coherent")},
        {"material": replace(MOS2, zigzag_A=3.2)},
    ],
)
def test_different_crystals_are_not_computed_together(change):
    one = requested()
    with pytest.raises(RequestError, match="only for one crystal, energy, treatment of"):
        PlaneWaveEngine().simulate_together([one, replace(one, **change)])


# Reproducibility


@pytest.mark.parametrize("motion", ["none", "coherent", 2, "full"])
def test_same_bytes_whatever_the_threads_and_however_many_waves_travel_together(motion):
    request = requested(3, (0.01, 0.0, 0.02), (1.0, 2.0), layers=2, motion=motion)
    settings = PlaneWaveSettings(supercell=(3, 2), diffuse_waves=16)

    def result(**how):
        return PlaneWaveEngine(settings, **how).simulate(request).patterns.tobytes()

    usual = result()
    assert result(threads=2) == usual
    for batch in (1, 3, 7, 1000):
        assert result(threads=2, batch=batch) == usual, batch


def blas_threads():
    return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}


def test_linear_algebra_is_serial_in_all_threads_and_then_as_before(monkeypatch):
    both, seen = threading.Barrier(2), []
    weights = ScatteringLibrary._wave_weights

    def slow(self, aperture, tilt_mrad):
        if both.wait(60):  # both threads are at work; one ends well before the other
            time.sleep(0.5)
        seen.append(blas_threads())
        return weights(self, aperture, tilt_mrad)

    monkeypatch.setattr(ScatteringLibrary, "_wave_weights", slow)
    one = requested(3)
    with threadpool_limits(3, user_api="blas"):
        PlaneWaveEngine(threads=2).simulate_together([one, replace(one, aperture=Aperture(4))])
        assert seen == [{1}, {1}]
        assert blas_threads() == {3}


@pytest.mark.parametrize(
    ("request_", "settings", "limit"),
    [
        (requested(strain=SHEARED, tilt=(2.0, 1.0), layers=20), {}, 1e-5),
        (shaking(semiangle=2, layers=20), SMALL, 1e-4),
    ],
)
def test_double_precision_changes_next_to_nothing(request_, settings, limit):
    single, double = (patterns(request_, precision=p, **settings)[19] for p in ("single", "double"))
    assert 0 < difference(single, double) < limit


def test_progress_counts_the_waves_to_their_end():
    seen = []
    engine = PlaneWaveEngine(batch=10)
    result = engine.simulate(requested(), lambda done, total: seen.append((done, total)))
    total = result.provenance["plane_waves"]
    assert seen[-1] == (total, total)
    assert len(seen) == math.ceil(total / 10)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert {t for _, t in seen} == {total}


def test_provenance_says_what_was_computed():
    result = simulate(requested(layers=2), **PRISMATIC)
    provenance = result.provenance
    assert provenance["engine"] == "planewave"
    assert provenance["device"] == "cpu"
    assert provenance["settings"]["band_limit"] == "prismatic"
    assert provenance["configurations_per_wave"] == 0
    assert len(provenance["fraction_within_band"]) == 2
    assert max(provenance["fraction_clipped"]) < 1e-6
    assert "phonon_noise" not in provenance
    assert 0 < provenance["seconds_propagating"] <= provenance["seconds"]

    provenance = simulate(shaking(semiangle=3, layers=3, motion=4), **SMALL).provenance
    assert provenance["configurations_per_wave"] == 4
    assert provenance["settings"]["supercell"] == (3, 2)
    assert len(provenance["phonon_noise"]) == 3


# Grid


@pytest.mark.parametrize(
    ("energy_keV", "ring_mrad"), [(60, 89.0), (80, 82.4), (200, 63.8), (300, 56.6)]
)
def test_converged_band_holds_the_holz_ring_and_the_field_of_view(energy_keV, ring_mrad):
    one = requested(2, (-0.05, 0.05, 0.03), (5.0, -5.0), field=134, pixels=21)
    provenance = simulate(replace(one, energy_keV=energy_keV)).provenance
    reach_mrad = 1e3 * wavelength_A(energy_keV) * provenance["cutoff_per_A"]
    assert reach_mrad > 1.1 * ring_mrad


def test_grid_of_incident_waves_is_finer_for_thick_crystals():
    # Rocking curves have fringes 1/(t g) apart.
    def step_mrad(layers):
        thickness_A = layers * MOS2.layer_thickness_A
        return PlaneWaveSettings().numbers(80, thickness_A, 12.3, 67).incident_step_mrad

    assert step_mrad(1) == 2
    assert step_mrad(20) == pytest.approx(2, rel=0.01)
    assert step_mrad(80) == pytest.approx(step_mrad(40) / 2)


OBLIQUE = np.array([[3.2, 0.1], [0.1, 5.4]])


@pytest.mark.parametrize("square", [False, True])
def test_grid_holds_the_band_of_every_wave_that_starts_near_a_lattice_point(square):
    band = Band(2.0, square, (0.3, -0.2))
    grid = ReciprocalGrid.for_band(OBLIQUE, band, 2, 4)
    gx, gy = grid.wave_points_per_A()
    edge = np.ones(grid.wave_shape, bool)
    edge[1:-1, 1:-1] = False
    for offset in [(0, 0), (0.5, 0.5), (-0.5, 0.5), (0.5, -0.5), (-0.5, -0.5)]:
        x, y = offset @ grid.reciprocal_per_A
        # One point further out than the grid reaches, nothing would be let through.
        outside = [gx + np.sign(gx) * 0.32 + x, gy + np.sign(gy) * 0.19 + y]
        assert not band.contains(*outside)[edge].any()


def test_transform_is_wide_enough_to_fold_nothing_back_into_the_band():
    grid = ReciprocalGrid.for_band(OBLIQUE, Band(2.0), 2, 4)
    for points, wave, transmission in zip(
        grid.fft_shape, grid.wave_limit, grid.transmission_limit, strict=True
    ):
        assert points >= 2 * wave + transmission


def test_incident_waves_are_anchored_at_the_axis_of_the_crystal():
    few = IncidentGrid.over([Cone(5, (0.7, -0.2))], 1.5).directions_mrad
    many = IncidentGrid.over([Cone(12), Cone(5, (0.7, -0.2))], 1.5).directions_mrad
    np.testing.assert_allclose(np.round(few / 1.5) * 1.5, few, atol=1e-12)
    assert set(map(tuple, few)) < set(map(tuple, many))


# Refusals


def test_static_atoms_need_no_supercell():
    one, many = (patterns(requested(layers=2), supercell=n) for n in [(1, 1), (8, 5)])
    np.testing.assert_array_equal(one, many)


def on_cells(*supercell):
    return {"supercell": supercell}, f"of {supercell[0]} × {supercell[1]} cells is .* Å × .* Å"


@pytest.mark.parametrize(
    ("changes", "settings", "complaint"),
    [
        ({"motion": 1}, {}, "at least 2 configurations of each plane wave"),
        *(
            ({"motion": motion}, *on_cells(*cells))
            for motion in (2, "full")
            for cells in [(1, 1), (8, 1), (1, 5)]
        ),
        (
            {"field": 210, "pixels": 21},
            PRISMATIC,
            r"reaches 105 mrad, but the band limit 'prismatic' .* up to 69\.6 mrad",
        ),
        *(
            ({"motion": motion}, {"slices_per_layer": 3}, f"'{motion}' .* equal slices share atoms")
            for motion in ("full", "coherent")
        ),
        (
            {"semiangle": 24, "tilt": (-79.0, 0.0), "field": 49.5, "pixels": 51},
            {"band_limit": 2.5},
            r"ask for waves up to 106\.5 mrad .* lets waves through up to 104\.4 mrad",
        ),
    ],
)
def test_what_these_settings_cannot_do_is_refused(changes, settings, complaint):
    with pytest.raises(RequestError, match=complaint):
        PlaneWaveEngine(PlaneWaveSettings(**settings)).simulate(requested(**changes))


def test_detector_beyond_a_band_limit_in_numbers_is_refused_with_what_helps():
    request = requested(2, STRETCHED, (3.0, 0.0), field=210, pixels=21)
    with pytest.raises(RequestError, match="choose the band limit 'converged', which") as refusal:
        patterns(request, band_limit=2.0)

    patterns(request, band_limit="converged")
    too_wide = float(re.search(r"that is ([\d.]+) mrad narrower", str(refusal.value))[1])
    patterns(replace(request, detector=detector(210 - too_wide, 21)), band_limit=2.0)


def test_field_that_no_band_reaches_is_refused():
    with pytest.raises(RequestError, match=r"choose a field of view \(--fov") as refusal:
        patterns(requested(field=3000, pixels=64))
    assert "lets waves through up to 417.6 mrad" in str(refusal.value)


@pytest.mark.parametrize(
    ("cell_A", "cells", "good"),
    [
        ([[3.1613, 0], [0, 5.4755]], (1, 2), "8 × 5"),  # MoS2
        ([[2.46, 0], [1.23, 2.13]], (8, 2), "10 × 10"),  # graphene, whose cell is oblique
    ],
)
def test_supercell_in_which_atoms_meet_their_images_is_refused(cell_A, cells, good):
    settings = PlaneWaveSettings(supercell=cells)
    with pytest.raises(RequestError, match=rf"choose a larger supercell \({good} is a good one\)"):
        check_motion("full", settings, np.array(cell_A))
    enough = tuple(int(n) for n in good.split(" × "))
    check_motion("full", replace(settings, supercell=enough), np.array(cell_A))


@pytest.mark.parametrize(
    ("semiangle", "tilt"), [(13.0, (0.0, 0.0)), (5.0, (8.0, 0.0)), (5.0, (0.0, -30.0))]
)
def test_library_without_the_waves_that_are_asked_for_says_so(semiangle, tilt):
    request = requested(semiangle=5)
    library, _ = PlaneWaveEngine().scatter([request])
    library.synthesise(request.aperture, request.tilt_mrad, request.detector)
    with pytest.raises(RequestError, match="the library holds no waves"):
        library.synthesise(Aperture(semiangle), tilt, request.detector)


def test_calculation_that_does_not_fit_is_refused_before_it_takes_any_memory(monkeypatch):
    monkeypatch.setattr(planewave, "memory_limit_bytes", lambda: 500_000_000)
    monkeypatch.setattr(Recorder, "allocate", lambda self: pytest.fail("memory was taken"))
    request = requested(semiangle=25, layers=20)
    complaint = r"about 3\.\d GB .* this machine has 0\.5 GB: choose a larger incident_step_mrad"
    with pytest.raises(RequestError, match=complaint):
        PlaneWaveEngine(PlaneWaveSettings(incident_step_mrad=0.1)).simulate(request)


def test_samples_of_diffuse_scattering_count_as_memory(monkeypatch):
    monkeypatch.setattr(planewave, "memory_limit_bytes", lambda: 40_000_000)
    monkeypatch.setattr(Recorder, "allocate", lambda self: pytest.fail("memory was taken"))
    engine = PlaneWaveEngine(PlaneWaveSettings(diffuse_waves=500, diffuse_knots_mrad=(0.5, 8)))
    with pytest.raises(RequestError, match=r"fewer pixels or diffuse_waves"):
        engine.scatter([requested(layers=20, motion="full")])
    with pytest.raises(pytest.fail.Exception, match="memory was taken"):
        engine.scatter([requested(layers=20, motion="coherent")])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"layers": 0}, "at least one layer"),
        ({"tilt": (0.0, 100.0)}, "tilt must be less than 100 mrad"),
        ({"seed": -1}, "seed must be 0 or more, not -1"),
        ({"motion": 0}, "must be full, coherent, none, or a number .* not 0"),
        ({"motion": True}, "or a number of frozen-phonon configurations, not True"),
        ({"motion": "damped"}, "must be full, coherent, none, .* not 'damped'"),
        ({"semiangle": 33, "field": 60}, "semi-angle 33 mrad lies beyond the detector"),
    ],
)
def test_impossible_request_is_refused(changes, complaint):
    with pytest.raises(RequestError, match=complaint):
        requested(**changes)
    with pytest.raises(RequestError, match="energy must lie within 30 to 300 keV"):
        replace(requested(), energy_keV=0)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"band_limit": "none"}, "'converged', 'prismatic' or a number in 1/Å, not 'none'"),
        ({"band_limit": 0.4}, "within 0.5 to 10 1/Å, not 0.4"),
        ({"band_limit": 10.5}, "within 0.5 to 10 1/Å, not 10.5"),
        (
            {"incident_step_mrad": 0},
            "incident step must be auto or lie within 0.1 to 10 mrad, not 0",
        ),
        ({"slices_per_layer": 0}, "at least one slice"),
        ({"slices_per_layer": "atoms"}, "a number or 'planes', not 'atoms'"),
        ({"band_limit": "prismatic"}, r"give their number per layer \(3 in the paper\)"),
        ({"supercell": (8,)}, "two numbers of cells"),
        ({"supercell": (8, 0)}, "two numbers of cells, 1 or more"),
        ({"precision": "half"}, "single or double, not 'half'"),
        ({"diffuse_waves": 15}, "at least 16 waves, not 15"),
        ({"diffuse_knots_mrad": (0.4, 8.0)}, "two spacings within 0.5 to 50 mrad"),
    ],
)
def test_impossible_settings_are_refused(settings, complaint):
    with pytest.raises(RequestError, match=complaint):
        PlaneWaveSettings(**settings)
