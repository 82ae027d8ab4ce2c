from pathlib import Path

import pandas as pd
from _job import job

from pacbed.figures.errors import classical_against_network
from pacbed.figures.style import save
from pacbed.precision.error_table import NETWORK, of_variant
from pacbed.storage.tables import read_table

params = snakemake.params
with job(snakemake.log[0]):
    table = read_table(Path(snakemake.input[0]))
    table = table[table["split"] == "test"]
    networks = of_variant(table, params.outputs, params.intensity)
    shown = pd.concat([networks, table[table["method"] != NETWORK]])
    save(classical_against_network(shown), *snakemake.output)
