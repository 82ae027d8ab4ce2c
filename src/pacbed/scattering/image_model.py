"""Images of a scattering series for many patterns at a time, with derivatives, in TensorFlow.

What :meth:`pacbed.scattering.series.ScatteringSeries.image_and_derivatives` computes for one
pattern, here for a batch, on a processor or a graphics card, and with what a real camera adds:
ellipticity, blur, background. For every pixel it sums over the few beams whose discs can reach it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from scipy.fft import dct
from scipy.interpolate import BSpline, make_interp_spline
from scipy.ndimage import spline_filter1d
from scipy.spatial import cKDTree

from pacbed.engines.planewave.diffuse import crystal_axis_mrad
from pacbed.exceptions import RequestError
from pacbed.scattering.fit import DIFFUSE_DEGREE
from pacbed.scattering.image import (
    GHOSTS,
    MARGIN,
    NARROWEST_PX,
    disc_radii_mrad,
    extended,
    halo,
    pixel_matrix,
)
from pacbed.scattering.mtf import MTF
from pacbed.scattering.scattered import UNIT_STRAINS
from pacbed.scattering.series import ScatteringSeries
from pacbed.scattering.strain import deformation_of
from pacbed.scattering.xla import compiled
from pacbed.specimen.microscope import Aperture, wavelength_A

UNKNOWNS = (
    "strain_xx",
    "strain_yy",
    "strain_xy",
    "rotation_deg",
    "tilt_x_mrad",
    "tilt_y_mrad",
    "shift_x_px",
    "shift_y_px",
    "log_scale",
    "log_dose",
    "background",
    "halo",
    "log_semiangle",
    "ellipticity",
    "ellipticity_diagonal",
    "blur_px",
)
"""What may be unknown of a pattern, in the order of the columns of tables of states.

``log_scale`` and ``log_semiangle`` are logarithms of the true pixel size and semi-angle over the
nominal ones, ``log_dose`` is that of the incident electrons. ``background`` and ``halo`` are
fractions of these that are spread evenly over the image, and as a broad Gaussian. An `ellipticity`
of 0.01 means angles 1 % larger along x, and 1 % smaller along y, than the pixels say;
``ellipticity_diagonal`` the same along the diagonals. ``blur_px`` is the standard deviation of the
point spread, a Gaussian.
"""

ALWAYS_FREE = UNKNOWNS[:10]
"""What is unknown of every pattern: strain, rotation, tilt, shift, scale and dose."""

COLUMN = {name: number for number, name in enumerate(UNKNOWNS)}

TILT = slice(COLUMN["tilt_x_mrad"], COLUMN["tilt_y_mrad"] + 1)
SHIFT = slice(COLUMN["shift_x_px"], COLUMN["shift_y_px"] + 1)
"""Columns of pairs of unknowns, x and y."""
_SIZES = [COLUMN["log_semiangle"], COLUMN["log_scale"]]

# Diffuse scattering is evaluated on nodes at most so far apart, and from there interpolated.
_NODES_mrad = 1.5
# Discs are looked for so much further than half of the diagonal of a pixel beyond their edge.
_LEEWAY_mrad = 0.02
# Discs of a semi-angle that is free overlap as if it were so much larger.
_WIDEST = 1.05
# Smallest expected number of electrons of a pixel, of its own mean and absolute.
_DARKEST, _DARKEST_ELECTRONS = 1e-4, 0.02
# Beams whose sum is a smaller part than this of the brightest one's are none.
_DARKEST_BEAM = 1e-9
# Pairs of a pixel and a beam that are computed at a time: a few hundred bytes each.
_PAIRS, _PATTERNS = 1_500_000, 16
# What is compiled, by what it depends on. XLA keeps it as long as the process lives.
_COMPILED: dict[tuple[Any, ...], tuple[Any, Any]] = {}


@dataclass(frozen=True)
class Frame:
    """Pixels of a camera as they nominally are.

    Parameters
    ----------
    shape
        Pixels (ny, nx).
    pixel_mrad
        Nominal size of a pixel in mrad.
    origin_px
        Position (x, y) of zero angle without a shift, in pixels.
    bins
        How many pixels of the camera along each axis make one of these.
    mtf
        Of these pixels, if they do more than to integrate.
    """

    shape: tuple[int, int]
    pixel_mrad: float
    origin_px: tuple[float, float]
    bins: int = 1
    mtf: MTF | None = None

    @classmethod
    def centred(cls, pixels: int, field_of_view_mrad: float, mtf: MTF | None = None) -> Frame:
        """Return a square whose zero angle lies on pixel ``pixels // 2``."""
        centre = float(pixels // 2)
        return cls((pixels, pixels), field_of_view_mrad / pixels, (centre, centre), mtf=mtf)

    def binned(self, bins: int) -> Frame:
        """Return the frame of squares of so many pixels; what is left over is cut off."""
        ny, nx = (n // bins for n in self.shape)
        x, y = ((o - (bins - 1) / 2) / bins for o in self.origin_px)
        mtf = self.mtf and self.mtf.of_pixels(bins)
        return Frame((ny, nx), self.pixel_mrad * bins, (x, y), self.bins * bins, mtf)


@dataclass(frozen=True)
class Noise:
    """Noise of pixels besides that of counted electrons.

    The variance of a pixel with µ expected electrons is µ + r² + (m µ)². Without the last term the
    likelihood is that of Poisson numbers, with r² more electrons in each pixel; with it that of the
    negative binomial distribution, which has this variance.

    Parameters
    ----------
    read_electrons
        Standard deviation r of what a camera adds to each of its pixels.
    model_error
        Relative standard deviation m of the expected intensity.
    """

    read_electrons: float = 0.0
    model_error: float = 0.0


@dataclass(frozen=True)
class Assessment:
    """How well expected images describe measured ones, and where better ones are.

    Parameters
    ----------
    deviance
        Twice the log-likelihood that is missing to a perfect description, shape (patterns,).
    slopes
        Derivatives of the log-likelihood, shape (patterns, free unknowns).
    information
        Fisher information, shape (patterns, free unknowns, free unknowns).
    chi2
        Sum of squared residuals over their variances, shape (patterns,).
    """

    deviance: np.ndarray
    slopes: np.ndarray
    information: np.ndarray
    chi2: np.ndarray


class ImageModel:
    """Expected images of one thickness, and their derivatives.

    Parameters
    ----------
    series
        What the crystal does to all waves.
    aperture
        Of the beam, as it nominally is.
    layers
        Number of layers.
    frame
        Pixels.
    free
        The unknowns, of :data:`UNKNOWNS`, by which derivatives are wanted. A blur is applied only
        if it is one of them.
    noise
        What is in the patterns besides the noise of counted electrons.

    Raises
    ------
    RequestError
        If the incident waves of the series form no square.
    """

    def __init__(
        self,
        series: ScatteringSeries,
        aperture: Aperture,
        layers: int,
        frame: Frame,
        free: Sequence[str],
        noise: Noise = Noise(),
    ) -> None:
        self.series, self.aperture, self.frame, self.noise = series, aperture, frame, noise
        self.free = tuple(name for name in UNKNOWNS if name in free)
        self._scale = 1e3 * wavelength_A(series.request.energy_keV)
        self._radii = disc_radii_mrad(aperture)
        read = series.coefficients(layers)
        self._set_incidence(read["beams"])
        self._full = series.request.motion == "full"
        self._set_layers(read)
        self._set_pixels()
        self._overlapping = self._most()
        self._set_table()
        self._together = 1
        self._model, self._compare = self._compiled()

    def for_layers(self, layers: int) -> ImageModel:
        """Return the model of another thickness, for which nothing is compiled anew."""
        other = copy(self)
        other._set_layers(self.series.coefficients(layers))
        return other

    # What does not change from pattern to pattern.

    def _set_incidence(self, beams: np.ndarray) -> None:
        """Choose the waves of the aperture at any tilt, and the beams that the lattice allows."""
        series, x = self.series, self.series.incident.x_mrad
        if not np.array_equal(x, series.incident.y_mrad):
            raise RequestError(
                f"{series.path} has incident waves that form no square: make it anew"
            )
        self._step = float(x[1] - x[0])
        reach = self.aperture.outer_mrad + series.request.tilt_mrad + MARGIN * self._step
        inside = np.flatnonzero(np.abs(x) <= reach)
        self._corner = float(x[inside[0]]) - GHOSTS * self._step
        row, column = (i - inside[0] for i in np.divmod(series.wave, len(x)))
        seen = np.bincount(series.beam, np.abs(beams).max(axis=1), len(series.hk))
        seen = (seen > _DARKEST_BEAM * seen.max())[series.beam]
        near = (np.minimum(row, column) >= 0) & (np.maximum(row, column) < len(inside)) & seen
        used, beam = np.unique(series.beam[near], return_inverse=True)
        self._hk, self._near = series.hk[used], near
        self._place = beam, row[near], column[near]
        self._grid = len(inside) + 2 * GHOSTS

    def _set_layers(self, read: Mapping[str, np.ndarray]) -> None:
        """Turn polynomials of intensities into those of spline coefficients."""
        n, terms = self._grid - 2 * GHOSTS, read["beams"].shape[1]
        dense = np.zeros((len(self._hk), n, n, terms), np.float32)
        dense[self._place] = read["beams"][self._near]
        for axis in (1, 2):
            dense = spline_filter1d(extended(dense, axis), 3, axis, np.float32)
        # The mean over a pixel, instead of the value at its centre.
        strength = (self.frame.pixel_mrad / self._step) ** 2 / 24
        for axis in (1, 2):
            inner, before, after = (
                (slice(None),) * axis + (slice(*ends),) for ends in ((1, -1), (0, -2), (2, None))
            )
            bend = dense[before] - 2 * dense[inner] + dense[after]
            dense[inner] += strength * bend
        self._polynomials = [tf.constant(dense.reshape(-1, terms))]
        if self._full:
            self._polynomials.append(tf.constant(self._evenly_spaced(read["diffuse"])))

    def _evenly_spaced(self, diffuse: np.ndarray) -> np.ndarray:
        """Turn splines with clamped ends into evenly spaced ones, which are the same."""
        self._ends = []
        for axis, knots in enumerate(self.series.knots):
            step, size = knots[4] - knots[3], len(knots) - 4
            even = knots[0] + step * np.arange(-3, size + 1)
            points = np.linspace(knots[0], knots[-1], 4 * size)
            clamped, uniform = (
                BSpline.design_matrix(points, k, 3, extrapolate=True).toarray()
                for k in (knots, even)
            )
            change = np.linalg.lstsq(uniform, clamped, rcond=None)[0]
            diffuse = np.moveaxis(np.tensordot(change, diffuse, (1, axis + 1)), 0, axis + 1)
            # Position of the first coefficient, and spacing.
            self._ends.append((float(even[2]), float(step)))
        self._diffuse_shape = diffuse.shape[1:3]
        return diffuse.reshape(len(diffuse), -1).astype(np.float32)

    def _set_pixels(self) -> None:
        """Set positions of pixels and of nodes, and the matrices from these to those."""
        frame = self.frame
        axes = [np.arange(n) - o for n, o in zip(frame.shape[::-1], frame.origin_px, strict=True)]
        y, x = np.meshgrid(axes[1], axes[0], indexing="ij")
        self._x, self._y = (tf.constant(one.ravel(), tf.float32) for one in (x, y))
        nodes, self._spread = [], []
        for axis in axes:
            width = axis[-1] - axis[0]
            count = max(8, math.ceil(width * frame.pixel_mrad / _NODES_mrad) + 1)
            at = np.linspace(axis[0], axis[-1], count)
            spline = make_interp_spline(at, np.eye(count), 3)
            self._spread.append(
                [tf.constant(f(axis), tf.float32) for f in (spline, spline.derivative())]
            )
            nodes.append(at)
        y, x = np.meshgrid(nodes[1], nodes[0], indexing="ij")
        self._node_shape = x.shape
        self._node_x, self._node_y = (tf.constant(one.ravel(), tf.float32) for one in (x, y))
        self._halo = tf.constant(halo(axes, frame.pixel_mrad).ravel(), tf.float32)
        if frame.mtf:
            # Dark pixels need all digits of products, which cards would shorten.
            tf.config.experimental.enable_tensor_float_32_execution(False)
            self._response = tf.constant(frame.mtf.response(frame.shape), tf.float32)
            self._cosines = [
                tf.constant(dct(np.eye(n), axis=0, norm="ortho"), tf.float32) for n in frame.shape
            ]

    # What is computed once for the patterns of a batch, on the processor.

    def nearby(self, states: np.ndarray) -> np.ndarray:
        """Return the beams whose discs reach each pixel, shape (patterns, pixels, beams)."""
        found, most = [], self._overlapping
        for state in states:
            angles = self._matrix(state) @ np.stack(
                [
                    self._x.numpy() - state[COLUMN["shift_x_px"]] / self.frame.bins,
                    self._y.numpy() - state[COLUMN["shift_y_px"]] / self.frame.bins,
                ]
            )
            reach = self._reach_mrad(*np.exp(state[_SIZES]))
            if most == 1 and self._table is not None:
                found.append(self._nearest(self._table, state[:3], angles, reach)[:, None])
                continue
            tree = cKDTree(self._g_mrad(state[:3]))
            number = tree.query(angles.T, most, distance_upper_bound=reach)[1]
            found.append(number.reshape(len(angles.T), most).astype(np.int32))
        return np.stack(found)

    def _set_table(self) -> None:
        """Set the numbers of the beams of a centred rectangular cell, by their indices.

        In such a cell, as that of 2H crystals, directions are lattice points of two rectangular
        lattices, of even and of odd numbers. No table where the cell is another one.
        """
        a, b = self.series.request.material.cell_A
        self._table: np.ndarray | None = None
        if abs(a @ b) < 1e-9 and (self._hk.sum(axis=1) % 2 == 0).all():
            self._table_size = np.abs(self._hk).max(axis=0) + 1
            none = len(self._hk)
            self._table = np.full(2 * self._table_size + 1, none, np.int32)
            self._table[tuple((self._hk + self._table_size).T)] = np.arange(none)

    def _reach_mrad(self, larger_semiangle: float = 1.0, larger_pixels: float = 1.0) -> float:
        """Return how far from its centre a disc can be seen by the middle of a pixel."""
        edge = self._radii.max() * larger_semiangle
        return float(edge + self.frame.pixel_mrad * larger_pixels * 0.75 + _LEEWAY_mrad)

    def _nearest(
        self, table: np.ndarray, strain: np.ndarray, angles: np.ndarray, reach_mrad: float
    ) -> np.ndarray:
        """Return the beam nearest to each pixel, if its disc can reach that, shape (pixels,)."""
        unit = self._reciprocal_mrad(strain)
        x, y = np.linalg.inv(unit).T @ angles
        metric = unit @ unit.T

        def nearest(odd: int) -> tuple[np.ndarray, ...]:
            h, k = (2 * np.rint((place - odd) / 2) + odd for place in (x, y))
            dx, dy = x - h, y - k
            return h, k, metric[0, 0] * dx**2 + metric[1, 1] * dy**2 + 2 * metric[0, 1] * dx * dy

        even, odd = nearest(0), nearest(1)
        closer = odd[2] < even[2]
        h, k, square = (np.where(closer, *pair) for pair in zip(odd, even, strict=True))
        # What lies outside of the table is at its edge, where there is none.
        row, column = (
            np.clip(n, -most, most).astype(int) + most
            for n, most in zip((h, k), self._table_size, strict=True)
        )
        none = len(self._hk)
        return np.where(square <= reach_mrad**2, table[row, column], none).astype(np.int32)

    def _most(self) -> int:
        """Return how many discs can overlap, of the crystal that is stretched most."""
        largest = self.series.request.strain.stretch[1] - 1
        tree = cKDTree(self._g_mrad(np.array([largest, largest, 0.0])))
        axis = np.linspace(0, 2 * self._scale / self.series.request.material.shortest_edge_A, 24)
        places = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
        reach = self._reach_mrad(_WIDEST if "log_semiangle" in self.free else 1.0)
        return int(tree.query_ball_point(places, reach, return_length=True).max())

    def _g_mrad(self, strain: np.ndarray) -> np.ndarray:
        return np.asarray(self._hk @ self._reciprocal_mrad(strain))

    def _reciprocal_mrad(self, strain: np.ndarray) -> np.ndarray:
        """Return the vectors of the reciprocal lattice as rows, shape (2, 2)."""
        cell = self.series.request.material.in_plane_cell_A(deformation_of(strain))
        return np.asarray(self._scale * np.linalg.inv(cell).T)

    def _matrix(self, state: np.ndarray) -> np.ndarray:
        """Return angles in the pattern per pixel, shape (2, 2), mrad."""
        pixel = self.frame.pixel_mrad * math.exp(state[COLUMN["log_scale"]])
        ellipse = state[COLUMN["ellipticity"]], state[COLUMN["ellipticity_diagonal"]]
        return pixel_matrix(pixel, state[COLUMN["rotation_deg"]], ellipse)

    def _geometry(self, states: np.ndarray) -> dict[str, np.ndarray]:
        """Return what follows from each state, in single precision."""
        request, found = self.series.request, []
        for state in states:
            strain, tilt = state[:3], tuple(state[TILT])
            gradient = deformation_of(strain).gradient
            cell = request.material.in_plane_cell_A(deformation_of(strain))
            # The beam that stands for none is far away.
            g = np.vstack([self._g_mrad(strain), [[1e6, 1e6]]])
            one = {
                "state": state,
                "matrix": self._matrix(state),
                "g": g,
                "turns": UNIT_STRAINS @ np.linalg.inv(gradient),
                "axis": np.array(crystal_axis_mrad(tilt)),
                "terms": self._terms(strain, request.degree),
            }
            if self._full:
                supercell = cell * np.array(self.series.settings.supercell)[:, None]
                one |= {
                    "supercell": supercell / self._scale,
                    "diffuse_terms": self._terms(strain, DIFFUSE_DEGREE),
                    "weights": self.series.incident_splines.weights(self.aperture, tilt),
                }
            found.append(one)
        return {
            name: np.stack([one[name] for one in found]).astype(np.float32) for name in found[0]
        }

    def _terms(self, strain: np.ndarray, degree: int) -> np.ndarray:
        """Return the monomials and their derivatives, shape (4, terms)."""
        own = self.series.request.strain
        return np.vstack([own.terms(strain, degree), own.slopes(strain, degree)])

    # What is compiled.

    def _compiled(self) -> tuple[Any, Any]:
        """Return what an earlier model has compiled, if it differs in nothing that is compiled."""
        diffuse = (self._diffuse_shape, *self._ends) if self._full else None
        waves = self._corner, self._step, self._grid, len(self._hk), diffuse
        alike = self.frame, self.aperture, self.free, waves
        if alike not in _COMPILED:
            kept = copy(self)
            # What is large is given to it.
            del kept.series, kept._polynomials, kept._near, kept._place, kept._table
            _COMPILED[alike] = compiled(kept._image_and_columns), compiled(kept._assess)
        return _COMPILED[alike]

    def _image_and_columns(
        self, polynomials: Sequence[Any], near: Any, one: dict[str, Any]
    ) -> tuple[Any, Any]:
        """Return expected electrons, (patterns, pixels), and derivatives, (patterns, free, ...)."""
        state = {name: one["state"][:, n, None] for name, n in COLUMN.items()}
        matrix = one["matrix"]
        area = tf.abs(_determinant(matrix))[:, None]
        x = self._x - state["shift_x_px"] / self.frame.bins
        y = self._y - state["shift_y_px"] / self.frame.bins
        angle = _turned(matrix, x, y)
        value, by_angle, by_incidence, by_strain, by_radius = self._discs(
            polynomials[0], near, one, angle
        )
        discs = value
        if self._full:
            more, turning, straining = self._background(polynomials[1], one, x, y, matrix)
            value += more
            by_angle = [a + b for a, b in zip(by_angle, turning, strict=True)]
            by_strain = [a + b for a, b in zip(by_strain, straining, strict=True)]
        by_x, by_y = by_angle
        across = _turned(tf.transpose(matrix, (0, 2, 1)), by_x, by_y)

        def stretched(along_x: Any, along_y: Any) -> Any:
            """Return the derivative by a deformation of the pixels that moves them so."""
            moved = _turned(matrix, *_turned(_inverse(squeeze), along_x, along_y))
            return area * (by_x * moved[0] + by_y * moved[1])

        e, d = state["ellipticity"], state["ellipticity_diagonal"]
        squeeze = tf.stack([tf.concat([1 + e, d], 1), tf.concat([d, 1 - e], 1)], 1)
        radians = math.radians(1)
        bins = self.frame.bins
        axis = 1e-3 * one["axis"]
        # 1 / cos² of the tilt.
        steep = 1 + axis**2
        columns = {
            "strain_xx": lambda: area * by_strain[0],
            "strain_yy": lambda: area * by_strain[1],
            "strain_xy": lambda: area * by_strain[2],
            "rotation_deg": lambda: area * radians * (by_x * angle[1] - by_y * angle[0]),
            "tilt_x_mrad": lambda: -area * steep[:, :1] * by_incidence[0],
            "tilt_y_mrad": lambda: -area * steep[:, 1:] * by_incidence[1],
            "shift_x_px": lambda: -area * across[0] / bins,
            "shift_y_px": lambda: -area * across[1] / bins,
            "log_scale": lambda: area * (2 * value + by_x * angle[0] + by_y * angle[1]),
            "log_semiangle": lambda: area * (by_radius - 2 * discs),
            "ellipticity": lambda: stretched(x, -y) - 2 * e / (1 - e**2 - d**2) * area * value,
            "ellipticity_diagonal": lambda: (
                stretched(y, x) - 2 * d / (1 - e**2 - d**2) * area * value
            ),
            "background": lambda: tf.ones_like(value) / value.shape[1],
            "halo": lambda: tf.broadcast_to(self._halo, tf.shape(value)),
        }
        dose = tf.exp(state["log_dose"])
        image = area * value + state["background"] / value.shape[1] + state["halo"] * self._halo
        derivatives = {name: columns[name]() for name in self.free if name in columns}
        if self.frame.mtf:
            image, derivatives = self._transferred(image, derivatives)
        if not self.free:
            return dose * image, dose[:, None] * tf.zeros((1, 0, value.shape[1]))
        if "blur_px" in self.free:
            image, derivatives = self._blurred(state["blur_px"] / bins, image, derivatives)
        derivatives["log_dose"] = image
        stacked = tf.stack([derivatives[name] for name in self.free], 1)
        return dose * image, dose[..., None] * stacked

    def _discs(
        self, polynomials: Any, near: Any, one: dict[str, Any], angle: Sequence[Any]
    ) -> tuple[Any, ...]:
        """Return the sum over the discs of all beams, per mrad², and its derivatives."""
        g = tf.gather(one["g"], near, batch_dims=1)
        x, y = angle[0][..., None] - g[..., 0], angle[1][..., None] - g[..., 1]
        radius = tf.sqrt(x * x + y * y)
        grown = tf.exp(one["state"][:, COLUMN["log_semiangle"]])[:, None, None]
        share, slope = self._shares(x, y, radius, grown, one["matrix"])
        values, by_x, by_y = self._intensities(polynomials, near, one, x, y)
        filling = [share * by_x, share * by_y]
        outwards = values[0] * slope / tf.maximum(radius, 1e-6)
        moving = [filling[0] + outwards * x, filling[1] + outwards * y]
        turned = tf.einsum("bnki,bsij->sbnkj", g, one["turns"])
        by_strain = [
            share * values[1 + i] + turned[i, ..., 0] * moving[0] + turned[i, ..., 1] * moving[1]
            for i in range(3)
        ]
        sums = [
            share * values[0],
            *moving,
            *filling,
            *by_strain,
            -slope * values[0] * grown * float(self._radii.mean()),
        ]
        total = [tf.reduce_sum(each, -1) for each in sums]
        return total[0], total[1:3], total[3:5], total[5:8], total[8]

    def _intensities(
        self, polynomials: Any, near: Any, one: dict[str, Any], x: Any, y: Any
    ) -> tuple[Sequence[Any], Any, Any]:
        """Return intensities and derivatives by strain, and of the first by the angle."""
        patterns = near.shape[0]
        axis = one["axis"][:, None, None]
        place = [(x + axis[..., 0] - self._corner) / self._step]
        place += [(y + axis[..., 1] - self._corner) / self._step]
        n = self._grid
        first, weights, slopes = zip(*(_spline_weights(p, n) for p in place), strict=True)
        beam = tf.minimum(near, len(self._hk) - 1)
        corner = (beam * n + first[1]) * n + first[0]
        pattern = tf.range(patterns)[:, None, None]

        def table(terms: Any) -> Any:
            """Return spline coefficients of all patterns, which are numbered fastest."""
            return tf.matmul(polynomials, tf.transpose(terms))

        intensity = tf.reshape(table(one["terms"][:, 0]), (-1,))
        value, by_x, by_y = 0.0, 0.0, 0.0
        for row in range(4):
            along, sloping = 0.0, 0.0
            for column in range(4):
                at = (corner + row * n + column) * patterns + pattern
                taken = tf.gather(intensity, at)
                along += weights[0][column] * taken
                sloping += slopes[0][column] * taken
            value += weights[1][row] * along
            by_x += weights[1][row] * sloping
            by_y += slopes[1][row] * along
        # Derivatives by strain need not be as exact: linear interpolation does.
        terms = tf.reshape(one["terms"][:, 1:], (patterns * 3, -1))
        straining = tf.reshape(table(terms), (-1, 3))
        part = [p - tf.floor(p) for p in place]
        by_strain = 0.0
        for row in range(2):
            for column in range(2):
                weight = (part[1] if row else 1 - part[1]) * (part[0] if column else 1 - part[0])
                at = (corner + (row + 1) * n + column + 1) * patterns + pattern
                by_strain += weight[..., None] * tf.gather(straining, at)
        values = [value, *tf.unstack(by_strain, axis=-1)]
        return values, by_x / self._step, by_y / self._step

    def _shares(self, x: Any, y: Any, radius: Any, grown: Any, pixel: Any) -> tuple[Any, Any]:
        """Return the part of each pixel in the disc per mrad², and its derivative by the radius.

        As of :func:`pacbed.specimen.microscope.disc_share`.
        """
        safe = tf.maximum(radius, 1e-6)
        across = [
            tf.abs(pixel[:, 0, side, None, None] * x + pixel[:, 1, side, None, None] * y) / safe
            for side in range(2)
        ]
        # At the centre of a disc there is no direction.
        a = tf.maximum(tf.maximum(*across), 1e-6)
        b = tf.maximum(tf.minimum(*across), 1e-6 * a)
        area = tf.abs(_determinant(pixel))[:, None, None]
        share, slope = 0.0, 0.0
        for edge in self._radii:
            depth = grown * float(edge) - radius - area / (24 * float(edge))
            beside = tf.abs(depth)
            corner = tf.clip_by_value((a + b) / 2 - beside, 0.0, b)
            at_corner = beside > (a - b) / 2
            outside = tf.where(at_corner, corner**2 / (2 * a * b), 0.5 - beside / a)
            share += tf.where(depth > 0, 1 - outside, outside)
            slope -= tf.where(at_corner, corner / (a * b), 1 / a)
        density = 1 / (self.aperture.solid_angle_mrad2() * len(self._radii) * grown**2)
        return share * density, slope * density

    def _background(
        self, polynomials: Any, one: dict[str, Any], x: Any, y: Any, matrix: Any
    ) -> tuple[Any, Sequence[Any], Sequence[Any]]:
        """Return the diffuse scattering per mrad², and its derivatives by angle and strain."""
        patterns, (n1, n2) = matrix.shape[0], self._diffuse_shape
        averaged = tf.reshape(tf.matmul(one["weights"], polynomials), (patterns, n1 * n2, -1))
        table = tf.reshape(tf.einsum("bnt,bct->bnc", averaged, one["diffuse_terms"]), (-1, 4))
        state, bins = one["state"], self.frame.bins
        shift = [state[:, COLUMN[f"shift_{axis}_px"], None] / bins for axis in "xy"]
        seen = _turned(matrix, self._node_x - shift[0], self._node_y - shift[1])
        k = _turned(one["supercell"], *(s + one["axis"][:, i, None] for i, s in enumerate(seen)))
        first, weights = [], []
        for place, (start, step), size in zip(k, self._ends, (n1, n2), strict=True):
            found = _spline_weights((place - start) / step, size)
            first.append(found[0])
            weights.append(found[1])
        corner = (tf.range(patterns)[:, None] * n1 + first[0]) * n2 + first[1]
        values = 0.0
        for i in range(4):
            for j in range(4):
                taken = tf.gather(table, corner + i * n2 + j)
                values += (weights[0][i] * weights[1][j])[..., None] * taken
        values *= tf.abs(_determinant(one["supercell"]))[:, None, None]
        nodes = tf.reshape(values, (patterns, *self._node_shape, 4))
        (to_x, slope_x), (to_y, slope_y) = self._spread

        def spread(rows: Any, columns: Any, channel: int) -> Any:
            image = tf.einsum("yv,bvu,xu->byx", rows, nodes[..., channel], columns)
            return tf.reshape(image, (patterns, -1))

        value = spread(to_y, to_x, 0)
        by_pixel = spread(to_y, slope_x, 0), spread(slope_y, to_x, 0)
        by_angle = _turned(tf.transpose(_inverse(matrix), (0, 2, 1)), *by_pixel)
        crystal = _turned(matrix, x, y)
        crystal = [c + one["axis"][:, i, None] for i, c in enumerate(crystal)]
        by_strain = []
        for i in range(3):
            turn = one["turns"][:, i]
            moved = _turned(tf.transpose(turn, (0, 2, 1)), *crystal)
            grown = (turn[:, 0, 0] + turn[:, 1, 1])[:, None]
            by_strain.append(
                spread(to_y, to_x, 1 + i)
                + moved[0] * by_angle[0]
                + moved[1] * by_angle[1]
                + grown * value
            )
        return value, by_angle, by_strain

    def _changed(
        self, change: Callable[[Any], Any], image: Any, derivatives: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Return an image and its derivatives as a linear change of images leaves them."""
        channels = tf.stack([image, *derivatives.values()], 1)
        images = tf.reshape(channels, (*channels.shape[:2], *self.frame.shape))
        flat = tf.reshape(change(images), channels.shape)
        return flat[:, 0], {name: flat[:, 1 + n] for n, name in enumerate(derivatives)}

    def _transferred(self, image: Any, derivatives: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return an image and its derivatives as the MTF of the camera leaves them."""
        rows, columns = self._cosines

        def filtered(images: Any) -> Any:
            waves = tf.einsum("uy,bcyx,vx->bcuv", rows, images, columns) * self._response
            return tf.einsum("uy,bcuv,vx->bcyx", rows, waves, columns)

        seen, slopes = self._changed(filtered, image, derivatives)
        # As of pacbed.scattering.mtf.MTF.blurred.
        return tf.maximum(seen, tf.reduce_min(image, -1, keepdims=True)), slopes

    def _blurred(self, sigma: Any, image: Any, derivatives: dict[str, Any]) -> tuple[Any, Any]:
        """Blur an image and its derivatives, and add that by the width of the point spread."""
        shape = self.frame.shape
        sigma = tf.maximum(sigma, NARROWEST_PX)[..., None]
        (rows, more_rows), (columns, more_columns) = (_point_spread(sigma, n) for n in shape)
        blurred, found = self._changed(
            lambda images: tf.einsum("byv,bcvu,bxu->bcyx", rows, images, columns),
            image,
            derivatives,
        )
        plain = tf.reshape(image, (image.shape[0], *shape))
        wider = tf.einsum("byv,bvu,bxu->byx", more_rows, plain, columns)
        wider += tf.einsum("byv,bvu,bxu->byx", rows, plain, more_columns)
        found["blur_px"] = tf.reshape(wider, image.shape) / self.frame.bins
        return blurred, found

    def _assess(
        self, expected: Any, columns: Any, image: Any, variance: Any, mask: Any, noise: Any
    ) -> Any:
        """Return the parts of an :class:`Assessment`. The variance of electrons is given as 0."""
        floor = tf.maximum(
            _DARKEST * tf.reduce_mean(expected, 1, keepdims=True), _DARKEST_ELECTRONS
        )
        counted = variance <= 0
        more, share = noise[0], noise[1]
        mean, seen = tf.maximum(expected, floor) + more, tf.maximum(image + more, 0.0)
        weight = mask / tf.where(counted, mean * (1 + share * mean), variance)
        residual = image + more - tf.where(counted, mean, expected + more)
        chi2 = tf.reduce_sum(tf.cast(weight * residual**2, tf.float64), 1)
        logarithm = seen * tf.math.log(tf.maximum(seen, 1e-6) / mean)
        one_by_share = 1 / tf.maximum(share, 1e-7)
        spread = (seen + one_by_share) * tf.math.log1p((seen - mean) / (one_by_share + mean))
        missing = 2 * (logarithm - tf.where(share > 0, spread, residual))
        deviance = tf.where(counted, mask * missing, weight * residual**2)
        root = tf.cast(tf.sqrt(weight), tf.float64)
        scaled = tf.cast(columns, tf.float64) * root[:, None]
        slopes = tf.linalg.matvec(scaled, root * tf.cast(residual, tf.float64))
        information = tf.matmul(scaled, scaled, transpose_b=True)
        return tf.reduce_sum(tf.cast(deviance, tf.float64), 1), slopes, information, chi2

    # What is asked from outside.

    def _inputs(self, states: np.ndarray) -> tuple[Any, ...]:
        return self._polynomials, self.nearby(states), self._geometry(states)

    def _parts(self, count: int) -> Iterator[np.ndarray]:
        """Yield the numbers of the patterns that are computed at a time.

        Parts that are smaller than earlier ones are filled up: for every other number of patterns
        all would be compiled anew.
        """
        most = max(1, min(_PATTERNS, _PAIRS // (math.prod(self.frame.shape) * self._overlapping)))
        wanted = 1 << (count - 1).bit_length()
        size = self._together = max(self._together, min(most, wanted))
        for first in range(0, count, size):
            yield np.minimum(np.arange(first, first + size), count - 1)

    def images(self, states: np.ndarray) -> np.ndarray:
        """Return expected electrons, shape (patterns, pixels).

        Parameters
        ----------
        states
            Shape (patterns, unknowns), columns as :data:`UNKNOWNS`.
        """
        parts = [self._model(*self._inputs(states[rows]))[0] for rows in self._parts(len(states))]
        return np.concatenate([part.numpy() for part in parts])[: len(states)]

    def images_and_columns(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return expected images, (states, pixels), and derivatives, (states, free, pixels)."""
        parts = [self._model(*self._inputs(states[rows])) for rows in self._parts(len(states))]
        images, columns = (np.concatenate(each)[: len(states)] for each in zip(*parts, strict=True))
        return images, columns

    def assess(
        self,
        states: np.ndarray,
        images: np.ndarray,
        variances: np.ndarray,
        masks: np.ndarray,
    ) -> Assessment:
        """Compare measured patterns with what is expected.

        Parameters
        ----------
        states
            Shape (patterns, unknowns).
        images
            Electrons, shape (patterns, pixels).
        variances
            Of these; 0 where they are Poisson numbers.
        masks
            1 where a pixel counts, 0 where not.
        """
        parts, bins = [], self.frame.bins
        noise = tf.constant(
            [(bins * self.noise.read_electrons) ** 2, self.noise.model_error**2], tf.float32
        )
        for rows in self._parts(len(states)):
            expected, columns = self._model(*self._inputs(states[rows]))
            found = self._compare(
                expected, columns, images[rows], variances[rows], masks[rows], noise
            )
            parts.append([each.numpy() for each in found])
        joined = [np.concatenate(each)[: len(states)] for each in zip(*parts, strict=True)]
        return Assessment(*joined)


def _turned(matrix: Any, x: Any, y: Any) -> list[Any]:
    """Return 2 × 2 matrices, shape (patterns, 2, 2), times vectors, (patterns, pixels)."""
    return [matrix[:, i, 0, None] * x + matrix[:, i, 1, None] * y for i in range(2)]


def _determinant(matrix: Any) -> Any:
    """Return determinants of 2 × 2 matrices: XLA has none."""
    return matrix[:, 0, 0] * matrix[:, 1, 1] - matrix[:, 0, 1] * matrix[:, 1, 0]


def _inverse(matrix: Any) -> Any:
    """Return inverses of 2 × 2 matrices."""
    rows = [[matrix[:, 1, 1], -matrix[:, 0, 1]], [-matrix[:, 1, 0], matrix[:, 0, 0]]]
    found = tf.stack([tf.stack(row, -1) for row in rows], 1)
    return found / _determinant(matrix)[:, None, None]


def _spline_weights(place: Any, size: int) -> tuple[Any, list[Any], list[Any]]:
    """Return the first of four coefficients, their weights, and the derivatives of these."""
    whole = tf.clip_by_value(tf.floor(place), 1.0, size - 3.0)
    t = tf.clip_by_value(place - whole, -2.0, 3.0)
    u = 1 - t
    weights = [u**3, 3 * t**3 - 6 * t**2 + 4, 3 * u**3 - 6 * u**2 + 4, t**3]
    slopes = [-(u**2), 3 * t**2 - 4 * t, 4 * u - 3 * u**2, t**2]
    first = tf.cast(whole, tf.int32) - 1
    return first, [w / 6 for w in weights], [s / 2 for s in slopes]


def _point_spread(sigma: Any, pixels: int) -> tuple[Any, Any]:
    """Return matrices that blur an axis, and their derivatives by the width."""
    axis = tf.range(pixels, dtype=tf.float32)
    square = (axis[:, None] - axis) ** 2
    value = tf.exp(-square / (2 * sigma**2))
    slope = value * square / sigma**3
    total = tf.reduce_sum(value, -1, keepdims=True)
    matrix = value / total
    return matrix, (slope - matrix * tf.reduce_sum(slope, -1, keepdims=True)) / total
