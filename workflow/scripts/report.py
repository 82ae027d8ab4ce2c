from pathlib import Path

import pandas as pd
from _job import ROOT, git_revision, job

from pacbed.patterns import open_store
from pacbed.report import read_captions, read_costs, write_report
from pacbed.tables import read_table

with job(snakemake.log[0]):
    config, files = snakemake.params.config, snakemake.input
    with open_store(Path(files.undeformed)) as store:
        patterns = dict(store.attrs)
    write_report(
        Path(snakemake.output[0]),
        errors=read_table(Path(files.errors)),
        draws=pd.read_csv(files.draws),
        bounds=read_table(Path(files.bounds)),
        figures=[Path(file) for file in files.figures],
        captions=read_captions(ROOT / "workflow/report", config),
        config=config,
        revision=git_revision(),
        costs=read_costs(Path(config["results"]) / "benchmarks"),
        patterns=patterns,
    )
