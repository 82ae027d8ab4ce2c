"""Examples of a study that fits read."""

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest

from pacbed.examples.augment import TRANSFORMATIONS, AugmentationSettings
from pacbed.examples.camera import CameraSettings
from pacbed.examples.dataset import Dataset
from pacbed.examples.labels import PARAMETERS
from pacbed.exceptions import PacbedError
from pacbed.reading.predictions import ExampleFits
from pacbed.reading.start import SearchRange
from pacbed.scattering.image_model import ALWAYS_FREE, COLUMN

pytestmark = pytest.mark.xdist_group("small series")

PRIORS = {"tilt_x_mrad": (0.0, 2.0), "tilt_y_mrad": (0.0, 2.0), "log_scale": (0.0, 0.02)}


@pytest.fixture(scope="module")
def data(small_series, patterns, study):
    states, images = patterns([5] * 6, seed=4)
    settings = AugmentationSettings(
        images.shape[1], study.field_mrad, 0.03, (-10, 10), 1, "poisson", (1e7, 1e7), (0.2, 0.3)
    )
    transformations = np.zeros((len(images), len(TRANSFORMATIONS)), np.float32)
    transformations[:, TRANSFORMATIONS.index("electrons")] = np.exp(states[:, COLUMN["log_dose"]])
    attributes = {
        "semiangle_mrad": study.aperture.semiangle_mrad,
        "layers": 5,
        "augmentation": asdict(settings),
        "simulation": small_series.simulation(study.aperture),
    }
    return Dataset(
        images / images.sum(axis=(1, 2), keepdims=True),
        states[:, : len(PARAMETERS)],
        np.arange(len(images)),
        transformations,
        attributes,
    )


def read(series, data, predictions=None):
    search = SearchRange(tilt_mrad=3.0)
    return ExampleFits(series, data, PRIORS, search).read(range(len(data.images)), predictions)


def predicted(data, by):
    """Return what a network would say whose errors are of this size."""
    away = np.array([[*[0.003] * 3, 0.5, 0.5, 0.5]]) * by
    return pd.DataFrame(
        data.labels + away * np.random.default_rng(0).choice([-1, 1], data.labels.shape),
        columns=[f"predicted_{name}" for name in PARAMETERS],
    )


def deviations(table):
    return np.stack(
        [(table[f"predicted_{n}"] - table[f"true_{n}"]) / table[f"sigma_{n}"] for n in PARAMETERS]
    )


@pytest.mark.parametrize("by", [1, 10])
def test_a_fit_reads_the_truth_from_a_good_network_and_from_a_bad_one(small_series, data, by):
    table = read(small_series, data, predicted(data, by))
    assert np.abs(deviations(table)).max() < 5
    assert (table["flags"] == "").all()


def test_a_fit_needs_no_network(small_series, data):
    table = read(small_series, data)
    assert np.abs(deviations(table)).max() < 5
    assert table["electrons"].tolist() == pytest.approx(data.electrons.tolist())


def test_predictions_of_other_examples_are_refused(small_series, data):
    with pytest.raises(PacbedError, match="5 predictions are not of the 6 examples"):
        read(small_series, data, predicted(data, 1)[:5])


def test_examples_of_an_elliptical_camera_are_fitted_with_an_ellipse(small_series, data):
    # A camera that draws circles as ellipses, of examples that it has seen as circles.
    ranges = CameraSettings(ellipticity=(0.0, 0.02))
    search = SearchRange(tilt_mrad=3.0)
    fits = ExampleFits(small_series, data, {**PRIORS, **ranges.priors()}, search)
    assert set(fits._fit.settings.free) - set(ALWAYS_FREE) == {
        "ellipticity",
        "ellipticity_diagonal",
    }
    table = fits.read(range(3), predicted(data, 1))
    assert np.abs(deviations(table)).max() < 5


def test_examples_of_any_background_are_fitted_with_the_electrons_that_were_counted(
    small_series, patterns, data
):
    camera = CameraSettings(background=(0.0, 1.0))
    settings = {**data.attributes["augmentation"], "camera": asdict(camera)}
    columns = AugmentationSettings(**settings).columns
    background = np.array([0.0, 0.5, 1.0])
    counted = patterns([5] * 6, seed=4)[1][:3]
    electrons = background * data.electrons[:3] / counted[0].size
    counted += np.random.default_rng(3).poisson(electrons[:, None, None], counted.shape)
    transformations = np.zeros((3, len(columns)), np.float32)
    transformations[:, : len(TRANSFORMATIONS)] = data.transformations[:3]
    transformations[:, columns.index("background")] = background
    seen = replace(
        data,
        images=counted / counted.sum(axis=(1, 2), keepdims=True),
        transformations=transformations,
        attributes={**data.attributes, "augmentation": settings},
    )
    search = SearchRange(tilt_mrad=3.0)
    fits = ExampleFits(small_series, seen, {**PRIORS, **camera.priors()}, search)
    table = fits.read(range(3), predicted(data, 1)[:3])
    assert np.abs(deviations(table)).max() < 5
    assert table["chi2_per_pixel"].tolist() == pytest.approx([1, 1, 1], abs=0.1)
