"""The convolutional network of the study (Yankovich et al. 2026, 2.5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="pacbed")
class Intensity(layers.Layer):
    """Intensity scale and mean of the images.

    Takes the square root if asked to, keeping the mean of each image; in training, scales each
    image to a mean drawn anew from a range, the paper's augmentation.

    Parameters
    ----------
    scale
        ``linear`` or ``sqrt``.
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
        if scale not in ("linear", "sqrt"):
            raise ValueError(f"intensity scale must be 'linear' or 'sqrt', not '{scale}'")
        self.scale = scale
        self.image_mean = tuple(image_mean)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, images: Any, training: bool = False) -> Any:
        """Transform a batch of images (examples, pixels, pixels, 1)."""
        axes = (1, 2, 3)
        mean = ops.mean(images, axis=axes, keepdims=True)
        if training:
            low, high = self.image_mean
            wanted = keras.random.uniform(
                ops.shape(mean), low, high, seed=self.seed_generator, dtype=mean.dtype
            )
        else:
            wanted = mean
        if self.scale == "sqrt":
            images = ops.sqrt(images)
            mean = ops.mean(images, axis=axes, keepdims=True)
        return images * (wanted / mean)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, so that a saved model can be restored."""
        return {
            **super().get_config(),
            "scale": self.scale,
            "image_mean": self.image_mean,
            "seed": self.seed,
        }


def build_network(
    pixels: int,
    outputs: int,
    filters: Sequence[int] = (32, 64, 128, 256),
    dense: Sequence[int] = (512, 384, 256, 128),
    pooled_head: int | None = None,
    intensity: str = "linear",
    image_mean: Sequence[float] = (0.2, 0.3),
    seed: int = 0,
) -> keras.Model:
    """Build the network.

    Blocks of two 3 × 3 convolutions and a 2 × 2 average pool, dense layers, ELU after each, and a
    linear output. With the default widths, 256 pixels and 6 outputs it has 35,055,846 parameters.

    Parameters
    ----------
    pixels
        Pixels of an image per axis.
    outputs
        Number of predicted parameters.
    filters
        Filters of each block.
    dense
        Widths of the hidden dense layers.
    pooled_head
        If given, average-pool the last feature maps to this many pixels per axis.
    intensity
        ``linear`` or ``sqrt``.
    image_mean
        Range of the image mean drawn in training.
    seed
        Seed of the initial weights and of the image means.

    Returns
    -------
    keras.Model
        From images (examples, pixels, pixels, 1), float32, to scaled parameters
        (examples, outputs). Building it seeds the global random state of Python, NumPy and the
        framework.
    """
    keras.utils.set_random_seed(seed)
    images = keras.Input((pixels, pixels, 1), name="image")
    x = Intensity(intensity, image_mean, seed, name="intensity")(images)
    for block, width in enumerate(filters, start=1):
        for step in (1, 2):
            x = layers.Conv2D(
                width, 3, padding="same", activation="elu", name=f"block{block}_conv{step}"
            )(x)
        x = layers.AveragePooling2D(2, name=f"block{block}_pool")(x)
    if pooled_head:
        x = layers.AveragePooling2D(x.shape[1] // pooled_head, name="head_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    for number, width in enumerate(dense, start=1):
        x = layers.Dense(width, activation="elu", name=f"dense{number}")(x)
    x = layers.Dense(outputs, name="parameters")(x)
    return keras.Model(images, x, name="pacbed")
