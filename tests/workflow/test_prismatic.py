"""The workflow with Prismatic, in whose place stands a program that makes up its patterns."""

import sys

import pytest
from workspace import ROOT

from pacbed.patterns.store import read_patterns
from pacbed.storage.zipped import checkpoint_of

STAND_IN = ROOT / "tests" / "engines" / "stand_in_prismatic.py"
STORE = "results/patterns/6.35mrad/00000.zarr.zip"


@pytest.fixture
def change(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec '{sys.executable}' -u '{STAND_IN}' \"$@\"\n")
    python.chmod(0o755)
    record = tmp_path / "record"
    record.mkdir()
    monkeypatch.setenv("STAND_IN_RECORD", str(record))
    return {
        "simulation": {
            "engine": "prismatic",
            "field_of_view_mrad": 134,
            "thermal_motion": 2,
            "prismatic": {"box_A": 60, "probe_region_A": 30, "probes": [2, 2]},
        },
        # What examples can reach must lie within Prismatic's field.
        "dataset": {"translation_px": 0, "field_of_view_variation": 0},
        "execution": {"prismatic_python": str(python)},
    }


def test_a_deformation_is_simulated_with_prismatic_until_what_it_depends_on_changes(
    workspace, change
):
    outcome = workspace.run(STORE, change=change)
    assert outcome.status == 0, outcome.text

    store = read_patterns(workspace.folder / STORE)

    assert store.attributes["engine"] == "prismatic"
    assert store.attributes["probes_of_all_configurations"] == 2 * 4
    assert store.patterns.shape == (2, 32, 32)
    assert not checkpoint_of(workspace.folder / STORE).exists()
    log = (workspace.folder / "results/logs/patterns/6.35mrad/00000.log").read_text()
    assert "Computing Probe Position #3/4" in log
    assert "simulation of 00000: 8 of 8" in log

    change["execution"] |= {"scratch_GB": 7, "call_limit_h": None}
    change["simulation"]["planewave"] = {"diffuse_waves": 40, "supercell": [4, 3]}
    assert workspace.plan(STORE, change=change).nothing_to_do

    change["simulation"]["prismatic"]["slices_per_layer"] = 4
    assert workspace.plan(STORE, change=change).jobs == {"simulate": 1}


def test_a_killed_simulation_is_named_leaves_no_store_and_goes_on_where_it_was(
    workspace, change, monkeypatch
):
    monkeypatch.setenv("STAND_IN_DOES", "sigkill")
    monkeypatch.setenv("STAND_IN_FROM", "2")
    outcome = workspace.run(STORE, change=change)
    assert outcome.status == 1
    assert "Prismatic was killed by SIGKILL" in outcome.text
    assert not (workspace.folder / STORE).exists()
    assert checkpoint_of(workspace.folder / STORE).exists()

    monkeypatch.setenv("STAND_IN_DOES", "write")
    assert workspace.run(STORE, change=change).status == 0

    log = (workspace.folder / "results/logs/patterns/6.35mrad/00000.log").read_text()
    assert "1 of 2 configurations were kept" in log
    assert read_patterns(workspace.folder / STORE).attributes["configurations"] == 2


def test_a_machine_without_prismatic_is_told_how_to_get_it(workspace, change):
    change["execution"]["prismatic_python"] = "/nowhere/python"

    outcome = workspace.run(STORE, change=change)

    assert outcome.status == 1
    assert "the interpreter '/nowhere/python' cannot be run" in outcome.text
