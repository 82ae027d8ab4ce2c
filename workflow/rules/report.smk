# Figures of the paper and a page that shows them.

FIGURES = f"{RESULTS}/figures"


rule figure1:
    input:
        expand(f"{PATTERNS}/undeformed.zarr.zip", semiangle=SEMIANGLES),
    output:
        report(f"{FIGURES}/fig1.png", caption="../report/fig1.rst", category="Figures"),
        f"{FIGURES}/fig1.pdf",
    log:
        f"{RESULTS}/logs/figures/fig1.log",
    localrule: True
    conda:
        "../envs/analyse.yaml"
    params:
        semiangles_mrad=config["microscope"]["semiangles_mrad"],
        layers=config["dataset"]["layers"],
        field_of_view_mrad=config["dataset"]["field_of_view_mrad"],
    script:
        "../scripts/figure1.py"


rule figure5:
    input:
        f"{RESULTS}/tables/errors.csv",
    output:
        report(f"{FIGURES}/fig5.png", caption="../report/fig5.rst", category="Figures"),
        f"{FIGURES}/fig5.pdf",
    log:
        f"{RESULTS}/logs/figures/fig5.log",
    localrule: True
    conda:
        "../envs/analyse.yaml"
    params:
        outputs=NETWORKS[0].outputs,
        intensity=NETWORKS[0].intensity,
    script:
        "../scripts/figure5.py"


rule figure6:
    input:
        for_networks(f"{MODELS}/predictions_test.parquet", SCATTER),
    output:
        report(f"{FIGURES}/fig6.png", caption="../report/fig6.rst", category="Figures"),
        f"{FIGURES}/fig6.pdf",
    log:
        f"{RESULTS}/logs/figures/fig6.log",
    localrule: True
    conda:
        "../envs/analyse.yaml"
    params:
        networks=[[n.semiangle_mrad, n.layers] for n in SCATTER],
    script:
        "../scripts/figure6.py"


rule summary:
    input:
        errors=f"{RESULTS}/tables/errors.csv",
        draws=f"{RESULTS}/draws.csv",
        figures=expand(f"{FIGURES}/{{name}}.png", name=["fig1", "fig5", "fig6"]),
    output:
        f"{RESULTS}/report.html",
    log:
        f"{RESULTS}/logs/report.log",
    localrule: True
    conda:
        "../envs/analyse.yaml"
    params:
        config=config,
    script:
        "../scripts/report.py"
