"""Patterns of the points of a map: as they were measured, as they were fitted, what is left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pacbed.exceptions import PacbedError
from pacbed.reading.maps.calibration import NOT_KEPT, Calibration
from pacbed.reading.maps.maker import MapMaker
from pacbed.reading.maps.settings import MapSettings
from pacbed.reading.maps.store import QUANTITIES, StrainMap
from pacbed.reading.scans.scan import Scan, ScanOptions, open_scan
from pacbed.scattering.series import ScatteringSeries

T = TypeVar("T")

# Smallest variance of a pixel, in electrons.
_DARKEST = 0.02
_NEEDED = ("layers", *QUANTITIES)


@dataclass(frozen=True)
class PointPattern:
    """The pattern of a point, shape (ny, nx) each.

    Parameters
    ----------
    measured
        Electrons of each pixel; not a number where it does not count.
    fitted
        Expected electrons.
    residuals
        Differences in units of their standard deviations.
    """

    measured: np.ndarray
    fitted: np.ndarray
    residuals: np.ndarray


class PointPatterns:
    """Knows what was measured and fitted at the points of a map.

    Parameters
    ----------
    strain_map
        The map.
    scan
        The scan that it was made of.
    series
        The scattering series that was fitted.

    Raises
    ------
    PacbedError
        If scan, series and map do not belong together.
    """

    def __init__(self, strain_map: StrainMap, scan: Scan, series: ScatteringSeries) -> None:
        self.map = strain_map
        self._check(series)
        known = strain_map.attributes
        with _kept():
            settings = settings_of(
                MapSettings, (known.get("provenance") or {}).get("settings") or {}
            )
            if not settings.layers:
                raise ValueError("it has no numbers of layers")
            calibration = Calibration.of(known.get("calibration") or {})
            shape = tuple(map(len, settings.points(scan.shape)))
        if shape != strain_map.shape:
            own, other = (" × ".join(map(str, one)) for one in (strain_map.shape, shape))
            raise PacbedError(
                f"the map has {own} points, one of {scan.name} would have {other}: name the scan "
                "of the map"
            )
        self._maker = MapMaker(scan, series, calibration, settings)
        self._fit = self._maker.fit

    def at(self, row: int, column: int) -> PointPattern:
        """Return the pattern of a point.

        Raises
        ------
        PacbedError
            If nothing was fitted there.
        """
        values = {name: float(self.map.values[name][row, column]) for name in _NEEDED}
        state = self._maker.state(values)
        if values["layers"] < 1 or not np.isfinite(state).all():
            raise PacbedError("nothing was fitted here: vacuum, or too few electrons")
        images = self._maker.images(self._maker.in_scan(np.array([[row, column]])))
        mask, measured = self._maker.masks(images)[0], images[0]
        model = self._fit.for_layers(int(values["layers"])).model()
        fitted = model.images(state[None]).reshape(measured.shape)
        noise = self._fit.settings.noise
        variance = (
            np.maximum(fitted, _DARKEST)
            + noise.read_electrons**2
            + (noise.model_error * fitted) ** 2
        )
        residuals = (measured - fitted) / np.sqrt(variance)
        return PointPattern(
            np.where(mask, measured, np.nan), fitted, np.where(mask, residuals, np.nan)
        )

    def _check(self, series: ScatteringSeries) -> None:
        """Refuse what does not belong to the map."""
        request, known = series.request, self.map.attributes
        found = {"material": request.material.name, "energy_keV": request.energy_keV}
        for name, value in found.items():
            if (asked := known.get(name)) not in (None, value):
                raise PacbedError(
                    f"{series.path} is of {value}, the map of {asked}: name the series of the map"
                )
        if absent := [name for name in _NEEDED if name not in self.map.values]:
            raise PacbedError(f"the map has no {', '.join(absent)}: make it anew with pacbed map")


def open_point_patterns(
    strain_map: StrainMap, scan: Path | None = None, series: Path | None = None
) -> PointPatterns:
    """Open scan and series of a map again.

    Parameters
    ----------
    strain_map
        The map; what it says of its scan and series is used where these are not given.
    scan, series
        Their files, if they lie elsewhere now.

    Raises
    ------
    PacbedError
        If one is not there, or does not belong to the map.
    """
    known = strain_map.attributes.get("provenance") or {}
    files = {}
    with _kept():
        for what, given in (("scan", scan), ("series", series)):
            path = given or known.get(what)
            if not path:
                raise PacbedError(f"the map does not say which {what} it is of: give --{what}")
            files[what] = Path(path)
            if not files[what].exists():
                raise PacbedError(f"the {what} of the map, {path}, is not there: give --{what}")
        options = settings_of(ScanOptions, known.get("scan_options") or {})
    opened = open_scan(files["scan"], options)
    return PointPatterns(strain_map, opened, ScatteringSeries(files["series"]))


@contextmanager
def _kept() -> Iterator[None]:
    """Say of what a map holds that it is not what it should be."""
    try:
        yield
    except NOT_KEPT as error:
        raise PacbedError(
            f"the map was changed, or is of another version: its patterns are not found ({error})"
        ) from error


def settings_of(kind: type[T], known: Mapping[str, Any]) -> T:
    """Return settings of some kind, as JSON keeps them; what they do not have is left out."""
    names = {one.name for one in fields(kind)}  # type: ignore[arg-type]
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in known.items()
        if name in names
    }
    return kind(**given)
