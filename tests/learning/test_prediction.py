"""What a network predicts for measured patterns, whose pixels may have defects."""

import json

import keras
import numpy as np
import pytest

from pacbed.examples.augment import average_over_pixels, resample
from pacbed.examples.labels import LabelScaling
from pacbed.exceptions import PacbedError
from pacbed.learning.network import NetworkSettings, build_network
from pacbed.learning.prediction import predict_with, read_network
from pacbed.scattering.image import Camera

PIXELS, WIDTH_MRAD = 16, 32.0
PIXEL_MRAD = (0.8, 0.9)
SCALING = LabelScaling.from_ranges("strain-rotation", (0.95, 1.05), (-10, 10), (-5, 5))
# A disc in a field that is wider than that of the network.
X, Y = np.meshgrid(0.8 * (np.arange(48) - 24), 0.9 * (np.arange(44) - 22))
PATTERN = np.where(np.hypot(X - 2, Y + 1) < 7, 3.0, 0.0)


@pytest.fixture(scope="module", params=["linear", "sqrt", "power"])
def files(request, tmp_path_factory):
    """A network that has learnt nothing, and its settings."""
    folder = tmp_path_factory.mktemp("model")
    widths = NetworkSettings(filters=(2,), dense=(), intensity=request.param)
    network = build_network(PIXELS, 4, widths, seed=3)
    network.save(folder / "model.keras")
    augmentation = {"pixels": PIXELS, "field_of_view_mrad": WIDTH_MRAD, "image_mean": [0.2, 0.4]}
    data = {"augmentation": augmentation, "semiangle_mrad": 6.35}
    settings = {"scaling": vars(SCALING), "data": data}
    (folder / "settings.json").write_text(json.dumps(settings))
    return folder / "model.keras", folder / "settings.json"


def predicted(files, images, log=lambda line: pytest.fail(line), pixel_mrad=PIXEL_MRAD):
    def say(line):
        if not line.startswith("note: "):  # of coarse pixels, as all are here
            log(line)

    table = predict_with(read_network(*files), images, pixel_mrad, say)
    columns = [f"predicted_{name}" for name in SCALING.parameters]
    assert list(table) == ["pattern", "not_finite", "negative", *columns, "flags"]
    return table, table[columns].to_numpy()


def test_a_pattern_is_brought_to_the_field_and_the_mean_of_the_training(files):
    averaged = average_over_pixels(PATTERN, PIXEL_MRAD, 2.0)
    image = resample(averaged, PIXEL_MRAD, Camera(PIXELS, WIDTH_MRAD))
    image *= 0.3 / image.mean()
    network = keras.saving.load_model(files[0])
    expected = SCALING.unscale(network.predict(image[None, ..., None], verbose=0))
    table, values = predicted(files, np.stack([PATTERN, 100 * PATTERN, np.roll(PATTERN, 3)]))
    np.testing.assert_allclose(values[:2], np.repeat(expected, 2, axis=0), rtol=1e-5, atol=1e-8)
    assert np.abs(values[2] - values[0]).max() > 1e-4
    assert list(table["pattern"]) == [0, 1, 2]


def test_pixels_that_are_negative_or_not_finite_are_counted_and_count_as_dark(files):
    clean, dark, defective = PATTERN.copy(), PATTERN.copy(), PATTERN.copy()
    dark[20:22, 24] = 0
    defective[20:22, 24] = np.nan, np.inf
    defective[2, 3] = -1e-5
    lines = []
    table, values = predicted(files, np.stack([clean, defective, dark]), lines.append)
    assert list(table["not_finite"]) == [0, 2, 0]
    assert list(table["negative"]) == [0, 1, 0]
    np.testing.assert_allclose(values[1], values[2], atol=1e-5)
    assert np.abs(values[0] - values[2]).max() > 1e-4
    [line] = lines
    assert line.startswith("pattern 1: of 2112 pixels 2 are not finite and count as dark, 1 are")


def test_the_noise_of_a_camera_keeps_its_mean(files):
    """Negative pixels are averaged before they are cut off: half of the noise is no background."""
    noise = np.random.default_rng(0).normal(0, 0.2, PATTERN.shape)
    images = np.stack([PATTERN, PATTERN + noise, np.maximum(PATTERN + noise, 0)])
    _, (clean, noisy, cut) = predicted(files, images, lambda line: None)
    assert np.linalg.norm(noisy - clean) < 0.75 * np.linalg.norm(cut - clean)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_an_empty_pattern_is_refused(files, value):
    images = np.stack([PATTERN, np.full_like(PATTERN, value)])
    with pytest.raises(PacbedError, match=r"pattern 1 is empty: no pixel of the field is positive"):
        predicted(files, images, lambda line: None)


@pytest.mark.parametrize(
    ("images", "pixel_mrad", "said"),
    [
        (PATTERN, (0.8, 0.6), r"show 38\.4 × 26\.4 mrad, but .* trained with 32 mrad"),
        (PATTERN[0], PIXEL_MRAD, r"shape \(patterns, ny, nx\), not \(48,\)"),
    ],
)
def test_patterns_that_do_not_fit_are_refused(files, images, pixel_mrad, said):
    with pytest.raises(PacbedError, match=said):
        predicted(files, images, pixel_mrad=pixel_mrad)


@pytest.mark.parametrize("data", [{}, {"augmentation": {"pixels": 24}}, None])
def test_settings_that_do_not_say_how_images_were_made_are_refused(files, tmp_path, data):
    (tmp_path / "settings.json").write_text(json.dumps({"scaling": vars(SCALING), "data": data}))
    with pytest.raises(PacbedError, match=r"settings\.json is not what pacbed train writes\. Name"):
        read_network(files[0], tmp_path / "settings.json")


def test_a_prediction_outside_the_ranges_of_the_training_is_flagged(files, tmp_path):
    network = keras.saving.load_model(files[0])
    *_, last = network.layers
    last.set_weights([np.zeros_like(last.get_weights()[0]), np.array([0.9, -1.2, 1.1, np.nan])])
    network.save(tmp_path / "model.keras")
    lines = []
    table, _ = predicted((tmp_path / "model.keras", files[1]), PATTERN, lines.append)
    assert list(table["flags"]) == ["strain_yy, strain_xy, rotation_deg"]
    assert len(lines) == 1
    assert "strain_yy, strain_xy, rotation_deg outside the range of the training" in lines[0]


@pytest.mark.parametrize(("pixel", "said"), [(2.0, False), (1.0, True), (0.1, False)])
def test_coarse_pixels_that_are_not_those_of_the_training_are_said(files, pixel, said):
    points = round(40 / pixel)
    image = np.zeros((points, points))
    image[points // 2 - 1 : points // 2 + 2, points // 2 - 1 : points // 2 + 2] = 1
    lines = []
    predict_with(read_network(*files), image, (pixel, pixel), lines.append)
    notes = [line for line in lines if line.startswith("note: in the pixels of the training, 2 m")]
    assert len(notes) == said
    assert not said or "pixels of 1 mrad differ by about 3 %" in notes[0]
