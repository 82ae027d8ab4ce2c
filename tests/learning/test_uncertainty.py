"""Networks that state the standard deviation of each answer."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_coarse_to_fine import SMALL, TWICE
from test_online import ONLINE, PIXELS, online, stored
from test_training import SCALING, deterministic

from pacbed.exceptions import PacbedError
from pacbed.learning import training
from pacbed.learning.prediction import predict, predict_with, read_network
from pacbed.learning.schedule import OneCycleSchedule
from pacbed.learning.training import train
from pacbed.precision.metrics import calibration

STATING = replace(TWICE, uncertainty=True)


@pytest.fixture(scope="module", autouse=True)
def _deterministic():
    deterministic()


def files(folder):
    return folder / "model.keras", folder / "settings.json"


@pytest.mark.parametrize("kind", ["paper", "coarse-to-fine"])
def test_answers_are_those_of_a_network_that_states_nothing(tmp_path, kind):
    tables = []
    for uncertainty in (False, True):
        network = replace(TWICE, kind=kind, uncertainty=uncertainty)
        folder = tmp_path / str(uncertainty)
        history = train(*ONLINE, SCALING, replace(SMALL, network=network), folder)
        tables.append((predict(*files(folder), ONLINE[1]), history["validation_loss"]))
    (silent, losses), (stating, same) = tables
    np.testing.assert_array_equal(losses, same)
    # But for rounding: operations are put together otherwise.
    pd.testing.assert_frame_equal(silent, stating[silent.columns], rtol=1e-5, atol=1e-5)
    added = set(stating) - set(silent)
    assert added == {f"sigma_{name}" for name in SCALING.parameters}
    assert (stating[sorted(added)] > 0).all(axis=None)


def test_errors_of_a_trained_network_are_about_as_large_as_it_states(tmp_path):
    schedule = OneCycleSchedule(8, 0.01, 0.25)
    one = replace(SMALL, network=STATING, schedule=schedule, optimizer="adam")
    train(online(300, 200, 1), stored(40, 80, 2), SCALING, one, tmp_path)
    said = json.loads((tmp_path / "settings.json").read_text())["training"]["network"]
    assert said["uncertainty"] is True
    table = predict(*files(tmp_path), stored(60, 120, 9))
    found = calibration(table).set_index("parameter")
    assert list(found.index) == list(SCALING.parameters)
    assert found["spread"].between(0.6, 1.6).all()
    assert (found["flagged"] == 0).all()
    stated = table.filter(like="sigma_")
    assert (stated.std() > 0.02 * stated.mean()).all()  # each pattern has its own
    ranges = table[[f"true_{name}" for name in SCALING.parameters]].std().to_numpy()
    assert (stated.mean().to_numpy() < 1.2 * ranges).all()


def test_a_measured_pattern_has_error_bars_too(tmp_path):
    train(*ONLINE, SCALING, replace(SMALL, network=STATING), tmp_path)
    network = read_network(*files(tmp_path))
    image = np.random.default_rng(1).gamma(1.0, size=(PIXELS, PIXELS))
    width_mrad = network.settings["data"]["augmentation"]["field_of_view_mrad"]
    table = predict_with(network, image, (width_mrad / PIXELS,) * 2, lambda line: None)
    sigma = table.filter(like="sigma_").to_numpy()[0]
    assert sigma.shape == (4,)
    assert (sigma > 0).all()


def test_a_network_without_finite_numbers_is_not_kept(tmp_path, monkeypatch):
    def spoil(network, *_):
        bias = network.get_layer("log_sigma").bias
        bias.assign(bias + np.nan)

    monkeypatch.setattr(training, "fit_uncertainty", spoil)
    network = replace(STATING, kind="paper")
    with pytest.raises(PacbedError, match="numbers that are not finite: lower the rate"):
        train(*ONLINE, SCALING, replace(SMALL, network=network), tmp_path)
    assert not (tmp_path / "model.keras").exists()
