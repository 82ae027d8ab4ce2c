from pathlib import Path

from _job import job

from pacbed.examples.dataset import read_dataset
from pacbed.reading.discs import predict_by_discs
from pacbed.storage.tables import write_table
from pacbed.study.sections import MaterialSection

params = snakemake.params
with job(snakemake.log[0]):
    data = read_dataset(Path(snakemake.input[0]))
    crystal = MaterialSection(**params.material).material()
    for output, scale in (
        (snakemake.output.discs, "from discs"),
        (snakemake.output.calibrated, "known"),
    ):
        predictions = predict_by_discs(data, crystal, params.energy_keV, scale)
        failed = int((predictions["discs"] == 0).sum())
        print(f"scale {scale}: no lattice in {failed} of {len(predictions)} examples", flush=True)
        write_table(predictions, Path(output))
