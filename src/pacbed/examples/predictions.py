"""Tables of predictions, whatever reads the examples, and of which study they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from pacbed.examples.dataset import Dataset
from pacbed.specimen.deformation import DrawRanges
from pacbed.storage.tables import Study

SAMPLE = ("semiangle_mrad", "layers", "split")
"""Columns that say of which examples a prediction is."""

CRYSTAL = ("material", "energy_keV", "aperture", "physics_version")
"""What bounds have in common with the examples they are for, of how these were simulated."""


def prediction_table(
    data: Dataset, parameters: Sequence[str], predicted: np.ndarray
) -> pd.DataFrame:
    """Return predictions for every example of a dataset beside the true values.

    Parameters
    ----------
    data
        The examples.
    parameters
        What was predicted.
    predicted
        Predictions in physical units, shape (examples, parameters).

    Returns
    -------
    pandas.DataFrame
        One row per example: what the examples are (:data:`SAMPLE`, as far as the dataset says it),
        ``draw``, ``electrons``, and for each parameter ``true_*`` and ``predicted_*``.
    """
    true = data.columns(parameters)
    columns = {name: data.attributes[name] for name in SAMPLE if name in data.attributes}
    columns |= {"draw": data.draws, "electrons": data.electrons}
    for column, name in enumerate(parameters):
        columns[f"true_{name}"] = true[:, column].astype(float)
        columns[f"predicted_{name}"] = predicted[:, column]
    return pd.DataFrame(columns)


def crystal_of(store: Mapping[str, Any]) -> dict[str, Any]:
    """Return what bounds say of the simulation of a pattern store, given its attributes."""
    found = {**store["request"], **store}
    edge = {k: v for k, v in found["aperture"].items() if k != "semiangle_mrad"}
    return {name: found.get(name) for name in CRYSTAL} | {"aperture": edge}


def study_of(attributes: Mapping[str, Any], ranges: DrawRanges) -> Study:
    """Return of which study examples, or bounds for them, are.

    Parameters
    ----------
    attributes
        Of a dataset: the seed, how examples are made of patterns, and how these were simulated.
        Bounds, which another engine may have simulated, say only :data:`CRYSTAL` of the last.
    ranges
        From which strain and tilt were drawn.
    """
    simulation = attributes.get("simulation") or {}
    common = {
        "seed": attributes.get("seed"),
        "crystal": {name: simulation.get(name) for name in CRYSTAL},
        "examples": attributes.get("augmentation"),
        "ranges": asdict(ranges),
    }
    others = {name: value for name, value in simulation.items() if name not in CRYSTAL}
    return Study.of(common, {"simulation": others})
