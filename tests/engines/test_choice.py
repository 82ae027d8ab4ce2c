"""Engines are chosen by their settings, and imported only then."""

import subprocess
import sys

import pytest

from pacbed.engines import engine
from pacbed.engines.planewave import PlaneWaveSettings

LARGE = {"h5py", "ase", "scipy.fft", "scipy.interpolate", "threadpoolctl"}


@pytest.mark.parametrize(
    "module",
    [
        "pacbed.engines",
        "pacbed.engines.planewave",
        "pacbed.engines.prismatic",
        "pacbed.specimen.crystal",
        "pacbed.specimen.microscope",
    ],
)
def test_settings_and_requests_are_known_without_the_engines(module):
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert module in done.stdout.split()
    assert LARGE.isdisjoint(done.stdout.split())


def test_engine_is_found_by_its_settings():
    found = engine(PlaneWaveSettings(slices_per_layer=4), threads=2)
    assert found.name == "planewave"
    assert found.settings == PlaneWaveSettings(slices_per_layer=4)
    assert found.threads == 2
