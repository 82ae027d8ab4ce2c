# Examples of one thickness, as a camera would record them, in three sets that share no draw.


rule augment:
    input:
        lambda wildcards: sources(wildcards, wildcards.split),
    output:
        f"{DATASETS}/{{split}}.zarr.zip",
    log:
        f"{RESULTS}/logs/datasets/{{semiangle}}mrad/{{layers}}layers/{{split}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/datasets/{{semiangle}}mrad/{{layers}}layers/{{split}}.tsv"
    conda:
        "../envs/train-gpu.yaml"
    threads: 4
    resources:
        **expected(
            lambda wildcards, threads: costs.other(
                "dataset",
                set_mb(wildcards.split),
                threads,
                # Half-precision numbers, compressed.
                0.92 * set_mb(wildcards.split),
            )
        ),
        mem_mb=lambda wildcards, attempt: attempt * (1200 + sources_mb(wildcards.split)),
        runtime=minutes(240),
    params:
        seed=config["seed"],
        semiangle_mrad=semiangle_mrad,
        layers=lambda wildcards: int(wildcards.layers),
        draws=lambda wildcards: source_draws(wildcards.split),
        augmentation=AUGMENTATION,
        examples=lambda wildcards: config["dataset"]["examples"][wildcards.split],
    script:
        "../scripts/augment.py"
