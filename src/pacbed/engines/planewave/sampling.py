"""Diffuse scattering, sampled by frozen phonons where the coherent part is known already.

The wave that a crystal of displaced atoms scatters is the mean over displacements and a deviation.
The mean is an ordinary calculation with one cell (mean transmissions). The squared deviation is the
diffuse intensity, without bias from a single configuration of the atoms. It is smooth in the
outgoing and in the incident direction: a few incident waves sample it, and splines interpolate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pacbed.engines.arrays import serial_linear_algebra
from pacbed.engines.planewave.diffuse import DiffuseScattering, IncidentSplines, SplineAxis
from pacbed.engines.planewave.multislice import Multislice, check_electrons, in_batches
from pacbed.engines.planewave.waves import Cone
from pacbed.engines.request import Progress

# Waves that share their displacements: making transmissions costs more than a wave. A few of them
# in different directions have speckle of their own.
BATCH = 4
_GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))


def sample_cones(cones: Sequence[Cone], waves: int) -> np.ndarray:
    """Return incident directions that cover each of some cones evenly, shape (directions, 2), mrad.

    Parameters
    ----------
    cones
        Cones of incidence, in the frame of the crystal. A large one also serves the smaller ones
        in it.
    waves
        Directions in each, on Vogel's spiral: consecutive ones are far apart.
    """
    found = np.zeros((0, 2))
    for cone in sorted(set(cones), key=lambda c: (-c.radius_mrad, c.centre_mrad)):
        inside = np.hypot(*(found - cone.centre_mrad).T) <= cone.radius_mrad
        # Whole batches.
        batches = max(0, math.ceil((waves - int(np.count_nonzero(inside))) / BATCH))
        missing = BATCH * batches
        number = np.arange(missing) + 0.5
        radius, angle = np.sqrt(number / missing), number * _GOLDEN_ANGLE
        disc = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
        found = np.concatenate([found, cone.radius_mrad * disc + cone.centre_mrad])
    return found


@dataclass(frozen=True)
class Sampling:
    """A calculation of the diffuse scattering of some incident waves.

    Parameters
    ----------
    displaced
        Atoms of a supercell with thermal displacements, one configuration per batch of waves.
    mean
        The same with mean transmissions, in one cell: with the same band, limits of the
        transmission and points of the transform per cell.
    directions_mrad
        Incident directions in the frame of the crystal, shape (waves, 2).
    axes
        Splines over outgoing directions.
    incident_step_mrad
        Spacing of the knots of those over incident directions in mrad.
    layers
        Number of layers.
    wavelength_A
        Wavelength in Å.
    """

    displaced: Multislice
    mean: Multislice
    directions_mrad: np.ndarray
    axes: tuple[SplineAxis, SplineAxis]
    incident_step_mrad: float
    layers: int
    wavelength_A: float

    @property
    def nbytes(self) -> int:
        """Memory of the samples, and of the splines that are made of them, in bytes."""
        # Samples; splines and their noise.
        rows = len(self.directions_mrad) + 2 * self._splines.size
        return 4 * rows * self.layers * self.axes[0].size * self.axes[1].size

    @property
    def _splines(self) -> IncidentSplines:
        return IncidentSplines.over(self.directions_mrad, self.incident_step_mrad)

    def scatter(self, threads: int = 1, progress: Progress | None = None) -> DiffuseScattering:
        """Compute it; threads and progress are as for :meth:`Multislice.propagate`."""
        displaced, mean, axes = self.displaced, self.mean, self.axes
        directions_mrad = self.directions_mrad
        waves, on = len(directions_mrad), displaced.on
        shape = (waves, self.layers, axes[0].size, axes[1].size)
        coefficients, within = np.zeros(shape, np.float32), np.zeros((self.layers, waves))
        cells = np.array(displaced.planes[0].cells)
        limit, cell_limit = (np.array(m.grid.wave_limit) for m in (displaced, mean))
        inner = tuple(slice(n - a.limit, n + a.limit + 1) for n, a in zip(limit, axes, strict=True))

        def scatter(part: slice) -> None:
            directions = directions_mrad[part]
            start, offset = displaced.start_of(directions)
            cell_start, _ = mean.start_of(directions)
            project = [
                on.xp.asarray(np.stack([axis.projection(o) for o in offsets]).astype(np.float32))
                for axis, offsets in zip(axes, offset.T, strict=True)
            ]
            # Beams: lattice points of the cell, and where they lie in the supercell.
            beams = np.stack(
                np.meshgrid(*(np.arange(-2 * n, 2 * n + 1) for n in cell_limit), indexing="ij"), -1
            ).reshape(-1, 2)
            there = limit + start[:, None] + beams * cells
            here = cell_limit + cell_start[:, None] + beams
            possible = (there >= 0) & (there <= 2 * limit) & (here >= 0) & (here <= 2 * cell_limit)
            wave, beam = np.nonzero(possible.all(axis=-1))
            to, of = (
                (on.xp.asarray(wave), *map(on.xp.asarray, points[wave, beam].T))
                for points in (there, here)
            )
            # The same batch of a slightly other strain, tilt or aperture has the same
            # displacements, so that differences of patterns are not those of their speckle.
            atoms = displaced.exit_waves(directions, np.array([[part.start // BATCH]]))
            for layer, (exit_wave, coherent) in enumerate(
                zip(atoms, mean.exit_waves(directions), strict=True)
            ):
                total = on.to_host((_squared(exit_wave[:, 0])).sum(axis=(1, 2), dtype=np.float64))
                within[layer, part] = total
                deviation = exit_wave[:, 0].copy()
                deviation[to] -= coherent[:, 0][of]
                points = _squared(deviation)[:, inner[0], inner[1]].astype(np.float32)
                fitted = project[0] @ points @ project[1].swapaxes(1, 2)
                coefficients[part, layer] = on.to_host(fitted)

        mean.prepare()
        in_batches(scatter, waves, BATCH, threads, progress)
        check_electrons(within)
        splines = self._splines
        regression = splines.regression(directions_mrad)
        flat = coefficients.reshape(waves, -1)
        with serial_linear_algebra():
            known = regression.astype(np.float32) @ flat
            # Half the difference of two halves of the batches is as large as the noise of all.
            halves = np.where(np.arange(waves) // BATCH % 2, -1, 1)
            deviations = splines.noise_of_samples(directions_mrad)
            noise = ((regression * halves) @ deviations).astype(np.float32) @ flat
        shape = (len(known), *coefficients.shape[1:])
        known, noise = known.reshape(shape), noise.reshape(shape)
        return DiffuseScattering(
            known,
            noise,
            axes,
            displaced.grid.cell_A,
            self.wavelength_A,
            splines,
            within @ regression.T,
        )


def _squared(wave: Any) -> Any:
    return wave.real**2 + wave.imag**2
