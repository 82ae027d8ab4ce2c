"""The plane-wave engine with frozen phonons against abTEM (github.com/abTEM/abTEM).

Both send the same plane waves through the same displaced atoms, and intensities are compared at
every reciprocal-lattice point of the supercell within 60 mrad of the incident beam, speckle by
speckle. Every figure is a relative L1 difference: of all that is scattered, without the incident
beam, in whose brightness differences would hide; and of the speckles between the Bragg beams.

abTEM tabulates the potential at the points of a grid. Its error falls with the square of the
spacing, so that two spacings give the limit; without this step, it would be most of the difference.
"""

import math
from dataclasses import dataclass
from functools import cache

import abtem
import ase
import numpy as np
import pytest
from abtem.integrals import QuadratureProjectionIntegrals

from pacbed.engines.arrays import arrays
from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.atoms import AtomTransmission, analytic_form_factor
from pacbed.engines.planewave.multislice import FrozenPhonons, Multislice, Slicing, atomic_planes
from pacbed.engines.planewave.waves import Band, ReciprocalGrid
from pacbed.specimen.crystal import MATERIALS, slab
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import lorentz_factor, wavelength_A

MOS2, UNDEFORMED = MATERIALS["MoS2"], Deformation()
LAYER_A = MOS2.layer_thickness_A
ENERGY_keV, WAVELENGTH_A = 80, wavelength_A(80)
SUPERCELL = np.array([2, 2])
CELL_A = MOS2.in_plane_cell_A(UNDEFORMED) * SUPERCELL[:, None]
EDGES_A = np.diag(CELL_A)
SEED = 7

# Along the axis, and along no direction of the reciprocal lattice.
AXIS_AND_TILTED = ((0.0, 0.0), (7.3, -4.1))
# Points (h, k) of the reciprocal lattice, from the incident beam.
H, K = (np.arange(-n, n + 1) for n in (int(0.06 / WAVELENGTH_A * edge) for edge in EDGES_A))
ANGLE_mrad = 1e3 * WAVELENGTH_A * np.hypot(H[:, None] / EDGES_A[0], K / EDGES_A[1])
SCATTERED = (ANGLE_mrad > 0) & (ANGLE_mrad <= 60)
SPECKLES = SCATTERED & ((H[:, None] % SUPERCELL[0] != 0) | (K % SUPERCELL[1] != 0))

# abTEM's grids, with points every 0.053 Å and half of that. It propagates two thirds of the
# frequencies of a grid: with this band limit the engine propagates the same as on the finer one.
POINTS = [(120, 204), (240, 408)]
ABTEM_BAND_PER_A = 8.3
VACUUM_A = 3.0

pytestmark = pytest.mark.usefixtures("quiet_abtem")


def difference(found, reference, where):
    return np.abs(found - reference)[..., where].sum() / reference[..., where].sum()


def differences(found, reference):
    """Of all that is scattered, and of the speckles alone."""
    return np.array([difference(found, reference, where) for where in (SCATTERED, SPECKLES)])


def crystal(layers, seed):
    """Planes of atoms in the order in which the beam meets them, and what displaces the atoms."""
    planes = atomic_planes(slab(MOS2, UNDEFORMED, layers), tuple(SUPERCELL))
    return planes, FrozenPhonons(MOS2, configurations=1, seed=seed, shared=True)


# pacbed


class ExitWaves:
    """Keeps the intensities (wave, h, k) behind the last layer, as a recorder of the engine."""

    def __init__(self, directions_mrad):
        self.incident, self.directions_mrad = self, np.array(directions_mrad)

    def batch(self, waves, start, offset, on):
        self._start = start
        self.intensities = np.zeros((len(start), len(H), len(K)))
        return self

    def layer(self, index, wave):
        middle = np.array(wave.shape[2:]) // 2
        for number, (h, k) in enumerate(middle + self._start):
            self.intensities[number] = np.abs(wave[number, 0, (h + H)[:, None], k + K]) ** 2


@cache
def by_pacbed(layers, band_limit, slices, directions_mrad=AXIS_AND_TILTED, seed=SEED):
    """Intensities with given settings of the engine."""
    settings = PlaneWaveSettings(band_limit, slices)
    numbers = settings.numbers(ENERGY_keV, layers * LAYER_A, MOS2.stacking_A, 60)
    band, ratios = numbers.band((0.0, 0.0)), numbers.grid_ratios(exact=False)
    grid = ReciprocalGrid.for_band(CELL_A, band, *ratios, tuple(SUPERCELL))
    planes, phonons = crystal(layers, seed)
    ends = MOS2.layer_ends_A(layers)
    phase_A = WAVELENGTH_A * lorentz_factor(ENERGY_keV)
    if slices == "planes":
        largest = Band(ratios[0] * numbers.cutoff_per_A)
        atom = AtomTransmission(WAVELENGTH_A, phase_A, largest)
        slicing = Slicing.on_planes(planes, ends, grid, atom, atom)
    else:
        atom = analytic_form_factor
        slicing = Slicing.equal(planes, ends, slices, grid, atom, phase_A)
    multislice = Multislice(
        grid, planes, slicing, band.contains, WAVELENGTH_A, phonons, arrays("cpu")
    )
    exit_waves = ExitWaves(directions_mrad)
    multislice.propagate(exit_waves, batch=len(directions_mrad))
    return exit_waves.intensities


# abTEM


@dataclass(frozen=True)
class EqualSlices:
    """As the engine's."""

    per_layer: int

    def edges_A(self, planes):
        layers = len(planes) // 3
        vacuum = math.ceil(VACUUM_A * self.per_layer / LAYER_A)
        edges = np.arange(-vacuum, self.per_layer * layers + vacuum + 1)
        return edges * (LAYER_A / self.per_layer)


@dataclass(frozen=True)
class SlicesThinAtAtoms:
    """Every atom in the middle of a slice, from which on slices become thicker by a half."""

    thinnest_A: float

    def edges_A(self, planes):
        depths = np.array([plane.depth_A for plane in planes])
        first, last = depths[0] - 1.5 - VACUUM_A, depths[-1] + 1.5 + VACUUM_A
        between = (depths[1:] + depths[:-1]) / 2
        distances = np.cumsum(self.thinnest_A * 1.5 ** np.arange(20)) - self.thinnest_A / 2
        edges = [first, last]
        for depth, low, high in zip(depths, [first, *between], [*between, last], strict=True):
            both = np.concatenate([depth - distances, depth + distances])
            edges.extend(both[(both > low + 0.02) & (both < high - 0.02)])
        return np.unique(edges)


def potential(layers, slicing, points, upside_down=False):
    """Return the atoms as abTEM wants them: its beam travels to +z, so that z is the depth."""
    planes, phonons = crystal(layers, SEED)
    edges = slicing.edges_A(planes)
    depth = edges[-1] - edges[0]
    atoms = ase.Atoms(cell=[*EDGES_A, depth], pbc=True)
    moved = phonons.displacements_A(np.zeros((1, 2)), planes)[0, 0]
    displacements = np.split(moved, np.cumsum([len(p.sites) for p in planes])[:-1])
    for plane, displacement in zip(planes, displacements, strict=True):
        in_plane = plane.sites @ CELL_A + displacement
        z = plane.depth_A - edges[0]
        z = np.full(len(in_plane), depth - z if upside_down else z)
        atoms += ase.Atoms([plane.element] * len(z), np.column_stack([in_plane, z]))
    # Beyond 0.01 V an atom changes intensities by 1e-4.
    integrals = QuadratureProjectionIntegrals("kirkland", cutoff_tolerance=0.01)
    thicknesses = tuple(np.diff(edges))
    return abtem.Potential(atoms, gpts=points, slice_thickness=thicknesses, integrator=integrals)


def intensities(waves):
    """Intensities (..., h, k) of abTEM's exit waves, each h and k from the incident beam."""
    amplitudes = np.fft.fft2(waves.array)[..., H[:, None], K]
    return np.abs(amplitudes) ** 2


def limit_of_fine_sampling(simulated, points=POINTS):
    coarse, fine = (simulated(each) for each in points)
    return fine + (fine - coarse) / 3


@cache
def by_abtem(layers, slicing, upside_down=False, finer=1):
    """Intensities behind some layers by abTEM."""
    # Its tilt is that of the beam.
    tilt = 1e3 * np.arctan(1e-3 * np.array(AXIS_AND_TILTED))

    def simulated(points):
        waves = abtem.PlaneWave(energy=1e3 * ENERGY_keV, normalize=True, tilt=tilt)
        return intensities(waves.multislice(potential(layers, slicing, points, upside_down)))

    return limit_of_fine_sampling(simulated, [(finer * n, finer * m) for n, m in POINTS])


# The same slices


@pytest.mark.parametrize("slices_per_layer", [3, 6])
def test_in_the_same_slices_every_speckle_is_that_of_abtem(slices_per_layer):
    reference = by_abtem(5, EqualSlices(slices_per_layer))

    found = differences(by_pacbed(5, ABTEM_BAND_PER_A, slices_per_layer), reference)

    # Found: 0.0017 and 0.008, what is left of abTEM's sampling.
    assert (found < [0.0025, 0.012]).all(), found


def test_sum_over_plane_waves_is_the_pattern_that_abtems_probes_give_on_average():
    # 5 × 7 positions tell all waves of the aperture apart.
    semiangle, positions = 14, (5, 7)
    inside = np.argwhere(ANGLE_mrad <= semiangle) - [len(H) // 2, len(K) // 2]

    def simulated(points):
        probe = abtem.Probe(semiangle_cutoff=semiangle, soft=False, energy=1e3 * ENERGY_keV)
        scan = abtem.GridScan((0, 0), tuple(EDGES_A), gpts=positions, endpoint=False)
        exit_waves = probe.multislice(potential(2, EqualSlices(3), points), scan=scan)
        return intensities(exit_waves).mean(axis=(0, 1))

    reference = limit_of_fine_sampling(simulated)

    directions = 1e3 * WAVELENGTH_A * inside / EDGES_A
    waves = by_pacbed(2, ABTEM_BAND_PER_A, 3, tuple(map(tuple, directions)))
    found = sum(
        np.roll(wave, shift, axis=(0, 1)) for wave, shift in zip(waves, inside, strict=True)
    )
    found /= len(waves)
    # Of waves beyond 60 mrad from their incident beam nothing was kept.
    whole = ANGLE_mrad <= 60 - semiangle
    dark = whole & (ANGLE_mrad > semiangle)
    assert difference(found, reference, whole) < 0.0003
    assert difference(found, reference, dark) < 0.002


# Whole atoms in one step


@pytest.mark.parametrize(
    ("layers", "band_limit", "limits"),
    [
        (1, "converged", (0.009, 0.014)),  # found 0.007 and 0.011
        (5, "converged", (0.007, 0.040)),  # found 0.005 and 0.033
        (5, 5.0, (0.005, 0.019)),  # found 0.004 and 0.016
    ],
)
def test_whole_atoms_in_one_step_scatter_as_in_many_thin_slices(layers, band_limit, limits):
    reference = by_abtem(layers, SlicesThinAtAtoms(0.05))

    found = differences(by_pacbed(layers, band_limit, "planes"), reference)

    assert (found < limits).all(), found


def test_abtem_approaches_whole_atoms_in_one_step_as_its_slices_become_thinner():
    thick, thin = EqualSlices(3), SlicesThinAtAtoms(0.05)

    far, near = (differences(by_pacbed(5, 5.0, "planes"), by_abtem(5, s)) for s in (thick, thin))

    assert (far > 1.5 * near).all(), (far, near)


def test_abtem_approaches_whole_atoms_in_one_step_as_it_resolves_their_cores():
    # A slice and a grid cut the potential of a core off, in which the wave bends most.
    found = [
        differences(by_pacbed(1, 5.0, "planes"), by_abtem(1, SlicesThinAtAtoms(thin), finer=finer))
        for thin, finer in ((0.1, 1), (0.04, 2))
    ]

    far, near = found
    assert (far > 1.4 * near).all(), found


def test_cutting_atoms_in_two_is_worse_than_slices_of_twice_the_thickness():
    # Three slices per layer have all atoms well inside, six cut the metal atoms at the nucleus:
    # between its halves the wave travels a whole slice.
    whole, cut = (
        differences(by_pacbed(5, 5.0, "planes"), by_abtem(5, EqualSlices(n))) for n in (3, 6)
    )

    assert cut[0] > 3 * whole[0], (cut, whole)


# What must not agree


@pytest.mark.parametrize("tilted", [(-7.3, -4.1), (7.3, 4.1)])
def test_opposite_tilt_disagrees_with_abtem(tilted):
    reference = by_abtem(5, EqualSlices(3))

    found = by_pacbed(5, "converged", "planes", (tilted,))

    assert differences(found[0], reference[1])[0] > 0.1


def test_other_displacements_and_mirrored_patterns_have_other_speckles():
    reference = by_abtem(5, EqualSlices(3))
    upside_down = by_abtem(5, EqualSlices(3), upside_down=True)
    found = by_pacbed(5, "converged", "planes")
    other = by_pacbed(5, "converged", "planes", seed=SEED + 1)

    for mistaken, right in (
        (other, reference),
        (found, upside_down),
        (np.flip(found, 1), reference),
        (np.flip(found, 2), reference),
    ):
        assert differences(mistaken, right)[1] > 0.7
