from pathlib import Path

import _keras_alone  # noqa: F401
from _job import job

from pacbed.examples.pool import write_pool
from pacbed.learning.training import configure
from pacbed.machine import sparse_progress
from pacbed.scattering.request import SeriesRequest
from pacbed.scattering.series import ScatteringSeries
from pacbed.seeding import seed_at
from pacbed.study.draws import draw
from pacbed.study.model import Configuration
from pacbed.study.sections import DeformationSection

params = snakemake.params
with job(snakemake.log[0]):
    configure(snakemake.threads)
    study = Configuration(
        **params.augmentation, microscope={"aperture_edge_mrad": params.aperture_edge_mrad}
    )
    # Not the draws of the study, which validate and test.
    seed = seed_at(params.seed, "pool", params.layers)
    ranges = DeformationSection(**params.deformation).draw_ranges()
    drawn = (draw(seed, params.semiangle_mrad, n, ranges) for n in range(params.images))
    series = ScatteringSeries(Path(snakemake.input[0]))
    series.check(SeriesRequest.from_dict(params.series))
    write_pool(
        Path(snakemake.output[0]),
        series,
        [(one.deformation, one.tilt_mrad) for one in drawn],
        study.microscope.aperture(params.semiangle_mrad),
        params.layers,
        study.augmentation(),
        params.seed,
        sparse_progress("images"),
    )
