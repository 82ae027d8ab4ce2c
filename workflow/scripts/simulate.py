import sys
from dataclasses import asdict
from functools import partial
from itertools import groupby
from pathlib import Path

from _job import git_revision, job, sparse_progress

from pacbed.claims import sole_maker
from pacbed.config import draw_ranges, engine_settings, execution_settings, simulation_request
from pacbed.deformation import Deformation, draw, simulation_seed
from pacbed.engines import engine
from pacbed.errors import ConfigError, PacbedError
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


def simulate(stores, chosen):
    """Make the stores of one draw, unless they are there."""
    requests = [request_of(store) for store in stores]
    good = partial(holds, engine=chosen.name, settings=asdict(chosen.settings))
    places = [
        [place for place in (store, waiting(store)) if good(place, request)]
        for store, request in zip(stores, requests, strict=True)
    ]
    if all(places):
        say(f"{stores[0].name} is there already")
        for store, found in zip(stores, places, strict=True):
            if store in found:  # what waits beside it is of another request, or as good
                waiting(store).unlink(missing_ok=True)
        return
    checkpoints = [checkpoint_of(store) for store in stores]
    progress = sparse_progress(f"simulation of {stores[0].name.removesuffix('.zarr.zip')}")
    results = chosen.simulate_together(requests, progress, checkpoints)
    for store, request, result in zip(stores, requests, results, strict=True):
        write_patterns(waiting(store), request, result, {"workflow_revision": git_revision()})
    for checkpoint in checkpoints:  # not before all stores are there
        checkpoint.unlink(missing_ok=True)


with job(snakemake.log[0]):
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
    stores = [Path(path) for path in snakemake.output]
    failed = []
    with sole_maker(stores, say):
        for name, of_a_draw in groupby(stores, key=lambda store: store.name):
            try:
                simulate(list(of_a_draw), chosen)
            except PacbedError as error:  # the other draws of the job are worth keeping
                say(f"error: {name}: {error}")
                failed.append(name)
        if failed:
            sys.exit(1)
        for store in stores:
            if waiting(store).exists():
                waiting(store).replace(store)
