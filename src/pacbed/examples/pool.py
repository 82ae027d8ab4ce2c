"""A pool of noise-free images, from a scattering series or from the strain states of some draws.

The images lie on the pixels of the camera already, turned, scaled, shifted, and drawn into an
ellipse. All else, such as dose, noise and image mean, is drawn when an example is made of one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from zarr.storage import LocalStore

from pacbed.engines.request import Progress
from pacbed.examples.augment import AugmentationSettings, geometry_of
from pacbed.examples.camera import ELLIPSE
from pacbed.examples.pattern_set import PatternSet
from pacbed.exceptions import StoreError
from pacbed.scattering.image import Camera
from pacbed.scattering.scattered import Scattered
from pacbed.scattering.series import ScatteringSeries
from pacbed.scattering.state import ScatteredState, add_array
from pacbed.seeding import stream
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture
from pacbed.storage.zipped import open_store, plain, reading, zip_writer

_CHUNK = 64


class _Entry(NamedTuple):
    """An image and what it shows."""

    image: np.ndarray
    geometry: np.ndarray
    parameters: tuple[float, ...]
    draw: int


def write_pool(
    path: Path,
    series: ScatteringSeries,
    states: Sequence[tuple[Deformation, tuple[float, float]]],
    aperture: Aperture,
    layers: int,
    settings: AugmentationSettings,
    seed: int,
    progress: Progress | None = None,
) -> None:
    """Make the images of a pool from a scattering series, each of a deformation of its own.

    Parameters
    ----------
    path
        The store, by convention ``*.zarr.zip``. It appears whole or not at all.
    series
        The series.
    states
        Deformation and tilt (φx, φy) in mrad of each image.
    aperture, layers
        Of all images.
    settings
        Ranges of rotation, field of view and shift.
    seed
        Of the transformations.
    progress
        Called with the number of images and their total.

    Raises
    ------
    RequestError
        If the series does not reach that far.
    StoreError
        If the file cannot be written.
    """
    # Only who makes pools needs TensorFlow.
    from pacbed.scattering.image_model import COLUMN, UNKNOWNS, Frame, ImageModel

    address = (seed, "pool", float(aperture.semiangle_mrad), layers)
    nominal = settings.field_of_view_mrad
    frame = Frame.centred(settings.pixels, nominal, settings.mtf)
    model = ImageModel(series, aperture, layers, frame, ())

    def entries() -> Iterator[_Entry]:
        for first in range(0, len(states), _CHUNK):
            shown, unknowns, ellipses = [], [], []
            for number, (deformation, tilt) in enumerate(states[first : first + _CHUNK], first):
                camera, geometry = _camera(settings, *address, number)
                strain = tuple(deformation.strain[[0, 1, 0], [0, 1, 1]].tolist())
                series.check_image(strain, tilt, aperture, layers, camera)
                # They are none of the draws of the study, whose numbers are not negative.
                shown.append((geometry, (*strain, *tilt), number - len(states)))
                scale = math.log(camera.field_of_view_mrad / nominal)
                unknowns.append((*strain, camera.rotation_deg, *tilt, *camera.shift_px, scale))
                ellipses.append(camera.ellipticity)
            found = np.zeros((len(shown), len(UNKNOWNS)))
            found[:, : len(unknowns[0])] = unknowns
            found[:, [COLUMN[name] for name in ELLIPSE]] = ellipses
            images = model.images(found).reshape(-1, *model.frame.shape)
            yield from (_Entry(image, *one) for image, one in zip(images, shown, strict=True))

    attributes = _attributes(series, aperture, layers, settings, seed)
    _write(path, len(states), entries(), attributes, settings.pixels, progress)


def write_pool_of_draws(
    path: Path,
    states: Sequence[Path],
    images: int,
    aperture: Aperture,
    layers: int,
    settings: AugmentationSettings,
    seed: int,
    progress: Progress | None = None,
) -> None:
    """Make the images of a pool from the simulated strain states of some draws.

    Parameters
    ----------
    path, layers, settings, seed, progress
        As of :func:`write_pool`.
    states
        A file of each draw, as of :func:`pacbed.scattering.state.write_scattered`.
    images
        Number of images of each, with transformations of their own.
    aperture
        Of all images. Each state has its own tilt for it.

    Raises
    ------
    RequestError
        If a state was not simulated for the aperture, or does not reach that far.
    StoreError
        If a state cannot be read or the file cannot be written.
    """
    address = (seed, "pool of draws", float(aperture.semiangle_mrad), layers)
    attributes = _attributes(ScatteredState(states[0]), aperture, layers, settings, seed)

    def entries() -> Iterator[_Entry]:
        for file in states:
            state = ScatteredState(file)
            if {**attributes, **_made_of(state, aperture)} != attributes:
                raise StoreError(
                    f"{file} was simulated otherwise than {states[0]}: delete both, and they will "
                    "be made again"
                )
            tilt = state.request.tilt_mrad(aperture)
            parameters = (*state.strain.tolist(), *tilt)
            for number in range(images):
                camera, geometry = _camera(settings, *address, state.draw, number)
                image = state.image(tilt, aperture, layers, camera)
                image = settings.mtf.blurred(image) if settings.mtf else image
                yield _Entry(image, geometry, parameters, state.draw)

    _write(path, images * len(states), entries(), attributes, settings.pixels, progress)


def _made_of(source: Scattered, aperture: Aperture) -> dict[str, Any]:
    return {"simulation": source.simulation(aperture), **source.provenance}


def _attributes(
    source: Scattered, aperture: Aperture, layers: int, settings: AugmentationSettings, seed: int
) -> dict[str, Any]:
    return {
        "seed": seed,
        "semiangle_mrad": aperture.semiangle_mrad,
        "layers": layers,
        "augmentation": settings.geometry_ranges,
        **_made_of(source, aperture),
    }


def _camera(
    settings: AugmentationSettings, seed: int, *address: str | float
) -> tuple[Camera, np.ndarray]:
    """Return the pixels of the image at an address, and its geometry as the settings name it."""
    uniform = stream(seed, *address).random((1, len(settings.columns)))
    drawn = dict(zip(settings.columns, settings.transformations(uniform)[0].tolist(), strict=True))
    geometry = [drawn[name] for name in settings.geometry]
    rotation, field, x, y, *ellipse = geometry
    first, second = ellipse or (0.0, 0.0)
    camera = Camera(settings.pixels, field, rotation, (x, y), (first, second))
    return camera, np.array(geometry)


def _write(
    path: Path,
    count: int,
    entries: Iterator[_Entry],
    attributes: dict[str, Any],
    pixels: int,
    progress: Progress | None,
) -> None:
    with zip_writer(path) as folder:
        group = zarr.create_group(LocalStore(folder), attributes=plain(attributes))
        # A chunk of nothing but the fill value would not be written.
        images = group.create_array(
            "images",
            shape=(count, pixels, pixels),
            chunks=(_CHUNK, pixels, pixels),
            dtype="float16",
            fill_value=np.nan,
        )
        shown = []
        for first in range(0, count, _CHUNK):
            made = []
            for entry in islice(entries, _CHUNK):
                made.append(entry.image)
                shown.append(entry[1:])
                if progress:
                    progress(len(shown), count)
            # Of a mean near one, which half precision holds.
            images[first : first + len(made)] = np.maximum(made, 0) * pixels**2
        names = ("geometry", "parameters", "draws")
        for name, values in zip(names, zip(*shown, strict=True), strict=True):
            add_array(group, name, np.array(values))


def read_pool(
    path: Path,
    semiangle_mrad: float,
    layers: int,
    wanted: AugmentationSettings | None = None,
) -> PatternSet:
    """Read a pool.

    Parameters
    ----------
    path
        The store.
    semiangle_mrad, layers
        What it must be of.
    wanted
        Settings of examples, whose geometry must be that of its images; None for any.

    Raises
    ------
    StoreError
        If it is missing, damaged, no pool, or of another semi-angle, thickness or geometry.
    """
    with open_store(path) as group, reading(path):
        attributes = dict(group.attrs)
        if "geometry" not in group:
            raise StoreError(f"{path} is not a pool of images: name another store")
        found = attributes["semiangle_mrad"], attributes["layers"]
        if found != (semiangle_mrad, layers):
            raise StoreError(
                f"{path} is of {found[0]} mrad and {found[1]} layers, not of {semiangle_mrad:g} "
                f"mrad and {layers}: it was copied or renamed. Delete it, and make it again"
            )
        images, geometry, parameters, draws = (
            np.asarray(group[name]) for name in ("images", "geometry", "parameters", "draws")
        )
    ours = geometry_of(attributes["augmentation"])  # type: ignore[arg-type]
    theirs = plain(wanted.geometry_ranges) if wanted else ours
    if differing := [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]:
        values = (f"{name} is {ours.get(name)}, not {theirs.get(name)}" for name in differing)
        raise StoreError(
            f"{path} has images of another geometry than the examples: {'; '.join(values)}. Delete "
            "it, and it will be made again"
        )
    return PatternSet(
        images,
        (ours["field_of_view_mrad"] / ours["pixels"],) * 2,
        draws.tolist(),
        parameters,
        attributes["simulation"],  # type: ignore[arg-type]
        geometry,
    )
