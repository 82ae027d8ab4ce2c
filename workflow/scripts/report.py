from pathlib import Path

import pandas as pd
from _job import ROOT, git_revision, job

from pacbed.figures.report import costs_by_rule, read_captions, write_report
from pacbed.precision.error_table import read_of_one_study
from pacbed.storage.zipped import open_store
from snakemake_logger_plugin_budget.jobs import read_benchmarks

with job(snakemake.log[0]):
    files = snakemake.input
    # Shown, but not a parameter of the rule: then changing it would make the page again.
    shown = {**snakemake.params.config, "execution": snakemake.config["execution"]}
    config = {name: shown[name] for name in snakemake.config if name in shown}
    tables = [files.errors, files.bounds, *files.calibration]
    errors, bounds, *calibration = read_of_one_study(*map(Path, tables))
    with open_store(Path(files.undeformed)) as store:
        patterns = dict(store.attrs)
    write_report(
        Path(snakemake.output[0]),
        errors=errors,
        draws=pd.read_csv(files.draws),
        bounds=bounds,
        calibration=calibration[0] if calibration else None,
        figures=[Path(file) for file in files.figures],
        captions=read_captions(ROOT / "workflow/report", config),
        config=config,
        revision=git_revision(),
        costs=costs_by_rule(
            read_benchmarks(Path(config["results"]) / "benchmarks").finished.values()
        ),
        patterns=patterns,
    )
