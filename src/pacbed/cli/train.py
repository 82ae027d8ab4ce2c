"""``pacbed train``: one network, without Snakemake."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from pacbed.cli.common import CONFIG, Count, Overlays, Threads, configuration, progress, say, stderr
from pacbed.cli.learning import GEOMETRY, SAMPLE, differences, flat
from pacbed.exceptions import PacbedError
from pacbed.machine import Report, usable_cores

if TYPE_CHECKING:
    from pacbed.examples.dataset import Dataset
    from pacbed.learning.sequences import OnlineExamples
    from pacbed.learning.specification import NetworkSpec
    from pacbed.study.configuration import Config

Say = Callable[[str], None]

_FIRST = "that of the first variant of the configuration"
_RESULTS = "results of the workflow"


def train(
    *,
    semiangle: float,
    layers: Count,
    outputs: Annotated[
        Literal["strain-rotation-tilt", "strain-rotation"] | None, Parameter(show_default=_FIRST)
    ] = None,
    intensity: Annotated[
        Literal["linear", "sqrt", "power"] | None, Parameter(show_default=_FIRST)
    ] = None,
    output: Path,
    config: Overlays = (CONFIG,),
    data: Annotated[Path | None, Parameter(show_default=_RESULTS)] = None,
    patterns: Annotated[Path | None, Parameter(show_default=_RESULTS)] = None,
    initial: Annotated[Path | None, Parameter(show_default="as training.warm_start says")] = None,
    threads: Threads = usable_cores(),
) -> None:
    """Train one network of the configuration.

    It is trained as in the workflow, on examples that the workflow made. A training that was
    stopped or killed continues when the same command is given again.

    Parameters
    ----------
    semiangle
        Convergence semi-angle in mrad.
    layers
        Number of layers.
    outputs
        What to read.
    intensity
        Intensity scale.
    output
        Folder that receives model.keras, history.csv and settings.json, and keeps unfinished work.
    data
        Folder of train.zarr.zip and validation.zarr.zip.
    patterns
        Folder of the pattern stores, 00000.zarr.zip and so on, from which training examples are
        made with `training.data: online`.
    initial
        Trained model.keras to begin with.
    threads
        Number of threads to use; another number may change the last digits.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from pacbed.learning import training
    from pacbed.runs.locks import sole_maker
    from pacbed.storage.zipped import checkpoint_of
    from pacbed.study.training_settings import label_scaling, training_settings

    study = configuration(config)
    network = _network(study, semiangle, layers, outputs, intensity)
    inputs = _Inputs(study, network, config, data, patterns, initial)
    settings = training_settings(
        study["network"],
        study["training"],
        network.intensity,
        study["dataset"]["image_mean"],
        study["seed"],
    )
    model = output / "model.keras"
    console = stderr()
    tell: Say = partial(say, console=console)
    with _resumable(checkpoint_of(model)), sole_maker(model, tell):
        training.configure(threads, log=tell, deterministic=not settings.xla)
        with console.status("reading the examples"):
            sets = inputs.training(tell), inputs.read("validation", tell)
        with progress(console) as start:
            history = training.train(
                *sets,
                label_scaling(network.outputs, study["deformation"]),
                settings,
                output,
                _epochs(start("epochs"), tell, model if model.exists() else None),
                checkpoint_of(model),
                tell,
                inputs.initial,
            )
    losses = history["validation_loss"]
    print(
        f"{model}: lowest validation loss {losses.min():.4g}, after epoch {losses.argmin() + 1} of "
        f"{len(losses)}"
    )
    test, validation = inputs.dataset("test"), inputs.dataset("validation")
    print(f"How well it reads: pacbed evaluate {output} {test if test.exists() else validation}")


def _network(
    study: Config, semiangle: float, layers: int, outputs: str | None, intensity: str | None
) -> NetworkSpec:
    """Return the network that is asked for."""
    from pacbed.learning.specification import NetworkSpec

    for option, value, section, key in (
        ("semiangle", semiangle, "microscope", "semiangles_mrad"),
        ("layers", layers, "dataset", "layers"),
    ):
        known = [f"{one:g}" for one in study[section][key]]
        if f"{value:g}" not in known:
            raise PacbedError(
                f"--{option} {value:g}: {section}.{key} of the configuration has {', '.join(known)}"
            )
    outputs = outputs or study["variants"][0]["outputs"]
    intensity = intensity or study["variants"][0]["intensity"]
    return NetworkSpec(float(f"{semiangle:g}"), layers, outputs, intensity)


class _Inputs:
    """What a network is trained on, by default what the workflow made for it.

    Raises
    ------
    PacbedError
        If some of it is missing: what, and how to get it.
    """

    def __init__(
        self,
        study: Config,
        network: NetworkSpec,
        overlays: Sequence[Path],
        data: Path | None,
        patterns: Path | None,
        initial: Path | None,
    ) -> None:
        from pacbed.study.configuration import neighbour, networks
        from pacbed.study.draws import assign_splits

        self.study, self.network = study, network
        self.overlays = [path for path in overlays if path != CONFIG]
        self.data = data or self._results("datasets", network)
        self.online = study["training"]["data"] == "online"
        splits = assign_splits(study["draws"]["count"], study["draws"]["split"])
        self.draws = [index for index, split in enumerate(splits) if split == "train"]
        angle = f"{network.semiangle_mrad:g}mrad"
        folder = patterns or Path(study["results"]) / "patterns" / angle
        self.stores = [folder / f"{draw:05d}.zarr.zip" for draw in self.draws]
        beside = neighbour(network, networks(study), study["training"]["warm_start"])
        self.initial = initial or (self._model(beside) if beside else None)
        if self.initial and self.initial.is_dir():
            self.initial /= "model.keras"
        # Of stores there may be hundreds: they are named by the model that needs them.
        examples: list[Path | str] = [self._model(network), "--until", "simulate", "augment"]
        if self.online:
            self._require([self.dataset("validation")], "--data", data, examples)
            self._require(self.stores, "--patterns", patterns, examples)
        else:
            self._require(
                [self.dataset(split) for split in ("train", "validation")], "--data", data
            )
        if self.initial:
            self._require([self.initial], "--initial", initial)

    def _results(self, kind: str, network: NetworkSpec) -> Path:
        sample = f"{network.semiangle_mrad:g}mrad/{network.layers}layers"
        return Path(self.study["results"]) / kind / sample

    def _model(self, network: NetworkSpec) -> Path:
        """Return the model that the workflow makes."""
        variant = f"{network.outputs}_{network.intensity}"
        return self._results("models", network) / variant / "model.keras"

    def _require(
        self,
        paths: Sequence[Path],
        option: str,
        given: Path | None,
        targets: Sequence[Path | str] = (),
    ) -> None:
        if not (absent := [path for path in paths if not path.exists()]):
            return
        many = f" and {len(absent) - 1} more do" if absent[1:] else " does"
        problem = f"{absent[0]}{many} not exist"
        if given:
            raise PacbedError(f"{problem}: see {option}")
        words = ["snakemake", "--profile", "profiles/local", *(targets or paths)]
        words += ["--configfile", *self.overlays] if self.overlays else []
        raise PacbedError(
            f"{problem}. Make what is missing with\n  {' '.join(map(str, words))}\n"
            f"or say with {option} where it is"
        )

    def dataset(self, split: str) -> Path:
        """Return the file of a set."""
        return self.data / f"{split}.zarr.zip"

    def training(self, tell: Say) -> Dataset | OnlineExamples:
        """Read the training examples, or the patterns of which they are made."""
        from pacbed.study.training_settings import online_examples

        if not self.online:
            return self.read("train", tell)
        return online_examples(
            self.stores,
            self.draws,
            (self.study["seed"], self.network.semiangle_mrad, self.network.layers),
            self.study["dataset"]["examples"]["train"],
            self.study,
        )

    def read(self, split: str, tell: Say) -> Dataset:
        """Read a set, and compare it with what the workflow would make."""
        from pacbed.examples.dataset import read_dataset
        from pacbed.storage.zipped import plain
        from pacbed.study.configuration import augmentation_settings

        path = self.dataset(split)
        data = read_dataset(path)
        wanted = {
            "seed": self.study["seed"],
            "semiangle_mrad": self.network.semiangle_mrad,
            "layers": self.network.layers,
            "split": split,
            "examples": self.study["dataset"]["examples"][split],
            **plain(asdict(augmentation_settings(self.study))),
        }
        found = {**flat(data.attributes), "examples": len(data.images)}
        if differing := differences(found, wanted, (*SAMPLE, *GEOMETRY)):
            raise PacbedError(f"{path} does not fit options and configuration: {differing}")
        if differing := differences(found, wanted, wanted):
            tell(f"warning: {path} is not what the configuration asks for: {differing}")
        return data


@contextmanager
def _resumable(checkpoint: Path) -> Iterator[None]:
    """Tell after Ctrl-C or SIGTERM how to continue, if something was kept."""
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        if checkpoint.exists():
            say("to continue, give the same command again")
        raise


def _epochs(
    report: Report, tell: Say, replaced: Path | None
) -> Callable[[int, int, Mapping[str, float]], None]:
    """Return what shows the losses, and before the first warns of a model that will be replaced."""
    warnings = [replaced] if replaced else []

    def after_epoch(epoch: int, epochs: int, losses: Mapping[str, float]) -> None:
        while warnings:
            tell(
                f"warning: {warnings.pop()} is of another training, and will be replaced at the "
                "end of this"
            )
        words = f"loss {losses['loss']:.3g}, validation {losses['val_loss']:.3g}"
        report(epoch, epochs, words)

    return after_epoch
