"""A small scattering series."""

import pytest

from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.scattering.fit import assemble, write_state
from pacbed.scattering.request import SeriesRequest
from pacbed.scattering.series import ScatteringSeries
from pacbed.scattering.strain import StrainRange
from pacbed.specimen.crystal import material


@pytest.fixture(scope="session")
def series(tmp_path_factory):
    """MoS2, four layers, 5 mrad."""
    folder = tmp_path_factory.mktemp("series")
    asked = SeriesRequest(
        material("MoS2"), 80, 4, StrainRange((0.97, 1.03)), 5.0, 4.0, 52.0, states=15, degree=2
    )
    coarse = PlaneWaveSettings(supercell=(3, 2), diffuse_waves=16, incident_step_mrad=2.5)
    engine = PlaneWaveEngine(coarse, 2)
    states = [folder / f"{number:02d}.zarr.zip" for number in range(asked.states)]
    for number, path in enumerate(states):
        write_state(path, asked, number, engine)
    assemble(folder / "series.zarr.zip", states)
    return ScatteringSeries(folder / "series.zarr.zip")
