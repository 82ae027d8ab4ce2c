"""Figures: to scale, of equal bytes when drawn again, and not upset by what is missing."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from pacbed.errors import RequestError
from pacbed.figures.errors import errors_against_thickness, true_against_predicted
from pacbed.figures.patterns import (
    crop,
    draw_split_pattern,
    show_patterns,
    undeformed_gallery,
)
from pacbed.figures.style import display_unit, save
from pacbed.labels import PARAMETERS
from pacbed.patterns import PatternStore

PIXEL_MRAD = 2.0


def store(pixels=48, layers=(1, 2, 5), spot=None, pixel_mrad=PIXEL_MRAD):
    """Patterns of a broad hump, or of a single bright pixel at angles `spot`."""
    axis = (np.arange(pixels) - pixels // 2) * pixel_mrad
    if spot is None:
        one = np.exp(-(axis[None, :] ** 2 + axis[:, None] ** 2) / 800)
    else:
        one = np.outer(axis == spot[1], axis == spot[0]).astype(float)
    patterns = np.stack([one] * len(layers)).astype(np.float32)
    return PatternStore(patterns, np.array(layers), axis, axis, {})


def drawn(one, field, bar=20):
    axes = Figure().subplots()
    draw_split_pattern(axes, one, 0, field, bar)
    return axes


def lines(axes):
    return {
        round(float(np.ptp(line.get_xdata())), 6): line
        for line in axes.lines
        if np.ptp(line.get_ydata()) == 0 and np.ptp(line.get_xdata()) > 0
    }


# Patterns


@pytest.mark.parametrize("pixels", [48, 49])
@pytest.mark.parametrize("field", [40.0, 60.0])
def test_a_crop_is_square_and_keeps_zero_angle_in_its_middle(pixels, field):
    one = store(pixels, spot=(0, 0))
    pattern, _ = crop(one, 0, field)
    n = pattern.shape[0]
    assert pattern.shape == (n, n)
    assert pattern[n // 2, n // 2] == 1
    assert n * PIXEL_MRAD == pytest.approx(field, abs=PIXEL_MRAD)


@pytest.mark.parametrize("field", [40.0, 60.0, 94.0, 96.0])
@pytest.mark.parametrize("spot", [(0.0, 0.0), (10.0, -6.0), (-14.0, 18.0)])
def test_angles_are_to_scale(spot, field):
    axes = drawn(store(spot=spot), field)
    [image] = axes.images
    pattern = image.get_array()
    [[row, column]] = np.argwhere(pattern > 0.5)
    left, right, bottom, top = image.get_extent()
    x = left + (column + 0.5) * (right - left) / pattern.shape[1]
    y = bottom + (row + 0.5) * (top - bottom) / pattern.shape[0]
    assert (x, y) == pytest.approx(spot, abs=1e-6)
    assert image.origin == "lower"


def test_the_scale_bar_is_as_long_as_it_says():
    axes = drawn(store(), 80, bar=20)
    assert 20 in lines(axes)
    assert [text.get_text() for text in axes.texts] == ["20 mrad"]
    x = lines(axes)[20].get_xdata()
    assert axes.get_xlim()[0] < x[0] < x[1] < axes.get_xlim()[1]


def test_without_a_scale_bar_nothing_is_written():
    axes = drawn(store(), 80, bar=None)
    assert lines(axes) == {}
    assert len(axes.texts) == 0


def test_the_left_half_is_linear_and_the_right_half_cube_root():
    one = store(49)
    pattern, _ = crop(one, 0, 90)
    [image] = drawn(one, 90).images
    shown, middle = np.asarray(image.get_array()), pattern.shape[1] // 2
    np.testing.assert_allclose(shown[:, :middle], pattern[:, :middle] / pattern.max(), rtol=1e-5)
    np.testing.assert_allclose(
        shown[:, middle + 1 :] ** 3, pattern[:, middle + 1 :] / pattern.max(), rtol=1e-4
    )
    assert image.get_clim() == (0, 1)


def test_one_panel_per_thickness():
    figure = show_patterns(store(layers=(1, 2, 5)), [1, 5], 80)
    assert [axes.get_title() for axes in figure.axes] == ["1 layer", "5 layers"]
    assert [len(axes.texts) for axes in figure.axes] == [1, 0]


def test_figure_1_has_thicknesses_as_rows_and_semiangles_as_columns():
    stores = {6.35: store(), 18.13: store(), 32.94: store()}
    figure = undeformed_gallery(stores, [1, 5], 80)
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 6
    assert [axes.get_title() for axes in panels[:3]] == ["6.35 mrad", "18.13 mrad", "32.94 mrad"]
    assert [axes.get_ylabel() for axes in panels[::3]] == ["1 layer", "5 layers"]
    assert [text.get_text() for axes in panels for text in axes.texts] == ["20 mrad"]


def test_figure_1_shows_the_thickness_that_it_names():
    one = store(layers=(1, 2, 5))
    one.patterns[2, 0, 0] = 3
    figure = undeformed_gallery({6.35: one}, [1, 5], 200)
    brightest = [np.unravel_index(a.images[0].get_array().argmax(), (48, 48)) for a in figure.axes]
    assert brightest == [(24, 24), (0, 0)]


# Errors


def error_table(angles=(6.35, 12.65), layers=(1, 5, 10), parameters=PARAMETERS):
    return pd.DataFrame(
        [
            {
                "semiangle_mrad": a,
                "layers": n,
                "parameter": p,
                "mae": 0.01 * (i + 1) / n,
                "baseline_mae": 0.1 * (i + 1),
            }
            for a in angles
            for n in layers
            for i, p in enumerate(parameters)
        ]
    )


def curve(axes, label):
    [line] = [one for one in axes.lines if one.get_label() == label]
    return np.array(line.get_xdata(), float), np.array(line.get_ydata(), float)


def test_figure_5_shows_the_error_of_every_semiangle_against_thickness():
    figure = errors_against_thickness(error_table())
    assert len(figure.axes) == 6
    for number, axes in enumerate(figure.axes):
        factor = 100 if number < 3 else 1
        for label in ("6.35 mrad", "12.65 mrad"):
            x, y = curve(axes, label)
            np.testing.assert_array_equal(x, [1, 5, 10])
            np.testing.assert_allclose(y, factor * 0.01 * (number + 1) / x)
        np.testing.assert_allclose(curve(axes, "always the mean")[1], factor * 0.1 * (number + 1))
        assert axes.get_yscale() == "log"


def test_strain_is_shown_in_percent_and_angles_in_their_units():
    assert [display_unit(p) for p in PARAMETERS] == [(100, "%")] * 3 + [(1, "°")] + [
        (1, "mrad")
    ] * 2


def test_figure_5_draws_only_the_parameters_that_were_predicted():
    figure = errors_against_thickness(error_table(parameters=PARAMETERS[:4]))
    assert sum(axes.axison for axes in figure.axes) == 4


def predictions(parameters=PARAMETERS, examples=30):
    random = np.random.default_rng(0)
    columns = {}
    for name in parameters:
        columns[f"true_{name}"] = random.uniform(-1, 1, examples)
        columns[f"predicted_{name}"] = columns[f"true_{name}"] + random.normal(0, 0.1, examples)
    return pd.DataFrame(columns)


def test_figure_6_shows_predicted_against_true():
    table = predictions()
    figure = true_against_predicted({(6.35, 10): table})
    assert len(figure.axes) == 3
    for axes, name, factor in zip(
        figure.axes, ("strain_xx", "rotation_deg", "tilt_x_mrad"), (100, 1, 1), strict=True
    ):
        [points] = axes.collections
        np.testing.assert_allclose(
            points.get_offsets(),
            factor * table[[f"true_{name}", f"predicted_{name}"]].to_numpy(),
        )


def test_figure_6_leaves_out_what_was_not_trained_or_not_predicted():
    some = {
        (6.35, 1): predictions(),
        (6.35, 5): predictions(PARAMETERS[:4]),
        (18.13, 5): predictions(),
    }
    figure = true_against_predicted(some)
    shown = [len(axes.collections) for axes in figure.axes]
    # Rows 1 and 5 layers; columns strain, rotation and tilt at 6.35 and 18.13 mrad.
    assert shown == [1, 0, 1, 0, 1, 0, 1, 1, 1, 1, 0, 1]


# Files

FIGURES = {
    "fig1": lambda: undeformed_gallery({6.35: store()}, [1, 5], 80),
    "fig5": lambda: errors_against_thickness(error_table()),
    "fig6": lambda: true_against_predicted({(6.35, 10): predictions()}),
}


@pytest.mark.parametrize("name", list(FIGURES))
@pytest.mark.parametrize("kind", ["png", "pdf"])
def test_a_figure_that_is_drawn_again_has_the_same_bytes(tmp_path, name, kind):
    first, again = tmp_path / f"first.{kind}", tmp_path / f"again.{kind}"
    save(FIGURES[name](), first)
    save(FIGURES[name](), again)
    assert first.stat().st_size > 5000
    assert first.read_bytes() == again.read_bytes()


def test_a_figure_is_saved_under_all_names_and_leaves_nothing_else(tmp_path):
    save(FIGURES["fig5"](), tmp_path / "new" / "fig.png", tmp_path / "new" / "fig.pdf")
    written = {p.name: p.read_bytes()[:4] for p in (tmp_path / "new").iterdir()}
    assert written == {"fig.png": b"\x89PNG", "fig.pdf": b"%PDF"}


def test_an_unknown_format_is_named(tmp_path):
    with pytest.raises(RequestError, match=r"fig\.xyz"):
        save(FIGURES["fig5"](), tmp_path / "fig.xyz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [math.nan, 0.0])
def test_an_error_that_is_not_a_number_or_zero_does_not_stop_figure_5(tmp_path, bad):
    table = error_table()
    table.loc[table["layers"] == 5, "mae"] = bad
    save(errors_against_thickness(table), tmp_path / "fig5.png")
    assert (tmp_path / "fig5.png").stat().st_size > 5000


def test_predictions_that_are_not_numbers_do_not_stop_figure_6(tmp_path):
    table = predictions()
    table["predicted_strain_xx"] = math.nan
    save(true_against_predicted({(6.35, 10): table}), tmp_path / "fig6.png")
    assert (tmp_path / "fig6.png").stat().st_size > 5000
