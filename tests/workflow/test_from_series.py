"""A study whose training examples and bounds come from a scattering series."""

import pytest
import yaml
from workspace import TINY, new_workspace

from pacbed.examples.dataset import read_dataset
from pacbed.precision.bound_table import read_bounds
from pacbed.study.model import merge

SERIES = {"simulation": {"planewave": {"strain_states": 6}}, "dataset": {"pool": 20}}
FOLDER = "results/datasets/6.35mrad/2layers"
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


def test_training_examples_are_of_a_pool_and_others_of_direct_simulations(studied):
    train, test = (read_dataset(studied.folder / path) for path in TARGETS[:2])
    # Images of a pool have numbers of their own, which are not those of draws.
    assert (train.draws < 0).all()
    assert len(set(train.draws)) > 10
    assert set(test.draws) == {2}
    own, others = (data.attributes["simulation"] for data in (train, test))
    for name in ("material", "energy_keV", "thermal", "aperture", "physics_version"):
        assert own[name] == others[name]
    simulated = {path.name for path in (studied.folder / "results/patterns/6.35mrad").iterdir()}
    assert simulated == {"00002.zarr.zip"}


def test_bounds_are_those_of_the_study(studied):
    bounds = read_bounds(studied.folder / TARGETS[2])
    assert set(bounds["layers"]) == {1, 2}
    assert set(bounds["state"]) == {"undeformed"}
    strain = bounds[bounds["parameter"].str.startswith("strain")]
    assert strain["sigma"].between(1e-6, 1).all()


def test_states_are_removed_when_the_series_is_made(studied):
    left = [path.name for path in (studied.folder / "results/series").iterdir()]
    assert left == ["series.zarr.zip"]
    assert studied.plan(*TARGETS).nothing_to_do


@pytest.mark.parametrize(
    ("change", "planned"),
    [
        ({"deformation": {"principal_stretch": [0.96, 1.04]}}, {"scatter": 6, "series": 1}),
        ({"dataset": {"pool": 30}}, {"pool": 1}),
        ({"dataset": {"examples": {"train": 64}}}, {"augment": 1}),
    ],
)
def test_a_change_makes_again_what_depends_on_it(studied, change, planned):
    jobs = studied.plan(TARGETS[0], change=change).jobs
    assert {name: jobs.get(name) for name in planned} == planned
    assert "simulate" not in jobs


def test_more_states_keep_those_that_there_would_be(workspace):
    jobs = workspace.plan("results/series/series.zarr.zip", change=SERIES).jobs
    assert jobs == {"scatter": 6, "series": 1}
