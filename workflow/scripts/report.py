from pathlib import Path

import pandas as pd
import yaml
from _job import git_revision, job

from pacbed.report import write_report

with job(snakemake.log[0]):
    config = snakemake.params.config
    page, resolved = map(Path, snakemake.output)
    resolved.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    write_report(
        page,
        errors=pd.read_csv(snakemake.input.errors),
        draws=pd.read_csv(snakemake.input.draws),
        figures=[Path(file) for file in snakemake.input.figures],
        config=config,
        revision=git_revision(),
    )
