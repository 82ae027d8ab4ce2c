"""The network of the demo reads strain and rotation from patterns that it has never seen.

In the way of the demo, and with as many examples made online on one cycle.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pacbed.examples.dataset import read_dataset, write_dataset
from pacbed.examples.pattern_set import PatternSet
from pacbed.examples.source import ExampleSource
from pacbed.learning.prediction import predict
from pacbed.learning.training import train
from pacbed.precision.bound import prior_covariance
from pacbed.precision.bound_table import Sample, bound_of, bound_table
from pacbed.precision.metrics import errors, errors_by_dose
from pacbed.study.configuration import load
from pacbed.study.draws import SPLITS, draw
from pacbed.study.states import bound_states
from pacbed.study.training_settings import training_settings

# What they share takes longer than they do: all in one process.
pytestmark = pytest.mark.xdist_group("demo")

ROOT = Path(__file__).resolve().parents[2]
SEMIANGLE, LAYERS = 6.35, 10


@pytest.fixture(scope="module")
def config():
    return load([ROOT / "config/demo.yaml"])


@pytest.fixture(scope="module")
def library(config):
    """The patterns of a set at ten layers and the smallest semi-angle."""
    ranges, splits = config.deformation.draw_ranges(), np.array(config.draws.splits())
    draws = [draw(config.seed, SEMIANGLE, index, ranges) for index in range(len(splits))]

    def pattern(one):
        request = config.request(SEMIANGLE, one.deformation, one.tilt_mrad)
        return config.engine(threads=1).simulate(request).patterns[LAYERS - 1]

    with ThreadPoolExecutor(2) as pool:
        patterns = np.stack(list(pool.map(pattern, draws)))
    strains = [one.deformation.strain for one in draws]
    parameters = np.array(
        [[e[0, 0], e[1, 1], e[0, 1], *d.tilt_mrad] for e, d in zip(strains, draws, strict=True)]
    )
    pixel = config.simulation.field_of_view_mrad / config.simulation.pixels

    def of(split):
        index = np.flatnonzero(splits == split)
        return PatternSet(patterns[index], (pixel, pixel), index.tolist(), parameters[index])

    return of


def source(config, library, split):
    return ExampleSource(
        library(split),
        config.augmentation(),
        getattr(config.dataset.examples, split),
        (config.seed, SEMIANGLE, LAYERS, split),
    )


@pytest.fixture(scope="module")
def datasets(config, library, tmp_path_factory):
    """Training, validation and test examples."""
    folder = tmp_path_factory.mktemp("demo")
    made = {}
    for split in SPLITS:
        path = folder / f"{split}.zarr.zip"
        write_dataset(path, source(config, library, split))
        made[split] = read_dataset(path)
    return made


FAST = {"data": "online", "schedule": "fast"}
ONE_CYCLE = {"epochs": 6, "batch_size": 16, "peak_rate": 2e-3}


@pytest.fixture(scope="module", params=[{}, FAST], ids=["demo", "fast"])
def predictions(request, config, library, datasets, tmp_path_factory):
    """What the network of the demo says of training and test set."""
    training, folder = request.param, tmp_path_factory.mktemp("model")
    study = config.changed({"training": {**training, "fast": ONE_CYCLE}})
    train(
        source(config, library, "train") if training else datasets["train"],
        datasets["validation"],
        config.deformation.label_scaling("strain-rotation-tilt"),
        training_settings(study, config.variants[0].intensity),
        folder,
    )
    return {
        split: predict(folder / "model.keras", folder / "settings.json", datasets[split])
        for split in ("train", "test")
    }


@pytest.fixture(scope="module")
def bound(config):
    """The bound of the demo at the undeformed crystal, as the table of errors asks for it."""
    study, steps = config.for_bound(), config.bound.steps()
    ranges = config.deformation.draw_ranges()
    asked = {
        step: study.request(
            SEMIANGLE,
            one.state.deformation,
            one.state.tilt_mrad,
            discs_only=one.state.discs_only,
        )
        for step, one in bound_states(config.seed, ranges, 0, steps)["undeformed"].items()
    }
    planewave = study.engine(threads=1)
    patterns = {step: planewave.simulate(one).patterns[[LAYERS - 1]] for step, one in asked.items()}
    settings = config.augmentation()
    pixel = config.simulation.field_of_view_mrad / config.simulation.pixels
    table = bound_table(
        [Sample.of_patterns(SEMIANGLE, patterns, (pixel, pixel), settings, steps)],
        [LAYERS],
        settings,
        prior_covariance(ranges, settings),
        config.microscope.energy_keV,
    )

    def of(parameter, electrons):
        columns = ("sigma", "sigma_prior", "sigma_data")
        rows = table[table["parameter"] == parameter]
        return tuple(bound_of(rows, electrons, column) for column in columns)

    return of


def below_the_bound(predictions, config, bound):
    """Return parameters and doses whose error no reading of the patterns can have."""
    electrons = config.dataset.electrons
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


def test_no_error_lies_below_the_bound(predictions, config, bound):
    assert below_the_bound(predictions, config, bound).empty


def test_a_network_that_had_seen_the_labels_would_be_found_out(predictions, config, bound):
    """Even if it were better than possible by a factor of two only."""
    leaked = predictions["test"].copy()
    for column in [c for c in leaked if c.startswith("predicted_")]:
        parameter = column.removeprefix("predicted_")
        true = leaked[f"true_{parameter}"]
        error = leaked[column] - true
        *_, least = bound(parameter, leaked["electrons"].to_numpy(float))
        leaked[column] = true + error * (0.5 * least / error.abs().mean())
    found = below_the_bound(predictions | {"test": leaked}, config, bound)
    assert {"strain_xx", "strain_yy", "strain_xy", "rotation_deg"} <= set(found["parameter"])
