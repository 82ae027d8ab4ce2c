"""What it costs to make a dataset: examples per second, core time and memory.

    python benchmarks/dataset.py [--threads 1 2 4] [--examples 512 2048] [--pixels 256]

Each number of threads and of examples is measured in a process of its own. Rates are those of the
examples that the larger set has more than the smaller one: they leave out the start, the averaging
of the patterns and the compilation by XLA, which are the rest of the smaller set. If the peak
memory of both sets is the same, so is that of any number of examples.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pacbed.examples.dataset import read_dataset, write_dataset
from pacbed.examples.pattern_set import PatternSet
from pacbed.examples.source import ExampleSource
from pacbed.machine import peak_memory_MB, usable_cores
from pacbed.study.configuration import load


def library(patterns: int, pixels: int, field_mrad: float) -> PatternSet:
    """Return patterns of a disc with fringes."""
    axis = (np.arange(pixels, dtype=np.float32) - pixels // 2) * np.float32(field_mrad / pixels)
    fringes = 1 + 0.3 * np.cos(axis) * np.cos(0.8 * axis[:, None])
    pattern = (np.hypot(axis, axis[:, None]) < 33) * fringes + 1e-3
    many = np.empty((patterns, pixels, pixels), np.float32)
    many[:] = pattern / pattern.sum()
    size = field_mrad / pixels
    return PatternSet(many, (size, size), range(patterns), np.zeros((patterns, 5)))


def measure(options: argparse.Namespace) -> None:
    """Make a dataset in this process; print seconds, core seconds and MB."""
    from pacbed.learning.training import configure

    configure(options.threads[0])
    config = load()
    detector = config.detector()
    stored = options.stored or detector.pixels[0]
    source = ExampleSource(
        library(options.patterns, stored, detector.field_of_view_mrad[0]),
        replace(config.augmentation(), pixels=options.pixels or config.dataset.pixels),
        options.examples[0],
        (1, 6.35, 5, "train"),
    )
    started = time.perf_counter()
    write_dataset(options.measure, source)
    print(time.perf_counter() - started, sum(os.times()[:2]), peak_memory_MB())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--examples", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--threads", type=int, nargs="+", default=[*{1, usable_cores()}])
    parser.add_argument("--pixels", type=int, help="of an example; default: of the paper")
    parser.add_argument("--patterns", type=int, default=500)
    parser.add_argument("--stored", type=int, help="pixels of a pattern; default: of the paper")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        return measure(options)
    same = [f"--{name}={getattr(options, name)}" for name in ("pixels", "patterns", "stored")]
    same = [option for option in same if not option.endswith("None")]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.zarr.zip"
        for threads in options.threads:
            found = []
            for examples in options.examples:
                command = [sys.executable, __file__, f"--measure={path}", *same]
                command += [f"--threads={threads}", f"--examples={examples}"]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                found.append([float(word) for word in done.stdout.split()[-3:]])
                print(
                    f"{threads} threads, {examples} examples: {found[-1][0]:.1f} s, "
                    f"{found[-1][2]:.0f} MB"
                )
            each = np.subtract(found[-1], found[0]) / (options.examples[-1] - options.examples[0])
            print(
                f"    {1 / each[0]:.0f} examples per second, {1e3 * each[1]:.2f} ms of a core each"
            )
        started = time.perf_counter()
        read_dataset(path)
        reading = (time.perf_counter() - started) / options.examples[-1]
        print(f"reading: {1e3 * reading:.2f} ms per example")
    return None


if __name__ == "__main__":
    main()
