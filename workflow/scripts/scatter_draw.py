from pathlib import Path

from _job import job

from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.machine import sparse_progress
from pacbed.scattering.request import StateRequest
from pacbed.scattering.state import write_scattered

params = snakemake.params
with job(snakemake.log[0]):
    # Not a parameter of the rule: the states do not depend on it.
    device = snakemake.config["execution"]["device"]
    write_scattered(
        Path(snakemake.output[0]),
        StateRequest.from_dict(params.state),
        PlaneWaveEngine(PlaneWaveSettings(**params.settings), snakemake.threads, device),
        sparse_progress("plane waves"),
        draw=int(snakemake.wildcards.draw),
    )
