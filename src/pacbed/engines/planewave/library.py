"""What a crystal does to every incident wave, and the patterns that follow from it.

A :class:`ScatteringLibrary` holds, for one strain state and after every layer, the Bragg beams and
the diffuse scattering of a grid of incident plane waves. A pattern for any semi-angle and tilt is
an integral over it: no further propagation is needed.

Frames: waves and beams are labelled in the frame of the crystal. Tilting the sample by φ is, seen
from there, an incident cone centred at -tan φ, and a pattern shifted back by +tan φ: discs stay
where they are, their filling changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from pacbed.engines.arrays import Arrays
from pacbed.engines.planewave.diffuse import (
    DiffuseScattering,
    crystal_axis_mrad,
    diffuse_axes,
)
from pacbed.engines.planewave.waves import Cone, IncidentGrid, ReciprocalGrid
from pacbed.exceptions import RequestError
from pacbed.specimen.microscope import Aperture, Detector

# Diffuse scattering is evaluated on this grid and from there interpolated to the pixels.
_EVALUATION_STEP_mrad = 1.5
# Pixels per axis on which the noise of a pattern is estimated.
_NOISE_PIXELS = 128


def cone(aperture: Aperture, tilt_mrad: tuple[float, float]) -> Cone:
    """Return the incident directions of an aperture, seen from a tilted crystal."""
    return Cone(aperture.outer_mrad, crystal_axis_mrad(tilt_mrad))


@dataclass(frozen=True)
class Synthesis:
    """A pattern per layer, synthesised from a library.

    Parameters
    ----------
    patterns
        Shape (layers, ny, nx), float32, fraction of the incident electrons per pixel.
    clipped
        Per layer, what was set to zero where interpolation or noise made the pattern negative, as
        a fraction of the pattern.
    within_band
        Per layer, fraction of the beam that the band limit has left.
    phonon_noise
        Per layer, expected relative L1 deviation from the pattern of infinitely many phonon
        configurations, estimated from split halves; None without diffuse scattering.
    """

    patterns: np.ndarray
    clipped: np.ndarray
    within_band: np.ndarray
    phonon_noise: np.ndarray | None

    def quality(self) -> dict[str, list[float]]:
        """Return what is known of the errors of the patterns, per layer, for provenance."""
        known = {
            "fraction_within_band": self.within_band.round(7).tolist(),
            "fraction_clipped": self.clipped.round(9).tolist(),
        }
        if self.phonon_noise is not None:
            known["phonon_noise"] = self.phonon_noise.round(6).tolist()
        return known


@dataclass(frozen=True)
class ScatteringLibrary:
    """Bragg beams and diffuse scattering of one strain state, after every layer.

    Parameters
    ----------
    incident
        The incident waves.
    g_mrad
        Diffraction angles (x, y) of the Bragg beams, λg, in mrad, shape (beams, 2).
    beams
        Intensities of the Bragg beams, shape (layers, waves, beams), float32, fraction of the
        incident wave. With frozen phonons the coherent part, by an unbiased estimate.
    within_band
        Fraction of each wave that the band limit has left, shape (layers, waves).
    beam_noise
        Half the difference of two halves of the frozen-phonon configurations, shape of `beams`;
        None without frozen phonons for everything.
    diffuse
        Diffuse scattering; None with static atoms or for the coherent part alone.
    """

    incident: IncidentGrid
    g_mrad: np.ndarray
    beams: np.ndarray
    within_band: np.ndarray
    beam_noise: np.ndarray | None = None
    diffuse: DiffuseScattering | None = None

    def synthesise(
        self, aperture: Aperture, tilt_mrad: tuple[float, float], detector: Detector
    ) -> Synthesis:
        """Add up the discs of all beams and the diffuse scattering.

        Parameters
        ----------
        aperture, tilt_mrad
            Together the cone of incidence, which must lie within the waves of the library.
        detector
            Pixels on which to evaluate the pattern.

        Returns
        -------
        Synthesis
            Patterns and what is known of their errors.

        Raises
        ------
        RequestError
            If the cone of incidence is not covered by the waves of the library.
        """
        if not self.incident.covers(cone(aperture, tilt_mrad)):
            raise RequestError(
                f"the library holds no waves for a semi-angle of {aperture.semiangle_mrad:g} mrad "
                f"at a tilt of {tilt_mrad} mrad: name both when making it"
            )
        weights = self._wave_weights(aperture, tilt_mrad)
        within_band = self.within_band @ weights
        patterns = self._discs(self.beams, aperture, tilt_mrad, detector)
        if self.diffuse is not None:
            if self.diffuse.incident and self.diffuse.within_band is not None:
                weights = self.diffuse.incident.weights(aperture, tilt_mrad)
                within_band = self.diffuse.within_band @ weights
            patterns += self._background(self.diffuse.coefficients, weights, tilt_mrad, detector)
        negative = np.maximum(-patterns, 0).sum(axis=(1, 2), dtype=float)
        np.maximum(patterns, 0, out=patterns)
        total = patterns.sum(axis=(1, 2), dtype=float)
        noise = self._noise(weights, aperture, tilt_mrad, detector, total)
        return Synthesis(
            patterns,
            clipped=negative / total,
            within_band=within_band,
            phonon_noise=noise,
        )

    def _wave_weights(self, aperture: Aperture, tilt_mrad: tuple[float, float]) -> np.ndarray:
        """Share of each wave in an integral over the aperture, exact for what splines describe."""
        cx, cy = crystal_axis_mrad(tilt_mrad)
        fine = min(0.5 * self._step, aperture.outer_mrad / 8)
        n = math.ceil((aperture.outer_mrad + fine) / fine)
        axis = np.arange(-n, n + 1) * fine
        area = aperture.weights(axis, axis)
        x, y = self.incident.x_mrad, self.incident.y_mrad
        grid = _spline(y)(axis + cy).T @ area @ _spline(x)(axis + cx)
        waves = np.bincount(self.incident.nearest().ravel(), grid.ravel())
        return np.asarray(waves / waves.sum())

    @property
    def _step(self) -> float:
        return float(self.incident.x_mrad[1] - self.incident.x_mrad[0])

    def _discs(
        self,
        beams: np.ndarray,
        aperture: Aperture,
        tilt_mrad: tuple[float, float],
        detector: Detector,
    ) -> np.ndarray:
        cx, cy = crystal_axis_mrad(tilt_mrad)
        kx, ky = detector.kx_mrad, detector.ky_mrad
        result = np.zeros((len(beams), len(ky), len(kx)), np.float32)
        of_a_beam = np.ascontiguousarray(np.moveaxis(beams, -1, 0))
        nearest = self.incident.nearest()
        spline_x, spline_y = _spline(self.incident.x_mrad), _spline(self.incident.y_mrad)
        # A pixel takes part if a corner of it may be lit, and a grid needs two pixels.
        reach = aperture.outer_mrad + 1.5 * max(kx[1] - kx[0], ky[1] - ky[0])
        for beam, (gx, gy) in enumerate(self.g_mrad):
            x, y = _within(kx, gx, reach), _within(ky, gy, reach)
            if x.stop - x.start < 2 or y.stop - y.start < 2:
                continue
            weights = aperture.weights(kx[x] - gx, ky[y] - gy)
            if not weights.any():
                continue
            along_x = spline_x(kx[x] - gx + cx).astype(np.float32)
            along_y = spline_y(ky[y] - gy + cy).astype(np.float32)
            disc = along_y @ of_a_beam[beam][:, nearest] @ along_x.T
            disc *= weights.astype(np.float32)
            result[:, y, x] += disc
        return result

    def _background(
        self,
        coefficients: np.ndarray,
        weights: np.ndarray,
        tilt_mrad: tuple[float, float],
        detector: Detector,
    ) -> np.ndarray:
        assert self.diffuse is not None
        flat = coefficients.reshape(len(coefficients), -1)
        averaged = (weights.astype(np.float32) @ flat).reshape(coefficients.shape[1:])
        matrices, axes = [], []
        for pixels, centre in zip(
            (detector.kx_mrad, detector.ky_mrad), crystal_axis_mrad(tilt_mrad), strict=True
        ):
            count = max(4, math.ceil((pixels[-1] - pixels[0]) / _EVALUATION_STEP_mrad) + 1)
            coarse = np.linspace(pixels[0], pixels[-1], count)
            axes.append(coarse + centre)
            matrices.append(_spline(coarse)(pixels).astype(np.float32))
        intensity = self.diffuse.intensity(averaged, *axes).astype(np.float32)
        intensity *= np.float32(detector.pixel_mrad2)
        return np.asarray(matrices[1] @ intensity @ matrices[0].T)

    def _noise(
        self,
        weights: np.ndarray,
        aperture: Aperture,
        tilt_mrad: tuple[float, float],
        detector: Detector,
        total: np.ndarray,
    ) -> np.ndarray | None:
        if self.diffuse is None or self.diffuse.noise is None:
            return None
        nx, ny = (min(n, _NOISE_PIXELS) for n in detector.pixels)
        coarse = Detector(detector.field_of_view_mrad, (nx, ny))
        deviation = self._background(self.diffuse.noise, weights, tilt_mrad, coarse)
        if self.beam_noise is not None:
            deviation += self._discs(self.beam_noise, aperture, tilt_mrad, coarse)
        return np.asarray(np.abs(deviation).sum(axis=(1, 2), dtype=float) / total)


def _within(axis: np.ndarray, centre: float, reach: float) -> slice:
    start, stop = np.searchsorted(axis, [centre - reach, centre + reach])
    return slice(int(start), int(stop))


def _spline(points: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return what makes, from places, the matrix that interpolates values at points to there.

    By a cubic spline, constant outside.
    """
    # Interpolation is linear in the values: a spline through unit vectors gives its matrix.
    spline = scipy.interpolate.make_interp_spline(points, np.eye(len(points)), k=3)
    return lambda where: np.asarray(spline(np.clip(where, points[0], points[-1])))


class Recorder:
    """Collects exit waves into a :class:`ScatteringLibrary`.

    Parameters
    ----------
    grid
        Reciprocal lattice of the supercell.
    supercell
        Cells along the two cell vectors.
    incident
        The incident waves.
    layers, configurations
        Number of layers and of frozen-phonon configurations per wave (1: static atoms or mean
        transmissions).
    wavelength_A
        Wavelength in Å.
    reach_mrad
        Largest angle (x, y), in the frame of the crystal, at which patterns are wanted.
    beam_reach_mrad
        Largest diffraction angle of the beams to keep.
    diffuse_step_mrad
        Spacing of the knots over outgoing directions in mrad.
    widest_A
        Supercell vectors as rows, shape (2, 2), Å, of the most stretched crystal: less stretched
        ones have the same beams and splines.
    """

    def __init__(
        self,
        grid: ReciprocalGrid,
        supercell: tuple[int, int],
        incident: IncidentGrid,
        layers: int,
        configurations: int,
        wavelength_A: float,
        reach_mrad: tuple[float, float],
        beam_reach_mrad: float,
        diffuse_step_mrad: float,
        widest_A: np.ndarray,
    ) -> None:
        self.grid, self.incident = grid, incident
        self.configurations, self.wavelength_A = configurations, wavelength_A
        scale = 1e3 * wavelength_A
        self._axes = (
            diffuse_axes(grid, widest_A, reach_mrad, wavelength_A, diffuse_step_mrad)
            if configurations > 1
            else None
        )
        # Every beam that can lie in the band, for a wave at any place in it.
        limits = [2 * w // n + 1 for w, n in zip(grid.wave_limit, supercell, strict=True)]
        beams = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in limits), indexing="ij"), -1)
        self._beam_index = beams.reshape(-1, 2) * supercell
        self.g_mrad = scale * self._beam_index @ grid.reciprocal_per_A
        nearest = scale * self._beam_index @ np.linalg.inv(widest_A).T
        kept = np.hypot(*nearest.T) <= max(beam_reach_mrad, self._fit_reach_mrad())
        self._beam_index, self.g_mrad = self._beam_index[kept], self.g_mrad[kept]
        waves = int(np.count_nonzero(incident.covered))
        self._shape = (layers, waves, len(self.g_mrad))

    def _fit_reach_mrad(self) -> float:
        """Return how far the beams reach that lie among the points fitted as diffuse.

        They have to be known, to be taken out.
        """
        if self._axes is None:
            return 0.0
        first, second = (axis.limit + 0.5 for axis in self._axes)
        corners = np.array([[first, second], [first, -second]]) @ self.grid.reciprocal_per_A
        farthest = 1e3 * self.wavelength_A * np.hypot(*corners.T).max()
        return float(farthest + np.hypot(*self.incident.directions_mrad.T).max())

    @property
    def nbytes(self) -> int:
        """Memory of the library in bytes."""
        layers, waves, beams = self._shape
        if self._axes is None:
            return 4 * layers * waves * beams
        return 8 * layers * waves * (beams + self._axes[0].size * self._axes[1].size)

    def allocate(self) -> None:
        """Make room for the library."""
        layers, waves, _ = self._shape
        self.beams = np.zeros(self._shape, np.float32)
        self.within_band = np.zeros((layers, waves))
        if self._axes is not None:
            self.beam_noise = np.zeros(self._shape, np.float32)
            shape = (waves, layers, self._axes[0].size, self._axes[1].size)
            self.diffuse = np.zeros(shape, np.float32)
            self.diffuse_noise = np.zeros(shape, np.float32)

    def batch(self, waves: slice, start: np.ndarray, offset: np.ndarray, on: Arrays) -> WaveRecord:
        """Prepare to record some of the waves.

        Parameters
        ----------
        waves
            Which of them.
        start
            Lattice point (h, k) from which each starts, shape (w, 2).
        offset
            How far beside it, in units of the reciprocal vectors, shape (w, 2).
        on
            The device that propagates them.
        """
        return WaveRecord(self, waves, start, offset, on)

    def library(self) -> ScatteringLibrary:
        """Return what was recorded."""
        if self._axes is None:
            return ScatteringLibrary(self.incident, self.g_mrad, self.beams, self.within_band)
        return ScatteringLibrary(
            self.incident,
            self.g_mrad,
            self.beams,
            self.within_band,
            self.beam_noise,
            DiffuseScattering(
                self.diffuse,
                self.diffuse_noise,
                self._axes,
                self.grid.cell_A,
                self.wavelength_A,
            ),
        )


class WaveRecord:
    """Turns the exit waves of a batch into beams and diffuse scattering."""

    def __init__(
        self,
        recorder: Recorder,
        waves: slice,
        start: np.ndarray,
        offset: np.ndarray,
        on: Arrays,
    ) -> None:
        self._recorder, self._waves, self._on = recorder, waves, on
        xp = on.xp
        limit = np.array(recorder.grid.wave_limit)
        index = limit + start[:, None, :] + recorder._beam_index
        possible = ((index >= 0) & (index <= 2 * limit)).all(axis=-1)
        wave, self._beam = np.nonzero(possible)
        self._wave = wave
        self._points = tuple(xp.asarray(i) for i in (wave, *index[possible].T))
        if recorder._axes is not None:
            real = np.float32
            self._inner = tuple(
                slice(n - a.limit, n + a.limit + 1)
                for n, a in zip(recorder.grid.wave_limit, recorder._axes, strict=True)
            )
            self._project = tuple(
                xp.asarray(np.stack([axis.projection(o) for o in offsets]).astype(real))
                for axis, offsets in zip(recorder._axes, offset.T, strict=True)
            )

    def layer(self, index: int, wave: Any) -> None:
        """Record the waves after a layer.

        Parameters
        ----------
        index
            The layer, 0 for the first.
        wave
            Amplitudes, shape (w, configurations, h, k).
        """
        recorder = self._recorder
        n = recorder.configurations
        intensity = wave.real**2
        intensity += wave.imag**2
        total = intensity.sum(axis=1)
        total *= 1 / n
        recorder.within_band[index, self._waves] = self._on.to_host(
            total.sum(axis=(1, 2), dtype=np.float64)
        )
        which, h, k = self._points
        amplitude = wave[which, :, h, k]
        beam = amplitude.real**2 + amplitude.imag**2
        if n == 1:
            self._store(recorder.beams, index, beam[:, 0])
            return
        together = amplitude.sum(axis=1)
        coherent = (together.real**2 + together.imag**2 - beam.sum(axis=1)) / (n * (n - 1))
        self._store(recorder.beams, index, coherent)
        self._store(recorder.beam_noise, index, self._half_difference(beam))
        total[which, h, k] -= coherent
        self._fit(recorder.diffuse, index, total)
        difference = self._half_difference(intensity)
        difference[which, h, k] = 0
        self._fit(recorder.diffuse_noise, index, difference)

    def _half_difference(self, intensity: Any) -> Any:
        """Half the difference of two halves of the configurations (axis 1).

        As large as the deviation of the mean of all from that of infinitely many.
        """
        n = self._recorder.configurations
        a, b = n // 2, n - n // 2
        difference = intensity[:, :a].sum(axis=1) * (math.sqrt(b / a) / n)
        difference -= intensity[:, a:].sum(axis=1) * (math.sqrt(a / b) / n)
        return difference

    def _store(self, target: np.ndarray, layer: int, values: Any) -> None:
        target[layer, self._waves.start + self._wave, self._beam] = self._on.to_host(values)

    def _fit(self, target: np.ndarray, layer: int, intensity: Any) -> None:
        along_h, along_k = self._project
        rows, columns = self._inner
        points = intensity[:, rows, columns].astype(np.float32)
        coefficients = along_h @ points @ along_k.swapaxes(1, 2)
        target[self._waves, layer] = self._on.to_host(coefficients)
