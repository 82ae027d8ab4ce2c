"""Simulating, designing and looking need no more than an installation without extras has."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hiding import HIDE

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Distributions by the name under which they are imported.
IMPORTED = {"pillow": "PIL", "pyyaml": "yaml"}


def names(requirements):
    found = [re.match(r"[\w-]+", one)[0].lower() for one in requirements]
    return {IMPORTED.get(name, name).replace("-", "_") for name in found}


BASE = names(PROJECT["dependencies"])
EXTRAS = set().union(*(names(needed) for needed in PROJECT["optional-dependencies"].values()))
HIDDEN = sorted((EXTRAS | {"tensorflow"}) - BASE)


@pytest.fixture
def alone(tmp_path):
    """Run Python code, or a command, where nothing of the extras can be imported."""

    def run(code, *words):
        done = subprocess.run(
            [sys.executable, "-c", HIDE.format(hidden=set(HIDDEN)) + code, *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout, done.stderr

    return run


COMMAND = "from pacbed.cli import main; sys.exit(main())"


def test_base_and_extras_are_what_they_are_for():
    assert {"numpy", "scipy", "zarr", "ase", "matplotlib", "pandas"} <= BASE
    assert {"keras", "tensorflow", "pyarrow", "snakemake"} <= set(HIDDEN)
    assert {"learning", "gpu", "workflow", "dev"} <= set(PROJECT["optional-dependencies"])


def test_modules_that_simulate_design_and_show_import_without_extras(alone):
    code = """
import importlib, json, pkgutil, pacbed
missing = {}
for one in pkgutil.walk_packages(pacbed.__path__, "pacbed."):
    if one.name != "pacbed.__main__":
        try:
            importlib.import_module(one.name)
        except ModuleNotFoundError as error:
            missing[one.name] = error.name
print(json.dumps(missing))
"""
    status, out, err = alone(code)
    assert status == 0, err
    missing = json.loads(out)
    assert set(missing.values()) <= {"keras", "tensorflow"}
    packages = {name.split(".")[1] for name in missing}
    assert packages <= {"examples", "learning", "precision", "reading", "scattering", "study"}
    assert "pacbed.precision.bound" not in missing
    assert not [
        name for name in missing if name.startswith("pacbed.scattering.") and "model" not in name
    ]


def test_patterns_are_simulated_shown_and_compared_without_extras(alone, tmp_path):
    simulate = [
        "simulate",
        "--layers",
        "1",
        "--incident-step",
        "3",
        "--threads",
        "1",
        "--output",
        "a.zarr.zip",
    ]
    compare = ["compare", "a.zarr.zip", "a.zarr.zip"]
    for words in (simulate, ["show", "a.zarr.zip"], compare):
        status, out, err = alone(COMMAND, *words)
        assert status == 0, (words, out, err)
    assert {"a.png", "compare.png"} <= {path.name for path in tmp_path.iterdir()}


def test_commands_that_need_more_say_what_to_install(alone):
    status, _, err = alone(COMMAND, "network")
    assert status == 1
    assert "pip install 'pacbed[learning]'" in err


def test_tables_are_csv_without_pyarrow(alone, tmp_path):
    (tmp_path / "old.parquet").write_bytes(b"PAR1")
    code = """
import pandas as pd
from pathlib import Path
from pacbed.exceptions import PacbedError
from pacbed.storage.tables import Study, read_study, read_table, write_table
table = pd.DataFrame({"mae": [0.5], "state": ["00012"]})
path = write_table(table, Path("bounds.parquet"), Study.of({"seed": 1}))
assert path == Path("bounds.csv"), path
assert read_table(path)["state"].tolist() == ["00012"]
assert read_study(path).digest
try:
    read_table(Path("old.parquet"))
except PacbedError as error:
    print(error)
"""
    status, out, err = alone(code)
    assert status == 0, err
    assert "old.parquet without PyArrow: pip install pyarrow" in out
