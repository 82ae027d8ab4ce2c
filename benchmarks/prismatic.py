"""What a simulation with Prismatic costs: measured on few probes, extrapolated to the protocol.

A call of Prismatic computes potentials, plans its transforms, and then sends every probe through
every slice, with two transforms each. All three are timed from the lines that it prints. The
protocol is ten configurations of 448 probes in a box of 400 Å.

    python benchmarks/prismatic.py --threads 2
    python benchmarks/prismatic.py --box 100 200 400 --prismatic-python /path/to/python
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pacbed.engines import SimulationRequest, ThermalMotion
from pacbed.engines.prismatic import PrismaticSettings, native_detector
from pacbed.engines.prismatic.engine import Execution, PrismaticEngine
from pacbed.machine import usable_cores
from pacbed.specimen.crystal import MATERIALS
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture

PAPER_PROBES, PAPER_CONFIGURATIONS, PAPER_CORE_HOURS = 448, 10, 3.8 * 32
PAPER_SIMULATIONS = 5000


@dataclass(frozen=True)
class Cost:
    """Seconds of one call of Prismatic, by what it does.

    Parameters
    ----------
    grid
        Points per axis.
    atoms
        Number of atoms.
    potential_s
        Until the potentials and transmission functions are there, from the start of the engine.
    planning_s
        For choosing the transforms.
    probe_core_s
        For a probe, times the number of threads.
    peak_GB
        Memory of Prismatic.
    """

    grid: int
    atoms: int
    potential_s: float
    planning_s: float
    probe_core_s: float
    peak_GB: float

    def core_hours(self, probes: int, configurations: int, threads: int, calls: int = 1) -> float:
        """Return the core-hours of a simulation: probes in all, calls per configuration."""
        calls = configurations * calls
        waiting = calls * (self.potential_s + self.planning_s) * threads
        return (waiting + probes * self.probe_core_s) / 3600


def measure(edge_A: float, layers: int, probes: int, threads: int, python: str | None) -> Cost:
    """Run one configuration with a few probes."""
    settings = PrismaticSettings(
        box_A=edge_A, probe_region_A=edge_A / 2, probes=(1, probes), interpolation_factor=4
    )
    request = SimulationRequest(
        material=MATERIALS["MoS2"],
        deformation=Deformation(1.03, 0.98, 25.0),
        tilt_mrad=(3.0, -2.0),
        layers=layers,
        energy_keV=80,
        aperture=Aperture(18.13),
        detector=native_detector(settings, 80),
        thermal=ThermalMotion(1),
        seed=1,
    )
    times: dict[str, float] = {}

    def log(line: str) -> None:
        now = time.perf_counter()
        if line.startswith("Launching CPU worker"):
            times.setdefault("potential", now)
        # Threads print at the same time: a line may hold what two of them said.
        if "Computing Probe Position" in line:
            times.setdefault("planned", now)
        if "finished" in line:
            times["probes"] = now

    engine = PrismaticEngine(settings, threads, execution=Execution(python), log=log)
    started = time.perf_counter()
    result = engine.simulate(request)
    provenance = result.provenance
    return Cost(
        grid=provenance["grid"][0],
        atoms=provenance["atoms"],
        potential_s=times["potential"] - started,
        planning_s=times["planned"] - times["potential"],
        probe_core_s=(times["probes"] - times["planned"]) * threads / probes,
        peak_GB=provenance["peak_memory_MB"] / 1e3,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--box", type=float, nargs="+", default=[100.0, 200.0, 400.0], help="edges in Å")
    add("--layers", type=int, default=20)
    add("--probes", type=int, default=4, help="a multiple of the threads")
    add("--threads", type=int, default=usable_cores())
    add("--prismatic-python", help="interpreter that has pyprismatic 2.0")
    options = parser.parse_args(arguments)
    print(f"{options.threads} threads, {options.probes} probes, {options.layers} layers")
    for edge in options.box:
        cost = measure(
            edge, options.layers, options.probes, options.threads, options.prismatic_python
        )
        transforms = 2 * 3 * options.layers
        pixels = cost.grid**2
        paper = cost.core_hours(
            PAPER_PROBES * PAPER_CONFIGURATIONS, PAPER_CONFIGURATIONS, options.threads
        )
        print(
            json.dumps(
                {
                    "box_A": edge,
                    "grid": cost.grid,
                    "atoms": cost.atoms,
                    "potential_s": round(cost.potential_s, 1),
                    "planning_s": round(cost.planning_s, 1),
                    "core_s_per_probe": round(cost.probe_core_s, 2),
                    "core_s_per_slice": round(cost.probe_core_s / (transforms / 2), 4),
                    "core_ns_per_slice_and_point": round(
                        1e9 * cost.probe_core_s / (transforms / 2) / pixels, 1
                    ),
                    "peak_GB": round(cost.peak_GB, 2),
                    "core_hours_of_448_probes_x_10": round(paper, 1),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
