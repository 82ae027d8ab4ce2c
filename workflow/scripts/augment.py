from pathlib import Path

from _job import job, sparse_progress

from pacbed.config import augmentation_settings
from pacbed.dataset import load_library, write_dataset

params = snakemake.params
with job(snakemake.log[0]):
    stores = [Path(file) for file in snakemake.input]
    write_dataset(
        Path(snakemake.output[0]),
        load_library(stores, params.draws, params.layers),
        augmentation_settings(
            {"deformation": {"rotation_deg": params.rotation_deg}, "dataset": params.dataset}
        ),
        params.examples,
        (params.seed, params.semiangle_mrad, params.layers, snakemake.wildcards.split),
        snakemake.threads,
        sparse_progress("examples"),
    )
