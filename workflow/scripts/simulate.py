import sys
from functools import partial
from pathlib import Path

from _job import found_work_done, git_revision, job

from pacbed.engines import engine
from pacbed.exceptions import ConfigError
from pacbed.machine import sparse_progress
from pacbed.patterns.job_stores import JobStores
from pacbed.precision.steps import State
from pacbed.runs.locks import sole_maker
from pacbed.specimen.deformation import Deformation
from pacbed.study.configuration import (
    draw_ranges,
    engine_settings,
    execution_settings,
    simulation_request,
)
from pacbed.study.draws import draw, simulation_seed
from pacbed.study.states import Seeded

params = snakemake.params
# Not a parameter of the rule: the patterns do not depend on it, so that nothing runs again.
execution = snakemake.config["execution"]
say = partial(print, flush=True)


def seeded_state(semiangle, name):
    """What is simulated, and the seed: what the rule says or else, by its name, a draw."""
    if given := params.get("states"):
        return Seeded.from_dict(given[name])
    if name == "undeformed":
        index, state = None, State(Deformation(), (0.0, 0.0))
    else:
        index, ranges = int(name), draw_ranges({"deformation": params.deformation})
        drawn = draw(params.seed, semiangle, index, ranges, params.shared_strain)
        state = State(drawn.deformation, drawn.tilt_mrad)
    return Seeded(state, simulation_seed(params.seed, semiangle, index, params.shared_strain))


def request_of(store):
    """What a store is to hold, by its semi-angle and name: {semi-angle}mrad/{name}.zarr.zip."""
    semiangle = float(store.parent.name.removesuffix("mrad"))
    seeded = seeded_state(semiangle, store.name.removesuffix(".zarr.zip"))
    return simulation_request(
        seed=seeded.seed,
        material_section=params.material,
        energy_keV=params.energy_keV,
        aperture_edge_mrad=params.aperture_edge_mrad,
        simulation=params.simulation,
        semiangle_mrad=semiangle,
        deformation=seeded.state.deformation,
        tilt_mrad=seeded.state.tilt_mrad,
    )


batch = JobStores(
    [Path(path) for path in snakemake.output],
    request_of,
    say,
    lambda draw: sparse_progress(f"simulation of {draw}"),
    {"workflow_revision": git_revision()},
)
with job(snakemake.log[0]), sole_maker(batch.stores[0], say):
    batch.put_aside()
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
        say,
    )
    outcome = batch.simulate(chosen)
    if outcome.found:
        found_work_done(snakemake.log[0])
    if outcome.failed:
        sys.exit(1)
    batch.finish()
