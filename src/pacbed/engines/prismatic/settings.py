"""What can be chosen of a simulation with Prismatic, and what follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pacbed.exceptions import RequestError


@dataclass(frozen=True)
class PrismaticSettings:
    """Settings of a simulation with Prismatic; the defaults are the paper's (2.3).

    Parameters
    ----------
    pixel_A
        Sampling of the potential in Å; the grid of Prismatic fits it to the box.
    slices_per_layer
        Number of equal slices per layer.
    interpolation_factor
        Prismatic makes the points of its grid a multiple of four times this number: 400 Å at
        0.15 Å become 2672 points with 4, the paper's. It has no other effect on multislice.
    potential_bound_A
        Radius within which the potential of an atom is computed, in Å.
    box_A
        Edges (x, y) of the box in Å; one number serves for both. ``auto``: the smallest box that
        leaves less than 1 % of a probe's electrons beyond its edge and has pixels no larger than
        the detector's (at 0.21 mrad the pixels decide: 202 Å).
    probe_region_A
        Edge of the central square that holds the probes, in Å. With ``auto`` it is the smallest
        that has a cell for each of them.
    probes
        Number of positions along x and y in relative coordinates of the deformed cell. ``auto``:
        the fewest whose average is that over all positions.
    probes_per_configuration
        ``all``: every frozen-phonon configuration is seen by all probes. ``split``: every
        configuration by its share of them; the waves cost that much less, the potential as much.
    """

    pixel_A: float = 0.15
    slices_per_layer: int = 3
    interpolation_factor: int = 4
    potential_bound_A: float = 3.0
    box_A: tuple[float, float] | Literal["auto"] = (400.0, 400.0)
    probe_region_A: float = 200.0
    probes: tuple[int, int] | Literal["auto"] = (16, 28)
    probes_per_configuration: Literal["all", "split"] = "all"

    def __post_init__(self) -> None:
        if not isinstance(self.box_A, str):
            edges = self.box_A if isinstance(self.box_A, list | tuple) else (self.box_A,) * 2
            object.__setattr__(self, "box_A", tuple(map(float, edges)))
        if not isinstance(self.probes, str):
            object.__setattr__(self, "probes", tuple(self.probes))
        for name, low, high in (
            ("pixel_A", 0.01, 0.5),
            ("potential_bound_A", 1, 10),
            ("probe_region_A", 1, 2000),
        ):
            if not low <= getattr(self, name) <= high:
                raise RequestError(
                    f"{name} must lie within {low} to {high} Å, not {getattr(self, name)}"
                )
        for name in ("slices_per_layer", "interpolation_factor"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name} must be 1 or more, not {getattr(self, name)}")
        box, probes, share = self.box_A, self.probes, self.probes_per_configuration
        if box != "auto" and (
            isinstance(box, str) or len(box) != 2 or not all(10 <= edge <= 2000 for edge in box)
        ):
            raise RequestError(
                f"box_A must be 'auto' or one or two lengths within 10 to 2000 Å, not {box}"
            )
        if probes != "auto" and (isinstance(probes, str) or len(probes) != 2 or min(probes) < 1):
            raise RequestError(f"probes must be 'auto' or two numbers, 1 or more, not {probes}")
        if share not in ("all", "split"):
            raise RequestError(f"probes_per_configuration must be 'all' or 'split', not '{share}'")

    def slice_A(self, layer_A: float) -> float:
        """Return the thickness of slices for layers of this thickness, in Å.

        Prismatic rounds the number of slices up, in single precision: the exact quotient can give
        one slice, and one pattern, too many. A hundred-thousandth more gives the right number.
        """
        return layer_A / self.slices_per_layer * (1 + 1e-5)


@dataclass(frozen=True)
class Grid:
    """The grid on which Prismatic computes, and the half of it that is its output.

    It fills a box of edges (x, y); see :class:`PrismaticSettings`.
    """

    edges_A: tuple[float, float]
    pixel_A: float
    interpolation_factor: int = 4

    @property
    def points(self) -> tuple[int, int]:
        """Points along x and y, rounded as Prismatic does it, in single precision."""
        multiple = 4 * self.interpolation_factor
        exact = np.array(self.edges_A, np.float32) / np.float32(self.pixel_A) / np.float32(multiple)
        x, y = (max(4, multiple * math.floor(float(number) + 0.5)) for number in exact)
        return x, y

    @property
    def output_points(self) -> tuple[int, int]:
        """Points along x and y of a pattern: the half of the frequencies within the band limit."""
        return self.points[0] // 2, self.points[1] // 2

    def frequencies_per_A(self, axis: int) -> np.ndarray:
        """Return the spatial frequencies of a pattern along x (0) or y (1), ascending, in 1/Å."""
        points = self.output_points[axis]
        return (np.arange(points) - points // 2) / self.edges_A[axis]


@dataclass(frozen=True)
class Execution:
    """How Prismatic is run; the patterns do not depend on it.

    Parameters
    ----------
    python
        Interpreter that has pyprismatic; that of this process if not given.
    scratch_GB
        Largest part of ``$TMPDIR`` to fill; the probes are computed in portions that fit.
    call_limit_h
        Time after which a call of Prismatic is taken to hang, in hours.
    """

    python: str | None = None
    scratch_GB: float | None = None
    call_limit_h: float | None = None
