"""Names of the results of a run, which the rules and the commands share."""

from __future__ import annotations

from collections.abc import Iterable

PATTERNS = "patterns/{semiangle}mrad"
"""Folder of the pattern stores of a semi-angle."""

DATASETS = "datasets/{semiangle}mrad/{layers}layers"
"""Folder of the datasets of a thickness."""

NETWORK = "{semiangle}mrad/{layers}layers/{outputs}_{intensity}"
"""What is of one network."""

MODELS = f"models/{NETWORK}"
"""Folder of a trained network."""


BOUNDS = "tables/bounds_mean.parquet"
"""Table of the bounds of all semi-angles and thicknesses."""


def stores(folder: object, draws: Iterable[int]) -> list[str]:
    """Return the pattern stores of draws."""
    return [f"{folder}/{draw:05d}.zarr.zip" for draw in draws]
