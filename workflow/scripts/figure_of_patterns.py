from pathlib import Path

from _job import job

from pacbed.figures import patterns
from pacbed.figures.cell import show_crystal
from pacbed.figures.style import save
from pacbed.patterns.store import read_patterns
from pacbed.specimen.crystal import crystal_of
from pacbed.study.model import Configuration

params, files = snakemake.params, map(Path, snakemake.input)
layers, field_mrad = params.layers, params.field_of_view_mrad
with job(snakemake.log[0]):
    stores = {
        state: {angle: read_patterns(next(files), layers) for angle in params.semiangles_mrad}
        for state in params.states
    }
    if params.figure == "cell":
        (store,) = stores["undeformed"].values()
        figure = show_crystal(crystal_of(store.attributes["request"]["material"]))
    elif params.figure == "fig1":
        figure = patterns.undeformed_gallery(stores["undeformed"], layers, field_mrad)
    elif params.figure == "fig2":
        figure = patterns.strain_gallery(stores, layers[-1], field_mrad)
    elif params.figure == "fig3":
        figure = patterns.tilt_gallery(stores, layers[-1], field_mrad, layers[0])
    else:
        settings = Configuration(**params.augmentation).augmentation()
        figure = patterns.dose_gallery(stores["undeformed"], layers[-1], settings, params.seed)
    save(figure, *snakemake.output)
