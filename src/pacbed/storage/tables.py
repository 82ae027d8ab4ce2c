"""Tables in files: Parquet, which keeps types and what the table is of, or CSV."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pacbed.exceptions import DamagedStoreError, PacbedError
from pacbed.storage.files import appearing_whole

_TEXT = {"state": str, "unit": str, "dose": str}
"""Columns of CSV files that are text though they may look like numbers."""


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet or, by its ending, CSV; it appears whole or not at all.

    Raises
    ------
    PacbedError
        If it cannot be written.
    """
    with appearing_whole(path) as temporary:
        if path.suffix == ".csv":
            table.to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False)


def read_table(path: Path) -> pd.DataFrame:
    """Read a table, Parquet or, by its ending, CSV.

    Raises
    ------
    PacbedError
        If it is missing.
    DamagedStoreError
        If it cannot be read.
    """
    try:
        return pd.read_csv(path, dtype=_TEXT) if path.suffix == ".csv" else pd.read_parquet(path)
    except FileNotFoundError as error:
        raise PacbedError(
            f"{path} does not exist: run the workflow, which makes it, or name another"
        ) from error
    except (OSError, ValueError) as error:
        raise DamagedStoreError(path, f"no table can be read ({str(error).rstrip('.')})") from error
