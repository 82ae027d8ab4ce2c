from _job import job

from pacbed.study.configuration import draw_ranges
from pacbed.study.draws import draw_table

params = snakemake.params
with job(snakemake.log[0]):
    table = draw_table(
        params.seed,
        params.semiangles_mrad,
        params.draws["count"],
        draw_ranges({"deformation": params.deformation}),
        params.draws["split"],
        params.draws["shared_strain"],
    )
    table.to_csv(snakemake.output[0], index=False)
