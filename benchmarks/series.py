"""What a scattering series costs, and how far it is from direct simulations.

    python benchmarks/series.py [--states 50 --layers 20] [--draws 20]
    python benchmarks/series.py --series mos2.series.zarr.zip

The first makes a series of the paper's study, the second takes one that is there.

Prints the core-seconds of a strain state, the time of the fit, the memory that was needed, the size
of the file, and

- how far the patterns are from `--draws` direct simulations, for each semi-angle, of strains and
  tilts that the series has not seen: the coherent part, and the diffuse part of the first three
  with the noise of both together;
- the same of the Bragg beams near the first HOLZ ring by themselves, and of those within it;
- core-seconds of an image of 256² pixels, with and without derivatives.

Default settings, or those of the series. The comparisons take ten minutes on one core. Figures
measured so far: docs/series.md.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from direct import core_seconds, titled
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pacbed.engines import SimulationRequest, ThermalMotion
from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.engines.planewave.library import ScatteringLibrary
from pacbed.machine import peak_memory_MB
from pacbed.scattering.fit import assemble, write_state
from pacbed.scattering.image import Camera
from pacbed.scattering.request import SeriesRequest
from pacbed.scattering.series import ScatteringSeries
from pacbed.specimen.deformation import DrawRanges
from pacbed.specimen.microscope import Aperture, Detector, wavelength_A
from pacbed.study.configuration import load
from pacbed.study.draws import Draw, draw

SEED, LAYERS, PIXELS = 77, (1, 5, 10, 20), 192
# Draws of which the diffuse part is compared, and strains of which the beams are.
DIFFUSE_DRAWS, RING_DRAWS = 3, 6
RING_WIDTH_mrad = 3


def main() -> None:
    """Run the benchmark and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--states", type=int, default=50)
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--series", type=Path, help="take this one, instead of making one")
    parser.add_argument("--draws", type=int, default=20, help="of each semi-angle")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pacbed-series-") as folder:
        path = options.series
        if path is None:
            path = Path(folder) / "series.zarr.zip"
            make(path, load().series(states=options.states, layers=options.layers), options.threads)
        print(f"{path.stat().st_size / 1e6:.0f} MB")
        compared = Comparison(ScatteringSeries(path), options.threads)
        compared.images()
        compared.beams()
        compared.patterns(options.draws)


def make(path: Path, request: SeriesRequest, threads: int) -> None:
    """Make a series, and print what it costs."""
    engine = PlaneWaveEngine(PlaneWaveSettings(), threads)
    paths = [path.with_name(f"{number:04d}.zarr.zip") for number in range(request.states)]

    def simulate() -> None:
        for number in counted(range(request.states), "strain states"):
            write_state(paths[number], request, number, engine)

    print(f"simulation of a state: {core_seconds(simulate) / request.states:.1f} core-seconds")
    print(f"fit: {core_seconds(lambda: assemble(path, paths)):.0f} core-seconds")
    print(f"largest memory: {peak_memory_MB() / 1e3:.1f} GB")
    for one in paths:
        one.unlink()


class Comparison:
    """A series, and direct simulations with its settings."""

    def __init__(self, series: ScatteringSeries, threads: int) -> None:
        self.series, self.request = series, series.request
        self.engine = PlaneWaveEngine(series.settings, threads)
        self.layers = [n for n in LAYERS if n <= self.request.layers]
        of_the_paper = map(Aperture, load().microscope.semiangles_mrad)
        largest = self.request.semiangle_mrad
        self.apertures = [one for one in of_the_paper if one.outer_mrad <= largest]

    def drawn(self, semiangle_mrad: float, index: int) -> tuple[Draw, tuple[float, float, float]]:
        """Return a deformation and tilt within the series, and the strain (xx, yy, xy)."""
        tilt = self.request.tilt_mrad / math.sqrt(2)
        ranges = DrawRanges(self.request.strain.stretch, (0, 180), (-tilt, tilt))
        one = draw(SEED, semiangle_mrad, index, ranges)
        (xx, xy), (_, yy) = one.deformation.strain
        return one, (float(xx), float(yy), float(xy))

    def images(self) -> None:
        """Time images, with and without derivatives."""
        table = titled(
            "Core-seconds of an image of 256² pixels", "α (mrad)", "image", "derivatives"
        )
        width = min(100.0, 0.7 * self.request.field_of_view_mrad)
        camera = Camera(256, width, 7.3, (1.3, -2.6))
        drawn, strain = self.drawn(0.0, 0)
        for aperture in (self.apertures[0], self.apertures[-1]):
            asked: Any = strain, drawn.tilt_mrad, aperture, self.layers[-1], camera
            self.series.image(*asked)  # reads the file
            plain = core_seconds(lambda given=asked: self.series.image(*given))
            whole = core_seconds(lambda given=asked: self.series.image_and_derivatives(*given))
            table.add_row(f"{aperture.semiangle_mrad:g}", f"{plain:.2f}", f"{whole:.2f}")
        Console().print(table)

    def beams(self) -> None:
        """Compare the Bragg beams near the first HOLZ ring and within it."""
        request = self.request
        scale = 1e3 * wavelength_A(request.energy_keV)
        ring_mrad = 1e3 * math.sqrt(2 * scale / 1e3 / request.material.stacking_A)
        found = []
        for index in counted(range(RING_DRAWS), "beams"):
            drawn, strain = self.drawn(0.0, index)
            asked = replace(
                request.requests(0)[0],
                deformation=drawn.deformation,
                thermal=discs_of(request),
            )
            direct, _ = self.engine.scatter([asked], largest_stretch=request.strain.stretch[1])
            held = self.series.library(strain, self.layers)
            cell = request.material.in_plane_cell_A(drawn.deformation)
            places = {
                tuple(hk): n
                for n, hk in enumerate(np.rint(direct.g_mrad / scale @ cell.T).tolist())
            }
            same = [places[tuple(hk)] for hk in self.series.hk.astype(float).tolist()]
            beams = direct.beams[[n - 1 for n in self.layers]][:, :, same]
            apart = np.abs(beams - held.beams)
            directions = held.incident.directions_mrad
            seen = np.zeros(beams.shape[1:], bool)
            seen[self.series.wave, self.series.beam] = True
            seen &= (np.hypot(*directions.T) <= request.semiangle_mrad + request.tilt_mrad)[:, None]
            out = np.hypot(*np.moveaxis(directions[:, None] + held.g_mrad, -1, 0))
            near = seen & (np.abs(out - ring_mrad) < RING_WIDTH_mrad)
            within = seen & (out < 0.9 * ring_mrad)
            of_all = beams[:, seen].sum(axis=1)
            found.append(
                [
                    np.append(
                        apart[:, chosen].sum(axis=1) / beams[:, chosen].sum(axis=1),
                        (beams[:, chosen].sum(axis=1) / of_all)[-1],
                    )
                    for chosen in (near, within)
                ]
            )
        title = f"Beams and the first HOLZ ring at {ring_mrad:.1f} mrad: relative L1, %"
        table = titled(title, "beams", *map(layers_text, self.layers), "share of the intensity")
        for name, row in zip(("near the ring", "within it"), np.mean(found, axis=0), strict=True):
            table.add_row(
                name, *(f"{100 * value:.2g}" for value in row[:-1]), f"{100 * row[-1]:.1f}"
            )
        Console(width=120).print(table)

    def patterns(self, draws: int) -> None:
        """Compare patterns of all semi-angles."""
        columns = "α (mrad)", *map(layers_text, self.layers)
        coherent = titled("Coherent part: relative L1, %: mean (largest)", *columns)
        diffuse = titled("Diffuse part: difference of the pattern, % (noise of both)", *columns)
        for aperture in self.apertures:
            name = f"{aperture.semiangle_mrad:g} mrad"
            apart = [
                self.of_discs(aperture, index) for index in counted(range(draws), f"discs, {name}")
            ]
            add(coherent, aperture, np.mean(apart, axis=0), np.max(apart, axis=0))
            if self.request.motion == "full":
                indices = range(min(draws, DIFFUSE_DRAWS))
                both = [self.of_diffuse(aperture, n) for n in counted(indices, f"diffuse, {name}")]
                add(diffuse, aperture, *np.mean(both, axis=0))
        Console(width=120).print(coherent)
        if self.request.motion == "full":
            Console(width=120).print(diffuse)

    def of_discs(self, aperture: Aperture, index: int) -> np.ndarray:
        """Return the relative L1 difference of the coherent part, one for each thickness."""
        asked, direct, held = self.both(aperture, index, discs_of(self.request))
        one = self.pattern(direct, asked)
        other = self.pattern(replace(held, diffuse=None), asked)
        return np.asarray(np.abs(one - other).sum(axis=(1, 2)) / one.sum(axis=(1, 2)))

    def of_diffuse(self, aperture: Aperture, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the difference of the diffuse part and the noise of both, of the whole pattern."""
        asked, direct, held = self.both(aperture, index, ThermalMotion("full"))
        without_discs = [replace(one, beams=0 * one.beams) for one in (direct, held)]
        one, other = (self.pattern(library, asked) for library in without_discs)
        of_all = self.pattern(direct, asked).sum(axis=(1, 2))
        noise = [self.noise(library, asked) for library in (direct, held)]
        return np.abs(one - other).sum(axis=(1, 2)) / of_all, np.hypot(*noise)

    def both(
        self, aperture: Aperture, index: int, thermal: ThermalMotion
    ) -> tuple[SimulationRequest, ScatteringLibrary, ScatteringLibrary]:
        """Return a simulation, what it finds, and the same from the series."""
        request = self.request
        drawn, strain = self.drawn(aperture.semiangle_mrad, index)
        asked = SimulationRequest(
            request.material,
            drawn.deformation,
            drawn.tilt_mrad,
            request.layers,
            request.energy_keV,
            aperture,
            Detector((request.field_of_view_mrad,) * 2, (PIXELS, PIXELS)),
            thermal,
            index,
        )
        direct, _ = self.engine.scatter([asked])
        return asked, direct, self.series.library(strain, self.layers)

    def pattern(self, library: ScatteringLibrary, asked: SimulationRequest) -> np.ndarray:
        """Return the patterns of the thicknesses that are compared."""
        return self.chosen(made(library, asked).patterns)

    def noise(self, library: ScatteringLibrary, asked: SimulationRequest) -> np.ndarray:
        """Return the phonon noise of the thicknesses that are compared."""
        noise = made(library, asked).phonon_noise
        assert noise is not None
        return self.chosen(noise)

    def chosen(self, values: np.ndarray) -> np.ndarray:
        """Choose thicknesses: a direct simulation has all of them."""
        if len(values) == len(self.layers):
            return values
        return np.asarray(values[[n - 1 for n in self.layers]])


def made(library: ScatteringLibrary, asked: SimulationRequest) -> Any:
    """Put patterns together."""
    return library.synthesise(asked.aperture, asked.tilt_mrad, asked.detector)


def discs_of(request: SeriesRequest) -> ThermalMotion:
    """Return the thermal motion of a series without diffuse scattering."""
    return ThermalMotion("none" if request.motion == "none" else "coherent")


def counted(numbers: Sequence[int], what: str) -> Any:
    """Count and show how far it is."""
    return track(numbers, what, console=Console(stderr=True), transient=True)


def add(table: Table, aperture: Aperture, values: np.ndarray, others: np.ndarray) -> None:
    """Add a row of fractions, with others in brackets, in per cent."""
    pairs = zip(100 * values, 100 * others, strict=True)
    table.add_row(f"{aperture.semiangle_mrad:g}", *(f"{a:.2g} ({b:.2g})" for a, b in pairs))


def layers_text(count: int) -> str:
    """Return a number of layers in words."""
    return f"{count} layer{'s' if count > 1 else ''}"


if __name__ == "__main__":
    main()
