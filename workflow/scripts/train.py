from functools import partial
from pathlib import Path

import _keras_alone  # noqa: F401
from _job import job, note_work_found, reserves_gpu

from pacbed.examples.dataset import read_dataset
from pacbed.examples.source import ExampleSource
from pacbed.learning.training import configure, train
from pacbed.machine import sparse_progress
from pacbed.runs.locks import sole_maker
from pacbed.storage.waiting import put_aside
from pacbed.storage.zipped import checkpoint_of
from pacbed.study.model import Configuration
from pacbed.study.training_settings import error_scales, training_settings


def training_examples():
    if not (online := params.online):
        return read_dataset(Path(snakemake.input.train))
    return ExampleSource.read(
        [Path(path) for path in snakemake.input.train],
        online["draws"],
        Configuration(**online["augmentation"]).augmentation(),
        online["examples"],
        (*online["address"], "train"),
    )


def scales(scaling):
    if not (bounds := snakemake.input.bounds):
        return None
    chosen = snakemake.wildcards
    return error_scales(Path(bounds), float(chosen.semiangle), int(chosen.layers), scaling)


params = snakemake.params
study = Configuration(
    seed=params.seed,
    deformation=params.ranges,
    dataset={"image_mean": params.image_mean},
    network=params.network,
    training=params.training,
)
model = Path(snakemake.output.model)
say = partial(print, flush=True)
with job(snakemake.log[0]), sole_maker(model, say):
    put_aside(map(Path, snakemake.output))
    note_work_found(snakemake, checkpoint_of(model).exists())
    gpu, deterministic = reserves_gpu(snakemake.resources), not study.training.xla
    configure(snakemake.threads, gpu, say, deterministic)
    progress = sparse_progress("epochs")
    scaling = study.deformation.label_scaling(params.outputs)
    train(
        training_examples(),
        read_dataset(Path(snakemake.input.validation)),
        scaling,
        training_settings(study, params.intensity, scales(scaling)),
        model.parent,
        lambda epoch, epochs, losses: progress(epoch, epochs),
        say,
        initial=next(map(Path, snakemake.input.initial), None),
    )
