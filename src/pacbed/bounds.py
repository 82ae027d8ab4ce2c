"""How precisely a pattern can be read at all: the Cramér-Rao bound.

From noise-free patterns of slightly different crystals, whatever engine made them, to the smallest
standard deviation that any unbiased reading of one noisy pattern can have. Strain, rotation and
tilt are unknown, and so are shift, field of view and dose, which an example has at random too
(:mod:`pacbed.augment`). See ``docs/bound.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from pacbed.augment import AugmentationSettings, Transformation, average_over_pixels, resample
from pacbed.deformation import DrawRanges
from pacbed.errors import PacbedError, RequestError
from pacbed.labels import PARAMETERS
from pacbed.metrics import UNITS, in_percent
from pacbed.microscope import wavelength_A
from pacbed.states import CENTRE, STEPPED, STEPS, UNDEFORMED, Steps
from pacbed.tables import read_table

NUISANCE = ("shift_x_px", "shift_y_px", "scale", "log_dose")
"""What is unknown besides: shift, field of view relative to its nominal, log of the electrons."""

UNKNOWN = PARAMETERS + NUISANCE
"""All that is unknown of a pattern, in the order of rows and columns of a Fisher information."""

MAE_OF_SIGMA = math.sqrt(2 / math.pi)
"""Mean absolute value of a normal error of standard deviation one."""

FWHM = 0.514
"""Full width at half maximum of a probe without aberrations, in units of λ/α."""

COLUMNS = ("sigma", "sigma_prior", "sigma_data", "sigma_lognormal", "sigma_known_scale")
"""Columns of a table of bounds that hold standard deviations."""

_SINGULAR = 1e-9
"""Smallest eigenvalue of an information of unit diagonal that is not taken for rounding."""


@dataclass(frozen=True)
class Linearised:
    """How a noise-free example changes with all that is unknown.

    Parameters
    ----------
    slopes
        Derivatives with respect to :data:`UNKNOWN` of the fraction of the incident electrons per
        pixel, shape (10, pixels, pixels), double precision.
    means
        The fraction to which each belongs, between those of the two states of the difference, same
        shape: the square of the mean of their roots.
    """

    slopes: np.ndarray
    means: np.ndarray


def linearise(
    patterns: Mapping[str, np.ndarray],
    pixel_mrad: tuple[float, float],
    settings: AugmentationSettings,
    steps: Steps = STEPS,
) -> Linearised:
    """Return what a camera would see change around a state.

    Patterns come to the pixels of an example as examples do (:mod:`pacbed.augment`), without
    rotation or shift and with the nominal field of view. Rotation, shift and field of view are
    differences of that resampling, the rest of patterns.

    Parameters
    ----------
    patterns
        Of the states of :func:`differences`, shape (ny, nx) each, fraction of the incident
        electrons per pixel.
    pixel_mrad
        Pixel size (x, y) of the patterns in mrad.
    settings
        Pixels and field of view of the examples.
    steps
        Those of :func:`differences`, and of the resampling.

    Raises
    ------
    PacbedError
        If a pattern is missing.
    """
    if missing := [name for name in _names() if name not in patterns]:
        raise PacbedError(
            f"no pattern of {', '.join(missing)}: simulate all states of states.differences"
        )
    field, pixels = settings.field_of_view_mrad, settings.pixels

    def averaged(name: str) -> np.ndarray:
        return average_over_pixels(patterns[name], pixel_mrad, settings.pixel_mrad)

    def seen(pattern: np.ndarray, change: Transformation) -> np.ndarray:
        return resample(pattern, pixel_mrad, change, pixels).astype(float)

    still = Transformation(0.0, field, 0.0, 0.0, 1.0, 1.0)
    centre = averaged(CENTRE)
    resampled = {
        "rotation_deg": (steps.rotation_deg, "rotation_deg", 0.0, 1.0),
        "shift_x_px": (steps.shift_px, "shift_x_px", 0.0, 1.0),
        "shift_y_px": (steps.shift_px, "shift_y_px", 0.0, 1.0),
        "scale": (steps.scale, "field_of_view_mrad", field, field),
    }
    slopes = np.empty((len(UNKNOWN), pixels, pixels))
    means = np.empty(slopes.shape)
    for row, parameter in enumerate(UNKNOWN):
        if parameter == "log_dose":
            slopes[row] = means[row] = seen(centre, still)
            continue
        if parameter in resampled:
            step, name, middle, unit = resampled[parameter]
            low, high = (
                seen(centre, replace(still, **{name: middle + sign * unit * step}))
                for sign in (-1, 1)
            )
        else:
            step = steps.of(parameter)
            low, high = (seen(averaged(f"{parameter}_{w}"), still) for w in ("minus", "plus"))
        slopes[row] = (high - low) / (2 * step)
        # Where a disc ends, a pixel of the central pattern may be dark and yet not remain so. With
        # the mean of roots, (∂p)²/p is 4 (∂√p)², which stays finite there.
        means[row] = ((np.sqrt(low) + np.sqrt(high)) / 2) ** 2
    return Linearised(slopes, means)


def _names() -> Iterator[str]:
    yield CENTRE
    for parameter in STEPPED:
        yield from (f"{parameter}_minus", f"{parameter}_plus")


def poisson_information(expected: np.ndarray) -> np.ndarray:
    """Return the Fisher information of a Poisson number about its mean µ: 1/µ, where µ > 0."""
    return np.divide(1.0, expected, out=np.zeros(expected.shape), where=expected > 0)


def lognormal_information(expected: np.ndarray) -> np.ndarray:
    """Return the Fisher information of the lognormal signal of examples about its mean µ.

    The log of the signal (:func:`pacbed.augment.record`) is normal with variance
    s² = ln(1 + 1/µ) and mean m = ln µ - s²/2, so that the information is
    m'²/s² + (s²)'²/(2 s⁴). That is 1/µ where there are many electrons, and more than that
    where there are few: no detector that counts electrons could tell so much.
    """
    lit = expected > 0
    mean = np.where(lit, expected, 1.0)
    variance = np.log1p(1 / mean)
    slope_of_variance = -1 / (mean * (1 + mean))
    slope_of_mean = 1 / mean - slope_of_variance / 2
    information = slope_of_mean**2 / variance + slope_of_variance**2 / (2 * variance**2)
    return np.where(lit, information, 0.0)


def fisher_information(
    linearised: Linearised, electrons: float, noise: str = "poisson"
) -> np.ndarray:
    """Return the Fisher information of one example about :data:`UNKNOWN`.

    Pixels in which no electron can arrive tell nothing and are left out.

    Parameters
    ----------
    linearised
        As of :func:`linearise`.
    electrons
        Incident electrons.
    noise
        ``poisson`` or ``lognormal``.

    Returns
    -------
    numpy.ndarray
        Shape (10, 10).

    Raises
    ------
    RequestError
        If the noise is another one.
    """
    per_pixel = {"poisson": poisson_information, "lognormal": lognormal_information}
    if noise not in per_pixel:
        raise RequestError(f"noise must be poisson or lognormal, not '{noise}'")
    weights = np.sqrt(per_pixel[noise](electrons * linearised.means))
    slopes = (electrons * linearised.slopes * weights).reshape(len(UNKNOWN), -1)
    return np.asarray(slopes @ slopes.T)


def standard_deviations(information: np.ndarray) -> np.ndarray:
    """Return the Cramér-Rao bounds of all parameters, which all are unknown.

    The roots of the diagonal of the inverse. What cannot be told from the pattern, or not apart
    from something else, has an infinite one.

    Parameters
    ----------
    information
        Shape (parameters, parameters).
    """
    scale = np.sqrt(np.diag(information))
    sigma = np.full(len(scale), math.inf)
    seen = np.flatnonzero(scale > 0)
    unit = information[np.ix_(seen, seen)] / np.outer(scale[seen], scale[seen])
    values, vectors = np.linalg.eigh(unit)
    known = values > _SINGULAR
    told = (vectors[:, ~known] ** 2).sum(axis=1) < _SINGULAR
    variance = (vectors[:, known] ** 2 / values[known]).sum(axis=1)
    sigma[seen[told]] = np.sqrt(variance[told]) / scale[seen[told]]
    return sigma


def standard_deviations_with_prior(information: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Return the bounds of all parameters if their distribution is known besides.

    The van Trees inequality with a normal prior: the covariance is (I + C⁻¹)⁻¹. What does not
    vary (C = 0) is known and has zero.

    Parameters
    ----------
    information
        Shape (parameters, parameters).
    covariance
        C, of the parameters before anything is measured, same shape.
    """
    values, vectors = np.linalg.eigh(covariance)
    # C = L Lᵀ with L = V √values, and (I + C⁻¹)⁻¹ = L (1 + Lᵀ I L)⁻¹ Lᵀ, also where C is singular.
    root = vectors * np.sqrt(np.clip(values, 0, None))
    inner = np.eye(len(root)) + root.T @ information @ root
    return np.asarray(np.sqrt(np.einsum("ij,jk,ik->i", root, np.linalg.inv(inner), root)))


def prior_covariance(ranges: DrawRanges, settings: AugmentationSettings) -> np.ndarray:
    """Return how all that is unknown is spread over the examples of a study.

    Parameters
    ----------
    ranges
        Of stretches, principal direction and tilt, from which :func:`pacbed.deformation.draw`
        draws.
    settings
        Ranges of rotation, field of view, shift and electrons.

    Returns
    -------
    numpy.ndarray
        Covariance of :data:`UNKNOWN`, shape (10, 10), diagonal but for the strains.
    """

    def uniform(low: float, high: float) -> float:
        return (high - low) ** 2 / 12

    tilt, shift = uniform(*ranges.tilt_mrad), settings.translation_px
    field = settings.field_of_view_variation
    log_dose = uniform(*np.log(settings.electrons).tolist())
    rotation = uniform(*settings.rotation_deg)
    nuisance = [uniform(-shift, shift), uniform(-shift, shift), uniform(-field, field), log_dose]
    covariance = np.diag([0, 0, 0, rotation, tilt, tilt, *nuisance])
    covariance[:3, :3] = _strain_covariance(ranges)
    return covariance


def _strain_covariance(ranges: DrawRanges) -> np.ndarray:
    """Covariance of (ε_xx, ε_yy, ε_xy).

    With a and d half of the sum and of the difference of the sorted stretches, the components are
    a - 1 + d cos 2θ, a - 1 - d cos 2θ and d sin 2θ. Two uniform numbers of range w have
    var a = ⟨d²⟩ = w²/24 and ⟨d⟩ = w/6, and a is independent of d.
    """
    low, high = ranges.stretch
    w = high - low
    angles = np.radians(np.linspace(*ranges.angle_deg, 20001))
    turn = np.stack([np.cos(2 * angles), -np.cos(2 * angles), np.sin(2 * angles)])
    # The trapezoidal rule over θ.
    weights = np.full(angles.shape, 1.0)
    weights[[0, -1]] = 0.5
    weights /= weights.sum()
    mean, square = turn @ weights, (turn * weights) @ turn.T
    both = np.array([1.0, 1.0, 0.0])
    return np.asarray(
        w**2 / 24 * (np.outer(both, both) + square) - w**2 / 36 * np.outer(mean, mean)
    )


def probe_nm(semiangle_mrad: float, energy_keV: float) -> float:
    """Return the size of a probe without aberrations, 0.514 λ/α, in nm.

    The full width at half maximum of the Airy pattern of a round aperture. The radius of its first
    zero, Rayleigh's criterion, is 0.61 λ/α.
    """
    return 0.1 * FWHM * wavelength_A(energy_keV) / (1e-3 * semiangle_mrad)


def bound_table(
    patterns: Mapping[str, np.ndarray],
    layers: Sequence[int],
    pixel_mrad: tuple[float, float],
    settings: AugmentationSettings,
    covariance: np.ndarray,
    *,
    semiangle_mrad: float,
    energy_keV: float,
    state: str = "undeformed",
    steps: Steps = STEPS,
    points: int = 11,
) -> pd.DataFrame:
    """Tabulate the bounds of one semi-angle and state for several thicknesses and doses.

    Parameters
    ----------
    patterns
        Of the states of :func:`differences`, shape (thicknesses, ny, nx) each, fraction of the
        incident electrons per pixel.
    layers
        Number of layers of each pattern.
    pixel_mrad
        Pixel size (x, y) of the patterns in mrad.
    settings
        Pixels and ranges of the examples.
    covariance
        Of all that is unknown, before anything is measured (:func:`prior_covariance`).
    semiangle_mrad, energy_keV
        Of the beam.
    state
        Name of the crystal and tilt at which the bound is computed.
    steps
        Of the differences.
    points
        Number of doses, spaced evenly in their logarithm over the range of the examples.

    Returns
    -------
    pandas.DataFrame
        One row per thickness, parameter and dose: ``semiangle_mrad``, ``layers``, ``state``,
        ``parameter``, ``unit``, ``electrons``; standard deviations ``sigma`` (Poisson),
        ``sigma_prior`` (with the ranges known), ``sigma_data`` (with the ranges and the noise of
        the examples), ``sigma_lognormal`` (lognormal noise of the same mean and variance),
        ``sigma_known_scale`` (Poisson, field of view known); ``probe_nm``.
        Strains are fractions.

    Raises
    ------
    PacbedError
        If a pattern is missing.
    """
    doses = np.geomspace(*settings.electrons, points)
    without_scale = [n for n, name in enumerate(UNKNOWN) if name != "scale"]
    rows: list[dict[str, object]] = []
    for number, thickness in enumerate(layers):
        one = {name: stack[number] for name, stack in patterns.items()}
        linearised = linearise(one, pixel_mrad, settings, steps)
        unit_dose = fisher_information(linearised, 1.0)
        alone = standard_deviations(unit_dose)
        known_scale = standard_deviations(unit_dose[np.ix_(without_scale, without_scale)])
        for electrons in doses.tolist():
            poisson = electrons * unit_dose
            lognormal = fisher_information(linearised, electrons, "lognormal")
            of_data = lognormal if settings.noise == "lognormal" else poisson
            with_prior, data = (
                standard_deviations_with_prior(one, covariance) for one in (poisson, of_data)
            )
            more = standard_deviations(lognormal)
            rows += [
                {
                    "semiangle_mrad": float(semiangle_mrad),
                    "layers": int(thickness),
                    "state": state,
                    "parameter": parameter,
                    "unit": UNITS[parameter],
                    "electrons": electrons,
                    "sigma": alone[p] / math.sqrt(electrons),
                    "sigma_prior": with_prior[p],
                    "sigma_data": data[p],
                    "sigma_lognormal": more[p],
                    "sigma_known_scale": known_scale[p] / math.sqrt(electrons),
                    "probe_nm": probe_nm(semiangle_mrad, energy_keV),
                }
                for p, parameter in enumerate(PARAMETERS)
            ]
    return pd.DataFrame(rows)


def bound_of(
    bounds: pd.DataFrame,
    semiangle_mrad: float,
    layers: int,
    parameter: str,
    electrons: np.ndarray | float,
    column: str = "sigma",
) -> float:
    """Return the bound of the mean absolute error over some examples.

    The mean absolute value of a normal error, √(2/π) σ, over the doses of the examples and the
    deformed states of the table, or at the undeformed crystal if there are none. Between the doses
    of the table log σ is interpolated over log N; beyond them it falls as 1/√N.

    Parameters
    ----------
    bounds
        As of :func:`bound_table`, of any number of semi-angles and states.
    semiangle_mrad, layers, parameter
        What to look up.
    electrons
        Incident electrons of each example.
    column
        One of :data:`COLUMNS`.

    Returns
    -------
    float
        In the unit of the parameter; NaN if the table does not have it, infinite if the parameter
        cannot be read.
    """
    chosen = bounds[
        np.isclose(bounds["semiangle_mrad"], semiangle_mrad)
        & (bounds["layers"] == layers)
        & (bounds["parameter"] == parameter)
    ]
    doses = np.atleast_1d(np.asarray(electrons, float))
    if chosen.empty or not doses.size:
        return math.nan
    means = []
    for _, rows in _at_deformed_states(chosen).groupby("state", sort=True):
        ordered = rows.sort_values("electrons")
        known, sigma = ordered["electrons"].to_numpy(), ordered[column].to_numpy()
        if not np.isfinite(sigma).all():
            return math.inf if np.isinf(sigma).any() else math.nan
        if not sigma.all():
            means.append(0.0)
            continue
        within = np.clip(doses, known[0], known[-1])
        between = np.exp(np.interp(np.log(within), np.log(known), np.log(sigma)))
        means.append(float((between * np.sqrt(within / doses)).mean()))
    return MAE_OF_SIGMA * float(np.mean(means))


def _at_deformed_states(bounds: pd.DataFrame) -> pd.DataFrame:
    """Leave out the undeformed crystal if there are other states, which stand for a study."""
    deformed = bounds["state"] != UNDEFORMED
    return bounds[deformed] if deformed.any() else bounds


def mean_bounds(bounds: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the bounds as mean absolute errors over log-uniform doses and the states.

    Parameters
    ----------
    bounds
        As of :func:`bound_table`, of any number of semi-angles and states.

    Returns
    -------
    pandas.DataFrame
        One row per ``semiangle_mrad``, ``layers`` and ``parameter``, with ``unit``, ``probe_nm``,
        ``mae`` (of ``sigma``), ``prior_mae``, ``data_mae``, ``lognormal_mae``, ``known_scale_mae``;
        for strains also in percent, ``mae_percent`` and so on.
    """
    keys = ["semiangle_mrad", "layers", "parameter"]
    means = bounds[[*keys, "unit", "probe_nm"]].drop_duplicates(keys, ignore_index=True)
    samples = dict(list(bounds.groupby(keys)))
    sought = list(zip(*(means[key] for key in keys), strict=True))
    for column in COLUMNS:
        name = f"{column.removeprefix('sigma')}_mae".lstrip("_")
        means[name] = [
            mean_bound(samples[angle, layers, parameter], angle, layers, parameter, column)
            for angle, layers, parameter in sought
        ]
    return in_percent(means)


def mean_bound(
    bounds: pd.DataFrame, semiangle_mrad: float, layers: int, parameter: str, column: str = "sigma"
) -> float:
    """Return the bound of the mean absolute error over log-uniform doses in the table's range."""
    electrons = bounds["electrons"]
    doses = np.geomspace(electrons.min(), electrons.max(), 201)
    middles = np.sqrt(doses[1:] * doses[:-1])
    return bound_of(bounds, semiangle_mrad, layers, parameter, middles, column)


def required_doses(bounds: pd.DataFrame, precision: float) -> pd.DataFrame:
    """Return how many electrons a strain precision takes, by semi-angle and thickness.

    Parameters
    ----------
    bounds
        As of :func:`bound_table`.
    precision
        Standard deviation that the worst of the three strain components must reach, as a fraction;
        of several states their mean.

    Returns
    -------
    pandas.DataFrame
        One row per ``semiangle_mrad`` and ``layers``: ``probe_nm``, ``parameter`` (the worst),
        ``sigma`` (at the largest dose of the table), ``electrons`` (that are needed, infinite
        if the strain cannot be read), ``beyond`` (more or fewer than the table has: scaled as
        1/√N).
    """
    bounds = _at_deformed_states(bounds)
    dose = bounds["electrons"]
    strains = bounds[bounds["parameter"].str.startswith("strain") & np.isclose(dose, dose.max())]
    keys = ["semiangle_mrad", "layers"]
    mean = strains.groupby([*keys, "parameter"], as_index=False)[["sigma", "probe_nm"]].mean()
    worst = mean.loc[mean.groupby(keys)["sigma"].idxmax()].reset_index(drop=True)
    worst["electrons"] = dose.max() * (worst["sigma"] / precision) ** 2
    worst["beyond"] = (worst["electrons"] > dose.max()) | (worst["electrons"] < dose.min())
    return worst


def read_bounds(path: Path) -> pd.DataFrame:
    """Read a table of bounds, Parquet or, by its ending, CSV.

    Raises
    ------
    PacbedError
        If it cannot be read, is empty, or lacks columns.
    """
    table = read_table(path)
    needed = ("semiangle_mrad", "layers", "state", "parameter", "electrons", "probe_nm", *COLUMNS)
    if absent := [name for name in needed if name not in table]:
        raise PacbedError(
            f"{path} is not a table of bounds: it has no {', '.join(absent)}. Such tables are "
            "tables/bounds.parquet among the results, or of pacbed design --save"
        )
    if table.empty:
        raise PacbedError(f"{path} holds no bounds")
    return table
