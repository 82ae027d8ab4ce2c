from functools import partial
from pathlib import Path

from _job import git_revision, job, sparse_progress

from pacbed.config import engine_settings, execution_settings, simulation_request
from pacbed.deformation import Deformation
from pacbed.engines import engine
from pacbed.errors import ConfigError
from pacbed.patterns import checkpoint_of, write_patterns

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
    # Not a parameter of the rule: the patterns do not depend on it, so that nothing runs again.
    execution = snakemake.config["execution"]
    if snakemake.resources.get("gpu") and execution["device"] == "cpu":
        raise ConfigError(
            "a graphics card is reserved for this job, but execution.device is cpu: set it to gpu, "
            "or take gpu out of the resources in the profile"
        )
    chosen = engine(
        params.simulation["engine"],
        engine_settings(params.simulation),
        snakemake.threads,
        execution["device"],
        execution_settings(execution),
        partial(print, flush=True),
    )
    stores = [Path(path) for path in snakemake.output]
    checkpoints = [checkpoint_of(store) for store in stores]
    results = chosen.simulate_together(requests, sparse_progress("simulation"), checkpoints)
    for store, request, result in zip(stores, requests, results, strict=True):
        write_patterns(store, request, result, {"workflow_revision": git_revision()})
    for checkpoint in checkpoints:  # not before all stores are there
        checkpoint.unlink(missing_ok=True)
