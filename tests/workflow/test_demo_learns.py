"""Networks of the demo read strain and rotation from patterns that they have never seen.

In the way of the demo: images of a scattering series for training, draws simulated one by one for
validation and test, the same networks, fits and length. Without diffuse scattering, to be quick.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pacbed.engines import ThermalMotion
from pacbed.examples.dataset import read_dataset, write_dataset
from pacbed.examples.pool import read_pool, write_pool, write_pool_of_draws
from pacbed.examples.source import ExampleSource
from pacbed.learning.prediction import predict
from pacbed.learning.training import train
from pacbed.precision.bound import prior_covariance, priors
from pacbed.precision.bound_table import Sample, bound_of, bound_table
from pacbed.precision.metrics import errors, errors_by_dose
from pacbed.reading.by_network import read_by_network
from pacbed.reading.predictions import ExampleFits, search_range
from pacbed.scattering.fit import write_series
from pacbed.scattering.image import Camera
from pacbed.scattering.series import ScatteringSeries
from pacbed.scattering.state import write_scattered
from pacbed.specimen.microscope import Aperture
from pacbed.study.configuration import load
from pacbed.study.draws import SPLITS, draw
from pacbed.study.states import bound_states
from pacbed.study.training_settings import training_settings

# What they share takes longer than they do: all in one process.
pytestmark = pytest.mark.xdist_group("demo")

ROOT = Path(__file__).resolve().parents[2]
SEMIANGLE, THICK = 6.35, 10
STILL = ThermalMotion("coherent")
of_the_thick_one = pytest.mark.parametrize("layers", [THICK], indirect=True)


@pytest.fixture(scope="module")
def config():
    return load([ROOT / "config/demo.yaml"])


@pytest.fixture(scope="module", params=[THICK, 5])
def layers(request):
    return request.param


@pytest.fixture(scope="module")
def series(config, tmp_path_factory):
    path = tmp_path_factory.mktemp("series") / "series.zarr.zip"
    asked = replace(config.series(), semiangle_mrad=SEMIANGLE, motion=STILL.motion)
    write_series(path, asked, config.engine(threads=2))
    return ScatteringSeries(path)


@pytest.fixture(scope="module")
def pools(config, series, layers, tmp_path_factory):
    """Images without noise of each set."""
    folder = tmp_path_factory.mktemp("pools")
    settings, aperture = config.augmentation(), config.microscope.aperture(SEMIANGLE)
    common = aperture, layers, settings, config.seed
    paths = {split: folder / f"{split}.zarr.zip" for split in SPLITS}

    ranges = config.deformation.draw_ranges()
    drawn = [draw(config.seed + 1, SEMIANGLE, n, ranges) for n in range(config.dataset.pool)]
    states = [(one.deformation, one.tilt_mrad) for one in drawn]
    write_pool(paths["train"], series, states, *common)

    engine, splits = config.engine(threads=2), np.array(config.draws.splits())
    for split in SPLITS[1:]:
        files = []
        for number in np.flatnonzero(splits == split).tolist():
            state = config.state_of_draw(number, (SEMIANGLE,))
            still = tuple(replace(one, thermal=STILL) for one in state.simulations)
            files.append(folder / f"{number}.zarr.zip")
            write_scattered(files[-1], replace(state, simulations=still), engine, draw=number)
        write_pool_of_draws(paths[split], files, config.images_per_draw(split), *common)
    return {split: read_pool(path, SEMIANGLE, layers) for split, path in paths.items()}


@pytest.fixture(scope="module")
def sources(config, pools, layers):
    return {
        split: ExampleSource(
            pools[split],
            config.augmentation(),
            getattr(config.dataset.examples, split),
            (config.seed, SEMIANGLE, layers, split),
        )
        for split in SPLITS
    }


@pytest.fixture(scope="module")
def datasets(sources, tmp_path_factory):
    """Examples as they are kept, also those of the first epoch of the training."""
    folder = tmp_path_factory.mktemp("datasets")
    for split in SPLITS:
        write_dataset(folder / f"{split}.zarr.zip", sources[split])
    return {split: read_dataset(folder / f"{split}.zarr.zip") for split in SPLITS}


@pytest.fixture(scope="module")
def bounds(config, layers):
    """The bounds at the undeformed crystal, with diffuse scattering: discs alone know too much."""
    steps, ranges = config.bound.steps(), config.deformation.draw_ranges()
    planewave, settings = config.engine(threads=2), config.augmentation()
    patterns = {}
    for step, one in bound_states(config.seed, ranges, 0, steps)["undeformed"].items():
        asked = config.request(SEMIANGLE, one.state.deformation, one.state.tilt_mrad)
        patterns[step] = planewave.simulate(asked).patterns[[layers - 1]]
    pixel = config.simulation.field_of_view_mrad / config.simulation.pixels
    sample = Sample.of_patterns(SEMIANGLE, patterns, (pixel, pixel), settings, steps)
    prior = prior_covariance(ranges, settings)
    return bound_table([sample], [layers], settings, prior, config.microscope.energy_keV)


@pytest.fixture(scope="module")
def trained(config, sources, datasets, tmp_path_factory):
    """The folder of a network of the demo."""
    folder = tmp_path_factory.mktemp("model")
    scaling = config.deformation.label_scaling("strain-rotation-tilt")
    train(
        sources["train"],
        datasets["validation"],
        scaling,
        training_settings(config, config.variants[0].intensity),
        folder,
    )
    return folder


@pytest.fixture(scope="module")
def predictions(trained, datasets):
    """What it says of training and test set."""
    return {
        split: predict(trained / "model.keras", trained / "settings.json", datasets[split])
        for split in ("train", "test")
    }


@pytest.fixture(scope="module")
def bound(bounds):
    """The bound as the table of errors asks for it."""

    def of(parameter, electrons):
        columns = ("sigma", "sigma_prior", "sigma_data")
        rows = bounds[bounds["parameter"] == parameter]
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


def test_strains_are_read_to_a_twentieth_of_a_percent(predictions):
    table = errors(predictions["test"], predictions["train"]).set_index("parameter")
    for parameter in ("strain_xx", "strain_yy", "strain_xy"):
        assert table.loc[parameter, "mae"] <= 0.0005, parameter
    assert table.loc["rotation_deg", "mae"] <= 0.02


def test_fits_from_the_network_end_near_the_bound(predictions, config, series, datasets, bound):
    ranges, settings = config.deformation.draw_ranges(), config.augmentation()
    known = priors(ranges, settings), search_range(ranges, settings)
    rows = range(config.fit.examples)
    found = ExampleFits(series, datasets["test"], *known).read(rows, predictions["test"])
    electrons = config.dataset.electrons
    table = errors_by_dose(found, predictions["train"], electrons, bound)
    of_all = table[table["dose"] == "all"]
    assert (of_all["mae"] / of_all["prior_bound_mae"]).median() <= 1.5


@of_the_thick_one
def test_no_error_lies_below_the_bound(predictions, config, bound):
    assert below_the_bound(predictions, config, bound).empty


@of_the_thick_one
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


@of_the_thick_one
@pytest.mark.parametrize(
    ("seen_layers", "shift_px", "background", "flags"),
    [
        (THICK, 0, 0, {""}),
        (THICK, 12, 0, {"centre"}),
        (THICK, 0, 1e-5, {"background"}),
        (5, 0, 0, {"background", "strain_xx", "strain_yy", "strain_xy"}),
    ],
)
def test_a_pattern_of_another_kind_is_not_answered_without_a_flag(
    trained, series, seen_layers, shift_px, background, flags
):
    pixel_mrad = 134 / 192
    aperture, camera = Aperture(SEMIANGLE), Camera(160, 160 * pixel_mrad, 0.0, (shift_px, 0.0))
    image = series.image((0.0065, 0.0165, 0.0068), (0.0, 0.0), aperture, seen_layers, camera)
    counted = np.random.default_rng(1).poisson(1e7 * np.maximum(image + background, 0))
    table = read_by_network(trained, counted, (pixel_mrad, pixel_mrad), lambda line: None)
    assert set(table["flags"][0].split(", ")) & flags, table
