"""A small scan of a small scattering series, with known fields, camera and calibration."""

from dataclasses import dataclass

import numpy as np

from pacbed.reading.maps.calibration import Calibration
from pacbed.reading.scans.scan import Scan
from pacbed.scattering.image_model import COLUMN, UNKNOWNS, Frame, ImageModel
from pacbed.specimen.microscope import Aperture

POINTS, PIXELS, FIELD_mrad, SEMIANGLE_mrad = (6, 7), 64, 60.0, 6.35
ROTATION_deg, CENTRE_px = 23.0, (32.6, 31.3)
GAIN, READ_NOISE = 4.0, 1.0
COMMON = {
    "log_semiangle": 0.01,
    "ellipticity": 0.006,
    "ellipticity_diagonal": -0.004,
    "blur_px": 0.8,
    "background": 0.03,
}
DEAD = (10, 40)
LAYERS = (2, 3, 5)


@dataclass(frozen=True)
class SmallScan:
    """A scan, and what is true at its points."""

    scan: Scan
    states: np.ndarray
    layers: np.ndarray


def states(shape=POINTS, electrons=1e6):
    """Return smooth fields, shape (ny, nx, unknowns)."""
    y, x = np.mgrid[: shape[0], : shape[1]] / np.array(shape)[:, None, None]
    found = np.zeros((*shape, len(UNKNOWNS)))
    fields = {
        "strain_xx": 0.008 * np.sin(2 * np.pi * x),
        "strain_yy": 0.004 * np.cos(2 * np.pi * y),
        "strain_xy": 0.003 * np.sin(2 * np.pi * (x + y)),
        "rotation_deg": ROTATION_deg + 0.4 * np.cos(2 * np.pi * x),
        "tilt_x_mrad": 1.5 * np.cos(2 * np.pi * x),
        "tilt_y_mrad": np.sin(2 * np.pi * y),
        "shift_x_px": x - x.mean(),
        "shift_y_px": y - y.mean(),
        "log_dose": np.full(shape, np.log(electrons)),
        **{name: np.full(shape, value) for name, value in COMMON.items()},
    }
    for name, values in fields.items():
        found[..., COLUMN[name]] = values
    return found


def small_scan(series, electrons=1e6, vacuum=True, seed=0, shape=POINTS, two=(3, 5)):
    """Return a scan of two thicknesses with a corner of vacuum, in counts of a camera."""
    truth, random = states(shape, electrons), np.random.default_rng(seed)
    layers = np.where(np.arange(shape[1]) < shape[1] // 2, *two) * np.ones((shape[0], 1), int)
    frame = Frame((PIXELS, PIXELS), FIELD_mrad / PIXELS, CENTRE_px)
    model = ImageModel(series, Aperture(SEMIANGLE_mrad), max(two), frame, ("blur_px",))
    expected = np.zeros((*shape, PIXELS**2))
    for number in two:
        expected[layers == number] = model.for_layers(number).images(truth[layers == number])
    if vacuum:
        layers[:2, -2:] = 0
        expected[layers == 0] = disc(electrons).ravel()
    counts = random.poisson(np.maximum(expected, 0)) + random.normal(
        0, READ_NOISE / GAIN, expected.shape
    )
    images = (GAIN * counts).reshape(*shape, PIXELS, PIXELS).astype(np.float32)
    images[..., DEAD[1], DEAD[0]] = 0
    known = {"pixel_mrad": FIELD_mrad / PIXELS, "semiangle_mrad": SEMIANGLE_mrad}
    scan = Scan.of(images, energy_keV=80.0, step_nm=0.5, **known)
    return SmallScan(scan, truth, layers)


def disc(electrons):
    """Return the beam without a crystal."""
    y, x = np.mgrid[:PIXELS, :PIXELS]
    radius = SEMIANGLE_mrad * np.exp(COMMON["log_semiangle"]) * PIXELS / FIELD_mrad
    inside = np.clip(radius + 0.5 - np.hypot(x - CENTRE_px[0], y - CENTRE_px[1]), 0, 1)
    return electrons * (inside / inside.sum() + COMMON["background"] / PIXELS**2)


def true_calibration(**changes):
    """Return the calibration as it is."""
    known = {
        "pixel_mrad": FIELD_mrad / PIXELS,
        "pixel_uncertainty": 0.002,
        "semiangle_mrad": SEMIANGLE_mrad * np.exp(COMMON["log_semiangle"]),
        "semiangle_sigma_mrad": 0.01,
        "centre_px": CENTRE_px,
        "rotation_deg": ROTATION_deg,
        "counts_per_electron": GAIN,
        "read_noise_counts": READ_NOISE,
        "masked_px": (DEAD,),
        **{name: COMMON[name] for name in COMMON if name != "log_semiangle"},
    }
    return Calibration(**{**known, **changes})
