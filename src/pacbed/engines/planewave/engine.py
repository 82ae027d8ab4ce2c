"""PACBED without probes: an incoherent sum over incident plane waves.

Averaging the intensity of a convergent probe over all positions in a period of the crystal removes
every interference between different incident directions, so that

    PACBED(k) = Σ_q |A(q)|² |S(k, q)|²,

with A the aperture and S(k, q) the wave scattered from q into k (cf. LeBeau et al.,
Ultramicroscopy 110 (2010) 118). A plane wave sees a periodic crystal: a deformed, in general
oblique, cell is exact for any strain. With frozen phonons the cell is a supercell, and since the
sum is incoherent, every plane wave may have thermal displacements of its own.

The mean amplitudes of a plane wave are its Bragg beams, smooth functions of q; what remains of its
intensity is diffuse, smooth functions of k. Both are interpolated from a coarse grid of incident
waves (:mod:`pacbed.engines.planewave.library`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from pacbed.engines.arrays import arrays, serial_linear_algebra
from pacbed.engines.planewave.atoms import (
    AtomTransmission,
    FormFactor,
    SampledFormFactor,
    analytic_form_factor,
)
from pacbed.engines.planewave.diffuse import crystal_axis_mrad, diffuse_axes
from pacbed.engines.planewave.library import (
    Recorder,
    ScatteringLibrary,
    Synthesis,
    cone,
)
from pacbed.engines.planewave.multislice import (
    AtomicPlane,
    FrozenPhonons,
    Multislice,
    Slicing,
    atomic_planes,
    bytes_per_wave,
    check_electrons,
    waves_together,
)
from pacbed.engines.planewave.sampling import BATCH, Sampling, sample_cones
from pacbed.engines.planewave.settings import (
    PRISMATIC_PIXEL_A,
    Numbers,
    PlaneWaveSettings,
    check_motion,
)
from pacbed.engines.planewave.waves import Band, IncidentGrid, ReciprocalGrid
from pacbed.engines.request import Device, Engine, Progress, SimulationRequest, SimulationResult
from pacbed.exceptions import RequestError
from pacbed.machine import memory_limit_bytes, peak_memory_MB
from pacbed.specimen.crystal import slab
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import lorentz_factor, wavelength_A


class PlaneWaveEngine(Engine):
    """PACBED patterns from incident plane waves.

    Parameters
    ----------
    settings
        Numerical settings.
    threads
        Threads that may be used; results do not depend on it.
    device
        ``cpu`` or ``gpu``.
    batch
        Waves propagated together; by default what suits the device. Results do not depend on it.

    Raises
    ------
    RequestError
        If the device cannot be used.
    """

    name = "planewave"

    def __init__(
        self,
        settings: PlaneWaveSettings | None = None,
        threads: int = 1,
        device: Device = "cpu",
        batch: int | None = None,
    ) -> None:
        self.settings = settings or PlaneWaveSettings()
        # A graphics card is kept busy by one batch.
        self.threads = threads if device == "cpu" else 1
        self.batch, self.device = batch, device
        self._on = arrays(device)

    def simulate_together(
        self,
        requests: Sequence[SimulationRequest],
        progress: Progress | None = None,
        checkpoints: Sequence[Path] | None = None,
    ) -> list[SimulationResult]:
        """Compute the crystal once, and all patterns from it; see the base class.

        That takes minutes, so that no checkpoint is kept.
        """
        started = time.perf_counter()
        library, provenance = self.scatter(requests, progress)
        propagated = time.perf_counter()
        provenance["patterns_computed_together"] = len(requests)
        made = self.synthesise(library, requests)
        times = {
            "seconds": round(time.perf_counter() - started, 3),
            "seconds_propagating": round(propagated - started, 3),
            "peak_memory_MB": round(peak_memory_MB(), 1),
        }
        return [
            SimulationResult(one.patterns, {**provenance, **one.quality(), **times}) for one in made
        ]

    def synthesise(
        self, library: ScatteringLibrary, requests: Sequence[SimulationRequest]
    ) -> list[Synthesis]:
        """Put the patterns of requests together from what the crystal does to their waves.

        Raises
        ------
        RequestError
            If the library does not hold the waves of a request.
        """
        with serial_linear_algebra(), ThreadPoolExecutor(self.threads) as pool:
            return list(
                pool.map(
                    lambda r: library.synthesise(r.aperture, r.tilt_mrad, r.detector), requests
                )
            )

    def scatter(
        self,
        requests: Sequence[SimulationRequest],
        progress: Progress | None = None,
        shared_phonons: bool = False,
        largest_stretch: float | None = None,
    ) -> tuple[ScatteringLibrary, dict[str, Any]]:
        """Compute what the crystal of some requests does to all waves that they need.

        Parameters
        ----------
        requests
            They differ in aperture, tilt and detector only.
        progress
            Called with the number of waves done and their total.
        shared_phonons
            Give all waves the same displacements, to study interpolation between waves.
        largest_stretch
            Largest principal stretch of all crystals that are to have the same beams and splines;
            by default that of this one.

        Returns
        -------
        ScatteringLibrary
            From which the pattern of each request can be synthesised.
        dict
            Provenance.

        Raises
        ------
        RequestError, EngineError
            As :meth:`simulate_together`; also if the calculation makes electrons.
        """
        settings, first = self.settings, requests[0]
        asks: dict[str, Any] = {
            "aperture": first.aperture,
            "tilt_mrad": first.tilt_mrad,
            "detector": first.detector,
        }
        if any(replace(r, **asks) != first for r in requests):
            raise RequestError(
                "patterns can be computed together only for one crystal, energy, treatment of "
                "thermal motion and seed"
            )
        cell = first.material.in_plane_cell_A(first.deformation)
        check_motion(first.thermal.motion, settings, cell)
        configurations = first.thermal.configurations
        stretch = largest_stretch or float(np.linalg.norm(first.deformation.gradient, 2))
        reach = max(_reach_mrad(requests))
        numbers = _numbers(requests, settings, stretch, reach)
        cones = [cone(r.aperture, r.tilt_mrad) for r in requests]
        incident = IncidentGrid.over(cones, numbers.incident_step_mrad)
        if largest_stretch:
            # All crystals are to have the waves of the whole grid, its corners too.
            reach = max(reach, math.hypot(incident.x_mrad[-1], incident.y_mrad[-1]))
            numbers = _numbers(requests, settings, stretch, reach)
        centre = self._band_centre_mrad(requests)
        band = numbers.band(centre, first.deformation)
        _check_detectors(requests, centre, numbers, stretch)
        _check_incidence(incident, band, numbers)
        whole = incident.all_covered()
        if not configurations and _within(whole, band, numbers):
            incident = whole
        elif largest_stretch:
            _check_incidence(whole, band, numbers)
        phonons = (
            FrozenPhonons(first.material, configurations, first.seed, shared_phonons)
            if configurations
            else None
        )
        multislice = self._multislice(first, numbers, band, phonons)
        widest = stretch * first.material.in_plane_cell_A(Deformation())
        recorder = self._recorder(requests, multislice, incident, numbers.wavelength_A, widest)
        full = first.thermal.motion == "full"
        sampling = self._sampling(requests, numbers, band, widest) if full else None
        self._check_memory(requests, recorder, multislice.atoms, sampling)
        recorder.allocate()
        waves = len(incident.directions_mrad)
        of_all = waves + (len(sampling.directions_mrad) if sampling else 0)

        def report(before: int) -> Progress | None:
            return progress and (lambda done, total: progress(before + done, of_all))

        multislice.propagate(recorder, self.threads, self.batch, report(0))
        check_electrons(recorder.within_band)
        library = recorder.library()
        provenance = {
            "engine": self.name,
            "settings": asdict(settings),
            "cutoff_per_A": numbers.cutoff_per_A,
            "incident_step_mrad": numbers.incident_step_mrad,
            "device": self.device,
            "grid": list(multislice.grid.fft_shape),
            "plane_waves": int(np.count_nonzero(incident.covered)),
            "configurations_per_wave": configurations,
            "band_centre_mrad": list(centre),
        }
        if sampling:
            library = replace(library, diffuse=sampling.scatter(self.threads, report(waves)))
        return library, provenance

    def _multislice(
        self,
        request: SimulationRequest,
        numbers: Numbers,
        band: Band,
        phonons: FrozenPhonons | None,
        mean_of_diffuse: bool = False,
    ) -> Multislice:
        """Prepare the crystal of a request: a supercell of displaced atoms, or one cell.

        Parameters
        ----------
        request
            The crystal.
        numbers
            Settings.
        band
            Waves that are propagated.
        phonons
            Thermal displacements; None for mean transmissions or static atoms.
        mean_of_diffuse
            Whether limits are those of the supercell from whose waves these are subtracted.
        """
        supercell = self.settings.supercell if phonons else (1, 1)
        cell = request.material.in_plane_cell_A(request.deformation)
        ratios = numbers.grid_ratios(exact=phonons is None and not mean_of_diffuse)
        grid = ReciprocalGrid.for_band(
            cell * np.array(supercell)[:, None], band, ratios[0], ratios[1], supercell
        )
        planes = atomic_planes(
            slab(request.material, request.deformation, request.layers), supercell
        )
        with serial_linear_algebra():
            return Multislice(
                grid,
                planes,
                self._slicing(
                    request, planes, grid, phonons is not None, ratios[0] * numbers.cutoff_per_A
                ),
                band.contains,
                numbers.wavelength_A,
                phonons,
                self._on,
                self.settings.precision == "double",
            )

    def _sampling(
        self,
        requests: Sequence[SimulationRequest],
        numbers: Numbers,
        band: Band,
        widest_A: np.ndarray,
    ) -> Sampling:
        """Prepare to sample the diffuse scattering of the crystal of some requests."""
        first, settings = requests[0], self.settings
        outgoing_mrad, incident_mrad = settings.diffuse_knots_mrad
        phonons = FrozenPhonons(first.material, 1, first.seed)
        displaced = self._multislice(first, numbers, band, phonons)
        return Sampling(
            displaced,
            self._multislice(first, numbers, band, None, mean_of_diffuse=True),
            sample_cones([cone(r.aperture, r.tilt_mrad) for r in requests], settings.diffuse_waves),
            diffuse_axes(
                displaced.grid,
                widest_A * np.array(settings.supercell)[:, None],
                _reach_mrad(requests),
                numbers.wavelength_A,
                outgoing_mrad,
            ),
            incident_mrad,
            first.layers,
            numbers.wavelength_A,
        )

    def _band_centre_mrad(self, requests: Sequence[SimulationRequest]) -> tuple[float, float]:
        """Return the centre of the band limit in the frame of the crystal.

        In a program that tilts the sample the band limit belongs to the frame of the pattern.
        Where several tilts share a calculation, it belongs to the crystal.
        """
        tilts = {r.tilt_mrad for r in requests}
        if self.settings.band_limit == "prismatic" and len(tilts) == 1:
            return crystal_axis_mrad(next(iter(tilts)))
        return 0.0, 0.0

    def _slicing(
        self,
        request: SimulationRequest,
        planes: list[AtomicPlane],
        grid: ReciprocalGrid,
        displaced: bool,
        cutoff_per_A: float,
    ) -> Slicing:
        settings, material = self.settings, request.material
        ends = material.layer_ends_A(request.layers)
        wavelength = wavelength_A(request.energy_keV)
        phase = wavelength * lorentz_factor(request.energy_keV)
        rms = {} if request.thermal.motion == "none" else material.displacements_A
        if isinstance(settings.slices_per_layer, str):
            band = Band(cutoff_per_A, gradient=request.deformation.gradient)
            definite, mean = (AtomTransmission(wavelength, phase, band, r) for r in ({}, rms))
            return Slicing.on_planes(planes, ends, grid, definite if displaced else mean, mean)
        return Slicing.equal(
            planes,
            ends,
            settings.slices_per_layer,
            grid,
            _form_factor(settings, cutoff_per_A, ends[0] / settings.slices_per_layer),
            phase,
        )

    def _recorder(
        self,
        requests: Sequence[SimulationRequest],
        multislice: Multislice,
        incident: IncidentGrid,
        wavelength: float,
        widest_A: np.ndarray,
    ) -> Recorder:
        cells = multislice.planes[0].cells
        reach = _reach_mrad(requests)
        outermost = max(r.aperture.outer_mrad for r in requests)
        return Recorder(
            multislice.grid,
            cells,
            incident,
            requests[0].layers,
            multislice.configurations,
            wavelength,
            reach,
            math.hypot(*reach) + outermost,
            self.settings.diffuse_knots_mrad[0],
            widest_A * np.array(cells)[:, None],
        )

    def _check_memory(
        self,
        requests: Sequence[SimulationRequest],
        recorder: Recorder,
        atoms: int,
        sampling: Sampling | None,
    ) -> None:
        """Compare an estimate with what there is, before anything large is allocated."""
        layers, pixels = requests[0].layers, [math.prod(r.detector.pixels) for r in requests]
        # All patterns, and two more of the largest while it is put together.
        patterns = 4 * layers * (sum(pixels) + 2 * max(pixels))
        batch = self.batch or waves_together(recorder.configurations)
        item = 16 if self.settings.precision == "double" else 8
        working = bytes_per_wave(recorder.grid, recorder.configurations, atoms, item)
        together, needed = batch * working, recorder.nbytes + patterns
        if sampling:
            of_one = bytes_per_wave(sampling.displaced.grid, 1, sampling.displaced.atoms, item)
            working, together = max(working, of_one), max(together, BATCH * of_one)
            needed += sampling.nbytes
        if self.device == "cpu":
            needed += self.threads * together
        else:
            free = self._on.free_memory_bytes()
            if free is not None and working > free:
                raise RequestError(
                    f"a plane wave needs {working / 1e9:.1f} GB, but the card has "
                    f"{free / 1e9:.1f} GB: choose a smaller supercell or band limit"
                )
        available = memory_limit_bytes()
        if needed > available:
            raise RequestError(
                f"about {needed / 1e9:.1f} GB of memory would be needed, but this machine has "
                f"{available / 1e9:.1f} GB: choose a larger incident_step_mrad, fewer pixels or "
                "diffuse_waves, a smaller field of view or supercell, fewer layers, semi-angles or "
                "tilts at once, or fewer threads"
            )


def _numbers(
    requests: Sequence[SimulationRequest],
    settings: PlaneWaveSettings,
    stretch: float,
    reach_mrad: float,
) -> Numbers:
    """Return the settings of a calculation in numbers."""
    first = requests[0]
    return settings.numbers(
        first.energy_keV,
        first.material.thickness_A(first.layers),
        first.material.period_A,
        reach_mrad,
        stretch,
    )


def _check_detectors(
    requests: Sequence[SimulationRequest],
    band_centre_mrad: tuple[float, float],
    numbers: Numbers,
    stretch: float,
) -> None:
    chosen = numbers.settings.band_limit
    limit = 1e3 * numbers.wavelength_A * numbers.cutoff_per_A
    limit /= 1 if chosen == "prismatic" else stretch
    other = "the band limit 'converged', which follows the field of view, or "
    for request in requests:
        axis = np.abs(np.subtract(crystal_axis_mrad(request.tilt_mrad), band_centre_mrad))
        reach = float((np.array(request.detector.field_of_view_mrad) / 2 + axis).max())
        if reach > limit:
            tilted = f" at a tilt of {request.tilt_mrad} mrad" if axis.any() else ""
            # Rounded up, so that it is accepted. A series has its tilts added to its field.
            too_wide = math.ceil(20 * (reach - limit)) / 10
            raise RequestError(
                f"the detector reaches {reach:.4g} mrad{tilted}, but the band limit '{chosen}' "
                f"lets waves through up to {limit:.4g} mrad: choose "
                f"{'' if chosen == 'converged' else other}a field of view (--fov, "
                f"field_of_view_mrad) that is {too_wide:g} mrad narrower"
            )


def _within(incident: IncidentGrid, band: Band, numbers: Numbers) -> bool:
    """Return whether all waves start in the band."""
    directions = incident.directions_mrad.T / (1e3 * numbers.wavelength_A)
    return bool(band.contains(*directions).all())


def _check_incidence(incident: IncidentGrid, band: Band, numbers: Numbers) -> None:
    if not _within(incident, band, numbers):
        farthest = np.hypot(*incident.directions_mrad.T).max()
        raise RequestError(
            f"tilt, semi-angle and incident step ask for waves up to {farthest:.4g} mrad from the "
            f"axis of the crystal, but the band limit '{numbers.settings.band_limit}' lets waves "
            f"through up to {1e3 * numbers.wavelength_A * band.smallest_per_A:.4g} mrad: choose "
            "less tilt or a larger band limit, or 'converged', which follows them"
        )


def _form_factor(settings: PlaneWaveSettings, cutoff_per_A: float, slice_A: float) -> FormFactor:
    """Return the form factor of atoms in equal slices, limited to the band."""
    # In the corners of Prismatic's square band the window of the sampled potential has closed.
    limit = cutoff_per_A**2
    sampled = settings.band_limit == "prismatic"
    factor = SampledFormFactor(PRISMATIC_PIXEL_A, slice_A) if sampled else analytic_form_factor

    def limited(element: str, qx: np.ndarray, qy: np.ndarray, z1: float, z2: float) -> np.ndarray:
        return np.asarray(factor(element, qx, qy, z1, z2) * (qx**2 + qy**2 <= limit))

    return limited


def _reach_mrad(requests: Sequence[SimulationRequest]) -> tuple[float, float]:
    """Return the largest angles (x, y) of the pixels, in the frame of the crystal, in mrad."""
    reach = [0.0, 0.0]
    for request in requests:
        centre = crystal_axis_mrad(request.tilt_mrad)
        for axis, (field, pixels) in enumerate(
            zip(request.detector.field_of_view_mrad, request.detector.pixels, strict=True)
        ):
            reach[axis] = max(reach[axis], field / 2 + field / pixels + abs(centre[axis]))
    return reach[0], reach[1]
