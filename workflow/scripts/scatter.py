from pathlib import Path

from _job import job

from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.machine import sparse_progress
from pacbed.scattering.fit import write_state
from pacbed.scattering.request import SeriesRequest

params = snakemake.params
with job(snakemake.log[0]):
    # Not a parameter of the rule: the states do not depend on it.
    device = snakemake.config["execution"]["device"]
    engine = PlaneWaveEngine(PlaneWaveSettings(**params.settings), snakemake.threads, device)
    write_state(
        Path(snakemake.output[0]),
        SeriesRequest.from_dict(params.series),
        int(snakemake.wildcards.state),
        engine,
        sparse_progress("plane waves"),
    )
