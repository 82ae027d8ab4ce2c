"""How precisely and how fast patterns are read by a fit.

    python benchmarks/reading.py --series mos2.series.zarr.zip --draws 20 --states states
    python benchmarks/reading.py    # makes a series of 6.35 mrad first: five minutes on one core

Patterns to be read are simulated directly: each strain state by itself, with a finer grid of
incident waves, more diffuse waves and other thermal displacements than the series. Prints

- for semi-angles of the paper and several thicknesses the mean absolute error over the Cramér-Rao
  bound (known ranges), for Poisson or lognormal noise and doses from 5e6 to 5e7 electrons; how
  large errors are in stated standard deviations; and how many are beyond ten of these;
- the same from a dictionary, without any knowledge;
- how often a thickness from 1 to 20 layers is right, for several doses; --figure draws which
  thickness is taken for which;
- what a distorted camera does to strain, if it is fitted and if not;
- core-seconds of a pattern, and how much longer `scipy.optimize.least_squares` takes with the
  images of the series and differences.

Fits start as far from the truth as a small network predicts; flagged ones begin again from the
dictionary, as in a study. --parts chooses some of these tables;
--states keeps the simulated states for the next run. Figures measured so far: docs/read.md.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from direct import (
    SCALE,
    SEED,
    FIELD_mrad,
    ROTATION_deg,
    SHIFT_px,
    TILT_mrad,
    core_seconds,
    direct_states,
    titled,
)
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_filter
from scipy.optimize import least_squares

from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.figures.style import PAGE, paper_style, save
from pacbed.machine import sparse_progress
from pacbed.reading.fit import Fit, FitResult, FitSettings
from pacbed.reading.start import Dictionary, fit_or_search, starts_from_dictionary
from pacbed.reading.thickness import ThicknessFit
from pacbed.scattering.fit import write_series
from pacbed.scattering.image import Camera
from pacbed.scattering.image_model import ALWAYS_FREE, COLUMN, UNKNOWNS, Frame
from pacbed.scattering.series import ScatteringSeries
from pacbed.scattering.state import ScatteredState
from pacbed.specimen.microscope import Aperture
from pacbed.study.configuration import load

PARTS = ("speed", "bound", "dictionary", "thickness", "camera")
SEMIANGLES_mrad, LAYERS = (6.35, 18.13, 32.94), (1, 5, 10, 20)
ELECTRONS, PIXELS, GEOMETRIES = (5e6, 5e7), 256, 3
# Of patterns of unknown thickness.
DOSES, FEWER_PIXELS = (1e4, 1e5, 5e6, 2e7), 64
# Errors of a small network: strain, rotation, tilt, shift, scale.
OF_NETWORK = [0.002] * 3 + [0.2] + [0.3] * 2 + [0.5] * 2 + [0.005]
FAULTS = ("background", "log_semiangle", "ellipticity", "ellipticity_diagonal", "blur_px")
BACKGROUND, WRONG_SEMIANGLE, ELLIPTICITY, BLUR_px = 0.05, 1.02, (0.01, -0.005), 1.0
CALIBRATED = 0.005  # relative range of the scale of a camera whose length is known
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
    parser.add_argument("--states", type=Path, help="folder of the strain states, which are kept")
    parser.add_argument("--angles", type=float, nargs="+", default=SEMIANGLES_mrad, help="in mrad")
    parser.add_argument("--pixels", type=int, default=PIXELS)
    parser.add_argument("--noise", choices=["poisson", "lognormal"], default="poisson")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--figure", type=Path, help="draw thicknesses read against true ones")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pacbed-reading-") as name:
        folder = options.states or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        series = ScatteringSeries(options.series or make_series(folder / "series.zarr.zip"))
        reach = series.request.semiangle_mrad
        angles = [a for a in options.angles if a <= reach]
        thicknesses = range(1, series.request.layers + 1)
        layers = [n for n in LAYERS if n in thicknesses]
        if "speed" in options.parts:
            speed(series, angles, layers[-2:][0])
        if options.parts == ["speed"]:
            return
        states = direct_states(folder, series, angles, thicknesses, options.draws)
        test = Test(series, states, options.pixels, options.noise)
        if "bound" in options.parts:
            precision(test, angles, layers, searched=False)
        if "dictionary" in options.parts:
            precision(test, angles, layers, searched=True)
        if "thickness" in options.parts:
            thickness(test, angles, options.figure)
        if "camera" in options.parts:
            distorted(test, angles, layers[-2:][0])


@dataclass
class Test:
    """What is read, and by what."""

    series: ScatteringSeries
    states: list[ScatteredState]
    pixels: int
    noise: str
    scale: float = SCALE
    geometries: int = GEOMETRIES

    def patterns(
        self,
        aperture: Aperture,
        layers: int,
        electrons: tuple[float, float] = ELECTRONS,
        camera: Callable[..., Camera] = Camera,
        seen: Callable[[np.ndarray], np.ndarray] = lambda image: image,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return noisy patterns of all states, and truths, shape (patterns, unknowns).

        Each state is seen several times, differently turned, scaled and shifted.
        """
        images, truths = [], []
        for state in self.states:
            key = [SEED, state.draw, round(100 * aperture.semiangle_mrad), layers]
            random = np.random.default_rng(key)
            tilt = state.request.tilt_mrad(aperture)
            for _ in range(self.geometries):
                ranges = ROTATION_deg, self.scale, SHIFT_px, SHIFT_px
                rotation, scale, x, y = random.uniform(-1, 1, 4) * ranges
                log_dose = random.uniform(*np.log(electrons))
                truth = np.zeros(len(UNKNOWNS))
                truth[:10] = *state.strain, rotation, *tilt, x, y, scale, log_dose
                pixels = camera(self.pixels, FIELD_mrad * math.exp(scale), rotation, (x, y))
                expected = seen(state.image(tilt, aperture, layers, pixels))
                images.append(self.noisy(np.exp(log_dose) * np.maximum(expected, 0), random))
                truths.append(truth)
        return np.array(images, np.float32), np.array(truths)

    def noisy(self, expected: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return counts of electrons, or what the paper takes for them: lognormal numbers."""
        if self.noise == "poisson":
            return random.poisson(expected)
        variance = np.log1p(1 / np.maximum(expected, 1e-9))
        noise = random.standard_normal(expected.shape)
        return np.asarray(expected * np.exp(np.sqrt(variance) * noise - variance / 2))


def make_series(path: Path) -> Path:
    """Make a series of the smallest of the semi-angles, ten layers."""
    request = replace(load().series(states=50, layers=10), semiangle_mrad=SEMIANGLES_mrad[0])
    report = sparse_progress("strain states", Console(stderr=True).print)
    write_series(path, request, PlaneWaveEngine(PlaneWaveSettings()), report)
    return path


def precision(test: Test, angles: list[float], layers: list[int], searched: bool) -> None:
    """Compare errors with the bound."""
    title = "start by the dictionary" if searched else "start near the truth"
    table = titled(f"Mean absolute error over the bound, {title}", "α (mrad)", "layers", *NAMES)
    for name in ("ε_xx (%)", "error / σ", "failed", "flagged", "χ² per pixel", "core-s"):
        table.add_column(name, justify="right")
    for angle in angles:
        fit = Fit(test.series, Aperture(angle), 1, frame(test.pixels), FitSettings(priors=PRIORS))
        for number in layers:
            images, truths = test.patterns(Aperture(angle), number)
            mine = fit.for_layers(number)

            def read(mine: Fit = mine, images: Any = images, truths: Any = truths) -> FitResult:
                if searched:
                    return mine.fit(images, starts_from_dictionary(mine, Dictionary(mine), images))
                return fit_or_search(mine, images, starts_near(truths), lambda: Dictionary(mine))

            read()  # compiles
            started = time.process_time()
            result = read()
            cost = (time.process_time() - started) / len(images)
            error, sigma = (result.states - truths)[:, :6], result.sigma[:, :6]
            failed = (np.abs(error / sigma) > 10).any(axis=1).sum()
            flagged = sum(flags != "" for flags in result.flags)
            table.add_row(
                f"{angle:g}",
                str(number),
                *(f"{value:.2f}" for value in over_bound(error, sigma)),
                f"{100 * np.abs(error[:, 0]).mean():.4f}",
                f"{np.sqrt(((error / sigma) ** 2).mean()):.2f}",
                f"{failed} of {len(images)}",
                f"{flagged}",
                f"{result.chi2_per_pixel.mean():.3f}",
                f"{cost:.2f}",
            )
    Console(width=150).print(table)


def over_bound(error: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Return mean absolute errors over those of normal errors with these standard deviations."""
    return np.abs(error).mean(axis=0) / (sigma.mean(axis=0) * math.sqrt(2 / math.pi))


def thickness(test: Test, angles: list[float], figure: Path | None) -> None:
    """Read the number of layers, too, of each thickness that was simulated."""
    columns = "α (mrad)", "electrons", "patterns", "right (%)", "within one layer (%)", "stated (%)"
    table = titled(f"Thickness unknown, {FEWER_PIXELS} pixels", *columns)
    shares = np.array([confusion(test, angle, table) for angle in angles])
    Console(width=100).print(table)
    if figure:
        save(confusions(shares, angles, test.states[0].request.kept), figure)


def confusion(test: Test, angle: float, table: Table) -> np.ndarray:
    """Return which part of the patterns of a thickness is read as which, for each dose.

    Shape (doses, true thicknesses, thicknesses). All patterns are read together: then the model
    of a thickness is made once.
    """
    layers = np.arange(1, test.series.request.layers + 1)
    true = np.array(test.states[0].request.kept)
    fit = Fit(test.series, Aperture(angle), 1, frame(FEWER_PIXELS), FitSettings(priors=PRIORS))
    test = replace(test, pixels=FEWER_PIXELS, geometries=1)
    images = [
        test.patterns(Aperture(angle), number, (dose, dose))[0]
        for dose in DOSES
        for number in true.tolist()
    ]
    found = ThicknessFit(fit, layers.tolist()).fit(np.concatenate(images))
    read = found.layers.reshape(len(DOSES), len(true), -1)
    stated = found.probabilities.max(axis=1).reshape(len(DOSES), -1).mean(axis=1)
    away = np.abs(read - true[:, None]).reshape(len(DOSES), -1)
    for dose, apart, probability in zip(DOSES, away, stated, strict=True):
        parts = (apart == 0).mean(), (apart <= 1).mean(), probability
        cells = [f"{100 * part:.1f}" for part in parts]
        table.add_row(f"{angle:g}", f"{dose:.0e}", str(len(apart)), *cells)
    return np.asarray((read[..., None] == layers).mean(axis=2))


def confusions(shares: np.ndarray, angles: list[float], true: Sequence[int]) -> Figure:
    """Draw thicknesses read against true ones: a row for each semi-angle, a panel for each dose."""
    rows, columns, _, layers = shares.shape
    with paper_style():
        figure = Figure(figsize=(PAGE, 0.4 + 1.6 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        edges = np.arange(layers + 1) + 0.5
        for panel, share in zip(panels.ravel(), shares.reshape(-1, *shares.shape[2:]), strict=True):
            image = np.full((layers, layers), np.nan)
            image[np.array(true) - 1] = share
            drawn = panel.pcolormesh(edges, edges, image, cmap="Blues", vmin=0, vmax=1)
            panel.set(
                aspect="equal", xticks=range(5, layers + 1, 5), yticks=range(5, layers + 1, 5)
            )
        for panel, dose in zip(panels[0], DOSES, strict=True):
            power = math.floor(math.log10(dose))
            panel.set_title(rf"${dose / 10**power:g}\cdot10^{power}$ electrons")
        for panel, angle in zip(panels[:, 0], angles, strict=True):
            panel.set_ylabel(f"{angle:g} mrad\ntrue layers")
        for panel in panels[-1]:
            panel.set_xlabel("layers read")
        figure.colorbar(drawn, ax=panels, label="part of the patterns", shrink=0.8)
    return figure


class Distorted(Camera):
    """A camera whose pixels are not squares."""

    @property
    def matrix(self) -> np.ndarray:
        """Of pixels to angles."""
        one, two = ELLIPTICITY
        return np.asarray(super().matrix @ [[1 + one, two], [two, 1 - one]])


def distorted(test: Test, angles: list[float], layers: int) -> None:
    """Read patterns of a camera with faults, with these free and without."""
    table = titled("A distorted camera", "α (mrad)", "faults", *NAMES, "ε_xx (%)", "χ² per pixel")
    table.add_column("bad χ²", justify="right")

    def seen(image: np.ndarray) -> np.ndarray:
        blurred = gaussian_filter(image.astype(float), BLUR_px, mode="nearest")
        return np.asarray(blurred + BACKGROUND / image.size)

    # Scale and semi-angle cannot both be unknown.
    near = PRIORS | {"log_scale": (0.0, CALIBRATED / math.sqrt(3))}
    test = replace(test, scale=CALIBRATED)
    for angle in angles:
        images, truths = test.patterns(Aperture(angle), layers, camera=Distorted, seen=seen)
        for free in ((*ALWAYS_FREE, *FAULTS), ALWAYS_FREE):
            starts = starts_near(truths)
            starts[:, COLUMN["blur_px"]] = 0.5 * (len(free) > len(ALWAYS_FREE))
            nominal = Aperture(angle / WRONG_SEMIANGLE)
            fit = Fit(test.series, nominal, layers, frame(test.pixels), FitSettings(free, near))
            result = fit.fit(images, starts)
            error, sigma = (result.states - truths)[:, :6], result.sigma[:, :6]
            table.add_row(
                f"{angle:g}",
                "free" if len(free) > len(ALWAYS_FREE) else "ignored",
                *(f"{value:.2f}" for value in over_bound(error, sigma)),
                f"{100 * np.abs(error[:, 0]).mean():.4f}",
                f"{result.chi2_per_pixel.mean():.3f}",
                f"{sum('bad chi2' in flags for flags in result.flags)} of {len(images)}",
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


if __name__ == "__main__":
    main()
