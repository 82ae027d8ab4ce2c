import pandas as pd
from _job import job

from pacbed.metrics import errors

with job(snakemake.log[0]):
    splits = snakemake.params.splits
    networks = snakemake.params.networks
    files = dict(
        zip(
            [(split, number) for split in splits for number in range(len(networks))],
            snakemake.input,
            strict=True,
        )
    )
    rows = []
    for number, network in enumerate(networks):
        # The training set or, where no file holds one, the validation set.
        training = pd.read_parquet(files[splits[0], number])
        for split in splits:
            predictions = pd.read_parquet(files[split, number])
            rows.append(errors(predictions, training).assign(split=split, **network))
    table = pd.concat(rows, ignore_index=True)
    keys = ["semiangle_mrad", "layers", "outputs", "intensity", "split"]
    table[keys + [c for c in table if c not in keys]].to_csv(snakemake.output[0], index=False)
