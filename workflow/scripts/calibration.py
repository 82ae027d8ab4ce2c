from pathlib import Path

import pandas as pd
from _job import job

from pacbed.precision.metrics import calibration
from pacbed.storage.tables import one_study, read_table, write_table

params, files = snakemake.params, [Path(file) for file in snakemake.input]
with job(snakemake.log[0]):
    stating = [{**network, "method": "network"} for network in params.networks]
    stating += [{**one, "method": method} for method in params.fit_methods for one in params.fitted]
    tables = [
        calibration(read_table(path)).assign(**of_file)
        for of_file, path in zip(stating, files, strict=True)
    ]
    table = pd.concat(tables, ignore_index=True)
    first = [*stating[0]]
    table = table[[*first, *(name for name in table if name not in first)]]
    for path in snakemake.output:
        write_table(table, Path(path), one_study(*files))
