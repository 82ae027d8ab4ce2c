"""What the tests of the engines share: requests, and how patterns are compared."""

import math

import numpy as np

from pacbed.engines import SimulationRequest, ThermalMotion
from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.specimen.crystal import MATERIALS
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture, Detector

MOS2 = MATERIALS["MoS2"]
WAVELENGTH_A = 0.0417572
STRETCHED = (0.03, -0.02, 0.0)
SHEARED = (0.0, 0.0, 0.04)


def detector(field, pixels):
    return Detector((field, field), (pixels, pixels))


def requested(
    semiangle=6.35,
    strain=(0.0, 0.0, 0.0),
    tilt=(0.0, 0.0),
    layers=1,
    field=60.0,
    pixels=61,
    edge=0.0,
    motion="none",
    seed=0,
):
    return SimulationRequest(
        material=MOS2,
        deformation=Deformation.from_strain(*strain),
        tilt_mrad=tilt,
        layers=layers,
        energy_keV=80,
        aperture=Aperture(semiangle, edge),
        detector=detector(field, pixels),
        thermal=ThermalMotion(motion),
        seed=seed,
    )


SMALL = {"supercell": (3, 2), "incident_step_mrad": 3.0}


def shaking(**changes):
    """A request with frozen phonons, for SMALL settings."""
    return requested(**{"strain": SHEARED, "tilt": (2.0, 1.0), "motion": 2, **changes})


def simulate(request, **settings):
    return PlaneWaveEngine(PlaneWaveSettings(**settings), threads=2).simulate(request)


def patterns(request, **settings):
    return simulate(request, **settings).patterns.astype(float)


def scattered(*requests, shared_phonons=False, **settings):
    """What the crystal of some requests does to all waves that they need."""
    engine = PlaneWaveEngine(PlaneWaveSettings(**settings), threads=2)
    return engine.scatter(requests, shared_phonons=shared_phonons)[0]


def synthesised(library, request, on=None):
    """The pattern of a request, if wanted on another detector than its own."""
    return library.synthesise(request.aperture, request.tilt_mrad, on or request.detector)


def difference(pattern, reference):
    """Relative L1 difference."""
    return np.abs(pattern - reference).sum() / reference.sum()


def reciprocal_lattice(strain, reach_mrad):
    """λg of the hexagonal lattice with a = 3.1613 Å along x, deformed, up to an angle."""
    xx, yy, xy = strain
    a = 3.1613
    lattice = np.array([[a, 0], [-a / 2, a * math.sqrt(3) / 2]])  # vectors as rows
    deformed = lattice @ np.array([[1 + xx, xy], [xy, 1 + yy]])  # F is symmetric
    reciprocal = np.linalg.inv(deformed).T
    indices = np.stack(np.meshgrid(range(-3, 4), range(-3, 4)), axis=-1).reshape(-1, 2)
    g = 1e3 * WAVELENGTH_A * indices @ reciprocal
    return g[np.hypot(*g.T) < reach_mrad]
