"""Make abtem_*.npz: position-averaged CBED patterns of deformed 2H-MoS2, by probes of abTEM.

python make_abtem_patterns.py [NAME ...]

A periodic square box holds the deformed crystal. Its edges are lattice vectors, which say how the
crystal is deformed and turned; its reciprocal lattice are the pixels, which are squares therefore.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import abtem
import ase
import numpy as np
from abtem.integrals import QuadratureProjectionIntegrals
from scipy.linalg import polar

from pacbed.specimen.crystal import MATERIALS, slab
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import wavelength_A

MOS2, ENERGY_keV, KEPT_mrad = MATERIALS["MoS2"], 80.0, 40.0
SLICES_PER_LAYER, SLICES_OF_VACUUM = 7, 2
SLICE_A = MOS2.layer_thickness_A / SLICES_PER_LAYER


@dataclass(frozen=True)
class Pattern:
    """What is computed.

    `box` has the edges of the box in units of the orthogonal cell, `positions` is the number of
    probes along the edges of that cell, `points` that of the grid along an edge of the box.
    """

    semiangle_mrad: float
    tilt_mrad: tuple[float, float]
    layers: tuple[int, ...]
    box: tuple[tuple[float, float], tuple[float, float]]
    edge_A: float
    points: int
    positions: tuple[int, int]
    configurations: int
    seed: int

    @property
    def cell_A(self):
        """Vectors of the deformed cell, as rows."""
        return np.linalg.inv(self.box) * self.edge_A

    def deformation(self):
        """Return the strain tensor and the rotation of the crystal in degrees."""
        gradient = (np.diag([1 / MOS2.zigzag_A, 1 / MOS2.armchair_A]) @ self.cell_A).T
        rotation, stretch = polar(gradient)
        return stretch - np.eye(2), np.degrees(np.arctan2(rotation[1, 0], rotation[0, 0]))


PATTERNS = {
    "6_soft": Pattern(6.35, (2.0, -1.5), (5, 10), ((22, 1), (-2, 13)), 70.79, 800, (2, 2), 12, 1),
    "18_soft": Pattern(18.13, (-1.5, 1.0), (5,), ((13.5, -0.5), (1, 8)), 43.17, 512, (3, 5), 10, 2),
}


def displaced_atoms(asked, random):
    """Fill the box with atoms, in which z is the depth, and displace them."""
    cell = slab(MOS2, Deformation(), max(asked.layers))
    steps = np.stack(np.meshgrid(*[np.arange(-40, 41)] * 2), -1).reshape(-1, 1, 2)
    inside = (cell.get_scaled_positions()[:, :2] + steps) @ np.linalg.inv(asked.box) + 1e-6
    step, atom = np.nonzero(((inside >= 0) & (inside < 1)).all(axis=2))
    assert len(atom) == round(len(cell) * np.linalg.det(asked.box))
    depth = cell.cell.array[2, 2] - cell.positions[atom, 2] + SLICES_OF_VACUUM * SLICE_A
    positions = np.column_stack([inside[step, atom] * asked.edge_A, depth])
    symbols = np.array(cell.get_chemical_symbols())[atom]
    rms = np.array([MOS2.rms_displacement_A[symbol] for symbol in symbols])
    positions += random.standard_normal(positions.shape) * rms[:, None]
    slices = SLICES_PER_LAYER * max(asked.layers) + 2 * SLICES_OF_VACUUM
    box = [asked.edge_A, asked.edge_A, slices * SLICE_A]
    return ase.Atoms(symbols, positions, cell=box, pbc=True)


def probe_positions_A(asked, random):
    """Spread the positions within a cell over the box, where displacements are others."""
    grid = np.stack(np.meshgrid(*map(np.arange, asked.positions)), -1).reshape(-1, 2)
    cells = random.integers(0, 40, grid.shape)
    return (grid / asked.positions + cells) @ asked.cell_A % asked.edge_A


def pattern(asked):
    """Return the mean pattern of all configurations and positions, shape (layers, ky, kx)."""
    # Its tilt is that of the beam, and has the axes of the box.
    angle = np.radians(asked.deformation()[1])
    turned = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    tilt = tuple(-np.array(turned) @ asked.tilt_mrad)
    probe = abtem.Probe(
        energy=1e3 * ENERGY_keV,
        semiangle_cutoff=asked.semiangle_mrad,
        tilt=tilt,
    )
    random, total = np.random.default_rng(asked.seed), 0.0
    for _ in range(asked.configurations):
        potential = abtem.Potential(
            displaced_atoms(asked, random),
            gpts=asked.points,
            slice_thickness=SLICE_A,
            integrator=QuadratureProjectionIntegrals("kirkland", cutoff_tolerance=0.01),
            exit_planes=[SLICES_OF_VACUUM + SLICES_PER_LAYER * n - 1 for n in asked.layers],
        ).build(lazy=False)
        scan = abtem.CustomScan(probe_positions_A(asked, random))
        waves = probe.multislice(potential, scan=scan, lazy=False).array
        waves = waves.reshape(len(asked.layers), -1, asked.points, asked.points)
        patterns = np.abs(np.fft.fftshift(np.fft.fft2(waves), axes=(2, 3))) ** 2
        total = total + patterns.mean(axis=1, dtype=float)
    # Of abTEM's normalized probes the intensity sums to 1.
    return total.transpose(0, 2, 1) / asked.configurations


def make(name):
    asked = PATTERNS[name]
    started = time.process_time()
    found = pattern(asked)
    pixel_mrad = 1e3 * wavelength_A(ENERGY_keV) / asked.edge_A
    strain, rotation = asked.deformation()
    middle, half = asked.points // 2, int(KEPT_mrad / pixel_mrad)
    kept = slice(middle - half, middle + half + 1)
    truth = {
        "strain_xx": strain[0, 0],
        "strain_yy": strain[1, 1],
        "strain_xy": strain[0, 1],
        "rotation_deg": rotation,
        "tilt_x_mrad": asked.tilt_mrad[0],
        "tilt_y_mrad": asked.tilt_mrad[1],
    }
    print(name, truth, pixel_mrad, found.sum(axis=(1, 2)), time.process_time() - started)
    np.savez_compressed(
        Path(__file__).parent / f"abtem_{name}.npz",
        patterns=found[:, kept, kept].astype(np.float32),
        layers=asked.layers,
        pixel_mrad=pixel_mrad,
        meta=json.dumps({"truth": truth, "abtem": abtem.__version__, **asdict(asked)}),
    )


if __name__ == "__main__":
    abtem.config.set({"diagnostics.progress_bar": False, "dask.lazy": False})
    abtem.config.set({"precision": "float32", "fftw.planning_effort": "FFTW_MEASURE"})
    for name in sys.argv[1:] or PATTERNS:
        make(name)
