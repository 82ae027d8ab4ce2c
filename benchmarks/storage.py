"""What storing patterns in fewer pixels than Prismatic has costs: size, and fidelity of examples.

Examples are made of patterns in Prismatic's own pixels (1336 × 1336) and of the same patterns as
stored by default (config: 134 mrad in 640 × 640), with the same rotation, field of view and shift.
How far they are apart is given in units of their shot noise at the highest dose: root mean square
over the example, and within it of all pixels but those on the edges of discs.

    python benchmarks/storage.py
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.ndimage import maximum_filter, minimum_filter

from pacbed.engines import SimulationRequest, ThermalMotion
from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.engines.prismatic import PrismaticSettings, native_detector
from pacbed.engines.prismatic.files import on_detector
from pacbed.examples.augment import AugmentationSettings, resample
from pacbed.machine import usable_cores
from pacbed.patterns.store import write_patterns
from pacbed.scattering.image import Camera
from pacbed.specimen.crystal import MATERIALS
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture, Detector
from pacbed.study.configuration import load

LAYERS = (1, 5, 20)


def pixel_mrad(detector: Detector) -> tuple[float, float]:
    """Return the size of a pixel along x and y."""
    x, y = (f / n for f, n in zip(detector.field_of_view_mrad, detector.pixels, strict=True))
    return x, y


def apart(
    native: np.ndarray,
    fine: Detector,
    stored: Detector,
    settings: AugmentationSettings,
    examples: int,
) -> tuple[float, float]:
    """Return the distance of examples in units of shot noise: all pixels, and without edges."""
    binned = on_detector(native.T[None].astype(float), pixel_mrad(fine), stored)[0]
    random = np.random.default_rng(0)
    everywhere, inside = [], []
    for rotation, field, x, y, *_ in settings.transformations(random.random((examples, 6))):
        camera = Camera(settings.pixels, field, rotation, (x, y))
        a = resample(native.astype(float), pixel_mrad(fine), camera)
        b = resample(binned, pixel_mrad(stored), camera)
        deviation = (b - a) / np.sqrt(np.maximum(a, a.max() * 1e-9) / settings.electrons[1])
        smooth = maximum_filter(a, 5) < 1.3 * minimum_filter(a, 5)
        everywhere.append(np.sqrt(np.mean(deviation**2)))
        inside.append(np.sqrt(np.mean(deviation[smooth] ** 2)) if smooth.any() else np.nan)
    return float(np.mean(everywhere)), float(np.nanmean(inside))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--examples", type=int, default=6)
    parser.add_argument("--threads", type=int, default=usable_cores())
    options = parser.parse_args(arguments)
    config = load()
    settings, stored = config.augmentation(), config.detector()
    fine = native_detector(PrismaticSettings(), config.microscope.energy_keV)
    engine = PlaneWaveEngine(PlaneWaveSettings(), threads=options.threads)
    first = SimulationRequest(
        material=MATERIALS["MoS2"],
        deformation=Deformation(1.03, 0.98, 25.0),
        tilt_mrad=(3.0, -2.0),
        layers=max(LAYERS),
        energy_keV=config.microscope.energy_keV,
        aperture=Aperture(6.35),
        detector=fine,
        thermal=ThermalMotion(2),
    )
    angles = (6.35, 18.13, 32.94)
    requests = [replace(first, aperture=Aperture(angle)) for angle in angles]
    results = engine.simulate_together(
        [*requests, *(replace(r, detector=stored) for r in requests)]
    )
    for angle, result in zip(angles, results, strict=False):
        for layers in LAYERS:
            distances = apart(result.patterns[layers - 1], fine, stored, settings, options.examples)
            print(
                f"{angle:5.2f} mrad, {layers:2d} layers: {distances[0]:.3f} shot noise, "
                f"{distances[1]:.3f} away from edges"
            )
    with tempfile.TemporaryDirectory() as folder:
        for name, number in (("native", 0), ("stored", len(angles))):
            path = Path(folder) / name
            request = replace(first, detector=fine if name == "native" else stored)
            write_patterns(path, request, results[number])
            print(f"{name}: {path.stat().st_size / 1e6:.0f} MB for {first.layers} layers")


if __name__ == "__main__":
    main()
