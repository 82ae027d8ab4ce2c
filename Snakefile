# From a crystal, a microscope and a range of deformations to networks that read strain, rotation
# and tilt from one PACBED pattern, and to the tables and figures that say how well.
from snakemake.utils import min_version

min_version("9.21")


configfile: f"{workflow.current_basedir}/config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/draws.smk"
include: "workflow/rules/simulate.smk"
include: "workflow/rules/series.smk"
include: "workflow/rules/augment.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/fit.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/start.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        f"{RESULTS}/report.html",
        f"{RESULTS}/draws.csv",
        expand(
            f"{RESULTS}/tables/{{name}}.{{kind}}",
            name=[
                "errors",
                "bounds",
                "bounds_mean",
                *(["calibration"] if FITTING else []),
            ],
            kind=["csv", "parquet"],
        ),
        expand(f"{FIGURES}/{{name}}.{{kind}}", name=TITLES, kind=["png", "pdf"]),
