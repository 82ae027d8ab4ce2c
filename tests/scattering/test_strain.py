"""Strain states and the monomials through them."""

import numpy as np
import pytest

from pacbed.exceptions import RequestError
from pacbed.scattering.strain import StrainRange, deformation_of, exponents

RANGE = StrainRange((0.95, 1.03))


def test_states_lie_within_the_range_of_principal_stretches_and_fill_it():
    states = RANGE.states(64)
    stretches = np.array([(d.stretch_1, d.stretch_2) for d in map(deformation_of, states)])
    assert (stretches > 0.95 - 1e-9).all()
    assert (stretches < 1.03 + 1e-9).all()
    assert all(map(RANGE.contains, states))
    np.testing.assert_allclose(states.mean(axis=0), [-0.01, -0.01, 0], atol=0.004)
    # Some lie on the surface, where polynomials are weakest.
    assert (np.ptp(stretches, axis=0) > 0.05).all()
    on_surface = np.minimum(1.03 - stretches[:, 0], stretches[:, 1] - 0.95) < 1e-9
    assert 0.2 < on_surface.mean() < 0.4


def test_more_states_begin_with_the_same_ones():
    np.testing.assert_array_equal(RANGE.states(50)[:20], RANGE.states(20))


@pytest.mark.parametrize("strain", [(0.031, 0, 0), (0, -0.051, 0), (0, 0, 0.05)])
def test_strain_beyond_the_range_is_not_contained(strain):
    assert not RANGE.contains(np.array(strain))


@pytest.mark.parametrize("stretch", [(1.0, 1.0), (1.05, 0.95), (0.0, 1.0)])
def test_empty_range_is_refused(stretch):
    with pytest.raises(RequestError, match="range of principal stretches"):
        StrainRange(stretch)


@pytest.mark.parametrize("stretch", [(4.0, 5.0), (-4.0, 4.0), (0.1, 1.0)])
def test_percentages_are_no_stretches(stretch):
    with pytest.raises(RequestError, match="principal stretches"):
        StrainRange(stretch)


@pytest.mark.parametrize(("degree", "terms"), [(1, 4), (2, 10), (3, 20), (4, 35)])
def test_polynomials_of_a_degree_are_reproduced_with_their_slopes(degree, terms):
    assert len(exponents(degree)) == terms
    states = RANGE.states(2 * terms)
    values = (1 + 20 * states[:, 0] - 30 * states[:, 1] + 50 * states[:, 2]) ** degree
    fitted = np.linalg.lstsq(RANGE.terms(states, degree), values, rcond=None)[0]

    at = np.array([0.01, -0.02, 0.013])
    base = 1 + 20 * at[0] - 30 * at[1] + 50 * at[2]
    assert RANGE.terms(at, degree)[0] @ fitted == pytest.approx(base**degree)
    np.testing.assert_allclose(
        RANGE.slopes(at, degree) @ fitted,
        degree * base ** (degree - 1) * np.array([20, -30, 50]),
        rtol=1e-6,
    )
