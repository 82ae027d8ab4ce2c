from functools import partial
from pathlib import Path

from _job import found_work_done, job

from pacbed.examples.dataset import write_dataset
from pacbed.examples.pattern_set import read_pattern_set
from pacbed.machine import sparse_progress
from pacbed.runs.locks import sole_maker
from pacbed.storage.zipped import checkpoint_of
from pacbed.study.model import Configuration

params = snakemake.params
dataset = Path(snakemake.output[0])
say = partial(print, flush=True)
with job(snakemake.log[0]), sole_maker(dataset, say):
    if checkpoint_of(dataset).exists():
        found_work_done(snakemake.log[0])
    write_dataset(
        dataset,
        read_pattern_set(
            [Path(file) for file in snakemake.input],
            params.draws,
            params.layers,
            params.semiangle_mrad,
        ),
        Configuration(**params.augmentation).augmentation(),
        params.examples,
        (params.seed, params.semiangle_mrad, params.layers, snakemake.wildcards.split),
        snakemake.threads,
        sparse_progress("examples"),
        say,
    )
