"""The image that an example should be, one step after the other with NumPy and SciPy."""

import math
from collections import namedtuple

import numpy as np
from scipy import stats

from pacbed.examples.augment import TRANSFORMATIONS, AugmentationSettings, resample
from pacbed.scattering.image import Camera

Example = namedtuple("Example", TRANSFORMATIONS)


def threefry(key, counter):
    """Two random words for each pair of words (uint32), as of Salmon et al. (2011), 20 rounds."""
    keys = [key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA)]
    words = [counter[0] + keys[0], counter[1] + keys[1]]
    for turn in range(20):
        bits = (13, 15, 26, 6, 17, 29, 16, 24)[turn % 8]
        words[0] = words[0] + words[1]
        words[1] = (words[1] << bits | words[1] >> (32 - bits)) ^ words[0]
        if turn % 4 == 3:
            group = turn // 4 + 1
            words[0] = words[0] + keys[group % 3]
            words[1] = words[1] + keys[(group + 1) % 3] + np.uint32(group)
    return words


def normal_numbers(key, pixels):
    """Standard normal numbers of the pixels of an example, from its key (2, int32)."""
    pair = np.arange(math.ceil(pixels**2 / 2), dtype=np.uint32)
    key = np.array(key, np.int32).view(np.uint32)
    first, second = ((w >> 9) + 0.5 for w in threefry(key[:, None], [pair, np.zeros_like(pair)]))
    complex_ = np.sqrt(-2 * np.log(first / 2**23)) * np.exp(2j * np.pi * second / 2**23)
    return np.concatenate([complex_.real, complex_.imag])[: pixels**2].reshape(pixels, pixels)


def recorded(expected, model, normal):
    """The signal of a pixel with an expected number of electrons, whose rank is the number's."""
    if model == "poisson":
        return stats.poisson.ppf(stats.norm.cdf(normal), expected)
    mean = np.maximum(expected, 1e-20)
    sigma = np.sqrt(np.log1p(1 / mean))
    return expected * np.exp(sigma * normal - sigma**2 / 2)


def camera(one: Example, pixels):
    shift_px = one.shift_x_px, one.shift_y_px
    return Camera(pixels, one.field_of_view_mrad, one.rotation_deg, shift_px)


def image(averaged, pixel_mrad, one: Example, settings: AugmentationSettings, key):
    fraction = resample(averaged, pixel_mrad, camera(one, settings.pixels)).astype(float)
    signal = recorded(
        fraction * one.electrons, settings.noise, normal_numbers(key, settings.pixels)
    )
    return signal * (one.image_mean / signal.mean())
