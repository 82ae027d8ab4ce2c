# What the networks predict, and how far it is from the truth.


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
            lambda wildcards, threads: costs.prediction(
                config, wildcards.outputs, threads, reserves_gpu("predict")
            )
        ),
        mem_mb=lambda wildcards, attempt: attempt
        * (
            8000
            + 2
            * config["dataset"]["pixels"] ** 2
            * max(config["dataset"]["examples"][split] for split in EVALUATED)
            // 1_000_000
        ),
        runtime=minutes(120),
    script:
        "../scripts/predict.py"


rule errors:
    input:
        [
            file
            for split in EVALUATED
            for file in for_networks(f"{MODELS}/predictions_{split}.parquet")
        ],
    output:
        report(
            f"{RESULTS}/tables/errors.csv",
            caption="../report/errors.rst",
            category="Errors",
        ),
    log:
        f"{RESULTS}/logs/tables/errors.log",
    localrule: True
    conda:
        "../envs/analyse.yaml"
    params:
        networks=[vars(network) for network in NETWORKS],
        splits=EVALUATED,
    script:
        "../scripts/errors.py"
