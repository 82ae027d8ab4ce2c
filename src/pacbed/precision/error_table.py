"""The table of errors, from the predictions of many networks that must be of one study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pacbed.examples.labels import OUTPUTS
from pacbed.examples.predictions import SAMPLE
from pacbed.exceptions import PacbedError
from pacbed.learning.specification import NetworkSpec
from pacbed.precision.bound_table import KEY, bound_of, read_bounds
from pacbed.precision.metrics import errors_by_dose, varies
from pacbed.storage.tables import Study, one_study, read_table

NETWORK, CALIBRATED = "network", "discs-calibrated"
NETWORK_FIT, FIT = "network+fit", "fit"
"""Methods of predictions: of a network; of disc positions with the scale of the pattern known; of a
fit that begins with a network, and without one."""


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
        angle, layers = self.network.semiangle_mrad, self.network.layers
        for key, value in zip(SAMPLE, (angle, layers, self.split), strict=True):
            found = table[key].unique().tolist() if key in table else ["unknown"]
            if found != [value]:
                raise PacbedError(
                    f"{self.path} has predictions for {key} = {', '.join(map(str, found))}, not "
                    f"{value}: delete it, and have it made again"
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
    bounds: Path | None = None,
) -> tuple[pd.DataFrame, Study]:
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
        File of a :func:`pacbed.precision.bound_table.bound_table`, if there is one.

    Returns
    -------
    tuple of pandas.DataFrame and Study
        Rows of :func:`pacbed.precision.metrics.errors_by_dose` for every file, with ``method``, the
        fields of the network, and ``split``. Parameters whose true values are the same in all files
        are left out. The study is that of all files.

    Raises
    ------
    PacbedError
        If a file is missing, is not what it should be, or is of another study than the others, or
        if no parameter varies.
    """
    study = one_study(*(file.path for file in files), *([bounds] if bounds else []))
    of_network = {file.network: file for file in files if file.split == baseline}
    of_sample = {(n.semiangle_mrad, n.layers): file for n, file in of_network.items()}
    known = dict(list(read_bounds(bounds).groupby(KEY))) if bounds else {}
    # Predictions are large, and of the baseline only means are needed: a row that stands for all.
    mean_labels = cache(lambda file: file.read().filter(like="true_").mean().to_frame().T)
    tables, ranges = [], []
    for file in files:
        network, predictions = file.network, file.read()
        sample = network.semiangle_mrad, network.layers
        if (labels := of_network.get(network) or of_sample.get(sample)) is None:
            raise PacbedError(
                f"no predictions of the {baseline} set at {sample[0]:g} mrad and {sample[1]} layers"
                f", whose mean is the baseline for {file.path}"
            )
        bound = partial(_bounds, known, sample, file.method)
        table = errors_by_dose(predictions, mean_labels(labels), electrons, bound)
        of_file: dict[Any, Any] = {"method": file.method, **asdict(network), "split": file.split}
        tables.append(pd.DataFrame(of_file | dict(table.items())))
        ranges.append(predictions.filter(like="true_").agg(["min", "max"]))
    ends = pd.concat(ranges)
    varied = [c.removeprefix("true_") for c in map(str, ends) if varies(ends[c].dropna())]
    table = pd.concat(tables, ignore_index=True)
    table = table[table["parameter"].isin(varied)].reset_index(drop=True)
    if table.empty:
        raise PacbedError(
            "none of the parameters that the networks read varies: give one of them a range in "
            "section deformation of the configuration"
        )
    return table, study


def _bounds(
    known: Mapping[Any, pd.DataFrame],
    sample: tuple[float, int],
    method: str,
    parameter: str,
    electrons: np.ndarray,
) -> tuple[float, float, float]:
    if (rows := known.get((*sample, parameter))) is None:
        return np.nan, np.nan, np.nan
    if method == CALIBRATED:
        return bound_of(rows, electrons, "sigma_known_scale"), np.nan, np.nan
    plain, prior, data = (
        bound_of(rows, electrons, column) for column in ("sigma", "sigma_prior", "sigma_data")
    )
    return plain, prior, data


def read_of_one_study(*paths: Path) -> list[pd.DataFrame]:
    """Read tables that are shown together.

    Raises
    ------
    PacbedError
        If one is missing or damaged, or they are of different studies.
    """
    one_study(*paths)
    return [read_table(path) for path in paths]
