"""Small scattering series."""

import pytest

from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.scattering.fit import assemble, write_state
from pacbed.scattering.request import SeriesRequest
from pacbed.scattering.series import ScatteringSeries
from pacbed.scattering.strain import StrainRange
from pacbed.specimen.crystal import material

STRETCH = StrainRange((0.97, 1.03))
COARSE = PlaneWaveSettings(supercell=(3, 2), diffuse_waves=16, incident_step_mrad=2.5)


def made(folder, asked):
    paths = [folder / f"{number:02d}.zarr.zip" for number in range(asked.states)]
    engine = PlaneWaveEngine(COARSE, 2)
    for number, path in enumerate(paths):
        write_state(path, asked, number, engine)
    assemble(folder / "series.zarr.zip", paths)
    return ScatteringSeries(folder / "series.zarr.zip")


@pytest.fixture(scope="session")
def series(tmp_path_factory):
    """MoS2, four layers, 5 mrad."""
    asked = SeriesRequest(material("MoS2"), 80, 4, STRETCH, 5.0, 4.0, 52.0, states=15, degree=2)
    return made(tmp_path_factory.mktemp("series"), asked)


@pytest.fixture(scope="session")
def coherent_series(tmp_path_factory):
    """MoS2, two layers, 6 mrad, without diffuse scattering."""
    asked = SeriesRequest(
        material("MoS2"), 80, 2, STRETCH, 6.0, 5.0, 64.0, states=6, degree=1, motion="coherent"
    )
    return made(tmp_path_factory.mktemp("coherent"), asked)
