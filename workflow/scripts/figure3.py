from itertools import product
from pathlib import Path

from _job import job

from pacbed.figures.patterns import TILTED, UNDEFORMED, tilt_gallery
from pacbed.figures.style import save
from pacbed.patterns.store import read_patterns

params = snakemake.params
with job(snakemake.log[0]):
    thick, thin = params.layers, params.thin_layers
    samples = product((UNDEFORMED, *TILTED), params.semiangles_mrad)
    stores = {angle: {} for angle in params.semiangles_mrad}
    for (state, angle), file in zip(samples, snakemake.input, strict=True):
        stores[angle][state] = read_patterns(Path(file), sorted({thick, thin}))
    save(tilt_gallery(stores, thick, params.field_of_view_mrad, thin), *snakemake.output)
