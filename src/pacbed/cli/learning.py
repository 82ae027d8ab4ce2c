"""The commands that train one network and say how well one reads, without Snakemake."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pacbed.cli.main import CONFIG, HelpFormatter, add_config, configuration, positive
from pacbed.exceptions import PacbedError
from pacbed.machine import usable_cores

if TYPE_CHECKING:
    import pandas as pd

    from pacbed.examples.dataset import Dataset
    from pacbed.learning.sequences import OnlineExamples
    from pacbed.learning.specification import NetworkSpec
    from pacbed.learning.training import EpochReport
    from pacbed.study.configuration import Config

Say = Callable[[str], None]

_SILENCE_s = 30
"""Time between two lines about a training in a log."""

_ECHO_s = 1.0
"""Time in which another Ctrl-C is the same one, passed on by what runs the command."""

_SAMPLE = ("semiangle_mrad", "layers")
_GEOMETRY = ("pixels", "field_of_view_mrad")


def add_train(commands: Any) -> None:
    """Add ``pacbed train`` to the commands."""
    command = commands.add_parser(
        "train",
        help="train one network of the configuration",
        description="Train one network, as the workflow does, on examples that the workflow made. "
        "What is stopped or killed goes on when the same command is given again.",
        formatter_class=HelpFormatter,
    )
    add = command.add_argument
    add("--semiangle", type=float, required=True, metavar="MRAD", help="semi-angle in mrad")
    add("--layers", type=positive, required=True, metavar="N", help="number of layers")
    add(
        "--outputs",
        choices=["strain-rotation-tilt", "strain-rotation"],
        help="what to read (default: that of the first variant of the configuration)",
    )
    add(
        "--intensity",
        choices=["linear", "sqrt", "power"],
        help="intensity scale (default: that of the first variant of the configuration)",
    )
    add(
        "--output",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="receives model.keras, history.csv and settings.json, and keeps unfinished work",
    )
    add_config(command)
    add(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="where train.zarr.zip and validation.zarr.zip are (default: results of the workflow)",
    )
    add(
        "--patterns",
        type=Path,
        metavar="FOLDER",
        help="where the pattern stores are, 00000.zarr.zip and so on, of which training.data: "
        "online makes examples (default: results of the workflow)",
    )
    add(
        "--initial",
        type=Path,
        metavar="FILE",
        help="trained model.keras to begin with (default: as training.warm_start says)",
    )
    add(
        "--threads",
        type=positive,
        default=usable_cores(),
        help="threads to use; another number may change the last digits",
    )
    command.set_defaults(run=_train)


def add_evaluate(commands: Any) -> None:
    """Add ``pacbed evaluate`` to the commands."""
    command = commands.add_parser(
        "evaluate",
        help="say how well a network reads a dataset",
        description="Predict the parameters of every example of a dataset and print how far they "
        "are from the truth, beside the error of always answering the mean of the same dataset.",
        formatter_class=HelpFormatter,
    )
    add = command.add_argument
    add(
        "model",
        type=Path,
        metavar="MODEL_FOLDER",
        help="where model.keras and settings.json are, of pacbed train or of the workflow",
    )
    add("datasets", type=Path, nargs="+", metavar="DATASET", help="such as test.zarr.zip")
    add(
        "--output",
        type=Path,
        metavar="FILE",
        help="also write all predictions to a Parquet file, with a column dataset for several",
    )
    add("--threads", type=positive, default=usable_cores(), help="threads to use")
    command.set_defaults(run=_evaluate)


def _train(options: argparse.Namespace) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from pacbed.learning.training import configure, train
    from pacbed.runs.locks import sole_maker
    from pacbed.storage.zipped import checkpoint_of
    from pacbed.study.configuration import canonical, load
    from pacbed.study.training_settings import label_scaling, training_settings

    config = canonical(load(configuration(options.config)))
    network = _network(options, config)
    inputs = _Inputs(options, config, network)
    inputs.check()
    settings = training_settings(
        config["network"],
        config["training"],
        network.intensity,
        config["dataset"]["image_mean"],
        config["seed"],
    )
    model = options.output / "model.keras"
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    say = partial(_say, console)
    with _stopping_kindly(say, checkpoint_of(model)), sole_maker(model, say):
        configure(options.threads, log=say, deterministic=not settings.xla)
        with console.status("reading the examples"):
            training, validation = inputs.training(say), inputs.validation(say)
        with _epochs(console) as report:
            history = train(
                training,
                validation,
                label_scaling(network.outputs, config["deformation"]),
                settings,
                options.output,
                _saying_first(report, say, model) if model.exists() else report,
                checkpoint_of(model),
                say,
                inputs.initial,
            )
    losses = history["validation_loss"]
    print(
        f"{model}: lowest validation loss {losses.min():.4g}, after epoch {losses.argmin() + 1} of "
        f"{len(losses)}"
    )
    test, validation_set = (inputs.data / f"{name}.zarr.zip" for name in ("test", "validation"))
    seen = test if test.exists() else validation_set
    print(f"How well it reads: pacbed evaluate {options.output} {seen}")


def _network(options: argparse.Namespace, config: Config) -> NetworkSpec:
    """Return the network that is asked for."""
    from pacbed.learning.specification import NetworkSpec

    angles, layers = config["microscope"]["semiangles_mrad"], config["dataset"]["layers"]
    if f"{options.semiangle:g}" not in (known := [f"{angle:g}" for angle in angles]):
        raise PacbedError(
            f"--semiangle {options.semiangle:g}: microscope.semiangles_mrad of the configuration "
            f"has {', '.join(known)}"
        )
    if options.layers not in layers:
        raise PacbedError(
            f"--layers {options.layers}: dataset.layers of the configuration has "
            f"{', '.join(map(str, layers))}"
        )
    first = config["variants"][0]
    return NetworkSpec(
        float(f"{options.semiangle:g}"),
        options.layers,
        options.outputs or first["outputs"],
        options.intensity or first["intensity"],
    )


class _Inputs:
    """What a network is trained on, by default what the workflow made for it.

    Parameters
    ----------
    options
        Of the command.
    config
        The configuration.
    network
        The network.
    """

    def __init__(self, options: argparse.Namespace, config: Config, network: NetworkSpec) -> None:
        from pacbed.study.configuration import neighbour, networks
        from pacbed.study.draws import assign_splits

        self.options, self.config, self.network = options, config, network
        self.results = Path(config["results"])
        self.data: Path = options.data or self.results / "datasets" / _sample(network)
        self.online = config["training"]["data"] == "online"
        splits = assign_splits(config["draws"]["count"], config["draws"]["split"])
        self.draws = [index for index, split in enumerate(splits) if split == "train"]
        angle = f"{network.semiangle_mrad:g}mrad"
        folder = options.patterns or self.results / "patterns" / angle
        self.stores = [folder / f"{draw:05d}.zarr.zip" for draw in self.draws]
        beside = neighbour(network, networks(config), config["training"]["warm_start"])
        self.initial: Path | None = options.initial or (self._model(beside) if beside else None)
        if self.initial and self.initial.is_dir():
            self.initial /= "model.keras"

    def _model(self, network: NetworkSpec) -> Path:
        """Return the model that the workflow makes."""
        variant = f"{network.outputs}_{network.intensity}"
        return self.results / "models" / _sample(network) / variant / "model.keras"

    def check(self) -> None:
        """Look whether all of it is there.

        Raises
        ------
        PacbedError
            If not: what is missing, and how to get it.
        """
        options, names = self.options, ["validation"] if self.online else ["train", "validation"]
        datasets = [self.data / f"{name}.zarr.zip" for name in names]
        stores = self.stores if self.online else []
        initial = [self.initial] if self.initial else []
        # Of stores there may be hundreds: they are named by the model that needs them.
        examples = [self._model(self.network), "--until", "simulate", "augment"]
        for paths, targets, given, option in (
            (datasets, examples if self.online else datasets, options.data, "--data"),
            (stores, examples, options.patterns, "--patterns"),
            (initial, initial, options.initial, "--initial"),
        ):
            if not (absent := [path for path in paths if not path.exists()]):
                continue
            many = f" and {len(absent) - 1} more do" if absent[1:] else " does"
            problem = f"{absent[0]}{many} not exist"
            if given:
                raise PacbedError(f"{problem}: see {option}")
            raise PacbedError(
                f"{problem}. Make what is missing with\n  {self._snakemake(targets)}\n"
                f"or say with {option} where it is"
            )

    def _snakemake(self, targets: Sequence[Any]) -> str:
        """Return the command that makes some files of the workflow."""
        overlays = [path for path in self.options.config if path != CONFIG]
        words = ["snakemake", "--profile", "profiles/local", *targets]
        return " ".join(map(str, [*words, *(["--configfile", *overlays] if overlays else [])]))

    def training(self, say: Say) -> Dataset | OnlineExamples:
        """Read the training examples, or the patterns of which they are made."""
        from pacbed.study.training_settings import online_examples

        if not self.online:
            return self._read("train", say)
        return online_examples(
            self.stores,
            self.draws,
            (self.config["seed"], self.network.semiangle_mrad, self.network.layers),
            self.config["dataset"]["examples"]["train"],
            self.config,
        )

    def validation(self, say: Say) -> Dataset:
        """Read the validation examples."""
        return self._read("validation", say)

    def _read(self, split: str, say: Say) -> Dataset:
        """Read a set, and compare it with what the workflow would make.

        Raises
        ------
        PacbedError
            If it is of another semi-angle, thickness, or field.
        """
        from pacbed.examples.dataset import read_dataset
        from pacbed.storage.zipped import plain
        from pacbed.study.configuration import augmentation_settings

        path = self.data / f"{split}.zarr.zip"
        data = read_dataset(path)
        wanted = {
            "seed": self.config["seed"],
            "semiangle_mrad": self.network.semiangle_mrad,
            "layers": self.network.layers,
            "split": split,
            "examples": self.config["dataset"]["examples"][split],
            **plain(asdict(augmentation_settings(self.config))),
        }
        found = {**_flat(data.attributes), "examples": len(data.images)}
        if differing := _differences(found, wanted, (*_SAMPLE, *_GEOMETRY)):
            raise PacbedError(f"{path} does not fit options and configuration: {differing}")
        if differing := _differences(found, wanted, wanted):
            say(f"warning: {path} is not what the configuration asks for: {differing}")
        return data


def _sample(network: NetworkSpec) -> str:
    """Return the folder of a semi-angle and a thickness in results of the workflow."""
    return f"{network.semiangle_mrad:g}mrad/{network.layers}layers"


def _flat(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a dataset with those of its augmentation among them."""
    return {**attributes, **attributes.get("augmentation", {})}


def _differences(
    found: Mapping[str, Any], wanted: Mapping[str, Any], names: Sequence[str] | Mapping[str, Any]
) -> str:
    """Say which of some attributes differ, as far as both have them."""
    both = [name for name in names if name in found and name in wanted]
    return "; ".join(
        f"{name} is {found[name]}, not {wanted[name]}"
        for name in both
        if found[name] != wanted[name]
    )


def _say(console: Console, line: str) -> None:
    """Print a line beside a progress bar, if there is one."""
    word = "warning:"
    text = Text(line)
    if line.startswith(word):
        text.stylize("bold yellow", 0, len(word))
    console.print(text, soft_wrap=True)


@contextmanager
def _stopping_kindly(say: Say, checkpoint: Path) -> Iterator[None]:
    """Let Ctrl-C do what SIGTERM does, and say afterwards how to go on.

    A training ends after the running batch then, and keeps where it stands. The second Ctrl-C ends
    it at once, and what it kept after an earlier epoch remains.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C.
    """
    first: float | None = None

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        if first is None:
            first = now
            say("stopping; press Ctrl-C again to stop at once")
            signal.raise_signal(signal.SIGTERM)
        elif now - first > _ECHO_s:
            signal.default_int_handler(number, frame)

    before = signal.getsignal(signal.SIGINT)
    # What a shell runs in the background ignores Ctrl-C: it is not meant.
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as end:
        if checkpoint.exists():
            say("to go on, give the same command again")
        if first is not None:
            raise KeyboardInterrupt from end
        raise
    finally:
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, before)


@contextmanager
def _epochs(console: Console) -> Iterator[EpochReport]:
    """Provide what shows the progress of a training: a bar, or in a log a line now and then."""
    if not console.is_terminal:
        yield _sparse_lines(console)
        return
    columns = (
        TextColumn("epochs"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[losses]}"),
        TimeRemainingColumn(),
    )
    # An epoch may take minutes, and what remains is known from several.
    with Progress(*columns, console=console, transient=True, speed_estimate_period=3600) as bar:
        task = bar.add_task("", total=None, losses="")
        yield lambda epoch, epochs, losses: bar.update(
            task, completed=epoch, total=epochs, losses=_in_words(losses)
        )


def _sparse_lines(console: Console) -> EpochReport:
    started = written = time.monotonic()

    def report(epoch: int, epochs: int, losses: Mapping[str, float]) -> None:
        nonlocal written
        now = time.monotonic()
        if epoch == epochs or now - written > _SILENCE_s:
            written = now
            seconds = f"{now - started:.0f} s"
            _say(console, f"epoch {epoch} of {epochs} after {seconds}: {_in_words(losses)}")

    return report


def _in_words(losses: Mapping[str, float]) -> str:
    return f"loss {losses['loss']:.3g}, validation {losses['val_loss']:.3g}"


def _saying_first(report: EpochReport, say: Say, model: Path) -> EpochReport:
    """Say once, when a training turns out not to be that of a model, that it will replace it."""
    said = False

    def both(epoch: int, epochs: int, losses: Mapping[str, float]) -> None:
        nonlocal said
        if not said:
            say(f"warning: {model} is of another training, and will be replaced at the end of this")
            said = True
        report(epoch, epochs, losses)

    return both


def _evaluate(options: argparse.Namespace) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from pacbed.examples.dataset import read_dataset
    from pacbed.learning.prediction import predict
    from pacbed.learning.training import configure
    from pacbed.precision.metrics import errors

    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    say = partial(_say, console)
    model, settings = options.model / "model.keras", options.model / "settings.json"
    _check_fit(options.datasets, model, settings, say)
    configure(options.threads, log=say)
    tables: list[pd.DataFrame] = []
    for path in options.datasets:
        with console.status(Text(f"reading {path}")):
            tables.append(predict(model, settings, read_dataset(path)))
        title = f"{path}, {len(tables[-1])} examples"
        _print_errors(errors(tables[-1], tables[-1]), title)
    if options.output:
        _write_predictions(tables, options.datasets, options.output)
        print(options.output)


def _check_fit(datasets: Sequence[Path], model: Path, settings: Path, say: Say) -> None:
    """Compare datasets with that on which a network was trained.

    Raises
    ------
    PacbedError
        If something is missing, or a dataset has another field.
    """
    from pacbed.storage.zipped import open_store

    for path in (model, settings):
        if not path.is_file():
            raise PacbedError(
                f"{path} does not exist: name a folder that pacbed train or the workflow filled"
            )
    try:
        trained = _flat(json.loads(settings.read_text(encoding="utf-8"))["data"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PacbedError(f"cannot read {settings}: {error}") from error
    for path in datasets:
        with open_store(path) as group:
            found = _flat(dict(group.attrs))
        if differing := _differences(found, trained, _GEOMETRY):
            raise PacbedError(f"{path} does not fit {model}: {differing}")
        if differing := _differences(found, trained, _SAMPLE):
            say(f"warning: {path} is not what {model} was trained for: {differing}")


def _print_errors(found: pd.DataFrame, title: str) -> None:
    from pacbed.examples.labels import display_unit

    table = Table(title=Text(title))
    table.add_column("parameter")
    for column in ("MAE", "RMSE", "bias", "95th percentile", "MAE of the mean"):
        table.add_column(column, justify="right")
    for row in found.to_dict("records"):
        name = str(row["parameter"])
        factor, unit = display_unit(name)
        table.add_row(
            f"{name.split('_deg')[0].split('_mrad')[0]} ({unit})",
            f"{factor * row['mae']:.3g}",
            f"{factor * row['rmse']:.3g}",
            f"{factor * row['bias']:+.3g}",
            f"{factor * row['p95']:.3g}",
            f"{factor * row['baseline_mae']:.3g}",
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _write_predictions(
    tables: Sequence[pd.DataFrame], datasets: Sequence[Path], output: Path
) -> None:
    """Write the predictions of one dataset, or of several with a column that tells which."""
    import pandas as pd

    from pacbed.storage.tables import write_table

    table = tables[0]
    if len(tables) > 1:
        for one, path in zip(tables, datasets, strict=True):
            one.insert(0, "dataset", str(path))
        table = pd.concat(tables, ignore_index=True)
    write_table(table, output)
