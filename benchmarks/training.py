"""Training: images per second with real data, against the same network fed one constant batch.

    python benchmarks/training.py [--network demo laptop paper] [--batch N] [--batches N]
        [--precision float32 mixed_float16] [--xla] [--threads N]

For each network, in one run and in turns: a constant batch; examples from a file, read and shuffled
as in a training; examples made online from patterns. Prints images per second (the best of some
rounds), the ratios to the constant batch, core-milliseconds per image (the fewest), and
floating-point operations per second, or their share of `--peak`. With a graphics card also the
hours of a training of the paper's network with each schedule. TF_ENABLE_ONEDNN_OPTS=0 in the
environment leaves oneDNN out, ONEDNN_DEFAULT_FPMATH_MODE=BF16 lets it multiply in bfloat16. Figures
measured so far: docs/performance.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pacbed.examples import labels
from pacbed.examples.dataset import read_dataset, write_dataset
from pacbed.examples.pattern_set import PatternSet
from pacbed.examples.source import ExampleSource
from pacbed.learning.network import build_network, part_of_steps
from pacbed.learning.sequences import OnlineSequence, StoredSequence
from pacbed.learning.training import configure, make_optimizer, on_device
from pacbed.machine import usable_cores
from pacbed.runs.cost_model import network_size
from pacbed.study.configuration import load
from pacbed.study.model import Configuration
from pacbed.study.training_settings import network_settings, training_settings

CONFIG = Path(__file__).resolve().parents[1] / "config"
OUTPUTS = "strain-rotation-tilt"
OVERLAYS: Mapping[str, list[str]] = {
    "demo": ["demo.yaml"],
    "laptop": ["laptop.yaml"],
    "paper": [],
}
# Forward and backward pass, in multiples of a forward pass.
PASSES = 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--network", nargs="+", choices=list(OVERLAYS), default=list(OVERLAYS))
    add("--batch", type=int, help="examples per step (default: as configured; paper on a CPU: 16)")
    add("--batches", type=int, help="steps per round (default: 4 or 40 for paper, 200 for others)")
    add("--rounds", type=int, default=3)
    add("--threads", type=int, default=usable_cores())
    add("--xla", action="store_true", help="compile steps with XLA")
    add("--precision", nargs="+", default=["float32"])
    add("--peak", type=float, help="of the card, in TFLOP/s at this precision")
    options = parser.parse_args()
    card = has_card()
    configure(options.threads, card, print, deterministic=not options.xla)
    for name in options.network:
        config = load([CONFIG / file for file in OVERLAYS[name]])
        small = name == "paper" and not card
        batch = options.batch or (16 if small else config.training.examples_per_step)
        batches = options.batches or (4 if small else 40 if name == "paper" else 200)
        for precision in options.precision:
            bench = Bench(config, batch, batches, precision, options.xla)
            report(name, bench, options.rounds, card, options.peak)


def has_card() -> bool:
    """Return whether TensorFlow sees a graphics card."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


class Bench:
    """A network and three sources of batches for it."""

    def __init__(
        self, config: Configuration, batch: int, batches: int, precision: str, xla: bool
    ) -> None:
        self.config, self.batch, self.batches, self.precision = config, batch, batches, precision
        self.xla = xla
        scaling, settings = config.deformation.label_scaling(OUTPUTS), config.augmentation()
        self.first = scaling
        if config.network.kind == "coarse-to-fine":
            self.first = scaling.with_nuisances(
                settings.translation_px, settings.field_of_view_variation
            )
        library = patterns(config)
        online = ExampleSource(library, settings, batch * batches, (0, 6.35, 1, "train"))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "train.zarr.zip"
            examples = min(batch * batches, 1024)
            write_dataset(file, replace(online, examples=examples))
            data = read_dataset(file)
        stored = StoredSequence(data, self.first, batch, shuffle_seed=0)
        inputs, targets = stored[0]
        self.sources: dict[str, tuple[keras.Model, keras.utils.PyDataset]] = {
            "constant": (self.network(), Constant(inputs, targets, batches)),
            "materialised": (self.network(), Repeated(stored, batches)),
            "online": (
                on_device(self.network(), online),
                OnlineSequence(online, self.first, batch),
            ),
        }
        changed = {"precision": precision, "xla": xla, "loss": "mse"}
        study = config.changed({"seed": 0, "training": changed})
        training = training_settings(study, "linear")
        for model, _ in self.sources.values():
            rate = training.schedule.of_batches(batches)
            optimizer = make_optimizer(rate, training)
            model.compile(optimizer=optimizer, loss=training.loss, jit_compile=self.xla)

    def network(self) -> keras.Model:
        """Return what steps train of the network of the configuration."""
        settings, pixels = network_settings(self.config, "linear"), self.config.dataset.pixels
        made = build_network(pixels, 6, settings, precision=self.precision, first=self.first)
        return part_of_steps(made)

    def seconds_per_image(self, name: str) -> tuple[float, float]:
        """Train for one round; return the time by the clock, and that of all cores."""
        model, source = self.sources[name]
        clocks = time.perf_counter, time.process_time
        started = [clock() for clock in clocks]
        model.fit(source, shuffle=False, verbose=0)
        images = self.batch * self.batches
        wall, cores = (clock() - begin for clock, begin in zip(clocks, started, strict=True))
        return wall / images, cores / images


class Constant(keras.utils.PyDataset):
    """The same batch again and again."""

    def __init__(self, inputs: np.ndarray, targets: np.ndarray, batches: int) -> None:
        super().__init__()
        self.one, self.batches = (inputs, targets), batches

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, number: int) -> Any:
        return self.one


class Repeated(keras.utils.PyDataset):
    """The batches of a dataset, over and over: a large one need not be made."""

    def __init__(self, stored: StoredSequence, batches: int) -> None:
        super().__init__()
        self.stored, self.batches = stored, batches

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, number: int) -> Any:
        return self.stored[number % len(self.stored)]


def patterns(config: Configuration, draws: int = 64) -> PatternSet:
    """Return patterns of the configured size: it does not matter of what."""
    stored = config.detector()
    nx, ny = stored.pixels
    random = np.random.default_rng(0)
    made = random.gamma(0.5, size=(draws, ny, nx)).astype(np.float32)
    made /= made.sum(axis=(1, 2), keepdims=True)
    pixel_mrad = stored.field_of_view_mrad[0] / nx, stored.field_of_view_mrad[1] / ny
    return PatternSet(made, pixel_mrad, list(range(draws)), random.normal(0, 0.01, (draws, 5)))


def report(name: str, bench: Bench, rounds: int, card: bool, peak: float | None) -> None:
    """Measure in turns, print the best of each source."""
    took: dict[str, list[tuple[float, float]]] = {source: [] for source in bench.sources}
    for _ in range(rounds + 1):
        for source, rows in took.items():
            rows.append(bench.seconds_per_image(source))
    # The first round compiles.
    least = {source: np.min(rows[1:], axis=0) for source, rows in took.items()}
    best = {source: float(1 / wall) for source, (wall, _) in least.items()}
    print(f"{name}, batches of {bench.batch}, {bench.precision}, XLA {bench.xla}:")
    for source, rate in best.items():
        print(
            f"  {source:13} {rate:9.1f} images/s  {rate / best['constant']:.3f} of constant"
            f"  {1e3 * least[source][1]:.2f} core-ms per image"
        )
    pixels = bench.config.dataset.pixels
    outputs = len(labels.OUTPUTS[OUTPUTS])
    _, forward = network_size(bench.config.network, pixels, outputs, by_steps=True)
    flops = PASSES * forward * best["materialised"]
    share = f", {1e-12 * flops / peak:.0%} of the peak" if peak else ""
    print(f"  {1e-9 * flops:,.0f} GFLOP/s{share}")
    if card and name == "paper":
        hours(bench.config, best, bench.batch)


def hours(config: Configuration, rates: Mapping[str, float], batch: int) -> None:
    """Print the hours of a training with each schedule; a validation is a forward pass."""
    examples = config.dataset.examples
    presented = examples.train + examples.validation / PASSES
    for name, source in (("paper", "materialised"), ("fast", "online")):
        section = config.changed({"training": {"schedule": name}}).training
        if section.examples_per_step != batch:
            print(f"  schedule {name} has batches of {section.examples_per_step}: give --batch")
            continue
        seconds = section.total_epochs * presented / rates[source]
        print(f"  schedule {name}, {source}: {seconds / 3600:.1f} GPU-hours per network")


if __name__ == "__main__":
    main()
