"""The table of errors, from the predictions of many networks that must be of one study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pacbed.examples.labels import OUTPUTS
from pacbed.exceptions import PacbedError
from pacbed.learning.specification import NetworkSpec
from pacbed.precision.bound_table import bound_of
from pacbed.precision.metrics import Bounds, errors_by_dose
from pacbed.storage.tables import read_table

NETWORK, CALIBRATED = "network", "discs-calibrated"
"""Methods of predictions: of a network; of disc positions with the scale of the pattern known."""


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
    network: NetworkSpec
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


def of_test_set(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the test set over all doses, of every method."""
    return table[(table["split"] == "test") & (table["dose"].astype(str) == "all")]


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
    bounds: tuple[Path, pd.DataFrame] | None = None,
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
        File and table of :func:`pacbed.precision.bound_table.bound_table`, if there is one.

    Returns
    -------
    pandas.DataFrame
        Rows of :func:`pacbed.precision.metrics.errors_by_dose` for every file, with ``method``, the
        fields of the network, and ``split``.

    Raises
    ------
    PacbedError
        If a file is missing, is not what it should be, or is of another study than the others.
    """
    of_network = {file.network: file for file in files if file.split == baseline}
    of_sample = {(n.semiangle_mrad, n.layers): file for n, file in of_network.items()}
    samples = dict(list(bounds[1].groupby(["semiangle_mrad", "layers"]))) if bounds else {}
    # What all must have in common: the first predictions have seed and camera, bounds the camera.
    first: tuple[Path, Mapping[str, Any]] | None = None
    # Predictions are large, and of the baseline only means are needed: a row that stands for all.
    mean_labels = cache(lambda file: file.read().filter(like="true_").mean().to_frame().T)
    tables = []
    for file in files:
        network, predictions = file.network, file.read()
        if first is None:
            first = file.path, study_of(predictions)
            if bounds:
                _refuse_mixture(first, (bounds[0], study_of(bounds[1])))
        _refuse_mixture(first, (file.path, study_of(predictions)))
        sample = network.semiangle_mrad, network.layers
        if (labels := of_network.get(network) or of_sample.get(sample)) is None:
            raise PacbedError(
                f"no predictions of the {baseline} set at {sample[0]:g} mrad and {sample[1]} layers"
                f", whose mean is the baseline for {file.path}"
            )
        known = samples.get(sample)
        bound = None if known is None else partial(_bounds, known, sample, file.method)
        table = errors_by_dose(predictions, mean_labels(labels), electrons, bound)
        of_file = {"method": file.method, **asdict(network), "split": file.split}
        for place, (key, value) in enumerate(of_file.items()):
            table.insert(place, key, value)
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    table.attrs["study"] = dict(first[1]) if first else {}
    return table


def _bounds(
    bounds: pd.DataFrame,
    sample: tuple[float, int],
    method: str,
    parameter: str,
    electrons: np.ndarray,
) -> Bounds:
    def of(column: str) -> float:
        return bound_of(bounds, *sample, parameter, electrons, column)

    if method == CALIBRATED:
        return Bounds(of("sigma_known_scale"), np.nan, np.nan)
    return Bounds(of("sigma"), of("sigma_prior"), of("sigma_data"))


def study_of(table: pd.DataFrame) -> Mapping[str, Any]:
    """Return what the tables of a study have in common: its seed and the camera, if it says so."""
    data = table.attrs.get("data", {})
    of_data = {"seed": data.get("seed"), **data.get("augmentation", {})} if data else {}
    return table.attrs.get("study", of_data)


def refuse_mixture(*tables: tuple[Path, pd.DataFrame]) -> None:
    """Refuse tables of different studies: one would compare what cannot be compared.

    Parameters
    ----------
    *tables
        Files and what was read from them.

    Raises
    ------
    PacbedError
        If something differs that two of them say, naming both files.
    """
    studies = [(path, study_of(table)) for path, table in tables]
    for one, other in pairwise(studies):
        _refuse_mixture(one, other)


def read_of_one_study(*paths: Path) -> list[pd.DataFrame]:
    """Read tables that are shown together.

    Raises
    ------
    PacbedError
        If one is missing or damaged, or they are of different studies.
    """
    tables = [read_table(path) for path in paths]
    refuse_mixture(*zip(paths, tables, strict=True))
    return tables


def _refuse_mixture(
    one: tuple[Path, Mapping[str, Any]], other: tuple[Path, Mapping[str, Any]]
) -> None:
    differing = [k for k in one[1] if k in other[1] and one[1][k] != other[1][k]]
    if differing:
        said = "; ".join(f"{k}: {one[1][k]} and {other[1][k]}" for k in differing)
        raise PacbedError(
            f"{one[0]} and {other[0]} are of different configurations ({said}): make both with "
            "one, each study in a folder of its own"
        )
