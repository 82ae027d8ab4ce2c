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


@pytest.mark.parametrize("steps", [STEPS, ((3, 0.02),)])
@pytest.mark.parametrize("batches", [1, 4, 7])
def test_the_rate_changes_with_the_first_batch_of_a_configured_epoch(steps, batches):
    epochs, values = zip(*steps, strict=True)
    expected = np.repeat([*values, values[-1]], [*np.multiply(batches, epochs), 1])
    np.testing.assert_allclose(rates(SteppedSchedule(steps), batches), expected, rtol=1e-6)


@pytest.mark.parametrize(("first", "length", "value"), [(0, 2, 1e-4), (2, 3, 1e-3), (5, 1, 1e-5)])
def test_the_rate_is_exact_for_as_many_batches_as_an_epoch_of_the_paper_has(first, length, value):
    rate = SteppedSchedule(STEPS).of_batches(4000)
    for step in (4000 * first, 4000 * (first + length) - 1):
        assert float(rate(step)) == pytest.approx(value, rel=1e-6)


# One cycle


@pytest.mark.parametrize("warm_up", [0.0, 0.2, 0.3])
def test_one_cycle_rises_along_a_line_and_falls_along_half_a_cosine(warm_up):
    every_batch, top = rates(OneCycleSchedule(10, 0.2, warm_up), 8), round(80 * warm_up)
    rising, falling = every_batch[: top + 1], every_batch[top:]
    if top:
        np.testing.assert_allclose(rising, np.linspace(0, 0.2, top + 1), rtol=1e-5, atol=1e-9)
    share = np.linspace(0, 1, len(falling))
    np.testing.assert_allclose(falling, 0.1 * (1 + np.cos(math.pi * share)), rtol=1e-4, atol=1e-7)
    assert np.all(np.diff(falling) < 0)
    assert falling[-2] > 0


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
