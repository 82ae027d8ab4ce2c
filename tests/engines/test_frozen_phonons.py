"""Thermal motion in the plane-wave engine: displacements, beams, diffuse scattering, noise."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from samples import (
    MOS2,
    SMALL,
    WAVELENGTH_A,
    detector,
    difference,
    patterns,
    requested,
    scattered,
    shaking,
    simulate,
    synthesised,
)

from pacbed.engines import ThermalMotion
from pacbed.engines.arrays import arrays
from pacbed.engines.planewave import engine as planewave
from pacbed.engines.planewave.atoms import kirkland
from pacbed.engines.planewave.diffuse import IncidentSplines
from pacbed.engines.planewave.library import Recorder, cone
from pacbed.engines.planewave.multislice import FrozenPhonons, atomic_planes
from pacbed.engines.planewave.sampling import BATCH, sample_cones
from pacbed.engines.planewave.waves import Band, Cone, IncidentGrid, ReciprocalGrid
from pacbed.specimen.crystal import slab
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture, lorentz_factor
from pacbed.specimen.polytypes import crystal

# Displacements


# What they share takes longer than they do: all in one process.
pytestmark = pytest.mark.xdist_group("phonons")


def displacements(direction=(1.5, -3.0), configuration=0, seed=3, layers=20, shared=False):
    planes = atomic_planes(slab(MOS2, Deformation(), layers), (8, 5))
    phonons = FrozenPhonons(MOS2, 2, seed, shared)
    found = phonons.displacements_A(np.array([direction]), planes)[0, configuration]
    return planes, found.reshape(len(planes), -1, 2)


@pytest.mark.parametrize("element", ["Mo", "S"])
def test_each_element_shakes_as_much_as_it_should_along_both_axes(element):
    planes, found = displacements()
    of_element = found[[plane.element == element for plane in planes]].reshape(-1, 2)
    rms = MOS2.rms_displacement_A[element]
    assert len(of_element) == 20 * 80 * (1 if element == "Mo" else 2)
    np.testing.assert_allclose(of_element.std(axis=0), rms, rtol=0.03)
    np.testing.assert_allclose(of_element.mean(axis=0), 0, atol=4 * rms / math.sqrt(3200))
    assert np.corrcoef(of_element.T)[0, 1] == pytest.approx(0, abs=0.07)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4},
        {"configuration": 1},
        {"direction": (-3.0, 1.5)},
        {"direction": (-1.5, -3.0)},
        {"direction": (1.5, 3.0)},
        {"direction": (1.50001, -3.0)},
    ],
)
def test_seed_configuration_and_wave_each_give_other_displacements(change):
    one, other = displacements()[1], displacements(**change)[1]
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] == pytest.approx(0, abs=0.05)
    np.testing.assert_array_equal(one, displacements(direction=(1.5 + 1e-9, -3.0))[1])


def test_all_waves_have_the_same_displacements_if_wanted():
    one, other = (displacements(d, shared=True)[1] for d in [(1.5, -3.0), (0.0, 6.0)])
    np.testing.assert_array_equal(one, other)
    second = displacements(shared=True, configuration=1)[1]
    assert np.corrcoef(one.ravel(), second.ravel())[0, 1] == pytest.approx(0, abs=0.05)


def test_atoms_of_a_supercell_do_not_move_together():
    planes, found = displacements()
    assert len(np.unique(found)) == found.size == len(planes) * 80 * 2


# Bragg beams and diffuse scattering, from amplitudes that are known


TRIALS = 2500
MEAN, SPREAD = 0.2 + 0.1j, 0.5


def recorded(configurations):
    """A library of waves whose amplitudes are normally distributed about one mean.

    At the Bragg positions it is MEAN, elsewhere zero.
    """
    cell = np.diag([6.4, 11.0])
    grid = ReciprocalGrid.for_band(cell, Band(0.6), 1.25, 3)
    incident = IncidentGrid(np.arange(50.0), np.arange(50.0), np.ones((50, 50), bool))
    recorder = Recorder(
        grid, (2, 2), incident, 1, configurations, WAVELENGTH_A, (40, 40), 80, 3.3, cell
    )
    recorder.allocate()
    shape = (TRIALS, configurations, *grid.wave_shape)
    real, imaginary = np.random.default_rng(1).normal(0, SPREAD / math.sqrt(2), (2, *shape))
    amplitudes = (real + 1j * imaginary).astype(np.complex64)
    at_beams = [slice(n % 2, None, 2) for n in grid.wave_limit]
    amplitudes[:, :, *at_beams] += MEAN
    still = np.zeros((TRIALS, 2), int)
    recorder.batch(slice(0, TRIALS), still, still.astype(float), arrays("cpu")).layer(0, amplitudes)
    return recorder.library(), amplitudes


def bragg_beams(library):
    """Those of all beams that lie in the band, shape (trials, beams)."""
    return library.beams[0][:, library.beams[0].any(axis=0)]


@pytest.mark.parametrize("configurations", [2, 3, 8])
def test_bragg_beams_are_unbiased_from_few_configurations(configurations):
    beams = bragg_beams(recorded(configurations)[0])
    error = float(beams.std()) / math.sqrt(beams.size)
    assert beams.mean() == pytest.approx(abs(MEAN) ** 2, abs=4 * error)
    # The intensity of the mean amplitude is not.
    assert SPREAD**2 / configurations > 20 * error


@pytest.mark.parametrize("configurations", [2, 3, 8])
def test_bragg_beams_and_diffuse_scattering_are_the_whole_wave(configurations):
    library, amplitudes = recorded(configurations)
    total = (np.abs(amplitudes) ** 2).mean(axis=1).sum(axis=(1, 2))
    np.testing.assert_allclose(library.within_band[0], total, rtol=1e-5)

    diffuse = library.diffuse
    h, k = (np.arange(-axis.limit, axis.limit + 1) for axis in diffuse.axes)
    assert (len(h), len(k)) == amplitudes.shape[-2:]
    scale = 1e3 * WAVELENGTH_A
    at_points = diffuse.intensity(diffuse.coefficients[:, 0], scale * h / 6.4, scale * k / 11.0)
    per_mrad2 = 6.4 * 11.0 / scale**2
    found = bragg_beams(library).sum(axis=1) + at_points.sum(axis=(1, 2)) / per_mrad2
    np.testing.assert_allclose(found, total, rtol=1e-4)


def test_diffuse_scattering_runs_smoothly_under_the_bragg_beams():
    library, _ = recorded(8)
    diffuse = library.diffuse
    k = np.linspace(-12, 12, 25)
    mean = diffuse.intensity(diffuse.coefficients[:, 0].mean(axis=0, keepdims=True), k, k)[0]
    per_mrad2 = 6.4 * 11.0 / (1e3 * WAVELENGTH_A) ** 2
    np.testing.assert_allclose(mean, SPREAD**2 * per_mrad2, rtol=0.03)


@pytest.mark.parametrize("configurations", [2, 3, 8])
def test_halves_of_the_configurations_differ_as_their_mean_errs(configurations):
    library, amplitudes = recorded(configurations)
    error = (np.abs(amplitudes) ** 2).mean(axis=1)
    h, k = (slice(n // 2 % 2, None, 2) for n in amplitudes.shape[2:])
    noise = library.beam_noise[0][:, library.beams[0].any(axis=0)]
    assert noise.std() == pytest.approx(error[:, h, k].std(), rel=0.02)
    assert abs(noise.mean()) < 4 * noise.std() / math.sqrt(noise.size)


# Kinematic limit


def scattered_faintly(request, **settings):
    """What atoms do that scatter a hundredth as much as they do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planewave, "lorentz_factor", lambda energy: 0.01 * lorentz_factor(energy))
        return scattered(request, **{"precision": "double", **SMALL, **settings})


@pytest.mark.parametrize("slices_per_layer", ["planes", 12])
def test_atoms_scatter_from_where_they_are_displaced_to(monkeypatch, slices_per_layer):
    strain, supercell = (0.05, -0.03, 0.2), (5, 2)
    atoms = slab(MOS2, Deformation.from_strain(*strain), 1)
    planes = atomic_planes(atoms, supercell)
    displaced = np.random.default_rng(0).normal(0, 0.3, (3, 20, 2))
    # In two configurations alike, Bragg beams hold all that is scattered at their positions.
    of_all_atoms = displaced.reshape(1, 1, -1, 2)
    monkeypatch.setattr(FrozenPhonons, "displacements_A", lambda *address: of_all_atoms)
    request = shaking(semiangle=2, strain=strain, tilt=(0.0, 0.0), layers=1)
    library = scattered_faintly(request, supercell=supercell, slices_per_layer=slices_per_layer)

    cell = atoms.cell.array[:2, :2] * np.reshape(supercell, (2, 1))
    g = library.g_mrad / (1e3 * WAVELENGTH_A)
    curvature = WAVELENGTH_A * (g**2).sum(axis=1)
    structure = sum(
        kirkland(p.element).scattering_factor(np.hypot(*g.T))
        * np.exp(-2j * np.pi * (p.sites @ cell + u) @ g.T + 1j * np.pi * curvature * p.depth_A).sum(
            axis=0
        )
        for p, u in zip(planes, displaced, strict=True)
    )
    scale = 0.01 * WAVELENGTH_A * lorentz_factor(80) / abs(np.linalg.det(cell))
    expected = np.abs(scale * structure) ** 2
    diffracted = np.hypot(*g.T) > 0.01
    strong = diffracted & (expected > 0.05 * expected[diffracted].max())
    along_axis = (library.incident.directions_mrad == 0).all(axis=1)
    found = library.beams[0, along_axis][0]
    assert strong.sum() > 10
    np.testing.assert_allclose(found[strong], expected[strong], rtol=0.03)


BORON_NITRIDE = replace(crystal("hBN"), rms_displacement_A={"B": 0.09, "N": 0.05})


@pytest.mark.parametrize(
    ("made", "layers", "supercell"),
    [(MOS2, 1, SMALL["supercell"]), (BORON_NITRIDE, 2, (4, 4))],
    ids=["MoS2", "hBN"],
)
def test_diffuse_scattering_of_faint_atoms_is_einsteins(made, layers, supercell):
    # Each atom by itself scatters f² (1 - exp(-4π²u²q²)).
    request = replace(requested(6, motion=4, field=160, pixels=41, layers=layers), material=made)
    diffuse = (library := scattered_faintly(request, supercell=supercell)).diffuse
    atoms = Counter(slab(made, Deformation(), layers).symbols)
    axis = np.arange(-60.0, 61.0, 4.0)
    angle = np.hypot(axis[None, :], axis[:, None])
    of_all = diffuse.coefficients[:, layers - 1].mean(axis=0, keepdims=True)
    found = diffuse.intensity(of_all, axis, axis)[0]
    directions = library.incident.directions_mrad
    expected = np.zeros_like(found)
    for direction in directions:
        q = np.hypot(axis[None, :] - direction[0], axis[:, None] - direction[1]) / (
            1e3 * WAVELENGTH_A
        )
        for element, count in atoms.items():
            u = made.rms_displacement_A[element]
            f = kirkland(element).scattering_factor(q)
            expected += count * f**2 * (1 - np.exp(-4 * np.pi**2 * u**2 * q**2))
    area = np.linalg.det(made.cell_A)
    expected *= (0.01 * lorentz_factor(80)) ** 2 * 1e-6 / area / len(directions)
    ring = (angle > 10) & (angle < 60)
    assert found[ring].sum() == pytest.approx(expected[ring].sum(), rel=0.02)
    assert difference(found[ring], expected[ring]) < 0.05


# Mean transmissions, and what they leave to be sampled


def same_beams(library, frozen):
    """Numbers of the beams of a library in one with frozen phonons, where more are kept."""
    distances = np.hypot(*(frozen.g_mrad[None] - library.g_mrad[:, None]).transpose(2, 0, 1))
    assert distances.min(axis=1).max() < 1e-6
    return distances.argmin(axis=1)


def moving(request, motion, **settings):
    return scattered(replace(request, thermal=ThermalMotion(motion)), **settings)


@pytest.mark.parametrize("off_axis_mrad", [6.35, 32.94])
def test_mean_transmissions_give_the_bragg_beams_of_frozen_phonons(off_axis_mrad):
    tilt = (0.8 * off_axis_mrad, -0.6 * off_axis_mrad)
    request = requested(0.1, (0.01, -0.02, 0.015), tilt, layers=20)
    settings = {"supercell": (4, 3), "band_limit": 2.0, "incident_step_mrad": 0.5}
    coherent, static, frozen = (moving(request, m, **settings) for m in ("coherent", "none", 8))

    same, waves = same_beams(coherent, frozen), frozen.incident.covered.ravel()
    beams, noise = (found[:, :, same] for found in (frozen.beams, frozen.beam_noise))

    def in_noise(library):
        apart = np.abs(library.beams[:, waves] - beams).sum(axis=(1, 2))
        return apart / np.abs(noise).sum(axis=(1, 2))

    assert (in_noise(coherent) < 1.2).all(), in_noise(coherent)
    assert (in_noise(static) > 5).all(), in_noise(static)


@pytest.fixture(scope="module")
def full_and_frozen():
    """A request whose detector holds the band; its crystal in full, and frozen eight times."""
    request = shaking(layers=6, field=194, pixels=59)
    settings = {"supercell": (4, 3), "band_limit": 2.5, "incident_step_mrad": 3.0}
    full = moving(request, "full", **settings)
    return request, full, moving(request, 8, **settings)


def test_full_patterns_are_those_of_frozen_phonons(full_and_frozen):
    request, full, frozen = full_and_frozen
    found, expected = (synthesised(library, request) for library in (full, frozen))
    noise = np.hypot(found.phonon_noise, expected.phonon_noise)
    apart = [difference(*pair) for pair in zip(found.patterns, expected.patterns, strict=True)]
    assert (apart < 1.2 * noise).all(), apart / noise


def test_each_wave_is_coherent_and_diffuse_scattering(full_and_frozen):
    request, full, frozen = full_and_frozen
    directions = frozen.incident.directions_mrad
    k = np.arange(-115.0, 116.0)
    of_splines = [full.diffuse.intensity(c, k, k).sum((1, 2)) for c in full.diffuse.coefficients]
    diffuse = (full.diffuse.incident.at(directions) @ of_splines).T
    coherent = full.within_band[:, frozen.incident.covered.ravel()]
    lit = np.hypot(*(directions + request.tilt_mrad).T) <= request.aperture.semiangle_mrad
    error = ((coherent + diffuse - frozen.within_band) / diffuse)[:, lit]
    assert np.abs(error).max() < 0.12, error
    assert np.abs(error.mean(axis=1)).max() < 0.04, error.mean(axis=1)


# Conservation


def test_nothing_is_negative_and_little_was():
    result = simulate(shaking(layers=8, field=100), **SMALL)
    assert (result.patterns >= 0).all()
    assert len(result.provenance["fraction_clipped"]) == 8
    assert max(result.provenance["fraction_clipped"]) < 1e-4


# Noise


@pytest.fixture(scope="module")
def independent():
    """Patterns of one crystal from other seeds: frozen twice, eight times, and in full."""
    request = shaking(semiangle=5, layers=5, field=80, pixels=41)
    return {
        motion: [
            simulate(
                replace(request, seed=seed, thermal=ThermalMotion(motion)),
                **SMALL,
                diffuse_waves=48,
            )
            for seed in range(6 if motion == "full" else 4)
        ]
        for motion in (2, 8, "full")
    }


def scatter_of(results):
    """Mean relative L1 deviation of one pattern from the mean of infinitely many, per layer."""
    found = np.array([r.patterns for r in results], float)
    pairs = [(a, b) for i, a in enumerate(found) for b in found[:i]]
    apart = np.mean([np.abs(a - b).sum(axis=(1, 2)) for a, b in pairs], axis=0)
    return apart / math.sqrt(2) / found.mean(axis=0).sum(axis=(1, 2))


@pytest.mark.parametrize("motion", [2, 8, "full"])
def test_estimated_noise_is_the_scatter_of_independent_patterns(independent, motion):
    results = independent[motion]
    estimates = np.array([result.provenance["phonon_noise"] for result in results])
    np.testing.assert_allclose(estimates.mean(axis=0) / scatter_of(results), 1, atol=0.3)
    # Of few batches of waves, an estimate is a rough one.
    spread = 0.3 if isinstance(motion, int) else 0.9
    np.testing.assert_allclose(estimates / scatter_of(results), 1, atol=spread)


def test_noise_is_stated_rightly_where_the_waves_of_a_large_aperture_lie_far_apart():
    # There are more splines over incident directions than waves, and they follow each of these.
    request = shaking(semiangle=32.94, layers=2, field=100, pixels=51, motion="full")
    settings = {"supercell": (4, 3), "band_limit": 2.0, "incident_step_mrad": 8.0}
    results = [simulate(replace(request, seed=seed), **settings) for seed in range(4)]
    estimates = np.array([result.provenance["phonon_noise"] for result in results])
    np.testing.assert_allclose(estimates.mean(axis=0) / scatter_of(results), 1, atol=0.3)


@pytest.mark.parametrize("waves", [32, 48, 192])
@pytest.mark.parametrize("semiangles_mrad", [(6.35,), (32.94,), (6.35, 18.13, 32.94)])
def test_noise_of_independent_waves_is_stated_for_every_aperture(semiangles_mrad, waves):
    tilt = (2.0, -3.0)
    apertures = [Aperture(semiangle) for semiangle in semiangles_mrad]
    directions = sample_cones([cone(aperture, tilt) for aperture in apertures], waves)
    splines = IncidentSplines.over(directions, 8.0)
    halves = np.where(np.arange(len(directions)) // BATCH % 2, -1, 1)
    noise = splines.noise_of_samples(directions)
    for aperture in apertures:
        weights = splines.weights(aperture, tilt) @ splines.regression(directions)
        stated = np.linalg.norm(weights * halves @ noise)
        assert stated == pytest.approx(np.linalg.norm(weights), rel=0.1)


def test_what_varies_slowly_with_the_direction_of_a_wave_is_hardly_taken_for_noise():
    directions = sample_cones([Cone(32.94)], 48)
    x, y = directions.T / 32.94
    slow = 1 + 0.5 * x - 0.3 * y
    found = IncidentSplines.over(directions, 8.0).noise_of_samples(directions) @ slow
    assert found.std() < 0.1 * slow.std()


def test_sampling_the_diffuse_part_alone_is_less_noisy(independent):
    full, frozen = (scatter_of(independent[motion]) for motion in ("full", 8))
    assert (full < 0.5 * frozen).all(), full / frozen


def test_noise_falls_with_the_root_of_the_number_of_configurations_and_grows_with_thickness(
    independent,
):
    few, many = (
        np.mean([result.provenance["phonon_noise"] for result in independent[n]], axis=0)
        for n in (2, 8)
    )
    np.testing.assert_allclose(few / many, 2, atol=0.4)
    assert (np.diff(few) > 0).all()
    np.testing.assert_allclose(scatter_of(independent[2]) / scatter_of(independent[8]), 2, atol=0.4)


# Tilt


def test_mirrored_tilt_gives_the_mirrored_pattern_but_for_noise():
    request = requested(tilt=(5.0, 0.0), layers=5, field=80, pixels=41, motion="full")
    right, left = (simulate(replace(request, tilt_mrad=(x, 0.0)), **SMALL) for x in (5.0, -5.0))
    noise = np.hypot(*(each.provenance["phonon_noise"] for each in (right, left)))
    mirrored = right.patterns[:, :, ::-1]
    apart = [difference(*pair) for pair in zip(mirrored, left.patterns, strict=True)]
    # Each noise is an estimate, of few batches, good to 30 %.
    assert (apart < 1.5 * noise).all(), apart / noise


def test_diffuse_scattering_turns_with_the_crystal():
    # Pixels of 1.25 mrad: a tilt of 5 mrad is four of them.
    upright = shaking(semiangle=4, tilt=(0.0, 0.0), strain=(0.0, 0.0, 0.0), layers=6)
    upright = replace(upright, detector=detector(80, 64))
    tilted = replace(upright, tilt_mrad=(1e3 * math.atan(5e-3), 0.0))
    library = scattered(upright, tilted, **SMALL)
    # Not the same waves reach a tilted crystal. Let all be scattered alike, and only diffusely.
    of_a_wave = library.diffuse.coefficients
    alike = np.broadcast_to(of_a_wave.mean(axis=0), of_a_wave.shape)
    library = replace(
        library,
        beams=np.zeros_like(library.beams),
        diffuse=replace(library.diffuse, coefficients=alike),
    )

    before, after = (synthesised(library, r).patterns[5] for r in (upright, tilted))

    assert difference(after[:, 4:], before[:, :-4]) < 0.002
    assert difference(after[:, :-4], before[:, 4:]) > 0.1


# Several patterns from one calculation


def test_same_wave_has_the_same_phonons_in_company():
    one = shaking(semiangle=4, layers=2)
    alone = scattered(one, **SMALL)
    company = scattered(one, replace(one, aperture=Aperture(9), tilt_mrad=(0.0, 4.0)), **SMALL)

    def beams(library):
        return {
            (tuple(direction), tuple(g)): library.beams[1, wave, beam]
            for wave, direction in enumerate(library.incident.directions_mrad)
            for beam, g in enumerate(library.g_mrad)
        }

    few, many = beams(alone), beams(company)
    assert few.keys() < many.keys()
    assert all(many[key] == value for key, value in few.items())


def test_patterns_depend_on_the_seed_alone():
    request = shaking(semiangle=3, layers=2)
    once, again, other = (patterns(replace(request, seed=seed), **SMALL) for seed in (5, 5, 6))
    np.testing.assert_array_equal(once, again)
    assert difference(other, once) > 1e-4
