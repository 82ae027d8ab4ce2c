from pathlib import Path

from _job import job

from pacbed.figures.errors import SCATTERED, true_against_predicted
from pacbed.figures.style import save, shown_parameters
from pacbed.learning.specification import NetworkSpec
from pacbed.precision.error_table import Predicted
from pacbed.storage.tables import read_table

files = snakemake.input
with job(snakemake.log[0]):
    networks = [NetworkSpec(**one) for one in snakemake.params.networks]
    predictions = {
        (network.semiangle_mrad, network.layers): Predicted(Path(file), network, "test").read()
        for network, file in zip(networks, files.predictions, strict=True)
    }
    parameters = shown_parameters(read_table(Path(files.errors)), SCATTERED)
    save(true_against_predicted(predictions, parameters), *snakemake.output)
