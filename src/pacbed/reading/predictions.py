"""The examples of a study read by the fit, from a network's prediction or from the dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
import pandas as pd

from pacbed.engines.request import Progress
from pacbed.examples.augment import AugmentationSettings
from pacbed.examples.camera import FITTED
from pacbed.examples.dataset import Dataset
from pacbed.examples.labels import PARAMETERS
from pacbed.examples.predictions import prediction_table
from pacbed.exceptions import PacbedError
from pacbed.reading.fit import Fit, FitResult, FitSettings
from pacbed.reading.start import (
    Dictionary,
    SearchRange,
    fit_or_search,
    starts_from_dictionary,
    starts_from_table,
)
from pacbed.scattering.image_model import ALWAYS_FREE, COLUMN, Frame
from pacbed.scattering.series import ScatteringSeries
from pacbed.specimen.deformation import DrawRanges
from pacbed.specimen.microscope import Aperture

# Patterns that are read at a time.
_AT_A_TIME = 32


class ExampleFits:
    """Reads examples by fits, whatever these begin with.

    Parameters
    ----------
    series
        What the crystal does to all waves.
    data
        The examples.
    priors
        Mean and standard deviation of unknowns over the examples of the study.
    search
        Where to look for a start without a network.

    Raises
    ------
    PacbedError
        If the examples are of another crystal, beam or thermal motion than the series.
    """

    def __init__(
        self,
        series: ScatteringSeries,
        data: Dataset,
        priors: Mapping[str, tuple[float, float]],
        search: SearchRange,
    ) -> None:
        settings = AugmentationSettings(**data.attributes["augmentation"])
        frame = Frame.centred(settings.pixels, settings.field_of_view_mrad, settings.mtf)
        aperture, layers = _aperture(series, data), data.attributes["layers"]
        # What a camera adds, of which examples without noise are made as by the model of images.
        self._camera = {n: mean for n, (mean, _) in priors.items() if n in FITTED}
        self._columns = settings.columns
        free = (*ALWAYS_FREE, *self._camera)
        self._fit = Fit(series, aperture, layers, frame, FitSettings(free, priors))
        self._data, self._search = data, search

    def read(
        self,
        rows: range,
        predictions: pd.DataFrame | None = None,
        progress: Progress | None = None,
    ) -> pd.DataFrame:
        """Read some of the examples.

        Parameters
        ----------
        rows
            Which.
        predictions
            Of a network for all examples, with which the fit starts; None for the dictionary. A fit
            that is flagged begins again from the dictionary, and the likelier of the two is kept.
        progress
            Called with the number of examples that are done, and of all.

        Returns
        -------
        pandas.DataFrame
            As of :func:`pacbed.examples.predictions.prediction_table`, and for each parameter
            ``sigma_*``, its standard deviation as stated by the fit; ``chi2_per_pixel`` and
            ``flags``.

        Raises
        ------
        PacbedError
            If the predictions are of other examples.
        """
        data, read = self._data, []
        for first in range(rows.start, rows.stop, _AT_A_TIME):
            some = slice(first, min(first + _AT_A_TIME, rows.stop))
            images = _electrons(data.images[some].astype(np.float32), data.electrons[some])
            drawn = data.transformations[some]
            if predictions is None:
                result = self._from_dictionary(images, drawn)
            else:
                result = self._from_network(images, drawn, _predicted(predictions, data, some))
            chosen = replace(data, **{n: getattr(data, n)[some] for n in _OF_EXAMPLES})
            table = prediction_table(chosen, PARAMETERS, result.states[:, : len(PARAMETERS)])
            for name in PARAMETERS:
                table[f"sigma_{name}"] = result.sigma[:, COLUMN[name]]
            read.append(table.assign(chi2_per_pixel=result.chi2_per_pixel, flags=result.flags))
            if progress:
                progress(some.stop - rows.start, len(rows))
        return pd.concat(read, ignore_index=True)

    @cached_property
    def _dictionary(self) -> Dictionary:
        return Dictionary(self._fit, self._search)

    def _from_dictionary(self, images: np.ndarray, drawn: np.ndarray) -> FitResult:
        states = self._as_seen(starts_from_dictionary(self._fit, self._dictionary, images))
        return self._fit.fit(self._counted(images, states, drawn), states)

    def _from_network(self, images: np.ndarray, drawn: np.ndarray, states: np.ndarray) -> FitResult:
        states = self._as_seen(states)
        counted = self._counted(images, states, drawn)
        return fit_or_search(self._fit, counted, states, lambda: self._dictionary)

    def _as_seen(self, states: np.ndarray) -> np.ndarray:
        """Return starts with what the camera adds to an example on average."""
        states = states.copy()
        for name, mean in self._camera.items():
            states[:, COLUMN[name]] = mean
        return states

    def _counted(self, images: np.ndarray, states: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """Return images whose sums are the electrons that the camera counts.

        Those of the pattern that fall on it, and those of the background that was drawn.
        """
        states = states.copy()
        for name in set(self._camera) & set(self._columns):
            states[:, COLUMN[name]] = drawn[:, self._columns.index(name)]
        return images * self._fit.part_seen(states)[:, None, None]


def search_range(ranges: DrawRanges, settings: AugmentationSettings) -> SearchRange:
    """Return where the examples of a study are, given the ranges of its draws and examples."""
    low, high = settings.rotation_deg
    tilt = max(map(abs, ranges.tilt_mrad))
    return SearchRange(((low + high) / 2,), (high - low) / 2, tilt, ranges.stretch)


_OF_EXAMPLES = ("images", "labels", "draws", "transformations")


def _electrons(images: np.ndarray, electrons: np.ndarray) -> np.ndarray:
    """Return images whose sums are as many electrons."""
    return images * (electrons / images.sum(axis=(1, 2), dtype=float))[:, None, None]


def _aperture(series: ScatteringSeries, data: Dataset) -> Aperture:
    """Return the aperture of examples, which must be of the crystal of the series."""
    simulation = data.attributes.get("simulation") or {}
    aperture = Aperture(data.attributes["semiangle_mrad"], **simulation.get("aperture", {}))
    own = series.simulation(aperture)
    if differing := [name for name in own if own[name] != simulation.get(name)]:
        raise PacbedError(
            f"the examples are of another simulation than {series.path}: they differ in "
            f"{', '.join(differing)}. Use a series and examples of one study"
        )
    return aperture


def _predicted(predictions: pd.DataFrame, data: Dataset, rows: slice) -> np.ndarray:
    """Return starts from what a network says of examples."""
    if len(predictions) != len(data.images):
        raise PacbedError(
            f"{len(predictions)} predictions are not of the {len(data.images)} examples that are "
            "to be fitted: predict them anew"
        )
    columns = {name: predictions[f"predicted_{name}"].to_numpy()[rows] for name in PARAMETERS}
    return starts_from_table(columns)
