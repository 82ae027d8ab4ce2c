"""The network of the demo reads strain and rotation from patterns that it has never seen.

In the way of the demo, and with as many examples made online on one cycle.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pacbed.engines import engine
from pacbed.examples.dataset import read_dataset, write_dataset
from pacbed.examples.pattern_set import PatternSet
from pacbed.learning.prediction import predict
from pacbed.learning.sequences import OnlineExamples
from pacbed.learning.training import train
from pacbed.precision.bound import prior_covariance
from pacbed.precision.bound_table import bound_of, bound_table
from pacbed.precision.metrics import Bounds, errors, errors_by_dose
from pacbed.precision.steps import Steps
from pacbed.study.configuration import (
    augmentation_settings,
    draw_ranges,
    engine_settings,
    example_request,
    load,
    of_bound,
    simulation_request,
)
from pacbed.study.draws import SPLITS, assign_splits, draw
from pacbed.study.states import bound_states
from pacbed.study.training_settings import label_scaling, training_settings

# What they share takes longer than they do: all in one process.
pytestmark = pytest.mark.xdist_group("demo")

ROOT = Path(__file__).resolve().parents[2]
SEMIANGLE, LAYERS = 6.35, 10


@pytest.fixture(scope="module")
def config():
    return load([ROOT / "config/config.yaml", ROOT / "config/demo.yaml"])


@pytest.fixture(scope="module")
def library(config):
    """The patterns of a set at ten layers and the smallest semi-angle."""
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

    def of(split):
        index = np.flatnonzero(splits == split)
        return PatternSet(patterns[index], (pixel, pixel), index.tolist(), parameters[index])

    return of


@pytest.fixture(scope="module")
def datasets(config, library, tmp_path_factory):
    """Training, validation and test examples."""
    folder = tmp_path_factory.mktemp("demo")
    made = {}
    for split in SPLITS:
        path = folder / f"{split}.zarr.zip"
        write_dataset(
            path,
            library(split),
            augmentation_settings(config),
            config["dataset"]["examples"][split],
            (config["seed"], SEMIANGLE, LAYERS, split),
            threads=2,
        )
        made[split] = read_dataset(path)
    return made


FAST = {"data": "online", "schedule": "fast"}
ONE_CYCLE = {"epochs": 6, "batch_size": 16, "peak_rate": 2e-3}


@pytest.fixture(scope="module", params=[{}, FAST], ids=["demo", "fast"])
def predictions(request, config, library, datasets, tmp_path_factory):
    """What the network of the demo says of training and test set."""
    training, folder = request.param, tmp_path_factory.mktemp("model")
    section = {**config["training"], **training}
    section["fast"] = {**section["fast"], **ONE_CYCLE}
    online = OnlineExamples(
        library("train"),
        augmentation_settings(config),
        config["dataset"]["examples"]["train"],
        (config["seed"], SEMIANGLE, LAYERS),
    )
    train(
        online if training else datasets["train"],
        datasets["validation"],
        label_scaling("strain-rotation-tilt", config["deformation"]),
        training_settings(
            config["network"],
            section,
            config["variants"][0]["intensity"],
            config["dataset"]["image_mean"],
            config["seed"],
        ),
        folder,
    )
    return {
        split: predict(folder / "model.keras", folder / "settings.json", datasets[split])
        for split in ("train", "test")
    }


@pytest.fixture(scope="module")
def bound(config):
    """The bound of the demo at the undeformed crystal, as the table of errors asks for it."""
    simulation = of_bound(config["simulation"], config["microscope"]["energy_keV"])
    asked = {
        step: example_request(
            {**config, "simulation": simulation},
            SEMIANGLE,
            one.state.deformation,
            one.state.tilt_mrad,
        )
        for step, one in bound_states(config)["undeformed"].items()
    }
    planewave = engine("planewave", engine_settings(simulation))
    patterns = {step: planewave.simulate(one).patterns[[LAYERS - 1]] for step, one in asked.items()}
    settings = augmentation_settings(config)
    pixel = simulation["field_of_view_mrad"] / simulation["pixels"]
    table = bound_table(
        patterns,
        [LAYERS],
        (pixel, pixel),
        settings,
        prior_covariance(draw_ranges(config), settings),
        semiangle_mrad=SEMIANGLE,
        energy_keV=config["microscope"]["energy_keV"],
        steps=Steps(config["bound"]["strain_step"], config["bound"]["tilt_step_mrad"]),
    )

    def of(parameter, electrons):
        columns = ("sigma", "sigma_prior", "sigma_data")
        return Bounds(
            *(bound_of(table, SEMIANGLE, LAYERS, parameter, electrons, c) for c in columns)
        )

    return of


def below_the_bound(predictions, config, bound):
    """Return parameters and doses whose error no reading of the patterns can have."""
    electrons = config["dataset"]["electrons"]
    table = errors_by_dose(predictions["test"], predictions["train"], electrons, bound)
    assert np.isfinite(table["bound_mae"]).all()
    # The prior is taken for normal: the best answer may be that much below.
    below = table["mae"] < 0.92 * table["data_bound_mae"]
    return table.loc[below, ["parameter", "dose"]]


def test_test_errors_are_a_fifth_of_always_answering_the_mean(predictions):
    table = errors(predictions["test"], predictions["train"]).set_index("parameter")
    for parameter in ("strain_xx", "strain_yy", "strain_xy", "rotation_deg"):
        row = table.loc[parameter]
        assert row["mae"] <= row["baseline_mae"] / 5, f"{parameter}: {row['mae']:.3g}"


def test_no_deformation_is_in_two_sets(datasets):
    draws = [set(data.draws) for data in datasets.values()]
    assert sum(map(len, draws)) == len(set.union(*draws))


def test_no_error_lies_below_the_bound(predictions, config, bound):
    assert below_the_bound(predictions, config, bound).empty


def test_a_network_that_had_seen_the_labels_would_be_found_out(predictions, config, bound):
    """Even if it were better than possible by a factor of two only."""
    leaked = predictions["test"].copy()
    for column in [c for c in leaked if c.startswith("predicted_")]:
        parameter = column.removeprefix("predicted_")
        true = leaked[f"true_{parameter}"]
        error = leaked[column] - true
        least = bound(parameter, leaked["electrons"].to_numpy(float)).data
        leaked[column] = true + error * (0.5 * least / error.abs().mean())
    found = below_the_bound(predictions | {"test": leaked}, config, bound)
    assert {"strain_xx", "strain_yy", "strain_xy", "rotation_deg"} <= set(found["parameter"])
