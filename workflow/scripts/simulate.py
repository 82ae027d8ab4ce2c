import sys
from functools import partial
from pathlib import Path

from _job import git_revision, job, note_work_found

from pacbed.exceptions import ConfigError
from pacbed.machine import sparse_progress
from pacbed.patterns.job_stores import WantedStore, make_waiting
from pacbed.runs.locks import sole_maker
from pacbed.storage.waiting import finish, put_aside
from pacbed.study.model import Configuration
from pacbed.study.states import Seeded

params, wildcards = snakemake.params, snakemake.wildcards
outputs = [Path(path) for path in snakemake.output]
study = Configuration(
    seed=params.seed,
    material=params.material,
    microscope={
        "energy_keV": params.energy_keV,
        "aperture_edge_mrad": params.aperture_edge_mrad,
    },
    deformation=params.get("deformation", {}),
    draws={"shared_strain": params.shared_strain},
    simulation=params.simulation,
    # Not a parameter of the rule: the patterns do not depend on it, so that nothing runs again.
    execution=snakemake.config["execution"],
)
say = partial(print, flush=True)


def draws():
    """Numbers of the draws of this job, which differ in their last digits; none: undeformed."""
    if not (digits := wildcards.get("draw")):
        return [None]
    count = len(outputs) // len(params.semiangles_mrad)
    return [count * int(digits) + last for last in range(count)]


def request(seeded, semiangle):
    state = seeded.state
    one = state.deformation, state.tilt_mrad, seeded.seed
    return study.request(semiangle, *one, state.discs_only)


def wanted():
    """What the outputs are to hold, in their order: of each state all semi-angles."""
    angles = params.semiangles_mrad
    if states := params.get("states"):
        given = map(Seeded.from_dict, states.values())
        contents = [(request(one, angle), None) for one in given for angle in angles]
    else:
        contents = [(study.request_of_draw(n, angle), n) for n in draws() for angle in angles]
    return [WantedStore(path, *one) for path, one in zip(outputs, contents, strict=True)]


with job(snakemake.log[0]), sole_maker(outputs[0], say):
    put_aside(outputs)
    if snakemake.resources.get("gpu") and study.execution.device == "cpu":
        raise ConfigError(
            "a graphics card is reserved for this job, but execution.device is cpu: set it to gpu, "
            "or take gpu out of the resources in the profile"
        )
    outcome = make_waiting(
        wanted(),
        study.engine(snakemake.threads, say),
        say,
        lambda name: sparse_progress(f"simulation of {name}"),
        {"workflow_revision": git_revision()},
    )
    note_work_found(snakemake, outcome.found)
    if outcome.failed:
        sys.exit(1)
    finish(outputs)
