from pathlib import Path

import _keras_alone  # noqa: F401
from _job import job

from pacbed.examples.augment import AugmentationSettings
from pacbed.examples.dataset import read_dataset
from pacbed.examples.predictions import study_of
from pacbed.learning.training import configure
from pacbed.machine import sparse_progress
from pacbed.precision.bound import priors
from pacbed.reading.predictions import predict_by_fit, search_range
from pacbed.scattering.series import ScatteringSeries
from pacbed.storage.tables import read_table, write_table
from pacbed.study.sections import DeformationSection

params, files = snakemake.params, snakemake.input
with job(snakemake.log[0]):
    configure(snakemake.threads)
    data = read_dataset(Path(files.examples))
    ranges = DeformationSection(**params.deformation).draw_ranges()
    examples = AugmentationSettings(**data.attributes["augmentation"])
    table = predict_by_fit(
        ScatteringSeries(Path(files.series)),
        data,
        range(*params.rows),
        priors(ranges, examples),
        search_range(ranges, examples),
        read_table(Path(files.predictions[0])) if files.predictions else None,
        sparse_progress("patterns"),
    )
    flagged = int((table["flags"] != "").sum())
    print(f"{flagged} of {len(table)} fits are flagged", flush=True)
    write_table(table, Path(snakemake.output[0]), study_of(data.attributes, ranges))
