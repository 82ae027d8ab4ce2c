"""Sizes of pixels and electrons on the command line, in the units that a user has."""

import math
from typing import Annotated

import pytest
from cyclopts import App

from pacbed.cli.common import ELECTRONS, PIXEL


def read(parameter, text):
    app, found = App(result_action="return_value"), []

    @app.default
    def command(value: Annotated[float | None, parameter] = None) -> None:
        found.append(value)

    app(["--value", text], exit_on_error=False, print_error=False)
    return found[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.39", 0.39), ("55um/120mm", 55 / 120), ("55 µm / 1.2e2 mm", 55 / 120), ("3e-1", 0.3)],
)
def test_a_pixel_is_an_angle_or_a_width_over_a_length(text, value):
    assert math.isclose(read(PIXEL, text), value)


@pytest.mark.parametrize(
    ("text", "value"), [("1e6", 1e6), ("500/A2*2000A2", 1e6), ("500 /Å2 × 2e3 Å2", 1e6)]
)
def test_electrons_are_a_number_or_a_dose_times_an_area(text, value):
    assert math.isclose(read(ELECTRONS, text), value)


@pytest.mark.parametrize("text", ["55um", "55um/0mm", "55/120", "1.2.3um/3mm", "wide"])
def test_what_is_no_size_is_refused_with_an_example(text):
    with pytest.raises(Exception, match="55um/120mm"):
        read(PIXEL, text)
