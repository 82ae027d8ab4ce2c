# What the networks predict, how far it is from the truth, and how near it could be at best.


rule predict:
    input:
        **{split: f"{DATASETS}/{split}.zarr.zip" for split in EVALUATED},
        model=f"{MODELS}/model.keras",
        settings=f"{MODELS}/settings.json",
    output:
        **{split: f"{MODELS}/predictions_{split}.parquet" for split in EVALUATED},
    log:
        f"{RESULTS}/logs/models/{NETWORK}/predict.log",
    benchmark:
        f"{RESULTS}/benchmarks/models/{NETWORK}/predict.tsv"
    conda:
        "../envs/train-gpu.yaml"
    threads: 4
    resources:
        **expected(
            lambda wildcards, threads: costs.other(
                "prediction on a card" if reserves_gpu("predict") else "prediction",
                sum(map(set_mb, EVALUATED)),
                threads,
                # Truth and prediction of each parameter.
                70e-6 * sum(map(set_examples, EVALUATED)),
            )
        ),
        mem_mb=lambda wildcards, attempt: attempt * (8000 + max(map(set_mb, EVALUATED))),
        runtime=minutes(120),
    params:
        deformation=config["deformation"],
    script:
        "../scripts/predict.py"


rule discs:
    # The classical way, for comparison: positions of the discs, and a lattice through them.
    input:
        f"{DATASETS}/test.zarr.zip",
    output:
        discs=f"{CLASSICAL}/discs_test.parquet",
        calibrated=f"{CLASSICAL}/discs-calibrated_test.parquet",
    log:
        f"{RESULTS}/logs/classical/{{semiangle}}mrad/{{layers}}layers.log",
    benchmark:
        f"{RESULTS}/benchmarks/classical/{{semiangle}}mrad/{{layers}}layers.tsv"
    conda:
        "../envs/analyse.yaml"
    threads: 1
    resources:
        **expected(lambda wildcards, threads: costs.other("discs", set_mb("test"))),
        mem_mb=lambda wildcards, attempt: attempt * (1000 + set_mb("test")),
        runtime=minutes(60),
    params:
        deformation=config["deformation"],
        material=config["material"],
        energy_keV=config["microscope"]["energy_keV"],
    script:
        "../scripts/discs.py"


rule bounds:
    # The Cramér-Rao bound of the study's camera and doses.
    input:
        (
            SERIES
            if STRAIN_STATES
            else [
                file
                for base in BOUND_STATES
                for step in STEPS
                for file in bound_stores(base, step)
            ]
        ),
    output:
        each=table("bounds", "Cramér–Rao bound"),
        mean=table("bounds_mean", "Cramér–Rao bound, mean of doses and states"),
    log:
        f"{RESULTS}/logs/tables/bounds.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables/bounds.tsv"
    conda:
        "../envs/analyse.yaml"
    threads: 1
    resources:
        **expected(
            lambda wildcards, threads: costs.other(
                "bounds",
                len(BOUND_STATES) * len(ALL_ANGLES) * len(STUDY.dataset.layers),
            )
        ),
        mem_mb=lambda wildcards, attempt: attempt * 3000,
        runtime=minutes(60),
    params:
        seed=config["seed"],
        semiangles_mrad=config["microscope"]["semiangles_mrad"],
        states={
            base: {step: seeded.to_dict() for step, seeded in steps.items()}
            for base, steps in BOUND_STATES.items()
        },
        layers=config["dataset"]["layers"],
        energy_keV=config["microscope"]["energy_keV"],
        deformation=config["deformation"],
        augmentation=AUGMENTATION,
        aperture_edge_mrad=config["microscope"]["aperture_edge_mrad"],
        bound=config["bound"],
        series=STUDY.series().to_dict() if STRAIN_STATES else None,
    script:
        "../scripts/bounds.py"


rule errors:
    input:
        networks=[
            file
            for split in EVALUATED
            for file in for_networks(f"{MODELS}/predictions_{split}.parquet")
        ],
        discs=for_networks(f"{CLASSICAL}/discs_test.parquet", DISCS),
        calibrated=for_networks(f"{CLASSICAL}/discs-calibrated_test.parquet", DISCS),
        fits=fits_of_examples(),
        bounds=f"{RESULTS}/tables/bounds.parquet",
    output:
        table("errors", "Errors"),
    log:
        f"{RESULTS}/logs/tables/errors.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables/errors.tsv"
    conda:
        "../envs/analyse.yaml"
    threads: 1
    resources:
        **expected(
            lambda wildcards, threads: costs.other(
                "errors", len(NETWORKS) * sum(map(set_examples, EVALUATED)) / 1e6
            )
        ),
        mem_mb=lambda wildcards, attempt: attempt * 2000,
        runtime=minutes(60),
    params:
        networks=[vars(network) for network in NETWORKS],
        classical=[vars(network) for network in DISCS],
        fitted=[vars(network) for network in FITTING],
        fit_methods=FIT_METHODS,
        splits=EVALUATED,
        electrons=config["dataset"]["electrons"],
    script:
        "../scripts/errors.py"
