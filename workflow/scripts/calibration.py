from pathlib import Path

import pandas as pd
from _job import job

from pacbed.examples.predictions import SAMPLE
from pacbed.precision.metrics import calibration
from pacbed.storage.tables import one_study, read_table, write_table

files = [Path(file) for file in snakemake.input]
with job(snakemake.log[0]):
    tables = []
    for path, method in zip(files, snakemake.params.methods, strict=True):
        fits = read_table(path)
        of_file = {name: fits[name].iloc[0] for name in SAMPLE} | {"method": method}
        tables.append(calibration(fits).assign(**of_file))
    table = pd.concat(tables, ignore_index=True)
    first = [*SAMPLE, "method"]
    table = table[[*first, *(name for name in table if name not in first)]]
    for path in snakemake.output:
        write_table(table, Path(path), one_study(*files))
