"""Two questions about learning, at a size that a laptop answers in half an hour each.

    python benchmarks/learning.py schedules [--folder results/learning]
    python benchmarks/learning.py tilt [--loss fisher]

One semi-angle (6.35 mrad), some hundred draws of the plane-wave engine without diffuse scattering,
images of 128 pixels, a network of a quarter of the paper's filters.

schedules
    Does one cycle of Adam, with examples made online, reach in a tenth of the presentations what
    the paper's gradient descent, at the paper's stepped rates, reaches with a fixed set? Five
    layers, linear intensity.
tilt
    Are strains of a monolayer read better by a network that need not read tilt (Fig. 7 of the
    paper)? Square-root intensity, three seeds each. With --loss fisher by Adam, and not by gradient
    descent.

Writes a table and a figure, and prints the test errors. What was finished is kept and not done
again. What was found: docs/training.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from rich.console import Console
from rich.table import Table

from pacbed.examples.dataset import read_dataset, write_dataset
from pacbed.examples.labels import LabelScaling, display_unit
from pacbed.examples.pattern_set import read_pattern_set
from pacbed.examples.source import ExampleSource
from pacbed.figures.style import SYMBOLS, paper_style, save
from pacbed.learning.network import NetworkSettings
from pacbed.learning.prediction import predict
from pacbed.learning.schedule import OneCycleSchedule, Schedule, SteppedSchedule
from pacbed.learning.training import TrainingSettings, configure, train
from pacbed.machine import usable_cores
from pacbed.patterns.store import write_patterns
from pacbed.precision.bound_table import mean_bounds
from pacbed.precision.design import simulated_bounds
from pacbed.precision.metrics import errors
from pacbed.specimen.microscope import Aperture
from pacbed.study.configuration import load
from pacbed.study.draws import assign_splits, draw
from pacbed.study.training_settings import error_scales

SEMIANGLE_MRAD, LAYERS = 6.35, (1, 5)
SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}
EXAMPLES = {"train": 16_384, "validation": 2048, "test": 4096}
NETWORK = {"filters": (8, 16, 32, 64), "dense": (128, 64), "image_mean": (0.2, 0.3)}
# The rates of the paper, in as many epochs as make ten times the presentations of one cycle.
STEPS = SteppedSchedule(
    ((3, 1e-4), (3, 2e-4), (3, 5e-4), (12, 1e-3), (3, 5e-4), (3, 2e-4), (3, 1e-4))
)
SEEDS = (1, 2, 3)


def main() -> None:
    """Answer one of the questions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=["schedules", "tilt"])
    parser.add_argument("--folder", type=Path, default=Path("results/learning"))
    parser.add_argument("--draws", type=int, default=400, help="of which 70 %% are for training")
    parser.add_argument("--loss", choices=["mse", "fisher"], default="mse", help="of tilt")
    options = parser.parse_args()
    configure(usable_cores())
    study, of_tilt = Study(options.folder, options.draws), options.study == "tilt"
    runs = tilt(study, options.loss == "fisher") if of_tilt else schedules(study)
    results = pd.concat(runs, ignore_index=True)
    name = "tilt_fisher" if of_tilt and options.loss == "fisher" else options.study
    results.to_csv(options.folder / f"{name}.csv", index=False)
    save(strain_errors(results) if of_tilt else curves(results), options.folder / f"{name}.png")
    show(results)


class Study:
    """Patterns and datasets, made when they are not there yet."""

    def __init__(self, folder: Path, draws: int) -> None:
        simulation = {"layers": max(LAYERS), "pixels": 320, "thermal_motion": "coherent"}
        self.config = load().changed(
            {
                "simulation": {"engine": "planewave", **simulation},
                "dataset": {"pixels": 128, "translation_px": 5},
            }
        )
        self.settings = self.config.augmentation()
        self.folder, self.draws = folder / f"{draws}draws", draws
        self.simulate()

    def store(self, index: int) -> Path:
        """Return the file of a draw."""
        return self.folder / "patterns" / f"{index:05d}.zarr.zip"

    def simulate(self) -> None:
        """Simulate the draws that are not there."""
        waves, ranges = self.config.engine(usable_cores()), self.config.deformation.draw_ranges()
        for index in range(self.draws):
            if self.store(index).exists():
                continue
            drawn = draw(self.config.seed, SEMIANGLE_MRAD, index, ranges)
            request = self.config.request(
                SEMIANGLE_MRAD, drawn.deformation, drawn.tilt_mrad, seed=index
            )
            write_patterns(self.store(index), request, waves.simulate(request))

    def library(self, split: str, layers: int) -> Any:
        """Return the patterns of a set."""
        splits = assign_splits(self.draws, SHARES)
        draws = [index for index, name in enumerate(splits) if name == split]
        return read_pattern_set([self.store(index) for index in draws], draws, layers)

    def dataset(self, split: str, layers: int) -> Any:
        """Return the materialised examples of a set."""
        path = self.folder / f"{layers}layers" / f"{split}.zarr.zip"
        if not path.exists():
            write_dataset(path, self.source(split, layers))
        return read_dataset(path)

    def source(self, split: str, layers: int) -> ExampleSource:
        """Return examples that are made while a network learns, or written."""
        address = (self.config.seed, SEMIANGLE_MRAD, layers, split)
        return ExampleSource(self.library(split, layers), self.settings, EXAMPLES[split], address)

    def scales(self, layers: int, scaling: LabelScaling) -> tuple[float, ...]:
        """Return the scales of the loss `fisher`, from the bound with full thermal motion."""
        path = self.folder / f"bound_{layers}layers.csv"
        if not path.exists():
            aperture, asked = Aperture(SEMIANGLE_MRAD), load().experiment()
            asked = replace(asked, apertures=(aperture,), examples=self.settings)
            bounds = mean_bounds(simulated_bounds(asked, [layers], threads=usable_cores()))
            bounds.to_csv(path, index=False)
        return error_scales(path, SEMIANGLE_MRAD, layers, scaling)

    def run(
        self,
        name: str,
        layers: int,
        outputs: str,
        schedule: Schedule,
        batch: int,
        online: bool,
        seed: int = 1,
        intensity: str = "sqrt",
        optimizer: Literal["sgd", "adam"] = "sgd",
        fisher: bool = False,
    ) -> pd.DataFrame:
        """Train a network and return its history and test errors, one row per epoch."""
        scaling = self.config.deformation.label_scaling(outputs)
        network = NetworkSettings(**NETWORK, intensity=intensity)
        scales = self.scales(layers, scaling) if fisher else None
        settings = TrainingSettings(
            network, schedule, batch, 0.9, seed, optimizer=optimizer, error_scales=scales
        )
        folder = self.folder / "models" / name
        started = time.monotonic()
        history = train(
            self.source("train", layers) if online else self.dataset("train", layers),
            self.dataset("validation", layers),
            scaling,
            settings,
            folder,
            lambda epoch, epochs, losses: print(
                f"{name}: epoch {epoch} of {epochs}, {losses}, {time.monotonic() - started:.0f} s",
                flush=True,
            ),
            print,
        )
        test = self.dataset("test", layers)
        table = predict(folder / "model.keras", folder / "settings.json", test)
        found = errors(table, table).set_index("parameter")
        presentations = EXAMPLES["train"] * history["epoch"]
        return history.assign(
            run=name,
            outputs=outputs,
            seed=seed,
            presentations=presentations,
            **{f"mae_{parameter}": value for parameter, value in found["mae"].items()},
        )


def schedules(study: Study) -> Iterator[pd.DataFrame]:
    """Compare one cycle with steps of ten times the length."""
    outputs, cycle = "strain-rotation-tilt", OneCycleSchedule(3, 1e-3, 0.15)
    fast = {"online": True, "intensity": "linear", "optimizer": "adam"}
    yield study.run("fast", 5, outputs, cycle, 8, **fast)
    yield study.run("stepped", 5, outputs, STEPS, 32, online=False, intensity="linear")


def tilt(study: Study, fisher: bool) -> Iterator[pd.DataFrame]:
    """Compare networks that read tilt with those that need not."""
    cycle = OneCycleSchedule(2, 1e-3, 0.15) if fisher else OneCycleSchedule(2, 0.02, 0.25)
    way: dict[str, Any] = {"optimizer": "adam", "fisher": True} if fisher else {}
    for seed in SEEDS:
        for outputs in ("strain-rotation-tilt", "strain-rotation"):
            name = f"{outputs}_{'fisher_' if fisher else ''}{seed}"
            yield study.run(name, 1, outputs, cycle, 16, online=True, seed=seed, **way)


def show(results: pd.DataFrame) -> None:
    """Print the test errors of every run."""
    names = [c.removeprefix("mae_") for c in results if c.startswith("mae_")]
    table = Table(title="Mean absolute error on the test set")
    for column in ("run", "presentations", "validation loss", *names):
        table.add_column(column, justify="right")
    for run, rows in results.groupby("run", sort=False):
        cells = []
        for name in names:
            factor, unit = display_unit(name)
            cells.append(f"{factor * rows[f'mae_{name}'].iloc[0]:.3f} {unit}")
        best = rows["validation_loss"].min()
        table.add_row(str(run), f"{rows['presentations'].max():,}", f"{best:.5f}", *cells)
    Console(width=160).print(table)


def curves(results: pd.DataFrame) -> Figure:
    """Draw the validation loss against the number of examples presented."""
    with paper_style():
        figure = Figure(figsize=(3.6, 2.6), layout="constrained")
        axes = figure.subplots()
        labels = {
            "fast": "one cycle of Adam, online",
            "stepped": "the paper's steps, fixed set",
        }
        colours = sns.color_palette("colorblind", len(labels))
        for (run, label), colour in zip(labels.items(), colours, strict=True):
            rows = results[results["run"] == run]
            x, y = rows["presentations"], rows["validation_loss"]
            axes.plot(x, y, "o-", ms=2.5, color=colour, label=label)
        axes.set(xscale="log", yscale="log", xlabel="examples presented", ylabel="validation loss")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.legend()
    return figure


def strain_errors(results: pd.DataFrame) -> Figure:
    """Draw the strain errors of networks with and without tilt, one point for each seed."""
    strains = ["strain_xx", "strain_yy", "strain_xy"]
    names = {"strain-rotation-tilt": "with tilt", "strain-rotation": "without tilt"}
    runs = results.drop_duplicates("run")
    with paper_style():
        figure = Figure(figsize=(3.6, 2.4), layout="constrained")
        axes = figure.subplots()
        colours = sns.color_palette("colorblind", len(names))
        for number, (outputs, label) in enumerate(names.items()):
            rows = runs[runs["outputs"] == outputs]
            for place, strain in enumerate(strains):
                maes = 100 * rows[f"mae_{strain}"]
                x = place + 0.3 * (number - 0.5) + np.linspace(-0.05, 0.05, len(maes))
                axes.plot(x, maes, "o", color=colours[number], label=None if place else label)
        axes.set_xticks(range(len(strains)), [SYMBOLS[strain] for strain in strains])
        axes.set(ylabel="test MAE (%)", ylim=(0, None), xlim=(-0.5, 2.5))
        axes.legend()
    return figure


if __name__ == "__main__":
    main()
