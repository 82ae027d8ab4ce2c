from pathlib import Path

from _job import job

from pacbed.figures.patterns import dose_gallery
from pacbed.figures.style import save
from pacbed.patterns.store import read_patterns
from pacbed.study.model import Configuration

params = snakemake.params
with job(snakemake.log[0]):
    stores = {
        angle: read_patterns(Path(file), [params.layers])
        for angle, file in zip(params.semiangles_mrad, snakemake.input, strict=True)
    }
    settings = Configuration(**params.augmentation).augmentation()
    save(dose_gallery(stores, params.layers, settings, params.seed), *snakemake.output)
