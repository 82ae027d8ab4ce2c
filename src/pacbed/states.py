"""What is simulated beside the draws of the study: for Fig. 2 to 4, and for the bound."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pacbed.config import Config, draw_ranges
from pacbed.deformation import Deformation, draw
from pacbed.errors import RequestError
from pacbed.seeding import seed_at

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
    """

    deformation: Deformation
    tilt_mrad: tuple[float, float]


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
        """Return the step of one parameter."""
        if parameter.startswith("strain"):
            return self.strain
        return self.tilt_mrad if parameter.startswith("tilt") else self.rotation_deg


STEPS = Steps()


def differences(
    deformation: Deformation,
    tilt_mrad: tuple[float, float],
    strain_step: float = STEPS.strain,
    tilt_step_mrad: float = STEPS.tilt_mrad,
) -> dict[str, State]:
    """Return the states whose patterns are needed for the bound at one of them.

    All are to be simulated with the same seed: their thermal displacements are the same then, and
    cancel in the differences.

    Parameters
    ----------
    deformation, tilt_mrad
        Where the bound is wanted.
    strain_step, tilt_step_mrad
        Half-widths of the central differences.

    Returns
    -------
    dict of State
        ``centre``, and ``strain_xx_minus``, ``strain_xx_plus``, ..., ``tilt_y_mrad_plus``.
    """
    steps = Steps(strain_step, tilt_step_mrad)
    tensor, tilt = deformation.strain, np.array(tilt_mrad, float)
    base = np.array([tensor[0, 0], tensor[1, 1], tensor[0, 1], *tilt])
    states = {CENTRE: State(deformation, (float(tilt[0]), float(tilt[1])))}
    for number, parameter in enumerate(STEPPED):
        for word, sign in (("minus", -1), ("plus", 1)):
            moved = base.copy()
            moved[number] += sign * steps.of(parameter)
            xx, yy, xy, tilt_x, tilt_y = moved.tolist()
            # A tilt leaves the crystal as it is, to the last bit.
            crystal = deformation if number > 2 else Deformation.from_strain(xx, yy, xy)
            states[f"{parameter}_{word}"] = State(crystal, (tilt_x, tilt_y))
    return states


GALLERY: Mapping[str, State] = {
    "gallery_strain_xx": State(Deformation.from_strain(0.1, 0, 0), (0.0, 0.0)),
    "gallery_strain_yy": State(Deformation.from_strain(0, -0.1, 0), (0.0, 0.0)),
    "gallery_strain_xy": State(Deformation.from_strain(0, 0, 0.1), (0.0, 0.0)),
    "gallery_tilt_x": State(Deformation(), (5.0, 0.0)),
    "gallery_tilt_y": State(Deformation(), (0.0, 5.0)),
    "gallery_tilt_xy": State(Deformation(), (5.0, 5.0)),
}
"""Deformations and tilts of Fig. 2 and 3 of Yankovich et al. (2026), by name."""


@dataclass(frozen=True)
class Seeded:
    """A state with the seed of what is random in its simulation."""

    state: State
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, from which :meth:`from_dict` makes the same state."""
        deformation = self.state.deformation
        return {
            "stretch": [deformation.stretch_1, deformation.stretch_2],
            "angle_deg": deformation.angle_deg,
            "tilt_mrad": list(self.state.tilt_mrad),
            "seed": self.seed,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Seeded:
        """Restore a state."""
        stretch_1, stretch_2 = values["stretch"]
        tilt_x, tilt_y = values["tilt_mrad"]
        deformation = Deformation(stretch_1, stretch_2, values["angle_deg"])
        return cls(State(deformation, (tilt_x, tilt_y)), values["seed"])


def gallery(seed: int) -> dict[str, Seeded]:
    """Return the states of Fig. 2 and 3, by name."""
    return {
        name: Seeded(state, seed_at(seed, "simulation", name)) for name, state in GALLERY.items()
    }


def bases(config: Config) -> dict[str, State]:
    """Return the states at which the bound is computed, by name.

    They are the undeformed crystal and some random deformations and tilts of the study's ranges,
    the same for all semi-angles. They belong to no set.
    """
    found = {UNDEFORMED: State(Deformation(), (0.0, 0.0))}
    for number in range(config["bound"]["deformed_states"]):
        one = draw(config["seed"], 0.0, number, draw_ranges(config))
        found[f"deformed{number + 1}"] = State(one.deformation, one.tilt_mrad)
    return found


def bound_states(config: Config) -> dict[str, dict[str, Seeded]]:
    """Return the simulations that the bound takes, by the name of the base and of the step.

    Those of a base share their seed, so that thermal displacements are the same and differences
    are due to the step.
    """
    section = config["bound"]
    return {
        name: {
            step: Seeded(state, seed_at(config["seed"], "simulation", "bound", name))
            for step, state in differences(
                base.deformation, base.tilt_mrad, section["strain_step"], section["tilt_step_mrad"]
            ).items()
        }
        for name, base in bases(config).items()
    }
