from functools import partial
from pathlib import Path

from _job import job

from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.machine import sparse_progress
from pacbed.runs.locks import sole_maker
from pacbed.scattering.fit import write_state
from pacbed.scattering.request import SeriesRequest
from pacbed.storage.files import appearing_whole

params, output = snakemake.params, Path(snakemake.output[0])
say = partial(print, flush=True)
with job(snakemake.log[0]), sole_maker(output, say), appearing_whole(output, folder=True) as folder:
    # Not a parameter of the rule: the states do not depend on it.
    device = snakemake.config["execution"]["device"]
    engine = PlaneWaveEngine(PlaneWaveSettings(**params.settings), snakemake.threads, device)
    series = SeriesRequest.from_dict(params.series)
    for state in params.states:
        progress = sparse_progress(f"plane waves of state {state}")
        write_state(folder / f"{state:04d}.zarr.zip", series, state, engine, progress)
