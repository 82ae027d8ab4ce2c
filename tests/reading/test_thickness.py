"""The number of layers by likelihood."""

import numpy as np
import pytest

from pacbed.exceptions import RequestError
from pacbed.reading.fit import Fit
from pacbed.reading.start import Dictionary, SearchRange
from pacbed.reading.thickness import ThicknessFit

# What they share takes longer than they do: all in one process.
pytestmark = pytest.mark.xdist_group("small series")

SEARCH = SearchRange(tilt_mrad=3.0)


def test_thickness_and_its_probability_are_found(small_fit, patterns, study):
    truth = np.arange(1, study.layers + 1)
    states, images = patterns(truth)
    result = ThicknessFit(small_fit, truth.tolist(), SEARCH).fit(images)
    assert result.layers.tolist() == truth.tolist()
    assert result.probabilities.shape == (study.layers, study.layers)
    np.testing.assert_allclose(result.probabilities.sum(axis=1), 1)
    assert np.diagonal(result.probabilities).min() > 0.9
    assert np.abs(result.fit.states - states)[:, :3].max() < 0.005


def test_thickness_is_found_from_one_that_is_far_away(small_fit, patterns, monkeypatch, study):
    nearest, truth = Dictionary.candidates, [1, 2, study.layers]

    def furthest(self, images, count):
        states, distances = nearest(self, images, count)
        return states, -distances

    monkeypatch.setattr(Dictionary, "candidates", furthest)
    monkeypatch.setattr("pacbed.reading.thickness._NEAREST", 1)
    layers = range(1, study.layers + 1)
    found = ThicknessFit(small_fit, layers, SEARCH).fit(patterns(truth)[1])
    assert found.layers.tolist() == truth


def test_starts_that_are_given_are_used(small_fit, patterns):
    states, images = patterns([3, 5])
    result = ThicknessFit(small_fit, (3, 5)).fit(images, states)
    assert result.layers.tolist() == [3, 5]
    assert result.fit.converged.all()


def test_fit_of_another_thickness_is_that_of_its_own(small_series, small_fit, patterns, study):
    states, images = patterns([2, 2])
    own = Fit(small_series, study.aperture, 2, study.frame)
    other = small_fit.for_layers(2)
    found, expected = (fit.fit(images, states, bins=(1,)) for fit in (other, own))
    np.testing.assert_allclose(found.states, expected.states, atol=1e-4)


def test_fits_of_all_thicknesses_share_what_is_compiled(small_fit):
    one = small_fit.for_layers(2)
    assert one.for_layers(2) is one
    assert one.for_layers(small_fit.layers) is small_fit
    assert one.for_layers(3).model()._model is small_fit.model()._model


def test_thickness_given_twice_is_refused(small_fit):
    with pytest.raises(RequestError, match="different"):
        ThicknessFit(small_fit, (2, 2))
