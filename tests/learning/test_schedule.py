"""Learning rates: when they change, and how long a training takes."""

import math

import keras
import numpy as np
import pytest

from pacbed.learning.schedule import OneCycleSchedule, SteppedSchedule
from pacbed.study.sections import TrainingSection
from pacbed.study.training_settings import schedule

STEPS = ((2, 1e-4), (3, 1e-3), (1, 1e-5))


def rates(one, batches):
    """The rate of every batch of a training, and that after the last."""
    rate = one.of_batches(batches)
    steps = range(batches * one.epochs + 1)
    return np.array([float(keras.ops.convert_to_numpy(rate(step))) for step in steps])


# Stepped


@pytest.mark.parametrize("batches", [1, 4, 7])
def test_the_rate_changes_with_the_first_batch_of_a_configured_epoch(batches):
    every_batch = rates(SteppedSchedule(STEPS), batches)[:-1]
    expected = np.repeat([1e-4] * 2 + [1e-3] * 3 + [1e-5], batches)
    np.testing.assert_allclose(every_batch, expected, rtol=1e-6)


@pytest.mark.parametrize("first", [0, 2, 5])
def test_the_rate_is_the_same_from_the_first_to_the_last_batch_of_a_step(first):
    # As many batches as an epoch of the paper has.
    rate = SteppedSchedule(STEPS).of_batches(4000)
    length, value = {0: STEPS[0], 2: STEPS[1], 5: STEPS[2]}[first]
    for step in (4000 * first, 4000 * (first + length) - 1):
        assert float(rate(step)) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_single_step_has_one_rate(epochs):
    np.testing.assert_allclose(rates(SteppedSchedule(((epochs, 0.02),)), 5), 0.02, rtol=1e-6)


def test_the_last_rate_stays():
    assert float(SteppedSchedule(STEPS).of_batches(4)(1000)) == pytest.approx(1e-5)


# One cycle


def test_one_cycle_rises_from_nothing_to_the_peak_along_a_line():
    rising = rates(OneCycleSchedule(10, 0.2, 0.3), 8)[: 3 * 8 + 1]
    np.testing.assert_allclose(rising, np.linspace(0, 0.2, 25), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("warm_up", [0.0, 0.3])
def test_one_cycle_falls_from_the_peak_to_nothing_at_the_end(warm_up):
    falling = rates(OneCycleSchedule(10, 0.2, warm_up), 8)[round(warm_up * 80) :]
    assert falling[0] == pytest.approx(0.2)
    assert np.all(np.diff(falling) < 0)
    assert 0 < falling[-2] < 1e-3 * 0.2
    assert falling[-1] == pytest.approx(0, abs=1e-9)


def test_one_cycle_falls_along_half_a_cosine():
    falling = rates(OneCycleSchedule(10, 0.2, 0.2), 8)[16:]
    for share in (0.25, 0.5, 0.75):
        expected = 0.1 * (1 + math.cos(math.pi * share))
        assert falling[round(64 * share)] == pytest.approx(expected, rel=1e-4)


def test_one_cycle_without_warm_up_begins_at_the_peak():
    assert rates(OneCycleSchedule(3, 0.2, 0.0), 4)[0] == pytest.approx(0.2)


def test_the_length_of_the_warm_up_is_a_share_of_the_training_not_of_an_epoch():
    for epochs, batches in ((10, 8), (40, 2), (1, 80)):
        every_batch = rates(OneCycleSchedule(epochs, 0.2, 0.25), batches)
        assert every_batch.argmax() == 20


@pytest.mark.parametrize("warm_up", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("batches", [1, 2, 4])
def test_one_cycle_of_a_single_epoch_stays_between_nothing_and_the_peak(warm_up, batches):
    every_batch = rates(OneCycleSchedule(1, 0.2, warm_up), batches)
    assert every_batch.shape == (batches + 1,)
    assert np.all((every_batch >= 0) & (every_batch <= 0.2 * (1 + 1e-6)))
    assert every_batch[:-1].max() > 0 or warm_up == 1.0


# From a configuration


def test_the_configuration_says_which_schedule_it_is():
    paper = TrainingSection(schedule="paper", learning_rate_steps=[{"epochs": 4, "rate": 1e-4}])
    assert schedule(paper) == SteppedSchedule(((4, 1e-4),))
    cycle = {"epochs": 7, "peak_rate": 0.03, "warm_up": 0.2}
    fast = TrainingSection(schedule="fast", fast=cycle)
    assert schedule(fast) == OneCycleSchedule(7, 0.03, 0.2)


@pytest.mark.parametrize(("name", "epochs"), [("paper", 3), ("fast", 23)])
def test_the_length_is_the_one_with_which_jobs_are_planned(name, epochs):
    steps = [{"epochs": 1, "rate": 0.1}, {"epochs": 2, "rate": 0.2}]
    section = TrainingSection(schedule=name, fast={"epochs": 23}, learning_rate_steps=steps)
    assert schedule(section).epochs == section.total_epochs == epochs
