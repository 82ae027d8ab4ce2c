"""The table of errors, from the predictions of many networks that must be of one study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pacbed.bounds import bound_of
from pacbed.config import Network
from pacbed.errors import PacbedError
from pacbed.labels import OUTPUTS
from pacbed.metrics import errors_by_dose
from pacbed.tables import read_table

NETWORK = "network"
"""Method of predictions that a network has made."""


@dataclass(frozen=True)
class Predicted:
    """A file of predictions, and what they are.

    Parameters
    ----------
    path
        Parquet file.
    network
        Which network they are of; of another method, with what outputs and intensity it compares.
    split
        Set of the examples.
    method
        ``network``, or another way to read a pattern.
    """

    path: Path
    network: Network
    split: str
    method: str = NETWORK

    def read(self) -> pd.DataFrame:
        """Read the predictions.

        Raises
        ------
        PacbedError
            If the file is missing, damaged, or of another sample, set or outputs.
        """
        table = read_table(self.path)
        names = [c.removeprefix("true_") for c in table.columns if c.startswith("true_")]
        asked = list(OUTPUTS[self.network.outputs])
        if names != asked:
            raise PacbedError(
                f"{self.path} has predictions of {', '.join(names) or 'nothing'}, but "
                f"'{self.network.outputs}' are {', '.join(asked)}: the model was trained for other "
                "labels. Delete the folder, and have it trained again"
            )
        data = table.attrs.get("data", {})
        wanted = {
            "semiangle_mrad": self.network.semiangle_mrad,
            "layers": self.network.layers,
            "split": self.split,
        }
        for key, value in wanted.items():
            if data.get(key) != value:
                raise PacbedError(
                    f"{self.path} has predictions for {key} = {data.get(key)}, not {value}: delete "
                    "it, and have it made again"
                )
        return table


def of_variant(table: pd.DataFrame, outputs: str, intensity: str) -> pd.DataFrame:
    """Return the rows of the networks of one variant in a table of errors."""
    return table[
        (table["method"] == NETWORK)
        & (table["outputs"] == outputs)
        & (table["intensity"] == intensity)
    ]


def error_table(
    files: Sequence[Predicted],
    baseline: str,
    electrons: tuple[float, float],
    bounds: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Summarise the errors of all networks.

    Parameters
    ----------
    files
        Predictions.
    baseline
        Set whose mean is what one would always answer: of every network there must be a file.
    electrons
        Range of the doses in electrons.
    bounds
        Table of :func:`pacbed.bounds.bound_table`, if there is one.

    Returns
    -------
    pandas.DataFrame
        Rows of :func:`pacbed.metrics.errors_by_dose` for every file, with ``method``, the fields
        of the network, and ``split``.

    Raises
    ------
    PacbedError
        If a file is missing, is not what it should be, or is of another study than the others.
    """
    of_network = {file.network: file for file in files if file.split == baseline}
    of_sample = {(n.semiangle_mrad, n.layers): file for n, file in of_network.items()}
    tables = []
    first: tuple[Path, Mapping[str, Any]] | None = None
    for file in files:
        network, predictions = file.network, file.read()
        study = _study(predictions)
        first = first or (file.path, study)
        _refuse_mixture(first, (file.path, study))
        sample = network.semiangle_mrad, network.layers
        labels = of_network.get(network) or of_sample[sample]
        bound = None if bounds is None else partial(_bound, bounds, sample)
        table = errors_by_dose(predictions, labels.read(), electrons, bound)
        of_file = {"method": file.method, **asdict(network), "split": file.split}
        for place, (key, value) in enumerate(of_file.items()):
            table.insert(place, key, value)
        tables.append(table)
    if first and bounds is not None:
        _refuse_mixture(first, (Path("the table of bounds"), bounds.attrs.get("augmentation", {})))
    return pd.concat(tables, ignore_index=True)


def _bound(
    bounds: pd.DataFrame, sample: tuple[float, int], parameter: str, electrons: np.ndarray
) -> tuple[float, float]:
    plain, prior = (
        bound_of(bounds, *sample, parameter, electrons, column)
        for column in ("sigma", "sigma_prior")
    )
    return plain, prior


def _study(table: pd.DataFrame) -> dict[str, Any]:
    """Return what the predictions of a study have in common."""
    data = table.attrs.get("data", {})
    return {"seed": data.get("seed"), **data.get("augmentation", {})}


def _refuse_mixture(
    one: tuple[Path, Mapping[str, Any]], other: tuple[Path, Mapping[str, Any]]
) -> None:
    """Refuse tables of different studies: one would compare what cannot be compared.

    Raises
    ------
    PacbedError
        If something differs that both name, naming the files.
    """
    differing = [k for k in one[1] if k in other[1] and one[1][k] != other[1][k]]
    if differing:
        said = "; ".join(f"{k}: {one[1][k]} and {other[1][k]}" for k in differing)
        raise PacbedError(
            f"{one[0]} and {other[0]} are of different configurations ({said}): make both with "
            "one, each study in a folder of its own"
        )
