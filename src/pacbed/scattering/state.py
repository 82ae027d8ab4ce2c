"""One strain state: what the crystal does to every wave, simulated, written and read again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec
from zarr.storage import LocalStore

from pacbed import __version__
from pacbed.engines.arrays import serial_linear_algebra
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.engines.planewave.library import cone
from pacbed.engines.planewave.waves import IncidentGrid
from pacbed.engines.request import PHYSICS_VERSION, Progress
from pacbed.exceptions import RequestError, StoreError
from pacbed.scattering.image import Camera
from pacbed.scattering.request import StateRequest
from pacbed.scattering.scattered import Scattered
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture, wavelength_A
from pacbed.storage.zipped import open_store, plain, reading, zip_writer

# Beams are kept this many steps of the incident grid beyond the field of view, where the splines
# over incident directions no longer feel their end.
_MARGIN_STEPS = 3
# Bits of the same weight next to each other: sign and exponent of neighbours are alike.
_COMPRESSOR = BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")
# A state is a polynomial of strain of degree zero.
_CONSTANT = np.ones((1, 1), np.float32)


class ScatteredState(Scattered):
    """What a crystal in one strain state does to every incident wave, read from its file.

    Parameters
    ----------
    path
        The file, as of :func:`write_scattered` or :func:`pacbed.scattering.fit.write_state`.

    Raises
    ------
    StoreError
        If it is missing, damaged, of another kind, or made with other physics.
    """

    request: StateRequest
    _kind = "the strain state"

    def __init__(self, path: Path) -> None:
        with open_store(path) as group, reading(path):
            if "request" not in group.attrs or "wave" not in group:
                raise StoreError(f"{path} is not a scattered strain state: make it again")
            super().__init__(path, group, StateRequest.from_dict(group.attrs["request"]))  # type: ignore[arg-type]
            self.provenance = {name: group.attrs[name] for name in ("engine", "settings")}
            """How it was simulated."""
            self.draw: Any = group.attrs.get("draw")
            """Number of its draw, if it is of one."""
        self.strain = self.request.deformation.strain[[0, 1, 0], [0, 1, 1]]
        """Components (xx, yy, xy) as fractions."""

    def image(
        self, tilt_mrad: tuple[float, float], aperture: Aperture, layers: int, camera: Camera
    ) -> np.ndarray:
        """Return the fraction of the incident electrons in each pixel of a camera.

        Parameters
        ----------
        tilt_mrad
            Sample tilt (φx, φy) in mrad.
        aperture
            Of the beam.
        layers
            Number of layers.
        camera
            Pixels, and how the pattern lies on them.

        Returns
        -------
        numpy.ndarray
            Shape (pixels, pixels), float32.

        Raises
        ------
        RequestError
            If the layers were not kept, or the state does not reach that far: which quantity.
        """
        terms = _CONSTANT, _CONSTANT
        channels = self._fill(self.strain, terms, tilt_mrad, aperture, layers, camera)
        return (camera.pixel_area_mrad2 * channels.value).astype(np.float32)

    def _read(self, layer: int) -> dict[str, np.ndarray]:
        row = self.request.kept.index(layer)
        names = ["beams", *(["diffuse"] if self.request.motion == "full" else [])]
        with open_store(self.path) as group, reading(self.path):
            return {name: np.asarray(group[name][row])[..., None] for name in names}  # type: ignore[index]

    def check_layers(self, layers: Sequence[int]) -> None:
        """Refuse numbers of layers that there are not."""
        if missing := set(layers) - set(self.request.kept):
            raise RequestError(
                f"{self.path} holds {', '.join(map(str, self.request.kept))} layers, not "
                f"{', '.join(map(str, sorted(missing)))}"
            )

    def check_cone(self, aperture: Aperture, tilt_mrad: tuple[float, float]) -> None:
        """Refuse a cone of incidence that is not known."""
        asked = cone(aperture, tilt_mrad)
        for one in self.request.simulations:
            known = cone(one.aperture, one.tilt_mrad)
            apart = math.dist(asked.centre_mrad, known.centre_mrad)
            if apart + asked.radius_mrad <= known.radius_mrad * (1 + 1e-6):
                return
        raise RequestError(
            f"a semi-angle of {aperture.semiangle_mrad:g} mrad at a tilt of "
            f"{math.hypot(*tilt_mrad):.4g} mrad is beyond the strain state of {self.path}"
        )


@serial_linear_algebra()
def write_scattered(
    path: Path,
    request: StateRequest,
    engine: PlaneWaveEngine,
    progress: Progress | None = None,
    **attributes: Any,
) -> None:
    """Simulate one strain state and write what all waves do in it.

    Parameters
    ----------
    path
        The store, by convention ``*.zarr.zip``. It appears whole or not at all.
    request
        The state.
    engine
        Simulates it.
    progress
        Called with the number of waves done and their total.
    **attributes
        What else is known of it, such as the number of its draw.

    Raises
    ------
    RequestError
        If it cannot be simulated.
    StoreError
        If the file cannot be written.
    """
    library, provenance = engine.scatter(
        request.simulations, progress, largest_stretch=request.largest_stretch
    )
    scale = 1e3 * wavelength_A(request.energy_keV)
    cell = request.material.in_plane_cell_A(request.deformation)
    hk = np.rint(library.g_mrad / scale @ cell.T).astype(np.int32)
    wave, beam = _visible(request, library.incident, hk)
    used = np.unique(beam)
    rows = [layer - 1 for layer in request.kept]
    arrays = {
        "beams": np.stack([library.beams[row, wave, beam] for row in rows]),
        "within_band": library.within_band[rows].astype(np.float32),
        "wave": wave.astype(np.int32),
        "beam": np.searchsorted(used, beam).astype(np.int32),
        "hk": hk[used],
        "x_mrad": library.incident.x_mrad,
        "y_mrad": library.incident.y_mrad,
    }
    if library.diffuse is not None:
        diffuse = library.diffuse
        assert diffuse.incident is not None
        assert diffuse.within_band is not None
        arrays |= {
            "diffuse": np.moveaxis(diffuse.coefficients, 1, 0)[rows],
            "diffuse_within_band": diffuse.within_band[rows].astype(np.float32),
            **{f"knots_{i}": axis.knots for i, axis in enumerate(diffuse.axes)},
            **{f"incident_knots_{i}": knots for i, knots in enumerate(diffuse.incident.knots)},
        }
    known = {
        **provenance,
        "request": request.to_dict(),
        "settings": asdict(engine.settings),
        "pacbed_version": __version__,
        "physics_version": PHYSICS_VERSION,
        **attributes,
    }
    _write(path, arrays, known)


def _visible(
    request: StateRequest, incident: IncidentGrid, hk: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the waves and beams (pairs of numbers) that can fall on a pattern at any strain."""
    scale = 1e3 * wavelength_A(request.energy_keV)
    g_mrad = scale * hk @ np.linalg.inv(request.material.in_plane_cell_A(Deformation())).T
    # How far strain moves a beam inwards.
    inwards = np.hypot(*g_mrad.T) * max(0.0, 1 - 1 / request.largest_stretch)
    step = incident.x_mrad[1] - incident.x_mrad[0]
    reach = request.reach_mrad + _MARGIN_STEPS * step
    out = np.abs(incident.directions_mrad[:, None] + g_mrad).max(axis=-1)
    wave, beam = np.nonzero(out - inwards <= reach)
    return wave, beam


def _write(path: Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> None:
    with zip_writer(path) as folder:
        group = zarr.create_group(LocalStore(folder), attributes=plain(dict(attributes)))
        for name, values in arrays.items():
            if name in ("beams", "diffuse"):
                for row, of_row in enumerate(values):
                    append_row(group, name, row, len(values), of_row)
            else:
                add_array(group, name, values)


def add_array(group: zarr.Group, name: str, values: np.ndarray) -> None:
    """Write an array as one chunk."""
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=values.shape,
        dtype=values.dtype,
        # An array does not hold this: a chunk of it alone would not be written.
        fill_value=np.nan if values.dtype.kind == "f" else np.iinfo(values.dtype).min,
        compressors=_COMPRESSOR,
    )
    array[:] = values


def append_row(group: zarr.Group, name: str, row: int, rows: int, values: np.ndarray) -> None:
    """Write a row of an array, that of a number of layers, as a chunk of its own."""
    if row == 0:
        shape = (rows, *values.shape)
        group.create_array(
            name,
            shape=shape,
            chunks=(1, *shape[1:]),
            dtype="float32",
            fill_value=np.nan,
            compressors=_COMPRESSOR,
        )
    array = group[name]
    assert isinstance(array, zarr.Array)
    array[row] = values
