"""Figures of what was measured: names of files stand there as they are."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.cbook import is_math_text

from pacbed.figures.readings import measured_and_fitted
from pacbed.figures.scans import overview_figure
from pacbed.figures.style import save
from pacbed.reading.scans.overview import Overview
from pacbed.reading.scans.scan import Scan

NAMES = ["5$.npy", "$MoS_{2$.npy"]


@pytest.mark.parametrize("name", NAMES)
def test_a_dollar_in_the_name_of_a_pattern_is_drawn(name, tmp_path):
    image = np.random.default_rng(0).poisson(9, (16, 16)).astype(float)
    window = SimpleNamespace(pattern=SimpleNamespace(name=name), mask=image > 2)
    read = {"layers": 2, "chi2_per_pixel": 1.0, "value": lambda name: 0.01}
    images = {"image": image, "fitted": image, "residuals": image - 9}
    figure = measured_and_fitted([SimpleNamespace(window=window, **images, **read)])
    save(figure, tmp_path / "a.png")
    title = figure.subfigs[0]._suptitle.get_text()
    assert title.replace(r"\$", "$").startswith(name)
    assert is_math_text(title)


@pytest.mark.parametrize("name", NAMES)
def test_a_dollar_in_the_name_of_a_scan_is_drawn(name, tmp_path):
    scan = Scan.of(np.random.default_rng(0).poisson(9, (4, 5, 32, 32)), name=name)
    figure = overview_figure(scan, Overview.of(scan))
    save(figure, tmp_path / "a.png")
    assert figure._suptitle.get_text() == name
