# The figures of the paper, those of the bound, and a page that shows them all.
for name, shown in {
    "cell": dict(
        states=["undeformed"],
        semiangles_mrad=ALL_ANGLES[:1],
        layers=[THIN],
    ),
    "fig1": dict(
        states=["undeformed"],
        semiangles_mrad=ALL_ANGLES,
        layers=config["dataset"]["layers"],
    ),
    "fig2": dict(
        states=["undeformed", *(state for state in GALLERY if "strain" in state)],
        semiangles_mrad=GALLERY_ANGLES,
        layers=[THICK],
    ),
    "fig3": dict(
        states=["undeformed", *(state for state in GALLERY if "tilt" in state)],
        semiangles_mrad=GALLERY_ANGLES,
        layers=[THIN, THICK],
    ),
    "fig4": dict(
        states=["undeformed"],
        semiangles_mrad=GALLERY_ANGLES,
        layers=[THICK],
        augmentation=AUGMENTATION,
        seed=config["seed"],
    ),
}.items():

    rule:
        name:
            f"figure_{name}"
        input:
            expand(
                f"{PATTERNS}/{{state}}.zarr.zip",
                state=shown["states"],
                semiangle=[f"{angle:g}" for angle in shown["semiangles_mrad"]],
            ),
        output:
            figure(name, "Patterns"),
        log:
            f"{RESULTS}/logs/figures/{name}.log",
        localrule: True
        conda:
            "../envs/analyse.yaml"
        params:
            **shown,
            figure=name,
            field_of_view_mrad=config["dataset"]["field_of_view_mrad"],
        script:
            "../scripts/figure_of_patterns.py"


for name, subcategory in {
    "fig5": "Errors",
    "fig7": "Errors",
    "classical": "Errors",
    "bound": "Bounds",
    "efficiency": "Bounds",
    "tradeoff": "Bounds",
}.items():

    rule:
        name:
            f"figure_{name}"
        input:
            f"{RESULTS}/{results.BOUNDS}",
            f"{RESULTS}/tables/errors.parquet",
        output:
            figure(name, subcategory),
        log:
            f"{RESULTS}/logs/figures/{name}.log",
        localrule: True
        conda:
            "../envs/analyse.yaml"
        params:
            figure=name,
            outputs=NETWORKS[0].outputs,
            intensity=NETWORKS[0].intensity,
            semiangle_mrad=COMPARED_ANGLE,
        script:
            "../scripts/figure_of_tables.py"


for name, shown in {"fig6": SCATTER, "fig8": WITH_AND_WITHOUT_TILT}.items():

    rule:
        name:
            f"figure_{name}"
        input:
            predictions=for_networks(f"{MODELS}/predictions_test.parquet", shown),
            errors=f"{RESULTS}/tables/errors.parquet",
        output:
            figure(name, "Errors"),
        log:
            f"{RESULTS}/logs/figures/{name}.log",
        localrule: True
        conda:
            "../envs/analyse.yaml"
        params:
            figure=name,
            networks=list(map(vars, shown)),
        script:
            "../scripts/figure_of_predictions.py"


rule summary:
    input:
        errors=f"{RESULTS}/tables/errors.parquet",
        bounds=f"{RESULTS}/tables/bounds.parquet",
        calibration=(
            [f"{RESULTS}/tables/calibration.parquet"] if FITTING + STATING else []
        ),
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
        # Maps have pages of their own, and no result depends on `execution`.
        config={
            key: value
            for key, value in config.items()
            if key not in ("scans", "execution")
        },
    script:
        "../scripts/report.py"
