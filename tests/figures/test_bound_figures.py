"""Figures of the bound: what they show is what the tables hold."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest

from pacbed.examples.labels import PARAMETERS, display_unit
from pacbed.exceptions import PacbedError
from pacbed.figures.bounds import (
    bound_against_thickness,
    doses_against_probe_size,
    efficiency_map,
    precision_against_probe_size,
)
from pacbed.figures.style import SYMBOLS, save
from pacbed.precision.bound_table import probe_nm, required_doses
from pacbed.precision.error_table import NETWORK_FIT

ANGLES, LAYERS = (6.35, 18.13), (1, 5, 10)


KEY = ["semiangle_mrad", "layers", "parameter"]


@pytest.fixture
def doses():
    """Doses for a precision of 1e-4, from bounds that fall with semi-angle and thickness."""
    rows = [
        (angle, layers, parameter, "undeformed", electrons, probe_nm(angle, 80))
        for angle, layers, parameter, electrons in product(
            ANGLES, LAYERS, PARAMETERS[:3], (1e6, 7e6, 5e7)
        )
    ]
    table = pd.DataFrame(rows, columns=[*KEY, "state", "electrons", "probe_nm"])
    sigma = 1e-2 * table["semiangle_mrad"] / table["layers"] / np.sqrt(table["electrons"])
    return lambda *infinite: required_doses(
        table.assign(sigma=sigma.where(~table["layers"].isin(infinite), math.inf)), 1e-4
    )


@pytest.fixture
def means():
    """A table as of the workflow, with another number in every field, in any order."""
    table = pd.DataFrame(product(ANGLES, LAYERS, PARAMETERS), columns=KEY)
    random = np.random.default_rng(0)
    table["probe_nm"] = [probe_nm(angle, 80) for angle in table["semiangle_mrad"]]
    table["mae"] = random.uniform(1e-4, 1e-3, len(table))
    table["prior_mae"] = random.uniform(1e-5, 1e-4, len(table))
    return table.sample(frac=1, random_state=1)


def row_of(means, parameter, **chosen):
    """The rows of a parameter, in the order of lines."""
    rows = means[means["parameter"] == parameter]
    for column, value in chosen.items():
        rows = rows[rows[column] == value]
    return rows.sort_values(["semiangle_mrad", "layers"])


@pytest.fixture
def errors(means):
    """Networks with four times the bound, and rows that are not to be shown."""
    of_variant = {"outputs": "strain-rotation-tilt", "intensity": "linear"}
    table = means.assign(method="network", split="test", dose="all", **of_variant)
    table = table.assign(mae=4 * means["mae"], baseline_mae=0.016, efficiency=0.25)
    others = [table.assign(method="discs"), table.assign(split="train"), table.assign(dose="1")]
    return pd.concat([table, *others], ignore_index=True)


def line(panel, label):
    return next(one for one in panel.lines if one.get_label() == label)


def test_every_number_of_the_bound_is_a_row_of_the_table_in_the_unit_of_figures(means, errors):
    figure = bound_against_thickness(means, errors)
    for panel, parameter in zip(figure.axes, PARAMETERS, strict=True):
        factor, unit = display_unit(parameter)
        assert panel.get_ylabel().endswith(f"({unit})")
        dashed = [
            one for one in panel.lines if one.get_linestyle() == "--" and one.get_xdata().size
        ]
        for angle, prior in zip(ANGLES, dashed, strict=True):
            rows = row_of(means, parameter, semiangle_mrad=angle)
            plain = line(panel, f"{angle} mrad")
            for one, column in ((plain, "mae"), (prior, "prior_mae")):
                np.testing.assert_array_equal(one.get_xdata(), LAYERS)
                np.testing.assert_array_equal(one.get_ydata(), factor * rows[column])
            assert prior.get_color() == plain.get_color()


def test_what_does_not_vary_is_left_out(means, errors):
    means.loc[means["parameter"].str.startswith("strain"), "prior_mae"] = np.nan
    panels = bound_against_thickness(means, errors).axes
    assert [p for p in PARAMETERS if any(SYMBOLS[p] in a.get_ylabel() for a in panels)] == [
        *PARAMETERS[3:]
    ]


def test_networks_and_the_level_of_always_the_mean_are_shown(means, errors):
    panel = bound_against_thickness(means, errors).axes[0]
    assert line(panel, "always the mean").get_ydata()[0] == pytest.approx(1.6)
    bound = line(panel, "6.35 mrad").get_ydata()
    points = [one.get_ydata() for one in panel.lines if one.get_linestyle() == "None"]
    assert any(len(p) == len(bound) and np.allclose(p, 4 * bound) for p in points)


@pytest.mark.parametrize(
    ("efficiency", "written"), [(0.031, "3.1"), (0.9, "90"), (1.34, "134"), (np.nan, "none")]
)
def test_the_map_names_every_efficiency_in_per_cent(errors, efficiency, written):
    thick = (errors["layers"] == 5) & (errors["semiangle_mrad"] == 6.35)
    errors.loc[thick, "efficiency"] = efficiency
    panel = efficiency_map(errors).axes[0]
    texts = {tuple(t.get_position()): t.get_text() for t in panel.texts}
    assert texts.get((1, 0)) == written
    assert texts[0, 1] == "25"
    assert [t.get_text() for t in panel.get_yticklabels()] == ["6.35", "18.13"]


def test_every_panel_of_two_methods_has_a_letter(errors):
    fits = errors[errors["method"] == "network"].assign(method=NETWORK_FIT)
    figure = efficiency_map(pd.concat([errors, fits]))
    letters = [panel.get_title("left") for panel in figure.axes[:12]]
    assert letters == [f"({letter})" for letter in "abcdefghijkl"]


def test_a_map_without_any_efficiency_says_why(errors):
    with pytest.raises(PacbedError, match="without bounds"):
        efficiency_map(errors.assign(efficiency=np.nan))


def test_several_variants_at_once_are_refused(means, errors):
    both = pd.concat([errors, errors.assign(intensity="sqrt")])
    for draw in (efficiency_map, lambda e: bound_against_thickness(means, e)):
        with pytest.raises(PacbedError, match="several variants"):
            draw(both)


@pytest.mark.parametrize("parameter", ["strain_xx", "tilt_y_mrad"])
def test_precision_is_drawn_against_the_size_of_the_probe(means, errors, parameter):
    panel = precision_against_probe_size(means, errors, parameter).axes[0]
    factor, _ = display_unit(parameter)
    for layers, label in zip(LAYERS, ("1 layer", "5 layers", "10 layers"), strict=True):
        rows = row_of(means, parameter, layers=layers)
        bound = line(panel, label)
        np.testing.assert_array_equal(bound.get_xdata(), rows["probe_nm"])
        np.testing.assert_array_equal(bound.get_ydata(), factor * rows["mae"])
        [points] = [
            one
            for one in panel.lines
            if one.get_linestyle() == "None" and one.get_color() == bound.get_color()
        ]
        np.testing.assert_array_equal(points.get_xdata(), rows["probe_nm"])
        np.testing.assert_allclose(points.get_ydata(), 4 * factor * rows["mae"])
    above = panel.child_axes[0]
    assert {t.get_text() for t in above.get_xticklabels()} == {"6.35", "18.13"}


def test_doses_are_drawn_with_what_is_asked_for(doses):
    panel = doses_against_probe_size(doses(), 1e-4, 0.2, (1e6, 5e7)).axes[0]
    assert line(panel, "largest probe").get_xdata()[0] == 0.2
    chosen = doses().query("layers == 5").sort_values("probe_nm")
    np.testing.assert_allclose(line(panel, "5 layers").get_ydata(), chosen["electrons"])


def test_what_cannot_be_read_is_left_out_of_a_figure(doses, means, errors, tmp_path):
    means.loc[means["layers"] == 1, "mae"] = math.inf
    figures = {
        "thickness": bound_against_thickness(means, errors),
        "doses": doses_against_probe_size(doses(1), 1e-4, 0.2, (1e6, 5e7)),
        "probe": precision_against_probe_size(means, errors),
    }
    for name, figure in figures.items():
        save(figure, tmp_path / f"{name}.png")
    assert len(list(tmp_path.iterdir())) == 3
