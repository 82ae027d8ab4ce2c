"""What the plane-wave engine costs per strain state, and how far above its transforms it is.

    python benchmarks/engine.py [--threads 1 2] [--layers 20] [--device gpu]

One strain state, all five semi-angles of the paper with a tilt of their own each, default settings.
Prints seconds, core-seconds, the scaling with threads, the share of the time spent in Fourier
transforms, peak memory; with a graphics card also the share of its memory bandwidth. Figures
measured so far: docs/performance.md.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from pacbed.engines import SimulationRequest, ThermalMotion
from pacbed.engines.arrays import Arrays
from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.machine import peak_memory_MB
from pacbed.specimen.crystal import material
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture
from pacbed.study.configuration import load

# As drawn for the deformations of the study: up to 5 mrad along x and y.
TILTS_MRAD = [(3.1, -1.2), (-4.6, 0.4), (1.9, 4.2), (0.3, -3.3), (-2.2, 2.7)]


class TimedTransforms:
    """A module of Fourier transforms that adds up the time spent in it, over all threads."""

    def __init__(self, module: Any, synchronise: Callable[[], None]) -> None:
        self._module, self._synchronise = module, synchronise
        self._lock, self.seconds = threading.Lock(), 0.0

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._module, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            self._synchronise()
            started = time.perf_counter()
            result = function(*arguments, **options)
            self._synchronise()
            with self._lock:
                self.seconds += time.perf_counter() - started
            return result

        return timed


def requests(layers: int) -> list[SimulationRequest]:
    """Return the simulations of one strain state."""
    config = load()
    first = SimulationRequest(
        material=material("MoS2"),
        deformation=Deformation(1.03, 0.98, 25.0),
        tilt_mrad=(0.0, 0.0),
        layers=layers,
        energy_keV=config.microscope.energy_keV,
        aperture=Aperture(1.0),
        detector=config.detector(),
        thermal=ThermalMotion(config.simulation.planewave.phonon_configurations),
        seed=config.seed,
    )
    angles = config.microscope.semiangles_mrad
    return [
        replace(first, aperture=Aperture(angle), tilt_mrad=tilt)
        for angle, tilt in zip(angles, TILTS_MRAD, strict=True)
    ]


def measure(
    asked: Sequence[SimulationRequest], threads: int, device: str, time_transforms: bool
) -> dict[str, Any]:
    """Carry out the simulations once."""
    engine = PlaneWaveEngine(PlaneWaveSettings(), threads, device)  # type: ignore[arg-type]
    on = engine._on
    synchronise = (lambda: None) if on.xp is np else on.xp.cuda.Device().synchronize
    transforms = TimedTransforms(on.fft, synchronise)
    if time_transforms:
        engine._on = Arrays(on.xp, transforms)
    started, used = time.perf_counter(), time.process_time()
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"{threads} threads")
        results = engine.simulate_together(
            asked, lambda done, total: bar.update(task, completed=done, total=total)
        )
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "core_seconds": time.process_time() - used,
        "in_transforms": transforms.seconds,
        "propagating": results[0].provenance["seconds_propagating"],
        "provenance": results[0].provenance,
        "noise": [max(r.provenance["phonon_noise"]) for r in results],
    }


def bandwidth_share(run: dict[str, Any], layers: int, on: Arrays) -> float:
    """Return the share of a card's bandwidth that the arrays in and out of each step amount to."""
    xp = on.xp
    provenance = run["provenance"]
    n1, n2 = provenance["grid"]
    waves = provenance["plane_waves"] * provenance["configurations_per_wave"]
    # Per slice: transmission (a structure factor, two transforms, assembly) and propagation (four
    # partial transforms, two products), each reading and writing about one complex array.
    moved = waves * layers * 3 * 10 * 2 * 8 * n1 * n2
    block = xp.zeros(1 << 28, xp.float32)
    other = xp.empty_like(block)
    started, repeats = xp.cuda.Event(), 20
    ended = xp.cuda.Event()
    started.record()
    for _ in range(repeats):
        other[...] = block
    ended.record()
    ended.synchronize()
    copied = 2 * block.nbytes * repeats / (1e-3 * xp.cuda.get_elapsed_time(started, ended))
    return moved / run["propagating"] / copied


def main() -> None:
    """Run the benchmark and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    options = parser.parse_args()
    asked = requests(options.layers)
    measure([replace(asked[0], layers=1)], 1, options.device, False)  # imports, plans, tables
    runs = {n: measure(asked, n, options.device, False) for n in options.threads}
    timed = measure(asked, options.threads[0], options.device, True)
    first = runs[options.threads[0]]
    provenance = first["provenance"]
    print(
        f"{provenance['plane_waves']} plane waves × {provenance['configurations_per_wave']} "
        f"configurations, transforms of {' × '.join(map(str, provenance['grid']))} points, "
        f"{options.layers} layers, five semi-angles"
    )
    for threads, run in runs.items():
        print(
            f"{threads} threads: {run['seconds']:.1f} s, {run['core_seconds']:.1f} core-seconds, "
            f"{first['seconds'] / run['seconds']:.2f} times as fast as with {options.threads[0]}"
        )
    share = timed["in_transforms"] / (options.threads[0] * timed["propagating"])
    print(f"in Fourier transforms: {100 * share:.0f} % of the propagation")
    print(f"phonon noise, thickest layer: {', '.join(f'{100 * n:.2f} %' for n in first['noise'])}")
    print(f"peak memory: {peak_memory_MB() / 1000:.2f} GB")
    if options.device == "gpu":
        on = PlaneWaveEngine(device="gpu")._on
        print(f"memory bandwidth: {100 * bandwidth_share(first, options.layers, on):.0f} %")


if __name__ == "__main__":
    main()
