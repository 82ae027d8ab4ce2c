"""Figures of maps: common scales, symmetric about zero, and grey where nothing is claimed."""

import numpy as np
import pytest
from reading.synthetic_map import synthetic_map

from pacbed.figures.maps import axes_in_words, diverging, map_figure, of_layers
from pacbed.figures.style import save
from pacbed.reading.maps.store import StrainMap


@pytest.fixture(scope="module")
def figure():
    return map_figure(synthetic_map(12, 16))


def panels(figure):
    return [axes for axes in figure.axes if axes.get_title("left")]


def shown(panel):
    return panel.images[0].get_array()


def test_all_quantities_and_their_errors_have_a_panel(figure):
    titles = [panel.get_title("left") for panel in panels(figure)]
    assert len(titles) == 16
    assert sum("sigma" in title for title in titles) == 6
    assert any("χ²" in title for title in titles)


def test_strains_share_a_scale_symmetric_about_zero(figure):
    scales = [panel.images[0].get_clim() for panel in panels(figure)[:3]]
    assert len(set(scales)) == 1
    assert scales[0][0] == -scales[0][1]


def test_strain_is_shown_in_per_cent_and_masked_where_nothing_is_claimed(figure):
    one = synthetic_map(12, 16)
    values = shown(panels(figure)[0])
    np.testing.assert_array_equal(np.ma.getmaskarray(values), ~one.claimed)
    expected = 100 * one.values["strain_xx"][one.claimed]
    np.testing.assert_allclose(np.asarray(values[one.claimed]), expected, rtol=1e-6)


def test_units_stand_at_the_scales(figure):
    labels = [axes.get_xlabel() for axes in figure.axes]
    for words in ("strain (%)", "tilt (mrad)", "rotation (°)", "electrons per pattern"):
        assert words in labels


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, "x zigzag, y armchair"),
        ({"crystal_axes": ["a", "perpendicular to a"]}, "x a, y perpendicular to a"),
        ({"axes": "scan"}, "x right, y up"),
        ({"axes": None}, ""),
    ],
)
def test_axes_are_those_of_the_crystal_or_of_the_scan(said, words):
    assert axes_in_words(synthetic_map(4, 4, **said)) == words


def test_the_scale_bar_is_as_long_as_it_says(figure):
    first = panels(figure)[0]
    left, right = first.lines[0].get_xdata()
    length = float(first.texts[0].get_text().removesuffix(" nm"))
    assert (right - left) * 2.0 == pytest.approx(length)


def test_a_map_of_unknown_step_is_measured_in_points():
    first = panels(map_figure(synthetic_map(8, 8, 1.0, coordinate_units="points")))[0]
    assert first.texts[0].get_text().endswith(" points")


def test_relative_strain_is_drawn_instead_of_strain(tmp_path):
    figure = map_figure(synthetic_map(5, 40), relative=True)
    assert "reference" in panels(figure)[0].get_title("left")
    save(figure, tmp_path / "map.png", tmp_path / "map.pdf")
    assert (tmp_path / "map.pdf").stat().st_size > 1000


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (40, 2)])
def test_any_shape_can_be_drawn(shape, tmp_path):
    save(map_figure(synthetic_map(*shape, vacuum=False)), tmp_path / "map.png")


def test_a_map_of_vacuum_can_be_drawn(tmp_path):
    nothing = np.full((4, 5), np.nan)
    values = {"strain_xx": nothing, "layers": np.zeros((4, 5)), "flags": np.full((4, 5), 8)}
    save(map_figure(StrainMap(values, np.arange(5.0), np.arange(4.0))), tmp_path / "map.png")


def test_one_wild_value_does_not_set_the_scale():
    values = np.full(1000, 0.4)
    values[0] = 1e6
    look = diverging(values)
    assert look.norm.vmax == pytest.approx(0.4)
    assert look.extend == "max"


def test_layers_have_a_colour_each():
    look = of_layers(np.array([3.0, 5.0, np.nan]))
    assert len({tuple(look.colours(look.norm(n))) for n in (3, 4, 5)}) == 3


@pytest.mark.parametrize(("thicknesses", "numbers"), [((3,), [3]), ((2, 5), [2, 3, 4, 5])])
def test_the_bar_of_layers_names_them(thicknesses, numbers):
    one = synthetic_map(4, 4, vacuum=False)
    one.values["layers"][:] = thicknesses[0]
    one.values["layers"][0, 0] = thicknesses[-1]
    bar = next(axes for axes in map_figure(one).axes if axes.get_xlabel() == "layers")
    assert list(bar.get_xticks()) == numbers
