"""The whole graph, as small as it can be: complete, consistent and reproducible."""

import html
import re

import numpy as np
import pandas as pd
import pytest
import yaml

from pacbed.examples.dataset import read_dataset
from pacbed.examples.labels import PARAMETERS
from pacbed.figures import TITLES
from pacbed.patterns.store import read_patterns
from pacbed.precision.bound_table import read_bounds
from pacbed.specimen.deformation import Deformation
from pacbed.storage.tables import one_study, read_table

DATASETS = [
    f"results/datasets/6.35mrad/{layers}layers/{split}.zarr.zip"
    for layers in (1, 2)
    for split in ("train", "validation", "test")
]


@pytest.fixture(scope="module")
def results(finished):
    return finished.folder / "results"


@pytest.fixture(scope="module")
def draws(results):
    return pd.read_csv(results / "draws.csv")


@pytest.fixture(scope="module")
def errors(results):
    """Errors over all doses."""
    table = read_table(results / "tables" / "errors.parquet")
    return table[table["dose"] == "all"]


# Complete


def test_every_draw_is_simulated_in_every_layer(results, finished, draws):
    stores = sorted((results / "patterns" / "6.35mrad").glob("0*.zarr.zip"))
    assert [int(store.name[:5]) for store in stores] == list(draws["index"]) == [0, 1, 2, 3]
    for store in stores:
        patterns = read_patterns(store)
        assert list(patterns.layers) == [1, 2]
        assert patterns.patterns.shape == (2, 32, 32)
        assert np.all(patterns.patterns.sum(axis=(1, 2)) > 0.8)


def test_every_store_of_a_draw_knows_its_number_and_no_other_has_one(results):
    for path in (results / "patterns").glob("*/*.zarr.zip"):
        number = int(path.name[:5]) if path.name.startswith("0") else None
        assert read_patterns(path, [1]).attributes.get("draw") == number


def test_every_draw_has_thermal_displacements_of_its_own(results):
    stores = [*(results / "patterns" / "6.35mrad").glob("[0u]*.zarr.zip")]
    attributes = [read_patterns(store).attributes for store in stores]
    assert {a["request"]["thermal"]["motion"] for a in attributes} == {"full"}
    assert all(0 < noise < 0.05 for a in attributes for noise in a["phonon_noise"])
    assert len({a["request"]["seed"] for a in attributes}) == len(stores) == 5


def test_the_table_of_draws_is_complete(draws):
    # Each draw is in one split, so that no deformation is in two.
    assert set(draws["semiangle_mrad"]) == {6.35}
    assert draws["index"].is_unique
    assert draws["split"].value_counts().to_dict() == {"train": 2, "validation": 1, "test": 1}
    assert draws.notna().all().all()
    assert {"angle_deg", "tilt_x_mrad", "tilt_y_mrad", "strain_xx", "strain_yy", "strain_xy"} < set(
        draws
    )
    assert (draws["stretch_1"] >= draws["stretch_2"]).all()


def test_what_was_simulated_is_what_the_table_of_draws_says(results, draws):
    for _, row in draws.iterrows():
        store = read_patterns(results / "patterns" / "6.35mrad" / f"{row['index']:05d}.zarr.zip")
        request = store.attributes["request"]
        assert request["deformation"] == pytest.approx(
            {name: row[name] for name in ("stretch_1", "stretch_2", "angle_deg")}
        )
        assert request["tilt_mrad"] == pytest.approx([row["tilt_x_mrad"], row["tilt_y_mrad"]])
        assert request["aperture"]["semiangle_mrad"] == row["semiangle_mrad"]


def test_the_undeformed_crystal_is_simulated_too(results):
    store = read_patterns(results / "patterns" / "6.35mrad" / "undeformed.zarr.zip")
    deformation = store.attributes["request"]["deformation"]
    assert (deformation["stretch_1"], deformation["stretch_2"]) == (1, 1)


@pytest.mark.parametrize("path", DATASETS)
def test_examples_are_made_of_the_draws_of_their_set_and_labelled_with_them(finished, draws, path):
    data, table = read_dataset(finished.folder / path), draws.set_index("index")
    split = path.split("/")[-1].removesuffix(".zarr.zip")
    assert len(data.images) == {"train": 32, "validation": 16, "test": 16}[split]
    assert set(data.draws) == set(table.index[table["split"] == split])
    names = ["strain_xx", "strain_yy", "strain_xy", "tilt_x_mrad", "tilt_y_mrad"]
    np.testing.assert_allclose(data.columns(names), table.loc[data.draws, names], rtol=1e-5)
    assert np.abs(data.columns(["rotation_deg"])).max() <= 10
    assert np.ptp(data.columns(["rotation_deg"])) > 5


def test_errors_are_tabulated_for_every_network_set_and_parameter(errors):
    found = set(
        errors[["layers", "outputs", "intensity", "split", "parameter"]].itertuples(
            index=False, name=None
        )
    )
    networks = [
        (2, "strain-rotation-tilt", "linear", PARAMETERS),
        (1, "strain-rotation", "sqrt", PARAMETERS[:4]),
    ]
    expected = {
        (layers, outputs, intensity, split, parameter)
        for layers, outputs, intensity, parameters in networks
        for split in ("train", "validation", "test")
        for parameter in parameters
    }
    assert found == expected
    assert len(errors) == len(expected) == 30


def test_errors_are_those_of_the_predictions(results, errors):
    folder = results / "models" / "6.35mrad" / "2layers" / "strain-rotation-tilt_linear"
    predicted = pd.read_parquet(folder / "predictions_test.parquet")
    row = errors.query("layers == 2 and split == 'test' and parameter == 'rotation_deg'").iloc[0]
    difference = predicted["predicted_rotation_deg"] - predicted["true_rotation_deg"]
    assert row["examples"] == len(predicted) == 16
    assert row["mae"] == pytest.approx(difference.abs().mean())
    assert row["bias"] == pytest.approx(difference.mean())
    assert (errors[["mae", "rmse", "p95", "baseline_mae", "bound_mae"]] > 0).all().all()
    assert (errors["rmse"] >= errors["mae"]).all()


def test_tables_are_the_same_as_text_and_with_types(results):
    for name in ("errors", "bounds", "bounds_mean"):
        text, typed = (read_table(results / f"tables/{name}.{k}") for k in ("csv", "parquet"))
        pd.testing.assert_frame_equal(text, typed, check_dtype=False)
        # All say that they are of one study.
        assert one_study(*(results / f"tables/{n}.csv" for n in ("errors", name))).digest


def test_the_bound_is_tabulated_for_every_thickness_parameter_and_dose(results):
    bounds = read_bounds(results / "tables/bounds.parquet")
    assert set(bounds["layers"]) == {1, 2}
    assert set(bounds["state"]) == {"undeformed"}
    assert set(bounds["parameter"]) == set(PARAMETERS)
    doses = bounds.groupby(["layers", "parameter"])["electrons"]
    assert (doses.min() == 1e6).all()
    assert np.allclose(doses.max(), 5e7)


def test_the_gallery_has_the_states_of_the_figures(results):
    folder = results / "patterns/6.35mrad"
    strains = {
        name: Deformation(
            **read_patterns(folder / f"{name}.zarr.zip").attributes["request"]["deformation"]
        ).strain
        for name in ("gallery_strain_xx", "gallery_strain_yy", "gallery_strain_xy")
    }
    assert strains["gallery_strain_xx"][0, 0] == pytest.approx(0.1)
    assert strains["gallery_strain_yy"][1, 1] == pytest.approx(-0.1)
    assert strains["gallery_strain_xy"][0, 1] == pytest.approx(0.1)
    request = read_patterns(folder / "gallery_tilt_xy.zarr.zip").attributes["request"]
    assert list(request["tilt_mrad"]) == [5, 5]


@pytest.mark.parametrize("name", TITLES)
def test_figures_are_drawn_for_screen_and_print(results, name):
    assert (results / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (results / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_the_report_needs_nothing_but_itself(results):
    page = (results / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]*)""", page)
    assert len(sources) >= 3
    assert [s[:60] for s in sources if not s.startswith(("data:", "#"))] == []
    assert "url(" not in page
    assert "@import" not in page


def test_the_report_shows_figures_errors_and_configuration(results, errors):
    page = (results / "report.html").read_text(encoding="utf-8")
    for part in ("Fig. 1", "Fig. 8", *map(html.escape, TITLES.values()), "6.35"):
        assert part in page
    mae = errors.query("layers == 2 and split == 'test' and parameter == 'rotation_deg'")["mae"]
    assert f"{mae.item():.3g}" in page


def test_the_resolved_configuration_is_kept_with_the_results(finished, results):
    kept = yaml.safe_load((results / "config.yaml").read_text(encoding="utf-8"))
    assert kept == finished.config().plain()


def test_no_temporary_files_are_left(results):
    assert [p for p in results.rglob("*") if p.name.startswith(".") or ".tmp" in p.name] == []


# Again


def test_a_second_run_does_nothing(finished, results):
    before = {p: p.stat().st_mtime_ns for p in results.rglob("*")}
    assert finished.run().nothing_to_do
    assert {p: p.stat().st_mtime_ns for p in results.rglob("*")} == before


def test_the_same_configuration_gives_the_same_numbers_on_any_number_of_cores(
    finished, workspace, draws
):
    dataset = DATASETS[0]
    outcome = workspace.run(dataset, cores=1)
    assert outcome.status == 0, outcome.text
    used = draws.loc[draws["split"] == "train", "index"]
    assert len(used) == 2
    for index in used:
        name = f"results/patterns/6.35mrad/{index:05d}.zarr.zip"
        first, again = (read_patterns(one.folder / name) for one in (finished, workspace))
        np.testing.assert_array_equal(first.patterns, again.patterns)
        assert first.attributes["request"] == again.attributes["request"]
    assert (workspace.folder / dataset).read_bytes() == (finished.folder / dataset).read_bytes()


def test_discs_are_measured_in_the_test_set_where_they_are_large_enough(workspace):
    folder = workspace.folder / "results/classical/6.35mrad/2layers"
    target = str((folder / "discs_test.parquet").relative_to(workspace.folder))
    change = {
        "simulation": {"pixels": 214, "thermal_motion": "coherent"},
        "dataset": {"pixels": 64, "electrons": [5.0e7, 5.0e7], "field_of_view_variation": 0.02},
    }
    outcome = workspace.run(target, change=change)
    assert outcome.status == 0, outcome.text
    assert outcome.jobs == {"simulate": 1, "augment": 1, "discs": 1}
    for name in ("discs", "discs-calibrated"):
        table = read_table(folder / f"{name}_test.parquet")
        assert len(table) == 16
        assert {f"predicted_{p}" for p in PARAMETERS[:4]} <= set(table)
        assert set(table["split"]) == {"test"}
        assert (table["discs"] > 0).mean() > 0.8
    # Coarse as the images are, a known scale leaves little to be wrong about.
    error = table["predicted_strain_xx"] - table["true_strain_xx"]
    assert error.abs().median() < 0.01
