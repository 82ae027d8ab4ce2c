"""Which waves are propagated: the reciprocal lattice of a cell, and the directions of incidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy


@dataclass(frozen=True)
class Band:
    """Spatial frequencies that are propagated.

    Parameters
    ----------
    cutoff_per_A
        Largest frequency in 1/Å.
    square
        Whether the limit holds for each axis, as in Prismatic, instead of for the length.
    centre_per_A
        Centre of the band (x, y) in the frame of the crystal, in 1/Å.
    gradient
        Deformation gradient F, shape (2, 2): the limit holds for Fᵀk, the frequency before the
        deformation, so that the same beams are propagated at any strain. None for no deformation.
    """

    cutoff_per_A: float
    square: bool = False
    centre_per_A: tuple[float, float] = (0.0, 0.0)
    gradient: np.ndarray | None = None

    def contains(self, kx: np.ndarray, ky: np.ndarray) -> np.ndarray:
        """Tell which spatial frequencies (1/Å, frame of the crystal) are propagated."""
        x, y = kx - self.centre_per_A[0], ky - self.centre_per_A[1]
        if self.gradient is not None:
            (xx, xy), (yx, yy) = self.gradient
            x, y = xx * x + yx * y, xy * x + yy * y
        if self.square:
            return np.maximum(np.abs(x), np.abs(y)) <= self.cutoff_per_A
        return np.asarray(x**2 + y**2 <= self.cutoff_per_A**2)

    @property
    def smallest_per_A(self) -> float:
        """Largest frequency that is propagated in every direction, from the centre, in 1/Å."""
        stretch = 1.0 if self.gradient is None else float(np.linalg.norm(self.gradient, 2))
        return self.cutoff_per_A / stretch

    def extent(self, edge_A: np.ndarray) -> float:
        """Largest product of a frequency of the band, from its centre, with a vector in Å."""
        if self.gradient is not None:
            edge_A = np.linalg.solve(self.gradient, edge_A)
        return self.cutoff_per_A * float(
            np.abs(edge_A).sum() if self.square else np.linalg.norm(edge_A)
        )


@dataclass(frozen=True)
class ReciprocalGrid:
    """Reciprocal-lattice points of an in-plane cell that take part in a calculation.

    Indices (h, k) count multiples of the reciprocal vectors. Waves are held from -n to n;
    transmission functions in the order of a Fourier transform, 0 ... n, -n ... -1.

    Parameters
    ----------
    cell_A
        In-plane cell vectors as rows, shape (2, 2), Å.
    wave_limit
        Largest index of a wave along each reciprocal vector.
    transmission_limit
        Largest index of a transmission function.
    fft_shape
        Points of the Fourier transform.
    """

    cell_A: np.ndarray
    wave_limit: tuple[int, int]
    transmission_limit: tuple[int, int]
    fft_shape: tuple[int, int]

    @classmethod
    def for_band(
        cls,
        cell_A: np.ndarray,
        band: Band,
        transmission_ratio: float,
        fft_ratio: float,
        cells: tuple[int, int] = (1, 1),
    ) -> ReciprocalGrid:
        """Choose a grid.

        Parameters
        ----------
        cell_A
            In-plane cell vectors as rows, shape (2, 2), Å.
        band
            Spatial frequencies that are propagated.
        transmission_ratio
            Largest frequency of the transmission functions, in units of the cutoff.
        fft_ratio
            Width of the Fourier transform in the same unit. With ``2 + transmission_ratio``
            products of wave and transmission function fold nothing back into the band; a little
            less folds back only what is scattered from one end of the band beyond the other.
        cells
            Unit cells along the two vectors: the transform has as many points in each.
        """
        # Waves start from a lattice point and up to half a step beside it.
        centre = np.abs(cell_A @ np.array(band.centre_per_A))
        extents = [band.extent(edge) for edge in cell_A]
        wave = [math.floor(e + c + 0.5) for e, c in zip(extents, centre, strict=True)]
        shape = [
            n * scipy.fft.next_fast_len(math.ceil(max(fft_ratio * e, 2 * w + 2) / n), real=True)
            for e, w, n in zip(extents, wave, cells, strict=True)
        ]
        transmission = [
            min(math.floor(transmission_ratio * e), n // 2 - 1)
            for e, n in zip(extents, shape, strict=True)
        ]
        return cls(
            cell_A, (wave[0], wave[1]), (transmission[0], transmission[1]), (shape[0], shape[1])
        )

    @property
    def area_A2(self) -> float:
        """Area of the cell in Å²."""
        return float(abs(np.linalg.det(self.cell_A)))

    @property
    def reciprocal_per_A(self) -> np.ndarray:
        """Reciprocal vectors as rows, shape (2, 2), 1/Å."""
        return np.asarray(np.linalg.inv(self.cell_A).T)

    @property
    def wave_shape(self) -> tuple[int, int]:
        """Shape of an array of the amplitudes of a wave."""
        return 2 * self.wave_limit[0] + 1, 2 * self.wave_limit[1] + 1

    def wave_points_per_A(self) -> tuple[np.ndarray, np.ndarray]:
        """Cartesian components (gx, gy) in 1/Å of the points of a wave, shapes `wave_shape`."""
        return self._points(*(np.arange(-n, n + 1) for n in self.wave_limit))

    def transmission_points_per_A(self) -> tuple[np.ndarray, np.ndarray]:
        """Components (gx, gy) in 1/Å of the points of a transmission function.

        Half of them, for those of real quantities determine the others: all h, and k ≥ 0.
        """
        v1, v2 = self.transmission_limit
        h = np.concatenate([np.arange(v1 + 1), np.arange(-v1, 0)])
        return self._points(h, np.arange(v2 + 1))

    def _points(self, h: np.ndarray, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        reciprocal = self.reciprocal_per_A
        gx, gy = (h[:, None] * reciprocal[0, i] + k * reciprocal[1, i] for i in range(2))
        return gx, gy


@dataclass(frozen=True)
class Cone:
    """A cone of incident directions, in the frame of the crystal.

    Parameters
    ----------
    radius_mrad
        Half opening angle in mrad.
    centre_mrad
        Direction of the axis (x, y) in mrad.
    """

    radius_mrad: float
    centre_mrad: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class IncidentGrid:
    """Incident plane waves on a square grid, in the frame of the crystal.

    The grid is anchored at the axis of the crystal: the same direction is the same wave, with the
    same thermal displacements, whatever the cones.

    Parameters
    ----------
    x_mrad, y_mrad
        Grid coordinates in mrad, ascending and evenly spaced, shapes (nx,) and (ny,).
    covered
        Which points of the grid are propagated, shape (ny, nx).
    """

    x_mrad: np.ndarray
    y_mrad: np.ndarray
    covered: np.ndarray

    @classmethod
    def over(cls, cones: Sequence[Cone], step_mrad: float) -> IncidentGrid:
        """Cover cones, with a margin that keeps interpolation inside the computed waves."""
        # Splines carry the bend at the rim of what is known two points inwards.
        margin = 2.4 * step_mrad
        axes = []
        for axis in range(2):
            low = min(c.centre_mrad[axis] - c.radius_mrad for c in cones) - margin
            high = max(c.centre_mrad[axis] + c.radius_mrad for c in cones) + margin
            first, last = math.floor(low / step_mrad), math.ceil(high / step_mrad)
            # A cubic spline needs four points.
            axes.append(np.arange(first, max(last, first + 3) + 1) * step_mrad)
        x, y = axes
        covered = np.zeros((len(y), len(x)), bool)
        for cone in cones:
            cx, cy = cone.centre_mrad
            covered |= np.hypot(x[None, :] - cx, y[:, None] - cy) <= cone.radius_mrad + margin
        return cls(x, y, covered)

    def all_covered(self) -> IncidentGrid:
        """Return the same grid with all of its waves, where they cost next to nothing."""
        return replace(self, covered=np.ones_like(self.covered))

    def covers(self, cone: Cone) -> bool:
        """Tell whether the waves surround a cone."""
        angles = np.linspace(0, 2 * math.pi, 64)
        rim = cone.radius_mrad * np.column_stack([np.cos(angles), np.sin(angles)])
        points = np.vstack([rim, [0.0, 0.0]]) + cone.centre_mrad
        step = self.x_mrad[1] - self.x_mrad[0]
        column, row = np.rint((points - [self.x_mrad[0], self.y_mrad[0]]) / step).astype(int).T
        rows, columns = self.covered.shape
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        return bool(inside.all() and self.covered[row, column].all())

    @property
    def directions_mrad(self) -> np.ndarray:
        """Directions (x, y) of the propagated waves, shape (waves, 2)."""
        rows, columns = np.nonzero(self.covered)
        return np.column_stack([self.x_mrad[columns], self.y_mrad[rows]])

    def nearest(self) -> np.ndarray:
        """Return the number of the wave nearest to each point of the grid, shape (ny, nx)."""
        rows, columns = scipy.ndimage.distance_transform_edt(
            ~self.covered, return_distances=False, return_indices=True
        )
        number = np.zeros(self.covered.shape, int)
        number[self.covered] = np.arange(np.count_nonzero(self.covered))
        return np.asarray(number[rows, columns])
