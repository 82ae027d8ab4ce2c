"""Images on the pixels of a camera, straight from what the crystal does to every wave.

An image is the integral of the pattern over the pixels of the camera, however these are turned,
scaled and shifted. Within a disc the intensity is smooth, at its edge a pixel is cut by an arc, so
short that it is nearly a straight line: its share within the disc is that of a half-plane.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import NdBSpline
from scipy.ndimage import map_coordinates, spline_filter1d

from pacbed.engines.planewave.diffuse import DiffuseScattering, crystal_axis_mrad
from pacbed.engines.planewave.waves import IncidentGrid
from pacbed.specimen.microscope import Aperture, disc_share

# Waves that splines over incident directions need beyond a cone, to be free of their ends.
MARGIN = 4
# Points of the incident grid that are extrapolated where the waves end.
GHOSTS = 4
# A point spread narrower than this is none.
NARROWEST_PX = 0.05
# Standard deviation of the halo of a camera.
_HALO_mrad = 25.0
# A soft edge is the mean of so many hard ones.
_EDGE_DISCS = 16
# Diffuse scattering is evaluated on a grid with this spacing, and from there interpolated.
_DIFFUSE_STEP_mrad = 1.5


def pixel_matrix(
    pixel_mrad: float, rotation_deg: float, ellipticity: tuple[float, float]
) -> np.ndarray:
    """Return angles in the pattern (x, y) in mrad per step (x, y) of a pixel, shape (2, 2)."""
    angle, (e, d) = math.radians(rotation_deg), ellipticity
    c, s = math.cos(angle), math.sin(angle)
    turned = pixel_mrad * np.array([[c, s], [-s, c]])
    return np.asarray(turned @ np.array([[1 + e, d], [d, 1 - e]]))


def halo(axes_px: Sequence[np.ndarray], pixel_mrad: float) -> np.ndarray:
    """Return the halo of a camera, a broad Gaussian whose sum is one, shape (y, x).

    Parameters
    ----------
    axes_px
        Distances from zero angle, along x and along y, in pixels.
    pixel_mrad
        Width of a pixel in mrad.
    """
    x, y = axes_px
    square = x**2 + y[:, None] ** 2
    image = np.exp(-square / 2 * (pixel_mrad / _HALO_mrad) ** 2)
    return np.asarray(image / image.sum())


@dataclass(frozen=True)
class Camera:
    """Square pixels, and how the pattern lies on them.

    Parameters
    ----------
    pixels
        Pixels per axis.
    field_of_view_mrad
        Full width of the image in mrad.
    rotation_deg
        Rotation γ of the pattern, counter-clockwise, in degrees.
    shift_px
        Shift of the pattern along x and y in pixels; without it, zero angle lies on the centre of
        pixel ``pixels // 2``.
    ellipticity
        Along the axes and along the diagonals: an ellipticity of 0.01 means angles 1 % larger along
        x, and 1 % smaller along y, than the field of view says.
    """

    pixels: int
    field_of_view_mrad: float
    rotation_deg: float = 0.0
    shift_px: tuple[float, float] = (0.0, 0.0)
    ellipticity: tuple[float, float] = (0.0, 0.0)

    @property
    def pixel_mrad(self) -> float:
        """Width of a pixel in mrad, as the field of view says."""
        return self.field_of_view_mrad / self.pixels

    @property
    def pixel_area_mrad2(self) -> float:
        """Solid angle of a pixel in mrad²."""
        e, d = self.ellipticity
        return self.pixel_mrad**2 * (1 - e**2 - d**2)

    @property
    def matrix(self) -> np.ndarray:
        """Angles in the pattern (x, y) in mrad per step (x, y) of a pixel, shape (2, 2)."""
        return pixel_matrix(self.pixel_mrad, self.rotation_deg, self.ellipticity)

    @property
    def origin(self) -> np.ndarray:
        """Position (x, y) of zero angle, in pixels."""
        return self.pixels // 2 + np.array(self.shift_px)

    def directions_mrad(
        self, rows: slice = slice(None), columns: slice = slice(None)
    ) -> np.ndarray:
        """Return the angles (x, y) in the pattern of pixels in mrad, shape (2, rows, columns)."""
        axis = np.arange(self.pixels)
        x, y = axis[columns] - self.origin[0], axis[rows, None] - self.origin[1]
        return np.stack([along[0] * x + along[1] * y for along in self.matrix])


@dataclass(frozen=True)
class Image:
    """An image and its derivatives.

    Parameters
    ----------
    expected
        Fraction of the incident electrons in each pixel, shape (ny, nx).
    by_strain
        Derivatives by the strain components (xx, yy, xy), shape (3, ny, nx).
    by_tilt
        Derivatives by the tilts φx and φy per mrad, shape (2, ny, nx).
    by_rotation
        Derivative by the rotation per degree, shape (ny, nx).
    by_shift
        Derivatives by the shifts along x and y per pixel, shape (2, ny, nx).
    by_field
        Derivative by the logarithm of the field of view, shape (ny, nx).
    """

    expected: np.ndarray
    by_strain: np.ndarray
    by_tilt: np.ndarray
    by_rotation: np.ndarray
    by_shift: np.ndarray
    by_field: np.ndarray


@dataclass(frozen=True)
class Beams:
    """Bragg beams over incident directions as cubic B-splines, after one number of layers.

    Parameters
    ----------
    coefficients
        Of the intensity, and of its derivatives by strain if wanted, shape (1 or 4, beams, y, x).
    corner_mrad, step_mrad
        Direction (x, y) of the first coefficient, and spacing of the grid, in mrad.
    g_mrad
        Diffraction angles (x, y) of the beams in mrad, shape (beams, 2).
    by_strain
        Their derivatives by strain, shape (3, beams, 2); None if not wanted.
    """

    coefficients: np.ndarray
    corner_mrad: np.ndarray
    step_mrad: float
    g_mrad: np.ndarray
    by_strain: np.ndarray | None = None

    @classmethod
    def around(
        cls,
        incident: IncidentGrid,
        intensities: np.ndarray,
        g_mrad: np.ndarray,
        aperture: Aperture,
        tilt_mrad: tuple[float, float],
        by_strain: np.ndarray | None = None,
    ) -> Beams:
        """Interpolate the waves of one aperture.

        Parameters
        ----------
        incident
            The waves, on a whole grid.
        intensities
            Shape (1 or 4, y, x, beams): the beams of all waves, and their derivatives by strain.
        g_mrad, by_strain
            As of the class.
        aperture, tilt_mrad
            Together the cone of incidence.
        """
        step = float(incident.x_mrad[1] - incident.x_mrad[0])
        reach, parts = aperture.outer_mrad + MARGIN * step, []
        for axis, centre in zip(
            (incident.x_mrad, incident.y_mrad), crystal_axis_mrad(tilt_mrad), strict=True
        ):
            first, last = np.searchsorted(axis, [centre - reach, centre + reach])
            parts.append(slice(max(0, int(first) - 1), int(last) + 1))
        x, y = parts
        found = np.moveaxis(intensities[:, y, x], -1, 1).astype(np.float32)
        for along in (2, 3):
            found = spline_filter1d(extended(found, along), 3, along, np.float32)
        corner = np.array([incident.x_mrad[x][0], incident.y_mrad[y][0]]) - GHOSTS * step
        return cls(found, corner, step, g_mrad, by_strain)

    def blurred(self, width_mrad: float) -> Beams:
        """Return the means over squares of some width, instead of values at points."""
        c, strength = self.coefficients, (width_mrad / self.step_mrad) ** 2 / 24
        mean = c.copy()
        mean[:, :, 1:-1] += strength * (c[:, :, 2:] - 2 * c[:, :, 1:-1] + c[:, :, :-2])
        mean[..., 1:-1] += strength * (c[..., 2:] - 2 * c[..., 1:-1] + c[..., :-2])
        return Beams(mean, self.corner_mrad, self.step_mrad, self.g_mrad, self.by_strain)


def extended(values: np.ndarray, axis: int) -> np.ndarray:
    """Continue values by cubic polynomials beyond both ends of an axis."""
    values = np.moveaxis(values, axis, 0)
    for _ in range(GHOSTS):
        before = 4 * values[0] - 6 * values[1] + 4 * values[2] - values[3]
        after = 4 * values[-1] - 6 * values[-2] + 4 * values[-3] - values[-4]
        values = np.concatenate([before[None], values, after[None]])
    return np.moveaxis(values, 0, axis)


class Channels:
    """An image under construction, and its derivatives by what moves and fills its discs."""

    def __init__(self, pixels: int, derivatives: bool) -> None:
        shape, self.derivatives = (pixels, pixels), derivatives
        self.value = np.zeros(shape)
        if derivatives:
            # By the angle of a pixel, by the direction of incidence, by strain.
            self.by_angle, self.by_incidence = np.zeros((2, *shape)), np.zeros((2, *shape))
            self.by_strain = np.zeros((3, *shape))


def add_discs(
    channels: Channels,
    beams: Beams,
    aperture: Aperture,
    tilt_mrad: tuple[float, float],
    camera: Camera,
) -> None:
    """Add the discs of all beams to an image, fractions per mrad²."""
    axis = np.array(crystal_axis_mrad(tilt_mrad))
    edge, density = _Edge.of(aperture, camera), 1 / aperture.solid_angle_mrad2()
    inverse = np.linalg.inv(camera.matrix)
    reach = edge.reach_mrad / (camera.pixel_mrad * (1 - math.hypot(*camera.ellipticity)))
    beams = beams.blurred(camera.pixel_mrad)
    for beam, g in enumerate(beams.g_mrad):
        centre = camera.origin + inverse @ g
        first = np.maximum(np.ceil(centre - reach), 0).astype(int)
        last = np.minimum(np.floor(centre + reach) + 1, camera.pixels).astype(int)
        if (last <= first).any():
            continue
        box = slice(first[1], last[1]), slice(first[0], last[0])
        x, y = (angle - g[i] for i, angle in enumerate(camera.directions_mrad(*box)))
        radius = np.sqrt(x**2 + y**2)
        near = radius < edge.reach_mrad
        if not near.any():
            continue
        x, y, radius = x[near], y[near], radius[near]
        share, slope = (one * density for one in edge.share(x, y, radius))
        place = (np.stack([x, y]) + (axis - beams.corner_mrad)[:, None]) / beams.step_mrad
        if not channels.derivatives:
            value = map_coordinates(
                beams.coefficients[0, beam], place[::-1], order=3, mode="nearest", prefilter=False
            )
            channels.value[box][near] += share * value
            continue
        value, by_x, by_y = _splines(beams.coefficients[:, beam], place)
        filling = share * np.stack([by_x[0], by_y[0]]) / beams.step_mrad
        moving = filling + value[0] * slope / np.maximum(radius, 1e-9) * np.stack([x, y])
        assert beams.by_strain is not None
        channels.value[box][near] += share * value[0]
        for i in range(2):
            channels.by_angle[i][box][near] += moving[i]
            channels.by_incidence[i][box][near] += filling[i]
        for i in range(3):
            channels.by_strain[i][box][near] += (
                share * value[1 + i] - beams.by_strain[i, beam] @ moving
            )


def _splines(
    coefficients: np.ndarray, place: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Evaluate cubic B-splines and their derivatives along x and y.

    Parameters
    ----------
    coefficients
        Shape (channels, y, x).
    place
        Positions (x, y) in steps of the grid, shape (2, points).

    Returns
    -------
    tuple of arrays
        Shape (channels, points) each.
    """
    knots = tuple(np.arange(-2.0, count + 2) for count in coefficients.shape[1:])
    spline = NdBSpline(knots, np.moveaxis(coefficients.astype(float), 0, -1), 3)
    value, by_x, by_y = (spline(place[::-1].T, nu=order).T for order in ((0, 0), (0, 1), (1, 0)))
    return value, by_x, by_y


def disc_radii_mrad(aperture: Aperture) -> np.ndarray:
    """Return the radius of an aperture, or radii of discs whose mean one with a soft edge is."""
    if not aperture.edge_mrad:
        return np.array([aperture.semiangle_mrad])
    inner = max(0.0, aperture.semiangle_mrad - 2 * aperture.edge_mrad)
    fine = np.linspace(inner, aperture.outer_mrad, 2000)
    levels = (np.arange(_EDGE_DISCS) + 0.5) / _EDGE_DISCS
    return np.interp(levels, 1 - aperture.transmission(fine), fine)


@dataclass(frozen=True)
class _Edge:
    """How much of a pixel lies within a disc: of an aperture of unit intensity.

    Parameters
    ----------
    radii_mrad
        Radii of discs with hard edges; of a soft edge, some whose mean it is.
    pixel
        Vectors along the sides of a pixel in mrad, as columns, shape (2, 2).
    """

    radii_mrad: np.ndarray
    pixel: np.ndarray

    @classmethod
    def of(cls, aperture: Aperture, camera: Camera) -> _Edge:
        return cls(disc_radii_mrad(aperture), camera.matrix)

    @property
    def reach_mrad(self) -> float:
        """Distance from the centre beyond which no pixel is lit, in mrad."""
        return float(self.radii_mrad.max() + np.abs(self.pixel).sum() / 2)

    def share(
        self, x: np.ndarray, y: np.ndarray, radius: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the share of pixels within the disc, and its derivative by the radius.

        Parameters
        ----------
        x, y
            Positions from the centre in mrad, shape (pixels,) each.
        radius
            Their distances from it.
        """
        found = [disc_share(x, y, radius, float(edge), self.pixel) for edge in self.radii_mrad]
        share, slope = (np.mean(each, axis=0) for each in zip(*found, strict=True))
        return share, slope


def background(
    diffuse: DiffuseScattering,
    axis_mrad: np.ndarray,
    camera: Camera,
) -> tuple[np.ndarray, np.ndarray]:
    """Return diffuse scattering at the pixels of a camera, and its gradient.

    Parameters
    ----------
    diffuse
        Its coefficients are those of each channel, averaged over the aperture, shape
        (channels, n1, n2).
    axis_mrad
        Direction (x, y) of the beam in the frame of the crystal in mrad.
    camera
        The pixels.

    Returns
    -------
    values
        Fraction per mrad², shape (channels, ny, nx).
    gradient
        Of the first channel by the angle (x, y) in mrad, shape (2, ny, nx).
    """
    angles = camera.directions_mrad()
    axes, places = [], []
    for i in range(2):
        low, high = angles[i].min(), angles[i].max()
        count = max(4, math.ceil((high - low) / _DIFFUSE_STEP_mrad) + 1)
        axes.append(np.linspace(low, high, count))
        places.append((angles[i] - low) / (axes[i][1] - axes[i][0]))
    steps = [axis[1] - axis[0] for axis in axes]
    coarse = diffuse.intensity(diffuse.coefficients, axes[0] + axis_mrad[0], axes[1] + axis_mrad[1])
    slopes = np.gradient(coarse[0], steps[1], steps[0])
    found = [
        map_coordinates(one, places[::-1], order=3, mode="nearest")
        for one in (*coarse, slopes[1], slopes[0])
    ]
    return np.stack(found[:-2]), np.stack(found[-2:])


def compose(channels: Channels, camera: Camera, tilt_mrad: tuple[float, float]) -> Image:
    """Turn derivatives by angles and incidence into those by what describes a measurement."""
    area = camera.pixel_area_mrad2
    angles = camera.directions_mrad()
    x, y = angles
    by_x, by_y = channels.by_angle
    turn = math.radians(1)
    across = -np.einsum("ij,iyx->jyx", camera.matrix, channels.by_angle)
    # Seen from the crystal, the beam comes from -tan φ.
    tilts = [-1 / math.cos(1e-3 * t) ** 2 for t in tilt_mrad]
    return Image(
        area * channels.value,
        area * channels.by_strain,
        area * channels.by_incidence * np.reshape(tilts, (2, 1, 1)),
        area * turn * (by_x * y - by_y * x),
        area * across,
        area * (2 * channels.value + by_x * x + by_y * y),
    )
