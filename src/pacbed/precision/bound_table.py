"""Tables of bounds: by semi-angle, thickness, state, parameter and dose."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pacbed.examples.augment import AugmentationSettings
from pacbed.examples.labels import PARAMETERS, UNITS
from pacbed.exceptions import PacbedError, RequestError
from pacbed.precision.bound import (
    UNKNOWN,
    Linearised,
    fisher_information,
    linearise,
    linearise_image,
    standard_deviations,
    standard_deviations_with_prior,
)
from pacbed.precision.metrics import in_percent
from pacbed.precision.steps import STEPS, UNDEFORMED, State, Steps
from pacbed.scattering.image import Camera
from pacbed.scattering.series import ScatteringSeries
from pacbed.specimen.microscope import Aperture, wavelength_A
from pacbed.storage.tables import read_table

MAE_OF_SIGMA = math.sqrt(2 / math.pi)
"""Mean absolute value of a normal error of standard deviation one."""

FWHM = 0.514
"""Full width at half maximum of a probe without aberrations, in units of λ/α."""

COLUMNS = ("sigma", "sigma_prior", "sigma_data", "sigma_lognormal", "sigma_known_scale")
"""Columns of a table of bounds that hold standard deviations."""

KEY = ["semiangle_mrad", "layers", "parameter"]
"""Columns of a table of bounds that say of what a bound is."""

# Standard deviation of a parameter, before anything is measured, below which it does not vary.
_SAME = 1e-7


def probe_nm(semiangle_mrad: float, energy_keV: float) -> float:
    """Return the size of a probe without aberrations, 0.514 λ/α, in nm.

    The full width at half maximum of the Airy pattern of a round aperture. The radius of its first
    zero, Rayleigh's criterion, is 0.61 λ/α.
    """
    return 0.1 * FWHM * wavelength_A(energy_keV) / (1e-3 * semiangle_mrad)


@dataclass(frozen=True)
class Sample:
    """What a camera would see change around one state at one semi-angle.

    Parameters
    ----------
    semiangle_mrad
        Of the beam.
    linearised
        Of each thickness; they may be made one after the other.
    state
        Name of the crystal and tilt at which the bound is computed.
    """

    semiangle_mrad: float
    linearised: Iterable[Linearised]
    state: str = UNDEFORMED

    @classmethod
    def of_patterns(
        cls,
        semiangle_mrad: float,
        patterns: Mapping[str, np.ndarray],
        pixel_mrad: tuple[float, float],
        settings: AugmentationSettings,
        steps: Steps = STEPS,
        state: str = UNDEFORMED,
    ) -> Sample:
        """Take differences of patterns.

        Parameters
        ----------
        semiangle_mrad, state
            As of the class.
        patterns
            Of the states of :func:`pacbed.precision.steps.differences`, shape
            (thicknesses, ny, nx) each, fraction of the incident electrons per pixel.
        pixel_mrad
            Pixel size (x, y) of the patterns in mrad.
        settings
            Pixels of the examples.
        steps
            Of the differences.

        Raises
        ------
        PacbedError
            If a pattern is missing.
        """
        stacks = (
            dict(zip(patterns, of_one, strict=True))
            for of_one in zip(*patterns.values(), strict=True)
        )
        linearised = [linearise(one, pixel_mrad, settings, steps) for one in stacks]
        return cls(semiangle_mrad, linearised, state)

    @classmethod
    def of_series(
        cls,
        series: ScatteringSeries,
        aperture: Aperture,
        state: State,
        layers: Sequence[int],
        settings: AugmentationSettings,
        name: str = UNDEFORMED,
    ) -> Sample:
        """Take the derivatives of a scattering series.

        Parameters
        ----------
        series
            The series.
        aperture
            Of the beam.
        state, name
            Where the bound is computed, and its name.
        layers
            Numbers of layers.
        settings
            Pixels of the examples.

        Raises
        ------
        RequestError
            If the series does not reach that far, or has no diffuse scattering: where it is dark,
            a few electrons would seem to tell everything.
        """
        if series.request.motion != "full":
            raise RequestError(
                f"{series.path} has no diffuse scattering, so that bounds would be too small: make "
                "a series with full thermal motion"
            )
        (xx, xy), (_, yy) = state.deformation.strain
        camera = Camera(settings.pixels, settings.field_of_view_mrad)
        images = (
            series.image_and_derivatives((xx, yy, xy), state.tilt_mrad, aperture, n, camera)
            for n in layers
        )
        linearised = (linearise_image(one, settings.mtf) for one in images)
        return cls(aperture.semiangle_mrad, linearised, name)


def bound_table(
    samples: Iterable[Sample],
    layers: Sequence[int],
    settings: AugmentationSettings,
    covariance: np.ndarray,
    energy_keV: float,
    points: int = 11,
) -> pd.DataFrame:
    """Tabulate the bounds of semi-angles and states for several thicknesses and doses.

    Parameters
    ----------
    samples
        One of each semi-angle and state; they may be made one after the other.
    layers
        Number of layers of each thickness of a sample.
    settings
        Pixels and ranges of the examples.
    covariance
        Of all that is unknown, before anything is measured (:func:`prior_covariance`).
    energy_keV
        Of the beam.
    points
        Number of doses, spaced evenly in their logarithm over the range of the examples.

    Returns
    -------
    pandas.DataFrame
        One row per sample, thickness, parameter and dose: ``semiangle_mrad``, ``layers``,
        ``state``, ``parameter``, ``unit``, ``electrons``; standard deviations ``sigma`` (Poisson),
        ``sigma_prior`` (with the ranges known), ``sigma_data`` (with the ranges and the noise of
        the examples), ``sigma_lognormal`` (lognormal noise of the same mean and variance),
        ``sigma_known_scale`` (Poisson, field of view known); ``probe_nm``.
        Strains are fractions. A parameter that does not vary is known before, and has no
        ``sigma_prior`` and ``sigma_data``.
    """
    doses = np.geomspace(*settings.electrons, points).tolist()
    without_scale = [n for n, name in enumerate(UNKNOWN) if name != "scale"]
    known = np.diag(covariance) < _SAME**2
    rows: list[dict[str, object]] = []
    for sample in samples:
        for thickness, linearised in zip(layers, sample.linearised, strict=True):
            unit_dose = fisher_information(linearised, 1.0)
            alone = standard_deviations(unit_dose)
            known_scale = standard_deviations(unit_dose[np.ix_(without_scale, without_scale)])
            for electrons in doses:
                poisson = electrons * unit_dose
                lognormal = fisher_information(linearised, electrons, "lognormal")
                of_data = lognormal if settings.noise == "lognormal" else poisson
                with_prior, data = (
                    np.where(known, math.nan, standard_deviations_with_prior(each, covariance))
                    for each in (poisson, of_data)
                )
                more = standard_deviations(lognormal)
                rows += [
                    {
                        "semiangle_mrad": float(sample.semiangle_mrad),
                        "layers": int(thickness),
                        "state": sample.state,
                        "parameter": parameter,
                        "unit": UNITS[parameter],
                        "electrons": electrons,
                        "sigma": alone[p] / math.sqrt(electrons),
                        "sigma_prior": with_prior[p],
                        "sigma_data": data[p],
                        "sigma_lognormal": more[p],
                        "sigma_known_scale": known_scale[p] / math.sqrt(electrons),
                        "probe_nm": probe_nm(sample.semiangle_mrad, energy_keV),
                    }
                    for p, parameter in enumerate(PARAMETERS)
                ]
    return pd.DataFrame(rows)


def bound_of(bounds: pd.DataFrame, electrons: np.ndarray | float, column: str = "sigma") -> float:
    """Return the bound of the mean absolute error over some examples.

    The mean absolute value of a normal error, √(2/π) σ, over the doses of the examples and the
    deformed states of the table, or at the undeformed crystal if there are none. Between the doses
    of the table log σ is interpolated over log N; beyond them it falls as 1/√N.

    Parameters
    ----------
    bounds
        Rows of a :func:`bound_table` of one semi-angle, thickness and parameter.
    electrons
        Incident electrons of each example.
    column
        One of :data:`COLUMNS`.

    Returns
    -------
    float
        In the unit of the parameter; NaN if it is not known, infinite if the parameter cannot be
        read.
    """
    doses = np.atleast_1d(np.asarray(electrons, float))
    means = []
    for _, rows in _at_deformed_states(bounds).groupby("state", sort=True):
        ordered = rows.sort_values("electrons")
        known, sigma = ordered["electrons"].to_numpy(), ordered[column].to_numpy()
        if not np.isfinite(sigma).all():
            return math.inf if np.isinf(sigma).any() else math.nan
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
    doses = np.geomspace(bounds["electrons"].min(), bounds["electrons"].max(), 201)
    middles = np.sqrt(doses[1:] * doses[:-1])
    found = []
    for key, rows in bounds.groupby(KEY, sort=False):
        row = dict(zip(KEY, key, strict=True)) | dict(rows[["unit", "probe_nm"]].iloc[0])
        for column in COLUMNS:
            name = f"{column.removeprefix('sigma')}_mae".lstrip("_")
            row[name] = bound_of(rows, middles, column)
        found.append(row)
    return in_percent(pd.DataFrame(found))


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
    mean = strains.groupby(KEY, as_index=False)[["sigma", "probe_nm"]].mean()
    worst = mean.loc[mean.groupby(KEY[:2])["sigma"].idxmax()].reset_index(drop=True)
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
    needed = (*KEY, "state", "electrons", "probe_nm", *COLUMNS)
    if absent := [name for name in needed if name not in table]:
        raise PacbedError(
            f"{path} is not a table of bounds: it has no {', '.join(absent)}. Such tables are "
            "tables/bounds.parquet among the results, or of pacbed design --save"
        )
    if table.empty:
        raise PacbedError(f"{path} holds no bounds")
    return table
