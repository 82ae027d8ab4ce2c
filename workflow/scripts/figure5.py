import pandas as pd
from _job import job

from pacbed.figures.errors import errors_against_thickness
from pacbed.figures.style import save

params = snakemake.params
with job(snakemake.log[0]):
    table = pd.read_csv(snakemake.input[0])
    shown = table[
        (table["split"] == "test")
        & (table["outputs"] == params.outputs)
        & (table["intensity"] == params.intensity)
    ]
    save(errors_against_thickness(shown), *snakemake.output)
