"""What a network predicts: parameters, their units, and their scaling to [-1, 1]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

PARAMETERS = ("strain_xx", "strain_yy", "strain_xy", "rotation_deg", "tilt_x_mrad", "tilt_y_mrad")

NUISANCES = ("shift_x_px", "shift_y_px", "log_scale")
"""What else changes where discs lie: shifts, and the logarithm of the field of view over the
nominal one."""

OUTPUTS: dict[str, tuple[str, ...]] = {
    "strain-rotation-tilt": PARAMETERS,
    "strain-rotation": PARAMETERS[:4],
}

UNITS = dict(zip(PARAMETERS, ("1", "1", "1", "deg", "mrad", "mrad"), strict=True))

PLAIN_SYMBOLS = dict(zip(PARAMETERS, ("ε_xx", "ε_yy", "ε_xy", "γ", "φ_x", "φ_y"), strict=True))
"""Symbols in plain text; what follows the underscore becomes a subscript of a page."""


def display_unit(name: str) -> tuple[float, str]:
    """Return the factor from stored to shown values of a quantity or its error, and the unit shown.

    The unit is empty if it has none.
    """
    if "strain" in name:
        return 100.0, "%"
    units = {"deg": "°", "mrad": "mrad", "px": "px"}
    return 1.0, units.get(name.removesuffix("_sigma").rsplit("_", 1)[-1], "")


def head(parameter: str) -> str:
    """Return symbol and unit of a parameter, as the head of a column."""
    return f"{PLAIN_SYMBOLS[parameter]} ({display_unit(parameter)[1]})"


@dataclass(frozen=True)
class LabelScaling:
    """Affine map of physical parameters to [-1, 1].

    Parameters
    ----------
    parameters
        Names of the parameters, in the order of the outputs.
    centre, half_range
        Middle and half-width of each parameter's range, in its own unit.

    Examples
    --------
    >>> scaling = LabelScaling.from_ranges(
    ...     "strain-rotation", stretch=(0.95, 1.05), rotation_deg=(-10, 10), tilt_mrad=(-5, 5)
    ... )
    >>> scaling.parameters
    ('strain_xx', 'strain_yy', 'strain_xy', 'rotation_deg')
    >>> scaling.scale(np.array([0.01, -0.05, 0.0, 5.0])).round(3)
    array([ 0.2, -1. ,  0. ,  0.5])
    """

    parameters: tuple[str, ...]
    centre: tuple[float, ...]
    half_range: tuple[float, ...]

    @classmethod
    def from_ranges(
        cls,
        outputs: str,
        stretch: Sequence[float],
        rotation_deg: Sequence[float],
        tilt_mrad: Sequence[float],
    ) -> LabelScaling:
        """Make the scaling for the ranges of a study.

        Normal strains span λ - 1, and ε_xy = (λ1 - λ2)/2 sin 2θ half of that range around zero.
        A range of zero width (a parameter that is not varied) keeps its unit.
        """
        low, high = stretch
        normal = (low - 1, high - 1)
        shear = ((low - high) / 2, (high - low) / 2)
        ranges = (normal, normal, shear, rotation_deg, tilt_mrad, tilt_mrad)
        chosen = [ranges[PARAMETERS.index(p)] for p in OUTPUTS[outputs]]
        return cls(
            parameters=OUTPUTS[outputs],
            centre=tuple((a + b) / 2 for a, b in chosen),
            half_range=tuple((b - a) / 2 or 1.0 for a, b in chosen),
        )

    def with_nuisances(self, translation_px: float, variation: float) -> LabelScaling:
        """Return the scaling of the parameters and then of :data:`NUISANCES`.

        Parameters
        ----------
        translation_px
            Shifts are within ± this.
        variation
            Relative variation of the field of view, within ± this.
        """
        ranges = (translation_px or 1.0, translation_px or 1.0, variation or 1.0)
        return LabelScaling(
            (*self.parameters, *NUISANCES),
            (*self.centre, 0.0, 0.0, 0.0),
            (*self.half_range, *ranges),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Sequence]) -> LabelScaling:
        """Restore a scaling that was stored with a model."""
        return cls(*(tuple(values[k]) for k in ("parameters", "centre", "half_range")))

    def scale(self, physical: np.ndarray) -> np.ndarray:
        """Map parameters in physical units, last axis as `parameters`, to [-1, 1]."""
        return np.asarray((physical - np.array(self.centre)) / np.array(self.half_range))

    def unscale(self, scaled: np.ndarray) -> np.ndarray:
        """Map network outputs back to physical units."""
        return np.asarray(scaled * np.array(self.half_range) + np.array(self.centre))
