"""The neighbouring states whose simulated patterns give the derivatives of the bound."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pacbed.exceptions import RequestError
from pacbed.specimen.deformation import Deformation

UNDEFORMED, CENTRE = "undeformed", "centre"


STEPPED = ("strain_xx", "strain_yy", "strain_xy", "tilt_x_mrad", "tilt_y_mrad")
"""Parameters of which the bound needs simulations; the others move a pattern as a whole."""


@dataclass(frozen=True)
class State:
    """What is to be simulated: a crystal and its tilt.

    Parameters
    ----------
    deformation
        In-plane stretch.
    tilt_mrad
        Sample tilt (φx, φy) in mrad.
    discs_only
        Whether the diffuse scattering may be left out, where the engine can: in a thin crystal,
        whose discs hardly change, its noise moves with a tilt and looks like information.
    """

    deformation: Deformation
    tilt_mrad: tuple[float, float]
    discs_only: bool = False


@dataclass(frozen=True)
class Steps:
    """Half-widths of the central differences.

    Parameters
    ----------
    strain
        Of the components of strain, as a fraction.
    tilt_mrad
        Of the tilts in mrad.
    rotation_deg
        Of the rotation in degrees.
    shift_px
        Of the shifts, in pixels of an example.
    scale
        Of the field of view, as a fraction.

    Raises
    ------
    RequestError
        If one is not positive.
    """

    strain: float = 2e-3
    tilt_mrad: float = 0.2
    rotation_deg: float = 0.1
    shift_px: float = 0.25
    scale: float = 2e-3

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < math.inf:
                raise RequestError(f"a step must be positive: {name} is {value}")

    def of(self, parameter: str) -> float:
        """Return the step of one of :data:`STEPPED`."""
        return self.strain if parameter.startswith("strain") else self.tilt_mrad


STEPS = Steps()


def differences(
    deformation: Deformation, tilt_mrad: tuple[float, float], steps: Steps = STEPS
) -> dict[str, State]:
    """Return the states whose patterns are needed for the bound at one of them.

    All are to be simulated with the same seed: their thermal displacements are the same then, and
    cancel in the differences.

    Parameters
    ----------
    deformation, tilt_mrad
        Where the bound is wanted.
    steps
        Half-widths of the central differences.

    Returns
    -------
    dict of State
        ``centre``, and ``strain_xx_minus``, ``strain_xx_plus``, ..., ``tilt_y_mrad_plus``.
    """
    tensor, tilt = deformation.strain, np.array(tilt_mrad, float)
    base = np.array([tensor[0, 0], tensor[1, 1], tensor[0, 1], *tilt])
    states = {CENTRE: State(deformation, (float(tilt[0]), float(tilt[1])))}
    for number, parameter in enumerate(STEPPED):
        for word, sign in (("minus", -1), ("plus", 1)):
            moved = base.copy()
            moved[number] += sign * steps.of(parameter)
            xx, yy, xy, tilt_x, tilt_y = moved.tolist()
            # A tilt leaves the crystal as it is, to the last bit.
            tilted = number > 2
            crystal = deformation if tilted else Deformation.from_strain(xx, yy, xy)
            states[f"{parameter}_{word}"] = State(crystal, (tilt_x, tilt_y), tilted)
    return states
