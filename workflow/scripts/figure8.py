from pathlib import Path

from _job import job

from pacbed.figures.errors import scatter_of_variants
from pacbed.figures.style import layers_label, save
from pacbed.learning.specification import NetworkSpec
from pacbed.precision.error_table import Predicted

with job(snakemake.log[0]):
    networks = [NetworkSpec(**one) for one in snakemake.params.networks]
    predictions = {
        (network.outputs, network.intensity): Predicted(Path(file), network, "test").read()
        for network, file in zip(networks, snakemake.input, strict=True)
    }
    title = f"{networks[0].semiangle_mrad:g} mrad, {layers_label(networks[0].layers)}"
    save(scatter_of_variants(predictions, title), *snakemake.output)
