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
        training = pd.read_parquet(files["train", number])
        for split in splits:
            predictions = pd.read_parquet(files[split, number])
            rows.append(errors(predictions, training).assign(split=split, **network))
    table = pd.concat(rows, ignore_index=True)
    keys = ["semiangle_mrad", "layers", "outputs", "intensity", "split"]
    table[keys + [c for c in table if c not in keys]].to_csv(snakemake.output[0], index=False)
