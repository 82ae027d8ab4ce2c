"""Strain from disc positions: read back from patterns whose lattice is known."""

import math
from dataclasses import replace

import numpy as np
import pytest

from pacbed.examples.augment import record
from pacbed.examples.dataset import read_dataset, write_dataset
from pacbed.examples.pattern_set import PatternSet
from pacbed.examples.source import ExampleSource
from pacbed.exceptions import PacbedError
from pacbed.reading.discs import (
    MEASURED,
    DiscMethod,
    discs_overlap,
    predict_by_discs,
    reflections_mrad,
)
from pacbed.specimen.crystal import MATERIALS
from pacbed.specimen.deformation import Deformation
from pacbed.study.model import Configuration

MOS2 = MATERIALS["MoS2"]
CAMERA = replace(Configuration().augmentation(), noise="poisson")  # else as in the paper
SHEARED = Deformation.from_strain(0.03, -0.02, 0.015)


def pattern(
    deformation, rotation_deg=0.0, shift_px=(0.0, 0.0), field_mrad=100.0, pixels=256, filled=None
):
    """Top-hat discs, brightest in the centre, in a pattern of so many mrad; its sum is one."""
    angle = math.radians(rotation_deg)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    places = reflections_mrad(MOS2, 80, 85) @ np.linalg.inv(deformation.gradient) @ turn.T
    fine = 4  # averaged over the area of the pixels
    axis = (np.arange(pixels * fine) + 0.5) / fine - 0.5 - pixels // 2
    pixel = field_mrad / pixels
    image = np.zeros((pixels * fine, pixels * fine), np.float32)
    for place, undeformed in zip(places, reflections_mrad(MOS2, 80, 85), strict=True):
        x = (axis - shift_px[0]) * pixel - place[0]
        y = (axis - shift_px[1]) * pixel - place[1]
        columns, rows = np.flatnonzero(np.abs(x) < 6.4), np.flatnonzero(np.abs(y) < 6.4)
        if len(columns) and len(rows):
            inside = np.hypot(x[columns], y[rows, None]) < 6.35
            value = math.exp(-np.hypot(*undeformed) / 15) * np.ones(inside.shape)
            if filled:
                value *= 1 + filled * x[columns] / 6.35
            image[np.ix_(rows, columns)] += inside * value
    image = image.reshape(pixels, fine, pixels, fine).mean(axis=(1, 3))
    return image / image.sum()


@pytest.fixture(scope="module")
def method():
    return DiscMethod(MOS2, 80, 6.35, CAMERA)


def assert_measured(found, deformation, rotation_deg, strain=2e-4, degrees=0.01):
    np.testing.assert_allclose(found.strain, deformation.strain, atol=strain)
    assert found.rotation_deg == pytest.approx(rotation_deg, abs=degrees)


# What a lattice tells


@pytest.mark.parametrize(
    ("strain", "rotation"),
    [((0.04, 0, 0), 0), ((0, -0.04, 0), 0), ((0, 0, 0.03), -9), ((0.03, -0.02, 0.01), 7)],
)
def test_strain_and_counter_clockwise_rotation_are_read_back_with_their_signs(
    method, strain, rotation
):
    deformation = Deformation.from_strain(*strain)
    assert_measured(method.measure(pattern(deformation, rotation), 100), deformation, rotation)


def test_the_strongest_deformations_with_shift_and_scale_are_still_found(method):
    for angle in (0, 50, 90, 140):
        deformation = Deformation(1.05, 0.95, angle)
        image = pattern(deformation, 10, (-10, 9), 106)
        assert_measured(method.measure(image, 106), deformation, 10)


def test_a_crystal_that_is_turned_far_is_found_if_it_is_said():
    turned = DiscMethod(MOS2, 80, 6.35, CAMERA, rotation_deg=90)
    assert_measured(turned.measure(pattern(SHEARED, 95), 100), SHEARED, 95)


def test_brightness_changes_nothing(method):
    image = pattern(SHEARED)
    first, second = method.measure(image), method.measure(1e7 * image)
    np.testing.assert_allclose(second.strain, first.strain, atol=1e-6)


def test_all_discs_within_the_field_of_view_are_used(method):
    found = method.measure(pattern(Deformation()), 100)
    centres = np.abs(reflections_mrad(MOS2, 80, 80)).max(axis=1)
    assert found.discs == pytest.approx((centres < 50 - 6.35 * 1.07).sum(), abs=2)
    assert found.residual_px < 0.03


# The scale


@pytest.mark.parametrize("field", [94.0, 100.0, 106.0])
def test_the_radius_of_the_discs_tells_the_field_of_view(method, field):
    found = method.measure(pattern(SHEARED, -4, (2.2, 3.4), field))
    assert found.field_of_view_mrad == pytest.approx(field, rel=1e-3)
    assert_measured(found, SHEARED, -4, strain=1.2e-3)


def test_a_wrong_scale_is_a_strain_in_all_directions_but_no_shear_and_no_rotation(method):
    found = method.measure(pattern(SHEARED, 5), 102)
    change = found.strain - SHEARED.strain
    np.testing.assert_allclose(np.diag(change), -0.02, atol=2e-3)
    assert abs(change[0, 1]) < 6e-4
    assert found.rotation_deg == pytest.approx(5, abs=0.01)


# Where it becomes worse


def test_unevenly_filled_discs_are_found_where_they_are(method):
    # All discs are brighter on one side, up to nine times.
    found = method.measure(pattern(SHEARED, 2, filled=0.8), 100)
    assert_measured(found, SHEARED, 2, strain=4e-4)


def test_more_electrons_are_more_precise(method):
    random = np.random.default_rng(1)
    image = pattern(SHEARED, 2)
    spread = []
    for electrons in (1e5, 1e7):
        found = [
            method.measure(record(electrons * image, "poisson", random), 100).strain[0, 1]
            for _ in range(12)
        ]
        spread.append(np.std(found))
    # A hundred times the electrons: ten times the precision, as far as twelve images tell.
    assert 4 < spread[0] / spread[1] < 40
    assert spread[1] < 1e-4


@pytest.mark.parametrize("image", [np.zeros((256, 256)), np.ones((256, 256))])
def test_where_there_are_no_discs_the_crystal_is_taken_to_be_undeformed(method, image):
    found = method.measure(image)
    assert found.discs == 0
    assert np.all(found.strain == 0)
    assert found.rotation_deg == 0


@pytest.mark.parametrize(("semiangle", "overlap"), [(6.35, False), (12.65, True), (7.2, False)])
def test_neighbouring_discs_overlap_beyond_half_their_distance(semiangle, overlap):
    assert discs_overlap(MOS2, 80, semiangle, (0.95, 1.05)) is overlap
    # Stretching the crystal brings discs together.
    assert not discs_overlap(MOS2, 80, 7.5)
    assert discs_overlap(MOS2, 80, 7.5, 1.05)


def test_the_nearest_reflections_are_six_at_the_same_distance():
    lattice = reflections_mrad(MOS2, 80, 20)
    np.testing.assert_allclose(np.hypot(*lattice.T), [0] + 6 * [15.25], atol=0.05)


# Datasets


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    strains = [(0.03, -0.02, 0.015), (-0.04, 0.01, -0.02)]
    drawn = [pattern(Deformation.from_strain(*s), field_mrad=140, pixels=512) for s in strains]
    patterns = np.stack(drawn)
    library = PatternSet(
        patterns.astype(np.float32),
        (140 / 512, 140 / 512),
        [4, 9],
        np.array([[*strains[0], 1, 2], [*strains[1], 3, 4]], float),
    )
    path = tmp_path_factory.mktemp("discs") / "test.zarr.zip"
    write_dataset(path, ExampleSource(library, CAMERA, 12, (7, 6.35, 5, "test")))
    return read_dataset(path)


def assert_close(table, name, tolerance):
    np.testing.assert_allclose(table[f"predicted_{name}"], table[f"true_{name}"], atol=tolerance)


@pytest.mark.parametrize(("known", "tolerance"), [(True, 5e-4), (False, 2.5e-3)])
def test_a_dataset_is_read_back_and_better_with_a_known_scale(dataset, known, tolerance):
    table = predict_by_discs(dataset, MOS2, 80, known)
    for name in ("strain_xx", "strain_yy"):
        assert_close(table, name, tolerance)
    assert_close(table, "strain_xy", 5e-4)
    assert_close(table, "rotation_deg", 0.03)
    assert (table["discs"] > 20).all()
    names = [f"{kind}_{p}" for p in MEASURED for kind in ("true", "predicted")]
    sample = ["semiangle_mrad", "layers", "split"]
    assert list(table) == [*sample, "draw", "electrons", *names, "discs"]
    assert MEASURED == ("strain_xx", "strain_yy", "strain_xy", "rotation_deg")
    assert set(table[sample].itertuples(index=False, name=None)) == {(6.35, 5, "test")}
    np.testing.assert_array_equal(table["draw"], dataset.draws)
    np.testing.assert_allclose(table["true_strain_xy"], dataset.labels[:, 2])


def test_a_measurement_depends_on_its_image_alone(dataset):
    whole = predict_by_discs(dataset, MOS2, 80)
    names = ("images", "labels", "draws", "transformations")
    part = replace(dataset, **{name: getattr(dataset, name)[3:6] for name in names})
    part = predict_by_discs(part, MOS2, 80)
    np.testing.assert_array_equal(part["predicted_strain_xx"], whole["predicted_strain_xx"][3:6])


def test_examples_without_a_lattice_are_counted_and_answered_with_no_strain(dataset):
    images = dataset.images.copy()
    images[2] = 0.25
    table = predict_by_discs(replace(dataset, images=images), MOS2, 80)
    assert list(np.flatnonzero(table["discs"] == 0)) == [2]
    predicted = table.loc[2, [f"predicted_{name}" for name in MEASURED]]
    assert (predicted == 0).all()
    assert table.notna().all(axis=None)


def test_a_lattice_through_few_of_the_discs_in_the_image_is_none(method):
    image = pattern(SHEARED)
    axis = (np.arange(256) - 128) * 100 / 256
    near = np.hypot(axis[None, :], axis[:, None]) < 22
    assert method.measure(image, 100).discs > 30
    found = method.measure(np.where(near, image, 0), 100)
    assert found.discs == 0
    assert (found.strain == 0).all()


def test_stored_fields_of_view_are_those_that_the_discs_show(dataset, method):
    measured = [method.measure(image).field_of_view_mrad for image in dataset.images]
    np.testing.assert_allclose(dataset.fields_of_view_mrad, measured, rtol=2.5e-3)
    assert np.ptp(measured) > 4


# What cannot be measured


def test_a_field_of_view_without_the_inner_discs_is_refused(dataset):
    camera = {**dataset.attributes["augmentation"], "field_of_view_mrad": 40}
    narrow = replace(dataset, attributes={**dataset.attributes, "augmentation": camera})
    with pytest.raises(PacbedError, match=r"40 mrad does not show the six discs.*larger"):
        predict_by_discs(narrow, MOS2, 80)


def test_discs_of_too_few_pixels_are_refused():
    with pytest.raises(PacbedError, match=r"radius of 2 pixels in 32 pixels.*more pixels"):
        DiscMethod(MOS2, 80, 6.35, replace(CAMERA, pixels=32))


def test_images_of_another_size_are_refused(method):
    with pytest.raises(PacbedError, match=r"64 × 64 pixels.*256 × 256"):
        method.measure(np.zeros((64, 64)))


@pytest.mark.parametrize("missing", ["augmentation", "semiangle_mrad"])
def test_a_dataset_that_does_not_say_how_it_was_made_is_refused(dataset, missing):
    attributes = {k: v for k, v in dataset.attributes.items() if k != missing}
    with pytest.raises(PacbedError, match=f"does not say how.*{missing}.*make it anew"):
        predict_by_discs(replace(dataset, attributes=attributes), MOS2, 80)
