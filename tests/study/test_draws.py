"""The random draws of a study, and their split into three sets."""

from collections import Counter

import numpy as np
import pytest

from pacbed.specimen.deformation import DrawRanges
from pacbed.study.draws import SPLITS, assign_splits, draw, draw_table, simulation_seed

RANGES = DrawRanges(stretch=(0.95, 1.05), angle_deg=(0, 180), tilt_mrad=(-5, 5))
HALVES = {"train": 0.5, "validation": 0.25, "test": 0.25}
SEMIANGLES = [6.35, 12.65, 18.13]


@pytest.fixture(scope="module")
def draws():
    return [draw(1, 6.35, index, RANGES) for index in range(2000)]


@pytest.fixture(scope="module")
def table():
    return draw_table(1, SEMIANGLES, 40, RANGES, HALVES)


# Draws


def test_draw_depends_on_its_address_alone(draws):
    draw(1, 18.13, 7, RANGES)
    assert draw(1, 6.35, 7, RANGES) == draws[7]
    assert draw(2, 6.35, 7, RANGES) != draws[7]
    assert draw(1, 12.65, 7, RANGES).deformation != draws[7].deformation


def test_more_draws_and_other_semiangles_leave_those_there_are(table):
    more = draw_table(1, [*SEMIANGLES, 25.44], 60, RANGES, HALVES)
    same = more[(more["index"] < 40) & (more["semiangle_mrad"] < 25)].reset_index(drop=True)
    assert same.equals(table)


def test_draws_keep_to_their_ranges_and_reach_for_the_ends(draws):
    for values, (low, high) in (
        ([d.stretch_1 for d in draws] + [d.stretch_2 for d in draws], RANGES.stretch),
        ([d.angle_deg for d in draws], RANGES.angle_deg),
        ([d.tilt_x_mrad for d in draws], RANGES.tilt_mrad),
        ([d.tilt_y_mrad for d in draws], RANGES.tilt_mrad),
    ):
        assert low <= min(values) < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < max(values) <= high


def test_stretches_are_two_sorted_uniform_numbers(draws):
    stretches = (np.array([(d.stretch_1, d.stretch_2) for d in draws]) - 0.95) / 0.1
    assert (stretches[:, 0] >= stretches[:, 1]).all()
    # The larger and the smaller of two uniform numbers have means 2/3 and 1/3, variance 1/18.
    error = 4 * np.sqrt(1 / 18 / len(draws))
    np.testing.assert_allclose(stretches.mean(axis=0), [2 / 3, 1 / 3], atol=error)
    np.testing.assert_allclose(stretches.var(axis=0), 1 / 18, rtol=0.15)


def test_angle_and_tilts_are_uniform_and_independent(draws):
    numbers = np.array(
        [(d.angle_deg / 180, d.tilt_x_mrad / 10 + 0.5, d.tilt_y_mrad / 10 + 0.5) for d in draws]
    )
    error = 4 * np.sqrt(1 / 12 / len(draws))
    np.testing.assert_allclose(numbers.mean(axis=0), 0.5, atol=error)
    np.testing.assert_allclose(numbers.var(axis=0), 1 / 12, rtol=0.1)
    correlation = np.corrcoef(numbers.T) - np.eye(3)
    assert np.abs(correlation).max() < 4 / np.sqrt(len(draws))


# Splits


def test_split_of_a_draw_does_not_depend_on_how_many_there_are():
    longest = assign_splits(1000, HALVES)
    for count in (0, 1, 7, 333):
        assert assign_splits(count, HALVES) == longest[:count]


@pytest.mark.parametrize("shares", [(0.5, 0.25, 0.25), (0.8, 0.1, 0.1), (0.6, 0.3, 0.1)])
def test_every_leading_part_is_balanced_to_one_draw(shares):
    fractions = dict(zip(SPLITS, shares, strict=True))
    splits = assign_splits(200, fractions)
    for count in range(1, 201):
        found = Counter(splits[:count])
        assert all(abs(found[s] - fractions[s] * count) <= 1 for s in SPLITS)
    assert all(found[s] == round(fractions[s] * 200) for s in SPLITS)


def test_no_deformation_is_in_two_splits(table):
    deformations = table.groupby(["stretch_1", "stretch_2", "angle_deg"])["split"]
    assert len(deformations) == len(table) == 120
    assert (deformations.nunique() == 1).all()


# Table


def test_table_has_a_row_per_draw_with_the_strains_of_its_stretches_and_its_split(table):
    addresses = list(zip(table["semiangle_mrad"], table["index"], strict=True))
    assert addresses == [(a, i) for a in SEMIANGLES for i in range(40)]
    assert table["split"].tolist() == assign_splits(40, HALVES) * len(SEMIANGLES)
    # Mohr's circle.
    mean = (table["stretch_1"] + table["stretch_2"]) / 2 - 1
    half = (table["stretch_1"] - table["stretch_2"]) / 2
    twice = np.radians(2 * table["angle_deg"])
    np.testing.assert_allclose(table["strain_xx"], mean + half * np.cos(twice), atol=1e-14)
    np.testing.assert_allclose(table["strain_yy"], mean - half * np.cos(twice), atol=1e-14)
    np.testing.assert_allclose(table["strain_xy"], half * np.sin(twice), atol=1e-14)


# Strain states shared by all semi-angles


def test_semiangles_may_share_strain_states_but_not_tilts(draws):
    one, other = (draw(1, angle, 7, RANGES, shared_strain=True) for angle in SEMIANGLES[:2])
    assert one.deformation == other.deformation
    assert one.tilt_mrad != other.tilt_mrad
    assert one.tilt_mrad == draws[7].tilt_mrad  # as where strain is not shared


def test_every_simulation_has_thermal_displacements_of_its_own():
    seeds = {
        simulation_seed(run, angle, index)
        for run in (1, 2)
        for angle in SEMIANGLES
        for index in (None, 0, 1)
    }
    assert len(seeds) == 2 * len(SEMIANGLES) * 3


def test_simulations_that_share_a_crystal_share_its_thermal_displacements():
    seeds = {simulation_seed(1, angle, 0, shared_strain=True) for angle in SEMIANGLES}
    assert len(seeds) == 1
    assert seeds != {simulation_seed(1, SEMIANGLES[0], 1, shared_strain=True)}
