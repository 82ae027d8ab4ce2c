"""``pacbed read`` and ``pacbed design`` with crystals other than the paper's."""

import json

import numpy as np
import pytest
from stacks import DISPLACEMENTS, mos2_on_graphene

from pacbed.cli import main
from pacbed.scattering.image import Camera
from pacbed.scattering.series import ScatteringSeries
from pacbed.specimen.microscope import Aperture

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("pacbed read")]

TRUTH = (0.008, -0.006, 0.005)
RANGE = ["--semiangle", "6", "--tilt", "4", "--fov", "64", "--stretch", "0.97", "1.03"]
COARSE = ["--states", "6", "--incident-step", "3", "--energy", "80", "--band-limit", "2.5"]
COARSE += ["--diffuse-waves", "16"]


@pytest.fixture(autouse=True)
def _threads(monkeypatch):
    """TensorFlow takes a number of threads once only; other tests may have used it."""
    monkeypatch.setattr("pacbed.learning.training.configure", lambda *_, **__: None)


def of_file(name, folder, wse2):
    """A file of layers that repeat, or of a whole stack."""
    if name == "wse2.cif":
        return [str(wse2), "--displacement", "W=0.065", "Se=0.08"]
    stack = mos2_on_graphene()
    stack.center(vacuum=6, axis=2)
    stack.write(folder / name)
    given = [f"{element}={u}" for element, u in DISPLACEMENTS.items()]
    return [str(folder / name), "--stack", "--displacement", *given]


NAMED = ("graphene", "black-phosphorus")


@pytest.mark.parametrize("name", [*NAMED, "wse2.cif", "stack.vasp"])
def test_a_pattern_of_the_crystal_is_read_and_its_bound_known(name, tmp_path, wse2, capsys):
    material = [name] if name in NAMED else of_file(name, tmp_path, wse2)
    path, layers = tmp_path / "it.series.zarr.zip", "2"
    cells = ["--supercell", *(("2", "2") if name == "stack.vasp" else ("5", "5"))]
    words = ["scatter", "--material", *material, "--layers", layers, *RANGE, *COARSE, *cells]
    assert main([*words, "--output", path]) == 0
    series = ScatteringSeries(path)
    camera = Camera(96, 48.0, 2.0, (3.0, -2.0))
    image = series.image(TRUTH, (1.0, -0.5), Aperture(6.0), int(layers), camera)
    pattern = tmp_path / "measured.npy"
    np.save(pattern, np.random.default_rng(0).poisson(3e6 * np.maximum(image, 0)))

    words = ["read", pattern, "--series", path, "--semiangle", "6", "--layers", layers]
    more = ["--pixel-mrad", "0.5", "--electrons", "3e6", "--json", tmp_path / "read.json"]
    assert main([*words, *more]) == 0

    [one] = json.loads((tmp_path / "read.json").read_text())["patterns"]
    for component, truth in zip(("strain_xx", "strain_yy", "strain_xy"), TRUTH, strict=True):
        assert abs(one[component] - truth) < 5 * one[f"{component}_sigma"]
        assert one[f"{component}_sigma"] < 0.02
    assert one["rotation_deg"] == pytest.approx(2, abs=0.2)

    overlay = tmp_path / "small.yaml"
    overlay.write_text(
        "microscope: {semiangles_mrad: [6]}\n"
        "deformation: {rotation_deg: [-3, 3], tilt_mrad: [-2, 2]}\n"
        f"simulation: {{engine: planewave, layers: {layers}, pixels: 192}}\n"
        f"dataset: {{layers: [{layers}], pixels: 64, field_of_view_mrad: 48, "
        "field_of_view_variation: 0.02, translation_px: 1}\n"
        "variants: [{outputs: strain-rotation-tilt, intensity: linear, semiangles_mrad: all, "
        "layers: all}]\n"
    )
    capsys.readouterr()
    asked = ["design", "--precision", "1%", "--probe", "4A", "--config", overlay]
    assert main([*asked, "--material", *material, "--series", path]) == 0
    assert "Yes: 6 mrad" in capsys.readouterr().out
