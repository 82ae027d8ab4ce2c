from _job import job

from pacbed.study.draws import draw_table
from pacbed.study.sections import DeformationSection

params = snakemake.params
with job(snakemake.log[0]):
    table = draw_table(
        params.seed,
        params.semiangles_mrad,
        params.draws["count"],
        DeformationSection(**params.deformation).draw_ranges(),
        params.draws["split"],
        params.draws["shared_strain"],
    )
    table.to_csv(snakemake.output[0], index=False)
