"""The bound of an experiment that has not been simulated yet, by the plane-wave engine.

The workflow simulates the steps of the bound as jobs of their own and at several states. Here they
are simulated at one go, at the undeformed crystal and in no more pixels than the bound needs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pacbed.engines import SimulationRequest, ThermalMotion
from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.examples.augment import AugmentationSettings
from pacbed.precision.bound import prior_covariance
from pacbed.precision.bound_table import Sample, bound_table
from pacbed.precision.steps import State, Steps, differences
from pacbed.specimen.crystal import Material
from pacbed.specimen.deformation import Deformation, DrawRanges
from pacbed.specimen.microscope import Aperture, Detector


@dataclass(frozen=True)
class Experiment:
    """What is to be measured, and how the patterns for its bound are simulated.

    Parameters
    ----------
    material
        The crystal.
    energy_keV
        Energy of the beam in keV.
    apertures
        One for each semi-angle.
    detector
        Pixels in which the study stores patterns; only their size is used.
    examples
        Camera, doses and ranges of the examples.
    ranges
        Of deformations and tilts, known before the measurement.
    steps
        Half-widths of the central differences.
    engine
        Settings of the plane-wave engine.
    debye_waller
        Whether the potential of atoms at rest is damped.
    seed
        Of what is random in the simulations.
    """

    material: Material
    energy_keV: float
    apertures: tuple[Aperture, ...]
    detector: Detector
    examples: AugmentationSettings
    ranges: DrawRanges
    steps: Steps
    engine: PlaneWaveSettings
    debye_waller: bool
    seed: int


def simulated_bounds(
    experiment: Experiment,
    layers: Sequence[int],
    phonons: int = 0,
    threads: int = 1,
    progress: Callable[[float, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Simulate the undeformed crystal and its neighbours, and return the bounds there.

    The eleven states of :func:`pacbed.precision.steps.differences` are seven crystals, one of them
    at five tilts; all semi-angles and tilts of a crystal share a calculation. Pixels are as large
    as those of the study's patterns, in the field of the examples and a little more.

    Parameters
    ----------
    experiment
        What is measured.
    layers
        Numbers of layers.
    phonons
        Frozen-phonon configurations of each plane wave; 0 for atoms at rest, which bounds of tilts
        need.
    threads
        Threads to use; results do not depend on it.
    progress
        Called with the number of crystals that are simulated, and of all.

    Returns
    -------
    pandas.DataFrame
        As :func:`pacbed.precision.bound_table.bound_table`, of all semi-angles, with state
        ``undeformed``.

    Raises
    ------
    RequestError
        If the engine cannot simulate what is asked, such as one phonon configuration.
    """
    pixel_mrad, seen = _camera(experiment)
    patterns = _patterns(experiment, seen, layers, phonons, threads, progress)
    samples = [
        Sample(aperture.semiangle_mrad, patterns[aperture], (pixel_mrad, pixel_mrad))
        for aperture in experiment.apertures
    ]
    examples = experiment.examples
    covariance = prior_covariance(experiment.ranges, examples)
    return bound_table(
        samples, layers, examples, covariance, experiment.energy_keV, experiment.steps
    )


def _camera(experiment: Experiment) -> tuple[float, Detector]:
    """Return the stored pixel in mrad, and such pixels over what steps of the field can reach."""
    stored, examples, steps = experiment.detector, experiment.examples, experiment.steps
    pixel = stored.field_of_view_mrad[0] / stored.pixels[0]
    half = examples.field_of_view_mrad / 2 * (1 + steps.scale + math.radians(steps.rotation_deg))
    pixels = 2 * math.ceil((half + 2 * examples.pixel_mrad) / pixel)
    return pixel, Detector((pixels * pixel, pixels * pixel), (pixels, pixels))


def _patterns(
    experiment: Experiment,
    seen: Detector,
    layers: Sequence[int],
    phonons: int,
    threads: int,
    progress: Callable[[float, int], None],
) -> dict[Aperture, dict[str, np.ndarray]]:
    """Return patterns, shape (thicknesses, ny, nx), by aperture and name of the state."""
    engine = PlaneWaveEngine(experiment.engine, threads)
    steps = experiment.steps
    states = differences(Deformation(), (0.0, 0.0), steps.strain, steps.tilt_mrad)
    crystals: dict[Deformation, list[tuple[str, State]]] = defaultdict(list)
    for name, state in states.items():
        crystals[state.deformation].append((name, state))
    found: dict[Aperture, dict[str, np.ndarray]] = {one: {} for one in experiment.apertures}
    for number, (deformation, named) in enumerate(crystals.items()):
        progress(number, len(crystals))
        asked = [(aperture, *one) for aperture in experiment.apertures for one in named]
        requests = [
            SimulationRequest(
                experiment.material,
                deformation,
                state.tilt_mrad,
                max(layers),
                experiment.energy_keV,
                aperture,
                seen,
                ThermalMotion(phonons, experiment.debye_waller),
                experiment.seed,
            )
            for aperture, _, state in asked
        ]
        results = engine.simulate_together(requests)
        for (aperture, name, _), result in zip(asked, results, strict=True):
            found[aperture][name] = result.patterns[[n - 1 for n in layers]]
    progress(len(crystals), len(crystals))
    return found
