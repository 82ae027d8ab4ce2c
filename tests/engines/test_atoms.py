"""Scattering factors: Kirkland's table, its limits, atoms cut into slices, and whole atoms."""

import math
from itertools import pairwise

import numpy as np
import pytest
from ase.data import atomic_numbers, chemical_symbols
from numpy.polynomial.legendre import legval
from scipy.fft import fft2, ifft2, next_fast_len
from scipy.integrate import quad, trapezoid
from scipy.special import j0, spherical_jn, spherical_yn

from pacbed.engines.planewave import atoms
from pacbed.engines.planewave.atoms import (
    VOLT_A3_PER_A,
    AtomTransmission,
    SampledFormFactor,
    kirkland,
)
from pacbed.engines.planewave.waves import Band
from pacbed.exceptions import RequestError
from pacbed.specimen.microscope import lorentz_factor, wavelength_A

BOHR_A = 0.529177
MOTT_BETHE = 1 / (2 * math.pi**2 * BOHR_A)  # 4 × 0.023934 1/Å: f = MOTT_BETHE (Z - f_x)/q²
OF_INTEREST = ["Mo", "W", "S", "Se", "Te"]
H_TO_LR = chemical_symbols[1:104]
Q = np.array([0.0, 0.18, 0.37, 1.0, 2.5])


def test_volt_per_scattering_length_is_the_textbook_value():
    assert pytest.approx(47.878, abs=0.001) == VOLT_A3_PER_A


@pytest.mark.parametrize(
    ("element", "expected_A"),
    [("Mo", 10.255), ("W", 12.523), ("S", 5.160), ("Se", 7.202), ("Te", 10.990)],
)
def test_forward_scattering_is_that_of_the_international_tables(element, expected_A):
    # Vol. C, table 4.3.2.3 (Peng et al., Acta Cryst. A52 (1996) 257): the sum of five amplitudes.
    assert kirkland(element).scattering_factor(0.0) == pytest.approx(expected_A, rel=0.01)


@pytest.mark.parametrize(
    ("element", "amplitudes", "widths"),
    [
        (
            "Mo",
            [0.3069, 1.1714, 3.2293, 3.4254, 2.1224],
            [0.1101, 1.0222, 5.9613, 25.1965, 93.5831],
        ),
        (
            "S",
            [0.0915, 0.4312, 1.0847, 2.4671, 1.0852],
            [0.0838, 0.7788, 4.3462, 15.5846, 44.6365],
        ),
    ],
)
def test_scattering_factor_agrees_with_the_international_tables(element, amplitudes, widths):
    q = np.linspace(0, 3.8, 39)
    s = q / 2  # sinθ/λ
    expected = np.array(amplitudes) @ np.exp(-np.outer(widths, s**2))
    np.testing.assert_allclose(kirkland(element).scattering_factor(q), expected, rtol=0.03)


@pytest.mark.parametrize("element", OF_INTEREST)
def test_scattering_factor_is_the_fourier_transform_of_the_potential(element):
    atom = kirkland(element)
    for q, accuracy in ((0, 1e-6), (0.3, 1e-4), (1.0, 1e-4), (3.0, 1e-4)):

        def shell(r, q=q):
            wave = 4 * math.pi * r**2 * np.sinc(2 * q * r)
            return wave * float(atom.potential(np.array(r)))

        total = sum(quad(shell, a, b, limit=400)[0] for a, b in ((1e-9, 0.3), (0.3, 3), (3, 15)))
        assert total / VOLT_A3_PER_A == pytest.approx(atom.scattering_factor(q), rel=accuracy)


@pytest.mark.parametrize("element", H_TO_LR)
def test_nucleus_alone_scatters_to_large_angles(element):
    # Mott-Bethe without the electrons; what is missing is the inner shells, at most 6 % here.
    rutherford = MOTT_BETHE * atomic_numbers[element] / 12**2
    assert kirkland(element).scattering_factor(12.0) == pytest.approx(rutherford, rel=0.062)


@pytest.mark.parametrize("element", OF_INTEREST)
def test_inner_shells_screen_the_nucleus_as_hydrogenic_ones_do(element):
    z = atomic_numbers[element]
    q = np.array([6.0, 7.0, 8.0, 10.0])
    x1 = (math.pi * q * BOHR_A / (z - 0.30)) ** 2  # Slater's screening of 1s
    x2 = (2 * math.pi * q * BOHR_A / (z - 4.15)) ** 2  # and of 2s, 2p
    k_shell = 2 / (1 + x1) ** 2
    l_shell = (2 * (1 - 3 * x2 + 2 * x2**2) + 6 * (1 - x2)) / (1 + x2) ** 4
    expected = MOTT_BETHE * (z - k_shell - l_shell) / q**2
    np.testing.assert_allclose(kirkland(element).scattering_factor(q), expected, rtol=0.03)


@pytest.mark.parametrize("element", H_TO_LR)
def test_every_element_scatters_less_to_larger_angles(element):
    factor = kirkland(element).scattering_factor(np.linspace(0, 12, 600))
    assert (factor > 0).all()
    assert (np.diff(factor) < 0).all()


def test_element_that_is_not_tabulated_is_refused():
    with pytest.raises(RequestError, match="no scattering factor for element 'Xx'"):
        kirkland("Xx")


@pytest.mark.parametrize("element", OF_INTEREST)
def test_contiguous_slices_add_up_to_the_whole_atom(element):
    cuts = [-math.inf, -2.0, -0.7, 0.0, 0.05, 1.1, 3.0, math.inf]
    atom = kirkland(element)
    parts = [atom.sliced(Q, z1, z2) for z1, z2 in pairwise(cuts)]
    np.testing.assert_allclose(sum(parts), atom.scattering_factor(Q), rtol=1e-12)


@pytest.mark.parametrize("element", ["Mo", "S"])
@pytest.mark.parametrize(("z1", "z2"), [(0.3, 1.4), (-1.4, -0.3), (-0.5, 1.5), (-2.6, -0.55)])
def test_slice_of_an_atom_is_the_integral_of_its_potential(element, z1, z2):
    atom = kirkland(element)
    # Points crowd around the nucleus, where the potential is singular.
    rho = 8 * np.linspace(0, 1, 1201)[1:] ** 3
    z = np.unique(np.concatenate([np.linspace(z1, z2, 401), np.linspace(-1, 1, 1001) ** 3]))
    z = z[(z >= z1) & (z <= z2)]
    potential = atom.potential(np.hypot(rho[:, None], z[None, :]))
    projected = trapezoid(potential, z, axis=1)
    for q in Q[:4]:
        hankel = trapezoid(2 * math.pi * rho * j0(2 * math.pi * q * rho) * projected, rho)
        expected = hankel / VOLT_A3_PER_A
        assert atom.sliced(q, z1, z2) == pytest.approx(expected, rel=2e-3, abs=1e-4)


# The potential as Prismatic 2.0 tabulates it


def test_slices_of_a_sampled_atom_add_up_to_the_whole():
    sampled = SampledFormFactor(0.15, 2.0)
    whole = sampled("Mo", Q, 0 * Q, -math.inf, math.inf)
    cuts = [-math.inf, -1.0, 0.0, 0.4, math.inf]
    parts = [sampled("Mo", Q, 0 * Q, z1, z2) for z1, z2 in pairwise(cuts)]
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-12)


def test_sampled_slice_outside_the_bound_is_empty():
    assert not SampledFormFactor(0.15, 2.0, 3.0)("Mo", Q, 0 * Q, 3.5, 5.0).any()


@pytest.mark.parametrize("element", ["Mo", "S"])
def test_finer_sampling_tends_to_the_exact_form_factor(element):
    q = np.array([0.2, 0.5, 1.0, 1.5])
    exact = kirkland(element).scattering_factor(q)

    def error(pixel_A, slice_A):
        sampled = SampledFormFactor(pixel_A, slice_A, 3.0)
        return np.abs(sampled(element, q, 0 * q, -math.inf, math.inf) / exact - 1).max()

    coarse, fine = error(0.15, 2.0), error(0.05, 0.7)
    assert fine < 0.5 * coarse
    assert fine < 0.06


# Whole atoms


WAVELENGTH_A = wavelength_A(80)
PHASE_A = WAVELENGTH_A * lorentz_factor(80)


def transmission(cutoff_per_A=3.0, strength=1.0, **rms_displacement_A):
    return AtomTransmission(
        WAVELENGTH_A, strength * PHASE_A, Band(cutoff_per_A), rms_displacement_A
    )


def test_slope_of_the_potential_is_its_derivative():
    atom, r, step = kirkland("Mo"), np.array([0.01, 0.1, 0.7, 2.0]), 1e-5
    numerical = (atom.potential(r * (1 + step)) - atom.potential(r * (1 - step))) / (2 * step * r)
    np.testing.assert_allclose(atom.potential_slope(r), numerical, rtol=1e-6)


@pytest.mark.parametrize("element", OF_INTEREST)
@pytest.mark.parametrize("rms_A", [0.0, 0.08])
def test_faint_atom_scatters_as_in_the_first_born_approximation(element, rms_A):
    found = transmission(strength=1e-4, **{element: rms_A})(element, Q, 0 * Q)
    born = kirkland(element).scattering_factor(Q) * np.exp(-2 * (np.pi * rms_A * Q) ** 2)
    np.testing.assert_allclose(found / (1e-4j * PHASE_A), born, rtol=1e-3)


@pytest.mark.parametrize("element", OF_INTEREST)
def test_mean_transmission_is_that_of_an_atom_averaged_over_its_displacements(element):
    u_A, weight = np.polynomial.hermite_e.hermegauss(40)
    mean_shift = np.exp(-2j * np.pi * np.outer(Q, 0.08 * u_A)) @ weight / weight.sum()
    mean, still = (transmission(**{element: u})(element, Q, 0 * Q) for u in (0.08, 0.0))
    np.testing.assert_allclose(mean, still * mean_shift, rtol=1e-6)


@pytest.mark.parametrize("element", OF_INTEREST)
def test_atom_takes_from_the_forward_beam_what_it_scatters(element):
    # |1 + t| = 1 everywhere, so -2 Re ∫t = ∫|t|².
    q = np.linspace(0, 20, 4001)
    found = transmission(cutoff_per_A=20.0)(element, q, 0 * q)
    scattered = trapezoid(2 * np.pi * q * np.abs(found) ** 2, q)
    assert -2 * found[0].real == pytest.approx(scattered, rel=0.01)


def test_strong_atom_scatters_less_than_in_the_first_born_approximation():
    ratio = np.abs(transmission()("Mo", Q, 0 * Q)) / (PHASE_A * kirkland("Mo").scattering_factor(Q))
    assert (ratio < 0.98).all()
    assert (ratio > 0.8).all()


def test_transmission_depends_on_the_length_of_q_alone_and_ends_at_the_cutoff():
    atom = transmission(cutoff_per_A=2.0)
    np.testing.assert_allclose(atom("S", Q, 0 * Q), atom("S", 0.6 * Q, -0.8 * Q))
    assert (atom("S", Q, 0 * Q) != 0).tolist() == [True, True, True, True, False]


def relative_difference(found, expected):
    return np.sqrt((np.abs(found - expected) ** 2).sum() / (np.abs(expected) ** 2).sum())


def through_thin_slices(element, edge_A=4.0, cutoff_per_A=24.0, slice_A=0.02, depth_A=1.0):
    """Amplitudes behind an atom in a square box, as if they came from the plane of the nucleus.

    A multislice calculation with slices thinner than the core of the atom, in a band that holds
    most of it. Returned are frequencies gx, gy in 1/Å and the amplitudes times the area in Å².
    """
    n = next_fast_len(math.ceil(2 * cutoff_per_A * edge_A))
    gx, gy = np.meshgrid(*[np.fft.fftfreq(n, edge_A / n)] * 2, indexing="ij")
    g, of_g = np.unique(np.hypot(gx, gy).round(9), return_inverse=True)
    band = np.hypot(gx, gy) <= cutoff_per_A

    def travel(distance_A):
        return np.exp(-1j * np.pi * WAVELENGTH_A * distance_A * (gx**2 + gy**2)) * band

    amplitude = travel(-depth_A + slice_A / 2)
    amplitude *= np.arange(n * n).reshape(n, n) == 0
    steps = round(2 * depth_A / slice_A)
    cuts = [-math.inf, *(-depth_A + slice_A * np.arange(1, steps)), math.inf]
    for z1, z2 in pairwise(cuts):
        factor = np.where(band, kirkland(element).sliced(g, z1, z2)[of_g].reshape(n, n), 0)
        phase = PHASE_A * ifft2(factor).real * (n / edge_A) ** 2
        amplitude = fft2(np.exp(1j * phase) * ifft2(amplitude)) * travel(slice_A)
    return gx, gy, amplitude * travel(-depth_A - slice_A / 2) * edge_A**2


def error_against_thin_slices(element):
    gx, gy, amplitude = through_thin_slices(element)
    q = np.hypot(gx, gy)
    seen = (q > 0.2) & (q < 2.5)
    return relative_difference(transmission()(element, gx[seen], gy[seen]), amplitude[seen])


@pytest.mark.parametrize(("element", "limit"), [("S", 0.002), ("Mo", 0.005), ("W", 0.009)])
def test_whole_atom_scatters_as_one_cut_into_thin_slices(element, limit):
    assert error_against_thin_slices(element) < limit


@pytest.mark.parametrize("element", ["S", "Mo", "W"])
def test_whole_atom_that_does_not_bend_the_wave_is_worse(element, monkeypatch):
    bent = error_against_thin_slices(element)
    monkeypatch.setattr(atoms, "_bending", lambda *of_atom: 0.0)
    monkeypatch.setattr(atoms, "_spectrum", atoms._spectrum.__wrapped__)
    assert error_against_thin_slices(element) > 2 * bent


def partial_waves(element, q, reach_A=7.0, step_A=2.5e-4):
    """Amplitudes of the exact solution of the wave equation of one atom, in Å².

    The radial equations of all angular momenta are integrated outwards by Numerov's method, in
    its renormalised form, to where only a phase shift is left.
    """
    k = 2 * np.pi / WAVELENGTH_A
    momenta = np.arange(int(k * reach_A))
    r = step_A * np.arange(1, int(reach_A / step_A) + 1)
    potential = 2 * k * PHASE_A / VOLT_A3_PER_A * kirkland(element).potential(r)
    barrier = momenta * (momenta + 1.0)

    def weight(i):
        return step_A**2 / 12 * (barrier / r[i] ** 2 - k**2 - potential[i])

    ratio = np.full(len(momenta), np.inf)
    for i in range(len(r) - 1):
        ratio = (2 + 10 * weight(i)) / (1 - weight(i)) - 1 / ratio
    ratio *= (1 - weight(-2)) / (1 - weight(-1))  # of the wave function at the last two radii

    last, before = (
        [r[i] * f(momenta, k * r[i]) for f in (spherical_jn, spherical_yn)] for i in (-1, -2)
    )
    shift = np.arctan((last[0] - ratio * before[0]) / (last[1] - ratio * before[1]))
    angle = 2 * np.arcsin(q * WAVELENGTH_A / 2)
    amplitude = legval(np.cos(angle), (2 * momenta + 1) * (np.exp(2j * shift) - 1)) / (2j * k)
    return 1j * WAVELENGTH_A * amplitude


@pytest.mark.parametrize(("element", "limit"), [("S", 0.002), ("Mo", 0.003), ("W", 0.003)])
def test_whole_atom_scatters_as_the_wave_equation_wants(element, limit):
    q = np.linspace(0.05, 1.4, 28)
    found, expected = transmission()(element, q, 0 * q), partial_waves(element, q)
    assert relative_difference(found, expected) < limit
    # The first Born approximation does not.
    born = 1j * PHASE_A * kirkland(element).scattering_factor(q)
    assert relative_difference(born, expected) > 0.1
