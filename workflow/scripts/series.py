from pathlib import Path

from _job import job, states_in

from pacbed.scattering.fit import assemble
from pacbed.scattering.request import SeriesRequest
from pacbed.scattering.series import ScatteringSeries

series = Path(snakemake.output[0])
with job(snakemake.log[0]):
    assemble(series, states_in(snakemake.input))
    made = ScatteringSeries(series)
    made.check(SeriesRequest.from_dict(snakemake.params.series))
    errors = made.leave_out_error.mean(axis=1)
    for layers, error in enumerate(errors, start=1):
        print(f"{layers} layers: beams of a state left out differ by {100 * error:.2g} %")
