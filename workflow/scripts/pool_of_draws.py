from pathlib import Path

from _job import job, states_in

from pacbed.examples.pool import write_pool_of_draws
from pacbed.machine import sparse_progress
from pacbed.study.model import Configuration

params = snakemake.params
with job(snakemake.log[0]):
    study = Configuration(
        **params.augmentation, microscope={"aperture_edge_mrad": params.aperture_edge_mrad}
    )
    states = states_in(snakemake.input)
    for pool, layers in zip(snakemake.output, params.layers, strict=True):
        write_pool_of_draws(
            Path(pool),
            states,
            params.images,
            study.microscope.aperture(params.semiangle_mrad),
            layers,
            study.augmentation(),
            params.seed,
            sparse_progress(f"images of {layers} layers"),
        )
