"""Figures of the bound: what they show is what the tables hold."""

import math

import numpy as np
import pandas as pd
import pytest

from pacbed.bounds import mean_bound, probe_nm, required_doses
from pacbed.errors import PacbedError
from pacbed.figures.bounds import (
    bound_against_thickness,
    doses_against_probe_size,
    efficiency_map,
    precision_against_probe_size,
)
from pacbed.figures.style import save
from pacbed.labels import PARAMETERS

ANGLES, LAYERS = (6.35, 18.13), (1, 5, 10)


@pytest.fixture
def bounds():
    rows = [
        {
            "semiangle_mrad": angle,
            "layers": layers,
            "state": "undeformed",
            "parameter": parameter,
            "unit": "1",
            "electrons": electrons,
            "sigma": (sigma := 1e-2 * angle / layers / math.sqrt(electrons)),
            "sigma_prior": sigma / 2,
            "sigma_lognormal": sigma,
            "sigma_known_scale": sigma,
            "probe_nm": probe_nm(angle, 80),
        }
        for angle in ANGLES
        for layers in LAYERS
        for parameter in PARAMETERS
        for electrons in (1e6, 7e6, 5e7)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def errors(bounds):
    rows = [
        {
            "method": "network",
            "semiangle_mrad": angle,
            "layers": layers,
            "outputs": "strain-rotation-tilt",
            "intensity": "linear",
            "split": "test",
            "dose": "all",
            "parameter": parameter,
            "mae": 4 * mean_bound(bounds, angle, layers, parameter),
            "baseline_mae": 0.016,
            "efficiency": 0.25,
        }
        for angle in ANGLES
        for layers in LAYERS
        for parameter in PARAMETERS
    ]
    table = pd.DataFrame(rows)
    others = [table.assign(method="discs"), table.assign(split="train"), table.assign(dose="1")]
    return pd.concat([table, *others], ignore_index=True)


def line(panel, label):
    return next(one for one in panel.lines if one.get_label() == label)


def test_a_panel_shows_the_bound_of_its_parameter_in_the_unit_of_figures(bounds):
    panel = bound_against_thickness(bounds).axes[0]
    shown = line(panel, "18.13 mrad").get_ydata()
    expected = [100 * mean_bound(bounds, 18.13, n, "strain_xx") for n in LAYERS]
    np.testing.assert_allclose(shown, expected)
    assert "%" in panel.get_ylabel()


def test_networks_and_the_level_of_always_the_mean_are_shown_if_there_are_any(bounds, errors):
    panel = bound_against_thickness(bounds, errors).axes[0]
    assert line(panel, "always the mean").get_ydata()[0] == pytest.approx(1.6)
    bound = line(panel, "6.35 mrad").get_ydata()
    points = [one.get_ydata() for one in panel.lines if one.get_linestyle() == "None"]
    assert any(len(p) == len(bound) and np.allclose(p, 4 * bound) for p in points)
    alone = bound_against_thickness(bounds).axes[0]
    assert all(one.get_label() != "always the mean" for one in alone.lines)


def test_the_map_names_every_efficiency_in_per_cent(errors):
    errors.loc[(errors["layers"] == 5) & (errors["semiangle_mrad"] == 6.35), "efficiency"] = 0.031
    panel = efficiency_map(errors).axes[0]
    texts = {tuple(t.get_position()): t.get_text() for t in panel.texts}
    assert texts[1, 0] == "3.1"
    assert texts[0, 1] == "25"
    assert [t.get_text() for t in panel.get_yticklabels()] == ["6.35", "18.13"]


def test_a_network_without_efficiency_leaves_its_field_empty(errors):
    errors.loc[(errors["layers"] == 5) & (errors["semiangle_mrad"] == 6.35), "efficiency"] = np.nan
    panel = efficiency_map(errors).axes[0]
    assert (1, 0) not in {tuple(t.get_position()) for t in panel.texts}


def test_a_map_without_any_efficiency_says_why(errors):
    with pytest.raises(PacbedError, match="without bounds"):
        efficiency_map(errors.assign(efficiency=np.nan))


def test_several_variants_at_once_are_refused(bounds, errors):
    both = pd.concat([errors, errors.assign(intensity="sqrt")])
    for draw in (efficiency_map, lambda e: bound_against_thickness(bounds, e)):
        with pytest.raises(PacbedError, match="several variants"):
            draw(both)


def test_precision_is_drawn_against_the_size_of_the_probe(bounds, errors):
    panel = precision_against_probe_size(bounds, errors).axes[0]
    shown = line(panel, "5 layers")
    np.testing.assert_allclose(shown.get_xdata(), [probe_nm(a, 80) for a in ANGLES])
    expected = [100 * mean_bound(bounds, a, 5, "strain_xx") for a in ANGLES]
    np.testing.assert_allclose(shown.get_ydata(), expected)
    above = panel.child_axes[0]
    assert {t.get_text() for t in above.get_xticklabels()} == {"6.35", "18.13"}


def test_doses_are_drawn_with_what_is_asked_for(bounds):
    doses = required_doses(bounds, 1e-4)
    panel = doses_against_probe_size(doses, 1e-4, 0.2, (1e6, 5e7)).axes[0]
    assert line(panel, "largest probe").get_xdata()[0] == 0.2
    chosen = doses[doses["layers"] == 5].sort_values("probe_nm")
    np.testing.assert_allclose(line(panel, "5 layers").get_ydata(), chosen["electrons"])


def test_what_cannot_be_read_is_left_out_of_a_figure(bounds, errors, tmp_path):
    bounds.loc[bounds["layers"] == 1, "sigma"] = math.inf
    doses = required_doses(bounds, 1e-4)
    figures = {
        "thickness": bound_against_thickness(bounds, errors),
        "doses": doses_against_probe_size(doses, 1e-4, 0.2, (1e6, 5e7)),
        "probe": precision_against_probe_size(bounds, errors),
    }
    for name, figure in figures.items():
        save(figure, tmp_path / f"{name}.png")
    assert len(list(tmp_path.iterdir())) == 3
