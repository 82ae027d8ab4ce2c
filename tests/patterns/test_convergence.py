"""What refining a setting changes: every calculation once, against the right one."""

import numpy as np
import pytest

from pacbed.engines import SimulationRequest, ThermalMotion
from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.patterns.convergence import refinements
from pacbed.specimen.crystal import MATERIALS
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture, Detector

COHERENT = ["band limit (1/Å)", "slices per layer", "incident step (mrad)"]
DIFFUSE = ["supercell", "knots of diffuse scattering (mrad)"]


def requested(motion):
    return SimulationRequest(
        MATERIALS["MoS2"],
        Deformation(),
        (0.0, 0.0),
        1,
        80,
        Aperture(3),
        Detector((12, 12), (6, 6)),
        ThermalMotion(motion),
    )


@pytest.fixture
def calculations(monkeypatch):
    """The settings and thermal motion of all calculations."""
    seen = []
    scatter = PlaneWaveEngine.scatter

    def noted(self, requests, progress=None, shared_phonons=False):
        (request,) = requests
        seen.append((self.settings, request.thermal.motion, shared_phonons))
        return scatter(self, requests, progress, shared_phonons)

    monkeypatch.setattr(PlaneWaveEngine, "scatter", noted)
    return seen


@pytest.mark.parametrize(
    ("motion", "slices", "settings", "number"),
    [
        ("none", 3, COHERENT, 4),
        ("coherent", "planes", COHERENT, 6),
        (2, "planes", [*COHERENT, *DIFFUSE, "configurations"], 10),
        ("full", "planes", [*COHERENT, *DIFFUSE, "waves of diffuse scattering"], 9),
    ],
)
def test_every_setting_is_refined_and_nothing_is_computed_twice(
    calculations, motion, slices, settings, number
):
    coarse = PlaneWaveSettings(
        0.6, slices, 5, (3, 2), diffuse_waves=16, diffuse_knots_mrad=(20, 20)
    )

    found = list(refinements(requested(motion), coarse))

    assert [one.setting for one in found] == settings
    assert all(np.isfinite(one.change).all() and (one.change > 0).all() for one in found)
    assert len(set(calculations)) == len(calculations) == number
