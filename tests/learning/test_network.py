"""The network of the paper, and how it looks at intensities."""

import json
import zipfile
from dataclasses import replace

import keras
import numpy as np
import pytest

from pacbed.exceptions import PacbedError
from pacbed.learning.network import (
    INTENSITIES,
    Intensity,
    NetworkSettings,
    build_network,
    load_network,
)

IMAGES = np.random.default_rng(0).gamma(1.0, size=(6, 16, 16, 1)).astype(np.float32)
TINY = NetworkSettings(filters=(3, 4), dense=(8,))


def array(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def means(images):
    return array(images).mean(axis=(1, 2, 3))


def scaled_to(mean, images):
    return images * (mean / means(images))[:, None, None, None]


# Size


@pytest.mark.parametrize(
    ("outputs", "options", "weights"), [(6, {}, 35_055_846), (6, {"pooled_head": 4}, 3_598_566)]
)
def test_the_network_of_the_paper_has_35_million_parameters(outputs, options, weights):
    assert build_network(256, outputs, NetworkSettings(**options)).count_params() == weights


def test_all_layers_but_the_last_bend_what_they_pass_on():
    network = build_network(64, 4, NetworkSettings((8, 16, 32), (64, 32), 2))
    assert network.output_shape == (None, 4)
    layers = [layer for layer in network.layers if hasattr(layer, "activation")]
    *hidden, last = (layer.activation.__name__ for layer in layers)
    assert hidden == ["elu"] * (2 * 3 + 2)
    assert last == "linear"


def test_the_same_seed_gives_the_same_initial_weights():
    first, again, other = (build_network(16, 6, TINY, seed).get_weights() for seed in (3, 3, 4))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])


# Intensity


def power(exponent):
    layer = Intensity("power")
    layer.build(IMAGES.shape)
    layer.exponent.assign(exponent)
    return layer


@pytest.mark.parametrize(
    ("layer", "exponent"),
    [(Intensity("linear"), 1.0), (Intensity("sqrt"), 0.5), (power(0.2), 0.2), (power(1.7), 1.7)],
)
def test_an_image_is_its_power_with_the_mean_that_it_had(layer, exponent):
    expected = np.maximum(IMAGES, 1e-6) ** exponent
    expected *= (means(IMAGES) / means(expected))[:, None, None, None]
    np.testing.assert_allclose(array(layer(IMAGES)), expected, rtol=1e-3, atol=1e-6)


def test_taking_the_root_before_or_after_scaling_the_mean_is_the_same():
    # The paper takes the root first and scales then; here images come already scaled.
    expected = scaled_to(0.25, np.sqrt(IMAGES))
    shown = array(Intensity("sqrt")(scaled_to(0.25, IMAGES)))
    np.testing.assert_allclose(shown, expected, rtol=1e-5)


@pytest.mark.parametrize("scale", INTENSITIES)
def test_in_training_every_image_gets_a_new_mean_from_the_range(scale):
    layer = Intensity(scale, image_mean=(0.2, 0.3))
    many = np.repeat(IMAGES, 100, axis=0)
    first, second = means(layer(many, training=True)), means(layer(many, training=True))
    assert first.min() > 0.1999
    assert first.max() < 0.3001
    assert first.mean() == pytest.approx(0.25, abs=0.01)
    assert first.std() == pytest.approx(0.1 / np.sqrt(12), rel=0.1)
    assert np.abs(np.corrcoef(first, second)[0, 1]) < 0.2
    ratio = array(layer(IMAGES, training=True)) / array(layer(IMAGES))
    np.testing.assert_allclose(ratio, ratio[:, :1, :1].repeat(16, 1).repeat(16, 2), rtol=1e-5)


@pytest.mark.parametrize("scale", ["sqrt", "power"])
def test_a_negative_pixel_counts_as_dark(scale):
    """Where the background was subtracted; its root was no number, and so were all outputs."""
    dark, negative = IMAGES.copy(), IMAGES.copy()
    dark[:, :3] = 0
    negative[:, :3] = -0.3
    shown = array(Intensity(scale)(dark))
    assert np.all(shown[:, :3] < 1e-2)
    if scale == "sqrt":
        assert np.all(shown[:, :3] == 0)
    np.testing.assert_array_equal(array(Intensity(scale)(negative)), shown)
    assert np.isfinite(shown).all()
    outputs = array(build_network(16, 6, replace(TINY, intensity=scale))(negative))
    assert np.isfinite(outputs).all()


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match=r"one of \('linear', 'sqrt', 'power'\), not 'log'"):
        Intensity("log")


# A power that is learnt


def learnt(exponent, rate, dark_rows=0, steps=200):
    """Let a layer learn a power of images; return its exponent."""
    images = IMAGES.copy()
    images[:, :dark_rows] = 0
    images = np.tile(scaled_to(0.25, images), (steps, 1, 1, 1))
    layer = Intensity("power", image_mean=(0.25, 0.25))
    model = keras.Sequential([keras.Input(images.shape[1:]), layer])
    model.compile(optimizer=keras.optimizers.SGD(rate), loss="mse", jit_compile=False)
    wanted = scaled_to(0.25, images**exponent)
    model.fit(images, wanted, batch_size=len(IMAGES), shuffle=False, verbose=0)
    return float(array(layer.exponent))


@pytest.mark.parametrize(("exponent", "dark_rows"), [(0.3, 0), (0.8, 5)])
def test_the_exponent_is_learnt(exponent, dark_rows):
    assert learnt(exponent, 1.0, dark_rows) == pytest.approx(exponent, abs=0.02)


@pytest.mark.parametrize(("exponent", "limit"), [(4.0, 2.0), (0.01, 0.1)])
def test_the_exponent_stays_within_limits(exponent, limit):
    assert learnt(exponent, rate=10.0, steps=20) == pytest.approx(limit)


# Precision


@pytest.mark.parametrize(
    ("precision", "digits"), [("mixed_float16", 1e-3), ("mixed_bfloat16", 8e-3)]
)
def test_the_precision_changes_numbers_between_image_and_output_alone(precision, digits):
    built = 16, 6, replace(TINY, pooled_head=2, intensity="power"), 3
    single, half = build_network(*built), build_network(*built, precision)
    assert {layer.compute_dtype for layer in single.layers} == {"float32"}
    kinds = {layer.name: layer.compute_dtype for layer in half.layers}
    assert [kinds.pop(name) for name in ("image", "intensity", "parameters")] == ["float32"] * 3
    assert set(kinds.values()) == {precision.removeprefix("mixed_")}
    assert {"block1_conv1", "block2_pool", "head_pool", "flatten", "dense1"} < set(kinds)
    assert {weight.dtype for weight in half.weights} == {"float32"}
    expected, found = array(single(IMAGES)), array(half(IMAGES))
    assert found.dtype == np.float32
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    assert 0 < difference < 4 * digits


# Files


@pytest.mark.parametrize("intensity", INTENSITIES)
def test_a_network_that_was_saved_is_loaded_without_trusted_code(tmp_path, intensity):
    one = replace(TINY, intensity=intensity, image_mean=(0.1, 0.4))
    network = build_network(16, 6, one, seed=5)
    if intensity == "power":
        network.get_layer("intensity").exponent.assign(0.7)
    network.compile(loss="mse")
    network.save(tmp_path / "model.keras")
    loaded = load_network(tmp_path / "model.keras")
    np.testing.assert_array_equal(array(loaded(IMAGES)), array(network(IMAGES)))
    assert not loaded.compiled
    assert loaded.count_params() == network.count_params()
    assert loaded.get_layer("intensity").scale == intensity
    assert tuple(loaded.get_layer("intensity").image_mean) == (0.1, 0.4)


def test_a_network_that_carries_code_is_refused_and_the_code_not_run(tmp_path):
    marker = tmp_path / "run"
    layer = keras.layers.Lambda(lambda x, path=str(marker): (open(path, "w").close(), x)[1])
    network = keras.Sequential([keras.Input((16, 16, 1)), layer])
    assert marker.exists()
    network.save(tmp_path / "model.keras")
    marker.unlink()
    with pytest.raises(PacbedError, match=r"cannot load .*model\.keras: .*[Ll]ambda"):
        load_network(tmp_path / "model.keras")
    assert not marker.exists()


def with_activation(path, module, name):
    """Write a network whose last layer names a function of a module."""
    function = {"module": module, "class_name": "function", "config": name, "registered_name": name}
    whole = path.with_name("whole.keras")
    build_network(16, 6, TINY).save(whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for member in source.namelist():
            content = source.read(member)
            if member == "config.json":
                config = json.loads(content)
                config["config"]["layers"][-1]["config"]["activation"] = function
                content = json.dumps(config)
            target.writestr(member, content)
    return path


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("planted", "function"),
        ("os", "mkdir"),
        ("builtins", "eval"),
        ("keras.src.utils.file_utils", "makedirs"),
    ],
)
def test_a_network_that_names_a_function_is_refused_and_no_code_run(
    tmp_path, monkeypatch, module, name
):
    (tmp_path / "planted.py").write_text("open('run', 'w').close()\ndef function(x): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PacbedError, match=r"cannot load .*spoilt\.keras: .+"):
        load_network(with_activation(tmp_path / "spoilt.keras", module, name))
    assert not (tmp_path / "run").exists()
    load_network(with_activation(tmp_path / "right.keras", "builtins", "elu"))  # of Keras itself


def test_a_damaged_network_is_refused(tmp_path):
    path = tmp_path / "model.keras"
    build_network(16, 6, TINY).save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    for name in ("model", "absent"):
        with pytest.raises(PacbedError, match=rf"cannot load .*{name}\.keras: .+"):
            load_network(tmp_path / f"{name}.keras")
