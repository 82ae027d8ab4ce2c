"""Numerical settings of the plane-wave engine, and what follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pacbed.engines.planewave.waves import Band
from pacbed.engines.request import Motion
from pacbed.exceptions import RequestError
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import wavelength_A

PRISMATIC_PIXEL_A = 0.15
CONVERGED_CUTOFF_PER_A = 2.5
_LARGEST_CUTOFF_PER_A = 10
# Of the coarsest grid of incident waves; and the share of the fringes of rocking curves, 1/(t g)
# apart at the first HOLZ ring, that splines can follow.
_COARSEST_STEP_mrad, _SHARE_OF_FRINGE = 2.0, 0.5
# The first HOLZ ring, and the field of view deformed by any strain, lie this far within the band.
_MARGIN = 1.1
# An atom and its periodic image move together; their potentials, of this radius, must not meet.
ATOM_RADIUS_A = 3.0
# Length of the edges of a supercell that is large enough, such as 8 × 5 cells of MoS2.
_GOOD_A = 24.0


@dataclass(frozen=True)
class PlaneWaveSettings:
    """Numerical settings of the plane-wave engine.

    Parameters
    ----------
    band_limit
        ``prismatic``: potential and band limit as Prismatic 2.0 at the paper's sampling of 0.15 Å.
        ``converged``: exact potential, waves up to 2.5 1/Å, or further where the field of view (at
        most 10 1/Å) or the first HOLZ ring reaches further. A number: the same with another limit
        in 1/Å.
    slices_per_layer
        Number of equal slices per layer, or ``planes``: one slice on every atomic plane, three per
        layer, with the exact transmission of whole atoms. With ``prismatic`` a number.
    incident_step_mrad
        Spacing of the grid of incident waves in mrad. ``auto``: 2 mrad, or less where rocking
        curves are narrower: beyond 12 nm at 80 kV, 9 nm at 300 kV.
    supercell
        Cells along x and y that have thermal displacements of their own. Mean transmissions and
        static atoms need but one cell.
    precision
        ``single`` or ``double``.
    diffuse_waves
        Incident waves, of each aperture, that sample the diffuse scattering.
    diffuse_knots_mrad
        Spacing of the knots of the cubic splines that describe it, over outgoing and over incident
        directions, in mrad. Kikuchi bands and the like vary over 7 mrad or more (1/(t g) for
        12 nm); splines follow them, and average over what is only speckle of the phonons.
    """

    band_limit: Literal["converged", "prismatic"] | float = "converged"
    slices_per_layer: Literal["planes"] | int = "planes"
    incident_step_mrad: Literal["auto"] | float = "auto"
    supercell: tuple[int, int] = (8, 5)
    precision: Literal["single", "double"] = "single"
    diffuse_waves: int = 48
    diffuse_knots_mrad: tuple[float, float] = (3.3, 8.0)

    def __post_init__(self) -> None:
        for name in ("supercell", "diffuse_knots_mrad"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if isinstance(self.band_limit, str):
            if self.band_limit not in ("converged", "prismatic"):
                raise RequestError(
                    "band limit must be 'converged', 'prismatic' or a number in 1/Å, not "
                    f"'{self.band_limit}'"
                )
        elif not 0.5 <= self.band_limit <= _LARGEST_CUTOFF_PER_A:
            raise RequestError(
                f"a band limit must lie within 0.5 to {_LARGEST_CUTOFF_PER_A} 1/Å, not "
                f"{self.band_limit} 1/Å"
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
        step = self.incident_step_mrad
        if step != "auto" and (isinstance(step, str) or not 0.1 <= step <= 10):
            raise RequestError(
                f"the incident step must be auto or lie within 0.1 to 10 mrad, not {step}"
            )
        if len(self.supercell) != 2 or min(self.supercell) < 1:
            raise RequestError(
                f"the supercell must be two numbers of cells, 1 or more, not {self.supercell}"
            )
        if self.diffuse_waves < 16:
            raise RequestError(
                f"the diffuse scattering needs at least 16 waves, not {self.diffuse_waves}"
            )
        if len(self.diffuse_knots_mrad) != 2 or not all(
            0.5 <= knots <= 50 for knots in self.diffuse_knots_mrad
        ):
            raise RequestError(
                "the knots of diffuse scattering must be two spacings within 0.5 to 50 mrad, not "
                f"{self.diffuse_knots_mrad}"
            )
        if self.precision not in ("single", "double"):
            raise RequestError(f"precision must be single or double, not '{self.precision}'")

    def numbers(
        self,
        energy_keV: float,
        thickness_A: float,
        period_A: float,
        reach_mrad: float,
        stretch: float = 1.0,
    ) -> Numbers:
        """Return the band limit and the incident step in numbers.

        Parameters
        ----------
        energy_keV
            Beam energy in keV.
        thickness_A, period_A
            Thickness of the crystal, and its period along the beam, in Å.
        reach_mrad
            Largest angle of a pixel, along an axis, in the frame of the crystal.
        stretch
            Largest principal stretch: the band shrinks with the reciprocal lattice.
        """
        wavelength = wavelength_A(energy_keV)
        ring = math.sqrt(2 / (wavelength * period_A))
        if self.band_limit == "prismatic":
            cutoff = 1 / (4 * PRISMATIC_PIXEL_A)  # half of the Nyquist frequency
        elif self.band_limit == "converged":
            margin, field = max(_MARGIN, stretch), reach_mrad / (1e3 * wavelength)
            farthest = max(margin * ring, min(margin * field, _LARGEST_CUTOFF_PER_A))
            cutoff = max(CONVERGED_CUTOFF_PER_A, math.ceil(10 * farthest) / 10)
        else:
            cutoff = float(self.band_limit)
        step = self.incident_step_mrad
        if step == "auto":
            step = min(_COARSEST_STEP_mrad, 1e3 * _SHARE_OF_FRINGE / (thickness_A * ring))
        return Numbers(self, wavelength, cutoff, float(step))


@dataclass(frozen=True)
class Numbers:
    """The settings of one calculation, in numbers.

    Parameters
    ----------
    settings
        As they were given.
    wavelength_A
        Wavelength in Å.
    cutoff_per_A
        Largest spatial frequency (per axis, for ``prismatic``) that is propagated, in 1/Å.
    incident_step_mrad
        Spacing of the grid of incident waves in mrad.
    """

    settings: PlaneWaveSettings
    wavelength_A: float
    cutoff_per_A: float
    incident_step_mrad: float

    def band(
        self, centre_mrad: tuple[float, float], deformation: Deformation | None = None
    ) -> Band:
        """Return the band around a direction in the frame of the crystal.

        It deforms with the reciprocal lattice, but for Prismatic's.
        """
        x, y = (c / (1e3 * self.wavelength_A) for c in centre_mrad)
        if self.settings.band_limit == "prismatic":
            return Band(self.cutoff_per_A, True, (x, y))
        return Band(
            self.cutoff_per_A, False, (x, y), None if deformation is None else deformation.gradient
        )

    def grid_ratios(self, exact: bool) -> tuple[float, float]:
        """Return frequencies of transmissions, and width of transforms, over the cutoff.

        Parameters
        ----------
        exact
            Whether no wave may leave the band and come back: then nothing makes electrons.
        """
        if exact or self.settings.band_limit == "prismatic":
            return 2, 4
        return (1.25, 3) if self.settings.slices_per_layer == "planes" else (1.5, 3)


def check_motion(motion: Motion, settings: PlaneWaveSettings, cell_A: np.ndarray) -> None:
    """Check that thermal motion can be computed.

    Parameters
    ----------
    motion
        As of :class:`~pacbed.engines.request.ThermalMotion`.
    settings
        Slices and supercell.
    cell_A
        In-plane vectors of one cell as rows, shape (2, 2), Å.

    Raises
    ------
    RequestError
        If atoms are shared by slices and their mean transmission is asked for, or there are too few
        configurations or cells.
    """
    if motion in ("full", "coherent") and settings.slices_per_layer != "planes":
        raise RequestError(
            f"thermal motion '{motion}' needs whole atoms on their planes (slices_per_layer: "
            "planes): equal slices share atoms, whose mean transmission is not the product of "
            "means. Give a number of frozen-phonon configurations (thermal_motion: 10; --phonons "
            "10), or static atoms (thermal_motion: none; --phonons 0 --no-debye-waller)"
        )
    if motion == 1:
        raise RequestError(
            "frozen phonons need at least 2 configurations of each plane wave, to tell its Bragg "
            "beams from diffuse scattering"
        )
    if motion in ("coherent", "none"):
        return
    supercell = settings.supercell
    edges = cell_A * np.array(supercell)[:, None]
    heights = abs(np.linalg.det(edges)) / np.linalg.norm(edges[::-1], axis=1)
    if heights.min() < 2 * ATOM_RADIUS_A:
        along, across = np.ceil(_GOOD_A / np.linalg.norm(cell_A, axis=1)).astype(int)
        raise RequestError(
            f"a supercell of {supercell[0]} × {supercell[1]} cells is {heights[0]:.1f} Å × "
            f"{heights[1]:.1f} Å, but the potential of an atom has a diameter of "
            f"{2 * ATOM_RADIUS_A:g} Å and would meet that of its own image: choose a larger "
            f"supercell ({along} × {across} is a good one)"
        )
