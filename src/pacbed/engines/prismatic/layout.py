"""What a simulation with Prismatic comes to, found out and checked before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pacbed.engines.prismatic.settings import Grid, PrismaticSettings
from pacbed.engines.prismatic.specimen import box, probe_positions, shares
from pacbed.engines.request import SimulationRequest
from pacbed.exceptions import RequestError
from pacbed.specimen.microscope import Detector, wavelength_A


@dataclass(frozen=True)
class Layout:
    """Box, grid and probes of a simulation.

    Parameters
    ----------
    grid
        The grid on which Prismatic computes, with the edges of the box.
    pixel_mrad
        Pixel size (x, y) of its patterns in mrad.
    probes_A
        Positions of all probes, shape (probes, 2), in Å.
    shares
        Numbers of the probes that each configuration gets.
    """

    grid: Grid
    pixel_mrad: tuple[float, float]
    probes_A: np.ndarray
    shares: list[np.ndarray]

    @classmethod
    def of(cls, request: SimulationRequest, settings: PrismaticSettings) -> Layout:
        """Lay out the simulation of a request.

        Raises
        ------
        RequestError
            If Prismatic cannot carry out the request with these settings.
        """
        edges, region = box(request, settings)
        grid = Grid(edges, settings.pixel_A, settings.interpolation_factor)
        pixel = _pixel_mrad(grid, request.energy_keV)
        _check(request, grid, pixel)
        probes = probe_positions(request, settings, edges, region)
        return cls(grid, pixel, probes, _dealt(request, settings, len(probes)))

    @property
    def total(self) -> int:
        """Number of probes of all configurations together."""
        return sum(map(len, self.shares))

    def provenance(self) -> dict[str, Any]:
        """Return the layout as plain values."""
        return {
            "box_A": list(self.grid.edges_A),
            "grid": list(self.grid.points),
            "native_pixel_mrad": list(self.pixel_mrad),
            "probes": len(self.probes_A),
            "probes_of_all_configurations": self.total,
        }


def native_detector(settings: PrismaticSettings, energy_keV: float) -> Detector:
    """Return the detector that takes the pixels of Prismatic as they are.

    Raises
    ------
    RequestError
        If the box, and with it the pixel, differs from one deformation to another.
    """
    if isinstance(settings.box_A, str):
        raise RequestError("native pixels need a box of a fixed size, not box_A: auto")
    grid = Grid(settings.box_A, settings.pixel_A, settings.interpolation_factor)
    x, y = _pixel_mrad(grid, energy_keV)
    nx, ny = grid.output_points
    return Detector((nx * x, ny * y), (nx, ny))


def memory_bytes(
    request: SimulationRequest, settings: PrismaticSettings, grid: Grid, threads: int
) -> int:
    """Estimate the memory that Prismatic needs, and that of the sums on the way."""
    points = grid.points[0] * grid.points[1]
    slices = request.layers * settings.slices_per_layer
    nx, ny = request.detector.pixels
    # Potential and transmission of each slice; coordinates, masks, propagators; for each thread
    # a wave, its propagator and its intensity.
    prismatic = points * (12 * slices + 80 + 40 * threads)
    # In double precision: the sum of the probes, two halves on the detector, a third on its way.
    return prismatic + 8 * request.layers * (points // 4 + 3 * nx * ny)


def _pixel_mrad(grid: Grid, energy_keV: float) -> tuple[float, float]:
    x, y = (1e3 * wavelength_A(energy_keV) / edge for edge in grid.edges_A)
    return x, y


def _dealt(
    request: SimulationRequest, settings: PrismaticSettings, probes: int
) -> list[np.ndarray]:
    """Return the numbers of the probes of each configuration."""
    configurations = max(1, request.thermal.configurations)
    if settings.probes_per_configuration == "all":
        return [np.arange(probes)] * configurations
    if probes < configurations:
        raise RequestError(
            f"{probes} probes cannot be split between {configurations} configurations: choose more "
            "probes, or probes_per_configuration: all"
        )
    return shares(probes, configurations, request)


def _check(request: SimulationRequest, grid: Grid, pixel_mrad: tuple[float, float]) -> None:
    """Refuse what Prismatic cannot do."""
    if request.aperture.edge_mrad:
        raise RequestError(
            "Prismatic has an aperture edge of its own, one pixel of its grid wide: aperture_edge "
            f"must be 0, not {request.aperture.edge_mrad} mrad"
        )
    if request.thermal.motion in ("full", "coherent"):
        raise RequestError(
            f"Prismatic cannot compute thermal motion '{request.thermal.motion}', which needs mean "
            "transmissions: ask for a number of frozen-phonon configurations (thermal_motion: 10, "
            "as the paper; --phonons 10), or for static atoms (thermal_motion: none; --phonons 0 "
            "--no-debye-waller)"
        )
    ends = request.material.layer_ends_A(request.layers)
    if not np.allclose(np.diff(ends, prepend=0), ends[0], rtol=0, atol=1e-4):
        raise RequestError(
            f"Prismatic keeps patterns after equal slices, but the layers of "
            f"{request.material.name} are not equally thick: use plane waves (--engine planewave), "
            "or give other ends of layers (--layer-ends)"
        )
    detector = request.detector
    for axis, (field, pixels) in enumerate(
        zip(detector.field_of_view_mrad, detector.pixels, strict=True)
    ):
        own, points = pixel_mrad[axis], grid.output_points[axis]
        if field / pixels < own * (1 - 1e-9):
            raise RequestError(
                f"pixels of {field / pixels:.4g} mrad are finer than Prismatic's own of "
                f"{own:.4g} mrad in a box of {grid.edges_A[axis]:g} Å: choose at most "
                f"{int(field / own)} pixels, or a box of at least "
                f"{grid.edges_A[axis] * own * pixels / field:.4g} Å"
            )
        centres = (detector.kx_mrad, detector.ky_mrad)[axis]
        outer = max(-centres[0], centres[-1]) + field / pixels / 2
        limit = (points / 2 - 0.5) * own
        native = pixels == points and abs(field - own * points) < 1e-6 * field
        if outer > limit * (1 + 1e-9) and not native:
            finer_A = int(990 * grid.pixel_A * limit / outer) / 1e3  # points are rounded
            raise RequestError(
                f"the detector reaches {outer:.4g} mrad, but Prismatic's band limit at this "
                f"sampling lets waves through up to {limit:.4g} mrad: choose pixel_A of at most "
                f"{finer_A:g} Å, or a smaller field of view"
            )
