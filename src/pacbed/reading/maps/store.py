"""Maps of strain, rotation, tilt and thickness over a scan, kept in one file.

A map is one Zarr v3 store in a zip archive, which xarray opens as a dataset with the axes y and x.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.errors import ZarrUserWarning
from zarr.storage import LocalStore

from pacbed import __version__
from pacbed.examples.labels import PARAMETERS
from pacbed.exceptions import StoreError
from pacbed.storage.zipped import open_store, reading, zip_writer

QUANTITIES = (*PARAMETERS, "shift_x_px", "shift_y_px", "electrons")
"""What is fitted at every point; each has a standard deviation, ``<name>_sigma``."""

RELATIVE = ("relative_strain_xx", "relative_strain_yy", "relative_strain_xy")
"""Strain against the reference region, whose standard deviation is that of the strain."""

FLAGS = {
    1: "not converged",
    2: "at the edge of the range",
    4: "bad chi2",
    8: "vacuum or too few electrons",
    16: "mixed area",
    32: "turn by 180 degrees undetermined",
}
"""Bits of ``flags``."""

BITS = {meaning: bit for bit, meaning in FLAGS.items()}
"""The same by their meanings."""

_KIND, _FORMAT = "strain map", 1

_LONG_NAMES = {
    "strain_xx": "strain along x",
    "strain_yy": "strain along y",
    "strain_xy": "shear strain, half of the change of the angle between x and y",
    "rotation_deg": "rotation of the crystal in the plane",
    "tilt_x_mrad": "tilt of the crystal along x",
    "tilt_y_mrad": "tilt of the crystal along y",
    "shift_x_px": "shift of the pattern along x",
    "shift_y_px": "shift of the pattern along y",
    "electrons": "incident electrons",
    "layers": "number of layers, 0 where there is none",
    "layers_probability": "probability of the number of layers among those tried",
    "chi2_per_pixel": "sum of squared residuals over variances, per pixel",
    "flags": "what is wrong with the fit",
    **{name: f"strain {name[-2:]} relative to the reference region" for name in RELATIVE},
}

_KINDS: Mapping[type, tuple[str, ...]] = {
    dict: ("calibration", "provenance", "common_sigma"),
    float | int: ("energy_keV", "semiangle_mrad"),  # type: ignore[dict-item]
    list: ("warnings",),
}

_TYPES: dict[str, Any] = {"layers": np.int16, "flags": np.uint8}


@dataclass(frozen=True)
class StrainMap:
    """What was found at every point of a scan.

    Parameters
    ----------
    values
        Arrays of shape (ny, nx) by name: :data:`QUANTITIES` and ``<name>_sigma``,
        :data:`RELATIVE`, ``layers`` (0: none), ``layers_probability``, ``chi2_per_pixel`` and
        ``flags``, bits of :data:`FLAGS`. Not a number where nothing is claimed.
    x_nm, y_nm
        Positions of columns and rows in nm; in points if ``coordinate_units`` of the attributes
        is ``points``.
    attributes
        Calibration, provenance, reference region and what else is known, as JSON can hold it.
        ``common_sigma`` holds, by name of a quantity, the standard deviation that all points
        have in common; ``<name>_sigma`` is that of the point alone.
    """

    values: Mapping[str, np.ndarray]
    x_nm: np.ndarray
    y_nm: np.ndarray
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of points (ny, nx)."""
        return len(self.y_nm), len(self.x_nm)

    @property
    def coordinate_units(self) -> str:
        """Unit of the positions: ``nm``, or ``points`` if the step of the scan is unknown."""
        return str(self.attributes.get("coordinate_units", "nm"))

    @property
    def step(self) -> float:
        """Distance between neighbouring points, in units of the positions."""
        longer = max(self.x_nm, self.y_nm, key=len)
        return float(longer[-1] - longer[0]) / (len(longer) - 1) if len(longer) > 1 else 1.0

    @property
    def claimed(self) -> np.ndarray:
        """Whether anything is claimed at a point, shape (ny, nx)."""
        found = [self.values[name] for name in QUANTITIES if name in self.values]
        return np.any(np.isfinite(found), axis=0) if found else np.zeros(self.shape, bool)

    def flagged(self, bits: int) -> np.ndarray:
        """Return where one of these bits of :data:`FLAGS` is set, shape (ny, nx)."""
        return (self.values.get("flags", np.zeros(self.shape, np.uint8)) & bits) > 0

    def sigma(self, name: str) -> np.ndarray | None:
        """Return the standard deviation of a quantity at each point, without the common part.

        None if there is none, as of ``layers``.
        """
        return self.values.get(f"{name.removeprefix('relative_')}_sigma")

    def common_sigma(self, name: str) -> float:
        """Return the standard deviation that all points have in common; 0 of relative strain."""
        return float((self.attributes.get("common_sigma") or {}).get(name) or 0.0)


def units(name: str) -> str:
    """Return the unit of a quantity, as udunits spells it."""
    name = name.removesuffix("_sigma")
    for ending, unit in (("_deg", "degree"), ("_mrad", "mrad"), ("_px", "pixel")):
        if name.endswith(ending):
            return unit
    return "1"


def long_name(name: str) -> str:
    """Return what a quantity is, in words.

    Raises
    ------
    KeyError
        If a map holds no such quantity.
    """
    if name.endswith("_sigma"):
        return f"standard deviation of {_LONG_NAMES[name.removesuffix('_sigma')]}"
    return _LONG_NAMES[name]


def write_map(path: Path, strain_map: StrainMap) -> None:
    """Write a map.

    Parameters
    ----------
    path
        The store, by convention ``*.zarr.zip``. It appears whole or not at all.
    strain_map
        What is written.

    Raises
    ------
    StoreError
        If the file cannot be written, or an array is of unknown name or of another shape.
    """
    for name, values in strain_map.values.items():
        if not _known(name):
            raise StoreError(f"{path} was not written: a map holds no '{name}'")
        if values.shape != strain_map.shape:
            raise StoreError(
                f"{path} was not written: '{name}' has the shape {values.shape}, "
                f"the scan {strain_map.shape}"
            )
    attributes = {
        "Conventions": "CF-1.11",
        "title": "map of strain, rotation, tilt and thickness",
        "kind": _KIND,
        "format": _FORMAT,
        "pacbed_version": __version__,
        **strain_map.attributes,
        "coordinate_units": strain_map.coordinate_units,
    }
    with zip_writer(path) as folder:
        group = zarr.create_group(LocalStore(folder), attributes=for_json(attributes))
        for name, values in strain_map.values.items():
            own = _TYPES.get(name, np.float32)
            _add(group, name, np.asarray(values, own), ("y", "x"), _attributes(strain_map, name))
        for name, at in (("y", strain_map.y_nm), ("x", strain_map.x_nm)):
            described = {
                "units": "nm" if strain_map.coordinate_units == "nm" else "1",
                "long_name": f"position along {name}",
                "axis": name.upper(),
            }
            _add(group, name, np.asarray(at, float), (name,), described)
        with warnings.catch_warnings():
            # xarray asks for consolidated metadata, which Zarr v3 has but does not specify yet.
            warnings.simplefilter("ignore", ZarrUserWarning)
            zarr.consolidate_metadata(group.store)


def read_map(path: Path) -> StrainMap:
    """Read a map.

    Raises
    ------
    StoreError
        If the store is missing, damaged, or no map.
    """
    with open_store(path) as group, reading(path):
        attributes = dict(group.attrs)
        if attributes.get("kind") != _KIND:
            raise StoreError(f"{path} is no map: make one with pacbed map")
        if attributes.get("format") != _FORMAT:
            raise StoreError(
                f"{path} is a map of another version, pacbed {attributes.get('pacbed_version')}: "
                "read it with that, or make it anew"
            )
        arrays = {name: np.asarray(group[name]) for name in sorted(group.array_keys())}
        x, y = arrays.pop("x"), arrays.pop("y")
        order = [name for name in _order() if name in arrays]
        found = StrainMap({name: arrays[name] for name in order}, x, y, attributes)
        if wrong := list(_wrong(found)):
            raise StoreError(
                f"{path} is a map that was changed, or of another version: {', '.join(wrong)} "
                "cannot be used"
            )
        return found


def _wrong(strain_map: StrainMap) -> Iterator[str]:
    """Yield the names of arrays and attributes that are not of the kind that they must have."""
    axes = {"x": strain_map.x_nm, "y": strain_map.y_nm}
    if not strain_map.values:
        yield "a map without quantities"
    yield from (name for name, at in axes.items() if at.ndim != 1 or not len(at))
    yield from (n for n, values in strain_map.values.items() if values.shape != strain_map.shape)
    for kind, names in _KINDS.items():
        for name in names:
            if not isinstance(strain_map.attributes.get(name), kind | None):
                yield name
    common = strain_map.attributes.get("common_sigma")
    for name, value in common.items() if isinstance(common, Mapping) else ():
        if not isinstance(value, float | int | None):
            yield f"common_sigma of {name}"


def made_of(strain_map: StrainMap, path: Path) -> list[Path]:
    """Return the files of scan and series of a map, as far as it says them.

    Parameters
    ----------
    strain_map
        The map.
    path
        Its file. Names may be relative to its folder, or to the current one.
    """
    known = strain_map.attributes.get("provenance")
    names = [known.get(name) for name in ("scan", "series")] if isinstance(known, Mapping) else []
    return [folder / str(name) for name in names if name for folder in (Path(), path.parent)]


def _order() -> list[str]:
    """Return the names of all arrays that a map may hold, in the order in which they are shown."""
    with_sigma = [name for one in QUANTITIES for name in (one, f"{one}_sigma")]
    return [*with_sigma, *(name for name in _LONG_NAMES if name not in QUANTITIES)]


def _known(name: str) -> bool:
    return name in _order()


def _attributes(strain_map: StrainMap, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {"units": units(name), "long_name": long_name(name)}
    sigma = f"{name.removeprefix('relative_')}_sigma"
    if name != sigma and sigma in strain_map.values:
        found["ancillary_variables"] = f"{sigma} flags"
    if common := strain_map.common_sigma(name):
        found["common_sigma"] = common
    if name == "flags":
        found["flag_masks"] = list(FLAGS)
        found["flag_meanings"] = " ".join(flag.replace(" ", "_") for flag in FLAGS.values())
    return found


def _add(
    group: zarr.Group,
    name: str,
    values: np.ndarray,
    dimensions: tuple[str, ...],
    attributes: Mapping[str, Any],
) -> None:
    """Write an array as one chunk, also one in which nothing is claimed."""
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=values.shape,
        dtype=values.dtype,
        fill_value=np.nan if values.dtype.kind == "f" else 0,
        dimension_names=dimensions,
        attributes=for_json(attributes),
        config={"write_empty_chunks": True},
    )
    array[:] = values


def for_json(value: Any) -> Any:
    """Return what JSON can hold; what is not a finite number becomes null."""
    if isinstance(value, Mapping):
        return {str(name): for_json(one) for name, one in value.items()}
    if isinstance(value, np.ndarray):
        return for_json(value.tolist())
    if isinstance(value, tuple | list | set | frozenset):
        return [for_json(one) for one in value]
    if isinstance(value, np.generic):
        return for_json(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    return str(value)
