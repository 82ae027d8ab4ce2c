"""Files of microscopes: what they hold, and what they say of it.

NumPy and Zarr are read here, everything else by RosettaSciIO, lazily. RosettaSciIO is GPL: it is
imported only where a file is opened, and is not needed otherwise.
"""

from __future__ import annotations

import logging
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from pacbed.exceptions import PacbedError
from pacbed.specimen.microscope import ENERGIES_keV, wavelength_A

INSTALL = 'pip install "pacbed[reading]"'
"""How to get the packages that read the files of microscopes."""

_OWN = {".npy": "NumPy", ".npz": "NumPy", ".zarr": "Zarr", ".zip": "Zarr", ".zspy": "HyperSpy zspy"}
# What has many kinds of content, or more than one reader.
_HDF5 = {".h5", ".hdf5", ".he5", ".emd", ".hspy", ".nxs", ".de5"}
# Lengths in nm.
_LENGTHS = {"nm": 1.0, "a": 0.1, "å": 0.1, "angstrom": 0.1, "pm": 1e-3, "um": 1e3, "m": 1e9}
_ANGLES_mrad = {"mrad": 1.0, "rad": 1e3, "urad": 1e-3, "deg": np.pi / 180 * 1e3}
# Relative difference between the axes from which on points or pixels are no squares.
_SQUARE = 0.01
# More frames than a file has: its reader then returns all of them as a row.
_ALL_FRAMES = 10**12
# What is read together of a file that has no chunks of its own: a few rows of points must not take
# many times their size.
_CHUNK = "4MiB"


@dataclass(frozen=True)
class Axis:
    """An axis as a file has it.

    Parameters
    ----------
    size
        Number of values.
    scale
        Distance of neighbouring ones.
    units
        Of the scale; empty if it has none.
    """

    size: int
    scale: float = 1.0
    units: str = ""

    @property
    def length_nm(self) -> float | None:
        """Distance of neighbouring values in nm, if the units are those of a length."""
        return self._in(_LENGTHS, self._plain)

    @property
    def angle_mrad(self) -> float | None:
        """Distance of neighbouring values in mrad, if the units are those of an angle."""
        return self._in(_ANGLES_mrad, self._plain)

    @property
    def per_nm(self) -> float | None:
        """Distance of neighbouring values in 1/nm, if the units are those of a frequency."""
        inverse = re.fullmatch(r"1/\(?(\w+)\)?|(\w+)\^?\(?-1\)?|(\w+)\*\*-1", self._plain)
        if not inverse:
            return None
        lengths = {name: 1 / nm for name, nm in _LENGTHS.items()}
        return self._in(lengths, next(filter(None, inverse.groups())))

    @property
    def _plain(self) -> str:
        """Units in lower case, without spaces and the several ways to write the same."""
        text = self.units.replace(" ", "").replace("μ", "u").replace("µ", "u").strip("[]")
        return text.replace("Å", "å").replace("⁻¹", "^-1").replace("_", "").lower()

    def _in(self, known: Mapping[str, float], units: str) -> float | None:
        found = known.get(units)
        return abs(self.scale) * found if found and self.scale else None


@dataclass(frozen=True)
class Contents:
    """What a file holds, and what it says of it.

    Parameters
    ----------
    values
        Something like an array of patterns: slices of it are read when they are wanted.
    kind
        Format.
    axes
        Of the values; those without units if nothing is known.
    energy_keV, semiangle_mrad
        Of the beam, if the file knows them.
    notes
        What is to be said.
    """

    values: Any
    kind: str
    axes: tuple[Axis, ...] = ()
    energy_keV: float | None = None
    semiangle_mrad: float | None = None
    notes: tuple[str, ...] = ()

    def upright(self) -> Contents:
        """Exchange points and patterns if the units of the axes say that patterns come first."""
        if len(self.axes) != 4:
            return self
        reciprocal = [bool(axis.angle_mrad or axis.per_nm) for axis in self.axes]
        if reciprocal != [True, True, False, False]:
            return self
        axes = (*self.axes[2:], *self.axes[:2])
        note = "the axes of the patterns come first in the file; points were put first"
        values = self.values.transpose(2, 3, 0, 1)
        return replace(self, values=values, axes=axes, notes=(*self.notes, note))

    def step_nm(self, path: Path, given: float | None) -> float | None:
        """Return the distance of neighbouring points.

        Raises
        ------
        PacbedError
            If it is not the same along x and y, and none is given.
        """
        lengths = [axis.length_nm for axis in self.axes[:-2]]
        return given or _square(path, lengths, "points", "nm", "--step")

    def pixel_mrad(self, path: Path, given: float | None, energy_keV: float | None) -> float | None:
        """Return the size of a pixel; with frequencies it takes the energy.

        Raises
        ------
        PacbedError
            If it is not the same along x and y, and none is given.
        """
        if given:
            return given
        sizes = [axis.angle_mrad for axis in self.axes[-2:]]
        if (energy_keV is not None) and not any(sizes):
            scale = 100 * wavelength_A(energy_keV)
            sizes = [axis.per_nm and scale * axis.per_nm for axis in self.axes[-2:]]
        return _square(path, sizes, "pixels", "mrad", "--pixel-mrad")

    @property
    def lacks_energy(self) -> bool:
        """Whether the size of a pixel is known, but for the energy."""
        return self.energy_keV is None and any(axis.per_nm for axis in self.axes[-2:])


def read_contents(path: Path, scan_shape: tuple[int, int] | None = None) -> Contents:
    """Open a file that holds a scan.

    Parameters
    ----------
    path
        File, or folder of Zarr.
    scan_shape
        Points along y and x, for formats that cannot be read without.

    Raises
    ------
    PacbedError
        If it is missing, damaged, of an unknown format, or holds no scan.
    """
    if not path.exists():
        raise PacbedError(f"{path} does not exist")
    ending = path.suffix.lower()
    if path.is_dir() and ending not in (".zarr", ".zspy"):
        if not any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zarray")):
            raise PacbedError(f"{path} is a folder, and none of Zarr: name the file of the scan")
        ending = ".zarr"
    if path.is_file() and not path.stat().st_size:
        raise PacbedError(f"{path} is empty")
    if ending in (".npy", ".npz"):
        found = _numpy(path)
    elif ending in _OWN:
        found = _zarr(path, _OWN[ending])
    else:
        found = _rosetta(path, ending, scan_shape)
    return _checked_beam(found).upright()


def _checked_beam(found: Contents) -> Contents:
    """Drop what cannot be of a beam, and say so."""
    energy, notes = found.energy_keV, found.notes
    low, high = ENERGIES_keV
    if energy is not None and not low <= energy <= high:
        notes = (
            *notes,
            f"the beam energy in the file, {energy:g} keV, is not within {low} and {high} keV: "
            "not used",
        )
        energy = None
    angle = found.semiangle_mrad
    if angle is not None and not 0 < angle < 200:
        if angle:
            notes = (*notes, f"the semi-angle in the file, {angle:g} mrad, is impossible: not used")
        angle = None
    return replace(found, energy_keV=energy, semiangle_mrad=angle, notes=notes)


def _square(
    path: Path, sizes: Sequence[float | None], what: str, units: str, option: str
) -> float | None:
    known = [size for size in sizes if size]
    if not known:
        return None
    if max(known) / min(known) - 1 > _SQUARE:
        raise PacbedError(
            f"{path}: {what} are {' × '.join(f'{size:.4g}' for size in known)} {units} apart along "
            f"y and x; they must be squares. If that is a mistake of the file, give {option}"
        )
    return float(f"{np.mean(known):.9g}")


def _numpy(path: Path) -> Contents:
    try:
        if path.suffix.lower() == ".npy":
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            with np.load(path, allow_pickle=False) as archive:
                name, others = _largest({n: archive[n].shape for n in archive.files})
                values = archive[name]
            if others:
                return Contents(values, "NumPy", notes=(_passed_over(name, others),))
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, KeyError) as error:
        if re.search("Object arrays|Python objects", str(error)):
            raise PacbedError(
                f"{path} holds pickled objects, which could run any program, and is not read: save "
                "the numbers alone with numpy.save"
            ) from error
        why = "it is no file of NumPy" if "pickle" in str(error) else _cut_short(error)
        raise PacbedError(f"cannot read {path}: {why}") from error
    return Contents(values, "NumPy", tuple(map(Axis, values.shape)))


def _cut_short(error: Exception) -> str:
    """Return what went wrong, in words if the file ends too early."""
    text = str(error).strip() or type(error).__name__
    if re.search("mmap length|truncat|end of file|reshape array of size|not enough|EOF", text):
        return f"the file is shorter than it says ({text}): copy it again"
    return text


def _largest(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, list[str]]:
    """Return the name of the largest array of patterns, and those of other ones.

    Raises
    ------
    ValueError
        If there is none.
    """
    stacks = {n: s for n, s in shapes.items() if len(s) in (3, 4)}
    if not stacks:
        found = ", ".join(f"{n} {' × '.join(map(str, s))}" for n, s in list(shapes.items())[:5])
        raise ValueError(f"it holds no scan, but {found or 'nothing'}")
    best = max(stacks, key=lambda n: (len(stacks[n]), np.prod(stacks[n], dtype=float)))
    return best, [n for n in stacks if n != best]


def _passed_over(name: str, others: Sequence[str]) -> str:
    return f"of several arrays '{name}' is read, not {', '.join(others)}"


def _zarr(path: Path, kind: str) -> Contents:
    """Open Zarr of version 2 or 3, in a folder or a zip file."""
    try:
        store = zarr.storage.ZipStore(path, mode="r") if path.is_file() else path
        node = zarr.open(store, mode="r")
        arrays = {"": node} if isinstance(node, zarr.Array) else dict(_arrays(node))
        name, others = _largest({n: a.shape for n, a in arrays.items()})
    except (
        *(ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error),
        *(TypeError, AttributeError, NotImplementedError),  # JSON that is no metadata
    ) as error:
        raise PacbedError(f"cannot read {path}: {_cut_short(error) or 'no Zarr'}") from error
    values = arrays[name]
    notes = (_passed_over(name, others),) if others else ()
    parent = name.rpartition("/")[0]
    group = node[parent] if parent and isinstance(node, zarr.Group) else node
    attributes = {**dict(node.attrs), **dict(group.attrs), **dict(values.attrs)}
    energy, angle = (_number(attributes.get(n)) for n in ("energy_keV", "semiangle_mrad"))
    if isinstance(group, zarr.Group) and "axis-0" in group:
        found = [dict(group[f"axis-{n}"].attrs) for n in range(values.ndim)]
        axes = tuple(_axis(one) for one in found)
        tem = "metadata/Acquisition_instrument/TEM"
        if tem in group:
            beam = dict(group[tem].attrs)
            energy = _number(beam.get("beam_energy"))
            angle = _number(beam.get("convergence_angle"))
    else:
        axes = _named_axes(values.shape, attributes)
    return Contents(values, kind, axes, energy, angle, notes)


def _arrays(group: zarr.Group, before: str = "") -> Iterator[tuple[str, zarr.Array]]:
    for name, member in group.members():
        if isinstance(member, zarr.Array):
            yield before + name, member
        else:
            yield from _arrays(member, f"{before}{name}/")


def _named_axes(shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[Axis, ...]:
    """Return the axes of patterns whose attributes are called as the options are."""
    step, pixel = (_number(attributes.get(name)) for name in ("step_nm", "pixel_mrad"))
    points = [Axis(n, step, "nm") if step else Axis(n) for n in shape[:-2]]
    pixels = [Axis(n, pixel, "mrad") if pixel else Axis(n) for n in shape[-2:]]
    return (*points, *pixels)


def _rosetta(path: Path, ending: str, scan_shape: tuple[int, int] | None) -> Contents:
    try:
        import dask
        import dask.array
        import rsciio
    except ImportError as error:
        raise PacbedError(
            f"to read {path}, RosettaSciIO and dask are needed: {INSTALL}. Without them, .npy, "
            ".npz and Zarr can be read"
        ) from error
    plugins = [p for p in rsciio.IO_PLUGINS if ending[1:] in map(str.lower, p["file_extensions"])]
    if not plugins and ending not in _HDF5:
        known = sorted({e.lower() for p in rsciio.IO_PLUGINS for e in p["file_extensions"]})
        raise PacbedError(
            f"cannot read {path}: the format '{ending or path.name}' is unknown. Known are npy, "
            f"npz, zarr, zspy, and those of RosettaSciIO: {', '.join(known)}"
        )
    if ending in _HDF5:
        plugins = _of_hdf5(path, plugins, rsciio.IO_PLUGINS)
    errors = []
    for plugin in plugins:
        more = {}
        if plugin["name"] == "QuantumDetector" and scan_shape is not None:
            more["navigation_shape"] = (_ALL_FRAMES,)
        try:
            with _quiet(), dask.config.set({"array.chunk-size": _CHUNK}):
                read = _reader(plugin)(str(path), lazy=True, **more)
        except Exception as error:  # readers raise whatever a damaged file makes them stumble over
            errors.append(_cut_short(error))
            continue
        return _of_signals(path, plugin["name"], read, dask.array)
    if ending in _HDF5:
        with dask.config.set({"array.chunk-size": _CHUNK}):
            return _any_hdf5(path, dask.array)
    raise PacbedError(f"cannot read {path} as {plugins[0]['name']}: {errors[0]}")


def _reader(plugin: Mapping[str, Any]) -> Callable[..., list[dict[str, Any]]]:
    import importlib

    reader: Callable[..., list[dict[str, Any]]] = importlib.import_module(plugin["api"]).file_reader
    return reader


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what readers warn of to themselves: what matters is noted."""
    log = logging.getLogger("rsciio")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _of_hdf5(path: Path, plugins: list[Any], every: Sequence[Any]) -> list[Any]:
    """Return who can read a file of HDF5, which is told by what is in it."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            names, attributes = set(file), dict(file.attrs)
            inner = [dict(one.attrs) for one in file.values() if isinstance(one, h5py.Group)]
    except OSError as error:
        raise PacbedError(f"cannot read {path} as HDF5: {_cut_short(error)}") from error
    emd = {"version_major", "emd_group_type"}
    if "Experiments" in names:
        wanted = "HSPY"
    elif emd & attributes.keys() or any(emd & one.keys() for one in inner) or "Version" in names:
        wanted = "EMD"
    elif any(one.get("NX_class") in ("NXentry", b"NXentry") for one in inner):
        wanted = "NeXus"
    else:
        return []
    return [plugin for plugin in every if plugin["name"] == wanted]


def _any_hdf5(path: Path, dask_array: Any) -> Contents:
    """Open the largest array of a file of HDF5 of which nothing is known."""
    import h5py

    file = h5py.File(path, "r")
    shapes: dict[str, tuple[int, ...]] = {}
    file.visititems(
        lambda name, one: shapes.update({name: one.shape}) if hasattr(one, "shape") else None
    )
    try:
        name, others = _largest(shapes)
    except ValueError as error:
        raise PacbedError(f"cannot read {path}: {error}") from error
    data = file[name]
    attributes = {**file.attrs, **data.parent.attrs, **data.attrs}
    return Contents(
        dask_array.from_array(data, chunks=data.chunks or "auto"),
        "HDF5",
        _named_axes(data.shape, attributes),
        _number(attributes.get("energy_keV")),
        _number(attributes.get("semiangle_mrad")),
        (_passed_over(name, others),) if others else (),
    )


def _of_signals(
    path: Path, kind: str, signals: Sequence[Mapping[str, Any]], dask_array: Any
) -> Contents:
    """Return the scan among what RosettaSciIO found."""
    titles = [
        f"{n} {one.get('metadata', {}).get('General', {}).get('title', '')}".strip()
        for n, one in enumerate(signals)
    ]
    shapes = {title: tuple(one["data"].shape) for title, one in zip(titles, signals, strict=True)}
    try:
        name, others = _largest(shapes)
    except ValueError as error:
        raise PacbedError(f"{path} ({kind}) cannot be used: {error}") from error
    signal = signals[titles.index(name)]
    values = signal["data"]
    if not hasattr(values, "dask") and not isinstance(values, np.ndarray):
        values = dask_array.from_array(values)
    described = sorted(signal["axes"], key=lambda axis: axis.get("index_in_array", 0))
    axes = tuple(map(_axis, described))
    if len(axes) != values.ndim:
        axes = tuple(map(Axis, values.shape))
    notes = [_passed_over(name, others)] if others else []
    tem = _within(signal.get("metadata"), "Acquisition_instrument", "TEM") or {}
    energy, angle = (_number(tem.get(one)) for one in ("beam_energy", "convergence_angle"))
    original = signal.get("original_metadata") or {}
    if kind == "EMD":
        axes, energy, angle = _of_py4dstem(original, axes, energy, angle)
    if kind == "QuantumDetector":
        notes += _of_merlin(original, values)
    return Contents(values, kind, axes, energy, angle, tuple(notes))


def _axis(described: Mapping[str, Any]) -> Axis:
    units = described.get("units")
    scale = _number(described.get("scale")) or 1.0
    known = isinstance(units, str) and units not in ("<undefined>", "undefined", "pixels", "px")
    return Axis(int(described.get("size", 0)), scale, units if known and units else "")


def _of_py4dstem(
    original: Mapping[str, Any],
    axes: tuple[Axis, ...],
    energy_keV: float | None,
    semiangle_mrad: float | None,
) -> tuple[tuple[Axis, ...], float | None, float | None]:
    """Add what py4DSTEM keeps apart, and what an EMD of Berkeley says of the microscope."""
    known = _within(original, "calibration") or {}
    if len(axes) == 4:
        for kind, part in (("R", (0, 1)), ("Q", (2, 3))):
            size, units = _number(known.get(f"{kind}_pixel_size")), known.get(f"{kind}_pixel_units")
            units = units.decode() if isinstance(units, bytes) else units
            if size and isinstance(units, str) and units != "pixels":
                found = list(axes)
                for n in part:
                    found[n] = Axis(axes[n].size, size, units)
                axes = tuple(found)
    beam = {**known, **(_within(original, "microscope") or {})}
    for name, unit in (("beam_energy", 1.0), ("energy_keV", 1.0), ("accelerating_voltage", 1e-3)):
        if energy_keV is None and (value := _number(beam.get(name))):
            energy_keV = value * (unit if value > 3000 or unit == 1 else 1.0)
    for name in ("convergence_angle", "semiangle_mrad", "convergence_semiangle_mrad"):
        semiangle_mrad = semiangle_mrad or _number(beam.get(name))
    return axes, energy_keV, semiangle_mrad


def _of_merlin(original: Mapping[str, Any], values: Any) -> list[str]:
    """Say if lines of an interrupted acquisition are missing, and how its shape is known."""
    header = _within(original, "hdr_file")
    if not header:
        return ["there is no .hdr next to it: the shape follows from times, or is as given"]
    notes, expected = [], int(header.get("Frames in Acquisition (Number)", 0))
    count = int(np.prod(values.shape[:-2]))
    if expected > count:
        notes.append(
            f"{count} of {expected} patterns are there: it was interrupted or cut short, and only "
            "complete lines are read"
        )
    return notes


def _within(nested: Any, *names: str) -> Mapping[str, Any] | None:
    """Return a part of nested mappings, or of the trees that readers make."""
    for name in names:
        if hasattr(nested, "as_dictionary"):
            nested = nested.as_dictionary()
        if not isinstance(nested, Mapping) or name not in nested:
            return None
        nested = nested[name]
    if hasattr(nested, "as_dictionary"):
        nested = nested.as_dictionary()
    return nested if isinstance(nested, Mapping) else None


def _number(value: Any) -> float | None:
    """Return a number that a file holds in whatever form; None if it is none."""
    if isinstance(value, Mapping):
        value = value.get("value")
    try:
        found = float(np.asarray(value).reshape(-1)[0])
    except (TypeError, ValueError, IndexError):
        return None
    return found if np.isfinite(found) else None
