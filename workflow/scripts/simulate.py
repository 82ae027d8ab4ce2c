import sys
from functools import partial
from pathlib import Path

from _job import found_work_done, git_revision, job

from pacbed.engines import engine
from pacbed.exceptions import ConfigError
from pacbed.machine import sparse_progress
from pacbed.patterns.job_stores import WantedStore, make_waiting
from pacbed.precision.steps import State
from pacbed.runs.locks import sole_maker
from pacbed.specimen.deformation import Deformation
from pacbed.storage.waiting import finish, put_aside
from pacbed.study.configuration import (
    draw_ranges,
    engine_settings,
    execution_settings,
    simulation_request,
)
from pacbed.study.draws import draw, simulation_seed
from pacbed.study.states import Seeded

params, wildcards = snakemake.params, snakemake.wildcards
outputs = [Path(path) for path in snakemake.output]
# Not a parameter of the rule: the patterns do not depend on it, so that nothing runs again.
execution = snakemake.config["execution"]
say = partial(print, flush=True)


def draws():
    """Numbers of the draws of this job, which differ in their last digits; none: undeformed."""
    if not (digits := wildcards.get("draw")):
        return [None]
    count = len(outputs) // len(params.semiangles_mrad)
    return [count * int(digits) + last for last in range(count)]


def drawn(number, semiangle):
    """State and seed of a draw, or of the undeformed crystal."""
    state = State(Deformation(), (0.0, 0.0))
    if number is not None:
        ranges = draw_ranges({"deformation": params.deformation})
        one = draw(params.seed, semiangle, number, ranges, params.shared_strain)
        state = State(one.deformation, one.tilt_mrad)
    return Seeded(state, simulation_seed(params.seed, semiangle, number, params.shared_strain))


def request(seeded, semiangle):
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


def wanted():
    """What the outputs are to hold, in their order: of each state all semi-angles."""
    angles = params.semiangles_mrad
    if states := params.get("states"):
        given = map(Seeded.from_dict, states.values())
        contents = [(request(one, angle), None) for one in given for angle in angles]
    else:
        contents = [(request(drawn(n, angle), angle), n) for n in draws() for angle in angles]
    return [WantedStore(path, *one) for path, one in zip(outputs, contents, strict=True)]


with job(snakemake.log[0]), sole_maker(outputs[0], say):
    put_aside(outputs)
    if snakemake.resources.get("gpu") and execution["device"] == "cpu":
        raise ConfigError(
            "a graphics card is reserved for this job, but execution.device is cpu: set it to gpu, "
            "or take gpu out of the resources in the profile"
        )
    outcome = make_waiting(
        wanted(),
        engine(
            params.simulation["engine"],
            engine_settings(params.simulation),
            snakemake.threads,
            execution["device"],
            execution_settings(execution),
            say,
        ),
        say,
        lambda name: sparse_progress(f"simulation of {name}"),
        {"workflow_revision": git_revision()},
    )
    if outcome.found:
        found_work_done(snakemake.log[0])
    if outcome.failed:
        sys.exit(1)
    finish(outputs)
