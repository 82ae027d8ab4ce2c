from functools import partial
from pathlib import Path

from _job import job

from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.machine import sparse_progress
from pacbed.runs.locks import sole_maker
from pacbed.scattering.request import SeriesRequest, StateRequest
from pacbed.scattering.state import write_scattered
from pacbed.storage.files import appearing_whole

params, output = snakemake.params, Path(snakemake.output[0])
say = partial(print, flush=True)


def states():
    """Name and request of each state, of a series or of draws, and what else is known of it."""
    if params.series:
        series = SeriesRequest.from_dict(params.series)
        for n in params.states:
            yield f"{n:04d}", series.state(n), {"series": series.to_dict(), "state": n}
    else:
        for name, state in params.states.items():
            yield name, StateRequest.from_dict(state), {"draw": int(name)}


with job(snakemake.log[0]), sole_maker(output, say), appearing_whole(output, folder=True) as folder:
    # Not a parameter of the rule: the states do not depend on it.
    device = snakemake.config["execution"]["device"]
    engine = PlaneWaveEngine(PlaneWaveSettings(**params.settings), snakemake.threads, device)
    for name, request, known in states():
        progress = sparse_progress(f"plane waves of {name}")
        write_scattered(folder / f"{name}.zarr.zip", request, engine, progress, **known)
