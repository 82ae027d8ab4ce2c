import pandas as pd
from _job import job

from pacbed.figures.errors import true_against_predicted
from pacbed.figures.style import save

with job(snakemake.log[0]):
    predictions = {
        (angle, layers): pd.read_parquet(file)
        for (angle, layers), file in zip(snakemake.params.networks, snakemake.input, strict=True)
    }
    save(true_against_predicted(predictions), *snakemake.output)
