from pathlib import Path

from _job import job

from pacbed.figures.errors import scatter_of_variants
from pacbed.figures.style import layers_label, save
from pacbed.tables import read_table

params = snakemake.params
with job(snakemake.log[0]):
    predictions = {
        (network["outputs"], network["intensity"]): read_table(Path(file))
        for network, file in zip(params.networks, snakemake.input, strict=True)
    }
    one = params.networks[0]
    title = f"{one['semiangle_mrad']:g} mrad, {layers_label(one['layers'])}"
    save(scatter_of_variants(predictions, title), *snakemake.output)
