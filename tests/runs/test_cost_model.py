"""What jobs are expected to cost: the totals of the paper, and what must follow from a change."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from pacbed.runs import cost_model as costs
from pacbed.study.configuration import load
from pacbed.study.networks import networks

CONFIGS = Path(__file__).resolve().parents[2] / "config"
ANGLES = [6.35, 12.65, 18.13, 25.44, 32.94]
START_s = costs._START_s


@pytest.fixture(scope="module")
def paper():
    return load([CONFIGS / "config.yaml"])


@pytest.fixture(scope="module")
def demo():
    return load([CONFIGS / "config.yaml", CONFIGS / "demo.yaml"])


def changed(config, **values):
    """A copy with other values; keys are `section__key`, deeper ones likewise."""
    for key, value in values.items():
        for name in reversed(key.split("__")):
            value = {name: value}
        config = config.changed(value)
    return config


@pytest.fixture(scope="module")
def waves(paper):
    return changed(paper, simulation__engine="planewave")


def prismatic(paper, **values):
    return changed(paper, **{f"simulation__prismatic__{k}": v for k, v in values.items()})


def work_s(config, angles, threads=1, draws=1):
    """Seconds of a simulation job without its start-up."""
    return costs.simulation(config, angles, threads, draws).seconds - START_s


# The study of the paper


def test_simulations_of_the_paper_take_hundreds_of_thousands_of_core_hours(paper):
    threads, draws = 32, paper.draws.count
    seconds = sum(costs.simulation(paper, [a], threads).seconds for a in ANGLES) * draws
    core_hours = seconds * threads / 3600
    assert core_hours == pytest.approx(273_000, rel=0.02)  # docs/cost.md
    assert 100_000 < core_hours < 700_000  # the paper: 608,000


def test_trainings_of_the_paper_take_3000_hours_of_a_graphics_card(paper):
    wanted = networks(paper)
    seconds = [costs.training(paper, n.outputs, threads=8, gpus=1).seconds for n in wanted]
    assert len(seconds) == 50
    assert sum(seconds) / 3600 == pytest.approx(3000, rel=0.05)


def test_storage_of_the_paper(paper):
    patterns_MB = sum(costs.simulation(paper, [a], 32).output_MB for a in ANGLES) * 1000
    assert patterns_MB == pytest.approx(145_000, rel=0.05)
    one_MB = sum(costs.dataset(paper, split, 8).output_MB for split in ("train", "validation"))
    one_MB += costs.dataset(paper, "test", 8).output_MB
    assert 40 * one_MB == pytest.approx(0.9e6, rel=0.1)


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
    assert work_s(waves, ANGLES) == pytest.approx(142, rel=0.15)
    assert sum(work_s(waves, [a]) for a in ANGLES) == pytest.approx(5 * 65, rel=0.15)


def test_simulations_of_the_demo_are_mostly_start_up(demo):
    for angle in (6.35, 12.65):
        seconds = costs.simulation(demo, [angle], 1).seconds
        assert seconds == pytest.approx(1.3, rel=0.25)
        assert START_s > seconds / 2


# What must follow from a change


@pytest.mark.parametrize("engine", ["prismatic", "planewave"])
def test_a_wider_cone_and_more_layers_cost_more(paper, engine):
    config = changed(prismatic(paper, box_A="auto", probes="auto"), simulation__engine=engine)
    seconds = [work_s(config, [angle]) for angle in ANGLES]
    assert seconds == sorted(set(seconds))
    assert work_s(changed(config, simulation__layers=10), [6.35]) < seconds[0]


def test_prismatic_with_probes_as_given_costs_the_same_at_all_angles(paper):
    assert len({work_s(paper, [angle], 32) for angle in ANGLES}) == 1


def test_twice_the_configurations_cost_twice(paper, waves):
    twice = prismatic(paper, phonon_configurations=20)
    assert work_s(twice, [18.13], 4) == pytest.approx(2 * work_s(paper, [18.13], 4))

    def configurations(number):
        changes = {"simulation__planewave__phonon_configurations": number}
        return work_s(changed(waves, **changes), [32.94])

    # The pattern is put together once.
    assert configurations(8) - configurations(4) == pytest.approx(
        2 * (configurations(4) - configurations(2))
    )


def test_draws_of_a_job_share_its_start_up(paper, waves):
    for config in (paper, waves):
        one, ten = (costs.simulation(config, [6.35], 2, draws) for draws in (1, 10))
        assert ten.seconds - START_s == pytest.approx(10 * (one.seconds - START_s))
        assert ten.output_MB == pytest.approx(10 * one.output_MB)


def test_threads_divide_only_what_is_parallel(paper, waves):
    one, many = work_s(paper, [6.35], 1), work_s(paper, [6.35], 1000)
    serial_s = 10 * 400**2 / (3.1613 * 5.4755) * 120 * 0.3e-3
    assert serial_s < many < 1.2 * serial_s < one / 2
    for angles in ([32.94], ANGLES):
        one, two = work_s(waves, angles, 1), work_s(waves, angles, 2)
        assert one / 2 < two < 0.6 * one


def test_shared_strain_costs_less_than_the_sum(paper, waves):
    assert work_s(waves, ANGLES) < 0.6 * sum(work_s(waves, [a]) for a in ANGLES)
    # Prismatic computes one after another.
    assert work_s(paper, ANGLES, 32) == pytest.approx(sum(work_s(paper, [a], 32) for a in ANGLES))
    together, each = (costs.simulation(waves, a, 1).output_MB for a in (ANGLES, ANGLES[:1]))
    assert together == pytest.approx(5 * each)


@pytest.mark.parametrize(
    ("key", "value", "factor"),
    [
        ("phonon_configurations", 0, (0, 0.1)),
        ("precision", "double", (1.5, 2)),
        ("slices_per_layer", 3, (1.5, 2.1)),
        ("incident_step_mrad", 4.0, (0.2, 0.5)),
        ("supercell", [16, 10], (3, 6)),
    ],
)
def test_numerics_of_plane_waves(waves, key, value, factor):
    changes = {f"simulation__planewave__{key}": value}
    low, high = factor
    ratio = work_s(changed(waves, **changes), [32.94]) / work_s(waves, [32.94])
    assert low < ratio < high


def test_a_graphics_card_is_said_to_be_unknown(paper, waves):
    for config in (paper, waves):
        on_card = changed(config, execution__device="gpu")
        cost = costs.simulation(on_card, [6.35], 1)
        assert "not known" in cost.source
        assert cost.seconds == costs.simulation(config, [6.35], 1).seconds


def test_datasets(paper):
    def seconds(config, split="train", threads=1):
        return costs.dataset(config, split, threads).seconds - START_s

    assert seconds(paper) > seconds(paper, "validation") > seconds(paper, "test")
    assert seconds(paper) / 8 < seconds(paper, threads=8) < seconds(paper) / 6
    assert seconds(changed(paper, dataset__pixels=128)) < seconds(paper)
    assert seconds(changed(paper, simulation__pixels=1280)) > seconds(paper) + 10  # to read
    more = changed(paper, draws__count=2000)
    read_s = 500 * (0.0045 + 1.9e-8 * 640**2)
    assert seconds(more) - seconds(paper) == pytest.approx(read_s, rel=0.01)


def test_native_pixels(paper):
    native = changed(paper, simulation__pixels="native")
    assert costs.simulation(native, [6.35], 32).output_MB == pytest.approx(126, rel=0.05)
    assert costs.dataset(native, "test", 8).seconds > costs.dataset(paper, "test", 8).seconds


# Networks


def test_weights_and_operations_of_the_network_of_the_paper(paper):
    weights, operations = costs.network(paper, "strain-rotation-tilt").sizes()
    assert weights == 35_055_846
    assert operations == pytest.approx(6.75e9, rel=0.001)
    without_tilt, _ = costs.network(paper, "strain-rotation").sizes()
    assert weights - without_tilt == 2 * 129


@pytest.mark.parametrize("head", [None, 2])
def test_weights_are_those_that_keras_counts(head):
    from pacbed.learning.network import build_network

    layers = costs.Layers(32, 4, (4, 8, 8), (16, 8), head)
    built = build_network(32, 4, layers.filters, layers.dense, head)
    own = sum(math.prod(v.shape) for v in built.trainable_variables)
    assert layers.sizes()[0] == own


def test_operations_of_a_network_by_hand():
    # 3 × 3 convolutions 1 → 2 and 2 → 2 on 8 × 8 pixels, and 2 × 4 × 4 features → 3.
    assert costs.Layers(8, 3, (2,), ()).sizes() == (20 + 38 + 99, 2 * (64 * (18 + 36) + 32 * 3))


@pytest.mark.parametrize("gpus", [0, 1])
def test_training_grows_with_epochs_and_prediction_is_short(paper, gpus):
    def seconds(config):
        return costs.training(config, "strain-rotation-tilt", 8, gpus).seconds

    steps = [
        {"epochs": 2 * s["epochs"], "rate": s["rate"]}
        for s in paper.training.plain()["learning_rate_steps"]
    ]
    twice = changed(paper, training__learning_rate_steps=steps)
    assert seconds(twice) == pytest.approx(2 * seconds(paper), rel=0.01)
    predicted = costs.prediction(paper, "strain-rotation-tilt", 8, gpus)
    assert predicted.seconds < seconds(paper) / 100


def test_threads_and_cards_shorten_a_training(paper, demo):
    def hours(config, threads, gpus):
        return costs.training(config, "strain-rotation-tilt", threads, gpus).seconds / 3600

    assert hours(paper, 8, 0) / 2 == pytest.approx(hours(paper, 16, 0), rel=0.02)
    assert hours(paper, 64, 0) > 5 * hours(paper, 8, 1)
    # In small networks Python takes part of the time, however fast the rest is.
    assert hours(demo, 1000, 0) > hours(demo, 1, 0) / 5
    assert hours(demo, 2, 1) > hours(demo, 2, 0) / 3


def test_the_fast_schedule_costs_as_many_epochs_less(paper):
    fast = changed(paper, training__schedule="fast")
    share = paper.training.fast.epochs / 4000
    for gpus in (0, 1):
        hours = [costs.training(c, "strain-rotation", 8, gpus).seconds for c in (fast, paper)]
        assert hours[0] == pytest.approx(share * hours[1], rel=0.05)


def test_online_examples_cost_nothing_on_a_card_and_a_little_on_a_processor(paper):
    online = changed(paper, training__data="online")

    def seconds(config, gpus):
        return costs.training(config, "strain-rotation-tilt", 8, gpus).seconds

    assert seconds(online, 1) == pytest.approx(seconds(paper, 1), rel=0.01)
    assert 1 < seconds(online, 0) / seconds(paper, 0) < 1.1


def test_a_training_set_that_no_file_holds_is_not_predicted(paper):
    online = changed(paper, training__data="online")
    written = [costs.prediction(c, "strain-rotation", 8, 1).output_MB for c in (online, paper)]
    assert written[0] == pytest.approx(written[1] * 48 / 176, rel=0.01)


def test_sources_are_one_short_line(paper, demo):
    for config in (paper, demo):
        made = [costs.simulation(config, [6.35], 1), costs.dataset(config, "train", 1)]
        for gpus in (0, 1):
            made.append(costs.training(config, "strain-rotation", 2, gpus))
            made.append(costs.prediction(config, "strain-rotation", 2, gpus))
        for cost in made:
            assert 10 < len(cost.source) < 160
            assert "\n" not in cost.source
            assert cost.seconds > 0
            assert cost.output_MB > 0


def test_no_framework_is_imported():
    code = (
        "import sys, pacbed.runs.cost_model; print(*(sys.modules.keys() & {'keras', 'tensorflow'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.strip()
