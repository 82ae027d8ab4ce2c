"""The network of the demo reads strain and rotation from patterns that it has never seen."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pacbed.config import (
    augmentation_settings,
    draw_ranges,
    engine_settings,
    load,
    simulation_request,
)
from pacbed.dataset import Library, read_dataset, write_dataset
from pacbed.deformation import SPLITS, assign_splits, draw
from pacbed.engines import engine
from pacbed.labels import LabelScaling
from pacbed.metrics import errors
from pacbed.training import Schedule, TrainingSettings, predict, train

ROOT = Path(__file__).resolve().parents[2]
SEMIANGLE, LAYERS = 6.35, 10


@pytest.fixture(scope="module")
def config():
    return load([ROOT / "config/config.yaml", ROOT / "config/demo.yaml"])


@pytest.fixture(scope="module")
def datasets(config, tmp_path_factory):
    """Training, validation and test examples at ten layers and the smallest semi-angle."""
    simulation = config["simulation"]
    draws = [
        draw(config["seed"], SEMIANGLE, i, draw_ranges(config))
        for i in range(config["draws"]["count"])
    ]

    def pattern(one):
        request = simulation_request(
            seed=config["seed"],
            material_section=config["material"],
            energy_keV=config["microscope"]["energy_keV"],
            aperture_edge_mrad=config["microscope"]["aperture_edge_mrad"],
            simulation=simulation,
            semiangle_mrad=SEMIANGLE,
            deformation=one.deformation,
            tilt_mrad=one.tilt_mrad,
        )
        result = engine("planewave", engine_settings(simulation)).simulate(request)
        return result.patterns[LAYERS - 1]

    with ThreadPoolExecutor(2) as pool:
        patterns = np.stack(list(pool.map(pattern, draws)))
    strains = [one.deformation.strain for one in draws]
    parameters = np.array(
        [[e[0, 0], e[1, 1], e[0, 1], *d.tilt_mrad] for e, d in zip(strains, draws, strict=True)]
    )
    pixel = simulation["field_of_view_mrad"] / simulation["pixels"]
    splits = np.array(assign_splits(config["draws"]["count"], config["draws"]["split"]))
    folder = tmp_path_factory.mktemp("demo")
    made = {}
    for split in SPLITS:
        index = np.flatnonzero(splits == split)
        library = Library(patterns[index], (pixel, pixel), index.tolist(), parameters[index])
        path = folder / f"{split}.zarr.zip"
        write_dataset(
            path,
            library,
            augmentation_settings(config),
            config["dataset"]["examples"][split],
            (config["seed"], SEMIANGLE, LAYERS, split),
            threads=2,
        )
        made[split] = read_dataset(path)
    return made


def test_test_errors_are_a_fifth_of_always_answering_the_mean(config, datasets, tmp_path):
    scaling = LabelScaling.from_ranges(
        "strain-rotation-tilt",
        config["deformation"]["principal_stretch"],
        config["deformation"]["rotation_deg"],
        config["deformation"]["tilt_mrad"],
    )
    settings = TrainingSettings(
        network={**config["network"], "intensity": config["variants"][0]["intensity"]},
        schedule=Schedule.from_config(config["training"]["learning_rate_steps"]),
        batch_size=config["training"]["batch_size"],
        momentum=config["training"]["momentum"],
        seed=config["seed"],
    )
    train(datasets["train"], datasets["validation"], scaling, settings, tmp_path)

    def predicted(split):
        return predict(tmp_path / "model.keras", tmp_path / "settings.json", datasets[split])

    table = errors(predicted("test"), predicted("train")).set_index("parameter")
    for parameter in ("strain_xx", "strain_yy", "strain_xy", "rotation_deg"):
        row = table.loc[parameter]
        assert row["mae"] <= row["baseline_mae"] / 5, f"{parameter}: {row['mae']:.3g}"
