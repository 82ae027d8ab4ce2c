from pathlib import Path

from _job import job

from pacbed.figures.errors import errors_against_thickness
from pacbed.figures.style import save
from pacbed.precision.error_table import of_test_set, of_variant
from pacbed.storage.tables import read_table

params = snakemake.params
with job(snakemake.log[0]):
    table = of_test_set(read_table(Path(snakemake.input[0])))
    shown = of_variant(table, params.outputs, params.intensity)
    save(errors_against_thickness(shown), *snakemake.output)
