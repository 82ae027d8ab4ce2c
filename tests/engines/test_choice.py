"""Engines are chosen by name, and imported only then."""

import subprocess
import sys

import pytest

from pacbed.engines import engine
from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.exceptions import RequestError

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


def test_engine_is_found_by_name():
    found = engine("planewave", {"slices_per_layer": 4}, threads=2)
    assert found.settings == PlaneWaveSettings(slices_per_layer=4)
    assert found.threads == 2


def test_unknown_engine_is_refused():
    with pytest.raises(
        RequestError, match="unknown engine 'abacus': known are planewave and prismatic"
    ):
        engine("abacus", {})
