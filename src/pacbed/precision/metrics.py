"""How far predictions are from the truth, in physical units, and patterns from each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from pacbed.examples.labels import UNITS
from pacbed.exceptions import PacbedError
from pacbed.seeding import stream


class Bounds(NamedTuple):
    """Bounds of the mean absolute error of a parameter.

    Parameters
    ----------
    plain
        Of unbiased readings of counted electrons (Cramér–Rao).
    prior
        With the ranges of the study known besides.
    data
        With the ranges known, for the noise of the examples.
    """

    plain: float
    prior: float
    data: float


Bound = Callable[[str, np.ndarray], Bounds]
"""From a parameter and doses in electrons to bounds."""

DOSES = 10
"""Number of bins of the dose."""

_REPEATS = 2000
# Columns besides those that end in mae that have the unit of the parameter.
_LENGTHS = ("mae_low", "mae_high", "rmse", "bias", "sd", "p95")


def errors(predictions: pd.DataFrame, training: pd.DataFrame) -> pd.DataFrame:
    """Summarise the errors of one set of predictions.

    Parameters
    ----------
    predictions
        Columns ``draw``, ``true_*`` and ``predicted_*``.
    training
        The same for the training set, whose mean is the baseline, or for another from which a mean
        can be known.

    Returns
    -------
    pandas.DataFrame
        One row per parameter, strain as a fraction: ``parameter``, ``unit``, ``examples``,
        ``draws``, ``failed`` (share of the examples of which a method could say nothing: those with
        ``discs`` = 0, if there is such a column), ``mae``, its 95 % interval ``mae_low`` to
        ``mae_high``, ``rmse``, ``bias`` (mean of predicted minus true), ``sd`` (standard deviation
        of the error among examples of one draw, whose strain and tilt are the same), ``p95`` (95th
        percentile of the absolute error),
        ``r2`` (coefficient of determination) and ``baseline_mae``, the MAE of always answering the
        mean of the training labels. What needs more than one draw, more examples of a draw, or
        true values that differ, is not a number without.

    Notes
    -----
    Examples of one draw show the same crystal, so that their errors are not independent: the
    interval is that of a bootstrap over draws (Davison & Hinkley 1997, 3.8), percentiles of 2000
    repeats.

    Raises
    ------
    PacbedError
        If there is nothing to compare.
    """
    names = [c.removeprefix("true_") for c in predictions.columns if c.startswith("true_")]
    if not names or predictions.empty:
        raise PacbedError("no predictions to evaluate")
    draws, draw = np.unique(predictions["draw"], return_inverse=True)
    weights = _resampled(len(draws))
    count = np.bincount(draw)
    failed = (predictions["discs"] == 0).mean() if "discs" in predictions else 0.0
    rows: list[Mapping[str, object]] = []
    for name in names:
        true = predictions[f"true_{name}"].to_numpy(float)
        error = predictions[f"predicted_{name}"].to_numpy(float) - true
        size = np.abs(error)
        maes = weights @ np.bincount(draw, size) / (weights @ count)
        low, high = np.percentile(maes, [2.5, 97.5]) if len(draws) > 1 else (np.nan, np.nan)
        within = error - (np.bincount(draw, error) / count)[draw]
        freedom, spread = len(error) - len(draws), np.square(true - true.mean()).sum()
        rows.append(
            {
                "parameter": name,
                "unit": UNITS[name],
                "examples": len(error),
                "draws": len(draws),
                "failed": failed,
                "mae": size.mean(),
                "mae_low": low,
                "mae_high": high,
                "rmse": np.sqrt(np.square(error).mean()),
                "bias": error.mean(),
                "sd": np.sqrt(np.square(within).sum() / freedom) if freedom else np.nan,
                "p95": np.percentile(size, 95),
                "r2": 1 - np.square(error).sum() / spread if spread else np.nan,
                "baseline_mae": np.abs(training[f"true_{name}"].mean() - true).mean(),
            }
        )
    return pd.DataFrame(rows)


def errors_by_dose(
    predictions: pd.DataFrame,
    training: pd.DataFrame,
    electrons: tuple[float, float],
    bound: Bound | None = None,
) -> pd.DataFrame:
    """Summarise the errors of all examples, and of each tenth of the range of doses.

    Parameters
    ----------
    predictions, training
        As of :func:`errors`, the first with a column ``electrons``.
    electrons
        Range of the doses, which are log-uniform: its tenths hold as many examples each.
    bound
        Bounds of a parameter at some doses.

    Returns
    -------
    pandas.DataFrame
        Rows of :func:`errors` with ``dose`` (``all``, or the number of the tenth from ``1``, the
        lowest), ``electrons_low``, ``electrons_high``, ``bound_mae``, ``prior_bound_mae`` and
        ``data_bound_mae`` (see :class:`Bound`), ``efficiency`` (the second over the MAE), and for
        strains what is a fraction also in percent (``mae_percent``, ...). A tenth without examples
        has no rows.

    Raises
    ------
    PacbedError
        If there is nothing to compare, or the doses of the examples are not in the range.
    """
    low, high = electrons
    edges = np.geomspace(low, high, DOSES + 1) if low < high else np.array([low, high])
    bins = {"all": (low, high)}
    if low < high:
        bins |= {str(n + 1): (edges[n], edges[n + 1]) for n in range(DOSES)}
    doses = predictions["electrons"].to_numpy(float)
    if len(doses) and not (low * (1 - 1e-6) <= doses.min() <= doses.max() <= high * (1 + 1e-6)):
        raise PacbedError(
            f"examples of {doses.min():.3g} to {doses.max():.3g} electrons are not of the range "
            f"{low:.3g} to {high:.3g}: make them again, or give their range"
        )
    number = np.clip(np.searchsorted(edges, doses, side="right"), 1, DOSES)
    tables = []
    for dose, (lowest, highest) in bins.items():
        chosen = predictions if dose == "all" else predictions[number == int(dose)]
        if len(chosen) or dose == "all":
            table = errors(chosen, training)
            table = table.assign(dose=dose, electrons_low=lowest, electrons_high=highest)
            tables.append(_beside_bound(table, chosen["electrons"].to_numpy(float), bound))
    return in_percent(pd.concat(tables, ignore_index=True))


def _beside_bound(table: pd.DataFrame, electrons: np.ndarray, bound: Bound | None) -> pd.DataFrame:
    unknown = Bounds(np.nan, np.nan, np.nan)
    found = [bound(p, electrons) if bound else unknown for p in table["parameter"]]
    plain, prior, data = np.array(found, float).reshape(-1, 3).T
    with np.errstate(divide="ignore"):
        efficiency = prior / table["mae"].to_numpy()
    return table.assign(
        bound_mae=plain, prior_bound_mae=prior, data_bound_mae=data, efficiency=efficiency
    )


def in_percent(table: pd.DataFrame) -> pd.DataFrame:
    """Add to errors of strains, which are fractions, columns in percent: ``mae_percent``, ..."""
    strain = table["parameter"].str.startswith("strain")
    names = [c for c in map(str, table) if c in _LENGTHS or c.endswith("mae")]
    percent = {f"{name}_percent": (100 * table[name]).where(strain) for name in names}
    return table.assign(**percent)


def _resampled(draws: int) -> np.ndarray:
    """Return how often each draw is in each repeat of the bootstrap, (repeats, draws)."""
    random = stream(0, "bootstrap", draws)
    return random.multinomial(draws, np.full(draws, 1 / draws), size=_REPEATS)
