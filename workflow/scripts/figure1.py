from pathlib import Path

from _job import job

from pacbed.figures.patterns import undeformed_gallery
from pacbed.figures.style import save
from pacbed.patterns.store import read_patterns

params = snakemake.params
with job(snakemake.log[0]):
    stores = {
        angle: read_patterns(Path(file), params.layers)
        for angle, file in zip(params.semiangles_mrad, snakemake.input, strict=True)
    }
    save(undeformed_gallery(stores, params.layers, params.field_of_view_mrad), *snakemake.output)
