import sys
from functools import partial
from pathlib import Path

from _job import found_work_done, git_revision, job, sparse_progress

from pacbed.batch import Batch
from pacbed.config import draw_ranges, engine_settings, execution_settings, simulation_request
from pacbed.deformation import Deformation, draw, simulation_seed
from pacbed.engines import engine
from pacbed.errors import ConfigError
from pacbed.locks import sole_maker

params = snakemake.params
# Not a parameter of the rule: the patterns do not depend on it, so that nothing runs again.
execution = snakemake.config["execution"]
say = partial(print, flush=True)


def request_of(store):
    """What a store is to hold, by its semi-angle and number: {semi-angle}mrad/{number}.zarr.zip."""
    semiangle = float(store.parent.name.removesuffix("mrad"))
    number = store.name.removesuffix(".zarr.zip")
    index = None if number == "undeformed" else int(number)
    deformation, tilt = Deformation(), (0.0, 0.0)
    if index is not None:
        ranges = draw_ranges({"deformation": params.deformation})
        drawn = draw(params.seed, semiangle, index, ranges, params.shared_strain)
        deformation, tilt = drawn.deformation, drawn.tilt_mrad
    return simulation_request(
        seed=simulation_seed(params.seed, semiangle, index, params.shared_strain),
        material_section=params.material,
        energy_keV=params.energy_keV,
        aperture_edge_mrad=params.aperture_edge_mrad,
        simulation=params.simulation,
        semiangle_mrad=semiangle,
        deformation=deformation,
        tilt_mrad=tilt,
    )


batch = Batch(
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
