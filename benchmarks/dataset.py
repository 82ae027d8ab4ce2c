"""What it costs to make a dataset: examples per second, and memory of all its processes together.

    python benchmarks/dataset.py [--processes 1 2 8] [--examples 2048 4096] [--pixels 256]

Two slices of a dataset of the paper are made with each number of processes: rates are of the
examples that one has more than the other, without what comes before the first. Memory is that of
this process and those that it starts, sampled: proportional set sizes (/proc/*/smaps_rollup) and,
once, the array of patterns that they share. Alone is this process while it averages the patterns,
which are there twice; together, all while they make examples. If both slices need the same, so do
any number of examples.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from pacbed.examples.augment import AugmentationSettings, draw_transformation, make_image
from pacbed.examples.dataset import _shard, read_dataset, write_dataset
from pacbed.examples.pattern_set import PatternSet
from pacbed.examples.processes import Processes
from pacbed.machine import usable_cores
from pacbed.storage.archive import GrowingArchive
from pacbed.study.configuration import load

ALL_EXAMPLES, CLUSTER_PROCESSES = 128_000, 8


@dataclass
class Memory:
    """Largest sums of proportional set sizes in MB: alone, and with other processes."""

    alone: float = 0
    together: float = 0


def own_MB(pid: int) -> float:
    """Return the memory of a process, of which pages of files count in part, without the array.

    The shares of an array add up only if all processes are looked at in the same moment.
    """
    kilobytes = {"Pss": 0, "Pss_Shmem": 0}
    with suppress(OSError), open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as table:
        for name, _, value in (line.partition(":") for line in table):
            if name in kilobytes:
                kilobytes[name] = int(value.split()[0])
    return 1.024e-3 * (kilobytes["Pss"] - kilobytes["Pss_Shmem"])


@contextmanager
def sampled_memory(shared_MB: float, pause_s: float = 0.1) -> Iterator[Memory]:
    """Sample the memory of this process and those below it while the block lasts."""
    memory, ended = Memory(), threading.Event()

    def sample() -> None:
        this = psutil.Process()
        while not ended.wait(pause_s):
            others = sum(own_MB(child.pid) for child in this.children())
            total = own_MB(this.pid) + others + shared_MB
            if others:
                memory.together = max(memory.together, total)
            else:
                memory.alone = max(memory.alone, total)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield memory
    finally:
        ended.set()
        thread.join()


def library(patterns: int, pixels: int, field_mrad: float) -> PatternSet:
    """Return patterns of a disc with fringes."""
    axis = (np.arange(pixels, dtype=np.float32) - pixels // 2) * np.float32(field_mrad / pixels)
    fringes = 1 + 0.3 * np.cos(axis) * np.cos(0.8 * axis[:, None])
    pattern = (np.hypot(axis, axis[:, None]) < 33) * fringes + 1e-3
    many = np.empty((patterns, pixels, pixels), np.float32)
    many[:] = pattern / pattern.sum()
    size = field_mrad / pixels
    return PatternSet(many, (size, size), range(patterns), np.zeros((patterns, 5)))


def parts(settings: AugmentationSettings, patterns: PatternSet, folder: Path) -> None:
    """Print what the parts of the work take, best of three."""
    averaged = patterns.averaged(settings.pixel_mrad)
    pixels, shard = settings.pixels, _shard(ALL_EXAMPLES, settings.pixels)
    random = np.random.default_rng(0)

    def images() -> None:
        for pattern in averaged.patterns:
            drawn = draw_transformation(random, settings)
            make_image(pattern, averaged.pixel_mrad, drawn, settings, random)

    def start() -> None:
        with Processes(1, partial(_shard, pixels=1)) as processes:
            list(processes.in_order(range(1)))

    # As large as a shard, compressed.
    size = int(0.9 * 2 * shard * pixels**2)
    (folder / "shard").write_bytes(random.bytes(size))
    count = len(patterns.patterns)
    with open(folder / "archive", "a+b") as file:
        archive = GrowingArchive(file, [["shard"]] * 3)
        appending = best(partial(archive.append, folder))
    print(f"averaging: {1e3 * best(partial(patterns.averaged, 0.4)) / count:.2f} ms per pattern")
    print(f"make_image: {1e3 * best(images) / count:.2f} ms per example")
    print(f"appending, by one process for all: {1e3 * appending / shard:.3f} ms per example")
    print(f"start of a process: {best(start):.2f} s")


def core_seconds() -> float:
    """Return the processor time so far of this process and those that it has started."""
    return sum(os.times()[:4])


def best(work: Callable[[], object]) -> float:
    """Return the least seconds of three times."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--examples", type=int, nargs=2, default=[2048, 4096])
    parser.add_argument(
        "--processes",
        type=int,
        nargs="+",
        default=sorted({1, usable_cores(), CLUSTER_PROCESSES}),
    )
    parser.add_argument("--pixels", type=int, help="of an example; default: of the paper")
    parser.add_argument("--patterns", type=int, default=500)
    parser.add_argument("--stored", type=int, help="pixels of a pattern; default: of the paper")
    options = parser.parse_args(arguments)
    config = load()
    settings, detector = config.augmentation(), config.detector()
    settings = replace(settings, pixels=options.pixels or settings.pixels)
    stored = options.stored or detector.pixels[0]
    field_mrad = detector.field_of_view_mrad[0]
    shared_MB = 4e-6 * options.patterns * stored**2
    print(f"{options.patterns} patterns of {stored} × {stored}: {shared_MB:.0f} MB")
    print(f"examples of {settings.pixels} × {settings.pixels}; {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.zarr.zip"
        parts(settings, library(20, stored, field_mrad), Path(folder))
        for processes in options.processes:
            seconds, used = [], []
            for examples in options.examples:
                started, before = time.perf_counter(), core_seconds()
                with sampled_memory(shared_MB) as memory:
                    write_dataset(
                        path,
                        library(options.patterns, stored, field_mrad),
                        settings,
                        examples,
                        (1, 6.35, 5, "train"),
                        processes,
                    )
                seconds.append(time.perf_counter() - started)
                used.append(core_seconds() - before)
                print(
                    f"{processes} processes, {examples} examples: {seconds[-1]:.1f} s, "
                    f"{memory.alone:.0f} MB alone, {memory.together:.0f} MB together"
                )
            more = options.examples[1] - options.examples[0]
            rate = more / (seconds[1] - seconds[0])
            core_ms = 1e3 * (used[1] - used[0]) / more
            print(
                f"    {rate:.0f} examples per second, {core_ms:.2f} ms of a core per example; "
                f"{ALL_EXAMPLES} in {ALL_EXAMPLES / rate:.0f} s"
            )
        started = time.perf_counter()
        read_dataset(path)
        reading = (time.perf_counter() - started) / options.examples[1]
        print(f"reading: {1e3 * reading:.2f} ms per example")


if __name__ == "__main__":
    main()
