"""In-plane deformation: stretches, their directions, and strain."""

import numpy as np
import pytest

from pacbed.exceptions import RequestError
from pacbed.specimen.deformation import Deformation


@pytest.mark.parametrize("angle_deg", [0, 17, 45, 90, 133])
def test_gradient_is_a_pure_stretch_with_its_first_direction_at_the_angle_from_zigzag(angle_deg):
    gradient = Deformation(1.04, 0.97, angle_deg).gradient
    along = np.array([np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))])
    np.testing.assert_allclose(gradient, gradient.T, atol=1e-15)
    np.testing.assert_allclose(np.linalg.eigvalsh(gradient), [0.97, 1.04])
    np.testing.assert_allclose(gradient @ along, 1.04 * along)


@pytest.mark.parametrize(
    ("stretches", "angle_deg", "strain"),
    [
        ((1.03, 0.98), 0, [[0.03, 0], [0, -0.02]]),  # along zigzag
        ((1.03, 0.98), 90, [[-0.02, 0], [0, 0.03]]),  # along armchair
        ((1.05, 0.95), 45, [[0, 0.05], [0.05, 0]]),  # along the first diagonal: positive shear
        ((1.05, 0.95), 135, [[0, -0.05], [-0.05, 0]]),
    ],
)
def test_strain_is_that_of_the_paper(stretches, angle_deg, strain):
    found = Deformation(*stretches, angle_deg).strain
    np.testing.assert_allclose(found, strain, atol=1e-15)


@pytest.mark.parametrize(
    "strain",
    [(0, 0, 0), (0.03, 0, 0), (0, 0.03, 0), (0, 0, 0.02), (0, 0, -0.02), (-0.04, 0.01, -0.015)],
)
def test_deformation_of_a_strain_has_that_strain(strain):
    xx, yy, xy = strain
    deformation = Deformation.from_strain(xx, yy, xy)
    np.testing.assert_allclose(deformation.strain, [[xx, xy], [xy, yy]], atol=1e-15)
    assert deformation.stretch_1 >= deformation.stretch_2
    assert 0 <= deformation.angle_deg < 180


def test_smaller_stretch_first_is_refused_with_advice_that_is_right():
    with pytest.raises(RequestError, match=r"λ1 = 0\.97.*λ2 = 1\.04.*add 90° to θ"):
        Deformation(0.97, 1.04)
    wanted = np.diag([0.97, 1.04])
    np.testing.assert_allclose(Deformation(1.04, 0.97, 0 + 90).gradient, wanted, atol=1e-15)


@pytest.mark.parametrize("stretches", [(1, 0), (1, -0.5), (float("nan"), 1), (1, float("nan"))])
def test_stretch_that_is_not_positive_is_refused(stretches):
    with pytest.raises(RequestError, match="must be positive"):
        Deformation(*stretches)
