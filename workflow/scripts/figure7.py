from pathlib import Path

from _job import job

from pacbed.figures.errors import errors_of_variants
from pacbed.figures.style import save
from pacbed.precision.error_table import NETWORK, of_test_set
from pacbed.storage.tables import read_table

params = snakemake.params
with job(snakemake.log[0]):
    table = of_test_set(read_table(Path(snakemake.input[0])))
    networks = table[table["method"] == NETWORK]
    shown = networks[networks["semiangle_mrad"] == params.semiangle_mrad]
    save(errors_of_variants(shown), *snakemake.output)
