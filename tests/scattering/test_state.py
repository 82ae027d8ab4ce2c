"""A scattered strain state against the patterns of the same simulation."""

from dataclasses import replace

import numpy as np
import pytest

from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.engines.request import SimulationRequest, ThermalMotion
from pacbed.exceptions import RequestError, StoreError
from pacbed.patterns.store import write_patterns
from pacbed.scattering.fit import assemble, write_state
from pacbed.scattering.image import Camera
from pacbed.scattering.request import SeriesRequest, StateRequest
from pacbed.scattering.series import ScatteringSeries
from pacbed.scattering.state import ScatteredState, write_scattered
from pacbed.scattering.strain import StrainRange
from pacbed.specimen.crystal import MATERIALS
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture, Detector

ENGINE = PlaneWaveEngine(
    PlaneWaveSettings(supercell=(3, 2), diffuse_waves=16, incident_step_mrad=2), 2
)
FIELD = 40.0
BEAMS = {Aperture(3.0): (0.5, 1.0), Aperture(5.0): (1.5, -2.0)}
SIMULATIONS = tuple(
    SimulationRequest(
        MATERIALS["MoS2"],
        Deformation(1.02, 0.99, 35.0),
        tilt,
        3,
        80,
        aperture,
        Detector((FIELD, FIELD), (64, 64)),
        seed=2**63 + 1,
    )
    for aperture, tilt in BEAMS.items()
)
ASKED = StateRequest(SIMULATIONS, (1, 3), 1.03)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("state") / "state.zarr.zip"
    write_scattered(path, ASKED, ENGINE, draw=7)
    return path


@pytest.fixture(scope="module")
def state(file):
    return ScatteredState(file)


@pytest.fixture(scope="module")
def library():
    return ENGINE.scatter(SIMULATIONS, largest_stretch=1.03)[0]


def apart(found, expected):
    return np.abs(found - expected).sum() / np.abs(expected).sum()


def test_state_holds_what_was_simulated(state):
    assert state.request == ASKED
    assert state.draw == 7
    assert state.provenance["engine"] == "planewave"
    np.testing.assert_allclose(state.strain, Deformation(1.02, 0.99, 35).strain.ravel()[[0, 3, 1]])
    for aperture, tilt in BEAMS.items():
        assert state.request.tilt_mrad(aperture) == tilt
    assert state.simulation(Aperture(3.0))["thermal"] == {"motion": "full"}


@pytest.mark.parametrize("aperture", BEAMS)
@pytest.mark.parametrize("layers", [1, 3])
def test_image_is_the_pattern_on_fine_pixels_averaged(state, library, aperture, layers):
    fine, pixels = 15, 64
    # Zero angle lies in the middle of a block of fine pixels.
    detector = Detector((FIELD, FIELD), (fine * pixels, fine * pixels))
    shift = (fine - 1) / 2 / fine
    camera = Camera(pixels, FIELD, shift_px=(-shift, -shift))
    tilt = BEAMS[aperture]
    pattern = library.synthesise(aperture, tilt, detector).patterns[layers - 1]
    expected = pattern.reshape(pixels, fine, pixels, fine).sum(axis=(1, 3))
    assert apart(state.image(tilt, aperture, layers, camera), expected) < 1e-3


def test_image_of_a_state_of_a_series_is_nearly_that_of_the_series(tmp_path):
    asked = SeriesRequest(
        MATERIALS["MoS2"], 80, 2, StrainRange((0.98, 1.02)), 5.0, 2.0, 40.0, states=15, degree=2
    )
    asked = replace(asked, motion="coherent")
    paths = [tmp_path / f"{number}.zarr.zip" for number in range(15)]
    for number, path in enumerate(paths):
        write_state(path, asked, number, ENGINE)
    assemble(tmp_path / "series.zarr.zip", paths)
    series, camera = ScatteringSeries(tmp_path / "series.zarr.zip"), Camera(64, 32.0, 11.0)
    for path in paths[:3]:
        state = ScatteredState(path)
        found = state.image((1.5, -1.0), Aperture(5.0), 2, camera)
        expected = series.image(state.strain, (1.5, -1.0), Aperture(5.0), 2, camera)
        assert 0 < apart(found, expected) < 3e-4
        undeformed = series.image((0, 0, 0), (1.5, -1.0), Aperture(5.0), 2, camera)
        assert apart(found, undeformed) > 1e-3


def test_only_wanted_layers_take_room(file, tmp_path):
    write_scattered(tmp_path / "all.zarr.zip", replace(ASKED, kept=(1, 2, 3)), ENGINE)
    assert file.stat().st_size < 0.75 * (tmp_path / "all.zarr.zip").stat().st_size
    found, same = (
        ScatteredState(path).image((1.5, -2.0), Aperture(5.0), 3, Camera(32, 30.0))
        for path in (file, tmp_path / "all.zarr.zip")
    )
    np.testing.assert_array_equal(found, same)


def test_seed_chooses_the_displacements(state, tmp_path):
    others = tuple(replace(one, seed=5) for one in SIMULATIONS)
    write_scattered(tmp_path / "other.zarr.zip", replace(ASKED, simulations=others), ENGINE)
    arguments = (1.5, -2.0), Aperture(5.0), 3, Camera(32, 30.0)
    found = ScatteredState(tmp_path / "other.zarr.zip").image(*arguments)
    assert 1e-5 < apart(found, state.image(*arguments)) < 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 2}, r"state\.zarr\.zip holds 1, 3 layers, not 2"),
        ({"aperture": Aperture(5.5)}, "semi-angle of 5.5 mrad at a tilt of 2.5 mrad is beyond"),
        ({"tilt": (-1.5, 2.0)}, "semi-angle of 5 mrad at a tilt of 2.5 mrad is beyond"),
        ({"camera": Camera(32, 48.0)}, "pixels up to 24 mrad.*beyond the strain state"),
    ],
)
def test_what_lies_beyond_a_state_is_refused(state, changes, message):
    asked = {
        "tilt": (1.5, -2.0),
        "aperture": Aperture(5.0),
        "layers": 3,
        "camera": Camera(32, 30.0),
        **changes,
    }
    with pytest.raises(RequestError, match=message):
        state.image(*asked.values())


def test_an_aperture_that_was_not_simulated_has_no_tilt(state):
    with pytest.raises(RequestError, match="not simulated for a semi-angle of 4 mrad"):
        state.request.tilt_mrad(Aperture(4.0))


def test_patterns_are_no_state(tmp_path):
    path = tmp_path / "pattern.zarr.zip"
    one = replace(SIMULATIONS[0], layers=1, thermal=ThermalMotion("coherent"))
    write_patterns(path, one, ENGINE.simulate(one))
    with pytest.raises(StoreError, match=r"pattern\.zarr\.zip is not a scattered strain state"):
        ScatteredState(path)
