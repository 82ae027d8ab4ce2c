"""How far predictions are from the truth, in physical units."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from pacbed.examples.labels import UNITS
from pacbed.exceptions import PacbedError

Bound = Callable[[str, np.ndarray], tuple[float, float, float]]
"""From a parameter and doses in electrons to bounds of the mean absolute error.

They are for unbiased readings of counted electrons (Cramér–Rao), for known ranges of the study, and
for known ranges and the noise of the examples.
"""

DOSES = 10
"""Number of bins of the dose."""

# An error of so many stated standard deviations is a failure.
_FAILED = 10.0
# True values that differ by less are the same but for rounding: strain, degrees, mrad.
_SAME = 1e-6
# Draws from which an interval says something.
_FEWEST = 3
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
        ``draws``, ``no_lattice`` (share of the examples of which the classical method could say
        nothing: those with ``discs`` = 0), ``flagged`` (share of the examples whose fit says that
        it may be wrong: those with ``flags``), ``mae``, its 95 % interval ``mae_low`` to
        ``mae_high``, ``rmse``, ``bias`` (mean of predicted minus true), ``sd`` (standard deviation
        of the error among examples of one draw, whose strain and tilt are the same), ``p95`` (95th
        percentile of the absolute error), ``r2`` (coefficient of determination) and
        ``baseline_mae``, the MAE of always answering the mean of the training labels. What needs
        more than one draw, more examples of a draw, or true values that differ, is not a number
        without.

    Notes
    -----
    Examples of one draw show the same crystal, so that their errors are not independent: the draws
    are. The interval is that of Student's t for the logarithm of the MAE, which is less skewed than
    the MAE itself, with the standard error of the jackknife that leaves out one draw at a time
    (Miller, Biometrika 61 (1974) 1). For skewed errors, it contains the MAE of infinitely many
    draws in 93 to 95 % of all cases, from five draws on. Of less than three draws it would be many
    decades wide, and is NaN.

    Raises
    ------
    PacbedError
        If there is nothing to compare.

    Examples
    --------
    >>> table = pd.DataFrame({"draw": [0, 0, 1, 1], "true_strain_xx": [0.01, 0.01, -0.02, -0.02]})
    >>> table["predicted_strain_xx"] = [0.011, 0.010, -0.021, -0.018]
    >>> errors(table, table)[["parameter", "mae", "bias", "baseline_mae"]].round(4)
       parameter    mae    bias  baseline_mae
    0  strain_xx  0.001  0.0005         0.015
    """
    names = [c.removeprefix("true_") for c in predictions.columns if c.startswith("true_")]
    if not names or predictions.empty:
        raise PacbedError("no predictions to evaluate")
    draws, draw = np.unique(predictions["draw"], return_inverse=True)
    count = np.bincount(draw)
    no_lattice = (predictions["discs"] == 0).mean() if "discs" in predictions else 0.0
    flagged = (predictions["flags"] != "").mean() if "flags" in predictions else 0.0
    rows: list[Mapping[str, object]] = []
    for name in names:
        true = predictions[f"true_{name}"].to_numpy(float)
        error = predictions[f"predicted_{name}"].to_numpy(float) - true
        size = np.abs(error)
        low, high = interval(np.bincount(draw, size), count)
        within = error - (np.bincount(draw, error) / count)[draw]
        freedom = len(error) - len(draws)
        rows.append(
            {
                "parameter": name,
                "unit": UNITS[name],
                "examples": len(error),
                "draws": len(draws),
                "no_lattice": no_lattice,
                "flagged": flagged,
                "mae": size.mean(),
                "mae_low": low,
                "mae_high": high,
                "rmse": np.sqrt(np.square(error).mean()),
                "bias": error.mean(),
                "sd": np.sqrt(np.square(within).sum() / freedom) if freedom else np.nan,
                "p95": np.percentile(size, 95),
                "r2": 1 - np.square(error).mean() / true.var() if varies(true) else np.nan,
                "baseline_mae": np.abs(training[f"true_{name}"].mean() - true).mean(),
            }
        )
    return pd.DataFrame(rows)


def calibration(fits: pd.DataFrame) -> pd.DataFrame:
    """Compare the errors of fits, or of networks, with the standard deviations that they state.

    Parameters
    ----------
    fits
        For each parameter columns ``true_*``, ``predicted_*`` and ``sigma_*``; of fits ``flags``.

    Returns
    -------
    pandas.DataFrame
        One row per parameter: ``parameter``, ``examples``, ``flagged`` (share of the examples whose
        fit says that it may be wrong); of the error over the stated standard deviation, in fits
        without a flag, ``spread`` (root mean square; 1 if errors are as large as stated) and the
        quantiles ``q025``, ``q16``, ``q50``, ``q84`` and ``q975`` (-1.96, -0.99, 0, 0.99 and 1.96
        for normal errors); ``failed``, the share of examples beyond ten standard deviations, and
        ``failed_unflagged``, those of them without a flag.
    """
    fine = np.equal(fits["flags"], "") if "flags" in fits else np.ones(len(fits), bool)
    rows = []
    for column in map(str, fits.filter(like="sigma_")):
        name = column.removeprefix("sigma_")
        error = fits[f"predicted_{name}"] - fits[f"true_{name}"]
        ratio = (error / fits[column]).to_numpy()
        far = np.abs(ratio) > _FAILED
        good = ratio[fine] if fine.any() else np.array([np.nan])
        quantiles = np.quantile(good, [0.025, 0.16, 0.5, 0.84, 0.975])
        rows.append(
            {
                "parameter": name,
                "examples": len(ratio),
                "flagged": 1 - fine.mean(),
                "spread": np.sqrt(np.mean(good**2)),
                **dict(zip(("q025", "q16", "q50", "q84", "q975"), quantiles, strict=True)),
                "failed": far.mean(),
                "failed_unflagged": (far & fine).mean(),
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
            tables.append(_with_bound(table, chosen["electrons"].to_numpy(float), bound))
    return in_percent(pd.concat(tables, ignore_index=True))


def _with_bound(table: pd.DataFrame, electrons: np.ndarray, bound: Bound | None) -> pd.DataFrame:
    found = [bound(p, electrons) if bound else [np.nan] * 3 for p in table["parameter"]]
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


def varies(values: pd.Series | np.ndarray) -> bool:
    """Return whether values of a parameter differ by more than rounding."""
    return bool(len(values) and np.ptp(values) > _SAME)


def interval(sums: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of a mean over examples; see the notes of :func:`errors`.

    Parameters
    ----------
    sums, counts
        Sum over the examples of each draw, and their number, shape (draws,).
    """
    draws, mean = len(counts), sums.sum() / counts.sum()
    if draws < _FEWEST:
        return math.nan, math.nan
    if not mean:
        return 0.0, 0.0
    without = np.log((sums.sum() - sums) / (counts.sum() - counts))
    error = math.sqrt((draws - 1) * without.var())
    factor = math.exp(stdtrit(draws - 1, 0.975) * error)
    return mean / factor, mean * factor
