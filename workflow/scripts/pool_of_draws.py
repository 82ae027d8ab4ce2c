from pathlib import Path

from _job import job

from pacbed.examples.pool import write_pool_of_draws
from pacbed.machine import sparse_progress
from pacbed.study.model import Configuration

params = snakemake.params
with job(snakemake.log[0]):
    study = Configuration(
        **params.augmentation, microscope={"aperture_edge_mrad": params.aperture_edge_mrad}
    )
    write_pool_of_draws(
        Path(snakemake.output[0]),
        [Path(state) for state in snakemake.input],
        params.images,
        study.microscope.aperture(params.semiangle_mrad),
        params.layers,
        study.augmentation(),
        params.seed,
        sparse_progress("images"),
    )
