"""Maps in the formats of other programs: HyperSpy, py4DSTEM, TIFF and tables."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from PIL import Image

from pacbed import __version__
from pacbed.exceptions import PacbedError
from pacbed.reading.maps.store import StrainMap, for_json, long_name, units
from pacbed.reading.scans.writing import rosetta_writer
from pacbed.storage.files import appearing_whole, check_space

FORMATS = ".hspy (HyperSpy), .emd (py4DSTEM), .tif or .csv"
"""What a map can be exported to."""

_DESCRIPTION, _SOFTWARE = 270, 305
"""Tags of TIFF."""


def export_map(strain_map: StrainMap, path: Path) -> None:
    """Write a map for another program.

    Parameters
    ----------
    strain_map
        What is written: all quantities, as they are in the map and in its units.
    path
        Its ending tells the format, one of :data:`FORMATS`. The file appears whole or not at all.

    Raises
    ------
    PacbedError
        If the format is unknown, the file cannot be written, or a package is missing.
    """
    check_format(path)
    size = 2 * sum(values.nbytes + _QUANTITY_BYTES for values in strain_map.values.values())
    for place in (path, Path(tempfile.gettempdir()) / path.name):
        check_space(place, size)
    with appearing_whole(path) as temporary:
        _WRITERS[path.suffix.lower()](strain_map, temporary)


# What a file says of a quantity besides its numbers, in bytes.
_QUANTITY_BYTES = 2**16


def check_format(path: Path, more: str = "") -> None:
    """Check that a map can be written under this name.

    Parameters
    ----------
    path
        Its ending tells the format.
    more
        Names of other files that a caller writes, for the message.

    Raises
    ------
    PacbedError
        If the format is unknown, or a package is missing.
    """
    if path.suffix.lower() not in _WRITERS:
        raise PacbedError(f"cannot export to {path}: name it {FORMATS}{more}")
    if path.suffix.lower() == ".hspy":
        rosetta_writer("hspy", path)


def _to_hspy(strain_map: StrainMap, path: Path) -> None:
    """Write a signal for each quantity, named by it."""
    write = rosetta_writer("hspy", path)
    with tempfile.TemporaryDirectory() as folder, h5py.File(path, "w") as whole:
        for name, values in strain_map.values.items():
            # The public writer puts one signal into a file.
            single = Path(folder) / f"{name}.hspy"
            write(single, _signal(strain_map, name, values), show_progressbar=False)
            with h5py.File(single) as file:
                for key, value in file.attrs.items():
                    whole.attrs[key] = value
                file.copy(f"Experiments/{name}", whole.require_group("Experiments"))


def _signal(strain_map: StrainMap, name: str, values: np.ndarray) -> dict[str, Any]:
    axes = [
        {
            "_type": "UniformDataAxis",
            "name": axis,
            "units": _axis_unit(strain_map, "px"),
            "size": len(at),
            "offset": float(at[0]),
            "scale": strain_map.step,
            "navigate": False,
            "index_in_array": number,
            "is_binned": False,
        }
        for number, (axis, at) in enumerate((("y", strain_map.y_nm), ("x", strain_map.x_nm)))
    ]
    unit = units(name)
    return {
        "data": np.ascontiguousarray(values),
        "axes": axes,
        "metadata": {
            "General": {"title": name, "notes": long_name(name)},
            "Signal": {
                "signal_type": "",
                "quantity": f"{name} ({unit})" if unit != "1" else name,
            },
            "_HyperSpy": {"Folding": {"unfolded": False, "signal_unfolded": False}},
        },
        "original_metadata": {"pacbed": json.dumps(for_json(strain_map.attributes))},
        "learning_results": {},
        "tmp_parameters": {},
        "attributes": {"_lazy": False, "ragged": False},
        "models": {},
        "package_info": {"package": "pacbed", "package_version": __version__},
    }


def _to_emd(strain_map: StrainMap, path: Path) -> None:
    """Write an EMD 1.0 file: an array for each quantity, and a dictionary of what is known."""
    with h5py.File(path, "w") as file:
        file.attrs["emd_group_type"] = "file"
        file.attrs["version_major"], file.attrs["version_minor"] = 1, 0
        file.attrs["authoring_program"] = "pacbed"
        file.attrs["UUID"] = ""
        root = _emd_group(file, "map", "root", "Root")
        bundle = root.create_group("metadatabundle")
        bundle.attrs["emd_group_type"] = "metadatabundle"
        known = _emd_group(bundle, "pacbed", "metadata", "Metadata")
        for name, value in for_json(strain_map.attributes).items():
            _emd_item(known, name, value)
        for name, values in strain_map.values.items():
            # No name begins with another, or RosettaSciIO takes the two for one stack.
            plain = name.removesuffix("_sigma")
            title = name if name == plain else f"sigma_{plain}"
            group = _emd_group(
                root, title.replace("layers_probability", "probability"), "array", "Array"
            )
            data = group.create_dataset("data", data=values)
            data.attrs["units"] = units(name)
            data.attrs["long_name"] = long_name(name)
            for number, (axis, at) in enumerate((("y", strain_map.y_nm), ("x", strain_map.x_nm))):
                dim = group.create_dataset(f"dim{number}", data=np.asarray(at, float))
                dim.attrs["name"] = axis
                dim.attrs["units"] = _axis_unit(strain_map, "pixels")


def _emd_group(parent: h5py.Group, name: str, kind: str, python_class: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["emd_group_type"] = kind
    group.attrs["python_class"] = python_class
    return group


def _emd_item(group: h5py.Group, name: str, value: Any) -> None:
    """Write a value as the EMD 1.0 library writes items of dictionaries."""
    if isinstance(value, Mapping):
        inner = group.create_group(name)
        inner.attrs["type"] = "dict"
        for one, content in value.items():
            _emd_item(inner, one, content)
        return
    if isinstance(value, list):
        value = json.dumps(value)
    if value is None:
        kind, stored = "None", b"_None"
    elif isinstance(value, str):
        kind, stored = "string", value.encode()
    else:
        kind, stored = "bool" if isinstance(value, bool) else "number", value
    group.create_dataset(name, data=stored).attrs["type"] = kind.encode()


def _to_tiff(strain_map: StrainMap, path: Path) -> None:
    """Write a page of 32 bit numbers for each quantity, described as JSON."""
    pages: list[Any] = []
    for name, values in strain_map.values.items():
        page = Image.fromarray(np.asarray(values, np.float32))
        description = {
            "name": name,
            "long_name": long_name(name),
            "units": units(name),
            "step": strain_map.step,
            "step_units": strain_map.coordinate_units,
            **({} if pages else {"map": for_json(strain_map.attributes)}),
        }
        page.encoderinfo = {
            "tiffinfo": {_DESCRIPTION: json.dumps(description), _SOFTWARE: f"pacbed {__version__}"}
        }
        pages.append(page)
    first, *others = pages
    first.save(
        path, "TIFF", save_all=True, append_images=others, tiffinfo=first.encoderinfo["tiffinfo"]
    )


def _to_csv(strain_map: StrainMap, path: Path) -> None:
    """Write a line for each point."""
    row, column = np.indices(strain_map.shape).reshape(2, -1)
    unit = strain_map.coordinate_units
    table = {
        "row": row,
        "column": column,
        f"x_{unit}": strain_map.x_nm[column],
        f"y_{unit}": strain_map.y_nm[row],
        **{name: values.ravel() for name, values in strain_map.values.items()},
    }
    pd.DataFrame(table).to_csv(path, index=False, float_format="%.7g")


_WRITERS: dict[str, Callable[[StrainMap, Path], None]] = {
    ".hspy": _to_hspy,
    ".emd": _to_emd,
    ".tif": _to_tiff,
    ".tiff": _to_tiff,
    ".csv": _to_csv,
}


def _axis_unit(strain_map: StrainMap, unknown: str) -> str:
    return "nm" if strain_map.coordinate_units == "nm" else unknown
