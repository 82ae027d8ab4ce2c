"""How precisely and how fast patterns are read by a fit.

    python benchmarks/reading.py --series mos2.series.zarr.zip [--draws 20]
    python benchmarks/reading.py    # makes a series of 6.35 mrad first: five minutes on one core

Patterns to be read are simulated directly: each strain state by itself, with a finer grid of
incident waves, more diffuse waves and other thermal displacements than the series. Prints

- for semi-angles of the paper and several thicknesses the mean absolute error over the Cramér-Rao
  bound (known ranges), for Poisson noise and doses from 5e6 to 5e7 electrons; how large errors are
  in stated standard deviations; and how many are beyond ten of these;
- core-seconds of a pattern, and how much longer `scipy.optimize.least_squares` takes with the
  images of the series and differences.

Fits start as far from the truth as a small network predicts, or with --dictionary without any
knowledge. Figures measured so far: docs/read.md.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.optimize import least_squares

from pacbed.engines import SimulationRequest, ThermalMotion
from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.reading.fit import Fit, FitSettings
from pacbed.reading.model import COLUMN, UNKNOWNS, Frame
from pacbed.reading.start import Dictionary, starts_from_dictionary
from pacbed.scattering.fit import assemble, write_state
from pacbed.scattering.image import Camera
from pacbed.scattering.request import StateRequest
from pacbed.scattering.series import ScatteringSeries
from pacbed.scattering.state import ScatteredState, write_scattered
from pacbed.specimen.deformation import DrawRanges
from pacbed.specimen.microscope import Aperture, Detector
from pacbed.study.configuration import load
from pacbed.study.draws import draw

SEED, SEMIANGLES_mrad, LAYERS = 91, (6.35, 18.13, 32.94), (1, 5, 10, 20)
STRETCH, TILT_mrad, ROTATION_deg, SCALE, SHIFT_px = (0.97, 1.03), 5.0, 10.0, 0.03, 2.0
ELECTRONS, FIELD_mrad, PIXELS, GEOMETRIES = (5e6, 5e7), 100.0, 256, 3
# Errors of a small network: strain, rotation, tilt, shift, scale.
OF_NETWORK = [0.002] * 3 + [0.2] + [0.3] * 2 + [0.5] * 2 + [0.005]
DIRECT = PlaneWaveSettings(incident_step_mrad=1.25, diffuse_waves=260)
# In a monolayer tilt and scale are known from their ranges at best.
PRIORS = {
    "tilt_x_mrad": (0.0, TILT_mrad / math.sqrt(3)),
    "tilt_y_mrad": (0.0, TILT_mrad / math.sqrt(3)),
    "log_scale": (0.0, SCALE / math.sqrt(3)),
}
NAMES = ("ε_xx", "ε_yy", "ε_xy", "γ", "φ_x", "φ_y")


def main() -> None:
    """Run the benchmark and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=Path, help="take this one, instead of making one")
    parser.add_argument("--draws", type=int, default=6, help="strain states, each seen three times")
    parser.add_argument("--pixels", type=int, default=PIXELS)
    parser.add_argument("--dictionary", action="store_true", help="start without a network")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pacbed-reading-") as name:
        folder = Path(name)
        path = options.series or make_series(folder / "series.zarr.zip")
        series = ScatteringSeries(path)
        reach = series.request.semiangle_mrad
        angles = [a for a in SEMIANGLES_mrad if a <= reach]
        layers = [n for n in LAYERS if n <= series.request.layers]
        speed(series, angles, layers[-2:][0])
        files = [
            simulate(folder / f"{n:03d}.zarr.zip", series, angles, layers, n)
            for n in counted(range(options.draws), "strain states")
        ]
        states = [ScatteredState(file) for file in files]
        precision(series, states, angles, layers, options.pixels, options.dictionary)


def make_series(path: Path) -> Path:
    """Make a series of the smallest of the semi-angles, ten layers."""
    request = replace(load().series(states=50, layers=10), semiangle_mrad=SEMIANGLES_mrad[0])
    states = [path.with_name(f"state{number:02d}.zarr.zip") for number in range(request.states)]
    engine = PlaneWaveEngine(PlaneWaveSettings())
    for number in counted(range(request.states), "series"):
        write_state(states[number], request, number, engine)
    assemble(path, states)
    return path


def simulate(
    path: Path, series: ScatteringSeries, angles: list[float], layers: list[int], index: int
) -> Path:
    """Simulate a strain state by itself."""
    own = series.request
    ranges = DrawRanges(STRETCH, (0, 180), (-TILT_mrad, TILT_mrad))
    drawn = [draw(SEED, angle, index, ranges, True) for angle in angles]
    requests = tuple(
        SimulationRequest(
            own.material,
            one.deformation,
            one.tilt_mrad,
            own.layers,
            own.energy_keV,
            Aperture(angle),
            Detector((1.15 * FIELD_mrad,) * 2, (64, 64)),
            ThermalMotion(own.motion),
            SEED + index,
        )
        for angle, one in zip(angles, drawn, strict=True)
    )
    state = StateRequest(requests, tuple(layers), own.strain.stretch[1])
    write_scattered(path, state, PlaneWaveEngine(DIRECT), draw=index)
    return path


def patterns_of(
    state: ScatteredState, aperture: Aperture, layers: int, pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy patterns of a state, each differently turned, scaled and shifted, and truths."""
    random = np.random.default_rng([SEED, state.draw, round(100 * aperture.semiangle_mrad), layers])
    tilt = state.request.tilt_mrad(aperture)
    images, truths = [], np.zeros((GEOMETRIES, len(UNKNOWNS)))
    for truth in truths:
        rotation, scale, x, y = random.uniform(-1, 1, 4) * (
            ROTATION_deg,
            SCALE,
            SHIFT_px,
            SHIFT_px,
        )
        log_dose = random.uniform(*np.log(ELECTRONS))
        truth[:10] = *state.strain, rotation, *tilt, x, y, scale, log_dose
        camera = Camera(pixels, FIELD_mrad * math.exp(scale), rotation, (x, y))
        expected = np.exp(log_dose) * state.image(tilt, aperture, layers, camera)
        images.append(random.poisson(np.maximum(expected, 0)))
    return np.array(images, np.float32), truths


def precision(
    series: ScatteringSeries,
    states: list[ScatteredState],
    angles: list[float],
    layers: list[int],
    pixels: int,
    dictionary: bool,
) -> None:
    """Compare errors with the bound."""
    table = titled("Mean absolute error over the bound", "α (mrad)", "layers", *NAMES)
    for name in ("error / σ", "failed (%)", "χ² per pixel", "core-s"):
        table.add_column(name, justify="right")
    for angle in angles:
        fit = Fit(series, Aperture(angle), 1, frame(pixels), FitSettings(priors=PRIORS))
        for number in layers:
            of = [patterns_of(state, Aperture(angle), number, pixels) for state in states]
            images, truths = (np.concatenate(each) for each in zip(*of, strict=True))
            mine = fit.for_layers(number)

            def read(mine: Fit = mine, images: Any = images, truths: Any = truths) -> Any:
                if dictionary:
                    return mine.fit(images, starts_from_dictionary(mine, Dictionary(mine), images))
                return mine.fit(images, starts_near(truths))

            read()  # compiles
            started = time.process_time()
            result = read()
            cost = (time.process_time() - started) / len(images)
            error, sigma = (result.states - truths)[:, :6], result.sigma[:, :6]
            ratio = error / sigma
            over = np.abs(error).mean(axis=0) / (sigma.mean(axis=0) * math.sqrt(2 / math.pi))
            table.add_row(
                f"{angle:g}",
                str(number),
                *(f"{value:.2f}" for value in over),
                f"{np.sqrt((ratio**2).mean()):.2f}",
                f"{100 * (np.abs(ratio) > 10).any(axis=1).mean():.1f}",
                f"{result.chi2_per_pixel.mean():.3f}",
                f"{cost:.2f}",
            )
    Console(width=130).print(table)


def starts_near(truths: np.ndarray) -> np.ndarray:
    """Return starts with the errors of a small network."""
    starts = np.zeros_like(truths)
    starts[:, :9] = truths[:, :9]
    starts[:, :9] += np.random.default_rng(SEED).normal(size=(len(truths), 9)) * OF_NETWORK
    return starts


def speed(series: ScatteringSeries, angles: list[float], layers: int) -> None:
    """Time fits, and those of a general program."""
    table = titled(f"Core-seconds of a fit, {layers} layers", "α (mrad)", "pixels", "fit", "SciPy")
    table.add_column("ratio", justify="right")
    random = np.random.default_rng(SEED)
    for angle, pixels in dict.fromkeys([(angles[0], 128), (angles[0], 256), (angles[-1], 256)]):
        aperture, count = Aperture(angle), 16
        fit = Fit(series, aperture, layers, frame(pixels))
        truths = np.zeros((count, len(UNKNOWNS)))
        truths[:, :9] = random.uniform(-1, 1, (count, 9)) * [*[0.01] * 3, 5, 3, 3, 1, 1, 0.01]
        truths[:, COLUMN["log_dose"]] = math.log(1e7)
        images = random.poisson(np.maximum(fit.model().images(truths), 0))
        images = images.reshape(count, pixels, pixels).astype(np.float32)
        starts = starts_near(truths)
        fit.fit(images, starts)  # compiles
        ours = core_seconds(lambda f=fit, i=images, s=starts: f.fit(i, s)) / count
        theirs = core_seconds(
            lambda a=aperture, i=images[0], s=starts[0]: general(series, a, layers, i, s)
        )
        table.add_row(
            f"{angle:g}", str(pixels), f"{ours:.3f}", f"{theirs:.0f}", f"{theirs / ours:.0f} ×"
        )
    Console().print(table)


def general(
    series: ScatteringSeries, aperture: Aperture, layers: int, image: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """Fit one pattern with SciPy and differences, without any stages."""
    pixels = len(image)
    root = np.sqrt(np.maximum(image, 1))
    scales = np.array([*[1e-3] * 3, 0.1, 0.1, 0.1, 0.1, 0.1, 1e-3, 1e-2])

    def residuals(scaled: np.ndarray) -> np.ndarray:
        x = scaled * scales
        camera = Camera(pixels, FIELD_mrad * math.exp(x[8]), x[3], (x[6], x[7]))
        expected = series.image(tuple(x[:3]), (x[4], x[5]), aperture, layers, camera)
        return np.asarray((np.exp(x[9]) * expected - image) / root).ravel()

    first = np.array([*start[:9], math.log(image.sum())]) / scales
    return np.asarray(least_squares(residuals, first, diff_step=1e-3, max_nfev=30).x * scales)


def frame(pixels: int) -> Frame:
    """Return the nominal pixels of an image."""
    return Frame.centred(pixels, FIELD_mrad)


def core_seconds(work: Callable[[], Any]) -> float:
    """Return the time of all cores that something takes."""
    started = time.process_time()
    work()
    return time.process_time() - started


def counted(numbers: range, what: str) -> Any:
    """Count and show how far it is."""
    return track(numbers, what, console=Console(stderr=True), transient=True)


def titled(title: str, *columns: str) -> Table:
    """Make a table of numbers."""
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="right")
    return table


if __name__ == "__main__":
    main()
