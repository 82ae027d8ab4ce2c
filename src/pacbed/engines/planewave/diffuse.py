"""Diffuse scattering: smooth in the outgoing direction, and in that of incidence."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy

from pacbed.engines.planewave.waves import ReciprocalGrid
from pacbed.specimen.microscope import Aperture

# Points to fit per knot. With fewer, depending on where they lie, the ends of a fit are determined
# badly or not at all.
FEWEST_POINTS = 2.0
# Weight of curvature against the samples, where these do not determine the splines.
_STIFFNESS = 1e-2
# What a fit leaves of the samples is their noise, unless it follows one too far (its leverage).
# Then it is made stiffer, in the limit hardly more than bilinear.
_LARGEST_LEVERAGE, _STIFFEST = 0.5, 1e4


def crystal_axis_mrad(tilt_mrad: tuple[float, float]) -> tuple[float, float]:
    """Return the beam direction (x, y) in the frame of a crystal that is tilted by `tilt_mrad`."""
    x, y = (-1e3 * math.tan(1e-3 * t) for t in tilt_mrad)
    return x, y


@dataclass(frozen=True)
class SplineAxis:
    """Cubic splines along one reciprocal vector, in units of its length.

    Parameters
    ----------
    limit
        The splines describe points from -limit - 1/2 to limit + 1/2.
    knots
        Knots, the outermost fourfold.
    """

    limit: int
    knots: np.ndarray

    @classmethod
    def over(cls, limit: int, spacing: float) -> SplineAxis:
        """Make splines with about this spacing of their knots."""
        intervals = max(1, int((2 * limit + 1) / max(spacing, FEWEST_POINTS)))
        inner = np.linspace(-limit - 0.5, limit + 0.5, intervals + 1)
        return cls(limit, np.concatenate([[inner[0]] * 3, inner, [inner[-1]] * 3]))

    @property
    def size(self) -> int:
        """Number of splines."""
        return len(self.knots) - 4

    def projection(self, offset: float) -> np.ndarray:
        """Return the matrix that turns values at points into coefficients by least squares.

        Parameters
        ----------
        offset
            The points are the integers from -limit to limit, plus this.

        Returns
        -------
        numpy.ndarray
            Shape (size, 2 limit + 1).
        """
        points = np.arange(-self.limit, self.limit + 1) + offset
        design = scipy.interpolate.BSpline.design_matrix(points, self.knots, 3).toarray()
        return np.asarray(np.linalg.solve(design.T @ design, design.T))


@dataclass(frozen=True)
class IncidentSplines:
    """Cubic splines over incident directions, and how samples become their coefficients.

    Parameters
    ----------
    knots
        Knots along x and y in mrad, the outermost fourfold.
    """

    knots: tuple[np.ndarray, np.ndarray]

    @classmethod
    def over(cls, directions_mrad: np.ndarray, step_mrad: float) -> IncidentSplines:
        """Make splines over the box around some directions, shape (waves, 2)."""
        knots = []
        for values in directions_mrad.T:
            low, high = float(values.min()), float(values.max())
            inner = np.linspace(low, high, max(1, round((high - low) / step_mrad)) + 1)
            knots.append(np.concatenate([[low] * 3, inner, [high] * 3]))
        return cls((knots[0], knots[1]))

    @property
    def size(self) -> int:
        """Number of splines."""
        return math.prod(len(knots) - 4 for knots in self.knots)

    def at(self, directions_mrad: np.ndarray) -> np.ndarray:
        """Return the values of all splines, shape (directions, splines)."""
        along = [
            scipy.interpolate.BSpline.design_matrix(
                np.clip(values, knots[0], knots[-1]), knots, 3
            ).toarray()
            for values, knots in zip(directions_mrad.T, self.knots, strict=True)
        ]
        return np.einsum("ni,nj->nij", *along).reshape(len(directions_mrad), -1)

    def regression(self, directions_mrad: np.ndarray, stiffness: float = _STIFFNESS) -> np.ndarray:
        """Return the matrix from values at directions to coefficients, (splines, directions).

        Least squares with a penalty on curvature.
        """
        basis = self.at(directions_mrad)
        one, other = (np.eye(len(knots) - 4) for knots in self.knots)
        bend, other_bend = (np.diff(unit, 2, axis=0) for unit in (one, other))
        penalty = np.kron(bend.T @ bend, other) + np.kron(one, other_bend.T @ other_bend)
        density = len(basis) / basis.shape[1]
        return np.linalg.solve(basis.T @ basis + stiffness * density * penalty, basis.T)

    def noise_of_samples(self, directions_mrad: np.ndarray) -> np.ndarray:
        """Return the matrix from values at directions to their noise, (directions, directions).

        It is what stiff splines leave of them, as large as independent noise of each. The splines
        of :meth:`regression` would not do: there can be more of them than values, and they leave
        next to nothing.
        """
        basis, stiffness = self.at(directions_mrad), _STIFFNESS
        fit = basis @ self.regression(directions_mrad, stiffness)
        while np.diag(fit).max() > _LARGEST_LEVERAGE and stiffness < _STIFFEST:
            stiffness *= 2
            fit = basis @ self.regression(directions_mrad, stiffness)
        left = np.eye(len(fit)) - fit
        return np.asarray(left / np.linalg.norm(left, axis=1, keepdims=True))

    def weights(self, aperture: Aperture, tilt_mrad: tuple[float, float]) -> np.ndarray:
        """Return the mean of each spline over an aperture, shape (splines,)."""
        step = aperture.outer_mrad / 16
        axis = np.arange(-17, 18) * step
        area = aperture.weights(axis, axis)
        cx, cy = crystal_axis_mrad(tilt_mrad)
        y, x = np.nonzero(area)
        weights = area[y, x] @ self.at(np.column_stack([axis[x] + cx, axis[y] + cy]))
        return np.asarray(weights / area.sum())


@dataclass(frozen=True)
class DiffuseScattering:
    """Smooth intensity between and under the Bragg beams.

    Parameters
    ----------
    coefficients
        Spline coefficients of the intensity per reciprocal-lattice point of the supercell, shape
        (waves, layers, n1, n2), float32. Where `incident` is given, of splines over incident
        directions instead of waves.
    noise
        Half the difference of two halves of the samples, same shape; None where it is not wanted.
    axes
        The splines along the two reciprocal vectors.
    cell_A
        In-plane vectors of the supercell as rows, shape (2, 2), Å.
    wavelength_A
        Wavelength in Å.
    incident
        Splines over incident directions; None for the waves of the beams.
    within_band
        With these, fraction of a wave in the band, coherent and diffuse, shape (layers, splines).
    """

    coefficients: np.ndarray
    noise: np.ndarray | None
    axes: tuple[SplineAxis, SplineAxis]
    cell_A: np.ndarray
    wavelength_A: float
    incident: IncidentSplines | None = None
    within_band: np.ndarray | None = None

    def intensity(
        self, coefficients: np.ndarray, kx_mrad: np.ndarray, ky_mrad: np.ndarray
    ) -> np.ndarray:
        """Evaluate splines on a grid of directions in the frame of the crystal.

        Parameters
        ----------
        coefficients
            Shape (layers, n1, n2).
        kx_mrad, ky_mrad
            Shapes (nx,) and (ny,).

        Returns
        -------
        numpy.ndarray
            Shape (layers, ny, nx), fraction of the incident wave per mrad²; zero beyond the reach
            of the splines.
        """
        scale = 1e3 * self.wavelength_A
        k = np.stack(np.meshgrid(kx_mrad, ky_mrad), axis=-1) / scale @ self.cell_A.T
        inside = np.ones(k.shape[:2], bool)
        for axis, splines in enumerate(self.axes):
            inside &= np.abs(k[..., axis]) <= splines.limit + 0.5
        first, second = self.axes
        spline = scipy.interpolate.NdBSpline(
            (first.knots, second.knots), np.moveaxis(coefficients, 0, -1), 3
        )
        values = np.zeros((*inside.shape, len(coefficients)))
        values[inside] = spline(k[inside])
        solid_angle_mrad2 = scale**2 / abs(np.linalg.det(self.cell_A))
        return np.moveaxis(values, -1, 0) / solid_angle_mrad2


def diffuse_axes(
    grid: ReciprocalGrid,
    widest_A: np.ndarray,
    reach_mrad: tuple[float, float],
    wavelength_A: float,
    step_mrad: float,
) -> tuple[SplineAxis, SplineAxis]:
    """Return splines along the reciprocal vectors of a supercell, as far as patterns reach.

    Parameters
    ----------
    grid
        Reciprocal lattice of the supercell.
    widest_A
        Supercell vectors as rows, shape (2, 2), Å, of the most stretched crystal: less stretched
        ones have the same splines.
    reach_mrad
        Largest angles (x, y) of the pixels, in the frame of the crystal, in mrad.
    wavelength_A
        Wavelength in Å.
    step_mrad
        Spacing of the knots in mrad.
    """
    scale = 1e3 * wavelength_A
    axes = []
    for edge, reciprocal, limit in zip(
        widest_A, np.linalg.inv(widest_A).T, grid.wave_limit, strict=True
    ):
        spacing = step_mrad / (scale * float(np.linalg.norm(reciprocal)))
        needed = float(np.abs(edge) @ np.array(reach_mrad)) / scale
        # Two knots more than needed: the ends of a fit are its weakest part.
        points = math.ceil(needed + 2 * max(FEWEST_POINTS, spacing))
        axes.append(SplineAxis.over(min(points, limit), spacing))
    return axes[0], axes[1]
