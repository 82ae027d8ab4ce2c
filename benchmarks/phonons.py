"""How much of the error of a fit is the phonon noise of the pattern that is read.

    python benchmarks/phonons.py --series mos2.series.zarr.zip

Patterns are simulated with frozen phonons for everything, and read with a scattering series, whose
Bragg discs are exact. Few configurations leave a noise of their own: prints the mean absolute error
over the bound for means of 8, 16 and 32 configurations of each plane wave, with and without the
noise of counting, and for the full thermal motion of the series (docs/read.md).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from direct import SEED, STRETCH, FIELD_mrad, TILT_mrad
from reading import PRIORS, frame, over_bound, starts_near, titled
from rich.console import Console
from rich.progress import track

from pacbed.engines import SimulationRequest, ThermalMotion
from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.engines.request import Motion
from pacbed.machine import usable_cores
from pacbed.reading.fit import Fit, FitSettings
from pacbed.scattering.image_model import COLUMN, TILT, UNKNOWNS
from pacbed.scattering.series import ScatteringSeries
from pacbed.specimen.deformation import DrawRanges
from pacbed.specimen.microscope import Aperture, Detector
from pacbed.study.draws import draw

APERTURE, LAYERS, PIXELS, ELECTRONS = Aperture(6.35), (5, 10), 128, 1e7
# Configurations that are simulated together, and how often.
TOGETHER, PARTS = 8, 4


def main() -> None:
    """Simulate, read and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=3, help="strain states")
    options = parser.parse_args()
    series = ScatteringSeries(options.series)
    numbers = track(range(options.draws), "strain states", console=Console(stderr=True))
    truths, parts, full = zip(*(simulated(series, number) for number in numbers), strict=True)
    columns = "layers", "configurations", "patterns", "error / bound", "excess", "not counted"
    table = titled(f"{APERTURE.semiangle_mrad:g} mrad, {ELECTRONS:.0e} electrons", *columns)
    for row, layers in enumerate(LAYERS):
        for count, states, images in means(np.array(truths), np.array(parts), np.array(full)):
            counted, exact = errors(series, layers, states, images[:, row])
            excess = math.sqrt(max(counted**2 - 1, 0))
            values = (f"{value:.2f}" for value in (counted, excess, exact))
            table.add_row(str(layers), count, str(len(images)), *values)
    Console().print(table)


def simulated(series: ScatteringSeries, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the truth of a strain state, and its patterns after the layers that are read.

    Those of frozen phonons have shape (parts, layers, pixels, pixels).
    """
    ranges = DrawRanges(STRETCH, (0, 180), (-TILT_mrad, TILT_mrad))
    one = draw(SEED, APERTURE.semiangle_mrad, number, ranges, True)
    truth = np.zeros(len(UNKNOWNS))
    truth[:3] = one.deformation.strain[[0, 1, 0], [0, 1, 1]]
    truth[TILT], truth[COLUMN["log_dose"]] = one.tilt_mrad, math.log(ELECTRONS)
    engine = PlaneWaveEngine(PlaneWaveSettings(), usable_cores())

    def patterns(motion: Motion, seed: int) -> np.ndarray:
        own = series.request
        request = SimulationRequest(
            own.material,
            one.deformation,
            one.tilt_mrad,
            max(LAYERS),
            own.energy_keV,
            APERTURE,
            Detector((FIELD_mrad,) * 2, (PIXELS, PIXELS)),
            ThermalMotion(motion),
            seed,
        )
        [made] = engine.simulate_together([request])
        return np.asarray(made.patterns)[np.array(LAYERS) - 1]

    seeds = range(SEED + PARTS * number, SEED + PARTS * (number + 1))
    return truth, np.stack([patterns(TOGETHER, s) for s in seeds]), patterns("full", seeds[0])


def means(
    truths: np.ndarray, parts: np.ndarray, full: np.ndarray
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield numbers of configurations, with the truths and the patterns of all their means."""
    for number in (1, 2, 4):
        groups = parts.reshape(len(parts), -1, number, *parts.shape[2:]).mean(axis=2)
        states = np.repeat(truths, groups.shape[1], axis=0)
        yield str(number * TOGETHER), states, groups.reshape(-1, *groups.shape[2:])
    yield "full motion", truths, full


def errors(
    series: ScatteringSeries, layers: int, states: np.ndarray, images: np.ndarray
) -> tuple[float, float]:
    """Return mean absolute errors over the bound, of counted electrons and of expected ones.

    The mean over strain, rotation and tilt.
    """
    fit = Fit(series, APERTURE, layers, frame(PIXELS), FitSettings(priors=PRIORS))
    expected = ELECTRONS * np.maximum(images, 0)
    counts = np.random.default_rng(SEED).poisson(expected)
    found = []
    for seen in (counts, expected):
        result = fit.fit(seen.astype(np.float32), starts_near(states))
        found.append(over_bound((result.states - states)[:, :6], result.sigma[:, :6]).mean())
    return found[0], found[1]


if __name__ == "__main__":
    main()
