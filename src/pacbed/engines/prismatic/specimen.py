"""The deformed crystal in Prismatic's box, its thermal displacements, and where the probes stand.

The box is orthogonal and the crystal, in general, is not: it is cropped, and fits itself across
the edges of the box no better than any crystal fits another. The probes keep away from there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from pacbed.engines.prismatic.settings import PrismaticSettings
from pacbed.engines.request import SimulationRequest
from pacbed.exceptions import RequestError
from pacbed.seeding import stream
from pacbed.specimen.crystal import slab
from pacbed.specimen.microscope import wavelength_A

# Atoms this close to an edge of the box belong to the other side: in a box of whole cells rounding
# must not decide whether there is one, two or none.
_EDGE_A = 1e-3
# What of the electrons of a probe may lie beyond the edge of an automatic box.
_BEYOND_BOX = 0.01
# The same for a box that is given.
_MOST_BEYOND_BOX = 0.05
# Scattering angle of the electrons that must not reach the edge of an automatic box, in mrad.
_SCATTERING_mrad = 70


@dataclass(frozen=True)
class Specimen:
    """Atoms in a box of edges of shape (3,).

    Of each atom there are the atomic number, its position, shape (atoms, 3), within the box to
    rounding, and the root-mean-square displacement per axis. The beam enters at the largest z.
    """

    numbers: np.ndarray
    positions_A: np.ndarray
    rms_A: np.ndarray
    edges_A: np.ndarray

    def displaced(self, seed: int, configuration: int) -> Specimen:
        """Return a frozen-phonon configuration.

        Prismatic's own displacements cannot be used: it takes their seed from the clock, and its
        threads draw them in any order. Independent of anything but the arguments and the box.
        """
        drawn = stream(seed, "prismatic", "phonons", configuration).standard_normal(
            self.positions_A.shape
        )
        return replace(self, positions_A=self.positions_A + drawn * self.rms_A[:, None])


def specimen(request: SimulationRequest, edges_A: tuple[float, float]) -> Specimen:
    """Fill a box with the deformed crystal of a request; a cell begins at the centre of the box."""
    cell = slab(request.material, request.deformation, request.layers)
    vectors = np.asarray(cell.cell)[:2, :2]
    corners = np.array([[x, y] for x in (-0.5, 0.5) for y in (-0.5, 0.5)]) * edges_A
    indices = corners @ np.linalg.inv(vectors)
    low, high = np.floor(indices.min(axis=0)) - 1, np.ceil(indices.max(axis=0)) + 1
    h, k = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]), indexing="ij")
    origins = np.column_stack([h.ravel(), k.ravel()]) @ vectors + np.array(edges_A) / 2

    found = np.repeat(cell.positions[None], len(origins), axis=0)
    found[:, :, :2] += origins[:, None]
    inside = ((found[..., :2] >= -_EDGE_A) & (found[..., :2] < np.array(edges_A) - _EDGE_A)).all(-1)
    rms = [request.material.rms_A(kind) for kind in cell.arrays["kinds"]]
    return Specimen(
        numbers=np.broadcast_to(cell.numbers, inside.shape)[inside],
        positions_A=found[inside],
        rms_A=np.broadcast_to(rms, inside.shape)[inside],
        edges_A=np.array([*edges_A, cell.cell[2, 2]]),
    )


def box(
    request: SimulationRequest, settings: PrismaticSettings
) -> tuple[tuple[float, float], float]:
    """Return the edges (x, y) of the box and of the square that holds the probes, in Å.

    Raises
    ------
    RequestError
        If probes would stand where the crystal is cropped. A box of whole cells is not.
    """
    if not isinstance(settings.box_A, str):
        _check_margin(request, settings.box_A, settings.probe_region_A)
        return settings.box_A, settings.probe_region_A
    needed = math.prod(probe_counts(request, settings))
    cell = request.material.orthogonal_cell_A(request.deformation)
    region = math.sqrt(needed * abs(np.linalg.det(cell)))
    while len(_cells_within(cell, np.array([region, region]))) < needed:
        region += 1
    field, pixels = request.detector.field_of_view_mrad, request.detector.pixels
    resolution = max(
        1e3 * wavelength_A(request.energy_keV) * n / f for f, n in zip(field, pixels, strict=True)
    )
    edge = max(region + 2 * _margin_A(request, _BEYOND_BOX), resolution)
    multiple = 4 * settings.interpolation_factor
    # FFTW likes products of 2, 3, 5 and 7: numbers that divide a power of 210.
    numbers = count(math.ceil(edge / settings.pixel_A / multiple))
    points = multiple * next(n for n in numbers if pow(210, 64, n) == 0)
    return (points * settings.pixel_A, points * settings.pixel_A), region


def _margin_A(request: SimulationRequest, beyond: float) -> float:
    """Return how far from a probe all but a part of its electrons stay, in Å."""
    # Rings of the probe: beyond radius r lie λ/(π² α r) of its electrons, on average.
    alpha = 1e-3 * request.aperture.semiangle_mrad
    rings = wavelength_A(request.energy_keV) / (math.pi**2 * alpha * beyond)
    path = request.material.thickness_A(request.layers) * 1e-3 * _SCATTERING_mrad
    return rings + path


def _check_margin(
    request: SimulationRequest, edges_A: tuple[float, float], region_A: float
) -> None:
    cell = request.material.in_plane_cell_A(request.deformation)
    cells = np.diag(edges_A) @ np.linalg.inv(cell)
    if np.allclose(cells, np.round(cells), atol=1e-4):
        return  # whole cells: the crystal goes on across the edges
    margin, allowed = (min(edges_A) - region_A) / 2, _margin_A(request, _MOST_BEYOND_BOX)
    if margin < allowed:
        left = f"only {margin:.3g} Å" if margin > 0 else "nothing"
        raise RequestError(
            f"a square of {region_A:g} Å for the probes in a box of {min(edges_A):g} Å leaves "
            f"{left} to the edges, where the crystal is cropped; at "
            f"{request.aperture.semiangle_mrad:g} mrad and {request.layers} layers it must be "
            f"{allowed:.3g} Å: choose a probe_region_A of at most "
            f"{max(0, min(edges_A) - 2 * allowed):.4g} Å, a box_A of at least "
            f"{region_A + 2 * allowed:.4g} Å, or box_A: auto"
        )


def probe_counts(request: SimulationRequest, settings: PrismaticSettings) -> tuple[int, int]:
    """Return the numbers of probe positions along the two vectors of the deformed cell.

    It is the orthogonal one of a hexagonal crystal. An oblique cell without such a multiple serves
    as well.

    The average over a grid of positions is that over all of them if no two directions in the
    aperture differ by a reciprocal vector of the grid (for a rectangular cell, if there are more
    than 2αL/λ along an edge L).
    """
    if not isinstance(settings.probes, str):
        return settings.probes
    reciprocal = np.linalg.inv(request.material.orthogonal_cell_A(request.deformation)).T
    # The edge of Prismatic's aperture is as wide as a pixel of its grid.
    width = 2 * request.aperture.semiangle_mrad / (1e3 * wavelength_A(request.energy_keV)) + 0.02
    counts = np.array([1, 1])
    small = np.array([[h, k] for h in range(-3, 4) for k in range(-3, 4) if (h, k) != (0, 0)])
    while True:
        lengths = np.linalg.norm((small * counts) @ reciprocal, axis=1)
        shortest = small[lengths.argmin()]
        if lengths.min() > width:
            return int(counts[0]), int(counts[1])
        # A denser grid along the vector that is too short; along both where it is a diagonal one.
        counts += shortest != 0


def probe_positions(
    request: SimulationRequest,
    settings: PrismaticSettings,
    edges_A: tuple[float, float],
    region_A: float,
) -> np.ndarray:
    """Return the positions of all probes, shape (probes, 2), in Å.

    A rectangular grid in relative coordinates of the deformed cell, each position in a randomly
    chosen cell of its own that lies wholly inside the central square (paper, 2.3).

    Raises
    ------
    RequestError
        If there are fewer such cells than probes.
    """
    n, m = probe_counts(request, settings)
    cell = request.material.orthogonal_cell_A(request.deformation)
    # Larger than the box only where that holds whole cells.
    region = np.minimum(region_A, edges_A)
    cells = _cells_within(cell, region)
    if len(cells) < n * m:
        raise RequestError(
            f"{n} × {m} probes need a cell each, but only {len(cells)} cells fit into the central "
            f"{region[0]:.4g} Å × {region[1]:.4g} Å: choose a larger probe_region_A (and box_A), "
            "or fewer probes"
        )
    random = stream(request.seed, "prismatic", "probes")
    chosen = cells[random.permutation(len(cells))[: n * m]]
    i, j = np.meshgrid(np.arange(n) / n, np.arange(m) / m, indexing="ij")
    relative = np.column_stack([i.ravel(), j.ravel()])
    return np.asarray((chosen + relative) @ cell + np.array(edges_A) / 2)


def shares(probes: int, configurations: int, request: SimulationRequest) -> list[np.ndarray]:
    """Deal the probes out to configurations at random, as evenly as possible."""
    order = stream(request.seed, "prismatic", "shares").permutation(probes)
    return [np.sort(order[number::configurations]) for number in range(configurations)]


def _cells_within(cell_A: np.ndarray, region_A: np.ndarray) -> np.ndarray:
    """Return the indices of all cells inside a central rectangle, shape (cells, 2)."""
    reach = int(np.hypot(*region_A) / np.linalg.norm(cell_A, axis=1).min()) + 2
    grid = np.stack(np.meshgrid(*[np.arange(-reach, reach)] * 2, indexing="ij"), -1).reshape(-1, 2)
    corners = grid[:, None] + np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    inside = np.abs(corners @ cell_A) <= region_A / 2 + _EDGE_A
    return np.asarray(grid[inside.all(axis=(1, 2))])
