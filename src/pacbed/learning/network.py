"""The networks: the paper's (Yankovich et al. 2026, 2.5), and a coarse-to-fine one.

The second reads a coarse image first, rectifies the whole image by this answer, and reads the rest.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
from keras import layers, ops

from pacbed.examples.labels import NUISANCES, LabelScaling
from pacbed.exceptions import PacbedError
from pacbed.learning.rectify import BEYOND, Rectify
from pacbed.learning.sizes import (
    COMPONENTS,
    LOOKS,
    RECTIFIED,
    Kind,
    Precision,
    binning,
    rectified_size,
)
from pacbed.storage.files import appearing_whole

_FAINTEST = 1e-6
"""Smallest intensity of which a learnt power is taken; images have a mean around 0.25."""

_SMALLEST = 1e-4
"""Of a correction, in units of the scaled answer: smaller ones look alike."""

_DARKEST = 1e-12
"""Mean of an image in which there is nothing."""

_EXPONENTS = (0.1, 2.0)

INTENSITIES = ("linear", "sqrt", "power")

_UNCERTAINTY_WIDTH = 64
"""Width of the layer that reads how uncertain an answer is."""


@keras.saving.register_keras_serializable(package="pacbed")
class Products(layers.Layer):
    """Joins an answer and components, the products of answers, and those of both.

    An answer far out of its range is cut off: its products would outweigh all others.
    """

    def call(self, answer: Any, components: Any) -> Any:
        """Join (examples, m) and (examples, n); return (examples, m + m(m + 1)/2 + n + mn)."""
        answer, count = ops.clip(answer, -BEYOND, BEYOND), answer.shape[-1]
        among = [answer[:, n : n + 1] * answer[:, n:] for n in range(count)]
        between = [answer[:, n : n + 1] * components for n in range(count)]
        return ops.concatenate([answer, *among, components, *between], axis=-1)


@keras.saving.register_keras_serializable(package="pacbed")
class Sizes(layers.Layer):
    """Tells how large values are, without their sign: the logarithm, about within ± 2."""

    def call(self, values: Any) -> Any:
        """Return as many numbers."""
        return ops.log(ops.abs(values) + _SMALLEST) / 2 + 2


@keras.saving.register_keras_serializable(package="pacbed")
class Leading(layers.Layer):
    """Passes on the first columns, as a slice does, whose name would not repeat."""

    def __init__(self, columns: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.columns = columns

    def call(self, values: Any) -> Any:
        """Return the first columns."""
        return values[:, : self.columns]

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, so that a saved model can be restored."""
        return {**super().get_config(), "columns": self.columns}


@keras.saving.register_keras_serializable(package="pacbed")
class Intensity(layers.Layer):
    """Intensity scale and mean of the images.

    Takes the square root or another power, keeping the mean of each image; in training, scales
    each image to a mean drawn anew from a range, the paper's augmentation. Negative pixels, of a
    measured pattern whose background was subtracted, have no power: they count as dark, and only
    the linear scale takes them as they are.

    Parameters
    ----------
    scale
        ``linear``, ``sqrt``, or ``power``: an exponent that is learnt, from 0.5 on, which the paper
        leaves to future work.
    image_mean
        Range of the image mean in training.
    seed
        Seed of the random means.
    """

    def __init__(
        self,
        scale: str = "linear",
        image_mean: Sequence[float] = (0.2, 0.3),
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if scale not in INTENSITIES:
            raise ValueError(f"intensity scale must be one of {INTENSITIES}, not '{scale}'")
        self.scale = scale
        self.image_mean = tuple(image_mean)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, shape: Any) -> None:
        """Make the exponent, if it is to be learnt."""
        if self.scale == "power":
            self.exponent = self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(0.5),
                constraint=lambda exponent: ops.clip(exponent, *_EXPONENTS),
                name="exponent",
            )

    def call(self, images: Any, training: bool = False) -> Any:
        """Transform a batch of images (examples, pixels, pixels, 1)."""
        axes = (1, 2, 3)
        if self.scale != "linear":
            images = ops.maximum(images, 0.0)
        mean = ops.mean(images, axis=axes, keepdims=True)
        if training:
            low, high = self.image_mean
            wanted = keras.random.uniform(
                ops.shape(mean), low, high, seed=self.seed_generator, dtype=mean.dtype
            )
        else:
            wanted = mean
        if self.scale != "linear":
            if self.scale == "sqrt":
                images = ops.sqrt(images)
            else:
                images = ops.exp(self.exponent * ops.log(ops.maximum(images, _FAINTEST)))
            mean = ops.mean(images, axis=axes, keepdims=True)
        return images * (wanted / ops.maximum(mean, _DARKEST))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, so that a saved model can be restored."""
        return {
            **super().get_config(),
            "scale": self.scale,
            "image_mean": self.image_mean,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class NetworkSettings:
    """Widths of a network, by default those of the paper, and how it looks at intensities.

    Parameters
    ----------
    filters
        Filters of each block of two convolutions and a pool.
    dense
        Widths of the hidden dense layers.
    pooled_head
        If given, average-pool the last feature maps to this many pixels per axis.
    intensity
        ``linear``, ``sqrt`` or ``power``, as of :class:`Intensity`.
    image_mean
        Range of the image mean drawn in training.
    kind
        ``paper``, or ``coarse-to-fine``: the network of the paper on a coarse image, and least
        squares that correct its answer, on the image that is rectified by it.
    uncertainty
        Whether each answer is followed by the logarithms of its standard deviations.
    """

    filters: tuple[int, ...] = (32, 64, 128, 256)
    dense: tuple[int, ...] = (512, 384, 256, 128)
    pooled_head: int | None = None
    intensity: str = "linear"
    image_mean: tuple[float, float] = (0.2, 0.3)
    kind: Kind = "paper"
    uncertainty: bool = False

    @property
    def corrects(self) -> bool:
        """Whether a first answer is corrected."""
        return self.kind == "coarse-to-fine"


def build_network(
    pixels: int,
    outputs: int,
    settings: NetworkSettings,
    seed: int = 0,
    precision: Precision = "float32",
    first: LabelScaling | None = None,
) -> keras.Model:
    """Build the network.

    That of the paper: blocks of two 3 × 3 convolutions and a 2 × 2 average pool, dense layers, ELU
    after each, and a linear output. With the default widths, 256 pixels and 6 outputs it has
    35,055,846 parameters.

    Parameters
    ----------
    pixels
        Pixels of an image per axis.
    outputs
        Number of predicted parameters.
    settings
        Widths and intensity scale.
    seed
        Seed of the initial weights and of the image means.
    precision
        Of the numbers between image and output, :data:`pacbed.learning.sizes.Precision`.
    first
        Scaling of the first answer of the kind ``coarse-to-fine``: outputs and nuisances.

    Returns
    -------
    keras.Model
        From images (examples, pixels, pixels, 1), float32, to scaled parameters
        (examples, outputs), or (examples, 2 outputs) with their uncertainty. Building it seeds the
        global random state of Python, NumPy and the framework.
    """
    keras.utils.set_random_seed(seed)
    images = keras.Input((pixels, pixels, 1), name="image")
    intensity = settings.intensity, settings.image_mean, seed
    x = Intensity(*intensity, name="intensity", dtype="float32")(images)
    if settings.corrects:
        if first is None:
            raise ValueError("a coarse-to-fine network needs the scaling of its first answer")
        answer, x = _look_and_correct(x, outputs, settings, precision, first)
    else:
        x = _look(x, settings, precision)
        answer = layers.Dense(outputs, name="parameters", dtype="float32")(x)
    if settings.uncertainty:
        answer = _state_uncertainty(answer, x)
    return keras.Model(images, answer, name="pacbed")


def _look(x: Any, settings: NetworkSettings, precision: Precision) -> Any:
    """Add the convolutions and the hidden dense layers."""
    for block, width in enumerate(settings.filters, start=1):
        options = {"padding": "same", "activation": "elu", "dtype": precision}
        for step in (1, 2):
            x = layers.Conv2D(width, 3, name=f"block{block}_conv{step}", **options)(x)
        x = layers.AveragePooling2D(2, name=f"block{block}_pool", dtype=precision)(x)
    if settings.pooled_head:
        size = x.shape[1] // settings.pooled_head
        x = layers.AveragePooling2D(size, name="head_pool", dtype=precision)(x)
    x = layers.Flatten(name="flatten", dtype=precision)(x)
    for number, width in enumerate(settings.dense, start=1):
        x = layers.Dense(width, activation="elu", name=f"dense{number}", dtype=precision)(x)
    return x


def _look_and_correct(
    images: Any, outputs: int, settings: NetworkSettings, precision: Precision, first: LabelScaling
) -> tuple[Any, Any]:
    """Add a network on coarse images, and corrections of its answer on rectified ones.

    Returns the parameters, and what an uncertainty is read from: all that is answered, and how much
    it was corrected. An answer that was corrected much is not there yet.
    """
    single, pixels = {"dtype": "float32"}, images.shape[1]
    # Means vary in training, and what is to be read changes a pixel by less.
    images = layers.UnitNormalization(axis=(1, 2, 3), name="unit", **single)(images)
    images = layers.Rescaling(pixels, name="normalised", **single)(images)
    x = layers.AveragePooling2D(binning(pixels, settings.kind), name="coarse", **single)(images)
    x = _look(x, settings, precision)
    told = outputs + len(NUISANCES)
    answer = layers.Dense(told, name="first_answer", **single)(x)
    size, sizes = rectified_size(pixels), []
    pitch_px = RECTIFIED * pixels / size
    for look in range(1, LOOKS + 1):
        known = layers.Identity(name=f"known{look}", **single)(answer)
        x = Rectify(
            size, pitch_px, first.centre, first.half_range, name=f"rectified{look}", **single
        )(images, known)
        x = layers.Flatten(name=f"shown{look}", **single)(x)
        x = layers.Dense(COMPONENTS, name=f"components{look}", **single)(x)
        products = Products(name=f"products{look}", **single)(known, x)
        correction = layers.Dense(
            told, kernel_initializer="zeros", name=f"correction{look}", **single
        )(products)
        answer = layers.Add(name=f"answer{look}", **single)([known, correction])
        sizes.append(Sizes(name=f"size{look}", **single)(correction))
    seen = layers.Concatenate(name="seen", **single)([answer, *sizes])
    return Leading(outputs, name="answer", **single)(answer), seen


def _state_uncertainty(answer: Any, seen: Any) -> Any:
    """Add what reads the uncertainty of an answer."""
    single = {"dtype": "float32"}
    x = layers.Concatenate(name="uncertainty_of", **single)([answer, seen])
    x = layers.Dense(_UNCERTAINTY_WIDTH, activation="elu", name="uncertainty_dense", **single)(x)
    log_sigma = layers.Dense(
        answer.shape[-1], kernel_initializer="zeros", name="log_sigma", **single
    )(x)
    return layers.Concatenate(name="stated", **single)([answer, log_sigma])


def jit_compile(xla: bool) -> bool | Literal["auto"]:
    """Return how steps are compiled, as Keras asks for it: with TensorFlow by XLA, or not.

    Others compile in ways of their own, or would compute step by step.
    """
    return xla if keras.backend.backend() == "tensorflow" else "auto"


def part_of_steps(network: keras.Model) -> keras.Model:
    """Return the part of a network that steps of an optimizer train, with the answer to it.

    Of the kind ``coarse-to-fine`` it is that which answers first: parameters and nuisances. What
    states an uncertainty is never among it.
    """
    names = {layer.name for layer in network.layers}
    last = "first_answer" if "first_answer" in names else "parameters"
    return keras.Model(network.input, network.get_layer(last).output, name="part_of_steps")


def save_network(network: keras.Model, path: Path) -> None:
    """Write a network, whole or not at all; equal networks make equal bytes."""
    dated = path.with_name(f"{path.name}.keras")  # Keras looks at the suffix
    with appearing_whole(path) as temporary:
        try:
            network.save(dated)
            with zipfile.ZipFile(dated) as source, zipfile.ZipFile(temporary, "w") as target:
                for name in source.namelist():
                    content = source.read(name)
                    if name == "metadata.json":
                        metadata = json.loads(content)
                        del metadata["date_saved"]
                        content = json.dumps(metadata).encode()
                    target.writestr(zipfile.ZipInfo(name), content)
        finally:
            dated.unlink(missing_ok=True)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())


def load_network(path: Path) -> keras.Model:
    """Load a trained network; nothing that its file holds is executed.

    Raises
    ------
    PacbedError
        If it cannot be read, or carries code.
    """
    if path.is_file() and not zipfile.is_zipfile(path):
        raise PacbedError(
            f"cannot load {path}: it is damaged, or no network. Delete it and have it trained again"
        )
    try:
        # Safe mode refuses models that carry code.
        return keras.saving.load_model(path, safe_mode=True, compile=False)
    except Exception as error:  # Keras has no end of ways to stumble over a damaged file
        if "safe_mode" in str(error):  # and would advise to do without
            raise PacbedError(
                f"cannot load {path}: it carries code, a Lambda layer, which is not executed. Only "
                "networks that pacbed has trained are loaded"
            ) from error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PacbedError(
            f"cannot load {path}: {reason.rstrip('.')}. Only networks that pacbed has trained are "
            "loaded; delete one that is damaged and have it trained again"
        ) from error
