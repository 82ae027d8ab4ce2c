# Examples of one thickness, as a camera would record them, in three sets that share no draw.


rule augment:
    input:
        pattern_stores,
    output:
        f"{DATASETS}/{{split}}.zarr.zip",
    log:
        f"{RESULTS}/logs/datasets/{{semiangle}}mrad/{{layers}}layers/{{split}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/datasets/{{semiangle}}mrad/{{layers}}layers/{{split}}.tsv"
    conda:
        "../envs/analyse.yaml"
    threads: 8
    resources:
        **expected(
            lambda wildcards, threads: costs.dataset(config, wildcards.split, threads)
        ),
        # The patterns of one thickness, and examples on their way into a shard.
        mem_mb=lambda wildcards, attempt: attempt
        * (2000 + 4 * math.prod(STORED.pixels) * len(DRAW_SPLITS) // 1_000_000),
        runtime=minutes(240),
    params:
        seed=config["seed"],
        semiangle_mrad=semiangle_mrad,
        layers=lambda wildcards: int(wildcards.layers),
        draws=lambda wildcards: draws_of(wildcards.split),
        rotation_deg=config["deformation"]["rotation_deg"],
        dataset={
            key: value
            for key, value in config["dataset"].items()
            if key not in ("layers", "examples")
        },
        examples=lambda wildcards: config["dataset"]["examples"][wildcards.split],
    script:
        "../scripts/augment.py"
