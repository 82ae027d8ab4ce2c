"""The physics of the plane-wave engine: geometry of the discs, tilt, rotation, conservation."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import ndimage

from pacbed.crystal import material, slab
from pacbed.deformation import Deformation
from pacbed.engines import SimulationRequest, ThermalMotion, engine, planewave
from pacbed.engines.planewave import (
    BraggBeams,
    IncidentGrid,
    Multislice,
    PlaneWaveEngine,
    PlaneWaveSettings,
    ReciprocalGrid,
)
from pacbed.engines.scattering import analytic_form_factor, kirkland
from pacbed.errors import RequestError
from pacbed.microscope import Aperture, Detector, lorentz_factor

MOS2 = material("MoS2")
WAVELENGTH_A = 0.0417572
STRETCHED = (0.03, -0.02, 0.0)
SHEARED = (0.0, 0.0, 0.04)


def requested(
    semiangle=6.35,
    strain=(0.0, 0.0, 0.0),
    tilt=(0.0, 0.0),
    layers=1,
    field=60.0,
    pixels=61,
    edge=0.0,
):
    return SimulationRequest(
        material=MOS2,
        deformation=Deformation.from_strain(*strain),
        tilt_mrad=tilt,
        layers=layers,
        energy_keV=80,
        aperture=Aperture(semiangle, edge),
        detector=Detector((field, field), (pixels, pixels)),
        thermal=ThermalMotion(phonon_configurations=0, debye_waller=True),
    )


def simulate(request, **settings):
    return PlaneWaveEngine(PlaneWaveSettings(**settings), threads=2).simulate(request)


def patterns(request, **settings):
    return simulate(request, **settings).patterns.astype(float)


def difference(pattern, reference):
    return np.abs(pattern - reference).sum() / reference.sum()


# Geometry of the discs


def lit(pattern):
    return pattern > 1e-4 * pattern.max()


def disc_centres(pattern, detector):
    """Centres (x, y) in mrad of the separate bright areas of a pattern."""
    areas, count = ndimage.label(lit(pattern))
    rows, columns = np.transpose(ndimage.center_of_mass(areas > 0, areas, range(1, count + 1)))
    pixel = detector.field_of_view_mrad[0] / detector.pixels[0]
    return np.column_stack([columns, rows]) * pixel + [detector.kx_mrad[0], detector.ky_mrad[0]]


def reciprocal_lattice(strain, reach_mrad):
    """λg of the hexagonal lattice with a = 3.1613 Å along x, deformed, up to an angle."""
    xx, yy, xy = strain
    a = 3.1613
    lattice = np.array([[a, 0], [-a / 2, a * math.sqrt(3) / 2]])  # vectors as rows
    deformed = lattice @ np.array([[1 + xx, xy], [xy, 1 + yy]])  # F is symmetric
    reciprocal = np.linalg.inv(deformed).T
    indices = np.stack(np.meshgrid(range(-3, 4), range(-3, 4)), axis=-1).reshape(-1, 2)
    g = 1e3 * WAVELENGTH_A * indices @ reciprocal
    return g[np.hypot(*g.T) < reach_mrad]


def farthest(centres, expected):
    """Largest distance from a disc to the nearest expected centre."""
    distances = np.linalg.norm(centres[:, None] - expected[None], axis=-1)
    return distances.min(axis=1).max()


@pytest.fixture(scope="module")
def separate_discs():
    """Discs of 2 mrad, well apart, of crystals deformed in different ways."""
    request = requested(semiangle=2, layers=2, field=40, pixels=161)
    return {
        strain: disc_centres(
            patterns(replace(request, deformation=Deformation.from_strain(*strain)))[1],
            request.detector,
        )
        for strain in [(0.0, 0.0, 0.0), STRETCHED, SHEARED]
    }


@pytest.mark.parametrize("strain", [(0.0, 0.0, 0.0), STRETCHED, SHEARED])
def test_discs_lie_on_the_reciprocal_lattice_of_the_deformed_crystal(separate_discs, strain):
    centres, expected = separate_discs[strain], reciprocal_lattice(strain, reach_mrad=17.5)
    assert len(centres) == len(expected) == 7
    assert farthest(centres, expected) < 0.05


def test_discs_of_positive_shear_are_not_those_of_negative_shear(separate_discs):
    xx, yy, xy = SHEARED
    assert farthest(separate_discs[SHEARED], reciprocal_lattice((xx, yy, -xy), 17.5)) > 0.5


def test_discs_of_stretch_along_zigzag_are_not_those_of_stretch_along_armchair(separate_discs):
    xx, yy, xy = STRETCHED
    assert farthest(separate_discs[STRETCHED], reciprocal_lattice((yy, xx, xy), 17.5)) > 0.5


def test_positive_shear_moves_the_disc_above_the_centre_to_the_left(separate_discs):
    # Stretching the first diagonal shrinks reciprocal space along it.
    top = max(separate_discs[SHEARED], key=lambda centre: centre[1])
    undeformed = max(separate_discs[0.0, 0.0, 0.0], key=lambda centre: centre[1])
    assert undeformed[0] == pytest.approx(0, abs=0.05)
    assert top[0] == pytest.approx(-0.04 * undeformed[1], abs=0.06)


def test_stretch_along_zigzag_brings_discs_closer_along_x(separate_discs):
    def rightmost(strain):
        return separate_discs[strain][:, 0].max()

    assert rightmost(STRETCHED) / rightmost((0.0, 0.0, 0.0)) == pytest.approx(1 / 1.03, abs=0.005)


# Tilt


def test_tilt_moves_intensity_not_discs():
    upright = requested(semiangle=5, layers=10, field=40, pixels=81)
    tilted = replace(upright, tilt_mrad=(4.0, -3.0))

    before, after = (patterns(r)[9] for r in (upright, tilted))

    np.testing.assert_array_equal(lit(after), lit(before))
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


def test_mirrored_tilt_of_a_symmetric_crystal_gives_the_mirrored_pattern():
    right = patterns(requested(tilt=(4.0, 2.0), layers=5))
    left = patterns(requested(tilt=(-4.0, 2.0), layers=5))
    assert difference(right[:, :, ::-1], left) < 2e-4
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


def test_rotating_the_pattern_equals_rotating_the_crystal():
    angle_deg = 8.0
    request = requested(
        semiangle=9, edge=2, strain=(0.02, -0.01, 0.015), layers=5, field=60, pixels=151
    )
    straight = patterns(request)[4]

    atoms = slab(request.material, request.deformation, request.layers)
    atoms.rotate(angle_deg, "z", rotate_cell=True)
    multislice = Multislice(atoms, MOS2, request.layers, 80, PlaneWaveSettings(), True)
    incident = IncidentGrid.over_disc(request.aperture.outer_mrad, 1.5, (0.0, 0.0))
    beams = multislice.propagate(incident, 60, threads=2)
    turned = beams.patterns(request.aperture, request.detector)[4].astype(float)

    inside = within(request.detector, 28)

    def compared(angle_deg):
        return difference(rotated(straight, angle_deg, request.detector)[inside], turned[inside])

    assert compared(angle_deg) < 0.002
    assert compared(-angle_deg) > 0.05


# Kinematic limit


@dataclass(frozen=True)
class Faint(PlaneWaveSettings):
    """A crystal whose atoms scatter a hundredth as much as they do."""

    faintness: float = 0.01

    def form_factor(self, slice_A):
        return lambda *where: self.faintness * analytic_form_factor(*where)


def single_wave(direction_mrad):
    return IncidentGrid(np.array([0.0]), np.array([[True]]), direction_mrad)


def faint_beams(strain=(0.0, 0.0, 0.0), direction_mrad=(0.0, 0.0), layers=1, **options):
    atoms = slab(MOS2, Deformation.from_strain(*strain), layers)
    multislice = Multislice(
        atoms,
        options.get("crystal", MOS2),
        layers,
        80,
        Faint(slices_per_layer=24),
        options.get("debye_waller", False),
    )
    return atoms, multislice.propagate(single_wave(direction_mrad), 80)


@pytest.mark.parametrize("slices_per_layer", [1, 3, 4])
def test_slices_together_hold_the_whole_potential_of_the_atoms(slices_per_layer):
    settings = Faint(slices_per_layer=slices_per_layer)
    multislice = Multislice(slab(MOS2, Deformation(), 2), MOS2, 2, 80, settings, False)

    phase = sum(np.angle(multislice.transmission(i)).mean() for i in range(2 * slices_per_layer))

    atoms = 4 * kirkland("Mo").scattering_factor(0.0) + 8 * kirkland("S").scattering_factor(0.0)
    expected = 0.01 * WAVELENGTH_A * lorentz_factor(80) * atoms / (3.1613 * 5.4755)
    assert phase == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("layers", [1, 2, 5])
@pytest.mark.parametrize(
    ("strain", "direction_mrad"),
    [((0.0, 0.0, 0.0), (0.0, 0.0)), ((0.02, -0.01, 0.03), (9.0, -14.0))],
)
def test_faint_crystal_scatters_kinematically(strain, direction_mrad, layers):
    atoms, beams = faint_beams(strain, direction_mrad, layers)

    k = np.array(direction_mrad) / (1e3 * WAVELENGTH_A)
    g = beams.g_mrad / (1e3 * WAVELENGTH_A)
    depth = atoms.cell.array[2, 2] - atoms.positions[:, 2]
    factors = {s: kirkland(s).scattering_factor(np.hypot(*g.T)) for s in ("Mo", "S")}
    # Twice the excitation error times λ, from the curvature of the Ewald sphere.
    curvature = WAVELENGTH_A * (((k + g) ** 2).sum(axis=1) - (k**2).sum())
    structure = sum(
        factors[atom.symbol]
        * np.exp(-2j * np.pi * g @ atom.position[:2] + 1j * np.pi * curvature * z)
        for atom, z in zip(atoms, depth, strict=True)
    )
    area = abs(np.linalg.det(atoms.cell.array[:2, :2]))
    amplitude = 0.01 * WAVELENGTH_A * lorentz_factor(80) * structure / area
    expected = np.abs(amplitude) ** 2

    scattered = np.hypot(*beams.g_mrad.T) > 1
    strong = scattered & (expected > 0.01 * expected[scattered].max())
    assert strong.sum() > 20
    np.testing.assert_allclose(beams.intensity[-1, 0, strong], expected[strong], rtol=0.02)


def test_faint_monolayer_obeys_friedels_law_and_a_real_one_does_not():
    def asymmetry(beams):
        g, intensity = beams.g_mrad, beams.intensity[0, 0]
        opposite = [np.argmin(np.hypot(*(g + one).T)) for one in g]
        strong = (intensity > 0.001 * np.sort(intensity)[-2]) & (np.hypot(*g.T) > 1)
        assert strong.sum() > 10
        return np.abs(intensity - intensity[opposite])[strong].sum() / intensity[strong].sum()

    real = Multislice(slab(MOS2, Deformation(), 1), MOS2, 1, 80, PlaneWaveSettings(), False)
    assert asymmetry(faint_beams()[1]) < 0.005
    assert asymmetry(real.propagate(single_wave((0.0, 0.0)), 40)) > 0.03


def test_thermal_motion_damps_beams_by_the_debye_waller_factor():
    shaking = replace(MOS2, rms_displacement_A={"Mo": 0.09, "S": 0.09})
    _, still = faint_beams(crystal=shaking, debye_waller=False)
    _, damped = faint_beams(crystal=shaking, debye_waller=True)

    g2 = (still.g_mrad**2).sum(axis=1) / (1e3 * WAVELENGTH_A) ** 2
    strong = (still.intensity[0, 0] > 1e-8) & (g2 > 0)
    assert strong.sum() > 10
    np.testing.assert_allclose(
        (damped.intensity / still.intensity)[0, 0, strong],
        np.exp(-4 * np.pi**2 * 0.09**2 * g2[strong]),
        rtol=0.02,
    )


# Conservation


@pytest.mark.parametrize(("band_limit", "reach_mrad"), [("converged", 138), ("prismatic", 70)])
def test_detector_of_the_whole_band_catches_what_the_band_limit_leaves(band_limit, reach_mrad):
    size = 2 * reach_mrad + 9
    request = requested(tilt=(3.0, -2.0), layers=10, field=size, pixels=size, edge=2)
    result = simulate(request, band_limit=band_limit)
    caught = result.patterns.sum(axis=(1, 2), dtype=float)
    left = result.provenance["fraction_within_band"]
    np.testing.assert_allclose(caught, left, atol=2e-4)
    assert left[9] < 0.999  # so that the loss is more than what this test allows


def test_band_limit_stays_in_place_when_the_crystal_is_tilted():
    # A quarter of 1/0.15 Å is 69.6 mrad; interpolation smears it over one or two waves.
    request = requested(tilt=(10.0, 0.0), layers=10, field=171, pixels=171)
    profile = patterns(request, band_limit="prismatic")[9].sum(axis=0)
    k = request.detector.kx_mrad
    for side in (-1, 1):
        inside = profile[(side * k > 61) & (side * k < 67)].mean()
        outside = profile[(side * k > 74) & (side * k < 80)].mean()
        assert outside < 0.02 * inside


@pytest.mark.parametrize("band_limit", ["converged", "prismatic"])
def test_no_beam_gains_from_the_crystal(band_limit):
    multislice = Multislice(
        slab(MOS2, Deformation.from_strain(*SHEARED), 10),
        MOS2,
        10,
        80,
        PlaneWaveSettings(band_limit),
        False,
    )
    beams = multislice.propagate(IncidentGrid.over_disc(6.35, 3, (2.0, 1.0)), 60)
    left = np.vstack([np.ones(beams.within_band.shape[1]), beams.within_band])
    assert (np.diff(left, axis=0) < 1e-5).all()
    assert (beams.intensity.sum(axis=2) <= beams.within_band + 1e-5).all()
    assert (beams.intensity >= 0).all()


def test_converged_band_loses_almost_nothing():
    left = simulate(requested(layers=20)).provenance["fraction_within_band"]
    assert left[0] > 0.9995
    assert left[19] > 0.99


@pytest.mark.parametrize("semiangle", [2.1, 6.35, 12.65])
def test_smaller_detector_sees_the_same_intensities(semiangle):
    # With 2.1 mrad, discs just touch the last row of the smaller detector.
    large = requested(semiangle=semiangle, layers=2, field=50.5, pixels=101)
    small = replace(large, detector=Detector((26.5, 26.5), (53, 53)))
    middle = slice(50 - 26, 50 + 27)
    np.testing.assert_allclose(
        patterns(small), patterns(large)[:, middle, middle], rtol=1e-4, atol=1e-9
    )


def test_first_layers_do_not_depend_on_how_many_follow():
    # Only the tail of the potential below the last layer knows that it is the last.
    thin, thick = patterns(requested(layers=3)), patterns(requested(layers=6))
    for layer in range(2):
        assert difference(thick[layer], thin[layer]) < 1e-6
    assert difference(thick[2], thin[2]) < 1e-3


# Interpolation between incident waves


def test_intensity_that_varies_smoothly_over_a_disc_is_interpolated():
    incident = IncidentGrid.over_disc(10, 1.5, (0.0, 0.0))
    x, y = incident.waves_mrad.T

    def shape(x, y):
        return 1 + 0.3 * np.cos(2 * np.pi * (x - 0.4) / 14) * np.sin(2 * np.pi * (y + 1) / 17)

    beams = BraggBeams(
        intensity=shape(x, y)[None, :, None].astype(np.float32),
        g_mrad=np.zeros((1, 2)),
        within_band=np.ones((1, len(x))),
        incident=incident,
    )
    detector = Detector((30, 30), (101, 101))
    aperture = Aperture(10)

    found = beams.patterns(aperture, detector)[0]

    kx, ky = np.meshgrid(detector.kx_mrad, detector.ky_mrad)
    expected = aperture.weights(detector.kx_mrad, detector.ky_mrad) * shape(kx, ky)
    assert difference(found, expected) < 0.002


def test_doubling_the_incident_grid_changes_no_pattern():
    request = requested(
        semiangle=12.65, strain=(0.02, -0.01, 0.02), tilt=(3.0, -4.0), layers=20, pixels=121
    )
    coarse = patterns(request, incident_step_mrad=1.5)
    fine = patterns(request, incident_step_mrad=0.75)
    changes = [difference(c, f) for c, f in zip(coarse, fine, strict=True)]
    assert max(changes) < 0.005, np.round(changes, 4)


# Reproducibility


def test_same_bytes_whatever_the_number_of_threads():
    request = requested(strain=(0.01, 0.0, 0.02), tilt=(1.0, 2.0), layers=2)
    one, two = (PlaneWaveEngine(threads=n).simulate(request).patterns for n in (1, 2))
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_patterns_do_not_depend_on_how_many_waves_travel_together(monkeypatch, batch):
    request = requested(semiangle=4, strain=(0.01, 0.0, 0.02), layers=2)
    before = PlaneWaveEngine().simulate(request).patterns
    monkeypatch.setattr(planewave, "BATCH", batch)
    after = PlaneWaveEngine().simulate(request).patterns
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6 * before.max())


def test_progress_counts_the_waves_to_their_end():
    seen = []
    result = PlaneWaveEngine().simulate(requested(), lambda done, total: seen.append((done, total)))
    total = result.provenance["plane_waves"]
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert {t for _, t in seen} == {total}


def test_provenance_says_what_was_computed():
    provenance = simulate(requested(), band_limit="prismatic").provenance
    assert provenance["engine"] == "planewave"
    assert provenance["settings"]["band_limit"] == "prismatic"
    assert len(provenance["fraction_within_band"]) == 1


# Grid


def test_reciprocal_grid_is_dual_to_the_cell():
    cell = np.array([[3.2, 0.1], [0.1, 5.4]])
    grid = ReciprocalGrid.for_cutoff(cell, 2.0)
    gx, gy = grid.vectors_per_A
    h, k = grid.indices
    np.testing.assert_allclose(gx * cell[0, 0] + gy * cell[0, 1], h, atol=1e-12)
    np.testing.assert_allclose(gx * cell[1, 0] + gy * cell[1, 1], k, atol=1e-12)
    # Room for four times the cutoff along each cell vector.
    assert grid.shape[0] >= 4 * 2.0 * np.linalg.norm(cell[0])
    assert grid.shape[1] >= 4 * 2.0 * np.linalg.norm(cell[1])


def test_incident_waves_cover_the_aperture_around_their_centre():
    incident = IncidentGrid.over_disc(10, 1.5, (-3.0, 2.0))
    relative = incident.waves_mrad - [-3.0, 2.0]
    assert np.hypot(*relative.T).max() >= 10
    angles = np.linspace(0, 2 * np.pi, 60)
    rim = 10 * np.column_stack([np.cos(angles), np.sin(angles)])
    nearest = np.linalg.norm(rim[:, None] - relative[None], axis=-1).min(axis=1)
    assert nearest.max() <= 1.5 / math.sqrt(2) + 1e-9


# Refusals


def test_frozen_phonons_are_refused():
    request = replace(requested(), thermal=ThermalMotion(phonon_configurations=2))
    with pytest.raises(RequestError, match="no frozen phonons"):
        PlaneWaveEngine().simulate(request)


def test_negative_number_of_phonon_configurations_is_refused():
    with pytest.raises(RequestError, match="0 or more, not -1"):
        ThermalMotion(phonon_configurations=-1)


def test_semiangle_beyond_the_detector_is_refused():
    with pytest.raises(RequestError, match="semi-angle 33 mrad lies beyond the detector"):
        requested(semiangle=33, field=60)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"layers": 0}, "at least one layer"),
        ({"energy_keV": 0}, "energy must be positive"),
    ],
)
def test_impossible_request_is_refused(changes, complaint):
    with pytest.raises(RequestError, match=complaint):
        replace(requested(), **changes)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"band_limit": "none"}, "'converged' or 'prismatic', not 'none'"),
        ({"incident_step_mrad": 0}, "incident step must be positive"),
        ({"slices_per_layer": 0}, "at least one slice"),
    ],
)
def test_impossible_settings_are_refused(settings, complaint):
    with pytest.raises(RequestError, match=complaint):
        PlaneWaveSettings(**settings)


def test_engine_is_found_by_name():
    found = engine("planewave", {"slices_per_layer": 4}, threads=2)
    assert found.settings == PlaneWaveSettings(slices_per_layer=4)
    assert found.threads == 2


def test_unknown_engine_is_refused():
    with pytest.raises(RequestError, match="unknown engine 'abacus': known is planewave"):
        engine("abacus", {})
