"""Patterns that other programs computed are read right: probes, frozen phonons, other potentials.

`tests/data/README.md` says how these patterns were made.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.reading.fit import Fit
from pacbed.reading.patterns import Pattern, clean
from pacbed.reading.reading import READ, ReadSettings, read_patterns
from pacbed.reading.window import window
from pacbed.scattering.fit import write_series
from pacbed.scattering.image_model import COLUMN, UNKNOWNS, Frame
from pacbed.scattering.request import SeriesRequest
from pacbed.scattering.series import ScatteringSeries
from pacbed.scattering.strain import StrainRange
from pacbed.specimen.crystal import MATERIALS
from pacbed.specimen.microscope import Aperture

pytestmark = pytest.mark.xdist_group("other programs")

DATA = Path(__file__).parents[1] / "data"
LAYERS, ELECTRONS = 10, 1e7
# Between neighbouring discs, and up to where patterns are compared.
SPACING_mrad, REACH_mrad = 15.25, 40.0


def settings(semiangle_mrad, layers):
    aperture = Aperture(semiangle_mrad)
    return ReadSettings(aperture, layers, free=("semiangle",), pixel_uncertainty=0.002)


@pytest.fixture(scope="module")
def other_series(tmp_path_factory):
    folder = tmp_path_factory.mktemp("other")
    asked = SeriesRequest(
        MATERIALS["MoS2"],
        80,
        LAYERS,
        StrainRange((0.965, 1.025)),
        18.13,
        4.0,
        2 * REACH_mrad,
        15,
        2,
    )
    coarse = PlaneWaveSettings(supercell=(3, 2), diffuse_waves=16, incident_step_mrad=2.5)
    write_series(folder / "series.zarr.zip", asked, PlaneWaveEngine(coarse, 2))
    return ScatteringSeries(folder / "series.zarr.zip")


@pytest.mark.parametrize(
    ("name", "tried", "strain_percent", "rotation_deg", "tilt_mrad"),
    [
        ("6_soft", (5, 6, 9, 10), 0.1, 0.03, 0.5),  # found 0.04, 0.001 and 0.08
        # Discs overlap: where they lie is told by brightnesses, which are less certain.
        ("18_soft", (5, 6), 0.3, 0.03, 0.5),  # found 0.17, 0.006 and 0.09
    ],
)
def test_patterns_of_abtem_are_read_right(
    other_series, name, tried, strain_percent, rotation_deg, tilt_mrad
):
    with np.load(DATA / f"abtem_{name}.npz") as held:
        patterns, layers = held["patterns"], held["layers"].tolist()
        pixel_mrad, meta = float(held["pixel_mrad"]), json.loads(str(held["meta"]))
    semiangle = meta["semiangle_mrad"]
    counts = np.random.default_rng(0).poisson(ELECTRONS * patterns).astype(float)
    images = [clean(Pattern("other.npy", one, np.ones(one.shape, bool))) for one in counts]
    parts = [window(image, pixel_mrad, semiangle, SPACING_mrad, REACH_mrad) for image in images]

    readings = read_patterns(other_series, parts, settings(semiangle, tried))

    assert [one.layers for one in readings] == layers
    assert min(one.probabilities[one.layers] for one in readings) > 0.99
    truth = [meta["truth"][parameter] for parameter in READ]
    found = np.array([[one.value(parameter) for parameter in READ] for one in readings]) - truth
    assert np.abs(100 * found[:, :3]).max() < strain_percent, found
    assert np.abs(found[:, 3]).max() < rotation_deg, found
    assert np.abs(found[:, 4:]).max() < tilt_mrad, found


def test_a_pattern_of_prismatic_is_fitted_right(other_series):
    with np.load(DATA / "prismatic2_phonon_strain_tilt_13.npz") as held:
        pattern = held["patterns"][held["layers"].tolist().index(10)]
        x, y = (held[f"k{axis}_mrad"] for axis in "xy")
    width, height = (float(axis[-1] - axis[0]) / (len(axis) - 1) for axis in (x, y))
    frame = Frame(pattern.shape, (width + height) / 2, (len(x) // 2, len(y) // 2))
    seen = (np.hypot(x, y[:, None]) <= REACH_mrad)[None]
    counts = np.random.default_rng(0).poisson(ELECTRONS * np.maximum(pattern, 0))[None]
    start = np.zeros((1, len(UNKNOWNS)))
    start[0, : len(READ)] = [-0.02, 0.015, 0.003, 0.3, -2, 1]
    # Its pixels are no squares.
    start[0, COLUMN["ellipticity"]] = (width - height) / (width + height)
    asked = settings(12.65, (10,))
    unknown = asked.fit_settings(other_series.request.tilt_mrad)
    fit = Fit(other_series, asked.aperture, 10, frame, unknown)
    variances = np.maximum(counts, 1) + (asked.model_error * counts) ** 2

    states = fit.fit(counts, start, variances, seen).states

    found = states[0, : len(READ)] - [-0.03, 0.02, 0, 0, -3, 2]
    # Found: 0.15 %, 0.002° and 0.11 mrad.
    assert np.abs(100 * found[:3]).max() < 0.2, found
    assert abs(found[3]) < 0.02, found
    assert np.abs(found[4:]).max() < 0.3, found
