from pathlib import Path

from _job import job

from pacbed.figures.bounds import efficiency_map
from pacbed.figures.style import save
from pacbed.precision.error_table import of_variant
from pacbed.storage.tables import read_table

params = snakemake.params
with job(snakemake.log[0]):
    errors = read_table(Path(snakemake.input[0]))
    save(efficiency_map(of_variant(errors, params.outputs, params.intensity)), *snakemake.output)
