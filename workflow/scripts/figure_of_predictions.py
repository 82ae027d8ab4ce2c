from pathlib import Path

from _job import job

from pacbed.examples.labels import PARAMETERS
from pacbed.figures.errors import SCATTERED, errors_against_truth, scatter_of_variants
from pacbed.figures.style import save, shown_parameters
from pacbed.learning.specification import NetworkSpec
from pacbed.precision.error_table import Predicted
from pacbed.storage.tables import read_table

params, files = snakemake.params, snakemake.input
with job(snakemake.log[0]):
    networks = [NetworkSpec(**one) for one in params.networks]
    predictions = {
        network: Predicted(Path(file), network, "test").read()
        for network, file in zip(networks, files.predictions, strict=True)
    }
    errors = read_table(Path(files.errors))
    if params.figure == "fig6":
        figure = errors_against_truth(predictions, shown_parameters(errors, SCATTERED))
    else:
        figure = scatter_of_variants(predictions, shown_parameters(errors, PARAMETERS[:4]))
    save(figure, *snakemake.output)
