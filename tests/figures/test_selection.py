"""Which networks each figure shows, in the paper's study and in smaller ones."""

import pytest
from workspace import CONFIG

from pacbed.figures.selection import (
    classical,
    compared_angle,
    gallery_angles,
    gallery_layers,
    main_variant,
    scatter,
    with_and_without_tilt,
)
from pacbed.learning.specification import NetworkSpec
from pacbed.study.configuration import load
from pacbed.study.networks import networks

TILT, NO_TILT = "strain-rotation-tilt", "strain-rotation"


@pytest.fixture(scope="module")
def paper():
    return load([CONFIG])


@pytest.fixture(scope="module")
def demo():
    return load([CONFIG, CONFIG.parent / "demo.yaml"])


def test_the_papers_figures_show_what_the_paper_shows(paper):
    all_networks = networks(paper)
    assert len(main_variant(all_networks)) == 40
    shown = {(n.semiangle_mrad, n.layers, n.outputs) for n in scatter(all_networks)}
    assert shown == {(a, n, TILT) for a in (6.35, 18.13, 32.94) for n in (1, 3, 5, 10, 20)}
    assert gallery_angles(paper.microscope.semiangles_mrad) == [6.35, 18.13]
    assert gallery_layers(paper.dataset.layers) == (1, 10)
    assert compared_angle(all_networks) == 6.35
    assert with_and_without_tilt(all_networks) == [
        NetworkSpec(6.35, 1, TILT, "linear"),
        NetworkSpec(6.35, 1, NO_TILT, "linear"),
    ]


def test_a_smaller_study_shows_what_it_has(demo):
    all_networks = networks(demo)
    assert scatter(all_networks) == main_variant(all_networks)
    assert len(scatter(all_networks)) == 3
    assert gallery_angles([12.65, 6.35]) == [6.35, 12.65]
    assert gallery_angles([8.0]) == [8.0]
    assert gallery_layers([2, 7, 4]) == (2, 7)


def test_of_many_networks_figure_6_shows_those_of_the_paper():
    angles, layers = (6.35, 9.0, 18.13, 25.44), (1, 2, 5, 10, 20)
    found = [NetworkSpec(a, n, TILT, "linear") for a in angles for n in layers]
    shown = {(n.semiangle_mrad, n.layers) for n in scatter(found)}
    assert shown == {(a, n) for a in (6.35, 18.13) for n in (1, 5, 10, 20)}
    others = [NetworkSpec(a, n, TILT, "linear") for a in (4.0, 5.0, 7.0, 8.0) for n in layers]
    assert scatter(others) == others[:15]


def test_figure_8_takes_the_thinnest_sample_that_has_both_kinds():
    found = [
        NetworkSpec(6.35, 1, TILT, "linear"),
        NetworkSpec(6.35, 5, TILT, "linear"),
        NetworkSpec(6.35, 3, TILT, "linear"),
        NetworkSpec(6.35, 5, NO_TILT, "sqrt"),
        NetworkSpec(6.35, 3, NO_TILT, "sqrt"),
    ]
    assert with_and_without_tilt(found) == [found[2], found[4]]
    assert with_and_without_tilt(found[:3]) == [found[0]]


def test_discs_are_looked_for_up_to_the_first_overlap(paper, demo):
    for config, samples in ((paper, 16), (demo, 3)):
        found = classical(config, networks(config))
        assert {n.semiangle_mrad for n in found} == {6.35, 12.65}
        assert len(found) == samples
        assert {(n.outputs, n.intensity) for n in found} == {(NO_TILT, "linear")}


def test_discs_are_not_looked_for_where_pixels_are_too_coarse(paper):
    coarse = paper.changed({"dataset": {"pixels": 32}})
    assert {n.semiangle_mrad for n in classical(coarse, networks(coarse))} == {12.65}


def test_discs_are_not_looked_for_where_all_overlap_but_the_first(paper):
    wide = paper.changed(
        {
            "microscope": {"semiangles_mrad": [18.13, 25.44]},
            "variants": [one.plain() for one in paper.variants[:1]],
        }
    )
    assert {n.semiangle_mrad for n in classical(wide, networks(wide))} == {18.13}
