"""What can be said of how a map is made, and of its calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pacbed.exceptions import PacbedError


@dataclass(frozen=True)
class CalibrationSettings:
    """What is known before a scan is calibrated.

    Parameters
    ----------
    pixel_uncertainty
        Relative standard deviation of the size of a pixel, if that is known. It becomes part of the
        common error of strain.
    semiangle_uncertainty
        Relative standard deviation of the semi-angle. If the size of a pixel is not known, it
        becomes part of the common error of strain.
    zigzag_near_deg
        Direction in the patterns in degrees, counter-clockwise from x: of the zigzag axes, 60°
        apart, the one nearest to it is x of the crystal. If its lattice is not hexagonal, x has two
        such directions, 180° apart.
    counts_per_electron
        Gain of the camera. Without it, it follows from the residuals, and χ² is relative.
    mtf
        File of the modulation transfer function (MTF) of the camera, as measured: lines of cycles
        per pixel, to at most 0.5, and MTF, which is 1 at first.
    mtf_bins
        Pixels of the camera, along each axis, that make one of the file, before --bins.

    Raises
    ------
    PacbedError
        If a number is impossible.
    """

    pixel_uncertainty: float = 0.002
    semiangle_uncertainty: float = 0.03
    zigzag_near_deg: float = 0.0
    counts_per_electron: float | None = None
    mtf: Path | None = None
    mtf_bins: int = 1

    def __post_init__(self) -> None:
        positive = ("pixel_uncertainty", "semiangle_uncertainty", "counts_per_electron", "mtf_bins")
        for name in positive:
            _check_positive(name, getattr(self, name))


@dataclass(frozen=True)
class MapSettings:
    """How a map is made.

    Parameters
    ----------
    layers
        Numbers of layers that there may be.
    thickness
        by-region: neighbouring points have the same number of layers unless their patterns show
        otherwise; by-pattern: all numbers are tried at every point, which takes longer.
    window
        So many points along each axis are added up.
    weights
        Of the points of a window: equal, or falling off from its middle as a Gaussian (gauss) whose
        standard deviation is a quarter of the window.
    every
        Points of the map are so many points of the scan apart.
    reference
        Undeformed region x0 y0 x1 y1, in points of the scan or of the part of it that is used, to
        which relative strain refers; x1 and y1 do not belong to it. If the size of a pixel is not
        known, the scale follows from it.
    axes
        Of strain and tilt: those of the crystal (such as x along zigzag), or of the scan.
    scan_rotation_deg
        Direction of x of the scan in the patterns, counter-clockwise, in degrees.
    model_error
        Relative standard deviation of the expected intensity of a pixel: what is not known of the
        potential and of thermal motion.
    least_electrons
        Points with fewer electrons are not fitted.

    Raises
    ------
    PacbedError
        If a number is impossible.
    """

    layers: tuple[int, ...] = ()
    thickness: Literal["by-region", "by-pattern"] = "by-region"
    window: int = 1
    weights: Literal["equal", "gauss"] = "equal"
    every: int = 1
    reference: tuple[int, int, int, int] | None = None
    axes: Literal["crystal", "scan"] = "crystal"
    scan_rotation_deg: float = 0.0
    model_error: float = 0.02
    least_electrons: float = 500.0

    def __post_init__(self) -> None:
        if min(self.window, self.every) < 1:
            raise PacbedError(
                f"--window {self.window} --every {self.every}: these are points, 1 or more"
            )
        if self.model_error != 0:
            _check_positive("model_error", self.model_error)
        _check_positive("least_electrons", self.least_electrons)

    @property
    def window_weights(self) -> np.ndarray:
        """Weights of the points of a window, shape (window, window)."""
        away = (np.arange(self.window) - (self.window - 1) / 2) / self.window
        along = np.exp(-8 * away**2) if self.weights == "gauss" else np.ones(self.window)
        return np.outer(along, along)

    @property
    def patterns(self) -> float:
        """How many equal patterns have the noise of the sum over a window."""
        return float(self.window_weights.sum() ** 2 / (self.window_weights**2).sum())

    def points(self, shape: tuple[int, int]) -> list[np.ndarray]:
        """Return the rows and columns of a scan of so many points (y, x) that a map has."""
        first, behind = (self.window - 1) // 2, self.window // 2
        return [np.arange(first, n - behind, self.every) for n in shape]

    def check(self, shape: tuple[int, int]) -> None:
        """Check that a scan of so many points (y, x) has the window and the reference region.

        Raises
        ------
        PacbedError
            If it has not.
        """
        points = f"a scan of {shape[0]} × {shape[1]} points (rows × columns)"
        if self.window > min(shape):
            raise PacbedError(f"--window {self.window} is larger than {points}")
        x0, y0, x1, y1 = self.reference or (0, 0, 1, 1)
        if not (0 <= x0 < x1 <= shape[1] and 0 <= y0 < y1 <= shape[0]):
            raise PacbedError(
                f"the reference x0 y0 x1 y1 = {x0} {y0} {x1} {y1} is no part of {points}"
            )


def _check_positive(name: str, value: float | None) -> None:
    if value is not None and not 0 < value < math.inf:
        option = name.replace("_", "-")
        raise PacbedError(f"--{option} must be a positive number, not {value:g}")
