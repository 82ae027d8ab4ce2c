from dataclasses import asdict
from itertools import product
from pathlib import Path

from _job import job

from pacbed.examples.predictions import crystal_of, study_of
from pacbed.exceptions import PacbedError
from pacbed.machine import sparse_progress
from pacbed.patterns.store import read_patterns
from pacbed.precision.bound import prior_covariance
from pacbed.precision.bound_table import Sample, bound_table, mean_bounds
from pacbed.storage.tables import write_table
from pacbed.study.model import Configuration
from pacbed.study.sections import BoundSection, DeformationSection

params, crystal = snakemake.params, {}


def read(path):
    """Read a store, which must be of the crystal and beam of those before."""
    store = read_patterns(path, params.layers)
    found = crystal_of(store.attributes)
    if differing := [
        name for name in found if crystal.setdefault(name, found[name]) != found[name]
    ]:
        raise PacbedError(
            f"{path} has another {', '.join(differing)} than {snakemake.input[0]}: simulate both "
            "again"
        )
    return store


def samples():
    """Read the patterns of one semi-angle and state at a time."""
    angles = params.semiangles_mrad
    names = product(params.states, params.steps, angles)
    files = dict(zip(names, map(Path, snakemake.input), strict=True))
    progress = sparse_progress("semi-angles and states")
    for number, (angle, state) in enumerate(product(angles, params.states), start=1):
        stores = {step: read(files[state, step, angle]) for step in params.steps}
        pixel_mrad = next(iter(stores.values())).pixel_mrad
        yield Sample(angle, {s: one.patterns for s, one in stores.items()}, pixel_mrad, state)
        progress(number, len(angles) * len(params.states))


with job(snakemake.log[0]):
    settings = Configuration(**params.augmentation).augmentation()
    bounds = bound_table(
        samples(),
        params.layers,
        settings,
        prior_covariance(DeformationSection(**params.deformation).draw_ranges(), settings),
        params.energy_keV,
        BoundSection(**params.bound).steps(),
    )
    told = {"seed": params.seed, "augmentation": asdict(settings), "simulation": crystal}
    study, means = study_of(told, params.deformation), mean_bounds(bounds)
    for path in map(Path, snakemake.output):
        write_table(means if path.stem == "bounds_mean" else bounds, path, study)
