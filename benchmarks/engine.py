"""What the plane-wave engine costs per strain state, against frozen phonons for everything.

    python benchmarks/engine.py [--threads 1 2] [--layers 20] [--device gpu]

One strain state, all five semi-angles of the paper with a tilt of their own each, default settings.
Prints seconds, core-seconds, the scaling with threads, phonon noise and peak memory; and the same,
with the first number of threads, of two frozen-phonon configurations of each plane wave. Figures
measured so far: docs/performance.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.progress import Progress

from pacbed.engines import SimulationRequest, ThermalMotion
from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.engines.request import Device, Motion
from pacbed.machine import peak_memory_MB
from pacbed.specimen.crystal import MATERIALS
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture
from pacbed.study.configuration import load

# As drawn for the deformations of the study: up to 5 mrad along x and y.
TILTS_MRAD = [(3.1, -1.2), (-4.6, 0.4), (1.9, 4.2), (0.3, -3.3), (-2.2, 2.7)]


def requests(layers: int, motion: Motion) -> list[SimulationRequest]:
    """Return the simulations of one strain state."""
    config = load()
    first = SimulationRequest(
        material=MATERIALS["MoS2"],
        deformation=Deformation(1.03, 0.98, 25.0),
        tilt_mrad=(0.0, 0.0),
        layers=layers,
        energy_keV=config.microscope.energy_keV,
        aperture=Aperture(1.0),
        detector=config.detector(),
        thermal=ThermalMotion(motion),
        seed=config.seed,
    )
    angles = config.microscope.semiangles_mrad
    return [
        replace(first, aperture=Aperture(angle), tilt_mrad=tilt)
        for angle, tilt in zip(angles, TILTS_MRAD, strict=True)
    ]


def measure(asked: Sequence[SimulationRequest], threads: int, device: Device) -> dict[str, Any]:
    """Carry out the simulations once."""
    engine = PlaneWaveEngine(PlaneWaveSettings(), threads, device)
    started, used = time.perf_counter(), time.process_time()
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"{threads} threads")
        results = engine.simulate_together(
            asked, lambda done, total: bar.update(task, completed=done, total=total)
        )
    return {
        "seconds": time.perf_counter() - started,
        "core_seconds": time.process_time() - used,
        "propagating": results[0].provenance["seconds_propagating"],
        "noise": [result.provenance["phonon_noise"][-1] for result in results],
    }


def main() -> None:
    """Run the benchmark and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    options = parser.parse_args()
    one = options.threads[0]
    asked = requests(options.layers, "full")
    measure([replace(asked[0], layers=1)], 1, options.device)  # imports, plans, tables
    runs = {n: measure(asked, n, options.device) for n in options.threads}
    for threads, run in runs.items():
        print(
            f"{threads} threads: {run['seconds']:.1f} s, {run['core_seconds']:.1f} core-seconds "
            f"({run['propagating']:.1f} s to propagate), "
            f"{runs[one]['seconds'] / run['seconds']:.2f} times as fast as with {one}"
        )
    print(f"peak memory: {peak_memory_MB() / 1000:.2f} GB")
    before = measure(requests(options.layers, 2), one, options.device)
    print(
        "two frozen-phonon configurations of each wave: "
        f"{before['core_seconds']:.1f} core-seconds, "
        f"{before['core_seconds'] / runs[one]['core_seconds']:.1f} times as many"
    )
    for name, run in (("full", runs[one]), ("frozen phonons", before)):
        noise = ", ".join(f"{100 * n:.2f}" for n in run["noise"])
        print(f"phonon noise behind {options.layers} layers, {name}: {noise} %")


if __name__ == "__main__":
    main()
