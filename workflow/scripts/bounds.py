from dataclasses import asdict
from itertools import product
from pathlib import Path

import pandas as pd
from _job import job

from pacbed.machine import sparse_progress
from pacbed.patterns.store import read_patterns
from pacbed.precision.bound import prior_covariance
from pacbed.precision.bound_table import bound_table, mean_bounds
from pacbed.storage.tables import write_table
from pacbed.storage.zipped import plain
from pacbed.study.model import Configuration
from pacbed.study.sections import BoundSection, DeformationSection

params = snakemake.params
with job(snakemake.log[0]):
    settings = Configuration(**params.augmentation).augmentation()
    ranges = DeformationSection(**params.deformation).draw_ranges()
    covariance = prior_covariance(ranges, settings)
    steps = BoundSection(**params.bound).steps()
    samples = list(product(params.states, params.steps, params.semiangles_mrad))
    files = dict(zip(samples, map(Path, snakemake.input), strict=True))
    progress = sparse_progress("semi-angles and states")
    tables = []
    for angle, state in product(params.semiangles_mrad, params.states):
        stores = {
            step: read_patterns(files[state, step, angle], params.layers) for step in params.steps
        }
        table = bound_table(
            {step: store.patterns for step, store in stores.items()},
            params.layers,
            next(iter(stores.values())).pixel_mrad,
            settings,
            covariance,
            semiangle_mrad=angle,
            energy_keV=params.energy_keV,
            state=state,
            steps=steps,
        )
        tables.append(table)
        progress(len(tables), len(params.semiangles_mrad) * len(params.states))
    bounds = pd.concat(tables, ignore_index=True)
    bounds.attrs["study"] = plain(asdict(settings))
    means = mean_bounds(bounds)
    means.attrs = bounds.attrs
    for path in map(Path, snakemake.output):
        write_table(means if path.stem == "bounds_mean" else bounds, path)
