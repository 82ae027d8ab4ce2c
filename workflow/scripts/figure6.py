from pathlib import Path

from _job import job

from pacbed.figures.errors import true_against_predicted
from pacbed.figures.style import save
from pacbed.learning.specification import NetworkSpec
from pacbed.precision.error_table import Predicted

with job(snakemake.log[0]):
    networks = [NetworkSpec(**one) for one in snakemake.params.networks]
    predictions = {
        (network.semiangle_mrad, network.layers): Predicted(Path(file), network, "test").read()
        for network, file in zip(networks, snakemake.input, strict=True)
    }
    save(true_against_predicted(predictions), *snakemake.output)
