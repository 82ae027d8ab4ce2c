"""What ignorance of the camera costs: it never helps, and what looks like strain costs most."""

import numpy as np
import pytest
from mtf_tables import gaussian_mtf

from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.exceptions import RequestError
from pacbed.precision.bound import fisher_information, linearise_image, standard_deviations
from pacbed.precision.nuisances import BLUR_PX, NUISANCES, price_table
from pacbed.scattering.fit import write_series
from pacbed.scattering.image import Camera
from pacbed.scattering.image_model import Frame
from pacbed.scattering.mtf import MTF
from pacbed.scattering.request import SeriesRequest
from pacbed.scattering.series import ScatteringSeries
from pacbed.scattering.strain import StrainRange
from pacbed.specimen.crystal import MATERIALS
from pacbed.specimen.microscope import Aperture

APERTURE, FRAME = Aperture(6.35), Frame.centred(64, 50)


def series_of(folder, motion):
    asked = SeriesRequest(
        MATERIALS["MoS2"], 80, 3, StrainRange((0.98, 1.02)), 6.35, 0.5, 54.0, 6, 1, motion
    )
    settings = PlaneWaveSettings(supercell=(2, 2), diffuse_waves=16, incident_step_mrad=2.5)
    write_series(folder / "series.zarr.zip", asked, PlaneWaveEngine(settings, 1))
    return ScatteringSeries(folder / "series.zarr.zip")


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    return series_of(tmp_path_factory.mktemp("full"), "full")


@pytest.fixture(scope="module")
def prices(series):
    table = price_table(series, [APERTURE], [3], FRAME)
    return table.set_index(["nuisance", "parameter"])


def test_with_no_nuisance_it_is_the_bound(series, prices):
    image = series.image_and_derivatives((0, 0, 0), (0, 0), APERTURE, 3, Camera(64, 50))
    bound = standard_deviations(fisher_information(linearise_image(image), 1.0))
    found = prices["sigma"]["none"].to_numpy()
    np.testing.assert_allclose(found[:4], bound[:4], rtol=0.03)


def test_a_given_mtf_costs_what_the_known_blur_costs(series, prices):
    image = series.image_and_derivatives((0, 0, 0), (0, 0), APERTURE, 3, Camera(64, 50))
    seen = linearise_image(image, MTF(gaussian_mtf(BLUR_PX)))
    bound = standard_deviations(fisher_information(seen, 1.0))
    known = prices["sigma"]["known blur"].to_numpy()
    # The model samples the Gaussian at pixels, which makes so narrow a one a little narrower.
    np.testing.assert_allclose(known[:4], bound[:4], rtol=0.08)
    assert (known[:3] > 1.1 * prices["sigma"]["none"].to_numpy()[:3]).all()


def test_what_is_unknown_never_helps(prices):
    assert set(prices.index.get_level_values(0)) == set(NUISANCES)
    price = prices["price"]
    assert np.allclose(price["none"], 1)
    assert price["known scale"].max() <= 1 + 1e-6
    for name in ("semi-angle", "ellipticity", "background", "halo", "all"):
        assert price[name].min() > 1 - 1e-6, name
    assert (price["blur"] > price["known blur"] - 1e-6).all()
    assert (price["all"] > price["ellipticity"]).all()


def test_an_ellipse_looks_like_strain_and_not_like_a_rotation(prices):
    price = prices["price"]["ellipticity"]
    assert min(price["strain_xx"], price["strain_yy"], price["strain_xy"]) > 1.1
    assert price["rotation_deg"] < 1.05
    assert prices["price"]["background", "strain_xx"] < price["strain_xx"]


def test_a_series_without_diffuse_scattering_is_refused(tmp_path):
    with pytest.raises(RequestError, match="no diffuse scattering"):
        price_table(series_of(tmp_path, "coherent"), [APERTURE], [3], FRAME)
