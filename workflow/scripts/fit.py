from pathlib import Path

import _keras_alone  # noqa: F401
from _job import job

from pacbed.examples.augment import AugmentationSettings
from pacbed.examples.dataset import read_dataset
from pacbed.examples.predictions import study_of
from pacbed.learning.training import configure
from pacbed.machine import sparse_progress
from pacbed.precision.bound import priors
from pacbed.reading.predictions import ExampleFits, search_range
from pacbed.scattering.series import ScatteringSeries
from pacbed.storage.tables import read_table, write_table
from pacbed.study.sections import DeformationSection

params, files = snakemake.params, snakemake.input
with job(snakemake.log[0]):
    configure(snakemake.threads)
    data = read_dataset(Path(files.examples))
    ranges = DeformationSection(**params.deformation).draw_ranges()
    examples = AugmentationSettings(**data.attributes["augmentation"])
    fits = ExampleFits(
        ScatteringSeries(Path(files.series)),
        data,
        priors(ranges, examples),
        search_range(ranges, examples),
    )
    starts = read_table(Path(files.predictions[0])), None
    for path, predictions in zip(snakemake.output, starts, strict=True):
        begin = "without a network" if predictions is None else "with a network"
        progress = sparse_progress(f"patterns, {begin}")
        table = fits.read(range(*params.rows), predictions, progress)
        flagged = int((table["flags"] != "").sum())
        print(f"{flagged} of {len(table)} fits {begin} are flagged", flush=True)
        write_table(table, Path(path), study_of(data.attributes, ranges))
