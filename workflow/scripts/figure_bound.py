from pathlib import Path

from _job import job

from pacbed.figures.bounds import bound_against_thickness
from pacbed.figures.style import save
from pacbed.precision.error_table import of_variant, read_of_one_study

params = snakemake.params
with job(snakemake.log[0]):
    means, errors = read_of_one_study(*map(Path, snakemake.input))
    save(
        bound_against_thickness(means, of_variant(errors, params.outputs, params.intensity)),
        *snakemake.output,
    )
