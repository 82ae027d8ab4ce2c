"""What speaks against the answers of a network that reads measured patterns alone."""

import json

import numpy as np
import pytest

from pacbed.examples.labels import LabelScaling
from pacbed.learning.network import NetworkSettings, build_network
from pacbed.reading.by_network import read_by_network
from pacbed.specimen.crystal import MATERIALS

PIXELS, WIDTH_MRAD, PIXEL_MRAD = 32, 50.0, 0.5
SCALING = LabelScaling.from_ranges("strain-rotation", (0.95, 1.05), (-10, 10), (-5, 5))
SIMULATION = {"material": vars(MATERIALS["MoS2"]), "energy_keV": 80}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network that has learnt nothing, and answers little more than zero."""
    folder = tmp_path_factory.mktemp("model")
    network = build_network(PIXELS, 4, NetworkSettings(filters=(2,), dense=()), seed=3)
    network.layers[-1].set_weights([np.zeros((512, 4)), np.zeros(4)])
    network.save(folder / "model.keras")
    augmentation = {"pixels": PIXELS, "field_of_view_mrad": WIDTH_MRAD, "translation_px": 1}
    data = {
        "augmentation": augmentation | {"image_mean": [0.2, 0.4]},
        "semiangle_mrad": 6.35,
        "simulation": SIMULATION,
    }
    settings = {"scaling": vars(SCALING), "data": data, "border_share": [0.0, 0.1]}
    (folder / "settings.json").write_text(json.dumps(settings))
    return folder


def discs(x_mrad=0.0, y_mrad=0.0, brighter=0.0):
    """The central disc, brighter on one side, and those around it."""
    k = PIXEL_MRAD * (np.arange(120) - 60)
    x, y = np.meshgrid(k - x_mrad, k - y_mrad)
    image = (np.hypot(x, y) < 6.35) * (100 + brighter * x)
    for angle in np.radians(np.arange(0, 360, 60)):
        image += 10.0 * (np.hypot(x - 15.26 * np.cos(angle), y - 15.26 * np.sin(angle)) < 6.35)
    return image


@pytest.mark.parametrize(
    ("image", "flags"),
    [
        (discs(), ""),
        (discs(1.0, -1.0), ""),
        (discs(brighter=15), ""),  # a tilt moves light, and no discs
        (discs(0.0, 8.4), "centre"),
        (discs() + 3, "background"),
        (np.random.default_rng(0).poisson(5.0, (120, 120)), "centre, background"),
    ],
    ids=["good", "moved a little", "tilted", "moved", "background", "no discs"],
)
def test_what_the_training_did_not_show_is_flagged(folder, image, flags):
    lines = []
    table = read_by_network(folder, image, (PIXEL_MRAD, PIXEL_MRAD), lines.append)
    assert list(table["flags"]) == [flags]
    said = [line for line in lines if line.endswith("the network was not trained for that")]
    assert len(said) == len(flags.split())
