"""Auxiliary simulations: the cases of the paper's figures, and steps of the bound."""

import numpy as np

from pacbed.precision.steps import Steps, differences
from pacbed.specimen.deformation import Deformation, DrawRanges
from pacbed.study.states import Seeded, base_states, bound_states, gallery

RANGES = DrawRanges(stretch=(0.95, 1.05), angle_deg=(0, 180), tilt_mrad=(-5, 5))
STEPS = Steps(strain=0.003, tilt_mrad=0.25)


def of_bound(deformed=4):
    return bound_states(2026, RANGES, deformed, STEPS)


def test_the_gallery_has_the_strains_and_tilts_of_the_paper():
    states = {name.removeprefix("gallery_"): one.state for name, one in gallery(1).items()}
    for name, strain in {"xx": [[0.1, 0], [0, 0]], "yy": [[0, 0], [0, -0.1]]}.items():
        np.testing.assert_allclose(states[f"strain_{name}"].deformation.strain, strain, atol=1e-15)
    xy = states["strain_xy"].deformation.strain
    np.testing.assert_allclose(xy, [[0, 0.1], [0.1, 0]], atol=1e-15)
    tilts = [states[f"tilt_{axis}"].tilt_mrad for axis in ("x", "y", "xy")]
    assert tilts == [(5, 0), (0, 5), (5, 5)]


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
    steps = {name: one.state for name, one in of_bound(0)["undeformed"].items()}
    assert steps == differences(Deformation(), (0.0, 0.0), STEPS)


def test_a_state_survives_being_a_parameter_of_a_rule():
    for steps in of_bound().values():
        for one in steps.values():
            assert Seeded.from_dict(one.to_dict()) == one
