from pathlib import Path

import _keras_alone  # noqa: F401
from _job import job, reserves_gpu

from pacbed.examples.dataset import read_dataset
from pacbed.examples.predictions import study_of
from pacbed.learning.prediction import predict
from pacbed.learning.training import configure
from pacbed.storage.tables import write_table
from pacbed.study.sections import DeformationSection

with job(snakemake.log[0]):
    configure(snakemake.threads, reserves_gpu(snakemake.resources), print)
    model, settings = Path(snakemake.input.model), Path(snakemake.input.settings)
    ranges = DeformationSection(**snakemake.params.deformation).draw_ranges()
    for split, output in snakemake.output.items():
        data = read_dataset(Path(snakemake.input[split]))
        study = study_of(data.attributes, ranges)
        write_table(predict(model, settings, data), Path(output), study)
