from pathlib import Path

from _job import job

from pacbed.examples.dataset import read_dataset
from pacbed.examples.predictions import study_of
from pacbed.reading.discs import predict_by_discs
from pacbed.storage.tables import write_table
from pacbed.study.sections import DeformationSection, MaterialSection

params = snakemake.params
with job(snakemake.log[0]):
    data = read_dataset(Path(snakemake.input[0]))
    crystal = MaterialSection(**params.material).material()
    ranges = DeformationSection(**params.deformation).draw_ranges()
    study = study_of(data.attributes, ranges)
    for name, scale_known in {"discs": False, "calibrated": True}.items():
        predictions = predict_by_discs(data, crystal, params.energy_keV, scale_known)
        failed = int((predictions["discs"] == 0).sum())
        print(f"{name}: no lattice in {failed} of {len(predictions)} examples", flush=True)
        write_table(predictions, Path(snakemake.output[name]), study)
