from pathlib import Path

import pandas as pd
from _job import job

from pacbed.storage.tables import one_study, read_table, write_table

with job(snakemake.log[0]):
    parts = [Path(file) for file in snakemake.input]
    table = pd.concat(map(read_table, parts), ignore_index=True)
    write_table(table, Path(snakemake.output[0]), one_study(*parts))
