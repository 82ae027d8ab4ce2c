from pathlib import Path

import pandas as pd
from _job import git_revision, job

from pacbed.report import write_report

with job(snakemake.log[0]):
    config = snakemake.params.config
    write_report(
        Path(snakemake.output[0]),
        errors=pd.read_csv(snakemake.input.errors),
        draws=pd.read_csv(snakemake.input.draws),
        figures=[Path(file) for file in snakemake.input.figures],
        config=config,
        revision=git_revision(),
    )
