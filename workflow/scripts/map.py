from pathlib import Path

from _job import job, note_work_found

from pacbed.cli.map import parts_folder
from pacbed.cli.map_jobs import call

params, files = snakemake.params, snakemake.output
output = Path(files.map)
with job(snakemake.log[0]):
    note_work_found(snakemake, any(parts_folder(output).glob("rows-*.npz")))
    words = [
        *params.words,
        f"--output={output}",
        f"--figure={files.figure}",
        f"--report={files.page}",
        f"--threads={snakemake.threads}",
    ]
    call(words, params.energy_keV, output)
