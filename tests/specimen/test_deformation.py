"""Stretches and strain, the random draws of the study, and their split into three sets."""

from collections import Counter

import numpy as np
import pytest

from pacbed.exceptions import RequestError
from pacbed.seeding import stream
from pacbed.specimen.deformation import Deformation, DrawRanges
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


# Deformation


def test_nothing_is_deformed_by_default():
    np.testing.assert_array_equal(Deformation().gradient, np.eye(2))
    np.testing.assert_array_equal(Deformation().strain, np.zeros((2, 2)))


@pytest.mark.parametrize("angle_deg", [0, 17, 45, 90, 133])
def test_gradient_is_a_pure_stretch(angle_deg):
    gradient = Deformation(1.04, 0.97, angle_deg).gradient
    np.testing.assert_allclose(gradient, gradient.T, atol=1e-15)
    np.testing.assert_allclose(np.linalg.eigvalsh(gradient), [0.97, 1.04])


@pytest.mark.parametrize("angle_deg", [0, 17, 45, 90, 133])
def test_first_principal_direction_lies_at_the_angle_from_zigzag(angle_deg):
    along = np.array([np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))])
    gradient = Deformation(1.04, 0.97, angle_deg).gradient
    np.testing.assert_allclose(gradient @ along, 1.04 * along)


def test_stretch_along_zigzag_is_the_strain_xx():
    np.testing.assert_allclose(
        Deformation(1.03, 0.98, 0).strain, [[0.03, 0], [0, -0.02]], atol=1e-15
    )


def test_stretch_along_armchair_is_the_strain_yy():
    np.testing.assert_allclose(
        Deformation(1.03, 0.98, 90).strain, [[-0.02, 0], [0, 0.03]], atol=1e-15
    )


def test_stretch_along_the_first_diagonal_is_positive_shear():
    strain = Deformation(1.05, 0.95, 45).strain
    np.testing.assert_allclose(strain, [[0, 0.05], [0.05, 0]], atol=1e-15)


def test_stretch_along_the_second_diagonal_is_negative_shear():
    strain = Deformation(1.05, 0.95, 135).strain
    np.testing.assert_allclose(strain, [[0, -0.05], [-0.05, 0]], atol=1e-15)


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


def test_strain_of_a_deformation_gives_it_back():
    strain = Deformation(1.043, 0.961, 121).strain
    again = Deformation.from_strain(strain[0, 0], strain[1, 1], strain[0, 1])
    assert (again.stretch_1, again.stretch_2) == pytest.approx((1.043, 0.961))
    assert again.angle_deg == pytest.approx(121)


def test_smaller_stretch_first_is_refused_and_both_are_named():
    with pytest.raises(RequestError, match=r"λ1 = 0\.97.*λ2 = 1\.04"):
        Deformation(0.97, 1.04)


def test_advice_given_with_that_refusal_is_right():
    wanted = np.diag([0.97, 1.04])
    np.testing.assert_allclose(Deformation(1.04, 0.97, 0 + 90).gradient, wanted, atol=1e-15)


@pytest.mark.parametrize("stretches", [(1, 0), (1, -0.5), (float("nan"), 1), (1, float("nan"))])
def test_stretch_that_is_not_positive_is_refused(stretches):
    with pytest.raises(RequestError, match="must be positive"):
        Deformation(*stretches)


# Random streams


def test_stream_depends_on_seed_and_every_part_of_its_address():
    addresses = [
        (1, "draw", 6.35, 0),
        (2, "draw", 6.35, 0),
        (1, "noise", 6.35, 0),
        (1, "draw", 6.36, 0),
        (1, "draw", 6.35, 1),
    ]
    assert len({stream(*address).random() for address in addresses}) == len(addresses)


def test_semiangle_means_the_same_however_it_was_computed():
    assert 0.1 + 0.2 != 0.3
    assert stream(1, "draw", 0.1 + 0.2).random() == stream(1, "draw", 0.3).random()


# Draws


def test_draw_depends_on_its_address_alone(draws):
    draw(1, 18.13, 7, RANGES)
    assert draw(1, 6.35, 7, RANGES) == draws[7]
    assert draw(2, 6.35, 7, RANGES) != draws[7]


def test_same_index_at_another_semiangle_is_another_deformation(draws):
    assert draw(1, 12.65, 7, RANGES).deformation != draws[7].deformation


def test_more_draws_leave_the_first_unchanged(table):
    more = draw_table(1, SEMIANGLES, 60, RANGES, HALVES)
    first = more[more["index"] < 40].reset_index(drop=True)
    assert first.equals(table)


def test_other_semiangles_leave_the_draws_of_one_unchanged(table):
    alone = draw_table(1, [12.65], 40, RANGES, HALVES)
    among = table[table["semiangle_mrad"] == 12.65].reset_index(drop=True)
    assert among.equals(alone)


def test_draws_keep_to_their_ranges_and_reach_for_the_ends(draws):
    for values, (low, high) in (
        ([d.stretch_1 for d in draws] + [d.stretch_2 for d in draws], RANGES.stretch),
        ([d.angle_deg for d in draws], RANGES.angle_deg),
        ([d.tilt_x_mrad for d in draws], RANGES.tilt_mrad),
        ([d.tilt_y_mrad for d in draws], RANGES.tilt_mrad),
    ):
        assert low <= min(values) < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < max(values) <= high


def test_larger_stretch_comes_first(draws):
    assert all(d.stretch_1 >= d.stretch_2 for d in draws)


def test_stretches_are_two_sorted_uniform_numbers(draws):
    # The larger and the smaller of two uniform numbers have means 2/3 and 1/3, variance 1/18.
    error = 4 * np.sqrt(1 / 18 / len(draws))
    larger = (np.array([d.stretch_1 for d in draws]) - 0.95) / 0.1
    smaller = (np.array([d.stretch_2 for d in draws]) - 0.95) / 0.1
    assert larger.mean() == pytest.approx(2 / 3, abs=error)
    assert smaller.mean() == pytest.approx(1 / 3, abs=error)
    assert larger.var() == pytest.approx(1 / 18, rel=0.15)


def test_angle_and_tilts_are_uniform_and_independent(draws):
    numbers = np.array(
        [(d.angle_deg / 180, d.tilt_x_mrad / 10 + 0.5, d.tilt_y_mrad / 10 + 0.5) for d in draws]
    )
    error = 4 * np.sqrt(1 / 12 / len(draws))
    np.testing.assert_allclose(numbers.mean(axis=0), 0.5, atol=error)
    np.testing.assert_allclose(numbers.var(axis=0), 1 / 12, rtol=0.1)
    correlation = np.corrcoef(numbers.T) - np.eye(3)
    assert np.abs(correlation).max() < 4 / np.sqrt(len(draws))


def test_shear_of_either_sign_is_equally_likely(draws):
    shear = np.array([d.deformation.strain[0, 1] for d in draws])
    assert np.mean(shear > 0) == pytest.approx(0.5, abs=0.05)


def test_draw_carries_its_deformation_and_tilt(draws):
    one = draws[3]
    assert one.deformation == Deformation(one.stretch_1, one.stretch_2, one.angle_deg)
    assert one.tilt_mrad == (one.tilt_x_mrad, one.tilt_y_mrad)


# Splits


def test_thousand_draws_split_into_500_250_250():
    assert Counter(assign_splits(1000, HALVES)) == {"train": 500, "validation": 250, "test": 250}


@pytest.mark.parametrize("count", [4, 20, 400])
def test_any_multiple_of_four_splits_exactly(count):
    assert Counter(assign_splits(count, HALVES)) == {
        "train": count // 2,
        "validation": count // 4,
        "test": count // 4,
    }


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


def test_no_deformation_is_in_two_splits(table):
    deformations = table.groupby(["stretch_1", "stretch_2", "angle_deg"])["split"]
    assert len(deformations) == len(table) == 120
    assert (deformations.nunique() == 1).all()


# Table


def test_table_has_a_row_per_draw_and_the_columns_that_describe_it(table):
    assert table.columns.tolist() == [
        "semiangle_mrad",
        "index",
        "stretch_1",
        "stretch_2",
        "angle_deg",
        "tilt_x_mrad",
        "tilt_y_mrad",
        "strain_xx",
        "strain_yy",
        "strain_xy",
        "split",
    ]
    addresses = list(zip(table["semiangle_mrad"], table["index"], strict=True))
    assert addresses == [(a, i) for a in SEMIANGLES for i in range(40)]


def test_strains_in_the_table_are_those_of_its_stretches(table):
    # Mohr's circle.
    mean = (table["stretch_1"] + table["stretch_2"]) / 2 - 1
    half = (table["stretch_1"] - table["stretch_2"]) / 2
    twice = np.radians(2 * table["angle_deg"])
    np.testing.assert_allclose(table["strain_xx"], mean + half * np.cos(twice), atol=1e-14)
    np.testing.assert_allclose(table["strain_yy"], mean - half * np.cos(twice), atol=1e-14)
    np.testing.assert_allclose(table["strain_xy"], half * np.sin(twice), atol=1e-14)


def test_split_in_the_table_is_that_of_the_index(table):
    for _, draws_of_one in table.groupby("semiangle_mrad"):
        assert draws_of_one["split"].tolist() == assign_splits(40, HALVES)


# Strain states shared by all semi-angles


def test_semiangles_may_share_strain_states_but_not_tilts():
    one, other = (draw(1, angle, 7, RANGES, shared_strain=True) for angle in SEMIANGLES[:2])
    assert one.deformation == other.deformation
    assert one.tilt_mrad != other.tilt_mrad


def test_shared_strain_states_differ_from_each_other_and_cover_the_ranges():
    stretches = np.array(
        [
            (one.stretch_1, one.stretch_2)
            for one in (draw(1, 6.35, index, RANGES, shared_strain=True) for index in range(500))
        ]
    )
    assert len(np.unique(stretches)) == stretches.size
    assert stretches.min() < 0.951
    assert stretches.max() > 1.049
    assert (stretches[:, 0] >= stretches[:, 1]).all()


def test_tilts_are_the_same_whether_strain_is_shared_or_not(draws):
    assert draw(1, 6.35, 7, RANGES, shared_strain=True).tilt_mrad == draws[7].tilt_mrad


def test_table_of_shared_strain_states_repeats_them_for_every_semiangle():
    table = draw_table(1, SEMIANGLES, 40, RANGES, HALVES, shared_strain=True)
    assert (table.groupby("index")["strain_xy"].nunique() == 1).all()
    assert table["tilt_x_mrad"].nunique() == len(table)


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
