"""Auxiliary simulations: the cases of the paper's figures, and steps of the bound."""

import numpy as np
import pytest

from pacbed.precision.steps import Steps, differences
from pacbed.specimen.deformation import DrawRanges
from pacbed.study.states import Seeded, base_states, bound_states, gallery

RANGES = DrawRanges(stretch=(0.95, 1.05), angle_deg=(0, 180), tilt_mrad=(-5, 5))
STEPS = Steps(strain=0.003, tilt_mrad=0.25)


def of_bound(deformed=4):
    return bound_states(2026, RANGES, deformed, STEPS)


@pytest.mark.parametrize(
    ("name", "strain"),
    [
        ("gallery_strain_xx", [[0.1, 0], [0, 0]]),
        ("gallery_strain_yy", [[0, 0], [0, -0.1]]),
        ("gallery_strain_xy", [[0, 0.1], [0.1, 0]]),
        ("gallery_tilt_x", [[0, 0], [0, 0]]),
    ],
)
def test_the_gallery_has_the_strains_of_the_paper(name, strain):
    assert np.allclose(gallery(1)[name].state.deformation.strain, strain)


def test_the_gallery_tilts_about_either_axis_and_both():
    tilts = {name: one.state.tilt_mrad for name, one in gallery(1).items() if "tilt" in name}
    assert [bool(x) for x, _ in tilts.values()] == [True, False, True]
    assert [bool(y) for _, y in tilts.values()] == [False, True, True]


def test_states_of_one_base_share_a_seed_and_bases_do_not():
    seeds = [{one.seed for one in steps.values()} for steps in of_bound().values()]
    assert all(len(one) == 1 for one in seeds)
    assert len(set.union(*seeds)) == len(seeds) == 5


def test_more_bases_leave_those_that_exist():
    few, many = (base_states(2026, RANGES, count) for count in (1, 4))
    assert list(many)[: len(few)] == list(few)
    assert all(many[name] == state for name, state in few.items())


def test_bases_lie_in_the_ranges_of_the_study():
    for state in base_states(2026, RANGES, 20).values():
        assert 0.95 <= state.deformation.stretch_2 <= state.deformation.stretch_1 <= 1.05
        assert max(map(abs, state.tilt_mrad)) <= 5


def test_steps_are_those_that_are_asked_for():
    steps = of_bound(0)["undeformed"]
    undeformed = base_states(2026, RANGES, 0)["undeformed"]
    expected = differences(undeformed.deformation, undeformed.tilt_mrad, 0.003, 0.25)
    assert {name: one.state for name, one in steps.items()} == expected
    strain = steps["strain_xx_plus"].state.deformation.strain[0, 0]
    assert strain == pytest.approx(0.003)
    assert steps["tilt_y_mrad_minus"].state.tilt_mrad[1] == -0.25


def test_a_state_survives_being_a_parameter_of_a_rule():
    for steps in of_bound().values():
        for one in steps.values():
            assert Seeded.from_dict(one.to_dict()) == one
