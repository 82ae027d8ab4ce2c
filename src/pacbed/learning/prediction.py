"""What a trained network predicts, for a dataset or for measured patterns."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from pacbed.examples.augment import (
    FINE_PIXEL_mrad,
    average_over_pixels,
    error_of_stored_pixels,
    resample,
)
from pacbed.examples.camera import CameraSettings, not_learnt
from pacbed.examples.dataset import Dataset, refuse_other_simulation
from pacbed.examples.labels import LabelScaling
from pacbed.examples.predictions import prediction_table
from pacbed.exceptions import PacbedError
from pacbed.learning.network import load_network
from pacbed.learning.sequences import StoredSequence
from pacbed.scattering.image import Camera


@dataclass(frozen=True)
class TrainedNetwork:
    """A network that was read.

    Its files, the scaling of its outputs, pixels and field of view of its images and their mean in
    the middle of the training, and all of its settings.
    """

    model_file: Path
    settings_file: Path
    model: keras.Model
    scaling: LabelScaling
    pixels: int
    field_of_view_mrad: float
    image_mean: float
    settings: Mapping[str, Any]

    def answer(self, images: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """Return scaled parameters and, if the network states it, their standard deviation.

        Parameters
        ----------
        images
            What a Keras model takes: images (examples, pixels, pixels, 1), or batches of them.
        """
        answers = self.model.predict(images, verbose=0)
        outputs = len(self.scaling.parameters)
        if answers.shape[1] == outputs:
            return answers, None
        return answers[:, :outputs], np.exp(answers[:, outputs:])

    def sigma_columns(self, relative: np.ndarray | None) -> dict[str, np.ndarray]:
        """Return the columns ``sigma_*``, in the units of the parameters."""
        if relative is None:
            return {}
        sigma = relative * np.array(self.scaling.half_range)
        return {f"sigma_{name}": sigma[:, n] for n, name in enumerate(self.scaling.parameters)}


def predict(
    model_file: Path,
    settings_file: Path,
    data: Dataset,
    log: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Predict the parameters of every example of a dataset.

    Parameters
    ----------
    model_file, settings_file
        As written by :func:`pacbed.learning.training.train`.
    data
        The examples.
    log
        Receives a warning if the camera of the dataset has imperfections that the network has not
        learnt.

    Returns
    -------
    pandas.DataFrame
        As of :func:`pacbed.examples.predictions.prediction_table`, with ``sigma_*`` if the network
        states its uncertainty.

    Raises
    ------
    PacbedError
        If the model or its settings cannot be read, or do not fit each other or the images, or if
        the network was trained on patterns of another crystal, beam or thermal motion.
    """
    return predict_examples(read_network(model_file, settings_file), data, log)


def predict_examples(
    network: TrainedNetwork, data: Dataset, log: Callable[[str], None] = print
) -> pd.DataFrame:
    """Do the same with a network that was read, for any number of datasets.

    Raises
    ------
    PacbedError
        If the images do not fit the network, or it was trained on patterns of another crystal, beam
        or thermal motion.
    """
    model, scaling = network.model, network.scaling
    trained_on = network.settings["data"]
    refuse_other_simulation(trained_on, data.attributes, "the dataset")
    unlearnt = not_learnt(_camera(trained_on), _camera(data.attributes))
    mtf, learnt = (one.get("augmentation", {}).get("mtf") for one in (data.attributes, trained_on))
    if mtf != learnt:
        unlearnt.append(f"{'another' if learnt else 'an'} MTF" if mtf else "no MTF")
    for unseen in unlearnt:
        log(f"warning: the network has not learnt this camera: the dataset has {unseen}")
    if model.input_shape[1] != data.images.shape[1]:
        raise PacbedError(
            f"{network.model_file} takes images of {model.input_shape[1]} pixels, the dataset has "
            f"{data.images.shape[1]}"
        )
    examples = StoredSequence(data, scaling, batch_size=256)
    scaled, sigma = network.answer(examples)
    table = prediction_table(data, scaling.parameters, scaling.unscale(scaled))
    return table.assign(**network.sigma_columns(sigma))


def _camera(attributes: Mapping[str, Any]) -> CameraSettings | None:
    found = attributes.get("augmentation", {}).get("camera")
    return CameraSettings.from_dict(found) if found else None


def predict_with(
    network: TrainedNetwork,
    images: np.ndarray,
    pixel_mrad: tuple[float, float],
    log: Callable[[str], None] = print,
    doubts: Callable[[np.ndarray], Iterable[tuple[str, str]]] = lambda image: (),
) -> pd.DataFrame:
    """Predict the parameters of measured patterns.

    Each pattern is brought to the pixels and the field of view of the training. A pixel that is
    not a finite number counts as dark. One that is negative, from the subtraction of a background,
    is averaged with its neighbours first, which keeps the mean of the background at zero; what is
    negative then counts as dark.

    Parameters
    ----------
    network
        As of :func:`read_network`.
    images
        Linear intensity in any unit, shape (patterns, ny, nx) or (ny, nx); zero angle on pixel
        ``n // 2`` of each axis, rows in the order of ascending ky.
    pixel_mrad
        Pixel size (x, y) in mrad.
    log
        Receives a line about each pattern with pixels that are negative or not finite, with a
        prediction outside the ranges of the training, or with a doubt, and one about coarse pixels.
    doubts
        Says of an image, in the pixels and the field of view of the training, what speaks against
        a prediction: names for the flags, and reasons.

    Returns
    -------
    pandas.DataFrame
        One row per pattern: ``pattern``, its number from zero; ``not_finite`` and ``negative``,
        numbers of such pixels; ``predicted_*`` in physical units, and ``sigma_*`` if the network
        states its uncertainty; and ``flags``, which names the parameters predicted outside the
        ranges of the training, where a network knows nothing, and the doubts.

    Raises
    ------
    PacbedError
        If a pattern is empty, or its field of view is smaller than that of the training.
    """
    scaling, settings = network.scaling, network.settings
    pixels, width_mrad = network.pixels, network.field_of_view_mrad
    images = np.asarray(images, float)
    if images.ndim not in (2, 3):
        raise PacbedError(f"patterns have the shape (patterns, ny, nx), not {images.shape}")
    images = images if images.ndim == 3 else images[None]
    field_mrad = images.shape[2] * pixel_mrad[0], images.shape[1] * pixel_mrad[1]
    if min(field_mrad) < width_mrad * (1 - 1 / pixels):
        raise PacbedError(
            f"the patterns show {field_mrad[0]:g} × {field_mrad[1]:g} mrad, but "
            f"{network.model_file} was trained with {width_mrad:g} mrad: what is missing would "
            "count as dark. Record a wider field, or train with a smaller "
            "dataset.field_of_view_mrad"
        )
    coarse = max(pixel_mrad)
    if coarse > FINE_PIXEL_mrad and not math.isclose(coarse, width_mrad / pixels, rel_tol=1e-3):
        angle = settings["data"]["semiangle_mrad"]
        log(
            f"note: in the pixels of the training, {width_mrad / pixels:.3g} mrad, patterns with "
            f"pixels of {coarse:.2g} mrad differ by about "
            f"{100 * error_of_stored_pixels(coarse, angle):.1g} % (relative L1, at the edges of "
            "discs) from what a camera with such pixels records"
        )
    finite = np.isfinite(images)
    not_finite = (~finite).sum(axis=(1, 2))
    negative = (finite & (images < 0)).sum(axis=(1, 2))
    made = []
    for number, image in enumerate(np.where(finite, images, 0)):
        if not_finite[number] or negative[number]:
            log(
                f"pattern {number}: of {image.size} pixels {not_finite[number]} are not finite and "
                f"count as dark, {negative[number]} are negative and averaged with their neighbours"
            )
        averaged = average_over_pixels(image, pixel_mrad, width_mrad / pixels)
        shown = np.maximum(resample(averaged, pixel_mrad, Camera(pixels, width_mrad)), 0)
        if not shown.any():
            raise PacbedError(f"pattern {number} is empty: no pixel of the field is positive")
        made.append(shown * (network.image_mean / shown.mean()))
    scaled, sigma = network.answer(np.stack(made)[..., None])
    predicted = scaling.unscale(scaled)
    table: dict[str, Any] = {
        "pattern": np.arange(len(made)),
        "not_finite": not_finite,
        "negative": negative,
    }
    table |= {f"predicted_{name}": predicted[:, n] for n, name in enumerate(scaling.parameters)}
    table |= network.sigma_columns(sigma)
    names, flags = np.array(scaling.parameters), []
    for number, beyond in enumerate(~(np.abs(scaled) <= 1)):
        flags.append(names[beyond].tolist())
        if beyond.any():
            log(
                f"pattern {number}: {', '.join(flags[-1])} outside the range of the training: the "
                "prediction is not valid; is it another thickness, material, background or centre?"
            )
        for name, reason in doubts(made[number]):
            flags[-1].append(name)
            log(f"pattern {number}: {reason}: the network was not trained for that")
    return pd.DataFrame(table | {"flags": [", ".join(found) for found in flags]})


def border_share(images: np.ndarray) -> np.ndarray:
    """Return the mean intensity of a frame of a sixteenth of each image over that of the image.

    Discs hardly reach there, so that it tells the background, whatever the strain. Shape (images,).
    """
    inner = slice(width := max(1, images.shape[-1] // 16), -width)
    frame = np.ones(images.shape[1:], bool)
    frame[inner, inner] = False
    return np.array([image[frame].mean(dtype=float) / image.mean(dtype=float) for image in images])


_NAME = "Name a folder that pacbed train or the workflow filled"


def read_network(model_file: Path, settings_file: Path) -> TrainedNetwork:
    """Read a trained network.

    Parameters
    ----------
    model_file, settings_file
        As written by :func:`pacbed.learning.training.train`.

    Raises
    ------
    PacbedError
        If the model or its settings cannot be read, or do not fit each other.
    """
    for path in (model_file, settings_file):
        if not path.is_file():
            raise PacbedError(f"{path} does not exist. {_NAME}")
    try:
        settings = json.loads(settings_file.read_text(encoding="utf-8"))
        scaling = LabelScaling.from_dict(settings["scaling"])
        made = settings["data"]["augmentation"]
        pixels, width_mrad = int(made["pixels"]), float(made["field_of_view_mrad"])
        image_mean = float(np.mean(made["image_mean"]))
    except OSError as error:
        raise PacbedError(f"cannot read {settings_file}: {error.strerror}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise PacbedError(f"{settings_file} is not what pacbed train writes. {_NAME}") from error
    model = load_network(model_file)
    outputs = len(scaling.parameters)
    if model.output_shape[-1] not in (outputs, 2 * outputs):  # without and with uncertainty
        raise PacbedError(
            f"{model_file} predicts {model.output_shape[-1]} parameters, but {settings_file} "
            f"names {outputs}"
        )
    return TrainedNetwork(
        model_file, settings_file, model, scaling, pixels, width_mrad, image_mean, settings
    )
