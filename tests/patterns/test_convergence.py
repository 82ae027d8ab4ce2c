"""What refining a setting changes: every calculation once, against the right one."""

import numpy as np
import pytest

from pacbed.engines import SimulationRequest, ThermalMotion
from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.patterns.convergence import refinements
from pacbed.specimen.crystal import material
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture, Detector


def requested(configurations):
    return SimulationRequest(
        material("MoS2"),
        Deformation(),
        (0.0, 0.0),
        1,
        80,
        Aperture(3),
        Detector((12, 12), (6, 6)),
        ThermalMotion(configurations),
    )


@pytest.fixture
def calculations(monkeypatch):
    """The settings and configurations of all calculations."""
    seen = []
    scatter = PlaneWaveEngine.scatter

    def noted(self, requests, progress=None, shared_phonons=False):
        (request,) = requests
        seen.append((self.settings, request.thermal.phonon_configurations, shared_phonons))
        return scatter(self, requests, progress, shared_phonons)

    monkeypatch.setattr(PlaneWaveEngine, "scatter", noted)
    return seen


@pytest.mark.parametrize(
    ("configurations", "slices", "settings", "number"),
    [
        (0, 3, ["band limit (1/Å)", "slices per layer", "incident step (mrad)"], 4),
        (
            2,
            "planes",
            [
                *("band limit (1/Å)", "slices per layer", "incident step (mrad)"),
                *("supercell", "configurations"),
            ],
            8,
        ),
    ],
)
def test_every_setting_is_refined_and_nothing_is_computed_twice(
    calculations, configurations, slices, settings, number
):
    coarse = PlaneWaveSettings(0.6, slices, incident_step_mrad=6, supercell=(3, 2))

    found = list(refinements(requested(configurations), coarse))

    assert [one.setting for one in found] == settings
    assert all(np.isfinite(one.change).all() and (one.change > 0).all() for one in found)
    assert len(set(calculations)) == len(calculations) == number
