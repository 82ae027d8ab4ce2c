"""PACBED patterns from Prismatic 2.0 (Ophus 2017; Rangel DaCosta et al., Micron 151 (2021) 103141).

The paper's protocol: probes on a grid of positions in the deformed cell, each in a cell of its own,
through frozen-phonon configurations of a large box; the mean of their patterns after every layer.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import resource
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pacbed import __version__
from pacbed.engines.prismatic.checkpoint import Checkpoint
from pacbed.engines.prismatic.files import (
    add_patterns,
    keep_potential,
    on_detector,
    write_atoms,
    write_probes,
)
from pacbed.engines.prismatic.layout import Layout, memory_bytes
from pacbed.engines.prismatic.process import Installation, call, installation, scratch_folder
from pacbed.engines.prismatic.settings import Execution, Grid, PrismaticSettings
from pacbed.engines.prismatic.specimen import Specimen, specimen
from pacbed.engines.request import (
    PHYSICS_VERSION,
    Device,
    Engine,
    Progress,
    SimulationRequest,
    SimulationResult,
)
from pacbed.exceptions import EngineError, RequestError
from pacbed.machine import is_in_memory, memory_limit_bytes, peak_memory_MB

# Of the free space, what one job may fill.
_SCRATCH_SHARE = 0.8
# With less free space than this, a failure is taken to be due to it.
_SPARE_BYTES = 500_000_000
_PROBE = re.compile(r"Computing Probe Position #(\d+)/")


class PrismaticEngine(Engine):
    """PACBED patterns from Prismatic 2.0.

    Atoms and probes of a seed are the same, byte for byte, wherever they are made. The patterns
    agree to rounding: Prismatic adds up potentials in the order in which its threads end, and
    chooses its Fourier transforms by measuring their speed.

    The arguments are those of :func:`pacbed.engines.engine`.

    Raises
    ------
    RequestError
        If Prismatic 2.0 is not there, or was not built for the device.
    """

    name = "prismatic"

    def __init__(
        self,
        settings: PrismaticSettings | None = None,
        threads: int = 1,
        device: Device = "cpu",
        execution: Execution | None = None,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.settings = settings or PrismaticSettings()
        self.threads, self.device, self.log = threads, device, log
        self.execution = execution or Execution()
        self.installation: Installation = installation(self.execution.python)
        if device == "gpu" and not self.installation.gpu:
            raise RequestError(
                f"the pyprismatic of '{self.installation.python}' was not built for graphics "
                "cards: install 'pyprismatic=2.0=gpu*' (workflow/envs/simulate-prismatic-gpu.yaml)"
            )

    def simulate(
        self,
        request: SimulationRequest,
        progress: Progress | None = None,
        checkpoint: Path | None = None,
    ) -> SimulationResult:
        """Compute the patterns of a request; see the base class.

        Progress counts probes in all configurations. The checkpoint keeps finished configurations.
        """
        told = progress or (lambda done, total: None)
        started = time.perf_counter()
        layout = Layout.of(request, self.settings)
        self._check_memory(request, layout.grid)
        configurations = len(layout.shares)
        shape = 2, request.layers, *request.detector.pixels[::-1]
        kept = Checkpoint.load(checkpoint, self._fingerprint(request), shape, self.log)
        if kept.configurations:
            self.log(f"{kept.configurations} of {configurations} configurations were kept")
        before_s = kept.seconds
        atoms = specimen(request, layout.grid.edges_A)
        with scratch_folder() as folder:
            for number in range(kept.configurations, configurations):
                moved = atoms
                if request.thermal.configurations:
                    moved = atoms.displaced(request.seed, number)
                probes = layout.probes_A[layout.shares[number]]

                def done(some: int, before: int = sum(map(len, layout.shares[:number]))) -> None:
                    told(before + some, layout.total)

                native = self._patterns(request, layout.grid, moved, probes, folder, done)
                kept.within_band += native.sum(axis=(1, 2))
                # Two halves: their difference tells how large the phonon noise is.
                kept.sums[number % 2] += on_detector(native, layout.pixel_mrad, request.detector)
                kept.configurations += 1
                kept.seconds = before_s + time.perf_counter() - started
                peak = peak_memory_MB(resource.RUSAGE_CHILDREN)
                kept.peak_memory_MB = max(kept.peak_memory_MB, peak)
                kept.save()
        provenance: dict[str, Any] = {
            "engine": self.name,
            "prismatic_version": self.installation.version,
            "settings": asdict(self.settings),
            "device": self.device,
            **layout.provenance(),
            "atoms": len(atoms.numbers),
            "configurations": request.thermal.configurations,
            "fraction_within_band": (kept.within_band / layout.total).round(7).tolist(),
            # Of all attempts, if it was killed and went on.
            "seconds": round(kept.seconds, 3),
            "peak_memory_MB": round(kept.peak_memory_MB, 1),
        }
        if configurations > 1 and self.settings.probes_per_configuration == "all":
            provenance["phonon_noise"] = _phonon_noise(kept.sums, configurations)
        patterns = (kept.sums.sum(axis=0) / layout.total).astype(np.float32)
        return SimulationResult(patterns, provenance)

    def simulate_together(
        self,
        requests: Sequence[SimulationRequest],
        progress: Progress | None = None,
        checkpoints: Sequence[Path] | None = None,
    ) -> list[SimulationResult]:
        """Compute the patterns of several requests, one after another; see the base class."""
        told, results = progress or (lambda done, total: None), []
        for number, request in enumerate(requests):
            # As if all had as many probes; with `probes: auto` larger semi-angles have more.
            def of_all(done: int, total: int, before: int = number) -> None:
                told(before * total + done, len(requests) * total)

            kept = checkpoints[number] if checkpoints else None
            results.append(self.simulate(request, of_all, kept))
        return results

    def _patterns(
        self,
        request: SimulationRequest,
        grid: Grid,
        atoms: Specimen,
        probes: np.ndarray,
        folder: Path,
        done: Callable[[int], None],
    ) -> np.ndarray:
        """Return the sum of the patterns of some probes, shape (layers, nx, ny), float64."""
        write_atoms(folder / "atoms.xyz", atoms.numbers, atoms.positions_A, atoms.edges_A)
        native = np.zeros((request.layers, *grid.output_points))
        # Prismatic writes the pattern of every probe: 64 GB in the paper's protocol.
        portion = self._portion(request, grid, folder, len(probes))
        output, potential = folder / "patterns.h5", folder / "potential.h5"
        limit = self.execution.call_limit_h
        for first in range(0, len(probes), portion):
            some = probes[first : first + portion]
            write_probes(folder / "probes.txt", some)
            parameters = self._parameters(request)
            if first:
                parameters |= {"importPotential": True, "importFile": potential.name}
            elif portion < len(probes):
                parameters["savePotentialSlices"] = True

            heard = _listener(self.log, done, range(first, first + len(some)))
            try:
                call(self.installation.python, parameters, folder, limit and 3600 * limit, heard)
            except EngineError as error:
                free = shutil.disk_usage(folder).free
                if free > _SPARE_BYTES:
                    raise
                raise EngineError(
                    f"{error}. Only {free / 1e9:.2g} GB are free in {folder.parent}: other jobs of "
                    "this machine use it too; lower execution.scratch_GB, or set TMPDIR to a "
                    "folder on a larger local disk"
                ) from error
            add_patterns(output, native, grid, len(some), _layer_A(request))
            if not first and portion < len(probes):
                # It takes minutes, whatever the number of threads: not for every portion again.
                keep_potential(output, potential)
            output.unlink()
            done(first + len(some))
        potential.unlink(missing_ok=True)
        return native

    def _parameters(self, request: SimulationRequest) -> dict[str, Any]:
        settings = self.settings
        tilt_x, tilt_y = request.tilt_mrad
        return {
            "algorithm": "multislice",
            "filenameAtoms": "atoms.xyz",
            "filenameOutput": "patterns.h5",
            "probes_file": "probes.txt",
            "E0": request.energy_keV,
            "probeSemiangle": request.aperture.semiangle_mrad,
            # By default Prismatic defocuses to correct a C3 of its own.
            "probeDefocus": 0.0,
            "C3": 0.0,
            "C5": 0.0,
            "probeXtilt": tilt_x,
            "probeYtilt": tilt_y,
            "interpolationFactorX": settings.interpolation_factor,
            "interpolationFactorY": settings.interpolation_factor,
            "realspacePixelSizeX": settings.pixel_A,
            "realspacePixelSizeY": settings.pixel_A,
            "potential3D": True,
            "potBound": settings.potential_bound_A,
            "sliceThickness": settings.slice_A(_layer_A(request)),
            "numSlices": settings.slices_per_layer,
            "zStart": 0.0,
            # We displace the atoms: see `Specimen.displaced`.
            "numFP": 1,
            "includeThermalEffects": False,
            # Otherwise it draws a random number for each atom, and can leave out a full one.
            "includeOccupancy": False,
            "save4DOutput": True,
            # Cropped patterns would have wrong axes; complex ones are waves, not intensities.
            "crop4DOutput": False,
            "saveComplexOutputWave": False,
            "save2DOutput": False,
            "save3DOutput": False,
            # Python must pass it as an integer; Prismatic refuses to write more.
            "maxFileSize": 10**18,
            "numThreads": self.threads,
            "numGPUs": 1 if self.device == "gpu" else 0,
            "alsoDoCPUWork": True,
        }

    def _portion(self, request: SimulationRequest, grid: Grid, folder: Path, probes: int) -> int:
        """Return for how many probes at a time there is space."""
        nx, ny = grid.output_points
        each = 4 * request.layers * nx * ny
        free = _SCRATCH_SHARE * shutil.disk_usage(folder).free
        if is_in_memory(folder):
            needed = memory_bytes(request, self.settings, grid, self.threads)
            free = min(free, memory_limit_bytes() - needed)
        if self.execution.scratch_GB is not None:
            free = min(free, 1e9 * self.execution.scratch_GB)
        if probes * each <= free:
            return probes
        # For the next portion the potential is kept: in the output and in a file of its own.
        potential = 4 * request.layers * self.settings.slices_per_layer * math.prod(grid.points)
        needed = each + 2 * potential
        if free < needed:
            raise RequestError(
                f"the patterns of one probe and the potential take {needed / 1e9:.2g} GB, but "
                f"{max(0, free) / 1e9:.2g} GB of {folder.parent} can be used: free some space "
                "there, set TMPDIR to a folder on a larger local disk, or raise "
                "execution.scratch_GB"
            )
        return int((free - 2 * potential) // each)

    def _check_memory(self, request: SimulationRequest, grid: Grid) -> None:
        needed = memory_bytes(request, self.settings, grid, self.threads)
        available = memory_limit_bytes()
        if needed > available:
            raise RequestError(
                f"Prismatic would need about {needed / 1e9:.1f} GB of memory for "
                f"{grid.points[0]} × {grid.points[1]} pixels and {self.threads} threads, but there "
                f"are {available / 1e9:.1f} GB: choose a smaller box_A (or 'auto'), a larger "
                "pixel_A, fewer layers or threads, or a machine with more memory"
            )

    def _fingerprint(self, request: SimulationRequest) -> str:
        """Return what changes whenever a kept configuration could not be used any more."""
        asked = {
            "request": request.to_dict(),
            "settings": asdict(self.settings),
            "versions": [__version__, PHYSICS_VERSION, self.installation.version],
        }
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _layer_A(request: SimulationRequest) -> float:
    """Return the thickness of a layer: of all, which the layout has checked."""
    return request.material.layer_ends_A(1)[0]


def _listener(
    log: Callable[[str], None], done: Callable[[int], None], probes: range
) -> Callable[[str], None]:
    """Return what passes lines of Prismatic on, and tells with how many probes it has begun."""
    most = 0

    def hear(line: str) -> None:
        nonlocal most
        log(line)
        # Its threads print across each other, and not in order.
        for number in map(int, _PROBE.findall(line)):
            if most < number < len(probes):
                most = number
                done(probes[number])

    return hear


def _phonon_noise(sums: np.ndarray, configurations: int) -> list[float]:
    """Return the relative L1 by which phonon noise moves each pattern, from the two halves."""
    sizes = np.array([(configurations + 1) // 2, configurations // 2])
    halves = sums / sizes[:, None, None, None]
    apart = np.abs(halves[0] - halves[1]).sum(axis=(1, 2)) * np.sqrt(sizes.prod()) / configurations
    mean = sums.sum(axis=(0, 2, 3)) / configurations
    return [round(float(value), 6) for value in apart / mean]
