from pathlib import Path

from _job import job

from pacbed.dataset import read_dataset
from pacbed.training import configure, predict

with job(snakemake.log[0]):
    configure(snakemake.threads)
    for split, output in snakemake.output.items():
        predictions = predict(
            Path(snakemake.input.model),
            Path(snakemake.input.settings),
            read_dataset(Path(snakemake.input[split])),
        )
        predictions.to_parquet(output, index=False)
