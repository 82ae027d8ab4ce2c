"""What a trained network says of a dataset."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from pacbed.examples.dataset import Dataset, refuse_other_simulation
from pacbed.examples.labels import LabelScaling
from pacbed.exceptions import PacbedError
from pacbed.learning.network import load_network
from pacbed.learning.sequences import StoredSequence


def predict(
    model_file: Path, settings_file: Path, data: Dataset, batch_size: int = 256
) -> pd.DataFrame:
    """Predict the parameters of every example of a dataset.

    Parameters
    ----------
    model_file, settings_file
        As written by :func:`pacbed.learning.training.train`.
    data
        The examples.
    batch_size
        Examples per step.

    Returns
    -------
    pandas.DataFrame
        One row per example: ``draw``, ``electrons``, and for each predicted parameter ``true_*``
        and ``predicted_*`` in physical units. ``attrs["data"]`` says what the examples are; a
        Parquet file keeps it.

    Raises
    ------
    PacbedError
        If the model or its settings cannot be read, or do not fit each other or the images, or if
        the network was trained on patterns of another crystal, beam or thermal motion.
    """
    try:
        settings = json.loads(settings_file.read_text(encoding="utf-8"))
        scaling = LabelScaling.from_dict(settings["scaling"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PacbedError(f"cannot read {settings_file}: {error}") from error
    refuse_other_simulation(settings.get("data", {}), data.attributes)
    model = load_network(model_file)
    if model.output_shape[-1] != len(scaling.parameters):
        raise PacbedError(
            f"{model_file} predicts {model.output_shape[-1]} parameters, but {settings_file} "
            f"names {len(scaling.parameters)}"
        )
    if model.input_shape[1] != data.images.shape[1]:
        raise PacbedError(
            f"{model_file} takes images of {model.input_shape[1]} pixels, the dataset has "
            f"{data.images.shape[1]}"
        )
    examples = StoredSequence(data, scaling, batch_size)
    predicted = scaling.unscale(model.predict(examples, verbose=0))
    true = data.columns(scaling.parameters)
    table: dict[str, np.ndarray] = {"draw": data.draws, "electrons": data.electrons}
    for column, name in enumerate(scaling.parameters):
        table[f"true_{name}"] = true[:, column].astype(float)
        table[f"predicted_{name}"] = predicted[:, column]
    predictions = pd.DataFrame(table)
    predictions.attrs["data"] = dict(data.attributes)
    return predictions
