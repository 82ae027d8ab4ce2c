"""The states of auxiliary simulations: of Fig. 2 and 3, and of the bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

from pacbed.precision.steps import UNDEFORMED, State, Steps, differences
from pacbed.seeding import seed_at
from pacbed.specimen.deformation import Deformation, DrawRanges
from pacbed.study.draws import draw

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
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Seeded:
        """Restore a state."""
        return TypeAdapter(cls).validate_python(values)


def gallery(seed: int) -> dict[str, Seeded]:
    """Return the states of Fig. 2 and 3, by name."""
    return {
        name: Seeded(state, seed_at(seed, "simulation", name)) for name, state in GALLERY.items()
    }


def base_states(seed: int, ranges: DrawRanges, deformed: int) -> dict[str, State]:
    """Return the states at which the bound is computed, by name.

    They are the undeformed crystal and so many random deformations and tilts of some ranges, the
    same for all semi-angles. They belong to no set.
    """
    found = {UNDEFORMED: State(Deformation(), (0.0, 0.0))}
    for number in range(deformed):
        one = draw(seed, 0.0, number, ranges)
        found[f"deformed{number + 1}"] = State(one.deformation, one.tilt_mrad)
    return found


def bound_states(
    seed: int, ranges: DrawRanges, deformed: int, steps: Steps
) -> dict[str, dict[str, Seeded]]:
    """Return the simulations that the bound takes, by the name of the base and of the step.

    Those of a base share their seed, so that thermal displacements are the same and differences
    are due to the step.
    """
    return {
        name: {
            step: Seeded(state, seed_at(seed, "simulation", "bound", name))
            for step, state in differences(base.deformation, base.tilt_mrad, steps).items()
        }
        for name, base in base_states(seed, ranges, deformed).items()
    }
