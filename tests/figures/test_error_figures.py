"""Figures of errors: the points are those of the table, whatever else is in it or missing."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
from lettering import assert_filled, assert_legible

from pacbed.examples.labels import OUTPUTS, PARAMETERS, display_unit
from pacbed.exceptions import RequestError
from pacbed.figures.errors import (
    classical_against_network,
    errors_against_thickness,
    errors_against_truth,
    errors_of_variants,
    scatter_of_variants,
    variant_label,
)
from pacbed.figures.style import PAGE, PAGE_HEIGHT, SYMBOLS, save
from pacbed.learning.specification import NetworkSpec

ALL = "strain-rotation-tilt"
VARIANTS = [(ALL, "linear"), ("strain-rotation", "linear"), ("strain-rotation", "sqrt")]
PAPER_ANGLES = (6.35, 12.65, 18.13, 25.44, 32.94)
PAPER_LAYERS = (1, 2, 3, 4, 5, 10, 15, 20)
BOUND = "Cramér–Rao bound, ranges known"


def error_table(
    angles=(6.35, 12.65), layers=(1, 5, 10), variants=VARIANTS[:1], methods=("network",), bins=0
):
    """A table of errors as of the workflow, with other numbers in every row."""
    random = np.random.default_rng(0)
    edges = np.geomspace(1e6, 5e7, bins + 1)
    doses = [("all", 1e6, 5e7)]
    doses += [(str(n + 1), edges[n], edges[n + 1]) for n in range(bins)]
    rows = []
    for method, variant, parameter in product(methods, variants, PARAMETERS):
        if parameter not in (OUTPUTS[variant[0]] if method == "network" else PARAMETERS[:4]):
            continue
        size = 0.01 if parameter.startswith("strain") else 1.0
        for angle, n, (dose, low, high) in product(angles, layers, doses):
            mae = size * random.uniform(0.05, 1.5)
            values = (method, angle, n, *variant, "test", dose, low, high, parameter, mae)
            prior = math.nan if method == "discs-calibrated" else 0.01 * size / n
            more = (0.8 * mae, 1.3 * mae, 2 * size, 0.02 * size / n, prior)
            rows.append((*values, *more))
    columns = "method semiangle_mrad layers outputs intensity split dose electrons_low"
    columns += " electrons_high parameter mae mae_low mae_high baseline_mae bound_mae"
    return pd.DataFrame(rows, columns=[*columns.split(), "prior_bound_mae"])


def curve(axes, label):
    [line] = [one for one in axes.lines if one.get_label() == label]
    return np.array(line.get_xdata(), float), np.array(line.get_ydata(), float)


def intervals(axes):
    """Lower and upper ends of all intervals in a panel."""
    return np.array([s[:, 1] for c in axes.collections for s in c.get_segments()])


def dashed(axes, style="--"):
    return [one for one in axes.lines if one.get_linestyle() == style and len(one.get_xdata())]


def legend(figure):
    [one] = figure.legends
    return [text.get_text() for text in one.get_texts()]


# Fig. 5


def test_figure_5_has_exactly_the_points_of_the_table_in_whatever_order():
    table = error_table()
    figure = errors_against_thickness(table.sample(frac=1, random_state=1))
    assert len(figure.axes) == 6
    for axes, parameter in zip(figure.axes, PARAMETERS, strict=True):
        factor, unit = display_unit(parameter)
        assert axes.get_ylabel().endswith(f"({unit})")
        assert axes.get_yscale() == "log"
        rows = table[table["parameter"] == parameter]
        for angle in (6.35, 12.65):
            x, y = curve(axes, f"{angle} mrad")
            np.testing.assert_array_equal(x, rows[rows["semiangle_mrad"] == angle]["layers"])
            np.testing.assert_array_equal(y, factor * rows[rows["semiangle_mrad"] == angle]["mae"])
        np.testing.assert_allclose(intervals(axes), factor * rows[["mae_low", "mae_high"]])
        bounds = np.concatenate([line.get_ydata() for line in dashed(axes)])
        np.testing.assert_allclose(bounds, factor * rows["prior_bound_mae"])
        baseline = curve(axes, "always the mean")[1]
        np.testing.assert_allclose(baseline, factor * rows["baseline_mae"].iloc[0])
    expected = ["6.35 mrad", "12.65 mrad", "95 % interval", BOUND, "always the mean"]
    assert legend(figure) == expected


def test_without_ranges_the_other_bound_is_drawn_and_named_so():
    table = error_table().assign(prior_bound_mae=math.nan)
    figure = errors_against_thickness(table)
    axes = figure.axes[3]
    bounds = np.concatenate([line.get_ydata() for line in dashed(axes)])
    rows = table[table["parameter"] == "rotation_deg"]
    np.testing.assert_allclose(bounds, rows["bound_mae"])
    colours = [one.get_color() for one in axes.lines if one.get_label().endswith(" mrad")]
    assert [line.get_color() for line in dashed(axes)] == colours
    assert "Cramér–Rao bound" in legend(figure)
    assert BOUND not in legend(figure)


def test_without_intervals_and_bounds_there_are_only_the_points_and_the_baseline():
    unknown = ("mae_low", "mae_high", "bound_mae", "prior_bound_mae")
    figure = errors_against_thickness(error_table().assign(**dict.fromkeys(unknown, math.nan)))
    assert legend(figure) == ["6.35 mrad", "12.65 mrad", "always the mean"]
    for axes in figure.axes:
        assert dashed(axes) == []
        assert len(axes.lines) == 3
        assert len(axes.collections) == 0


def test_a_bound_at_a_single_thickness_is_seen():
    axes = errors_against_thickness(error_table(angles=(6.35,), layers=(5,))).axes[0]
    [bound] = dashed(axes)
    dashes = bound.get_marker().vertices
    assert np.ptp(dashes, axis=0).tolist() == [2, 0]
    assert len(dashes) == 6  # the ends of three
    assert [t for t in axes.get_xticks() if axes.get_xlim()[0] < t < axes.get_xlim()[1]] == [5]


@pytest.mark.parametrize("bad", [math.nan, 0.0])
def test_an_error_that_is_not_a_number_or_zero_does_not_stop_figure_5(tmp_path, bad):
    table = error_table()
    table = table[table["parameter"] == "strain_xx"]
    table.loc[table["layers"] == 5, "mae"] = bad
    save(errors_against_thickness(table), tmp_path / "fig5.png")
    assert (tmp_path / "fig5.png").stat().st_size > 5000


# Fig. 7


def test_figure_7_has_exactly_the_points_of_every_variant_in_the_order_of_the_paper():
    table = error_table(angles=(6.35,), variants=VARIANTS)
    figure = errors_of_variants(table)
    shown = [one for one in figure.axes[0].lines if "tilt" in one.get_label()]
    assert [one.get_label() for one in shown] == [variant_label(*v) for v in VARIANTS]
    assert [one.get_color() for one in shown] == ["#000000", "#D55E00", "#009E73"]
    assert len(figure.axes) == 4
    for axes, parameter in zip(figure.axes, PARAMETERS, strict=False):
        factor, _ = display_unit(parameter)
        for outputs, intensity in VARIANTS:
            rows = table[
                (table["parameter"] == parameter)
                & (table["outputs"] == outputs)
                & (table["intensity"] == intensity)
            ]
            x, y = curve(axes, variant_label(outputs, intensity))
            np.testing.assert_array_equal(x, rows["layers"])
            np.testing.assert_array_equal(y, factor * rows["mae"])
        [bound] = dashed(axes)
        np.testing.assert_allclose(bound.get_ydata(), factor * rows["prior_bound_mae"])
        assert len(intervals(axes)) == 9


def test_variants_may_have_different_thicknesses():
    some = [
        error_table(angles=(6.35,), layers=layers, variants=[variant])
        for layers, variant in (((1, 2, 10), VARIANTS[0]), ((2,), VARIANTS[1]))
    ]
    figure = errors_of_variants(pd.concat(some))
    assert_legible(figure)
    x, _ = curve(figure.axes[0], "without tilt, linear intensity")
    np.testing.assert_array_equal(x, [2])
    np.testing.assert_array_equal(figure.axes[0].get_xticks(), [1, 2, 10])
    [bound] = dashed(figure.axes[0])
    np.testing.assert_array_equal(bound.get_xdata(), [1, 2, 10])


@pytest.mark.parametrize(("factor", "shown"), [(1, True), (0.01, False)])
def test_figure_7_has_the_baseline_where_it_is_near(factor, shown):
    table = error_table(angles=(6.35,), variants=VARIANTS)
    table[["mae", "mae_low", "mae_high"]] *= factor
    assert ("always the mean" in legend(errors_of_variants(table))) is shown


def test_variants_at_several_semiangles_are_refused():
    with pytest.raises(RequestError, match="at one semi-angle, not 2"):
        errors_of_variants(error_table())


# The classical method


METHODS = ("network", "discs", "discs-calibrated")
LABELS = ("network", "disc positions", "disc positions, calibrated")


def grid_of(figure, layers):
    return np.array(figure.axes).reshape(-1, 1 + layers)


def test_methods_are_compared_at_exactly_the_points_of_the_table():
    table = error_table(variants=VARIANTS[:1], methods=METHODS, bins=10)
    grid = grid_of(classical_against_network(table), 3)
    rows = [(a, p) for a in (6.35, 12.65) for p in ("strain_xx", "strain_xy", "rotation_deg")]
    for panels, (angle, parameter) in zip(grid, rows, strict=True):
        factor, _ = display_unit(parameter)
        for method, label in zip(METHODS, LABELS, strict=True):
            chosen = table[
                (table["semiangle_mrad"] == angle)
                & (table["parameter"] == parameter)
                & (table["method"] == method)
            ]
            whole = chosen[chosen["dose"] == "all"]
            x, y = curve(panels[0], label)
            np.testing.assert_array_equal(x, whole["layers"])
            np.testing.assert_array_equal(y, factor * whole["mae"])
            for panel, n in zip(panels[1:], (1, 5, 10), strict=True):
                parts = chosen[(chosen["dose"] != "all") & (chosen["layers"] == n)]
                x, y = curve(panel, label)
                assert len(x) == 10
                np.testing.assert_allclose(
                    x, np.sqrt(parts["electrons_low"] * parts["electrons_high"])
                )
                np.testing.assert_array_equal(y, factor * parts["mae"])
                assert panel.get_xscale() == "log"


def test_every_panel_of_the_comparison_has_both_bounds_and_the_baseline():
    table = error_table(variants=VARIANTS[:1], methods=METHODS, bins=10)
    figure = classical_against_network(table)
    for panels in grid_of(figure, 3):
        assert len({panel.get_ylim() for panel in panels}) == 1
        for panel in panels:
            assert len(dashed(panel)) == len(dashed(panel, "-.")) == 1
            assert len(curve(panel, "always the mean")[0]) == 2
    rows = table.query(
        "dose == 'all' and semiangle_mrad == 6.35 and parameter == 'strain_xx'"
    ).set_index("method")
    for style, expected in (
        ("--", rows.loc["network", "prior_bound_mae"]),
        ("-.", rows.loc["discs-calibrated", "bound_mae"]),
    ):
        [bound] = dashed(figure.axes[0], style)
        np.testing.assert_allclose(bound.get_ydata(), 100 * expected)
    others = ["95 % interval", BOUND, "Cramér–Rao bound, scale known", "always the mean"]
    assert legend(figure) == [*LABELS, *others]


def test_a_thickness_that_the_classical_method_cannot_read_is_left_out():
    table = error_table(variants=VARIANTS[:1], methods=METHODS[:2], bins=10)
    table = table[(table["method"] == "network") | (table["layers"] > 1)]
    grid = grid_of(classical_against_network(table), 3)
    np.testing.assert_array_equal(curve(grid[0, 0], "disc positions")[0], [5, 10])
    assert [line.get_label() for line in grid[0, 1].lines].count("disc positions") == 0
    assert len(curve(grid[0, 1], "network")[0]) == 10


def test_against_dose_at_most_five_thicknesses_are_shown():
    table = error_table((6.35,), PAPER_LAYERS, VARIANTS[:1], METHODS, 2)
    grid = grid_of(classical_against_network(table), 5)
    titles = [panel.get_title() for panel in grid[0]]
    assert titles == ["all doses", "1 layer", "3 layers", "5 layers", "10 layers", "20 layers"]
    for label in LABELS:
        np.testing.assert_array_equal(curve(grid[0, 0], label)[0], PAPER_LAYERS)


@pytest.mark.parametrize(("measured", "shown"), [({12.65}, 12.65), (set(), 6.35)])
def test_semiangles_with_a_classical_method_are_shown_or_else_the_smallest(measured, shown):
    table = error_table(PAPER_ANGLES[::-1], (1, 5), VARIANTS[:1], METHODS, 2)
    table = table[(table["method"] == "network") | table["semiangle_mrad"].isin(measured)]
    grid = grid_of(classical_against_network(table), 2)
    assert [row[0].get_ylabel().split("\n")[0] for row in grid] == [f"{shown} mrad"] * 3


def test_without_network_the_bound_is_that_of_an_unknown_scale():
    table = error_table((6.35,), (1, 5), VARIANTS[:1], METHODS[:0:-1], 2)
    [bound] = dashed(classical_against_network(table).axes[0])
    chosen = table[(table["method"] == "discs") & (table["dose"] == "all")]
    strain = chosen[chosen["parameter"] == "strain_xx"]
    np.testing.assert_array_equal(bound.get_ydata(), 100 * strain["prior_bound_mae"])


@pytest.mark.parametrize("kept", [PARAMETERS[3:], PARAMETERS[4:]])
def test_figures_show_what_varies(kept):
    table = error_table((6.35,), (1, 5), VARIANTS[:1], METHODS, 2)
    table = table[table["parameter"].isin(kept)]
    whole = table[(table["method"] == "network") & (table["dose"] == "all")]
    shown = [p for p in PARAMETERS[:4] if p in kept] or list(kept)
    for figure in (errors_of_variants(whole), classical_against_network(table)):
        words = " ".join(axes.get_ylabel() for axes in figure.axes)
        assert [p for p in PARAMETERS if SYMBOLS[p] in words] == shown
        assert_legible(figure)


# Fig. 6 and 8


def predictions(parameters=PARAMETERS, examples=30):
    random = np.random.default_rng(0)
    columns = {}
    for name in parameters:
        size = 0.05 if name.startswith("strain") else 5
        columns[f"true_{name}"] = random.uniform(-size, size, examples)
        columns[f"predicted_{name}"] = columns[f"true_{name}"] + random.normal(
            0, 0.1 * size, examples
        )
    return pd.DataFrame(columns)


def assert_points(axes, table, name):
    [points] = axes.collections
    true, predicted = (table[f"{what}_{name}"] for what in ("true", "predicted"))
    expected = display_unit(name)[0] * np.stack([true, predicted - true], axis=1)
    np.testing.assert_allclose(points.get_offsets(), expected)
    for of_axis, (low, high) in zip(expected.T, (axes.get_xlim(), axes.get_ylim()), strict=True):
        assert low == -high
        assert ((of_axis > low) & (of_axis < high)).all()


def network(angle, layers, variant=VARIANTS[0]):
    return NetworkSpec(angle, layers, *variant)


def test_figure_6_shows_errors_of_what_is_asked_for():
    table = predictions()
    for names in (("strain_xx", "rotation_deg", "tilt_x_mrad"), ("tilt_y_mrad",)):
        figure = errors_against_truth({network(6.35, 10): table}, names)
        for axes, name in zip(figure.axes, names, strict=True):
            assert_points(axes, table, name)


def test_figure_6_has_a_place_for_what_was_not_trained():
    some = {network(6.35, 1): predictions(), network(18.13, 5): predictions(PARAMETERS[:4])}
    figure = errors_against_truth(some)
    shown = [len(axes.collections[0].get_offsets()) for axes in figure.axes]
    # Rows 1 and 5 layers; columns strain, rotation and tilt at 6.35 and 18.13 mrad.
    assert shown == [30, 0, 30, 0, 30, 0, 0, 30, 0, 30, 0, 0]
    assert [axes.get_title().splitlines()[1:] for axes in figure.axes[:6]] == [
        *[["6.35 mrad"], ["18.13 mrad"]] * 3
    ]
    assert_legible(figure)
    without_tilt = {n: table[table.columns[:8]] for n, table in some.items()}
    assert len(errors_against_truth(without_tilt).axes) == 8


@pytest.mark.parametrize("draw", [errors_against_truth, scatter_of_variants])
def test_predictions_that_are_not_numbers_do_not_stop_a_figure(tmp_path, draw):
    table = predictions()
    table["predicted_strain_xx"] = math.nan
    save(draw({network(6.35, 10): table}), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5000


def test_figure_8_shows_errors_and_the_mean_of_all_examples():
    tables = [predictions(examples=30), predictions(PARAMETERS[:4], 2100)]
    names = [network(6.35, 1, variant) for variant in VARIANTS[:2]]
    figure = scatter_of_variants(dict(zip(names, tables, strict=True)))
    assert figure.get_suptitle() == "6.35 mrad, 1 layer"
    grid = np.array(figure.axes).reshape(2, 4)
    for row, table in zip(grid, tables, strict=True):
        for axes, name in zip(row, PARAMETERS, strict=False):
            assert_points(axes, table.head(2000), name)
            factor, unit = display_unit(name)
            mae = factor * np.abs(table[f"predicted_{name}"] - table[f"true_{name}"]).mean()
            written = axes.texts[0].get_text()
            assert float(written.split()[1].rstrip("°")) == pytest.approx(mae, rel=0.06)
            assert written.endswith(unit)
    assert [row[0].get_ylabel().replace("\n", " ") for row in grid] == [
        "with tilt, linear intensity",
        "without tilt, linear intensity",
    ]


# All


FIGURES = {
    "5 paper": lambda: errors_against_thickness(error_table(PAPER_ANGLES, PAPER_LAYERS)),
    "5 without tilt": lambda: errors_against_thickness(error_table(variants=VARIANTS[1:2])),
    "5 one": lambda: errors_against_thickness(error_table((6.35,), (1,)).head(2)),
    "6 paper": lambda: errors_against_truth(
        {network(a, n): predictions() for a in (6.35, 18.13, 32.94) for n in (1, 3, 5, 10, 20)}
    ),
    "6 one": lambda: errors_against_truth({network(6.35, 1): predictions()}),
    "7 paper": lambda: errors_of_variants(error_table((6.35,), (1, 2, 3, 4, 5), VARIANTS)),
    "7 one": lambda: errors_of_variants(error_table((6.35,), (1,), VARIANTS[:1])),
    "8 paper": lambda: scatter_of_variants(
        {network(6.35, 1, variant): predictions() for variant in VARIANTS[:2]}
    ),
    "8 one": lambda: scatter_of_variants(
        {network(6.35, 1, VARIANTS[2]): predictions(PARAMETERS[:4])}
    ),
    "classical paper": lambda: classical_against_network(
        error_table((6.35,), PAPER_LAYERS, VARIANTS[:1], METHODS, 2)
    ),
    "classical angles": lambda: classical_against_network(
        error_table(PAPER_ANGLES, (1,), VARIANTS[:1], METHODS, 2)
    ),
    "classical one": lambda: classical_against_network(
        error_table((6.35,), (5,), VARIANTS[:1], METHODS[:2], 10)
    ),
}


@pytest.mark.parametrize("name", list(FIGURES))
def test_figures_are_legible_and_fit_a_page(name):
    figure = FIGURES[name]()
    assert_legible(figure)
    assert_filled(figure)
    width, height = figure.get_size_inches()
    assert width <= PAGE + 1e-6
    assert height <= PAGE_HEIGHT + 1e-6
