from pathlib import Path

from _job import job, reserves_gpu

from pacbed.examples.dataset import read_dataset
from pacbed.learning.prediction import predict
from pacbed.learning.training import configure
from pacbed.storage.tables import write_table

with job(snakemake.log[0]):
    configure(snakemake.threads, reserves_gpu(snakemake.resources), print)
    for split, output in snakemake.output.items():
        predictions = predict(
            Path(snakemake.input.model),
            Path(snakemake.input.settings),
            read_dataset(Path(snakemake.input[split])),
        )
        write_table(predictions, Path(output))
