from pathlib import Path

import numpy as np
from _job import job, sparse_progress

from pacbed.config import augmentation_settings, draw_ranges
from pacbed.dataset import load_library, write_dataset
from pacbed.deformation import draw

params = snakemake.params
with job(snakemake.log[0]):
    config = {"deformation": params.ranges, "dataset": params.dataset}
    drawn = [
        draw(params.seed, params.semiangle_mrad, index, draw_ranges(config))
        for index in params.draws
    ]
    strains = [one.deformation.strain for one in drawn]
    parameters = np.array(
        [[e[0, 0], e[1, 1], e[0, 1], *one.tilt_mrad] for e, one in zip(strains, drawn, strict=True)]
    )
    stores = [Path(file) for file in snakemake.input]
    library = load_library(stores, params.draws, parameters, params.layers)
    write_dataset(
        Path(snakemake.output[0]),
        library,
        augmentation_settings(config),
        params.examples,
        (params.seed, params.semiangle_mrad, params.layers, snakemake.wildcards.split),
        snakemake.threads,
        sparse_progress("examples"),
    )
