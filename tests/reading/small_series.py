"""Patterns of a small scattering series."""

import numpy as np

from pacbed.scattering.image import Camera
from pacbed.scattering.image_model import COLUMN, UNKNOWNS
from pacbed.specimen.microscope import Aperture

APERTURE = Aperture(5.0)
FIELD_mrad, PIXELS = 44.0, 64


def random_states(count, electrons, seed=0):
    """Return states within the small series."""
    random = np.random.default_rng(seed)
    states = np.zeros((count, len(UNKNOWNS)))
    widths = [0.008, 0.008, 0.008, 8, 2, 2, 1, 1, 0.02]
    states[:, : len(widths)] = random.uniform(-1, 1, (count, len(widths))) * widths
    states[:, COLUMN["log_dose"]] = np.log(electrons)
    return states


def pattern(series, state, layers, pixels=PIXELS):
    """Return the expected electrons of a pattern, by the series itself and NumPy."""
    one = dict(zip(UNKNOWNS, state, strict=True))
    camera = Camera(
        pixels,
        FIELD_mrad * np.exp(one["log_scale"]),
        one["rotation_deg"],
        (one["shift_x_px"], one["shift_y_px"]),
    )
    tilt = one["tilt_x_mrad"], one["tilt_y_mrad"]
    image = series.image(tuple(state[:3]), tilt, APERTURE, layers, camera)
    return np.exp(one["log_dose"]) * image
