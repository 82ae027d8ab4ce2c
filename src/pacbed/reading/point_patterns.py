"""Patterns of the points of a map: as they were measured, as they were fitted, what is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pacbed.exceptions import PacbedError
from pacbed.reading.calibration import Cut, mask_without, window_sums
from pacbed.reading.map_settings import MapSettings
from pacbed.reading.map_store import StrainMap
from pacbed.reading.maps import strain_turn
from pacbed.reading.patterns import Pattern
from pacbed.reading.pixels import put_together
from pacbed.reading.scans import Scan, ScanOptions, open_scan
from pacbed.scattering.image_model import COLUMN, UNKNOWNS, ImageModel
from pacbed.scattering.mtf import MTF
from pacbed.scattering.series import ScatteringSeries
from pacbed.specimen.microscope import Aperture

T = TypeVar("T")

# Smallest variance of a pixel, in electrons.
_DARKEST = 0.02
# Steps of the fit of shift and dose, and the longest one, in pixels and of the logarithm.
_STEPS, _LONGEST = 4, 2.0
_FITTED = ("shift_x_px", "shift_y_px", "log_dose")
_CAMERA = ("ellipticity", "ellipticity_diagonal", "background", "halo")
_LOCAL = UNKNOWNS[:6]


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

    Strain, rotation, tilt and thickness are those of the map. Shift and dose of a pattern are
    fitted again.

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
        self.map, self.scan = strain_map, scan
        self._calibration = _mapping(strain_map.attributes.get("calibration"))
        provenance = _mapping(strain_map.attributes.get("provenance"))
        self._settings = settings_of(MapSettings, _mapping(provenance.get("settings")))
        self._check(series)
        self._cut = self._cut_out(series)
        # A blur is applied only if it is among the unknowns.
        free = (*_FITTED, "blur_px") if self._blur else _FITTED
        self._series = series
        self._aperture = Aperture(self._known("semiangle_mrad"))
        self._free = free
        self._model: ImageModel | None = None

    def at(self, row: int, column: int) -> PointPattern:
        """Return the pattern of a point.

        Raises
        ------
        PacbedError
            If nothing was fitted there.
        """
        layers = int(self.map.values["layers"][row, column])
        state = self._state(row, column)
        measured = self._measured(row, column)
        if layers < 1 or not np.isfinite(state).all():
            raise PacbedError("nothing was fitted here: vacuum, or too few electrons")
        mask = self._cut.part.mask & np.isfinite(measured)
        fitted = self._fitted(layers, state, np.where(mask, measured, 0), mask)
        read = float(self._calibration.get("read_noise_counts") or 0.0) / self._gain
        variance = (
            np.maximum(fitted, _DARKEST)
            + (read * self._cut.bins) ** 2 * self._settings.patterns
            + (self._settings.model_error * fitted) ** 2
        )
        residuals = (measured - fitted) / np.sqrt(variance)
        return PointPattern(
            np.where(mask, measured, np.nan), fitted, np.where(mask, residuals, np.nan)
        )

    def _fitted(
        self, layers: int, state: np.ndarray, image: np.ndarray, mask: np.ndarray
    ) -> np.ndarray:
        """Return the expected electrons of a pattern, at the best shift and dose."""
        if self._model is None:
            self._model = ImageModel(
                self._series, self._aperture, layers, self._cut.frame, self._free
            )
        model = self._model.for_layers(layers)
        seen, state = mask.ravel(), state.copy()
        values = image.ravel()[seen]
        # With no dose yet, the first step only sets it.
        for step in range(_STEPS + 1):
            expected, columns = (one[0] for one in model.images_and_columns(state[None]))
            fitted, slopes = expected[seen].astype(float), columns[: len(_FITTED), seen].T
            if step == 0:
                state[COLUMN["log_dose"]] = np.log(max(values.sum(), 1) / max(fitted.sum(), 1e-9))
                continue
            weight = 1 / np.sqrt(np.maximum(fitted, _DARKEST))
            found = np.linalg.lstsq(
                weight[:, None] * slopes, weight * (values - fitted), rcond=None
            )[0]
            for name, change in zip(_FITTED, found, strict=True):
                state[COLUMN[name]] += np.clip(change, -_LONGEST, _LONGEST)
        return np.asarray(model.images(state[None])[0].reshape(image.shape))

    def _check(self, series: ScatteringSeries) -> None:
        """Refuse what does not belong to the map."""
        found = {
            "material": series.request.material.name,
            "energy_keV": series.request.energy_keV,
        }
        for name, value in found.items():
            asked = self.map.attributes.get(name, value)
            if str(asked) != str(value) and not _close(asked, value):
                raise PacbedError(
                    f"{series.path} is of {value}, the map of {asked}: name the series of the map"
                )
        if absent := [name for name in ("layers", *_LOCAL) if name not in self.map.values]:
            raise PacbedError(f"the map has no {', '.join(absent)}: make it anew with pacbed map")
        places = self._places()
        if (places.max(axis=0) >= self.scan.shape).any():
            raise PacbedError(
                f"the map reaches beyond {self.scan.name}, which has {self.scan.shape[0]} × "
                f"{self.scan.shape[1]} points: name the scan of the map"
            )

    def _places(self) -> np.ndarray:
        """Return row and column in the scan of the first and of the last point of the map."""
        return np.array([self._place(0, 0), self._place(*(n - 1 for n in self.map.shape))])

    def _place(self, row: int, column: int) -> tuple[int, int]:
        """Return row and column in the scan of a point of the map."""
        step = (self.scan.step_nm or 1.0) if self.map.coordinate_units == "nm" else 1.0
        at = self.map.y_nm[row] / step, self.map.x_nm[column] / step
        y, x = (int(np.floor(one + 1e-3)) for one in at)
        return y, x

    def _known(self, name: str) -> float:
        value = self._calibration.get(name) or self.map.attributes.get(name)
        if not value:
            raise PacbedError(
                f"the map does not say its {name}: its patterns cannot be fitted again"
            )
        return float(value)

    @property
    def _gain(self) -> float:
        return float(self._calibration.get("counts_per_electron") or 1.0)

    @property
    def _blur(self) -> float:
        return float(self._calibration.get("blur_px") or 0.0) / self._cut.bins

    def _cut_out(self, series: ScatteringSeries) -> Cut:
        """Return the part of the patterns that is compared with the series."""
        mask = mask_without(self.scan.pattern_shape, self._calibration.get("masked_px") or [])
        centre = self._calibration.get("centre_px")
        if not centre:
            raise PacbedError("the map does not say where its patterns have their centre")
        claimed = np.argwhere(self.map.claimed)
        if not len(claimed):
            raise PacbedError("nothing is claimed in the map: there are no fits to be shown")
        one = self.scan.points(np.array([self._place(*claimed[len(claimed) // 2])]))[0]
        return Cut.of(
            Pattern(self.scan.name, np.where(np.isfinite(one), one, 0), mask),
            series,
            self._known("pixel_mrad"),
            self._known("semiangle_mrad"),
            (float(centre[0]), float(centre[1])),
            MTF(**mtf) if (mtf := _mapping(self._calibration.get("mtf"))) else None,
        )

    def _measured(self, row: int, column: int) -> np.ndarray:
        """Return the electrons of the points that were added up, in the pixels of the fit."""
        place = np.array([self._place(row, column)])
        total = window_sums(self.scan, place, self._settings.window_weights)[0]
        return np.asarray(put_together(self._cut.pixels(total) / self._gain, self._cut.bins))

    def _state(self, row: int, column: int) -> np.ndarray:
        """Return what is known of the pattern of a point, shape (unknowns,)."""
        state = np.zeros(len(UNKNOWNS))
        for name in _LOCAL:
            state[COLUMN[name]] = self.map.values[name][row, column]
        for name in _CAMERA:
            state[COLUMN[name]] = float(self._calibration.get(name) or 0.0)
        state[COLUMN["blur_px"]] = self._blur
        if self.map.attributes.get("axes") == "scan":
            state[:6] = in_crystal_axes(state[:6], self._settings.scan_rotation_deg)
        return state


def in_crystal_axes(local: np.ndarray, scan_rotation_deg: float = 0.0) -> np.ndarray:
    """Return strain and tilt in the axes of the crystal, of those in the axes of the scan.

    Parameters
    ----------
    local
        Strains xx, yy, xy, rotation of the crystal in the patterns in degrees, and tilts x, y.
    scan_rotation_deg
        Direction of the x axis of the scan in the patterns, in degrees.
    """
    turned = np.radians(local[3] - scan_rotation_deg)
    c, s = np.cos(turned), np.sin(turned)
    strain = strain_turn(np.array([-turned]))[0] @ local[:3]
    return np.array([*strain, local[3], *np.array([[c, s], [-s, c]]) @ local[4:]])


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
    provenance = _mapping(strain_map.attributes.get("provenance"))
    scan = scan or _path(provenance.get("scan"))
    series = series or _path(provenance.get("series"))
    for what, path in (("scan", scan), ("series", series)):
        if path is None:
            raise PacbedError(f"the map does not say which {what} it is of: give --{what}")
        if not path.exists():
            raise PacbedError(f"the {what} of the map, {path}, is not there: give --{what}")
    assert scan is not None
    assert series is not None
    try:
        options = settings_of(ScanOptions, _mapping(provenance.get("scan_options")))
        return PointPatterns(strain_map, open_scan(scan, options), ScatteringSeries(series))
    except (TypeError, ValueError) as error:
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


def _path(value: Any) -> Path | None:
    if isinstance(value, Mapping):
        value = value.get("path")
    return Path(value) if value else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _close(one: Any, other: Any) -> bool:
    try:
        return bool(np.isclose(float(one), float(other)))
    except (TypeError, ValueError):
        return False
