import sys
from dataclasses import asdict
from functools import partial
from itertools import groupby
from pathlib import Path

from _job import found_work_done, git_revision, job, sparse_progress

from pacbed.config import draw_ranges, engine_settings, execution_settings, simulation_request
from pacbed.deformation import Deformation, draw, simulation_seed
from pacbed.engines import engine
from pacbed.errors import ConfigError, PacbedError
from pacbed.locks import sole_maker
from pacbed.patterns import checkpoint_of, holds, write_patterns

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


def waiting(store):
    """Where a store waits for the others of its job: Snakemake deletes outputs of a failed job."""
    return store.with_name(f".{store.name}.finished")


def put_aside(store):
    """Let a store wait that is there already, perhaps of another request."""
    aside = waiting(store)
    if not store.exists() or (aside.exists() and aside.stat().st_mtime > store.stat().st_mtime):
        return
    store.replace(aside)


def simulate(stores, chosen):
    """Make those stores of a draw that do not wait yet."""
    requests = {store: request_of(store) for store in stores}
    settings = asdict(chosen.settings)
    missing = [s for s in stores if not holds(waiting(s), requests[s], chosen.name, settings)]
    checkpoints = [checkpoint_of(store) for store in missing]
    if len(missing) < len(stores) or any(map(Path.exists, checkpoints)):
        found_work_done(snakemake.log[0])
    if not missing:
        say(f"{stores[0].name} is there already")
        return
    progress = sparse_progress(f"simulation of {stores[0].name.removesuffix('.zarr.zip')}")
    asked = [requests[store] for store in missing]
    results = chosen.simulate_together(asked, progress, checkpoints)
    for store, request, result in zip(missing, asked, results, strict=True):
        write_patterns(waiting(store), request, result, {"workflow_revision": git_revision()})
    for checkpoint in checkpoints:  # not before all stores are there
        checkpoint.unlink(missing_ok=True)


def simulate_all(stores):
    """Make all stores; return the names of the draws of which that failed."""
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
    failed = []
    for name, of_a_draw in groupby(stores, key=lambda store: store.name):
        try:
            simulate(list(of_a_draw), chosen)
        except PacbedError as error:  # the other draws of the job are worth keeping
            say(f"error: {name}: {error}")
            failed.append(name)
    return failed


stores = [Path(path) for path in snakemake.output]
with job(snakemake.log[0]), sole_maker(stores[0], say):
    for store in stores:  # first of all, since whatever fails would have them deleted
        put_aside(store)
    if simulate_all(stores):
        sys.exit(1)
    for store in stores:
        waiting(store).replace(store)
