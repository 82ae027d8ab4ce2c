"""Pools: each image shows a deformation of its own, examples add dose, noise and mean."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from mtf_tables import gaussian_mtf

from pacbed.engines import SimulationRequest, SimulationResult, ThermalMotion
from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.examples.augment import TRANSFORMATIONS, AugmentationSettings
from pacbed.examples.augment_layer import Augmentation
from pacbed.examples.camera import CameraSettings
from pacbed.examples.dataset import read_dataset, refuse_other_simulation, write_dataset
from pacbed.examples.labels import PARAMETERS, LabelScaling
from pacbed.examples.pattern_set import PatternSet, read_pattern_set
from pacbed.examples.pool import read_pool, write_pool, write_pool_of_draws
from pacbed.examples.source import ExampleSource
from pacbed.exceptions import (
    DamagedStoreError,
    MissingStoreError,
    PacbedError,
    RequestError,
    StoreError,
)
from pacbed.learning.sequences import OnlineSequence
from pacbed.learning.training import on_device
from pacbed.patterns.store import write_patterns
from pacbed.scattering.fit import write_series
from pacbed.scattering.image import Camera
from pacbed.scattering.image_model import COLUMN, UNKNOWNS, Frame, ImageModel
from pacbed.scattering.mtf import MTF
from pacbed.scattering.request import SeriesRequest, StateRequest
from pacbed.scattering.series import ScatteringSeries
from pacbed.scattering.state import ScatteredState, write_scattered
from pacbed.scattering.strain import StrainRange
from pacbed.specimen.crystal import MATERIALS
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture, Detector
from pacbed.study.model import Configuration

# What they share takes longer than they do: all in one process.
pytestmark = pytest.mark.xdist_group("pools")

ASKED = SeriesRequest(
    MATERIALS["MoS2"],
    80,
    2,
    StrainRange((0.97, 1.03)),
    5.0,
    2.0,
    44.0,
    states=6,
    degree=1,
    motion="coherent",
)
ENGINE = PlaneWaveEngine(PlaneWaveSettings(incident_step_mrad=2.5), 2)
APERTURE, LAYERS, PIXELS = Aperture(5.0), 2, 24
SETTINGS = replace(
    Configuration().augmentation(),
    pixels=PIXELS,
    field_of_view_mrad=32,
    field_of_view_variation=0.03,
    rotation_deg=(-10, 10),
    translation_px=1,
)
STRAINS = np.array(
    [(0.012, -0.008, 0.01), (-0.01, 0.02, 0), (0, 0, 0), (0.02, 0.01, -0.005), (0, -0.02, 0.008)]
)
TILTS = np.array([(1.5, -1.0), (-0.5, 1.8), (0, 0), (0.3, -1.9), (1.2, 1.2)])
GEOMETRY = TRANSFORMATIONS[:4]
STATES = [
    (Deformation.from_strain(*strain), tuple(tilt))
    for strain, tilt in zip(STRAINS.tolist(), TILTS.tolist(), strict=True)
]
ADDRESS = (7, 5.0, LAYERS, "train")
ELLIPSE = {"ellipticity": (0.01, 0.03)}
CAMERA = CameraSettings(**ELLIPSE, blur_px=(0.5, 1.0), background=(0, 0.2), halo=(0, 0.2))


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    path = tmp_path_factory.mktemp("series") / "series.zarr.zip"
    write_series(path, ASKED, ENGINE)
    return ScatteringSeries(path)


def made(path, series, states=STATES, **changes):
    asked = {"aperture": APERTURE, "layers": LAYERS, "settings": SETTINGS, "seed": 3, **changes}
    write_pool(path, series, states, **asked)
    return path


@pytest.fixture(scope="module")
def file(series, tmp_path_factory):
    return made(tmp_path_factory.mktemp("pool") / "pool.zarr.zip", series)


@pytest.fixture(scope="module")
def pool(file):
    return read_pool(file, 5.0, LAYERS)


def source_of(file, examples=100, **changes):
    return ExampleSource.read([file], None, replace(SETTINGS, **changes), examples, ADDRESS)


def examples_of(source):
    """Numbers of the images, transformations, and examples."""
    pattern, transformation, key = source.draw(0, source.examples)
    layer = Augmentation(source.library, source.settings)
    return pattern, transformation, layer.arrays(pattern, transformation, key)


def apart(found, expected):
    return np.abs(found - expected).sum() / np.abs(expected).sum()


# What a pool holds


def image_of(series, strain, tilt, rotation, field, shift):
    """The image of a series, of mean one if all electrons are seen."""
    camera = Camera(PIXELS, field, rotation, tuple(shift))
    found = series.image(strain, tuple(tilt), APERTURE, LAYERS, camera)
    return PIXELS**2 * np.maximum(found, 0)


@pytest.mark.parametrize("number", range(len(STATES)))
def test_an_image_is_that_of_its_strain_tilt_rotation_field_and_shift(series, pool, number):
    def of(n):
        rotation, field, *shift = pool.geometry[n].tolist()
        return {
            "strain": STRAINS[n],
            "tilt": TILTS[n].tolist(),
            "rotation": rotation,
            "field": field,
            "shift": shift,
        }

    one, other = of(number), of(number - 1)
    found = pool.patterns[number]
    assert found.dtype == np.float16
    assert apart(found.astype(float), image_of(series, **one)) < 3e-4
    for name in one:
        changed = image_of(series, **{**one, name: other[name]}).astype(float)
        assert not np.array_equal(changed, found), name


def test_images_lie_as_resampled_patterns(series, pool):
    # As made of patterns with fine pixels: there, discs with hard edges are interpolated.
    detector = Detector((44.0, 44.0), (352, 352))
    patterns = np.concatenate(
        [
            series.pattern(strain, tilt, APERTURE, [LAYERS], detector).patterns
            for strain, tilt in zip(STRAINS, TILTS.tolist(), strict=True)
        ]
    )
    fine = PatternSet(patterns, (0.125, 0.125), range(len(patterns)), pool.parameters)
    layer, every = Augmentation(fine, SETTINGS), np.arange(len(patterns), dtype=np.int32)
    means = pool.patterns.astype(float).mean(axis=(1, 2), keepdims=True)

    def differences(**turned_over):
        """Relative L1 of images without noise and of mean one."""
        signs = [turned_over.get(name, 1) for name in GEOMETRY]
        geometry = np.hstack([pool.geometry * signs, np.tile((1e14, 1), (len(every), 1))])
        key = np.zeros((len(every), 2), np.int32)
        images = layer.arrays(every, geometry.astype(np.float32), key)
        return [apart(*pair) for pair in zip(pool.patterns / means, images, strict=True)]

    assert max(differences()) < 0.006
    for name in ("rotation_deg", "shift_x_px", "shift_y_px"):
        assert max(differences(**{name: -1})) > 0.015, name


def test_transformations_are_drawn_from_their_ranges(series, tmp_path):
    states = 40 * [STATES[2]]
    geometry = read_pool(made(tmp_path / "pool", series, states), 5.0, LAYERS).geometry
    ranges = {
        "rotation_deg": (-10, 10),
        "field_of_view_mrad": (0.97 * 32, 1.03 * 32),
        "shift_x_px": (-1, 1),
        "shift_y_px": (-1, 1),
    }
    assert tuple(ranges) == GEOMETRY
    for values, (low, high) in zip(geometry.T, ranges.values(), strict=True):
        assert low < values.min() < low + 0.2 * (high - low)
        assert high - 0.2 * (high - low) < values.max() < high
        assert len(set(values)) == 40


def test_a_single_undeformed_and_upright_crystal_makes_a_pool(series, tmp_path):
    found = read_pool(made(tmp_path / "pool", series, [STATES[2]]), 5.0, LAYERS)
    np.testing.assert_array_equal(found.parameters, np.zeros((1, 5)))


def test_images_are_none_of_the_draws_of_a_study(pool):
    assert len(set(pool.draws)) == len(STATES)
    assert max(pool.draws) < 0


def test_same_arguments_same_bytes(series, file, tmp_path):
    again = made(tmp_path / "again", series)
    assert again.read_bytes() == file.read_bytes()


def test_a_larger_pool_begins_with_the_same_images(series, pool, tmp_path):
    larger = read_pool(made(tmp_path / "pool", series, 14 * STATES), 5.0, LAYERS)
    for name in ("patterns", "geometry", "parameters"):
        np.testing.assert_array_equal(getattr(larger, name)[:5], getattr(pool, name))
    # The same states again, turned and shifted in another way.
    assert len(np.unique(larger.patterns, axis=0)) == 70


@pytest.mark.parametrize("change", [{"seed": 4}, {"layers": 1}, {"aperture": Aperture(4.0)}])
def test_seed_layers_and_semiangle_each_give_other_transformations(series, pool, tmp_path, change):
    layers, aperture = change.get("layers", LAYERS), change.get("aperture", APERTURE)
    path = made(tmp_path / "pool", series, STATES[:1], **change)
    found = read_pool(path, aperture.semiangle_mrad, layers).geometry
    assert not np.intersect1d(found, pool.geometry).size


def test_progress_counts_images(series, tmp_path):
    told = []
    made(tmp_path / "pool", series, STATES[:3], progress=lambda *counts: told.append(counts))
    assert told == [(1, 3), (2, 3), (3, 3)]


# Examples of a pool


def test_labels_name_strain_rotation_and_tilt_of_the_image(file, pool):
    source = source_of(file)
    pattern, transformation, _ = source.draw(0, 100)
    assert set(pattern) == set(range(len(STATES)))
    labels = dict(zip(PARAMETERS, source.labels(pattern, transformation).T, strict=True))
    for n, name in enumerate(("strain_xx", "strain_yy", "strain_xy")):
        np.testing.assert_allclose(labels[name], STRAINS[pattern, n], atol=1e-12)
    for n, name in enumerate(("tilt_x_mrad", "tilt_y_mrad")):
        np.testing.assert_array_equal(labels[name], TILTS[pattern, n])
    np.testing.assert_allclose(labels["rotation_deg"], pool.geometry[pattern, 0], rtol=1e-6)


def test_examples_of_an_image_differ_in_dose_noise_and_mean_alone(file):
    source = source_of(file, examples=30)
    pattern, transformation, images = examples_of(source)
    _, _, still = examples_of(source_of(file, examples=30, electrons=(1e14, 1e14)))
    for number in set(pattern):
        these = pattern == number
        shown = transformation[these]
        assert these.sum() > 1
        assert len(np.unique(shown[:, :4], axis=0)) == 1
        assert all(len(set(column)) == these.sum() for column in shown[:, 4:].T)
        assert len(np.unique(images[these], axis=0)) == these.sum()
        # Without noise they are one image, scaled.
        shapes = still[these] / shown[:, 5, None, None]
        np.testing.assert_allclose(
            shapes, np.broadcast_to(shapes[0], shapes.shape), rtol=1e-4, atol=1e-5 * shapes.max()
        )
    np.testing.assert_allclose(images.mean(axis=(1, 2)), transformation[:, 5], rtol=1e-4)


def test_examples_have_the_poisson_statistics_of_their_dose(series, tmp_path):
    path, count, electrons = made(tmp_path / "pool", series, STATES[:1]), 2000, 3e3
    dose = {"noise": "poisson", "electrons": (electrons, electrons)}
    _, _, images = examples_of(source_of(path, count, **dose))
    # In each some dim pixel has one electron.
    lowest = np.where(images > 0, images, np.inf).min(axis=(1, 2), keepdims=True)
    counts = images.astype(float) / lowest
    np.testing.assert_allclose(counts, np.rint(counts), rtol=1e-4, atol=1e-3)
    expected = electrons * read_pool(path, 5.0, LAYERS).patterns[0].astype(float) / PIXELS**2
    lit = expected > 0.1
    assert lit.sum() > 100
    deviation = (counts.mean(axis=0) - expected)[lit] / np.sqrt(expected[lit] / count)
    assert np.sqrt(np.mean(deviation**2)) == pytest.approx(1, abs=0.2)
    dispersion = counts.var(axis=0)[lit] / expected[lit]
    assert dispersion.mean() == pytest.approx(1, abs=0.02)
    assert counts[:, expected == 0].max() == 0


@pytest.mark.parametrize("noise", ["lognormal", "poisson", "camera"])
def test_examples_of_a_file_are_those_made_online(series, file, tmp_path, noise):
    if noise == "camera":
        settings = replace(SETTINGS, camera=CAMERA)
        path = made(tmp_path / "pool", series, settings=settings)
        source = ExampleSource.read([path], None, settings, 70, ADDRESS)
    else:
        source = source_of(file, 70, noise=noise)
    write_dataset(tmp_path / "train.zarr.zip", source)
    data = read_dataset(tmp_path / "train.zarr.zip")
    scaling = LabelScaling.from_ranges("strain-rotation", (0.97, 1.03), (-10, 10), (-2, 2))
    sequence = OnlineSequence(source, scaling, 7)
    nothing = keras.Sequential([keras.Input((PIXELS, PIXELS, 1)), keras.layers.Identity()])
    images = on_device(nothing, source).predict(sequence, verbose=0)[..., 0]
    found, expected = images.astype(np.float16), data.images
    if noise == "camera":  # the last digit may depend on the batch
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-6)
        assert data.transformations.shape == (70, 14)
        assert AugmentationSettings(**data.attributes["augmentation"]).camera == CAMERA
    else:
        np.testing.assert_array_equal(found, expected)
    targets = np.concatenate([sequence[n][1] for n in range(len(sequence))])
    expected = scaling.scale(data.columns(scaling.parameters))
    np.testing.assert_allclose(targets, expected, rtol=1e-5, atol=1e-6)
    assert set(data.draws) == set(source.library.draws)


# Pools of draws


DRAWS = (3, 8, 12)


def state_of(folder, row, draw, energy_keV=80):
    request = SimulationRequest(
        ASKED.material,
        Deformation.from_strain(*STRAINS[row].tolist()),
        tuple(TILTS[row].tolist()),
        LAYERS,
        energy_keV,
        APERTURE,
        Detector((44.0, 44.0), (64, 64)),
        ThermalMotion("coherent"),
    )
    path = folder / f"{draw}-{energy_keV}.zarr.zip"
    write_scattered(path, StateRequest((request,), (LAYERS,), 1.03), ENGINE, draw=draw)
    return path


@pytest.fixture(scope="module")
def draws(tmp_path_factory):
    folder = tmp_path_factory.mktemp("draws")
    return [state_of(folder, row, draw) for row, draw in enumerate(DRAWS)]


def made_of(path, states, images=2, **changes):
    asked = {"aperture": APERTURE, "layers": LAYERS, "settings": SETTINGS, "seed": 3, **changes}
    write_pool_of_draws(path, states, images, **asked)
    return path


@pytest.fixture(scope="module")
def pool_of_draws(draws):
    return read_pool(made_of(draws[0].parent / "pool", draws), 5.0, LAYERS)


def test_each_draw_has_images_in_places_of_their_own(draws, pool_of_draws):
    assert pool_of_draws.draws == [3, 3, 8, 8, 12, 12]
    rows = [0, 0, 1, 1, 2, 2]
    shown = np.column_stack([STRAINS, TILTS])[rows]
    np.testing.assert_allclose(pool_of_draws.parameters, shown, atol=1e-12)
    assert len(np.unique(pool_of_draws.geometry, axis=0)) == 6
    for n, row in enumerate(rows):
        rotation, field, *shift = pool_of_draws.geometry[n].tolist()
        camera = Camera(PIXELS, field, rotation, tuple(shift))
        state = ScatteredState(draws[row])
        image = state.image(tuple(TILTS[row]), APERTURE, LAYERS, camera)
        expected = (PIXELS**2 * np.maximum(image, 0)).astype(np.float16)
        np.testing.assert_array_equal(pool_of_draws.patterns[n], expected)


def test_images_of_draws_are_those_of_the_series(series, pool_of_draws):
    for n in range(6):
        rotation, field, *shift = pool_of_draws.geometry[n].tolist()
        strain, tilt = np.split(pool_of_draws.parameters[n], [3])
        expected = image_of(series, strain, tilt, rotation, field, shift)
        assert apart(pool_of_draws.patterns[n].astype(float), expected) < 0.002


def test_the_images_of_a_draw_depend_on_no_other(draws, pool_of_draws, tmp_path):
    alone = read_pool(made_of(tmp_path / "pool", draws[1:2], 3), 5.0, LAYERS)
    for name in ("patterns", "geometry", "parameters"):
        np.testing.assert_array_equal(getattr(alone, name)[:2], getattr(pool_of_draws, name)[2:4])


def test_examples_know_their_draws(draws, tmp_path):
    made_of(tmp_path / "pool", draws)
    source = ExampleSource.read([tmp_path / "pool"], None, SETTINGS, 40, ADDRESS)
    write_dataset(tmp_path / "test.zarr.zip", source)
    data = read_dataset(tmp_path / "test.zarr.zip")
    assert set(data.draws) == set(DRAWS)
    for draw, label in zip(data.draws, data.labels, strict=True):
        np.testing.assert_allclose(label[:3], STRAINS[DRAWS.index(draw)], atol=1e-7)


def test_every_draw_is_taken_in_turn_and_a_larger_pool_begins_with_the_same(draws, tmp_path):
    shown = []
    for images in (2, 3):
        pool = read_pool(made_of(tmp_path / f"{images}", draws, images), 5.0, LAYERS)
        source = ExampleSource(pool, SETTINGS, 12, (7, 5.0, LAYERS, "test"))
        pattern, transformation, _ = source.draw(0, 12)
        assert [pool.draws[n] for n in pattern] == 4 * [3, 8, 12]
        shown.append(transformation[:, :4])
    np.testing.assert_array_equal(shown[0][:6], shown[1][:6])
    np.testing.assert_array_equal(shown[0][6:], shown[0][:6])
    assert len(np.unique(shown[1][:9], axis=0)) == 9


def test_draws_that_were_simulated_otherwise_make_no_pool(draws, tmp_path):
    other = state_of(tmp_path, 1, 8, energy_keV=60)
    with pytest.raises(StoreError, match=r"8-60\.zarr\.zip was simulated otherwise than .*3-80"):
        made_of(tmp_path / "pool", [draws[0], other])
    with pytest.raises(RequestError, match="not simulated for a semi-angle of 4 mrad"):
        made_of(tmp_path / "pool", draws, aperture=Aperture(4.0))
    assert not (tmp_path / "pool").exists()


# What is no pool of this address


@pytest.fixture
def patterns(tmp_path):
    """A store of patterns of the same crystal and beam."""
    path = tmp_path / "00000.zarr.zip"
    request = SimulationRequest(
        ASKED.material,
        Deformation(),
        (0.0, 0.0),
        LAYERS,
        80,
        APERTURE,
        Detector((40.0, 40.0), (8, 8)),
        ThermalMotion("coherent"),
    )
    flat = np.full((LAYERS, 8, 8), 1 / 64, np.float32)
    write_patterns(path, request, SimulationResult(flat, {"engine": "planewave"}))
    return path


def test_a_pool_of_another_semiangle_or_thickness_is_refused(file):
    for wanted, named in (((6.35, 2), "not of 6.35 mrad and 2"), ((5.0, 1), "5 mrad and 1")):
        said = rf"pool\.zarr\.zip is of 5\.0 mrad and 2 layers, {'not of ' * (wanted[1] == 1)}"
        with pytest.raises(StoreError, match=f"{said}{named}: .*make it again"):
            ExampleSource.read([file], None, SETTINGS, 10, (7, *wanted, "train"))


def test_patterns_are_no_pool_and_a_pool_is_no_pattern(file, patterns):
    with pytest.raises(StoreError, match=r"00000\.zarr\.zip is not a pool of images: .*another"):
        source_of(patterns)
    with pytest.raises(StoreError, match=r"pool\.zarr\.zip is a store of another kind"):
        ExampleSource.read([file], [0], SETTINGS, 10, ADDRESS)


def test_a_pool_that_is_damaged_or_missing_is_named(file, tmp_path):
    with pytest.raises(MissingStoreError, match=r"none\.zarr\.zip does not exist"):
        source_of(tmp_path / "none.zarr.zip")
    damaged = tmp_path / "damaged.zarr.zip"
    damaged.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(DamagedStoreError, match=r"damaged\.zarr\.zip"):
        source_of(damaged)


def test_a_pool_and_patterns_of_one_study_go_together(file, patterns):
    training = source_of(file).attributes
    validation = {"simulation": read_pattern_set([patterns], [0], LAYERS).simulation}
    refuse_other_simulation(training, validation, "the set")


def test_what_lies_beyond_the_series_leaves_no_pool(series, tmp_path):
    wide = replace(SETTINGS, field_of_view_mrad=60)
    with pytest.raises(PacbedError, match="beyond the series"):
        made(tmp_path / "pool", series, settings=wide)
    assert list(tmp_path.iterdir()) == []


# What a camera adds


def test_images_of_a_pool_are_ellipses_of_their_own(series, pool, draws, tmp_path):
    settings = replace(SETTINGS, camera=CameraSettings(**ELLIPSE))
    found = read_pool(made(tmp_path / "pool", series, settings=settings), 5.0, LAYERS)
    # The rest of their geometry is the same.
    np.testing.assert_array_equal(found.geometry[:, :4], pool.geometry)
    sizes = np.hypot(*found.geometry[:, 4:].T)
    assert 0.01 <= sizes.min() < sizes.max() <= 0.03
    for n, (rotation, field, x, y, *ellipse) in enumerate(found.geometry.tolist()):
        camera = Camera(PIXELS, field, rotation, (x, y), tuple(ellipse))
        image = series.image(STRAINS[n], tuple(TILTS[n]), APERTURE, LAYERS, camera)
        expected = PIXELS**2 * np.maximum(image, 0)
        assert apart(found.patterns[n].astype(float), expected) < 0.006
        assert apart(pool.patterns[n].astype(float), expected) > 0.015
    of_draws = read_pool(made_of(tmp_path / "draws", draws, settings=settings), 5.0, LAYERS)
    rotation, field, x, y, *ellipse = of_draws.geometry[2].tolist()
    camera = Camera(PIXELS, field, rotation, (x, y), tuple(ellipse))
    image = series.image(STRAINS[1], tuple(TILTS[1]), APERTURE, LAYERS, camera)
    assert apart(of_draws.patterns[2].astype(float), PIXELS**2 * np.maximum(image, 0)) < 0.002


def test_examples_of_a_camera_are_those_of_the_model_of_images(series, tmp_path):
    settings = replace(SETTINGS, camera=CAMERA, electrons=(1e14, 1e14))
    path = made(tmp_path / "pool", series, settings=settings)
    source = ExampleSource.read([path], None, settings, 12, ADDRESS)
    pattern, transformation, images = examples_of(source)
    states = np.zeros((12, len(UNKNOWNS)))
    states[:, :3], states[:, 4:6] = STRAINS[pattern], TILTS[pattern]
    for name, values in zip(settings.columns, transformation.T, strict=True):
        if name in UNKNOWNS:
            states[:, COLUMN[name]] = values
    states[:, COLUMN["log_scale"]] = np.log(transformation[:, 1] / 32)
    model = ImageModel(series, APERTURE, LAYERS, Frame.centred(PIXELS, 32), ("blur_px",))
    expected = model.images(states).reshape(-1, PIXELS, PIXELS)
    expected *= (transformation[:, 5] / expected.mean(axis=(1, 2)))[:, None, None]
    np.testing.assert_allclose(images, expected, atol=2e-3 * expected.max())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pixels": 32}, "pixels is 24, not 32"),
        ({"rotation_deg": (-5, 5)}, r"rotation_deg is \[-10, 10\], not \[-5, 5\]"),
        ({"camera": CAMERA}, r"ellipticity is None, not \[0.01, 0.03\]"),
    ],
)
def test_a_pool_of_another_geometry_is_refused(file, change, said):
    with pytest.raises(StoreError, match=f"images of another geometry than the examples: {said}"):
        source_of(file, **change)


def test_images_are_as_a_given_mtf_shows_them(series, draws, pool, pool_of_draws, tmp_path):
    settings = replace(SETTINGS, mtf=MTF(gaussian_mtf(0.8)))
    path = made(tmp_path / "pool", series, settings=settings)
    made_of(tmp_path / "draws", draws, settings=settings)
    for found, sharp in ((path, pool), (tmp_path / "draws", pool_of_draws)):
        images, sharp = (n.patterns.astype(float) for n in (read_pool(found, 5.0, LAYERS), sharp))
        assert apart(images, settings.mtf.blurred(sharp)) < 0.002
        assert apart(images, sharp) > 0.05
    with pytest.raises(StoreError, match=r"another geometry than the examples: mtf is "):
        source_of(path)


def test_a_pool_of_other_ellipses_is_refused(series, tmp_path):
    settings = replace(SETTINGS, camera=CameraSettings(**ELLIPSE))
    path = made(tmp_path / "pool", series, settings=settings)
    with pytest.raises(StoreError, match=r"ellipticity is \[0.01, 0.03\], not \[0.0, 0.03\]"):
        source_of(path, camera=CameraSettings(ellipticity=(0.0, 0.03)))


def test_a_camera_without_ellipses_needs_no_other_pool(series, file, tmp_path):
    blurred = CameraSettings(blur_px=(0.5, 1.0))
    path = made(tmp_path / "pool", series, settings=replace(SETTINGS, camera=blurred))
    for one, camera in ((file, blurred), (path, None)):
        _, transformation, images = examples_of(source_of(one, camera=camera))
        assert transformation.shape[1] == (14 if camera else 6)
        assert images.mean() == pytest.approx(transformation[:, 5].mean(), rel=1e-3)
