"""Numerical settings of the plane-wave engine, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pacbed.engines.planewave.waves import Band
from pacbed.exceptions import RequestError

PRISMATIC_PIXEL_A = 0.15
CONVERGED_CUTOFF_PER_A = 2.5
# An atom and its periodic image move together; their potentials, of this radius, must not meet.
ATOM_RADIUS_A = 3.0


@dataclass(frozen=True)
class PlaneWaveSettings:
    """Numerical settings of the plane-wave engine.

    Parameters
    ----------
    band_limit
        ``prismatic``: potential and band limit as Prismatic 2.0 at the paper's sampling of 0.15 Å.
        ``converged``: exact potential, waves up to 2.5 1/Å. A number: the same with another limit
        in 1/Å.
    slices_per_layer
        Number of equal slices per layer, or ``planes``: one slice on every atomic plane, three per
        layer, with the exact transmission of whole atoms. With ``prismatic`` a number.
    incident_step_mrad
        Spacing of the grid of incident waves in mrad.
    supercell
        Cells along x and y that have thermal displacements of their own. Atoms at rest need but
        one cell.
    precision
        ``single`` or ``double``.
    """

    band_limit: Literal["converged", "prismatic"] | float = "converged"
    slices_per_layer: Literal["planes"] | int = "planes"
    incident_step_mrad: float = 2.0
    supercell: tuple[int, int] = (8, 5)
    precision: Literal["single", "double"] = "single"

    def __post_init__(self) -> None:
        object.__setattr__(self, "supercell", tuple(self.supercell))
        if isinstance(self.band_limit, str):
            if self.band_limit not in ("converged", "prismatic"):
                raise RequestError(
                    "band limit must be 'converged', 'prismatic' or a number in 1/Å, not "
                    f"'{self.band_limit}'"
                )
        elif not 0.5 <= self.band_limit <= 10:
            raise RequestError(
                f"a band limit must lie within 0.5 to 10 1/Å, not {self.band_limit} 1/Å"
            )
        if isinstance(self.slices_per_layer, str):
            if self.slices_per_layer != "planes":
                raise RequestError(
                    f"slices per layer must be a number or 'planes', not '{self.slices_per_layer}'"
                )
            if self.band_limit == "prismatic":
                raise RequestError(
                    "Prismatic's potential is that of equal slices: give their number per layer "
                    "(3 in the paper) with the band limit 'prismatic'"
                )
        elif self.slices_per_layer < 1:
            raise RequestError(f"at least one slice per layer, not {self.slices_per_layer}")
        if not 0.1 <= self.incident_step_mrad <= 10:
            raise RequestError(
                f"the incident step must lie within 0.1 to 10 mrad, not {self.incident_step_mrad}"
            )
        if len(self.supercell) != 2 or min(self.supercell) < 1:
            raise RequestError(
                f"the supercell must be two numbers of cells, 1 or more, not {self.supercell}"
            )
        if self.precision not in ("single", "double"):
            raise RequestError(f"precision must be single or double, not '{self.precision}'")

    @property
    def cutoff_per_A(self) -> float:
        """Largest spatial frequency (per axis, for ``prismatic``) that is propagated, in 1/Å."""
        if self.band_limit == "prismatic":
            return 1 / (4 * PRISMATIC_PIXEL_A)  # half of the Nyquist frequency
        return CONVERGED_CUTOFF_PER_A if self.band_limit == "converged" else float(self.band_limit)

    def band(self, centre_mrad: tuple[float, float], wavelength: float) -> Band:
        """Return the band around a direction in the frame of the crystal (wavelength in Å)."""
        x, y = (c / (1e3 * wavelength) for c in centre_mrad)
        return Band(self.cutoff_per_A, self.band_limit == "prismatic", (x, y))

    @property
    def grid_ratios(self) -> tuple[float, float]:
        """Frequencies of transmission functions, and width of transforms, over the cutoff."""
        if self.band_limit == "prismatic":
            return 2, 4
        return (1.25, 3) if self.slices_per_layer == "planes" else (1.5, 3)


def check_phonons(configurations: int, cell_A: np.ndarray, supercell: tuple[int, int]) -> None:
    """Check that frozen phonons can be computed.

    Parameters
    ----------
    configurations
        Number of configurations of each plane wave.
    cell_A
        In-plane vectors of one cell as rows, shape (2, 2), Å.
    supercell
        Cells along the two vectors.

    Raises
    ------
    RequestError
        If there are too few configurations or cells.
    """
    if configurations < 2:
        raise RequestError(
            "frozen phonons need at least 2 configurations of each plane wave, to tell its Bragg "
            "beams from diffuse scattering; 0 is for atoms at rest"
        )
    edges = cell_A * np.array(supercell)[:, None]
    heights = abs(np.linalg.det(edges)) / np.linalg.norm(edges[::-1], axis=1)
    if heights.min() < 2 * ATOM_RADIUS_A:
        raise RequestError(
            f"a supercell of {supercell[0]} × {supercell[1]} cells is {heights[0]:.1f} Å × "
            f"{heights[1]:.1f} Å, but the potential of an atom has a diameter of "
            f"{2 * ATOM_RADIUS_A:g} Å and would meet that of its own image: choose a larger "
            "supercell (8 × 5 is a good one)"
        )
