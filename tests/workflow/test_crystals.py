"""A study of another crystal at another energy than the paper's, as small as it can be."""

import numpy as np

from pacbed.examples.dataset import read_dataset
from pacbed.examples.labels import PARAMETERS
from pacbed.patterns.store import read_patterns
from pacbed.storage.tables import read_table

ONE = {"outputs": "strain-rotation-tilt", "intensity": "linear", "semiangles_mrad": "all"}
GRAPHENE = {
    "material": "graphene",
    "microscope": {"energy_keV": 60},
    "simulation": {"planewave": {"supercell": [4, 4]}},
    "dataset": {"layers": [2]},
    "variants": [{**ONE, "layers": "all"}],
}
TARGETS = ["tables/errors.parquet", "figures/cell.png", "figures/fig1.png"]


def test_a_study_of_graphene_runs_to_its_errors_and_to_figures_of_the_crystal(workspace):
    outcome = workspace.run(*(f"results/{name}" for name in TARGETS), change=GRAPHENE)
    assert outcome.status == 0, outcome.text
    assert outcome.jobs["train"] == 1

    results = workspace.folder / "results"
    stores = sorted((results / "patterns/6.35mrad").glob("*.zarr.zip"))
    made = [read_patterns(store).attributes["request"] for store in stores]
    assert len(made) > 4
    crystals = [one["material"] for one in made]
    assert {(one["polytype"], one["formula"]) for one in crystals} == {("graphene", "C")}
    examples = read_dataset(results / "datasets/6.35mrad/2layers/train.zarr.zip")
    energies = {one["energy_keV"] for one in (*made, examples.attributes["simulation"])}
    assert energies == {60}
    errors = read_table(results / "tables/errors.parquet")
    test = errors[(errors["split"] == "test") & (errors["dose"] == "all")]
    assert set(test[test["method"] == "network"]["parameter"]) == set(PARAMETERS)
    assert np.isfinite(test[["mae", "bound_mae"]]).all().all()
