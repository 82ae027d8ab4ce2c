# The figures of the paper, those of the bound, and a page that shows them all.
MAIN_VARIANT = dict(outputs=NETWORKS[0].outputs, intensity=NETWORKS[0].intensity)
TABLES = [f"{RESULTS}/tables/bounds_mean.parquet", f"{RESULTS}/tables/errors.parquet"]


rule figure1:
    # Undeformed crystals.
    input:
        expand(f"{PATTERNS}/undeformed.zarr.zip", semiangle=SEMIANGLES),
    output:
        figure("fig1", "Patterns"),
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


rule figure2:
    # Strain and rotation.
    input:
        gallery_stores("undeformed"),
        gallery_stores("gallery_strain_xx"),
        gallery_stores("gallery_strain_yy"),
        gallery_stores("gallery_strain_xy"),
    output:
        figure("fig2", "Patterns"),
    log:
        f"{RESULTS}/logs/figures/fig2.log",
    localrule: True
    conda:
        "../envs/analyse.yaml"
    params:
        semiangles_mrad=GALLERY_ANGLES,
        layers=THICK,
        field_of_view_mrad=config["dataset"]["field_of_view_mrad"],
    script:
        "../scripts/figure2.py"


rule figure3:
    # Tilt.
    input:
        gallery_stores("undeformed"),
        gallery_stores("gallery_tilt_x"),
        gallery_stores("gallery_tilt_y"),
        gallery_stores("gallery_tilt_xy"),
    output:
        figure("fig3", "Patterns"),
    log:
        f"{RESULTS}/logs/figures/fig3.log",
    localrule: True
    conda:
        "../envs/analyse.yaml"
    params:
        semiangles_mrad=GALLERY_ANGLES,
        layers=THICK,
        thin_layers=THIN,
        field_of_view_mrad=config["dataset"]["field_of_view_mrad"],
    script:
        "../scripts/figure3.py"


rule figure4:
    # Lowest and highest dose.
    input:
        gallery_stores("undeformed"),
    output:
        figure("fig4", "Patterns"),
    log:
        f"{RESULTS}/logs/figures/fig4.log",
    localrule: True
    conda:
        "../envs/analyse.yaml"
    params:
        seed=config["seed"],
        semiangles_mrad=GALLERY_ANGLES,
        layers=THICK,
        augmentation=AUGMENTATION,
    script:
        "../scripts/figure4.py"


rule figure5:
    # Errors against thickness.
    input:
        f"{RESULTS}/tables/errors.parquet",
    output:
        figure("fig5", "Errors"),
    log:
        f"{RESULTS}/logs/figures/fig5.log",
    localrule: True
    conda:
        "../envs/analyse.yaml"
    params:
        **MAIN_VARIANT,
    script:
        "../scripts/figure5.py"


rule figure6:
    # Predicted against true values.
    input:
        predictions=for_networks(f"{MODELS}/predictions_test.parquet", SCATTER),
        errors=f"{RESULTS}/tables/errors.parquet",
    output:
        figure("fig6", "Errors"),
    log:
        f"{RESULTS}/logs/figures/fig6.log",
    localrule: True
    conda:
        "../envs/analyse.yaml"
    params:
        networks=[vars(network) for network in SCATTER],
    script:
        "../scripts/figure6.py"


rule figure7:
    # Variants: with and without tilt, on linear and other intensities.
    input:
        f"{RESULTS}/tables/errors.parquet",
    output:
        figure("fig7", "Errors"),
    log:
        f"{RESULTS}/logs/figures/fig7.log",
    localrule: True
    conda:
        "../envs/analyse.yaml"
    params:
        semiangle_mrad=COMPARED_ANGLE,
    script:
        "../scripts/figure7.py"


rule figure8:
    # Predicted against true values with and without tilt, of the thinnest sample.
    input:
        predictions=for_networks(
            f"{MODELS}/predictions_test.parquet", WITH_AND_WITHOUT_TILT
        ),
        errors=f"{RESULTS}/tables/errors.parquet",
    output:
        figure("fig8", "Errors"),
    log:
        f"{RESULTS}/logs/figures/fig8.log",
    localrule: True
    conda:
        "../envs/analyse.yaml"
    params:
        networks=[vars(network) for network in WITH_AND_WITHOUT_TILT],
    script:
        "../scripts/figure8.py"


rule figure_classical:
    # Networks and the classical method.
    input:
        f"{RESULTS}/tables/errors.parquet",
    output:
        figure("classical", "Errors"),
    log:
        f"{RESULTS}/logs/figures/classical.log",
    localrule: True
    conda:
        "../envs/analyse.yaml"
    params:
        **MAIN_VARIANT,
    script:
        "../scripts/figure_classical.py"


rule figure_bound:
    # How precise a reading can be at best.
    input:
        TABLES,
    output:
        figure("bound", "Bounds"),
    log:
        f"{RESULTS}/logs/figures/bound.log",
    localrule: True
    conda:
        "../envs/analyse.yaml"
    params:
        **MAIN_VARIANT,
    script:
        "../scripts/figure_bound.py"


rule figure_efficiency:
    # How near the networks come to that.
    input:
        f"{RESULTS}/tables/errors.parquet",
    output:
        figure("efficiency", "Bounds"),
    log:
        f"{RESULTS}/logs/figures/efficiency.log",
    localrule: True
    conda:
        "../envs/analyse.yaml"
    params:
        **MAIN_VARIANT,
    script:
        "../scripts/figure_efficiency.py"


rule figure_tradeoff:
    # Precision against the size of the probe.
    input:
        TABLES,
    output:
        figure("tradeoff", "Bounds"),
    log:
        f"{RESULTS}/logs/figures/tradeoff.log",
    localrule: True
    conda:
        "../envs/analyse.yaml"
    params:
        **MAIN_VARIANT,
    script:
        "../scripts/figure_tradeoff.py"


rule summary:
    input:
        errors=f"{RESULTS}/tables/errors.parquet",
        bounds=f"{RESULTS}/tables/bounds.parquet",
        draws=f"{RESULTS}/draws.csv",
        undeformed=f"{PATTERNS}/undeformed.zarr.zip".format(semiangle=SEMIANGLES[0]),
        figures=expand(f"{FIGURES}/{{name}}.png", name=TITLES),
    output:
        report(
            f"{RESULTS}/report.html",
            caption="../report/report.rst",
            category="Summary",
            labels={"page": "All results on one page"},
        ),
    log:
        f"{RESULTS}/logs/report.log",
    localrule: True
    conda:
        "../envs/analyse.yaml"
    params:
        config=config,
    script:
        "../scripts/report.py"
