"""What jobs are expected to cost: the totals of the paper, and what must follow from a change."""

import math

import pytest
from workspace import CONFIG, ROOT

from pacbed.runs import cost_model as costs
from pacbed.study.configuration import load
from pacbed.study.networks import networks
from pacbed.study.sections import NetworkSection

ANGLES = (6.35, 12.65, 18.13, 25.44, 32.94)
START_s = costs._START_s


@pytest.fixture(scope="module")
def paper():
    return load([CONFIG])


@pytest.fixture(scope="module")
def demo():
    return load([CONFIG, ROOT / "config" / "demo.yaml"])


@pytest.fixture(scope="module")
def waves(paper):
    return paper.changed({"simulation": {"engine": "planewave"}})


def prismatic(paper, **values):
    return paper.changed({"simulation": {"prismatic": values}})


def work_s(config, angles, threads=1, draws=1):
    """Seconds of a simulation job without its start-up."""
    return costs.simulation(config, tuple(angles), threads, draws).seconds - START_s


# The study of the paper


def test_the_study_of_the_paper_costs_what_is_documented(paper):
    # 273,000 core-hours and 145 GB of patterns (docs/cost.md; the paper: 608,000 core-hours).
    simulations = [costs.simulation(paper, (angle,), 32) for angle in ANGLES]
    seconds = sum(one.seconds for one in simulations) * paper.draws.count
    assert seconds * 32 / 3600 == pytest.approx(273_000, rel=0.02)
    assert sum(one.output_MB for one in simulations) * 1000 == pytest.approx(145_000, rel=0.05)
    # The paper: 50 × 60 hours of a graphics card.
    trainings = [costs.training(paper, n.outputs, 8, gpus=1).seconds for n in networks(paper)]
    assert len(trainings) == 50
    assert sum(trainings) / 3600 == pytest.approx(3000, rel=0.05)


# The documented cases (docs/cost.md)


@pytest.mark.parametrize(
    ("settings", "threads", "seconds"),
    [
        ({}, 32, 6200),
        ({"box_A": 403.2}, 32, 4600),
        ({"box_A": 403.2, "probes_per_configuration": "split"}, 32, 3600),
        ({"box_A": "auto", "probes": "auto"}, 1, 1960),
    ],
)
def test_prismatic_costs_what_is_documented(paper, settings, threads, seconds):
    config = prismatic(paper, **settings)
    assert work_s(config, [18.13], threads) == pytest.approx(seconds, rel=0.03)


def test_plane_waves_cost_what_is_documented(waves):
    # Found: 12.7 and 5 × 4.2 core-seconds.
    assert work_s(waves, ANGLES) == pytest.approx(12.7, rel=0.25)
    assert sum(work_s(waves, [a]) for a in ANGLES) == pytest.approx(5 * 4.2, rel=0.25)


# What must follow from a change


@pytest.mark.parametrize("engine", ["prismatic", "planewave"])
def test_a_wider_cone_and_more_layers_cost_more(paper, engine):
    config = prismatic(paper, box_A="auto", probes="auto")
    config = config.changed({"simulation": {"engine": engine}})
    seconds = [work_s(config, [angle]) for angle in ANGLES]
    assert seconds == sorted(set(seconds))
    assert work_s(config.changed({"simulation": {"layers": 10}}), [6.35]) < seconds[0]
    # With as many probes as given, Prismatic costs the same at all angles.
    assert len({work_s(paper, [angle], 32) for angle in ANGLES}) == 1


def test_twice_the_configurations_cost_twice(paper, waves):
    twice = paper.changed({"simulation": {"thermal_motion": 20}})
    assert work_s(twice, [18.13], 4) == pytest.approx(2 * work_s(paper, [18.13], 4))

    def configurations(number):
        change = {"simulation": {"thermal_motion": number}}
        return work_s(waves.changed(change), [32.94])

    # The pattern is put together once.
    assert configurations(8) - configurations(4) == pytest.approx(
        2 * (configurations(4) - configurations(2))
    )


def test_draws_of_a_job_share_its_start_up(paper, waves):
    for config in (paper, waves):
        one, ten = (costs.simulation(config, (6.35,), 2, draws) for draws in (1, 10))
        assert ten.seconds - START_s == pytest.approx(10 * (one.seconds - START_s))
        assert ten.output_MB == pytest.approx(10 * one.output_MB)


def test_threads_divide_only_what_is_parallel(paper, waves):
    one, many = work_s(paper, [6.35], 1), work_s(paper, [6.35], 1000)
    serial_s = 10 * 400**2 / (3.1613 * 5.4755) * 120 * 0.3e-3
    assert serial_s < many < 1.2 * serial_s < one / 2
    # A pattern is put together and written by one thread.
    for motion, share in (("full", 0.75), (2, 0.55)):
        config = waves.changed({"simulation": {"thermal_motion": motion}})
        for angles in ([32.94], ANGLES):
            one, two = work_s(config, angles, 1), work_s(config, angles, 2)
            assert one / 2 < two < share * one


def test_shared_strain_costs_less_than_the_sum(paper, waves):
    assert work_s(waves, ANGLES) < 0.8 * sum(work_s(waves, [a]) for a in ANGLES)
    # Prismatic computes one after another.
    assert work_s(paper, ANGLES, 32) == pytest.approx(sum(work_s(paper, [a], 32) for a in ANGLES))
    together, each = (costs.simulation(waves, a, 1).output_MB for a in (ANGLES, ANGLES[:1]))
    assert together == pytest.approx(5 * each)


def test_a_study_from_a_series_costs_what_is_documented(waves):
    # Found: 25 and 5 × 8.5 core-seconds of a draw for validation or test (docs/cost.md).
    alone = [costs.scattering_of_draw(waves, (angle,), 1) for angle in ANGLES]
    together = costs.scattering_of_draw(
        waves.changed({"draws": {"shared_strain": True}}), ANGLES, 1
    )
    assert together.seconds - START_s == pytest.approx(25, rel=0.3)
    assert sum(one.seconds - START_s for one in alone) == pytest.approx(5 * 8.5, rel=0.3)
    # Forty pools of 10,000 images for training, and half as many for validation and test.
    pools = [costs.pool(waves, angle, 10_000).seconds for angle in ANGLES]
    assert 8 * sum(pools) / 3600 == pytest.approx(4.7, rel=0.05)
    half = [costs.pool_of_draws(waves, angle, 5000).seconds for angle in ANGLES]
    assert 8 * sum(half) / 3600 == pytest.approx(9.5, rel=0.05)


@pytest.mark.parametrize(
    ("motion", "key", "value", "factor"),
    [
        ("full", "precision", "double", (1.3, 2)),
        ("full", "diffuse_waves", 96, (1.2, 1.8)),
        ("full", "supercell", [16, 10], (2, 4)),
        ("coherent", "incident_step_mrad", 4.0, (0.4, 0.8)),
        (2, "precision", "double", (1.5, 2)),
        (2, "slices_per_layer", 3, (1.5, 2.1)),
        (2, "incident_step_mrad", 4.0, (0.2, 0.5)),
        (2, "supercell", [16, 10], (3, 6)),
    ],
)
def test_numerics_of_plane_waves(waves, motion, key, value, factor):
    given = waves.changed({"simulation": {"thermal_motion": motion}})
    changed = given.changed({"simulation": {"planewave": {key: value}}})
    low, high = factor
    assert low < work_s(changed, [32.94]) / work_s(given, [32.94]) < high


@pytest.mark.parametrize(
    ("motion", "key", "value"),
    [
        ("coherent", "supercell", [16, 10]),
        ("coherent", "diffuse_waves", 160),
        ("none", "supercell", [16, 10]),
        (2, "diffuse_waves", 160),
    ],
)
def test_what_does_not_matter_costs_nothing(waves, motion, key, value):
    given = waves.changed({"simulation": {"thermal_motion": motion}})
    changed = given.changed({"simulation": {"planewave": {key: value}}})
    assert work_s(changed, [32.94]) == work_s(given, [32.94])


def test_frozen_phonons_for_everything_cost_most(waves):
    coherent, full, frozen = (
        work_s(waves.changed({"simulation": {"thermal_motion": motion}}), ANGLES)
        for motion in ("coherent", "full", 2)
    )
    assert 2 * coherent < full < frozen / 3


def test_a_graphics_card_is_said_to_be_unknown(waves):
    cost = costs.simulation(waves.changed({"execution": {"device": "gpu"}}), (6.35,), 1)
    assert "not known" in cost.source
    assert cost.seconds == costs.simulation(waves, (6.35,), 1).seconds


# Networks


def test_weights_and_operations_of_the_network_of_the_paper(paper):
    weights, operations = costs.network_size(paper.network, 256, 6)
    assert weights == 35_055_846
    assert operations == pytest.approx(6.75e9, rel=0.001)


@pytest.mark.parametrize("head", [None, 2])
def test_weights_are_those_that_keras_counts(head):
    from pacbed.learning.network import NetworkSettings, build_network

    section = NetworkSection(filters=(4, 8, 8), dense=(16, 8), pooled_head=head)
    built = build_network(32, 4, NetworkSettings(section.filters, section.dense, head))
    own = sum(math.prod(v.shape) for v in built.trainable_variables)
    assert costs.network_size(section, 32, 4)[0] == own


@pytest.mark.parametrize(("dense", "pixels"), [((16, 8), 128), ((6,), 32)])
def test_weights_of_a_network_that_corrects_itself_are_those_that_keras_counts(dense, pixels):
    from pacbed.examples.labels import LabelScaling
    from pacbed.learning.network import NetworkSettings, build_network, part_of_steps

    section = NetworkSection(filters=(4, 8), dense=dense, kind="coarse-to-fine")
    ranges = LabelScaling.from_ranges("strain-rotation", (0.95, 1.05), (-10, 10), (-5, 5))
    settings = NetworkSettings(section.filters, section.dense, kind=section.kind)
    built = build_network(pixels, 4, settings, first=ranges.with_nuisances(5, 0.05))
    own = sum(math.prod(v.shape) for v in built.weights)
    assert costs.network_size(section, pixels, 4)[0] == own
    by_steps = sum(math.prod(v.shape) for v in part_of_steps(built).weights)
    assert costs.network_size(section, pixels, 4, by_steps=True)[0] == by_steps


def test_operations_of_a_network_by_hand():
    # 3 × 3 convolutions 1 → 2 and 2 → 2 on 8 × 8 pixels, and 2 × 4 × 4 features → 3.
    weights, operations = costs.network_size(NetworkSection(filters=(2,), dense=()), 8, 3)
    assert (weights, operations) == (20 + 38 + 99, 2 * (64 * (18 + 36) + 32 * 3))


def training_h(config, threads=8, gpus=0):
    return costs.training(config, "strain-rotation-tilt", threads, gpus).seconds / 3600


@pytest.mark.parametrize("gpus", [0, 1])
def test_training_grows_with_epochs(paper, gpus):
    fast = paper.changed({"training": {"schedule": "fast"}})
    share = paper.training.fast.epochs / 4000
    assert training_h(fast, gpus=gpus) == pytest.approx(
        share * training_h(paper, gpus=gpus), rel=0.05
    )


@pytest.mark.parametrize("gpus", [0, 1])
def test_what_follows_the_steps_is_counted(paper, gpus):
    def hours(epochs, kind="coarse-to-fine", uncertainty=False):
        training = {"schedule": "fast", "data": "online", "fast": {"epochs": epochs}}
        network = {"kind": kind, "uncertainty": uncertainty}
        return training_h(paper.changed({"training": training, "network": network}), gpus=gpus)

    epoch = hours(2) - hours(1)
    # Two looks at the examples of four epochs, forward only, and one for the uncertainty.
    after = hours(1, uncertainty=True) - hours(1)
    assert after > 0.5 * epoch
    looks = hours(1) - epoch - costs._START_TENSORFLOW_s / 3600
    assert 2 * after < looks < (3 if not gpus else 12) * after
    paper_h = 2 * hours(1, "paper") - hours(2, "paper")
    assert 0 < paper_h < 0.01  # start, and reading the validation set


def test_threads_and_cards_shorten_a_training(paper, demo):
    assert training_h(paper, 8) / 2 == pytest.approx(training_h(paper, 16), rel=0.02)
    assert training_h(paper, 64) > 5 * training_h(paper, 8, 1)
    # In small networks Python takes part of the time, however fast the rest is.
    assert training_h(demo, 1000) > training_h(demo, 1) / 5
    assert training_h(demo, 2, 1) > training_h(demo, 2) / 3


def test_online_examples_cost_nothing_on_a_card_and_a_little_on_a_processor(paper):
    online = paper.changed({"training": {"data": "online"}})
    assert training_h(online, gpus=1) == pytest.approx(training_h(paper, gpus=1), rel=0.01)
    assert 1 < training_h(online) / training_h(paper) < 1.1


# All


def test_other_jobs_cost_a_number_for_each_unit(paper, demo):
    assert costs.other("bounds", 200).seconds == pytest.approx(START_s + 190)
    shared = costs.other("dataset", 1000, threads=8, output_MB=5)
    assert shared.seconds == pytest.approx(costs._START_TENSORFLOW_s + 26 / 8)
    assert shared.output_MB == pytest.approx(5, abs=0.1)
    for kind in costs.OTHER:
        assert 10 < len(costs.other(kind, 1).source) < 160
