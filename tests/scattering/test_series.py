"""The scattering series against direct simulations of unseen strains."""

from copy import copy
from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.engines.request import SimulationRequest, ThermalMotion
from pacbed.examples.augment import average_over_pixels, error_of_stored_pixels, resample
from pacbed.exceptions import RequestError, StoreError
from pacbed.scattering import scattered as module
from pacbed.scattering.fit import assemble, write_state
from pacbed.scattering.image import Camera
from pacbed.scattering.request import SeriesRequest
from pacbed.scattering.series import ScatteringSeries
from pacbed.scattering.strain import StrainRange, deformation_of
from pacbed.specimen.crystal import MATERIALS
from pacbed.specimen.microscope import Aperture, Detector

# What they share takes longer than they do: all in one process.
pytestmark = pytest.mark.xdist_group("scattering")

ASKED = SeriesRequest(
    MATERIALS["MoS2"], 80, 2, StrainRange((0.97, 1.03)), 5.0, 3.0, 44.0, states=15, degree=2
)
COARSE = PlaneWaveSettings(supercell=(3, 2), diffuse_waves=16, incident_step_mrad=2.5)
STRAIN, TILT, APERTURE = (0.012, -0.008, 0.01), (1.5, -2.0), Aperture(5.0)


def states_of(folder, asked, threads=2):
    paths = [folder / f"{number:02d}.zarr.zip" for number in range(asked.states)]
    engine = PlaneWaveEngine(COARSE, threads)
    for number, path in enumerate(paths):
        write_state(path, asked, number, engine)
    return paths


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    return states_of(tmp_path_factory.mktemp("states"), ASKED)


@pytest.fixture(scope="module")
def series(states):
    path = states[0].parent / "series.zarr.zip"
    assemble(path, states)
    return ScatteringSeries(path)


def direct(motion, detector):
    request = SimulationRequest(
        ASKED.material,
        deformation_of(np.array(STRAIN)),
        TILT,
        2,
        80,
        APERTURE,
        detector,
        ThermalMotion(motion),
        seed=1,
    )
    return PlaneWaveEngine(replace(COARSE, diffuse_waves=96), 2).simulate(request)


def apart(found, expected):
    return np.abs(found - expected).sum() / np.abs(expected).sum()


def test_discs_of_an_unseen_strain_are_those_of_a_direct_simulation(series):
    detector = Detector((44.0, 44.0), (88, 88))
    expected = direct("coherent", detector).patterns
    library = replace(series.library(STRAIN, [1, 2]), diffuse=None)
    found = library.synthesise(APERTURE, TILT, detector).patterns
    for one, other in zip(found, expected, strict=True):
        assert apart(one, other) < 3e-4
    undeformed = replace(series.library((0, 0, 0), [2]), diffuse=None)
    assert apart(undeformed.synthesise(APERTURE, TILT, detector).patterns[0], expected[1]) > 2e-3


def test_whole_pattern_of_an_unseen_strain_agrees_within_the_noise(series):
    detector = Detector((44.0, 44.0), (88, 88))
    expected = direct("full", detector)
    found = series.pattern(STRAIN, TILT, APERTURE, [1, 2], detector)
    noise = np.hypot(expected.provenance["phonon_noise"], found.phonon_noise)
    for one, other, limit in zip(found.patterns, expected.patterns, noise, strict=True):
        assert apart(one, other) < 1.5 * limit
    np.testing.assert_allclose(
        found.within_band, expected.provenance["fraction_within_band"], atol=2e-3
    )


def test_error_of_states_left_out_is_that_of_unseen_ones(series):
    assert series.leave_out_error.shape == (2, 15)
    assert 0 < series.leave_out_error[0].max() < series.leave_out_error[1].max() < 3e-3


def test_image_in_the_axes_of_the_pattern_is_the_pattern(series):
    camera = Camera(100, 40.0)
    found = series.image(STRAIN, TILT, APERTURE, 2, camera)
    expected = series.pattern(STRAIN, TILT, APERTURE, [2], Detector((40.0, 40.0), (100, 100)))
    # Which samples discs at the centres of pixels, and cuts their edges into sixteenths.
    assert apart(found, expected.patterns[0]) < 0.002


def test_image_is_the_integral_over_turned_and_shifted_pixels(series):
    fine, shift = 6, np.array([0.3, -0.7])
    camera = Camera(64, 36.0, 11.0, tuple(shift))
    # Zero angle lies in the middle of a block of finer pixels.
    place = fine * (32 + shift) + (fine - 1) / 2 - 64 * fine // 2
    finer = Camera(64 * fine, 36.0, 11.0, tuple(place))
    expected = series.image(STRAIN, TILT, APERTURE, 2, finer)
    expected = expected.reshape(64, fine, 64, fine).sum(axis=(1, 3))

    found = series.image(STRAIN, TILT, APERTURE, 2, camera)

    assert apart(found, expected) < 4e-4
    turned_back = series.image(STRAIN, TILT, APERTURE, 2, replace(camera, rotation_deg=-11.0))
    assert apart(turned_back, expected) > 0.02


def test_stored_patterns_become_the_same_images(series):
    # The same route as that of examples made of Prismatic's patterns.
    pixel = 0.1
    stored = series.pattern(STRAIN, TILT, APERTURE, [2], Detector((44.0, 44.0), (440, 440)))
    averaged = average_over_pixels(stored.patterns[0], (pixel, pixel), 36 / 92)
    for rotation, field, shift in ((0.0, 36.0, (0.0, 0.0)), (9.0, 37.5, (1.3, -2.6))):
        camera = Camera(92, field, rotation, shift)
        found = resample(averaged, (pixel, pixel), camera)
        expected = series.image(STRAIN, TILT, APERTURE, 2, camera)
        assert apart(found, expected) < error_of_stored_pixels(pixel, APERTURE.semiangle_mrad)


def test_derivatives_are_those_of_the_image(series):
    camera = Camera(64, 36.0, 7.0, (0.4, -1.2))

    discs = copy(series)
    discs.request = replace(series.request, motion="coherent")

    def image(strain=STRAIN, tilt=TILT, of=series, **changes):
        return of.image(strain, tilt, APERTURE, 2, replace(camera, **changes)).astype(float)

    def difference(step, **changes):
        ahead, behind = ({k: make(sign) for k, make in changes.items()} for sign in (1, -1))
        return (image(**ahead) - image(**behind)) / (2 * step)

    found = series.image_and_derivatives(STRAIN, TILT, APERTURE, 2, camera)

    np.testing.assert_allclose(found.expected, image(), rtol=1e-4, atol=1e-9)
    for i in range(3):
        unit = 2e-4 * np.eye(3)[i]
        expected = difference(2e-4, strain=lambda s, u=unit: tuple(STRAIN + s * u))
        assert apart(found.by_strain[i], expected) < 0.02
    for i in range(2):
        unit = 0.05 * np.eye(2)[i]
        # Without the diffuse scattering, which is left out of these.
        expected = difference(0.05, tilt=lambda s, u=unit: tuple(TILT + s * u), of=lambda s: discs)
        assert apart(found.by_tilt[i], expected) < 0.02
        unit = 0.02 * np.eye(2)[i]
        moved = difference(0.02, shift_px=lambda s, u=unit: tuple(camera.shift_px + s * u))
        assert apart(found.by_shift[i], moved) < 0.02
    turned = difference(0.02, rotation_deg=lambda s: 7 + 0.02 * s)
    assert apart(found.by_rotation, turned) < 0.02
    scaled = difference(3e-4, field_of_view_mrad=lambda s: 36 * (1 + 3e-4 * s))
    assert apart(found.by_field, scaled) < 0.02


def test_series_does_not_depend_on_threads(tmp_path, states):
    asked = replace(ASKED, states=15)
    write_state(tmp_path / "again.zarr.zip", asked, 3, PlaneWaveEngine(COARSE, 1))
    assert (tmp_path / "again.zarr.zip").read_bytes() == states[3].read_bytes()


def test_images_and_polynomials_do_not_depend_on_the_threads_of_linear_algebra(
    tmp_path, states, series
):
    camera = Camera(64, 36.0, 7.0)
    with threadpool_limits(2, user_api="blas"):
        two = series.image(STRAIN, TILT, APERTURE, 2, camera)
        assemble(tmp_path / "again.zarr.zip", states)
    with threadpool_limits(1, user_api="blas"):
        np.testing.assert_array_equal(two, series.image(STRAIN, TILT, APERTURE, 2, camera))
    assert (tmp_path / "again.zarr.zip").read_bytes() == series.path.read_bytes()


def test_soft_edge_is_averaged_over_pixels(series):
    fine = 5
    aperture = Aperture(4.0, edge_mrad=0.4)
    camera = Camera(64, 36.0, 11.0)
    place = (fine - 1) / 2 + fine * 32 - 64 * fine // 2
    finer = Camera(64 * fine, 36.0, 11.0, (place, place))
    expected = series.image(STRAIN, TILT, aperture, 2, finer)
    expected = expected.reshape(64, fine, 64, fine).sum(axis=(1, 3))
    found = series.image(STRAIN, TILT, aperture, 2, camera)
    assert apart(found, expected) < 1e-3
    assert apart(series.image(STRAIN, TILT, Aperture(4.0), 2, camera), expected) > 0.01


def test_a_series_of_another_study_is_refused(series):
    series.check(ASKED)
    with pytest.raises(StoreError, match="its energy_keV is another"):
        series.check(replace(ASKED, energy_keV=60))


def test_each_state_has_displacements_of_its_own():
    seeds = {ASKED.requests(number)[0].seed for number in range(15)}
    assert len(seeds) == 15


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strain": (0.04, 0, 0)}, "strain 4, 0, 0 %.*0.97 to 1.03: .* --stretch 0.97 1.04$"),
        ({"strain": (0, 0, 0.0312345)}, "strain 0, 0, 3.12 %.* --stretch 0.9687 1.0313$"),
        ({"tilt": (4.0, 0.0)}, "tilt of 4 mrad.*up to 8 mrad.* --semiangle 5 --tilt 4$"),
        ({"aperture": Aperture(7.0)}, "semi-angle of 7 mrad.* --semiangle 7 --tilt 3$"),
        ({"layers": 3}, "1 to 2 layers, not 3: .* --layers"),
        ({"camera": Camera(64, 60.0)}, "pixels up to 30 mrad.*beyond the series.* --fov 58$"),
    ],
)
def test_what_lies_beyond_the_series_is_named_with_its_range(series, changes, message):
    asked = {
        "strain": STRAIN,
        "tilt": TILT,
        "aperture": APERTURE,
        "layers": 2,
        "camera": Camera(64, 36.0),
        **changes,
    }
    with pytest.raises(RequestError, match=message):
        series.image(*asked.values())


def test_too_few_states_for_a_degree_are_refused():
    with pytest.raises(RequestError, match=r"degree 3, which have 20 terms.*at least 30 states"):
        replace(ASKED, degree=3, states=29)


def test_number_of_configurations_is_refused():
    with pytest.raises(RequestError, match="full, coherent or none"):
        replace(ASKED, motion=2)


def test_states_of_another_series_or_order_are_refused(tmp_path, states):
    swapped = [states[1], states[0], *states[2:]]
    with pytest.raises(StoreError, match=r"01\.zarr\.zip is not state 0"):
        assemble(tmp_path / "series.zarr.zip", swapped)
    with pytest.raises(StoreError, match="15 strain states, not 14"):
        assemble(tmp_path / "series.zarr.zip", states[:-1])
    assert not list(tmp_path.iterdir())


def test_series_of_other_physics_is_refused(monkeypatch, series):
    monkeypatch.setattr(module, "PHYSICS_VERSION", 99)
    with pytest.raises(StoreError, match=r"version \d+ of the physics, this is 99"):
        ScatteringSeries(series.path)


def test_state_is_not_taken_for_a_series(states):
    with pytest.raises(StoreError, match="not a scattering series"):
        ScatteringSeries(states[0])
