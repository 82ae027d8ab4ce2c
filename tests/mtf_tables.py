"""MTFs of cameras for tests."""

import numpy as np


def gaussian_mtf(sigma_px, steps=50):
    """Return points of the MTF of pixels that blur by a Gaussian and integrate."""
    f = np.linspace(0, 0.5, steps + 1)
    values = np.sinc(f) * np.exp(-2 * (np.pi * sigma_px * f) ** 2)
    return tuple(zip(f.tolist(), values.tolist(), strict=True))
