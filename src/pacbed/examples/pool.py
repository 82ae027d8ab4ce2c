"""A pool of noise-free images from a scattering series, each of a deformation of its own.

The images lie on the pixels of the camera already, turned, scaled and shifted. Only dose, noise and
image mean are drawn when an example is made of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import zarr
from zarr.storage import LocalStore

from pacbed.engines.request import Progress
from pacbed.examples.augment import TRANSFORMATIONS, AugmentationSettings
from pacbed.examples.pattern_set import PatternSet
from pacbed.exceptions import StoreError
from pacbed.scattering.image import Camera
from pacbed.scattering.series import ScatteringSeries
from pacbed.seeding import stream
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture
from pacbed.storage.zipped import open_store, plain, reading, zip_writer

GEOMETRY = TRANSFORMATIONS[:4]
"""What of a transformation an image of a pool has already."""

_CHUNK = 64


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
    """Make the images of a pool.

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
    address = ("pool", float(aperture.semiangle_mrad), layers)
    uniform = np.array([stream(seed, *address, n).random(6) for n in range(len(states))])
    geometry = settings.transformations(uniform)[:, :4]
    strains = np.array([d.strain[[0, 1, 0], [0, 1, 1]] for d, _ in states])
    attributes = {
        "seed": seed,
        "semiangle_mrad": aperture.semiangle_mrad,
        "layers": layers,
        "augmentation": asdict(settings),
        "simulation": series.simulation(aperture),
        **series.provenance,
    }
    with zip_writer(path) as folder:
        group = zarr.create_group(LocalStore(folder), attributes=plain(attributes))
        n = settings.pixels
        # A chunk of nothing but the fill value would not be written.
        images = group.create_array(
            "images",
            shape=(len(states), n, n),
            chunks=(_CHUNK, n, n),
            dtype="float16",
            fill_value=np.nan,
        )
        for first in range(0, len(states), _CHUNK):
            made = []
            for number in range(first, min(first + _CHUNK, len(states))):
                rotation, field, x, y = geometry[number].tolist()
                camera = Camera(n, field, rotation, (x, y))
                tilt = states[number][1]
                made.append(series.image(strains[number], tilt, aperture, layers, camera))
                if progress:
                    progress(number + 1, len(states))
            # Of a mean near one, which half precision holds.
            images[first : first + len(made)] = np.maximum(made, 0) * n**2
        for name, values in (
            ("geometry", geometry),
            ("parameters", np.column_stack([strains, [tilt for _, tilt in states]])),
        ):
            array = group.create_array(
                name,
                shape=values.shape,
                chunks=values.shape,
                dtype="float64",
                fill_value=np.nan,
            )
            array[:] = values


def read_pool(path: Path, semiangle_mrad: float, layers: int) -> PatternSet:
    """Read a pool.

    Parameters
    ----------
    path
        The store.
    semiangle_mrad, layers
        What it must be of.

    Raises
    ------
    StoreError
        If it is missing, damaged, no pool, or of another semi-angle or thickness.
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
        images, geometry, parameters = (
            np.asarray(group[name]) for name in ("images", "geometry", "parameters")
        )
    settings = AugmentationSettings(**attributes["augmentation"])  # type: ignore[arg-type]
    return PatternSet(
        images,
        (settings.pixel_mrad,) * 2,
        # They are none of the draws of the study, whose numbers are not negative.
        range(-len(images), 0),
        parameters,
        attributes["simulation"],  # type: ignore[arg-type]
        geometry,
    )
