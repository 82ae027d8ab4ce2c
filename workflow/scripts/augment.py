from functools import partial
from pathlib import Path

import _keras_alone  # noqa: F401
from _job import job

from pacbed.examples.dataset import write_dataset
from pacbed.examples.source import ExampleSource
from pacbed.learning.training import configure
from pacbed.machine import sparse_progress
from pacbed.runs.locks import sole_maker
from pacbed.study.model import Configuration

params = snakemake.params
dataset = Path(snakemake.output[0])
say = partial(print, flush=True)
with job(snakemake.log[0]), sole_maker(dataset, say):
    configure(snakemake.threads)
    source = ExampleSource.read(
        [Path(file) for file in snakemake.input],
        params.draws,
        Configuration(**params.augmentation).augmentation(),
        params.examples,
        (params.seed, params.semiangle_mrad, params.layers, snakemake.wildcards.split),
    )
    if note := source.note_on_pixels():
        say(note)
    write_dataset(dataset, source, sparse_progress("examples"))
