"""What is simulated beside the draws: the cases of the paper's figures, and steps of the bound."""

import numpy as np
import pytest
from workspace import CONFIG

from pacbed.precision.steps import differences
from pacbed.study.configuration import load
from pacbed.study.states import Seeded, base_states, bound_states, gallery


@pytest.fixture(scope="module")
def config():
    return load([CONFIG])


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


def test_states_of_one_base_share_a_seed_and_bases_do_not(config):
    seeds = {base: {s.seed for s in steps.values()} for base, steps in bound_states(config).items()}
    assert all(len(one) == 1 for one in seeds.values())
    assert len(set.union(*seeds.values())) == len(seeds) == 1 + config["bound"]["deformed_states"]


def test_more_bases_leave_those_that_exist(config):
    more = {**config, "bound": config["bound"] | {"deformed_states": 4}}
    few, many = base_states(config), base_states(more)
    assert list(many)[: len(few)] == list(few)
    assert all(many[name] == state for name, state in few.items())


def test_bases_lie_in_the_ranges_of_the_study(config):
    low, high = config["deformation"]["principal_stretch"]
    for state in base_states(config).values():
        assert low <= state.deformation.stretch_2 <= state.deformation.stretch_1 <= high
        assert max(map(abs, state.tilt_mrad)) <= 5


def test_steps_are_those_of_the_configuration(config):
    section = config["bound"]
    steps = bound_states(config)["undeformed"]
    expected = differences(
        *vars(base_states(config)["undeformed"]).values(), *list(section.values())[1:]
    )
    assert {name: one.state for name, one in steps.items()} == expected
    strain = steps["strain_xx_plus"].state.deformation.strain[0, 0]
    assert strain == pytest.approx(section["strain_step"])
    assert steps["tilt_y_mrad_minus"].state.tilt_mrad[1] == -section["tilt_step_mrad"]


def test_a_state_survives_being_a_parameter_of_a_rule(config):
    for steps in bound_states(config).values():
        for one in steps.values():
            assert Seeded.from_dict(one.to_dict()) == one
