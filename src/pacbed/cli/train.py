"""``pacbed train``: one network, without Snakemake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from pacbed.cli.common import Count, Flat, Overlays, Threads, busy, progress, say, stderr
from pacbed.cli.learning import GEOMETRY, SAMPLE, differences, flat
from pacbed.exceptions import PacbedError
from pacbed.learning.specification import NetworkSpec
from pacbed.machine import usable_cores
from pacbed.study import results
from pacbed.study.configuration import load
from pacbed.study.networks import neighbour, networks

if TYPE_CHECKING:
    from pacbed.examples.dataset import Dataset
    from pacbed.examples.source import ExampleSource
    from pacbed.study.model import Configuration

_FIRST = Parameter(show_default="that of the first variant of the configuration")
_RESULTS = Parameter(show_default="results of the workflow")


@dataclass(frozen=True)
class Task:
    """A network, and what it is trained on.

    Parameters
    ----------
    semiangle_mrad
        Convergence semi-angle in mrad.
    layers
        Number of layers.
    outputs
        What to read.
    intensity
        Intensity scale.
    data
        Folder of train.zarr.zip and validation.zarr.zip.
    patterns
        Folder of the pattern stores, 00000.zarr.zip and so on, from which training examples are
        made with `training.data: online`.
    initial
        Trained model.keras to begin with.
    bounds
        Table of bounds, as the workflow makes it, with `training.loss: fisher`.
    """

    semiangle_mrad: float
    layers: Count
    outputs: Annotated[Literal["strain-rotation-tilt", "strain-rotation"] | None, _FIRST] = None
    intensity: Annotated[Literal["linear", "sqrt", "power"] | None, _FIRST] = None
    config: Overlays = ()
    data: Annotated[Path | None, _RESULTS] = None
    patterns: Annotated[Path | None, _RESULTS] = None
    initial: Annotated[Path | None, Parameter(show_default="as training.warm_start says")] = None
    bounds: Annotated[Path | None, _RESULTS] = None

    @cached_property
    def study(self) -> Configuration:
        """The configuration."""
        return load(self.config)

    @cached_property
    def network(self) -> NetworkSpec:
        """The network, which the configuration must have."""
        for option, value, section, key in (
            ("semiangle", self.semiangle_mrad, "microscope", "semiangles_mrad"),
            ("layers", self.layers, "dataset", "layers"),
        ):
            known = [f"{one:g}" for one in getattr(getattr(self.study, section), key)]
            if f"{value:g}" not in known:
                raise PacbedError(
                    f"--{option} {value:g}: {section}.{key} of the configuration has "
                    f"{', '.join(known)}. Choose one of these, or add it to an overlay (--config)"
                )
        first = self.study.variants[0]
        outputs, intensity = self.outputs or first.outputs, self.intensity or first.intensity
        return NetworkSpec(float(f"{self.semiangle_mrad:g}"), self.layers, outputs, intensity)

    @cached_property
    def draws(self) -> list[int] | None:
        """The draws of the training set; None for a pool of images of a scattering series."""
        if self.study.simulation.planewave.strain_states:
            return None
        splits = self.study.draws.splits()
        return [index for index, split in enumerate(splits) if split == "train"]

    @cached_property
    def stores(self) -> list[Path]:
        """The patterns of which training examples are made, if they are."""
        if self.study.training.data != "online":
            return []
        if self.draws is None:
            return [(self.data or self._result(results.DATASETS)) / "pool_train.zarr.zip"]
        folder = self.patterns or self._result(results.PATTERNS)
        return [Path(store) for store in results.stores(folder, self.draws)]

    @cached_property
    def first_weights(self) -> Path | None:
        """The network to begin with, if there is one."""
        if self.initial:
            return self.initial / "model.keras" if self.initial.is_dir() else self.initial
        warm_start = self.study.training.warm_start
        found = neighbour(self.network, networks(self.study), warm_start)
        return self._result(results.MODELS, found) / "model.keras" if found else None

    @cached_property
    def table_of_bounds(self) -> Path | None:
        """The table of bounds, if errors are weighted by it."""
        if self.study.training.loss != "fisher":
            return None
        return self.bounds or Path(self.study.results, results.BOUNDS)

    def _result(self, name: str, network: NetworkSpec | None = None) -> Path:
        return Path(self.study.results, name.format(**(network or self.network).wildcards))

    def dataset(self, split: str) -> Path:
        """Return the file of a set."""
        return (self.data or self._result(results.DATASETS)) / f"{split}.zarr.zip"

    def check(self) -> None:
        """Raise an error if something is missing: what, and how to get it."""
        names = ["validation"] if self.stores else ["train", "validation"]
        datasets = [self.dataset(name) for name in names]
        initial = [self.first_weights] if self.first_weights else []
        bounds = [self.table_of_bounds] if self.table_of_bounds else []
        # Of stores there may be hundreds: they are named by the model that needs them.
        made_by = "pool" if self.draws is None else "simulate"
        online = [f"{self._result(results.MODELS) / 'model.keras'} --until {made_by} augment"]
        for paths, targets, given, option in (
            (datasets, online if self.stores else datasets, self.data, "--data"),
            (self.stores, online, self.patterns, "--patterns"),
            (initial, initial, self.initial, "--initial"),
            (bounds, bounds, self.bounds, "--bounds"),
        ):
            if not (absent := [path for path in paths if not path.exists()]):
                continue
            many = f" and {len(absent) - 1} more do" if absent[1:] else " does"
            problem = f"{absent[0]}{many} not exist"
            if given:
                raise PacbedError(f"{problem}: see {option}")
            words = [*targets, *(["--configfile", *self.config] if self.config else [])]
            raise PacbedError(
                f"{problem}. Make what is missing with\n"
                f"  snakemake --profile profiles/local {' '.join(map(str, words))}\n"
                f"or say with {option} where it is"
            )

    def training(self) -> Dataset | ExampleSource:
        """Read the training examples, or the patterns of which they are made."""
        from pacbed.examples.source import ExampleSource

        if not self.stores:
            return self.read("train")
        return ExampleSource.read(
            self.stores,
            self.draws,
            self.study.augmentation(),
            self.study.dataset.examples.train,
            (self.study.seed, self.network.semiangle_mrad, self.network.layers, "train"),
        )

    def read(self, split: str) -> Dataset:
        """Read a set, and compare it with what the workflow would make."""
        from pacbed.examples.dataset import read_dataset
        from pacbed.storage.zipped import plain

        path = self.dataset(split)
        data = read_dataset(path)
        perfect = {"camera": "perfect", "mtf": "perfect"}  # where none is mentioned
        wanted = {
            "seed": self.study.seed,
            "semiangle_mrad": self.network.semiangle_mrad,
            "layers": self.network.layers,
            "split": split,
            "examples": getattr(self.study.dataset.examples, split),
            **perfect,
            **plain(self.study.augmentation().described()),
        }
        found = {**perfect, **flat(data.attributes), "examples": len(data.images)}
        if differing := differences(found, wanted, (*SAMPLE, *GEOMETRY)):
            raise PacbedError(f"{path} does not fit options and configuration: {differing}")
        if differing := differences(found, wanted, wanted):
            say(f"warning: {path} is not what the configuration asks for: {differing}")
        return data


def train(*, task: Flat[Task], output: Path, threads: Threads = usable_cores()) -> None:
    """Train one network of the configuration.

    It is trained as in the workflow, on examples that the workflow made. A training that was
    stopped or killed continues when the same command is given again.

    Parameters
    ----------
    output
        Folder that receives model.keras, history.csv and settings.json, and keeps unfinished work.
    threads
        Number of threads to use; another number may change the last digits.
    """
    from pacbed.learning import training
    from pacbed.runs.locks import sole_maker
    from pacbed.storage.zipped import checkpoint_of
    from pacbed.study.training_settings import error_scales, training_settings

    task.check()
    study, network, model = task.study, task.network, output / "model.keras"
    scaling = study.deformation.label_scaling(network.outputs)
    one, table = (network.semiangle_mrad, network.layers, scaling), task.table_of_bounds
    settings = training_settings(
        study, network.intensity, error_scales(table, *one) if table else None
    )
    console = stderr()
    tell = partial(say, console=console)
    with _resumable(checkpoint_of(model)), sole_maker(model, tell):
        training.configure(threads, log=tell, deterministic=not settings.xla)
        with busy("reading the examples", console):
            sets = task.training(), task.read("validation")
        with progress(console) as start:
            show = start("epochs")

            def report(epoch: int, epochs: int, losses: Mapping[str, float]) -> None:
                if epoch == 1 and model.exists():
                    tell(
                        f"warning: {model} is of another training, and will be replaced at the end"
                    )
                loss, validation = losses["loss"], losses["val_loss"]
                show(epoch, epochs, f"loss {loss:.3g}, validation {validation:.3g}")

            history = training.train(
                *sets,
                scaling,
                settings,
                output,
                report,
                tell,
                task.first_weights,
            )
    losses = history["validation_loss"]
    print(
        f"{model}: lowest validation loss {losses.min():.4g}, after epoch {losses.argmin() + 1} of "
        f"{len(losses)}"
    )
    test = task.dataset("test")
    seen = test if test.exists() else task.dataset("validation")
    print(f"How well it reads: pacbed evaluate {quote(str(output))} {quote(str(seen))}")


@contextmanager
def _resumable(checkpoint: Path) -> Iterator[None]:
    """Tell after Ctrl-C or SIGTERM how to continue, if something was kept."""
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        if checkpoint.exists():
            say("to continue, give the same command again")
        raise
