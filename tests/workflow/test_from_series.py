"""A study whose training examples and bounds come from a scattering series."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from workspace import TINY, new_workspace

from pacbed.examples.dataset import read_dataset
from pacbed.examples.pool import read_pool
from pacbed.examples.predictions import study_of
from pacbed.precision.bound_table import read_bounds
from pacbed.storage.tables import read_study, read_table
from pacbed.study.draws import draw
from pacbed.study.model import merge

# What they share takes longer than they do: all in one process.
pytestmark = pytest.mark.xdist_group("series")

SERIES = {"simulation": {"planewave": {"strain_states": 6}}, "dataset": {"pool": 20}}
ONLINE = {"training": {"data": "online"}}
FOLDER = "results/datasets/6.35mrad/2layers"
# Of four draws the second is for validation and the third for test.
TARGETS = [
    f"{FOLDER}/train.zarr.zip",
    f"{FOLDER}/test.zarr.zip",
    "results/tables/bounds.parquet",
]


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    made = new_workspace(tmp_path_factory.mktemp("workflow") / "series")
    tiny = yaml.safe_load(yaml.safe_dump(TINY))
    merge(tiny, SERIES)
    (made.folder / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    outcome = made.run(*TARGETS)
    assert outcome.status == 0, outcome.text
    return made


def test_examples_are_of_pools_and_know_their_draws(studied):
    train, test = (read_dataset(studied.folder / path) for path in TARGETS[:2])
    # Images of the series have numbers of their own, which are not those of draws.
    assert (train.draws < 0).all()
    assert len(set(train.draws)) > 10
    assert set(test.draws) == {2}
    # All are of one study, with the bounds.
    ranges = studied.config().deformation.draw_ranges()
    of_train, of_test = (study_of(data.attributes, ranges) for data in (train, test))
    assert of_train == of_test
    assert of_train.digest == read_study(studied.folder / TARGETS[2]).digest
    # No pattern is stored of any draw.
    assert not (studied.folder / "results/patterns").exists()


def test_images_for_test_are_of_the_draw_itself_in_several_places(studied):
    config = studied.config()
    pool = read_pool(studied.folder / FOLDER / "pool_test.zarr.zip", 6.35, 2)
    assert pool.draws == [2] * 5  # 20 images of a pool for 4 draws
    assert len(np.unique(pool.geometry, axis=0)) == 5
    one = draw(config.seed, 6.35, 2, config.deformation.draw_ranges())
    (xx, xy), (_, yy) = one.deformation.strain
    np.testing.assert_allclose(pool.parameters, [[xx, yy, xy, *one.tilt_mrad]] * 5, atol=1e-12)


def test_bounds_are_those_of_the_study(studied):
    bounds = read_bounds(studied.folder / TARGETS[2])
    assert set(bounds["layers"]) == {1, 2}
    assert set(bounds["state"]) == {"undeformed"}
    strain = bounds[bounds["parameter"].str.startswith("strain")]
    assert strain["sigma"].between(1e-6, 1).all()


def test_states_are_removed_when_the_series_and_the_pools_are_made(studied):
    left = [path.name for path in (studied.folder / "results/series").rglob("*.zip")]
    assert left == ["series.zarr.zip"]
    assert studied.plan(*TARGETS).nothing_to_do


@pytest.fixture(scope="module")
def learned(studied):
    """The training of a network from the pool, online."""
    model = "results/models/6.35mrad/2layers/strain-rotation-tilt_linear/model.keras"
    return studied.run(model, change=ONLINE)


def test_a_network_learns_from_the_pool_online(learned):
    assert learned.status == 0, learned.text
    assert learned.jobs == {"scatter_draw": 1, "pool_of_draws": 1, "augment": 1, "train": 1}


@pytest.mark.usefixtures("learned")
def test_test_examples_are_fitted_from_the_network_and_without(studied):
    tables = [f"results/tables/{name}.parquet" for name in ("calibration", "errors")]
    outcome = studied.run(*tables, change={**ONLINE, "variants": TINY["variants"][:1]})
    assert outcome.status == 0, outcome.text
    # From the one network of tilt, and without, in one job. The other network is not trained.
    jobs = {"predict": 1, "fit": 1, "fits": 2, "calibration": 1, "errors": 1}
    assert outcome.jobs == jobs
    assert studied.plan(tables[0], change=ONLINE).nothing_to_do
    bars, errors = (read_table(studied.folder / table) for table in tables)
    methods = errors.groupby("method")["examples"].sum()
    assert methods["fit"] == methods["network+fit"] > 0
    assert set(bars["method"]) == {"fit", "network+fit"}
    assert set(bars["layers"]) == {2}
    assert bars["flagged"].between(0, 1).all()


def test_logs_of_jobs_hold_nothing_of_the_beginning_of_xla(studied):
    """The pool, the online training and the fits have compiled with it."""
    logs = sorted((studied.folder / "results/logs").rglob("*.log"))
    assert len(logs) > 5
    assert [log for log in logs if "InitializeLog" in log.read_text()] == []


POOL_OF_DRAWS = {"scatter_draw": 1, "pool_of_draws": 1}


@pytest.mark.parametrize(
    ("change", "planned"),
    [
        (
            {"deformation": {"principal_stretch": [0.96, 1.04]}},
            {"scatter": 1, "series": 1, "pool": 1, **POOL_OF_DRAWS, "augment": 2, "bounds": 1},
        ),
        ({"dataset": {"pool": 30}}, {"pool": 1, **POOL_OF_DRAWS, "augment": 2}),
        ({"dataset": {"examples": {"train": 64}}}, {"augment": 1}),
        (
            {"dataset": {"noise": "poisson", "electrons": [1e5, 1e6]}},
            {"augment": 2, "bounds": 1},
        ),
        # Another draw joins the set for test.
        ({"draws": {"count": 8}}, {**POOL_OF_DRAWS, "augment": 1}),
    ],
)
def test_a_change_makes_again_what_depends_on_it(studied, change, planned):
    assert studied.plan(*TARGETS, change=change).jobs == planned


@pytest.mark.parametrize("shared", [True, False])
def test_a_draw_is_scattered_once_for_all_thicknesses_and_shared_semiangles(workspace, shared):
    change = {**SERIES, "microscope": {"semiangles_mrad": [6.35, 12.65]}}
    outcome = workspace.plan(change={**change, "draws": {"shared_strain": shared}})
    jobs = outcome.jobs
    assert "simulate" not in jobs
    # Of two sets, and two semi-angles.
    assert jobs["scatter_draw"] == (2 if shared else 4)
    # Of two thicknesses, for training in jobs of their own.
    assert (jobs["pool"], jobs["pool_of_draws"]) == (4, 4)
    assert f"results/series/{'shared' if shared else '6.35mrad'}/test0\n" in outcome.text


def test_a_job_simulates_ten_states(workspace):
    change = {"simulation": {"planewave": {"strain_states": 21}}, "dataset": {"pool": 20}}
    outcome = workspace.plan("results/series/series.zarr.zip", change=change)
    assert outcome.jobs == {"scatter": 3, "series": 1}


def test_a_job_that_fails_is_repeated_alone(workspace):
    change = {"simulation": {"planewave": {"strain_states": 12}}, "dataset": {"pool": 20}}
    target, series = "results/series/series.zarr.zip", workspace.folder / "results" / "series"
    # No folder can be made where a file is.
    series.mkdir(parents=True)
    (series / ".states1.tmp").touch()
    outcome = workspace.run(target, change=change)
    assert outcome.status == 1
    assert f"cannot write {Path('results/series/states1')}: File exists" in outcome.text
    assert [p.name for p in series.iterdir() if p.suffix == ""] == ["states0"]
    (series / ".states1.tmp").unlink()
    outcome = workspace.run(target, change=change)
    assert outcome.status == 0, outcome.text
    assert outcome.jobs == {"scatter": 1, "series": 1}
    assert [p.name for p in series.iterdir()] == ["series.zarr.zip"]
