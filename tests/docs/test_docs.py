"""Documentation that is made from the code is that of this code."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_of_configuration_keys_is_that_of_the_schema():
    spec = importlib.util.spec_from_file_location("config_table", ROOT / "docs/config_table.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    written = (ROOT / "config/README.md").read_text(encoding="utf-8")
    assert written == maker.table(), "config/README.md is out of date: run make docs"
