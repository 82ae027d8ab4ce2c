"""Where fits start, and that they end at the truth from there."""

import numpy as np
import pandas as pd
import pytest

from pacbed.examples.augment import AugmentationSettings
from pacbed.exceptions import RequestError
from pacbed.reading.discs import DiscMethod
from pacbed.reading.start import (
    Dictionary,
    SearchRange,
    starts_from_dictionary,
    starts_from_discs,
    starts_from_table,
)
from pacbed.scattering.image_model import ALWAYS_FREE, COLUMN, UNKNOWNS

# What they share takes longer than they do: all in one process.
pytestmark = pytest.mark.xdist_group("small series")

SEARCH = SearchRange(tilt_mrad=3.0)


@pytest.fixture(scope="module")
def dictionary(small_fit):
    return Dictionary(small_fit, SEARCH)


def failures(result, truth):
    free = [COLUMN[name] for name in ALWAYS_FREE]
    off = np.abs(result.states - truth)[:, free] / result.sigma[:, free]
    return int((off.max(axis=1) > 10).sum())


def test_fits_from_the_dictionary_end_at_the_truth(small_fit, dictionary, patterns, study):
    truth, images = patterns([study.layers] * 24)
    starts = starts_from_dictionary(small_fit, dictionary, images)
    result = small_fit.fit(images, starts, bins=(2, 1))
    assert failures(result, truth) == 0
    assert result.converged.all()


def test_pattern_of_the_other_direction_is_found_if_both_are_searched(small_fit, patterns, study):
    truth, images = patterns([study.layers] * 2)
    turned = Dictionary(small_fit, SearchRange((180.0,), tilt_mrad=3.0))
    both = Dictionary(small_fit, SearchRange((0.0, 180.0), tilt_mrad=3.0))
    far, near = (d.candidates(images, 1)[1] for d in (turned, both))
    assert (near < far).all()
    result = small_fit.fit(images, starts_from_dictionary(small_fit, both, images), bins=(2, 1))
    assert failures(result, truth) == 0


def test_masked_pixels_of_a_dictionary_do_not_matter(small_fit, patterns, study):
    images = patterns([study.layers] * 2)[1]
    mask = np.ones(study.frame.shape, bool)
    mask[20:30, 35:50] = False
    masked = Dictionary(small_fit, SEARCH, mask)
    found = masked.candidates(images, 1)[0]
    changed = masked.candidates(np.where(mask, images, 1e6).astype(np.float32), 1)[0]
    np.testing.assert_allclose(found, changed, atol=1e-4)


def test_discs_tell_strain_and_rotation(small_fit, patterns, study):
    truth, images = patterns([study.layers] * 4)
    augmentation = AugmentationSettings(
        pixels=study.frame.shape[0],
        translation_px=2.0,
        field_of_view_mrad=study.field_mrad,
        field_of_view_variation=0.04,
        rotation_deg=(-10.0, 10.0),
        noise="poisson",
        electrons=(1e7, 1e7),
        image_mean=(1.0, 1.0),
    )
    method = DiscMethod(
        small_fit.series.request.material, 80, study.aperture.semiangle_mrad, augmentation
    )
    starts = starts_from_discs(method, images)
    assert np.abs(starts - truth)[:, :3].max() < 0.03
    assert np.abs(starts - truth)[:, COLUMN["rotation_deg"]].max() < 1.5


def test_table_fills_the_unknowns_it_names():
    table = pd.DataFrame({"strain_xy": [0.01, np.nan], "tilt_x_mrad": [1.0, 2.0], "draw": [3, 4]})
    starts = starts_from_table(table)
    assert starts.shape == (2, len(UNKNOWNS))
    assert starts[:, COLUMN["strain_xy"]].tolist() == [0.01, 0.0]
    assert starts[:, COLUMN["tilt_x_mrad"]].tolist() == [1.0, 2.0]
    assert not starts[:, COLUMN["rotation_deg"]].any()


def test_table_without_an_unknown_is_refused():
    with pytest.raises(RequestError, match="strain_xx"):
        starts_from_table({"draw": np.arange(3)})
