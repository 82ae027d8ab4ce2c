"""Examples in the docstrings of the library give what they say."""

import doctest
import importlib
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"
MODULES = [
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(SOURCE.glob("pacbed/**/*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


def test_the_main_functions_have_examples():
    assert len(MODULES) > 10


@pytest.mark.parametrize("module", MODULES)
def test_examples_of_a_module_run(module):
    done = doctest.testmod(importlib.import_module(module))
    assert done.attempted
    assert not done.failed
