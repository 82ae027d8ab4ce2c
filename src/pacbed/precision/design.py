"""The bound of an experiment that has not been simulated yet, by the plane-wave engine.

The workflow simulates the steps of the bound as jobs of their own and at several states. Here they
are simulated at one go, at the undeformed crystal and in no more pixels than the bound needs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd

from pacbed.engines import Motion, SimulationRequest, ThermalMotion
from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.examples.augment import AugmentationSettings
from pacbed.exceptions import RequestError
from pacbed.precision.bound import prior_covariance
from pacbed.precision.bound_table import Sample, bound_table
from pacbed.precision.steps import State, Steps, differences
from pacbed.scattering.series import ScatteringSeries
from pacbed.specimen.deformation import Deformation, DrawRanges
from pacbed.specimen.microscope import Aperture, Detector


@dataclass(frozen=True)
class Experiment:
    """What is to be measured, and how the patterns for its bound are simulated.

    Parameters
    ----------
    request
        A simulation of the study: its crystal, energy, stored pixels and seed are used.
    apertures
        One for each semi-angle.
    examples
        Camera, doses and ranges of the examples.
    ranges
        Of deformations and tilts, known before the measurement.
    steps
        Half-widths of the central differences.
    engine
        Settings of the plane-wave engine.
    """

    request: SimulationRequest
    apertures: tuple[Aperture, ...]
    examples: AugmentationSettings
    ranges: DrawRanges
    steps: Steps
    engine: PlaneWaveSettings


def simulated_bounds(
    experiment: Experiment,
    layers: Sequence[int],
    motion: Motion = "full",
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
    motion
        Thermal motion. With a number of frozen-phonon configurations speckle looks like knowledge
        of the tilts.
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
    request, steps, examples = experiment.request, experiment.steps, experiment.examples
    pixel_mrad, seen = _camera(request.detector, examples, steps)
    undeformed = replace(
        request,
        layers=max(layers),
        detector=seen,
    )
    states: dict[tuple[Deformation, Motion], dict[str, State]] = defaultdict(dict)
    for name, state in differences(Deformation(), (0.0, 0.0), steps).items():
        moving: Motion = "coherent" if state.discs_only and motion == "full" else motion
        states[state.deformation, moving][name] = state
    engine = PlaneWaveEngine(experiment.engine, threads)
    patterns: dict[Aperture, dict[str, np.ndarray]] = {one: {} for one in experiment.apertures}
    for number, ((deformation, moving), named) in enumerate(states.items()):
        progress(number, len(states))
        asked = list(product(experiment.apertures, named.items()))
        results = engine.simulate_together(
            [
                replace(
                    undeformed,
                    deformation=deformation,
                    thermal=ThermalMotion(moving),
                    aperture=one,
                    tilt_mrad=state.tilt_mrad,
                )
                for one, (_, state) in asked
            ]
        )
        for (aperture, (name, _)), result in zip(asked, results, strict=True):
            patterns[aperture][name] = result.patterns[[n - 1 for n in layers]]
    progress(len(states), len(states))
    samples = [
        Sample.of_patterns(
            aperture.semiangle_mrad, found, (pixel_mrad, pixel_mrad), examples, steps
        )
        for aperture, found in patterns.items()
    ]
    covariance = prior_covariance(experiment.ranges, examples)
    return bound_table(samples, layers, examples, covariance, request.energy_keV)


def bounds_of_series(
    experiment: Experiment, series: ScatteringSeries, layers: Sequence[int]
) -> pd.DataFrame:
    """Return the bounds at the undeformed crystal from a scattering series.

    Parameters
    ----------
    experiment
        What is measured.
    series
        The series.
    layers
        Numbers of layers.

    Raises
    ------
    RequestError
        If the series is of another crystal or beam, or does not reach that far.
    """
    request, examples, held = experiment.request, experiment.examples, series.request
    if (request.material, request.energy_keV) != (held.material, held.energy_keV):
        raise RequestError(
            f"{series.path} is of {held.material.name} at {held.energy_keV:g} keV, the "
            f"configuration of {request.material.name} at {request.energy_keV:g} keV, or of "
            "another lattice: give the configuration with which it was made"
        )
    state = State(Deformation(), (0.0, 0.0))
    samples = (
        Sample.of_series(series, aperture, state, layers, examples)
        for aperture in experiment.apertures
    )
    covariance = prior_covariance(experiment.ranges, examples)
    return bound_table(samples, layers, examples, covariance, request.energy_keV)


def _camera(
    stored: Detector, examples: AugmentationSettings, steps: Steps
) -> tuple[float, Detector]:
    """Return the stored pixel in mrad, and such pixels over what steps of the field can reach."""
    pixel = stored.field_of_view_mrad[0] / stored.pixels[0]
    half = examples.field_of_view_mrad / 2 * (1 + steps.scale + math.radians(steps.rotation_deg))
    pixels = 2 * math.ceil((half + 2 * examples.pixel_mrad) / pixel)
    return pixel, Detector((pixels * pixel, pixels * pixel), (pixels, pixels))
