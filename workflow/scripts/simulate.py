from pathlib import Path

from _job import git_revision, job, sparse_progress

from pacbed.config import simulation_request
from pacbed.deformation import Deformation
from pacbed.engines import engine
from pacbed.patterns import write_patterns

params = snakemake.params
with job(snakemake.log[0]):
    stretch_1, stretch_2 = params.draw["stretch"]
    request = simulation_request(
        seed=params.seed,
        material_section=params.material,
        energy_keV=params.energy_keV,
        aperture_edge_mrad=params.aperture_edge_mrad,
        simulation=params.simulation,
        semiangle_mrad=params.semiangle_mrad,
        deformation=Deformation(stretch_1, stretch_2, params.draw["angle_deg"]),
        tilt_mrad=tuple(params.draw["tilt_mrad"]),
    )
    name = params.simulation["engine"]
    chosen = engine(name, params.simulation[name], snakemake.threads)
    result = chosen.simulate(request, sparse_progress("plane waves"))
    write_patterns(
        Path(snakemake.output[0]), request, result, {"workflow_revision": git_revision()}
    )
