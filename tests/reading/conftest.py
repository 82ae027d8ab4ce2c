"""A small scattering series."""

import pytest

from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.scattering.fit import assemble, write_state
from pacbed.scattering.request import SeriesRequest
from pacbed.scattering.series import ScatteringSeries
from pacbed.scattering.strain import StrainRange
from pacbed.specimen.crystal import material

ASKED = SeriesRequest(
    material("MoS2"),
    80,
    2,
    StrainRange((0.97, 1.03)),
    6.0,
    5.0,
    64.0,
    states=6,
    degree=1,
    motion="coherent",
)
COARSE = PlaneWaveSettings(supercell=(3, 2), diffuse_waves=16, incident_step_mrad=2.5)


@pytest.fixture(scope="session")
def series(tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    paths = [folder / f"{number:02d}.zarr.zip" for number in range(ASKED.states)]
    engine = PlaneWaveEngine(COARSE, 2)
    for number, path in enumerate(paths):
        write_state(path, ASKED, number, engine)
    assemble(folder / "series.zarr.zip", paths)
    return ScatteringSeries(folder / "series.zarr.zip")
