from pathlib import Path

from _job import job, reserves_gpu

from pacbed.dataset import read_dataset
from pacbed.prediction import predict
from pacbed.training import configure

with job(snakemake.log[0]):
    configure(snakemake.threads, reserves_gpu(snakemake.resources), print)
    for split, output in snakemake.output.items():
        predictions = predict(
            Path(snakemake.input.model),
            Path(snakemake.input.settings),
            read_dataset(Path(snakemake.input[split])),
        )
        unfinished = Path(output).with_name(f".{Path(output).name}.unfinished")
        predictions.to_parquet(unfinished, index=False)
        unfinished.replace(output)
