"""Snakemake logger plugin: what a run of any workflow will cost, and what it has cost.

See the README of the plugin for what it prints and what a workflow can tell it.
"""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    # Snakemake looks here for its two classes. A program that only reads benchmark files, by the
    # module `jobs`, needs neither them nor Snakemake.
    if name in ("LogHandler", "LogHandlerSettings", "start"):
        return getattr(import_module(f"{__name__}.handler"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
