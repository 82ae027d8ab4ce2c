"""A study of another crystal than the paper's, as small as it can be."""

import numpy as np

from pacbed.examples.labels import PARAMETERS
from pacbed.patterns.store import read_patterns
from pacbed.storage.tables import read_table

ONE = {"outputs": "strain-rotation-tilt", "intensity": "linear", "semiangles_mrad": "all"}
GRAPHENE = {
    "material": "graphene",
    "simulation": {"planewave": {"supercell": [4, 4]}},
    "dataset": {"layers": [2]},
    "variants": [{**ONE, "layers": "all"}],
}


def test_a_study_of_graphene_runs_to_its_errors_and_its_report(workspace):
    outcome = workspace.run(change=GRAPHENE)
    assert outcome.status == 0, outcome.text
    assert outcome.jobs["train"] == outcome.jobs["figure_cell"] == outcome.jobs["summary"] == 1

    results = workspace.folder / "results"
    stores = sorted((results / "patterns/6.35mrad").glob("*.zarr.zip"))
    made = [read_patterns(store).attributes["request"]["material"] for store in stores]
    assert len(made) > 4
    assert {(one["polytype"], one["formula"]) for one in made} == {("graphene", "C")}
    errors = read_table(results / "tables/errors.parquet")
    test = errors[(errors["split"] == "test") & (errors["dose"] == "all")]
    assert set(test[test["method"] == "network"]["parameter"]) == set(PARAMETERS)
    assert np.isfinite(test[["mae", "bound_mae"]]).all().all()
    page = (results / "report.html").read_text(encoding="utf-8")
    assert '<h3 id="cell">The crystal</h3>' in page
    assert "Patterns of undeformed graphene at 80 keV" in page
