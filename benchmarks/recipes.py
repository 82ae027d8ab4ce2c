"""What each change of the paper's way to train is worth, at equal cost.

    python benchmarks/recipes.py recipes --series FILE --states FOLDER [--core-minutes 2 6]
    python benchmarks/recipes.py draws --series FILE --states FOLDER [--core-minutes 4]
    python benchmarks/recipes.py recipes --draw    # what is there, without any training

recipes
    Test error against core-minutes of training, for four recipes, each with one thing more than the
    one before: the paper's network and loss with a fixed set of examples, of 500 draws; examples
    without end, online from a pool of images with a strain and tilt each; the loss `fisher`; the
    network that looks twice.
draws
    Test error of the last recipe against the number of images in the pool, at equal presentations.

One semi-angle and thickness, doses, noise and ranges of the paper, full thermal motion, six outputs
of the square root of the intensity. All trainings are one cycle of Adam. Training images are of
--series; validation and test images of the strain states in --states, simulated one by one (as in
benchmarks/reading.py; those that are not there are made, half a core-minute each). The fields of
view and shifts of these images vary less than those of the training: --states reach no farther.

The epochs of a training follow from the measured cost of an example, so that --core-minutes are
about what it takes; the table has the CPU time that it took. Each training is a process of one
thread, --jobs at a time. Default sizes take five core-minutes for images, and half of one to
measure each recipe; then 96 for `recipes` and 36 for `draws`.

Each finished training is kept as a line of CSV in --folder and not done again; one that was stopped
begins again. A folder is for one series and one set of states. Writes a table and a figure there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from direct import KEPT, SCALE, SHIFT_px, direct_states
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pacbed.examples.dataset import Dataset, read_dataset, write_dataset
from pacbed.examples.labels import PARAMETERS, display_unit
from pacbed.examples.pool import read_pool, write_pool, write_pool_of_draws
from pacbed.examples.source import ExampleSource
from pacbed.figures.style import PAGE, SYMBOLS, log_axis, paper_style, save
from pacbed.learning.network import NetworkSettings
from pacbed.learning.prediction import predict
from pacbed.learning.schedule import OneCycleSchedule
from pacbed.learning.sizes import Kind
from pacbed.learning.training import TrainingSettings, configure, train
from pacbed.machine import sparse_progress
from pacbed.precision.bound import prior_covariance
from pacbed.precision.bound_table import Sample, bound_table, mean_bounds
from pacbed.precision.metrics import errors
from pacbed.scattering.series import ScatteringSeries
from pacbed.seeding import seed_at
from pacbed.specimen.microscope import Aperture
from pacbed.storage.files import write_text
from pacbed.study.configuration import load
from pacbed.study.draws import draw
from pacbed.study.states import base_states
from pacbed.study.training_settings import error_scales

FILTERS: dict[Kind, tuple[int, ...]] = {"paper": (16, 32, 64), "coarse-to-fine": (16, 32, 64)}
DENSE, BATCH, PEAK_RATE, WARM_UP = (256, 128), 32, 1e-3, 0.15
DRAWS = 500  # of the fixed set
STATES, VALIDATING = 20, 5
EXAMPLES = {"validation": 256, "test": 512}
LENGTHS = {"recipes": [2.0, 6.0], "draws": [4.0]}
POOLS = (500, 2000)  # besides the largest
MEASURED = 16 * BATCH  # examples of the epoch whose cost is measured
STRAINS = PARAMETERS[:3]
PANELS = {
    "strain, mean of three": STRAINS,
    SYMBOLS["rotation_deg"]: PARAMETERS[3:4],
    "tilt, mean of two": PARAMETERS[4:],
}
SHOWN = dict(zip(PARAMETERS, ("ε_xx", "ε_yy", "ε_xy", "γ", "φ_x", "φ_y"), strict=True))


@dataclass(frozen=True)
class Recipe:
    """A way to train."""

    label: str
    online: bool = True
    fisher: bool = True
    kind: Kind = "paper"


RECIPES = {
    "paper": Recipe("paper, 500 draws", online=False, fisher=False),
    "online": Recipe("+ draws without end", fisher=False),
    "fisher": Recipe("+ loss fisher"),
    "coarse-to-fine": Recipe("+ coarse to fine", kind="coarse-to-fine"),
}
LAST = "coarse-to-fine"


@dataclass(frozen=True)
class Run:
    """A training: recipe, images of the pool, cost that it is to have, and seed."""

    recipe: str
    images: int
    core_minutes: float
    seed: int

    @property
    def name(self) -> str:
        """Its name in files."""
        return f"{self.recipe}_{self.images}images_{self.core_minutes:g}min_seed{self.seed}"


def main() -> None:
    """Train what is missing, and show what is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("study", choices=list(LENGTHS))
    add("--series", type=Path, help="scattering series, of the ranges of the paper")
    add("--states", type=Path, help="folder of the strain states, which are kept")
    add("--folder", type=Path, default=Path("results/recipes"))
    add("--core-minutes", type=float, nargs="+", help="(default: 2 and 6; draws: 4)")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3])
    add("--jobs", type=int, default=1, help="trainings at a time")
    add("--draw", action="store_true", help="train nothing, show what is there")
    add("--semiangle", type=float, default=6.35, help="in mrad")
    add("--layers", type=int, default=10)
    add("--pixels", type=int, default=128)
    add("--images", type=int, default=9500, help="of the pool")
    add("--examples", type=int, default=2560, help="of an epoch, and of the fixed set")
    # What this script asks of processes of its own.
    add("--measure", choices=list(RECIPES), help=argparse.SUPPRESS)
    add("--train", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.core_minutes = options.core_minutes or LENGTHS[options.study]
    study = Study(options)
    if options.measure or options.train:
        configure(1)
        return study.measure(options.measure) if options.measure else study.run(options.train)
    if not options.draw:
        if not (options.series and options.states):
            parser.error("name --series and --states, or only --draw")
        study.train_missing()
    results = study.results()
    if results.empty:
        parser.error(f"there is no training in {study.folder}")
    bound = pd.read_csv(study.bound).set_index("parameter")["data_mae"]
    results.to_csv(study.folder / f"{options.study}.csv", index=False)
    save(curves(results, bound, options.study), study.folder / f"{options.study}.png")
    show(results, bound)


class Study:
    """The images, made when they are not there yet, and the trainings."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.aperture = options, Aperture(options.semiangle)
        name = f"{options.semiangle:g}mrad_{options.layers}layers_{options.pixels}px"
        self.folder = options.folder / f"{name}_{options.examples}examples"
        self.bound = self.folder / "bound.csv"
        # Shifts are configured for 256 pixels.
        pixels = {"pixels": options.pixels, "translation_px": 10 * options.pixels / 256}
        self.config = load().changed({"dataset": pixels})
        self.settings = self.config.augmentation()
        self.ranges = self.config.deformation.draw_ranges()
        self.scaling = self.config.deformation.label_scaling("strain-rotation-tilt")

    @cached_property
    def series(self) -> ScatteringSeries:
        """The scattering series."""
        return ScatteringSeries(self.options.series)

    def pool(self, images: int, times: int = 1) -> Path:
        """Return the pool of so many draws, each seen so many times."""
        path = self.folder / f"pool_{images}x{times}.zarr.zip"
        if not path.exists():
            layers, seed = self.options.layers, seed_at(self.config.seed, "pool", times)
            drawn = [draw(seed, self.options.semiangle, n, self.ranges) for n in range(images)]
            states = [(one.deformation, one.tilt_mrad) for one in drawn for _ in range(times)]
            told = sparse_progress("images")
            write_pool(path, self.series, states, self.aperture, layers, self.settings, seed, told)
        return path

    def dataset(self, split: str) -> Path:
        """Return the examples of a set: training, of a few draws; validation and test."""
        path, layers = self.folder / f"{split}.zarr.zip", self.options.layers
        if not path.exists():
            examples = EXAMPLES.get(split, self.options.examples)
            if split == "train":
                pool, settings = self.pool(DRAWS, -(-examples // DRAWS)), self.settings
            else:
                pool, settings = self.pool_of_states(split)
            library = read_pool(pool, self.options.semiangle, layers)
            address = (self.config.seed, self.options.semiangle, layers, split)
            write_dataset(path, ExampleSource(library, settings, examples, address))
        return path

    def pool_of_states(self, split: str) -> tuple[Path, Any]:
        """Make images of directly simulated states, within what these reach."""
        layers, kept = self.options.layers, sorted({*KEPT, self.options.layers})
        kept = [n for n in kept if n <= self.series.request.layers]
        angles = [self.options.semiangle]
        states = direct_states(self.options.states, self.series, angles, kept, STATES)
        chosen = states[:VALIDATING] if split == "validation" else states[VALIDATING:]
        path, times = self.folder / f"pool_{split}.zarr.zip", -(-EXAMPLES[split] // len(chosen))
        shift = SHIFT_px * self.options.pixels / 256
        settings = replace(self.settings, field_of_view_variation=SCALE, translation_px=shift)
        files, seed, told = [one.path for one in chosen], self.config.seed, sparse_progress(split)
        if not path.exists():
            write_pool_of_draws(path, files, times, self.aperture, layers, settings, seed, told)
        return path, settings

    def prepare(self) -> None:
        """Make what all trainings need, in their order of cost."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.bound.exists():
            layers, settings = [self.options.layers], self.settings
            number, energy = self.config.bound.deformed_states, self.series.request.energy_keV
            samples = [
                Sample.of_series(self.series, self.aperture, state, layers, settings, name)
                for name, state in base_states(self.config.seed, self.ranges, number).items()
            ]
            covariance = prior_covariance(self.ranges, settings)
            table = mean_bounds(bound_table(samples, layers, settings, covariance, energy))
            write_text(self.bound, table.to_csv(index=False))
        for split in ("train", *EXAMPLES):
            self.dataset(split)
        self.pool(self.options.images)

    def training(self, run: Run, examples: int) -> ExampleSource | Dataset:
        """Return the training examples of an epoch."""
        if not RECIPES[run.recipe].online:
            return first(read_dataset(self.dataset("train")), examples)
        angle, layers = self.options.semiangle, self.options.layers
        pool, n = read_pool(self.pool(self.options.images), angle, layers), run.images
        assert pool.geometry is not None
        library = replace(
            pool,
            patterns=pool.patterns[:n],
            draws=pool.draws[:n],
            parameters=pool.parameters[:n],
            geometry=pool.geometry[:n],
        )
        return ExampleSource(library, self.settings, examples, (run.seed, angle, layers, "train"))

    def train(
        self, run: Run, epochs: int, examples: int, validation: Dataset, folder: Path
    ) -> tuple[list[float], pd.DataFrame]:
        """Train a network; return CPU seconds until the end of each epoch, and the history."""
        recipe, angle = RECIPES[run.recipe], self.options.semiangle
        scales = None
        if recipe.fisher:
            scales = error_scales(self.bound, angle, self.options.layers, self.scaling)
        mean = self.settings.image_mean
        network = NetworkSettings(
            FILTERS[recipe.kind], DENSE, intensity="sqrt", image_mean=mean, kind=recipe.kind
        )
        schedule = OneCycleSchedule(epochs, PEAK_RATE, WARM_UP)
        settings = TrainingSettings(
            network, schedule, BATCH, 0.9, run.seed, optimizer="adam", error_scales=scales
        )
        training, spent, started = self.training(run, examples), [], time.process_time()
        history = train(
            training,
            validation,
            self.scaling,
            settings,
            folder,
            lambda *_: spent.append(time.process_time() - started),
            print,
        )
        return spent, history

    def measure(self, recipe: str) -> None:
        """Measure what beginning a training costs, and an example."""
        few = first(read_dataset(self.dataset("validation")), BATCH)
        run = Run(recipe, self.options.images, 0, 1)
        with tempfile.TemporaryDirectory() as folder:
            # The last epoch writes a state, the first one compiles.
            (one, two, _), _ = self.train(run, 3, MEASURED, few, Path(folder))
        print(f"{recipe}: {1e3 * (two - one) / MEASURED:.2f} core-ms per example", flush=True)
        cost = {"begin_s": 2 * one - two, "example_s": (two - one) / MEASURED}
        write_text(self.folder / f"cost_{recipe}.json", json.dumps(cost) + "\n")

    def run(self, values: Sequence[Any]) -> None:
        """Train a network for about as long as it is to be, and keep its test errors."""
        run, examples = Run(*values), self.options.examples
        cost = json.loads((self.folder / f"cost_{run.recipe}.json").read_text(encoding="utf-8"))
        epoch_s = examples * cost["example_s"]
        epochs = max(1, round((60 * run.core_minutes - cost["begin_s"]) / epoch_s))
        validation, test = (read_dataset(self.dataset(split)) for split in EXAMPLES)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            spent, history = self.train(run, epochs, examples, validation, folder)
            table = predict(folder / "model.keras", folder / "settings.json", test)
        found = errors(table, table).set_index("parameter")["mae"]
        row = {
            "recipe": run.recipe,
            "images": run.images,
            "asked_core_min": run.core_minutes,
            "seed": run.seed,
            "epochs": epochs,
            "presentations": epochs * examples,
            "core_min": spent[-1] / 60,
            "validation_loss": history["validation_loss"].min(),
            **{f"mae_{parameter}": value for parameter, value in found.items()},
        }
        write_text(self.kept(run), pd.DataFrame([row]).to_csv(index=False))
        strain = 100 * found[list(STRAINS)].mean()
        print(f"{run.name}: {row['core_min']:.2f} core-minutes, strain {strain:.4f} %", flush=True)

    def kept(self, run: Run) -> Path:
        """Return the file of a finished training."""
        return self.folder / "runs" / f"{run.name}.csv"

    def train_missing(self) -> None:
        """Do the trainings that are not there, in processes of their own."""
        options, largest = self.options, self.options.images
        if options.study == "recipes":
            sizes = [(name, largest if one.online else DRAWS) for name, one in RECIPES.items()]
        else:
            sizes = [(LAST, n) for n in (*POOLS, largest) if n <= largest]
        chosen = product(options.core_minutes, options.seeds, sizes)
        wanted = [Run(recipe, n, minutes, seed) for minutes, seed, (recipe, n) in chosen]
        missing = [run for run in wanted if not self.kept(run).exists()]
        if not missing:
            return
        configure(options.jobs)
        self.prepare()
        (self.folder / "runs").mkdir(exist_ok=True)
        new = {run.recipe: None for run in missing}
        measured = [r for r in new if not (self.folder / f"cost_{r}.json").exists()]
        self.in_processes([["--measure", recipe] for recipe in measured], "measured")
        asked = [[run.recipe, run.images, run.core_minutes, run.seed] for run in missing]
        self.in_processes([["--train", json.dumps(one)] for one in asked], "trainings")

    def in_processes(self, asked: list[list[str]], what: str) -> None:
        """Have this script do things, some at a time."""

        def do(one: list[str]) -> None:
            subprocess.run([sys.executable, *sys.argv, *one], check=True)

        if not asked:
            return
        with ThreadPoolExecutor(self.options.jobs) as processes:
            done = processes.map(do, asked)
            list(track(done, what, total=len(asked), console=Console(stderr=True)))

    def results(self) -> pd.DataFrame:
        """Return the finished trainings of the study, also those of other lengths and seeds."""
        files = sorted((self.folder / "runs").glob("*.csv"))
        if not files:
            return pd.DataFrame()
        found, options = pd.concat(map(pd.read_csv, files), ignore_index=True), self.options
        last, all_images = found["recipe"] == LAST, found["images"] == options.images
        if options.study == "recipes":
            found = found[all_images | (found["recipe"] == "paper")]
        else:
            found = found[last & found["asked_core_min"].isin(options.core_minutes)]
        order = found["recipe"].map(list(RECIPES).index)
        keys = ["order", "images", "asked_core_min", "seed"]
        return found.assign(order=order).sort_values(keys).drop(columns="order")


def first(data: Dataset, examples: int) -> Dataset:
    """Return the first examples of a dataset."""
    names = ("images", "labels", "draws", "transformations")
    return replace(data, **{name: getattr(data, name)[:examples] for name in names})


def show(results: pd.DataFrame, bound: pd.Series) -> None:
    """Print the test errors: mean, and range of the seeds."""
    table = Table(title="Mean absolute error on the test set, mean (range) of the seeds")
    for column in ("recipe", "images", "seeds", "core-min", "presented"):
        table.add_column(column, justify="right")
    units = {name: display_unit(name) for name in PARAMETERS}
    for name, (_, unit) in units.items():
        table.add_column(f"{SHOWN[name]} ({unit})", justify="right")
    keys = ["recipe", "images", "asked_core_min"]
    for (recipe, images, _), rows in results.groupby(keys, sort=False):
        cells = []
        for name, (factor, _) in units.items():
            mae = factor * rows[f"mae_{name}"]
            cells.append(f"{mae.mean():.4f}\n({mae.min():.4f}–{mae.max():.4f})")
        presented, cost = f"{rows['presentations'].mean():,.0f}", f"{rows['core_min'].mean():.2f}"
        known = RECIPES[str(recipe)].label, f"{images:,}", str(len(rows)), cost, presented
        table.add_row(*known, *cells)
    table.add_section()
    bounds = (f"{factor * bound[name]:.4f}" for name, (factor, _) in units.items())
    table.add_row("bound", "", "", "", "", *bounds)
    Console(width=170).print(table)


def curves(results: pd.DataFrame, bound: pd.Series, study: str) -> Figure:
    """Draw errors against the cost of the training or the images of the pool."""
    with paper_style():
        figure = Figure(figsize=(PAGE, 2.6), layout="constrained")
        panels = figure.subplots(1, 3, width_ratios=(1.6, 1, 1))
        for panel, (title, parameters) in zip(panels, PANELS.items(), strict=True):
            factor, unit = display_unit(parameters[0])
            mae = factor * results[[f"mae_{name}" for name in parameters]].mean(axis=1)
            lines(panel, results.assign(mae=mae), study)
            level = factor * bound[list(parameters)].mean()
            panel.axhline(level, color="0.4", ls="--", lw=0.9, label="bound")
            panel.set(title=title, ylabel=f"test MAE ({unit})")
            log_axis(panel)
        (dashed, *handles), (bound_label, *labels) = panels[0].get_legend_handles_labels()
        legend = [*handles, dashed], [*labels, bound_label]
        figure.legend(*legend, loc="outside right upper")
    return figure


def lines(panel: Axes, results: pd.DataFrame, study: str) -> None:
    """Draw the mean of the seeds, and their range."""
    by_cost = study == "recipes"
    column = "core_min" if by_cost else "images"
    group, point = ("recipe", "asked_core_min") if by_cost else ("asked_core_min", "images")
    colours = dict(zip(RECIPES, sns.color_palette("colorblind"), strict=False))
    for name, rows in results.groupby(group, sort=False):
        points = rows.groupby(point)
        x, mae = points[column].mean(), points["mae"]
        beyond = np.array([mae.mean() - mae.min(), mae.max() - mae.mean()])
        label = RECIPES[str(name)].label if by_cost else f"{name:g} core-minutes"
        colour = colours[str(name)] if by_cost else None
        panel.errorbar(x, mae.mean(), beyond, fmt="o-", ms=3, capsize=2, color=colour, label=label)
    panel.set(xscale="log", xlabel="core-minutes" if by_cost else "images of the pool")
    panel.xaxis.set_major_locator(
        LogLocator(subs=(1, 2, 5)) if by_cost else FixedLocator(sorted(set(results["images"])))
    )
    panel.xaxis.set_major_formatter("{x:,g}")
    panel.xaxis.set_minor_formatter(NullFormatter())


if __name__ == "__main__":
    main()
