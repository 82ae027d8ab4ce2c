"""A map as it may come out, made up: a ripple, a step of the thickness, a corner of vacuum."""

import numpy as np

from pacbed.reading.maps.store import QUANTITIES, RELATIVE, StrainMap

SIGMAS = (8e-4, 8e-4, 5e-4, 0.03, 0.15, 0.15, 0.02, 0.02, 150.0)


def synthetic_map(ny=48, nx=48, step_nm=2.0, *, vacuum=True, seed=1, **attributes):
    """Return a map whose fields are known but for noise, with errors as its error bars say."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:ny, :nx]
    phase = 2 * np.pi * (x + 0.3 * y) / 20
    truth = [
        0.008 * np.sin(phase),
        -0.003 * np.sin(phase) + 0.002,
        0.002 * np.cos(phase),
        0.4 * np.cos(phase) + 12,
        4.0 * np.cos(phase),
        1.2 * np.cos(phase),
        0.5 * x / nx,
        -0.3 * y / ny,
        np.full((ny, nx), 4e4),
    ]
    values = {}
    flags = np.zeros((ny, nx), np.uint8)
    flags[random.random((ny, nx)) < 0.01] |= 4
    nothing = np.zeros((ny, nx), bool)
    if vacuum:
        nothing = x + (ny - 1 - y) < min(ny, nx) / 3
        edge = (x + (ny - 1 - y) < min(ny, nx) / 3 + 1) & ~nothing
        flags[nothing], flags[edge] = 8, 16
    for name, field, sigma in zip(QUANTITIES, truth, SIGMAS, strict=True):
        sigmas = sigma * (1 + 0.3 * random.random((ny, nx)))
        values[name] = np.where(nothing, np.nan, field + sigmas * random.normal(size=(ny, nx)))
        values[f"{name}_sigma"] = np.where(nothing, np.nan, sigmas)
    for name in RELATIVE:
        absolute = values[name.removeprefix("relative_")]
        values[name] = absolute - np.nanmean(absolute[:6, -6:])
    layers = np.where(x < nx // 2, 3, 5).astype(np.int16)
    values["layers"] = np.where(nothing, 0, layers).astype(np.int16)
    values["layers_probability"] = np.where(nothing, np.nan, 0.98)
    chi2 = 1 + 0.04 * random.normal(size=(ny, nx)) + 0.4 * ((flags & 4) > 0)
    values["chi2_per_pixel"] = np.where(nothing, np.nan, chi2)
    values = {n: v if n == "layers" else v.astype(np.float32) for n, v in values.items()}
    known = {
        "material": "MoS2",
        "energy_keV": 80.0,
        "semiangle_mrad": 6.35,
        "axes": "crystal",
        "crystal_axes": ["zigzag", "armchair"],
        "reference": [nx - 6, 0, nx, 6],
        "common_sigma": {"strain_xx": 0.002, "strain_yy": 0.002},
        "calibration": {
            "pixel_mrad": 0.52,
            "pixel_uncertainty": 0.002,
            "semiangle_mrad": 6.35,
            "semiangle_sigma_mrad": 0.01,
            "sources": {"pixel_mrad": "file", "others": "fit"},
        },
        "provenance": {
            "scan": "ripple.hspy",
            "scan_options": {"bins": 1},
            "series": "mos2.series.zarr.zip",
            "pacbed_version": "0",
            "settings": {"window": 1, "step": 1},
        },
    }
    at = step_nm * np.arange(nx), step_nm * np.arange(ny)
    return StrainMap({**values, "flags": flags}, *at, {**known, **attributes})
