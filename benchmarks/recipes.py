"""What each change of the paper's way to train is worth, at equal cost.

    python benchmarks/recipes.py recipes --series FILE [--core-minutes 1.5 4.5]
    python benchmarks/recipes.py draws --series FILE [--core-minutes 1.5]
    python benchmarks/recipes.py recipes --show     # what is there, without any training

recipes
    Test error against core-minutes of training, for four recipes: the paper's network and loss,
    with 500 draws of strain and tilt, each in 20 images; with 10,000 draws, each in one; and with
    these either the loss `fisher` or the coarse-to-fine network.
draws
    Test error of the last recipe against the number of draws, in as many images.

One semi-angle and thickness, ranges, doses and noise of the paper, full thermal motion, six outputs
of the square root of the intensity. All trainings are one cycle of Adam, online from a pool of
10,000 images of --series: each has its strain, tilt and geometry, and gets dose and noise anew each
time. Validation and test images, of the same ranges, are of 5 and 20 strain states simulated one by
one, otherwise than a series (see direct.py). The figure has the mean and the range of the seeds.

The epochs of a training follow from the measured cost of an example of its network and loss, so
that --core-minutes are about what it takes; the table has the CPU time that it took. Each training
is a process of one thread, --jobs at a time. Default sizes take about ten core-minutes for states
and images, and one to measure each network and loss; then 72 for `recipes` and 14 for `draws`.

Each finished training is kept as a line of CSV in --folder and not done again; one that was stopped
begins again. A folder is for one series. Writes a table and a figure there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from direct import direct_states
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter
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

FILTERS, DENSE = (16, 32, 64), (256, 128)
BATCH, PEAK_RATE, WARM_UP = 32, 1e-3, 0.15
FEW = 500  # draws of the first recipe
DRAWS = (FEW, 2000)  # of the study of draws, besides as many as images
STATES, VALIDATING = 25, 5
EXAMPLES = {"validation": 256, "test": 512}
LENGTHS = {"recipes": [1.5, 4.5], "draws": [1.5]}
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
    few: bool = False
    fisher: bool = False
    kind: Kind = "paper"

    def draws(self, images: int) -> int:
        """Return the draws of a pool of so many images."""
        return min(FEW, images) if self.few else images

    @property
    def costs_like(self) -> str:
        """What its cost depends on."""
        return f"{self.kind}_{'fisher' if self.fisher else 'mse'}"


RECIPES = {
    "paper": Recipe("{draws:,} draws", few=True),
    "more-draws": Recipe("{draws:,} draws"),
    "fisher": Recipe("{draws:,} draws, loss fisher", fisher=True),
    "coarse-to-fine": Recipe("{draws:,} draws, coarse to fine", kind="coarse-to-fine"),
}
LAST = "coarse-to-fine"


@dataclass(frozen=True)
class Run:
    """A training: recipe, draws of the pool, cost that it is to have, and seed."""

    recipe: str
    draws: int
    core_minutes: float
    seed: int

    @property
    def name(self) -> str:
        """Its name in files."""
        return f"{self.recipe}_{self.draws}draws_{self.core_minutes:g}min_seed{self.seed}"


def main() -> None:
    """Train what is missing, and show what is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("study", choices=list(LENGTHS))
    add("--series", type=Path, help="scattering series, of the ranges of the paper")
    add("--folder", type=Path, default=Path("results/recipes"))
    add("--core-minutes", type=float, nargs="+", help="(default: 1.5 and 4.5; draws: 4)")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3])
    add("--jobs", type=int, default=1, help="trainings at a time")
    add("--show", action="store_true", help="train nothing, show what is there")
    add("--semiangle", type=float, default=6.35, help="in mrad")
    add("--layers", type=int, default=10)
    add("--pixels", type=int, default=128)
    add("--images", type=int, default=10_000, help="of the pool")
    add("--examples", type=int, default=2560, help="of an epoch")
    # What this script asks of processes of its own.
    add("--measure", choices=list(RECIPES), help=argparse.SUPPRESS)
    add("--train", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.core_minutes = options.core_minutes or LENGTHS[options.study]
    study = Study(options)
    if options.measure or options.train:
        configure(1)
        return study.measure(options.measure) if options.measure else study.run(options.train)
    if not options.show:
        if not options.series:
            parser.error("name --series, or only --show")
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
        name = f"{options.semiangle:g}mrad_{options.layers}layers"
        sizes = f"{options.pixels}px_{options.images}images_{options.examples}examples"
        self.states, self.folder = (options.folder / f"{name}_{of}" for of in ("states", sizes))
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

    def pool(self, draws: int) -> Path:
        """Return the pool of so many draws, all in equally many images."""
        times = self.options.images // draws
        path = self.folder / f"pool_{draws}x{times}.zarr.zip"
        if not path.exists():
            layers, seed = self.options.layers, seed_at(self.config.seed, "pool", times)
            drawn = [draw(seed, self.options.semiangle, n, self.ranges) for n in range(draws)]
            states = [(one.deformation, one.tilt_mrad) for one in drawn for _ in range(times)]
            told = sparse_progress("images")
            write_pool(path, self.series, states, self.aperture, layers, self.settings, seed, told)
        return path

    def dataset(self, split: str) -> Path:
        """Return the examples for validation or test."""
        path, layers = self.folder / f"{split}.zarr.zip", self.options.layers
        if not path.exists():
            pool = read_pool(self.pool_of_states(split), self.options.semiangle, layers)
            address = (self.config.seed, self.options.semiangle, layers, split)
            write_dataset(path, ExampleSource(pool, self.settings, EXAMPLES[split], address))
        return path

    def pool_of_states(self, split: str) -> Path:
        """Return the images of directly simulated states for validation or test."""
        path, layers = self.folder / f"pool_{split}.zarr.zip", self.options.layers
        if not path.exists():
            states = direct_states(
                self.states,
                self.series,
                [self.options.semiangle],
                [layers],
                STATES,
                stretch=self.config.deformation.principal_stretch,
                field_of_view_mrad=self.config.simulation.field_of_view_mrad,
                thickest=layers,
            )
            chosen = states[:VALIDATING] if split == "validation" else states[VALIDATING:]
            files, times = [one.path for one in chosen], -(-EXAMPLES[split] // len(chosen))
            seed, told = self.config.seed, sparse_progress(split)
            write_pool_of_draws(
                path, files, times, self.aperture, layers, self.settings, seed, told
            )
        return path

    def prepare(self, pools: Iterable[int]) -> None:
        """Make what the trainings need."""
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
        for split in EXAMPLES:
            self.dataset(split)
        for draws in pools:
            self.pool(draws)

    def training(self, run: Run, examples: int) -> ExampleSource:
        """Return the training examples of an epoch."""
        angle, layers = self.options.semiangle, self.options.layers
        pool = read_pool(self.pool(run.draws), angle, layers)
        return ExampleSource(pool, self.settings, examples, (run.seed, angle, layers, "train"))

    def train(
        self, run: Run, epochs: int, examples: int, validation: Dataset, folder: Path
    ) -> tuple[list[float], pd.DataFrame]:
        """Train a network; return CPU seconds until each epoch ended and until all, and history."""
        recipe, angle = RECIPES[run.recipe], self.options.semiangle
        scales = None
        if recipe.fisher:
            scales = error_scales(self.bound, angle, self.options.layers, self.scaling)
        mean = self.settings.image_mean
        network = NetworkSettings(
            FILTERS, DENSE, intensity="sqrt", image_mean=mean, kind=recipe.kind
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
        return [*spent, time.process_time() - started], history

    def measure(self, recipe: str) -> None:
        """Measure what an example of a training costs, and all that is not of its epochs."""
        known = RECIPES[recipe]
        few = first(read_dataset(self.dataset("validation")), BATCH)
        run = Run(recipe, known.draws(self.options.images), 0, 1)
        with tempfile.TemporaryDirectory() as folder:
            # The last epoch writes a state, the first one compiles.
            examples = self.options.examples
            (one, two, three, end), _ = self.train(run, 3, examples, few, Path(folder))
        each_s, rest_s = (two - one) / examples, 2 * one - two + end - three
        print(
            f"{known.costs_like}: {1e3 * each_s:.2f} core-ms per example, {rest_s:.0f} s besides",
            flush=True,
        )
        cost = {"rest_s": rest_s, "example_s": each_s}
        write_text(self.cost(recipe), json.dumps(cost) + "\n")

    def cost(self, recipe: str) -> Path:
        """Return the file of the measured cost of a recipe."""
        return self.folder / f"cost_{RECIPES[recipe].costs_like}.json"

    def run(self, values: Sequence[Any]) -> None:
        """Train a network for about as long as it is to be, and keep its test errors."""
        run, examples = Run(*values), self.options.examples
        cost = json.loads(self.cost(run.recipe).read_text(encoding="utf-8"))
        epoch_s = examples * cost["example_s"]
        epochs = max(1, round((60 * run.core_minutes - cost["rest_s"]) / epoch_s))
        validation, test = (read_dataset(self.dataset(split)) for split in EXAMPLES)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            spent, history = self.train(run, epochs, examples, validation, folder)
            table = predict(folder / "model.keras", folder / "settings.json", test)
        found = errors(table, table).set_index("parameter")["mae"]
        row = {
            "recipe": run.recipe,
            "draws": run.draws,
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
        options, images = self.options, self.options.images
        if options.study == "recipes":
            sizes = [(name, one.draws(images)) for name, one in RECIPES.items()]
        else:
            sizes = [(LAST, n) for n in (*DRAWS, images) if n <= images]
        chosen = product(options.core_minutes, options.seeds, sizes)
        wanted = [Run(recipe, draws, minutes, seed) for minutes, seed, (recipe, draws) in chosen]
        missing = [run for run in wanted if not self.kept(run).exists()]
        if not missing:
            return
        configure(options.jobs)
        self.prepare({run.draws for run in missing})
        (self.folder / "runs").mkdir(exist_ok=True)
        unknown = {
            self.cost(run.recipe): run.recipe
            for run in missing
            if not self.cost(run.recipe).exists()
        }
        self.in_processes([["--measure", recipe] for recipe in unknown.values()], "measured")
        asked = [[run.recipe, run.draws, run.core_minutes, run.seed] for run in missing]
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
        if options.study == "recipes":
            draws = {name: one.draws(options.images) for name, one in RECIPES.items()}
            found = found[found["draws"] == found["recipe"].map(draws)]
        else:
            length = found["asked_core_min"].isin(options.core_minutes)
            found = found[length & (found["recipe"] == LAST)]
        order = found["recipe"].map(list(RECIPES).index)
        keys = ["order", "draws", "asked_core_min", "seed"]
        return found.assign(order=order).sort_values(keys).drop(columns="order")


def first(data: Dataset, examples: int) -> Dataset:
    """Return the first examples of a dataset."""
    names = ("images", "labels", "draws", "transformations")
    return replace(data, **{name: getattr(data, name)[:examples] for name in names})


def show(results: pd.DataFrame, bound: pd.Series) -> None:
    """Print the test errors: mean, and range of the seeds."""
    table = Table(title="Mean absolute error on the test set, mean (range) of the seeds")
    for column in ("recipe", "draws", "seeds", "core-min", "presented"):
        table.add_column(column, justify="right")
    units = {name: display_unit(name) for name in PARAMETERS}
    for name, (_, unit) in units.items():
        table.add_column(f"{SHOWN[name]} ({unit})", justify="right")
    keys = ["recipe", "draws", "asked_core_min"]
    for (recipe, draws, _), rows in results.groupby(keys, sort=False):
        cells = []
        for name, (factor, _) in units.items():
            mae = factor * rows[f"mae_{name}"]
            cells.append(f"{mae.mean():.4f}\n({mae.min():.4f}–{mae.max():.4f})")
        presented, cost = f"{rows['presentations'].mean():,.0f}", f"{rows['core_min'].mean():.2f}"
        label = RECIPES[str(recipe)].label.format(draws=draws)
        known = label, f"{draws:,}", str(len(rows)), cost, presented
        table.add_row(*known, *cells)
    table.add_section()
    bounds = (f"{factor * bound[name]:.4f}" for name, (factor, _) in units.items())
    table.add_row("bound", "", "", "", "", *bounds)
    Console(width=170).print(table)


def curves(results: pd.DataFrame, bound: pd.Series, study: str) -> Figure:
    """Draw errors against the cost of the training or the draws of the pool."""
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
    column = "core_min" if by_cost else "draws"
    group, point = ("recipe", "asked_core_min") if by_cost else ("asked_core_min", "draws")
    colours = dict(zip(RECIPES, sns.color_palette("colorblind"), strict=False))
    for name, rows in results.groupby(group, sort=False):
        points = rows.groupby(point)
        x, mae = points[column].mean(), points["mae"]
        beyond = np.array([mae.mean() - mae.min(), mae.max() - mae.mean()])
        label, colour = f"{name} core-minutes", None
        if by_cost:
            label = RECIPES[str(name)].label.format(draws=rows["draws"].iloc[0])
            colour = colours[str(name)]
        panel.errorbar(x, mae.mean(), beyond, fmt="o-", ms=3, capsize=2, color=colour, label=label)
    panel.set(xscale="log", xlabel="core-minutes" if by_cost else "draws")
    panel.xaxis.set_major_locator(FixedLocator(sorted(set(results[point]))))
    panel.xaxis.set_major_formatter("{x:,g}")
    panel.xaxis.set_minor_formatter(NullFormatter())


if __name__ == "__main__":
    main()
