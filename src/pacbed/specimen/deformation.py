"""In-plane deformation of the crystal, and the ranges from which deformations are drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pacbed.exceptions import RequestError


@dataclass(frozen=True)
class Deformation:
    """Pure in-plane stretch F = R(θ) diag(λ1, λ2) R(θ)ᵀ (Yankovich et al. 2026, eq. 2).

    Parameters
    ----------
    stretch_1, stretch_2
        Principal stretches λ1 ≥ λ2 > 0 (1 is undeformed).
    angle_deg
        Angle θ of the first principal direction, counter-clockwise from x (zigzag), in degrees.

    Raises
    ------
    RequestError
        If λ1 < λ2 or a stretch is not positive.

    Examples
    --------
    Three per cent longer along a direction of 30° from x, and two per cent shorter across it.

    >>> Deformation(1.03, 0.98, 30).strain.round(4)
    array([[ 0.0175,  0.0217],
           [ 0.0217, -0.0075]])
    """

    stretch_1: float = 1.0
    stretch_2: float = 1.0
    angle_deg: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.stretch_1) and math.isfinite(self.stretch_2)) or (
            min(self.stretch_1, self.stretch_2) <= 0
        ):
            raise RequestError(
                f"principal stretches must be positive: {self.stretch_1}, {self.stretch_2}"
            )
        if not math.isfinite(self.angle_deg):
            raise RequestError(f"the principal angle must be finite, not {self.angle_deg}°")
        if self.stretch_1 < self.stretch_2:
            raise RequestError(
                f"principal stretches must be given largest first: λ1 = {self.stretch_1} is "
                f"smaller than λ2 = {self.stretch_2}. Swap them and add 90° to θ for the same "
                "deformation"
            )

    @classmethod
    def from_strain(cls, xx: float, yy: float, xy: float) -> Deformation:
        """Make the deformation whose strain tensor has these components (fractions).

        Examples
        --------
        >>> one = Deformation.from_strain(0.01, -0.02, 0.005)
        >>> round(one.stretch_1, 4), round(one.stretch_2, 4), round(one.angle_deg, 2)
        (1.0108, 0.9792, 9.22)
        """
        mean, half = (xx + yy) / 2, math.hypot((xx - yy) / 2, xy)
        angle = math.degrees(0.5 * math.atan2(2 * xy, xx - yy)) % 180
        return cls(1 + mean + half, 1 + mean - half, angle)

    @property
    def gradient(self) -> np.ndarray:
        """Deformation gradient F, shape (2, 2): x' = F x."""
        c, s = math.cos(math.radians(self.angle_deg)), math.sin(math.radians(self.angle_deg))
        rotation = np.array([[c, -s], [s, c]])
        return rotation @ np.diag([self.stretch_1, self.stretch_2]) @ rotation.T

    @property
    def strain(self) -> np.ndarray:
        """Strain tensor ε = F - I as fractions, shape (2, 2).

        The paper's eq. 3 writes RᵀER, which flips the sign of ε_xy against its own eq. 2.
        """
        return self.gradient - np.eye(2)


@dataclass(frozen=True)
class DrawRanges:
    """Ranges from which deformations are drawn, each (lowest, highest)."""

    stretch: tuple[float, float]
    angle_deg: tuple[float, float]
    tilt_mrad: tuple[float, float]
