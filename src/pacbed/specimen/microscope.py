"""The electron beam, the aperture that forms the probe, and the detector."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import constants
from scipy.special import erf

from pacbed.exceptions import RequestError

# Where the engines were tested. Slower electrons are scattered back too, which is left out.
ENERGIES_keV = (30, 300)
ELECTRON_REST_keV = constants.value("electron mass energy equivalent in MeV") * 1e3

# A disc of so many pixels' radius has an edge that is nearly straight in each of them.
_WIDE = 5


def wavelength_A(energy_keV: float) -> float:
    """Return the relativistic electron wavelength in Å (80 keV: 0.0417572 Å)."""
    hc_keV_A = constants.h * constants.c / constants.e * 1e-3 * 1e10
    return hc_keV_A / math.sqrt(energy_keV * (2 * ELECTRON_REST_keV + energy_keV))


def lorentz_factor(energy_keV: float) -> float:
    """Return γ = m/m₀ of an electron of this kinetic energy."""
    return 1 + energy_keV / ELECTRON_REST_keV


@dataclass(frozen=True)
class Aperture:
    """Probe-forming aperture.

    Parameters
    ----------
    semiangle_mrad
        Convergence semi-angle α in mrad.
    edge_mrad
        Width of a soft edge in mrad; 0 is a hard edge, anti-aliased over the area of a pixel.
    profile
        Amplitude across a soft edge at radius r: ``erf`` is 0.5 + 0.5 erf((α - r)/(0.5 edge)),
        ``linear`` falls from 1 to 0 over one edge width, as Prismatic 2.0 does over a pixel.

    Raises
    ------
    RequestError
        If the semi-angle is not positive or the edge is negative.

    Examples
    --------
    The probe before the specimen, on the pixels of a camera.

    >>> camera = Detector(field_of_view_mrad=(100, 100), pixels=(64, 64))
    >>> probe = Aperture(6.35).weights(camera.kx_mrad, camera.ky_mrad)
    >>> probe.shape, round(float(probe.sum()), 2)
    ((64, 64), 1.0)
    """

    semiangle_mrad: float
    edge_mrad: float = 0.0
    profile: Literal["erf", "linear"] = "erf"

    def __post_init__(self) -> None:
        if not 0 < self.semiangle_mrad < math.inf:
            raise RequestError(f"semi-angle must be positive, not {self.semiangle_mrad} mrad")
        if not 0 <= self.edge_mrad < math.inf:
            raise RequestError(f"aperture edge must be 0 or more, not {self.edge_mrad} mrad")

    @property
    def outer_mrad(self) -> float:
        """Radius beyond which the aperture is dark, in mrad."""
        return self.semiangle_mrad + 2 * self.edge_mrad

    def transmission(self, radius_mrad: np.ndarray) -> np.ndarray:
        """Return the transmitted intensity (amplitude squared) at angles from the axis."""
        if self.edge_mrad == 0:
            return (radius_mrad <= self.semiangle_mrad).astype(float)
        distance = (self.semiangle_mrad - radius_mrad) / self.edge_mrad
        if self.profile == "erf":
            return (0.5 + 0.5 * erf(2 * distance)) ** 2
        return np.clip(0.5 + distance, 0, 1) ** 2

    def solid_angle_mrad2(self) -> float:
        """Return the integral of the transmitted intensity over the aperture plane, in mrad²."""
        if self.edge_mrad == 0:
            return math.pi * self.semiangle_mrad**2
        # Midpoint rule: the smooth profile makes it exact to well below single precision.
        step = self.outer_mrad / 20000
        radius = (np.arange(20000) + 0.5) * step
        return float(2 * math.pi * np.sum(radius * self.transmission(radius)) * step)

    def weights(self, x_mrad: np.ndarray, y_mrad: np.ndarray) -> np.ndarray:
        """Return the share of the incident intensity that falls on each pixel of a grid.

        Parameters
        ----------
        x_mrad, y_mrad
            Ascending, evenly spaced pixel centres in mrad, shapes (nx,) and (ny,).

        Returns
        -------
        numpy.ndarray
            Shape (ny, nx); sums to one if the aperture lies inside the grid. A soft edge at least
            half a pixel wide is sampled at the pixel centres, a sharper one is averaged over the
            area of each pixel.
        """
        dx, dy = x_mrad[1] - x_mrad[0], y_mrad[1] - y_mrad[0]
        radius = np.hypot(x_mrad[None, :], y_mrad[:, None])
        value = self.transmission(radius)
        if self.edge_mrad == 0 and self.semiangle_mrad > _WIDE * max(dx, dy):
            x, y = np.broadcast_arrays(x_mrad[None, :], y_mrad[:, None])
            value, _ = disc_share(x, y, radius, self.semiangle_mrad, np.diag([dx, dy]))
        elif self.edge_mrad < 0.5 * max(dx, dy):
            reach = 0.5 * math.hypot(dx, dy) + 2 * self.edge_mrad
            rows, columns = np.nonzero(np.abs(radius - self.semiangle_mrad) <= reach)
            n = 16
            offset = (np.arange(n) + 0.5) / n - 0.5
            fine = np.hypot(
                x_mrad[columns, None, None] + dx * offset[None, None, :],
                y_mrad[rows, None, None] + dy * offset[None, :, None],
            )
            value[rows, columns] = self.transmission(fine).mean(axis=(1, 2))
        return value * (dx * dy / self.solid_angle_mrad2())


def disc_share(
    x: np.ndarray, y: np.ndarray, radius: np.ndarray, edge: float, pixel: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of pixels within a disc that is much wider than they are.

    Where a pixel is cut, the arc is taken for a straight line: its share is that of a half-plane.

    Parameters
    ----------
    x, y
        Centres of the pixels from that of the disc, any shape.
    radius
        Their distances from it.
    edge
        Radius of the disc.
    pixel
        Vectors (x, y) along the two sides of a pixel, as columns, shape (2, 2).

    Returns
    -------
    tuple of arrays
        The share, and its derivative by the distance, of the shape of `x`.
    """
    share, slope = np.where(radius < edge, 1.0, 0.0), np.zeros(radius.shape)
    cut = np.abs(radius - edge) < 0.5 * np.abs(pixel).sum()
    radius = np.maximum(radius[cut], 1e-9 * edge)
    # How far the sides reach across the edge.
    across = [np.abs(side[0] * x[cut] + side[1] * y[cut]) / radius for side in pixel.T]
    a = np.maximum(*across)
    b = np.maximum(np.minimum(*across), 1e-6 * a)
    # An arc bends away from its tangent, on average over the width of the pixel.
    depth = edge - radius - abs(np.linalg.det(pixel)) / (24 * edge)
    beside = np.abs(depth)
    corner = np.clip((a + b) / 2 - beside, 0, b)
    at_corner = beside > (a - b) / 2
    outside = np.where(at_corner, corner**2 / (2 * a * b), 0.5 - beside / a)
    share[cut] = np.where(depth > 0, 1 - outside, outside)
    slope[cut] = -np.where(at_corner, corner / (a * b), 1 / a)
    return share, slope


@dataclass(frozen=True)
class Detector:
    """A rectangular grid of pixels in the diffraction plane.

    Parameters
    ----------
    field_of_view_mrad
        Full width (x, y) of the field in mrad; a pixel is field / pixels wide.
    pixels
        Number of pixels (nx, ny). Zero angle lies on the centre of pixel ``n // 2``.

    Raises
    ------
    RequestError
        If there are fewer than two pixels per axis or the field is not positive.

    Examples
    --------
    >>> camera = Detector(field_of_view_mrad=(100, 80), pixels=(5, 4))
    >>> camera.kx_mrad
    array([-40., -20.,   0.,  20.,  40.])
    >>> camera.reach_mrad
    20.0
    """

    field_of_view_mrad: tuple[float, float]
    pixels: tuple[int, int]

    def __post_init__(self) -> None:
        if min(self.pixels) < 2:
            raise RequestError(f"the detector needs at least 2 × 2 pixels, not {self.pixels}")
        if not all(0 < f < math.inf for f in self.field_of_view_mrad):
            raise RequestError(
                f"field of view must be positive, not {self.field_of_view_mrad} mrad"
            )

    @property
    def kx_mrad(self) -> np.ndarray:
        """Pixel centres along x in mrad, ascending, shape (nx,)."""
        return self._axis(0)

    @property
    def ky_mrad(self) -> np.ndarray:
        """Pixel centres along y in mrad, ascending, shape (ny,)."""
        return self._axis(1)

    @property
    def reach_mrad(self) -> float:
        """Smallest angle from the axis to an edge of the field, in mrad."""
        kx, ky = self.kx_mrad, self.ky_mrad
        return float(min(-kx[0], kx[-1], -ky[0], ky[-1]))

    @property
    def pixel_mrad2(self) -> float:
        """Area of a pixel in mrad²."""
        return math.prod(f / n for f, n in zip(self.field_of_view_mrad, self.pixels, strict=True))

    def _axis(self, axis: int) -> np.ndarray:
        n, field = self.pixels[axis], self.field_of_view_mrad[axis]
        return (np.arange(n) - n // 2) * (field / n)
