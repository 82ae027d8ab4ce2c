"""The bound of an experiment that has not been simulated yet, by the plane-wave engine.

The workflow simulates the steps of the bound as jobs of their own and at several states
(:func:`pacbed.study.states.bound_states`). Here they are simulated at one go, at the undeformed
crystal and in no more pixels than the bound needs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from pacbed.engines import SimulationRequest, ThermalMotion, engine
from pacbed.precision.bound import prior_covariance
from pacbed.precision.bound_table import bound_table
from pacbed.precision.steps import State, Steps, differences
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture, Detector
from pacbed.study.configuration import (
    Config,
    augmentation_settings,
    detector,
    draw_ranges,
    material,
)


def simulated_bounds(
    config: Config,
    layers: Sequence[int],
    phonons: int = 0,
    threads: int = 1,
    progress: Callable[[float, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Simulate the undeformed crystal and its neighbours, and return the bounds there.

    The eleven states of :func:`pacbed.precision.steps.differences`, with the steps of section
    ``bound``, are seven crystals, one of them at five tilts; all semi-angles and tilts of a crystal
    share a calculation. Pixels are those of the pattern stores, native ones of Prismatic included,
    in the field of the examples and a little more.

    Parameters
    ----------
    config
        A configuration that has been checked (:func:`pacbed.study.configuration.load`): material,
        microscope, examples, ranges, stored pixels, steps, and settings of the plane-wave engine.
        Its ``bound.deformed_states`` and its numbers of phonon configurations are not used.
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
    microscope = config["microscope"]
    steps = Steps(config["bound"]["strain_step"], config["bound"]["tilt_step_mrad"])
    states = differences(Deformation(), (0.0, 0.0), steps.strain, steps.tilt_mrad)
    pixel_mrad, seen = _camera(config, steps)
    patterns = _patterns(config, states, seen, layers, phonons, threads, progress)
    settings = augmentation_settings(config)
    covariance = prior_covariance(draw_ranges(config), settings)
    tables = [
        bound_table(
            patterns[angle],
            layers,
            (pixel_mrad, pixel_mrad),
            settings,
            covariance,
            semiangle_mrad=angle,
            energy_keV=microscope["energy_keV"],
            steps=steps,
        )
        for angle in microscope["semiangles_mrad"]
    ]
    return pd.concat(tables, ignore_index=True)


def _camera(config: Config, steps: Steps) -> tuple[float, Detector]:
    """Return the stored pixel in mrad, and such pixels over what steps of the field can reach."""
    stored = detector(config["simulation"], config["microscope"]["energy_keV"])
    pixel = stored.field_of_view_mrad[0] / stored.pixels[0]
    settings = augmentation_settings(config)
    half = settings.field_of_view_mrad / 2 * (1 + steps.scale + math.radians(steps.rotation_deg))
    pixels = 2 * math.ceil((half + 2 * settings.pixel_mrad) / pixel)
    return pixel, Detector((pixels * pixel, pixels * pixel), (pixels, pixels))


def _patterns(
    config: Config,
    states: dict[str, State],
    seen: Detector,
    layers: Sequence[int],
    phonons: int,
    threads: int,
    progress: Callable[[float, int], None],
) -> dict[float, dict[str, np.ndarray]]:
    """Return patterns, shape (thicknesses, ny, nx), by semi-angle and name of the state."""
    microscope, simulation = config["microscope"], config["simulation"]
    section = dict(simulation["planewave"])
    section.pop("phonon_configurations")
    chosen = engine("planewave", section, threads)
    crystals: dict[Deformation, list[str]] = defaultdict(list)
    for name, state in states.items():
        crystals[state.deformation].append(name)
    angles = microscope["semiangles_mrad"]
    found: dict[float, dict[str, np.ndarray]] = {angle: {} for angle in angles}
    for number, (deformation, names) in enumerate(crystals.items()):
        progress(number, len(crystals))
        asked = [(angle, name) for angle in angles for name in names]
        requests = [
            SimulationRequest(
                material(config["material"]),
                deformation,
                states[name].tilt_mrad,
                max(layers),
                microscope["energy_keV"],
                Aperture(angle, microscope["aperture_edge_mrad"]),
                seen,
                ThermalMotion(phonons, simulation["debye_waller"]),
                config["seed"],
            )
            for angle, name in asked
        ]
        for (angle, name), result in zip(asked, chosen.simulate_together(requests), strict=True):
            found[angle][name] = result.patterns[[n - 1 for n in layers]]
    progress(len(crystals), len(crystals))
    return found
