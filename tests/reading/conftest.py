"""Small scattering series for all tests of fits."""

from types import SimpleNamespace

import numpy as np
import pytest

from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.reading.fit import Fit
from pacbed.scattering.fit import write_series
from pacbed.scattering.image import Camera
from pacbed.scattering.image_model import COLUMN, UNKNOWNS, Frame
from pacbed.scattering.request import SeriesRequest
from pacbed.scattering.series import ScatteringSeries
from pacbed.scattering.strain import StrainRange
from pacbed.specimen.crystal import MATERIALS
from pacbed.specimen.microscope import Aperture

APERTURE, LAYERS, FIELD_mrad, PIXELS = Aperture(6.35), 6, 60.0, 64
FRAME = Frame.centred(PIXELS, FIELD_mrad)
STRETCH, TILT_mrad = (0.97, 1.03), 3.0
ELECTRONS = 1e7


@pytest.fixture(scope="session")
def study():
    """What the patterns of these tests have in common."""
    return SimpleNamespace(
        aperture=APERTURE, layers=LAYERS, frame=FRAME, field_mrad=FIELD_mrad, tilt_mrad=TILT_mrad
    )


COARSE = PlaneWaveSettings(supercell=(3, 2), diffuse_waves=16, incident_step_mrad=2.5)


@pytest.fixture(scope="session")
def made(made_once):
    """Return a function that makes a scattering series, once for all processes."""

    def of(name, asked):
        def make(folder):
            write_series(folder / "series.zarr.zip", asked, PlaneWaveEngine(COARSE, 2))

        return ScatteringSeries(made_once(name, make) / "series.zarr.zip")

    return of


@pytest.fixture(scope="session")
def small_series(made):
    """MoS2, six layers, 6.35 mrad."""
    asked = SeriesRequest(
        MATERIALS["MoS2"], 80, LAYERS, StrainRange((0.96, 1.04)), 6.35, 5.0, 76.0, 15, 2
    )
    return made("small", asked)


@pytest.fixture(scope="session")
def small_fit(small_series, study):
    """The fit of its thickest crystal; what it compiles is compiled once."""
    return Fit(small_series, study.aperture, study.layers, study.frame)


@pytest.fixture(scope="session")
def coherent_series(made):
    """MoS2, two layers, 6 mrad, without diffuse scattering."""
    asked = SeriesRequest(
        MATERIALS["MoS2"],
        80,
        2,
        StrainRange(STRETCH),
        6.0,
        5.0,
        64.0,
        states=6,
        degree=1,
        motion="coherent",
    )
    return made("coherent", asked)


@pytest.fixture(scope="session")
def patterns(small_series):
    """Return a function that draws states and their patterns, counted electrons."""

    def draw(layers, seed=0):
        random, layers = np.random.default_rng(seed), list(layers)
        states = np.zeros((len(layers), len(UNKNOWNS)))
        states[:, :3] = StrainRange(STRETCH).states(len(layers))
        ranges = {
            "rotation_deg": 10.0,
            "tilt_x_mrad": TILT_mrad,
            "tilt_y_mrad": TILT_mrad,
            "shift_x_px": 1.0,
            "shift_y_px": 1.0,
            "log_scale": 0.03,
        }
        for name, half in ranges.items():
            states[:, COLUMN[name]] = random.uniform(-half, half, len(layers))
        states[:, COLUMN["log_dose"]] = np.log(ELECTRONS)
        images = []
        for state, number in zip(states, layers, strict=True):
            field = FIELD_mrad * np.exp(state[COLUMN["log_scale"]])
            camera = Camera(PIXELS, field, state[3], (state[6], state[7]))
            image = small_series.image(state[:3], tuple(state[4:6]), APERTURE, number, camera)
            images.append(random.poisson(np.maximum(ELECTRONS * image, 0)))
        return states, np.array(images, np.float32)

    return draw
