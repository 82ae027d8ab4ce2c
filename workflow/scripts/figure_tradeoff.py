from pathlib import Path

from _job import job

from pacbed.evaluation import of_variant
from pacbed.figures.bounds import precision_against_probe_size
from pacbed.figures.style import save
from pacbed.tables import read_table

params = snakemake.params
with job(snakemake.log[0]):
    bounds, errors = (read_table(Path(file)) for file in snakemake.input)
    save(
        precision_against_probe_size(bounds, of_variant(errors, params.outputs, params.intensity)),
        *snakemake.output,
    )
