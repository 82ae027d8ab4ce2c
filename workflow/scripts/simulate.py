from pathlib import Path

from _job import git_revision, job, sparse_progress

from pacbed.config import simulation_request
from pacbed.deformation import Deformation
from pacbed.engines import engine
from pacbed.patterns import write_patterns

params = snakemake.params
with job(snakemake.log[0]):
    requests = [
        simulation_request(
            seed=draw["seed"],
            material_section=params.material,
            energy_keV=params.energy_keV,
            aperture_edge_mrad=params.aperture_edge_mrad,
            simulation=params.simulation,
            semiangle_mrad=draw["semiangle_mrad"],
            deformation=Deformation(*draw["stretch"], draw["angle_deg"]),
            tilt_mrad=tuple(draw["tilt_mrad"]),
        )
        for draw in params.draws
    ]
    name = params.simulation["engine"]
    device = "gpu" if snakemake.resources.get("gpu") else "cpu"
    chosen = engine(name, params.simulation[name], snakemake.threads, device)
    results = chosen.simulate_together(requests, sparse_progress("plane waves"))
    for path, request, result in zip(snakemake.output, requests, results, strict=True):
        write_patterns(Path(path), request, result, {"workflow_revision": git_revision()})
