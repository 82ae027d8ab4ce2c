from pathlib import Path

from _job import job

from pacbed.examples.labels import PARAMETERS
from pacbed.figures.errors import scatter_of_variants
from pacbed.figures.style import layers_label, save, shown_parameters
from pacbed.learning.specification import NetworkSpec
from pacbed.precision.error_table import Predicted
from pacbed.storage.tables import read_table

files = snakemake.input
with job(snakemake.log[0]):
    networks = [NetworkSpec(**one) for one in snakemake.params.networks]
    predictions = {
        (network.outputs, network.intensity): Predicted(Path(file), network, "test").read()
        for network, file in zip(networks, files.predictions, strict=True)
    }
    title = f"{networks[0].semiangle_mrad:g} mrad, {layers_label(networks[0].layers)}"
    parameters = shown_parameters(read_table(Path(files.errors)), PARAMETERS[:4])
    save(scatter_of_variants(predictions, title, parameters), *snakemake.output)
