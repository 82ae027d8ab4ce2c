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
from pacbed.precision.steps import CENTRE
from pacbed.scattering.request import SeriesRequest
from pacbed.scattering.series import ScatteringSeries
from pacbed.storage.tables import write_table
from pacbed.study.model import Configuration
from pacbed.study.sections import BoundSection, DeformationSection, MicroscopeSection
from pacbed.study.states import Seeded

params, crystal = snakemake.params, {}


def read(path, semiangle_mrad, seeded):
    """Read a store, which must be of a semi-angle and state, and of the crystal of those before."""
    store = read_patterns(path, params.layers)
    request, state = store.attributes["request"], Seeded.from_dict(seeded).state
    found = request["aperture"]["semiangle_mrad"], request["deformation"], request["tilt_mrad"]
    if found != (semiangle_mrad, asdict(state.deformation), list(state.tilt_mrad)):
        raise PacbedError(
            f"{path} is not what its name says: it has a semi-angle of {found[0]:g} mrad, the "
            f"deformation {found[1]} and the tilt {found[2]} mrad. Delete it, and run again"
        )
    found = crystal_of(store.attributes)
    if differing := [
        name for name in found if crystal.setdefault(name, found[name]) != found[name]
    ]:
        raise PacbedError(
            f"{path} has another {', '.join(differing)} than {snakemake.input[0]}: simulate both "
            "again"
        )
    return store


def of_series():
    """Take the derivatives of a scattering series."""
    series = ScatteringSeries(Path(snakemake.input[0]))
    series.check(SeriesRequest.from_dict(params.series))
    microscope = {"aperture_edge_mrad": params.aperture_edge_mrad}
    for angle, state in product(params.semiangles_mrad, params.states):
        aperture = MicroscopeSection(**microscope).aperture(angle)
        crystal.update(crystal_of({"request": {}, **series.simulation(aperture)}))
        at = Seeded.from_dict(params.states[state][CENTRE]).state
        yield Sample.of_series(series, aperture, at, params.layers, settings, state)


def of_patterns():
    """Read the patterns of one semi-angle and state at a time."""
    angles = params.semiangles_mrad
    names = product(params.states, next(iter(params.states.values())), angles)
    files = dict(zip(names, map(Path, snakemake.input), strict=True))
    progress = sparse_progress("semi-angles and states")
    for number, (angle, state) in enumerate(product(angles, params.states), start=1):
        stores = {
            step: read(files[state, step, angle], angle, seeded)
            for step, seeded in params.states[state].items()
        }
        pixel_mrad = next(iter(stores.values())).pixel_mrad
        patterns = {step: one.patterns for step, one in stores.items()}
        yield Sample.of_patterns(angle, patterns, pixel_mrad, settings, steps, state)
        progress(number, len(angles) * len(params.states))


with job(snakemake.log[0]):
    settings = Configuration(**params.augmentation).augmentation()
    steps = BoundSection(**params.bound).steps()
    ranges = DeformationSection(**params.deformation).draw_ranges()
    bounds = bound_table(
        of_series() if params.series else of_patterns(),
        params.layers,
        settings,
        prior_covariance(ranges, settings),
        params.energy_keV,
    )
    told = {"seed": params.seed, "augmentation": settings.described(), "simulation": crystal}
    study, means = study_of(told, ranges), mean_bounds(bounds)
    for table, paths in (bounds, snakemake.output.each), (means, snakemake.output.mean):
        for path in map(Path, paths):
            write_table(table, path, study)
