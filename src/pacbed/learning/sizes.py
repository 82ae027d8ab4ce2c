"""Sizes of the parts of a network, which plans need; computed without Keras."""

from __future__ import annotations

from typing import Literal

Kind = Literal["paper", "coarse-to-fine"]
"""Kinds of networks."""

Precision = Literal["float32", "mixed_float16", "mixed_bfloat16"]
"""Numbers to compute with, as Keras names them; weights are in single precision with all."""

RECTIFIED = 0.75
"""Part of the field, along each axis, that is rectified."""

LOOKS, COMPONENTS = 2, 150
"""How often an image is rectified and an answer corrected, and principal components each time."""

FITTED_EPOCHS = 4
"""Epochs whose examples are regressed, if every epoch has its own."""

_COARSE_PIXELS, _MOST_RECTIFIED = 64, 128


def corrected_by(outputs: int, components: int = COMPONENTS) -> int:
    """Return by how many values a correction of so many outputs is computed.

    Outputs, their products, components, and the products of both.
    """
    return outputs + outputs * (outputs + 1) // 2 + components * (1 + outputs)


def binning(pixels: int, kind: Kind) -> int:
    """Return how many pixels of an image, along each axis, the convolutions see as one."""
    return max(2, pixels // _COARSE_PIXELS) if kind == "coarse-to-fine" else 1


def rectified_size(pixels: int) -> int:
    """Return how many pixels, along each axis, show the rectified part of an image."""
    return min(_MOST_RECTIFIED, round(RECTIFIED * pixels))
