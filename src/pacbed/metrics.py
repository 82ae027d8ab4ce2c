"""How far predictions are from the truth, in physical units, and patterns from each other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pacbed.errors import PacbedError

UNITS = {
    "strain_xx": "1",
    "strain_yy": "1",
    "strain_xy": "1",
    "rotation_deg": "deg",
    "tilt_x_mrad": "mrad",
    "tilt_y_mrad": "mrad",
}


def relative_l1(patterns: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the sum of absolute differences over the sum of the reference, per layer.

    Parameters
    ----------
    patterns, reference
        Shape (layers, ny, nx).
    """
    difference = np.abs(patterns - reference).sum(axis=(1, 2), dtype=float)
    return np.asarray(difference / reference.sum(axis=(1, 2), dtype=float))


def errors(predictions: pd.DataFrame, training: pd.DataFrame) -> pd.DataFrame:
    """Summarise the errors of one set of predictions.

    Parameters
    ----------
    predictions
        Columns ``true_*`` and ``predicted_*``.
    training
        The same for the training set, whose mean is the baseline, or for another from which a mean
        can be known.

    Returns
    -------
    pandas.DataFrame
        One row per parameter: ``parameter``, ``unit``, ``examples``, ``mae``, ``rmse``, ``bias``
        (mean of predicted minus true), ``p95`` (95th percentile of the absolute error) and
        ``baseline_mae``, the MAE of always answering the mean of the training labels. Strain is a
        fraction.

    Raises
    ------
    PacbedError
        If there is nothing to compare.
    """
    names = [c.removeprefix("true_") for c in predictions.columns if c.startswith("true_")]
    if not names or predictions.empty:
        raise PacbedError("no predictions to evaluate")
    rows: list[Mapping[str, object]] = []
    for name in names:
        true = predictions[f"true_{name}"].to_numpy()
        error = predictions[f"predicted_{name}"].to_numpy() - true
        baseline = training[f"true_{name}"].mean() - true
        rows.append(
            {
                "parameter": name,
                "unit": UNITS[name],
                "examples": len(error),
                "mae": np.abs(error).mean(),
                "rmse": np.sqrt(np.square(error).mean()),
                "bias": error.mean(),
                "p95": np.percentile(np.abs(error), 95),
                "baseline_mae": np.abs(baseline).mean(),
            }
        )
    return pd.DataFrame(rows)
