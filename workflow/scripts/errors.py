from pathlib import Path

from _job import job

from pacbed.learning.specification import NetworkSpec
from pacbed.precision.error_table import Predicted, error_table
from pacbed.storage.tables import write_table

params, files = snakemake.params, snakemake.input
with job(snakemake.log[0]):
    networks = [NetworkSpec(**one) for one in params.networks]
    classical = [NetworkSpec(**one) for one in params.classical]
    made = [(split, network) for split in params.splits for network in networks]
    predicted = [
        Predicted(Path(path), network, split)
        for (split, network), path in zip(made, files.networks, strict=True)
    ]
    for method, paths in {"discs": files.discs, "discs-calibrated": files.calibrated}.items():
        predicted += [
            Predicted(Path(path), network, "test", method)
            for network, path in zip(classical, paths, strict=True)
        ]
    fitted = [(m, NetworkSpec(**one)) for m in params.fit_methods for one in params.fitted]
    predicted += [
        Predicted(Path(path), network, "test", method)
        for (method, network), path in zip(fitted, files.fits, strict=True)
    ]
    # The baseline is the training set or, where no file holds one, the validation set.
    table, study = error_table(predicted, params.splits[0], params.electrons, Path(files.bounds))
    for path in snakemake.output:
        write_table(table, Path(path), study)
