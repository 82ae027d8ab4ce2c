from itertools import product
from pathlib import Path

from _job import job

from pacbed.figures.patterns import STRAINED, UNDEFORMED, strain_gallery
from pacbed.figures.style import save
from pacbed.patterns.store import read_patterns

params = snakemake.params
with job(snakemake.log[0]):
    samples = product((UNDEFORMED, *STRAINED), params.semiangles_mrad)
    stores = {angle: {} for angle in params.semiangles_mrad}
    for (state, angle), file in zip(samples, snakemake.input, strict=True):
        stores[angle][state] = read_patterns(Path(file), [params.layers])
    save(strain_gallery(stores, params.layers, params.field_of_view_mrad), *snakemake.output)
