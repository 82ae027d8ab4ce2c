"""PACBED without probes: an incoherent sum over incident plane waves.

Averaging the intensity of a convergent probe over all positions in a period of the crystal removes
every interference between different incident directions, so that

    PACBED(k) = Σ_q |A(q)|² |S(k, q)|²,

with A the aperture and S(k, q) the wave scattered from q into k (cf. LeBeau et al.,
Ultramicroscopy 110 (2010) 118). A plane wave sees a periodic crystal: one deformed, in general
oblique, unit cell is exact for any strain. The intensities of the Bragg beams are smooth functions
of q and are interpolated from a coarse grid of incident waves.

Waves are labelled in the frame of the crystal. Tilting the sample by φ is, seen from there, an
incident cone centred at -tan φ/λ, and a pattern shifted back by +tan φ/λ: discs stay where they
are, their filling changes.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import ase
import numpy as np
import scipy.fft
from scipy.interpolate import make_interp_spline
from scipy.ndimage import distance_transform_edt
from threadpoolctl import threadpool_limits

from pacbed.crystal import Material, slab
from pacbed.engines.base import Progress, SimulationRequest, SimulationResult
from pacbed.engines.scattering import FormFactor, SampledFormFactor, analytic_form_factor
from pacbed.errors import RequestError
from pacbed.microscope import Aperture, Detector, lorentz_factor, wavelength_A

PRISMATIC_PIXEL_A = 0.15
CONVERGED_CUTOFF_PER_A = 3.3
# Beyond this distance the potential of an atom is negligible.
POTENTIAL_REACH_A = 6.0
# Plane waves propagated together: enough to feed the FFT, few enough to stay in the cache.
BATCH = 32


@dataclass(frozen=True)
class PlaneWaveSettings:
    """Numerical settings of the plane-wave engine.

    Parameters
    ----------
    band_limit
        ``converged``: analytic potential, beams up to 3.3 1/Å. ``prismatic``: potential and band
        limit as Prismatic 2.0 at the paper's sampling of 0.15 Å.
    incident_step_mrad
        Spacing of the grid of incident waves in mrad.
    slices_per_layer
        Number of slices per layer.
    """

    band_limit: Literal["converged", "prismatic"] = "converged"
    incident_step_mrad: float = 1.5
    slices_per_layer: int = 3

    def __post_init__(self) -> None:
        if self.band_limit not in ("converged", "prismatic"):
            raise RequestError(
                f"band limit must be 'converged' or 'prismatic', not '{self.band_limit}'"
            )
        if not self.incident_step_mrad > 0:
            raise RequestError(
                f"the incident step must be positive, not {self.incident_step_mrad} mrad"
            )
        if self.slices_per_layer < 1:
            raise RequestError(f"at least one slice per layer, not {self.slices_per_layer}")

    @property
    def cutoff_per_A(self) -> float:
        """Largest spatial frequency (per axis, for ``prismatic``) that is propagated, in 1/Å."""
        if self.band_limit == "prismatic":
            return 1 / (4 * PRISMATIC_PIXEL_A)  # half of the Nyquist frequency
        return CONVERGED_CUTOFF_PER_A

    def passes(self, qx: np.ndarray, qy: np.ndarray) -> np.ndarray:
        """Tell which spatial frequencies (1/Å) are propagated."""
        if self.band_limit == "prismatic":
            return np.maximum(np.abs(qx), np.abs(qy)) <= self.cutoff_per_A
        return np.asarray(qx**2 + qy**2 <= self.cutoff_per_A**2)

    def form_factor(self, slice_A: float) -> FormFactor:
        """Return how the potential of an atom is evaluated."""
        if self.band_limit == "prismatic":
            return SampledFormFactor(PRISMATIC_PIXEL_A, slice_A)
        return analytic_form_factor


@dataclass(frozen=True)
class ReciprocalGrid:
    """Reciprocal-lattice points of an in-plane cell, in FFT order.

    Parameters
    ----------
    cell_A
        In-plane cell vectors as rows, shape (2, 2), Å.
    shape
        Number of points along the two cell vectors.
    """

    cell_A: np.ndarray
    shape: tuple[int, int]

    @classmethod
    def for_cutoff(cls, cell_A: np.ndarray, cutoff_per_A: float) -> ReciprocalGrid:
        """Choose the grid so that products of wave and transmission function do not alias.

        With a wave limited to the cutoff W, the transmission function matters up to 2 W, and a
        grid that holds 4 W folds nothing back into the band.
        """
        edges = np.linalg.norm(cell_A, axis=1)
        n1, n2 = (scipy.fft.next_fast_len(math.ceil(4 * cutoff_per_A * e)) for e in edges)
        return cls(cell_A, (n1, n2))

    @property
    def area_A2(self) -> float:
        """Area of the cell in Å²."""
        return float(abs(np.linalg.det(self.cell_A)))

    @property
    def indices(self) -> tuple[np.ndarray, np.ndarray]:
        """Miller indices (h, k) of the points, each of shape `shape`."""
        h, k = (np.fft.fftfreq(n, 1 / n) for n in self.shape)
        rows, columns = np.meshgrid(h, k, indexing="ij")
        return rows, columns

    @property
    def vectors_per_A(self) -> tuple[np.ndarray, np.ndarray]:
        """Cartesian components (gx, gy) in 1/Å, each of shape `shape`."""
        h, k = self.indices
        reciprocal = np.linalg.inv(self.cell_A).T
        gx, gy = (h * reciprocal[0, i] + k * reciprocal[1, i] for i in range(2))
        return gx, gy


@dataclass(frozen=True)
class IncidentGrid:
    """Incident plane waves on a square grid that covers a disc.

    Parameters
    ----------
    axis_mrad
        Grid coordinates, the same along x and y, relative to the centre of the disc, in mrad.
    covered
        Which points (y, x) of the grid are propagated, shape (m, m).
    centre_mrad
        Centre of the disc in the frame of the crystal (x, y), in mrad.
    """

    axis_mrad: np.ndarray
    covered: np.ndarray
    centre_mrad: tuple[float, float]

    @classmethod
    def over_disc(
        cls, radius_mrad: float, step_mrad: float, centre_mrad: tuple[float, float]
    ) -> IncidentGrid:
        """Cover a disc, with a margin that keeps interpolation inside the computed waves."""
        covered_radius = radius_mrad + math.sqrt(2) * step_mrad
        n = max(2, math.ceil(covered_radius / step_mrad))
        axis = np.arange(-n, n + 1) * step_mrad
        covered = np.hypot(axis[None, :], axis[:, None]) <= covered_radius
        return cls(axis, covered, centre_mrad)

    @property
    def waves_mrad(self) -> np.ndarray:
        """Directions (x, y) of the propagated waves in the frame of the crystal, shape (w, 2)."""
        rows, columns = np.nonzero(self.covered)
        return np.column_stack([self.axis_mrad[columns], self.axis_mrad[rows]]) + self.centre_mrad

    def fill(self, values: np.ndarray) -> np.ndarray:
        """Spread values per wave over the square grid; points not covered take the nearest value.

        Parameters
        ----------
        values
            Shape (..., w).

        Returns
        -------
        numpy.ndarray
            Shape (..., m, m).
        """
        rows, columns = distance_transform_edt(
            ~self.covered, return_distances=False, return_indices=True
        )
        number = np.zeros(self.covered.shape, int)
        number[self.covered] = np.arange(np.count_nonzero(self.covered))
        return np.asarray(values[..., number[rows, columns]])


@dataclass(frozen=True)
class BraggBeams:
    """Intensities of Bragg beams for a grid of incident waves, after every layer.

    Parameters
    ----------
    intensity
        Shape (layers, waves, beams), float32, fraction of the incident wave.
    g_mrad
        Diffraction angles (x, y) of the beams, λg, in mrad, shape (beams, 2).
    within_band
        Fraction of each wave that the band limit has left, shape (layers, waves).
    incident
        The incident waves.
    """

    intensity: np.ndarray
    g_mrad: np.ndarray
    within_band: np.ndarray
    incident: IncidentGrid

    def patterns(self, aperture: Aperture, detector: Detector) -> np.ndarray:
        """Add up the discs of all beams.

        Parameters
        ----------
        aperture
            Filled by the incident waves; its outer radius must lie inside their disc.
        detector
            Pixels on which to evaluate the pattern.

        Returns
        -------
        numpy.ndarray
            Shape (layers, ny, nx), float32, fraction of the incident electrons per pixel.
        """
        layers = len(self.intensity)
        kx, ky = detector.kx_mrad, detector.ky_mrad
        result = np.zeros((layers, len(ky), len(kx)), np.float32)
        axis = self.incident.axis_mrad
        # Interpolation is linear in the values: a spline through unit vectors gives its matrix.
        spline = make_interp_spline(axis, np.eye(len(axis)), k=3)
        # A pixel takes part if a corner of it may be lit, and a grid needs two pixels.
        reach = aperture.outer_mrad + 1.5 * max(kx[1] - kx[0], ky[1] - ky[0])
        # One thread: the order of summation, and so the bytes, must not depend on their number.
        with threadpool_limits(1, user_api="blas"):
            for beam, (gx, gy) in enumerate(self.g_mrad):
                x, y = _within(kx, gx, reach), _within(ky, gy, reach)
                if x.stop - x.start < 2 or y.stop - y.start < 2:
                    continue
                weights = aperture.weights(kx[x] - gx, ky[y] - gy)
                if not weights.any():
                    continue
                along_x = spline(np.clip(kx[x] - gx, axis[0], axis[-1])).astype(np.float32)
                along_y = spline(np.clip(ky[y] - gy, axis[0], axis[-1])).astype(np.float32)
                disc = along_y @ self.incident.fill(self.intensity[:, :, beam]) @ along_x.T
                result[:, y, x] += disc * weights.astype(np.float32)
        # Interpolation may undershoot where a beam is extinct.
        return np.maximum(result, 0, out=result)

    def fraction_within_band(self, aperture: Aperture) -> np.ndarray:
        """Return the fraction of the beam that the band limit leaves after each layer."""
        axis = self.incident.axis_mrad
        weights = aperture.weights(axis, axis)[self.incident.covered]
        return np.asarray(self.within_band @ (weights / weights.sum()))


def _within(axis: np.ndarray, centre: float, reach: float) -> slice:
    start, stop = np.searchsorted(axis, [centre - reach, centre + reach])
    return slice(int(start), int(stop))


class Multislice:
    """Transmission functions of a slab and the propagation of plane waves through it.

    Parameters
    ----------
    atoms
        One in-plane cell of the slab; the beam enters at the largest z.
    material
        For layer thickness and thermal displacements.
    layers
        Number of layers of the slab.
    energy_keV
        Beam energy in keV.
    settings
        Numerical settings.
    debye_waller
        Whether to damp the potential by the Debye-Waller factor exp(-2π² u² q²).
    """

    def __init__(
        self,
        atoms: ase.Atoms,
        material: Material,
        layers: int,
        energy_keV: float,
        settings: PlaneWaveSettings,
        debye_waller: bool,
    ) -> None:
        self.settings = settings
        self.layers = layers
        self.wavelength_A = wavelength_A(energy_keV)
        self.slice_A = material.layer_thickness_A / settings.slices_per_layer
        self.slices = layers * settings.slices_per_layer
        self.grid = ReciprocalGrid.for_cutoff(atoms.cell.array[:2, :2], settings.cutoff_per_A)
        self._gx, self._gy = self.grid.vectors_per_A
        self._displacement = material.rms_displacement_A if debye_waller else None
        # Phase per unit of form factor: σ h²/(2π m₀ e) = λ γ, spread over the area of the cell.
        self._phase = self.wavelength_A * lorentz_factor(energy_keV) / self.grid.area_A2
        self._form_factor = settings.form_factor(self.slice_A)
        self._transmissions: dict[tuple, np.ndarray] = {}
        self._form_factors: dict[tuple, np.ndarray] = {}
        depth = atoms.cell.array[2, 2] - atoms.positions[:, 2]
        self._atoms = [
            (symbol, round(float(d), 9), tuple(np.round(s[:2] % 1, 9)))
            for symbol, d, s in zip(
                atoms.get_chemical_symbols(), depth, atoms.get_scaled_positions(), strict=True
            )
        ]

    def transmission(self, index: int) -> np.ndarray:
        """Return the transmission function exp(iσV) of a slice, shape of the grid, complex64.

        Slices with the same contents share one array. What the potential of the outermost atoms
        leaves outside the slab is added to its first and last slice.
        """
        top, bottom = index * self.slice_A, (index + 1) * self.slice_A
        contents = []
        for symbol, depth, site in self._atoms:
            if not top - POTENTIAL_REACH_A < depth < bottom + POTENTIAL_REACH_A:
                continue
            z1 = -math.inf if index == 0 else round(top - depth, 6)
            z2 = math.inf if index == self.slices - 1 else round(bottom - depth, 6)
            contents.append((symbol, z1, z2, site))
        key = tuple(contents)
        if key not in self._transmissions:
            self._transmissions[key] = self._transmit(contents)
        return self._transmissions[key]

    def _transmit(self, contents: list) -> np.ndarray:
        h, k = self.grid.indices
        potential = np.zeros(self.grid.shape, complex)
        for symbol, z1, z2, (u, v) in contents:
            structure = np.exp(-2j * math.pi * (h * u + k * v))
            potential += self._atom(symbol, z1, z2) * structure
        points = self.grid.shape[0] * self.grid.shape[1]
        phase = np.fft.ifft2(potential).real * (points * self._phase)
        return np.exp(1j * phase).astype(np.complex64)

    def _atom(self, symbol: str, z1: float, z2: float) -> np.ndarray:
        key = (symbol, z1, z2)
        if key not in self._form_factors:
            factor = self._form_factor(symbol, self._gx, self._gy, z1, z2)
            g2 = self._gx**2 + self._gy**2
            if self._displacement is not None:
                factor = factor * np.exp(-2 * math.pi**2 * self._displacement[symbol] ** 2 * g2)
            # Two beams of a round band are not further apart than this; in the corners of the
            # square one the window of the sampled potential has closed.
            self._form_factors[key] = factor * (g2 <= (2 * self.settings.cutoff_per_A) ** 2)
        return self._form_factors[key]

    def propagate(
        self,
        incident: IncidentGrid,
        reach_mrad: float,
        threads: int = 1,
        progress: Progress | None = None,
    ) -> BraggBeams:
        """Send every incident wave through the slab.

        Parameters
        ----------
        incident
            The incident waves.
        reach_mrad
            Keep the beams whose diffraction angle is not larger than this.
        threads
            Threads of the FFT; results do not depend on it.
        progress
            Called after each batch with the number of waves done and their total.

        Returns
        -------
        BraggBeams
            Intensities after every layer.
        """
        scale = 1e3 * self.wavelength_A
        angle = np.hypot(self._gx, self._gy) * scale
        kept = np.flatnonzero(angle <= reach_mrad)
        waves = incident.waves_mrad / scale
        centre = np.array(incident.centre_mrad) / scale
        intensity = np.empty((self.layers, len(waves), len(kept)), np.float32)
        within_band = np.empty((self.layers, len(waves)))
        for start in range(0, len(waves), BATCH):
            batch = slice(start, min(start + BATCH, len(waves)))
            for layer, beams in enumerate(self._through(waves[batch], centre, threads)):
                intensity[layer, batch] = beams[:, kept]
                within_band[layer, batch] = beams.sum(axis=1, dtype=float)
            if progress:
                progress(batch.stop, len(waves))
        g = np.column_stack([self._gx.ravel()[kept], self._gy.ravel()[kept]]) * scale
        return BraggBeams(intensity, g, within_band, incident)

    def _through(self, waves: np.ndarray, centre: np.ndarray, threads: int) -> Iterator[np.ndarray]:
        kx = (waves[:, 0, None, None] + self._gx).astype(float)
        ky = (waves[:, 1, None, None] + self._gy).astype(float)
        phase = -math.pi * self.wavelength_A * self.slice_A * (kx**2 + ky**2)
        # The band limit belongs to the frame of the pattern, as in a program that tilts the sample.
        passes = self.settings.passes(kx - centre[0], ky - centre[1])
        propagator = (np.exp(1j * phase) * passes).astype(np.complex64)
        wave = np.zeros(propagator.shape, np.complex64)
        wave[:, 0, 0] = 1
        for index in range(self.slices):
            wave = scipy.fft.ifft2(wave, workers=threads, overwrite_x=True)
            wave *= self.transmission(index)
            wave = scipy.fft.fft2(wave, workers=threads, overwrite_x=True)
            wave *= propagator
            if (index + 1) % self.settings.slices_per_layer == 0:
                flat = wave.reshape(len(waves), -1)
                yield flat.real**2 + flat.imag**2


class PlaneWaveEngine:
    """PACBED patterns from incident plane waves (an :class:`~pacbed.engines.base.Engine`).

    Parameters
    ----------
    settings
        Numerical settings.
    threads
        Threads that may be used; results do not depend on it.
    """

    name = "planewave"

    def __init__(self, settings: PlaneWaveSettings | None = None, threads: int = 1) -> None:
        self.settings = settings or PlaneWaveSettings()
        self.threads = threads

    def simulate(
        self, request: SimulationRequest, progress: Progress | None = None
    ) -> SimulationResult:
        """Compute the patterns of a request.

        Raises
        ------
        RequestError
            If frozen phonons are asked for, which this engine does not have.
        """
        if request.thermal.phonon_configurations:
            raise RequestError(
                "the planewave engine has no frozen phonons yet: ask for 0 phonon configurations "
                "(a Debye-Waller factor is available)"
            )
        started = time.perf_counter()
        settings = self.settings
        aperture, detector = request.aperture, request.detector
        multislice = Multislice(
            slab(request.material, request.deformation, request.layers),
            request.material,
            request.layers,
            request.energy_keV,
            settings,
            request.thermal.debye_waller,
        )
        tilt_x, tilt_y = (-1e3 * math.tan(1e-3 * t) for t in request.tilt_mrad)
        incident = IncidentGrid.over_disc(
            aperture.outer_mrad, settings.incident_step_mrad, (tilt_x, tilt_y)
        )
        corner = math.hypot(
            *(
                f / 2 + f / n
                for f, n in zip(detector.field_of_view_mrad, detector.pixels, strict=True)
            )
        )
        beams = multislice.propagate(incident, corner + aperture.outer_mrad, self.threads, progress)
        patterns = beams.patterns(aperture, detector)
        provenance = {
            "engine": self.name,
            "settings": asdict(settings),
            "grid": list(multislice.grid.shape),
            "plane_waves": int(np.count_nonzero(incident.covered)),
            "fraction_within_band": beams.fraction_within_band(aperture).round(7).tolist(),
            "seconds": round(time.perf_counter() - started, 3),
            "peak_memory_MB": round(_peak_memory_MB(), 1),
        }
        return SimulationResult(patterns, provenance)


def _peak_memory_MB() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)
