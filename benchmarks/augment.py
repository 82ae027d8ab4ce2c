"""Making examples: the layer of the network against one step of SciPy after the other, on one core.

    python benchmarks/augment.py [--config config/demo.yaml] [--batch 32]

The straightforward way rotates the stored pattern, scales it to the pixels of the example, shifts
it, draws the noise, and scales the mean, each by a function of scipy.ndimage or NumPy. The layer
(`pacbed.examples.augment_layer`) does the same in one gather, a batch at a time. Prints
milliseconds per example, the ratio, and how far the images are apart without noise. Figures
measured so far: docs/performance.md.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

# Before TensorFlow starts its threads.
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import keras
import numpy as np
from scipy import ndimage

from pacbed.examples.augment import (
    TRANSFORMATIONS,
    AugmentationSettings,
    average_over_pixels,
    resample,
)
from pacbed.examples.augment_layer import Augmentation
from pacbed.examples.pattern_set import PatternSet
from pacbed.examples.source import ExampleSource
from pacbed.patterns.difference import relative_l1
from pacbed.scattering.image import Camera
from pacbed.study.configuration import load

Example = namedtuple("Example", TRANSFORMATIONS)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, nargs="+", default=[])
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    config = load(options.config)
    settings, stored = config.augmentation(), config.detector()
    nx, ny = stored.pixels
    pixel_mrad = stored.field_of_view_mrad[0] / nx, stored.field_of_view_mrad[1] / ny
    random = np.random.default_rng(0)
    patterns = np.stack([discs(nx, ny, random) for _ in range(8)])
    library = PatternSet(patterns, pixel_mrad, range(8), np.zeros((8, 5)))
    inputs = ExampleSource(library, settings, options.batch, (0, 6.35, 1, "train")).draw(
        0, options.batch
    )
    pattern, ones = inputs[0], [Example(*row) for row in inputs[1].tolist()]
    layer = Augmentation(library, settings)

    def steps() -> None:
        for number, one in zip(pattern, ones, strict=True):
            straightforward(patterns[number], pixel_mrad, one, settings, random)

    each = {
        "one step after the other, scipy.ndimage and NumPy": steps,
        f"layer, {keras.backend.backend()}": lambda: layer.arrays(*inputs),
    }
    print(f"{nx} × {ny} pixels stored, examples of {settings.pixels}², batches of {options.batch}")
    first = None
    for name, function in each.items():
        seconds = fastest(function) / options.batch
        first = first or seconds
        print(f"{name}: {1e3 * seconds:.2f} ms per example, {first / seconds:.1f} times as fast")
    averaged = [average_over_pixels(p, pixel_mrad, settings.pixel_mrad) for p in patterns]
    apart = [
        relative_l1(
            turned_scaled_shifted(patterns[number], pixel_mrad, one, settings)[None],
            resample(averaged[number], pixel_mrad, camera_of(one, settings.pixels))[None],
        )
        for number, one in zip(pattern, ones, strict=True)
    ]
    print(f"without noise the images are {100 * np.mean(apart):.1f} % apart (relative L1)")


def camera_of(one: Example, pixels: int) -> Camera:
    """Return the pixels of an example."""
    shift_px = one.shift_x_px, one.shift_y_px
    return Camera(pixels, one.field_of_view_mrad, one.rotation_deg, shift_px)


def discs(nx: int, ny: int, random: np.random.Generator) -> np.ndarray:
    """Return a pattern of discs, a fraction of the electrons in each."""
    y, x = np.mgrid[:ny, :nx]
    pattern = np.full((ny, nx), 1e-2)
    for _ in range(30):
        radius = np.hypot(x - random.uniform(0, nx), y - random.uniform(0, ny))
        pattern += random.exponential() * np.clip(nx / 20 - radius, 0, 1)
    return (pattern / pattern.sum()).astype(np.float32)


def turned_scaled_shifted(
    pattern: np.ndarray,
    pixel_mrad: tuple[float, float],
    one: Example,
    settings: AugmentationSettings,
) -> np.ndarray:
    """Return the fraction of the electrons per pixel of an example, one step after the other."""
    pixel = one.field_of_view_mrad / settings.pixels
    sizes = np.array(pixel_mrad[::-1])
    smooth = ndimage.gaussian_filter(pattern, settings.pixel_mrad / sizes / np.sqrt(12))
    # As ndimage.rotate, but about zero angle, and of pixels that may be oblong.
    zero = np.array(pattern.shape) // 2
    cos, sin = np.cos(np.radians(one.rotation_deg)), np.sin(np.radians(one.rotation_deg))
    turn = np.array([[cos, -sin], [sin, cos]]) * sizes[None, :] / sizes[:, None]
    turned = ndimage.affine_transform(smooth, turn, zero - turn @ zero, order=1)
    scale = pixel / sizes
    offset = zero - scale * (settings.pixels // 2)
    scaled = ndimage.affine_transform(
        turned, scale, offset, output_shape=(settings.pixels,) * 2, order=1
    )
    shifted = ndimage.shift(scaled, (one.shift_y_px, one.shift_x_px), order=1)
    return shifted * np.prod(scale)


def straightforward(
    pattern: np.ndarray,
    pixel_mrad: tuple[float, float],
    one: Example,
    settings: AugmentationSettings,
    random: np.random.Generator,
) -> np.ndarray:
    """Make an example, one step after the other."""
    fraction = turned_scaled_shifted(pattern, pixel_mrad, one, settings)
    expected = np.maximum(fraction * one.electrons, 1e-12)
    variance = np.log1p(1 / expected)
    signal = random.lognormal(np.log(expected) - variance / 2, np.sqrt(variance))
    return signal * (one.image_mean / signal.mean())


def fastest(function: Callable[[], object], times: int = 5) -> float:
    """Return the seconds of the fastest of some calls, the first not counted."""
    function()
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


if __name__ == "__main__":
    main()
