# One network per semi-angle, thickness and variant; the weights of the best validation epoch.


rule train:
    input:
        train=training_examples,
        validation=f"{DATASETS}/validation.zarr.zip",
        initial=initial_network,
        bounds=f"{RESULTS}/{results.BOUNDS}" if STUDY.training.loss == "fisher" else [],
    output:
        # To be updated: Snakemake deletes none before the job, which puts aside what is good.
        model=update(f"{MODELS}/model.keras"),
        history=update(f"{MODELS}/history.csv"),
        settings=update(f"{MODELS}/settings.json"),
    log:
        f"{RESULTS}/logs/models/{NETWORK}/train.log",
    benchmark:
        f"{RESULTS}/benchmarks/models/{NETWORK}/train.tsv"
    conda:
        "../envs/train-gpu.yaml"
    threads: 8
    resources:
        **expected(
            lambda wildcards, threads: costs.training(
                STUDY, wildcards.outputs, threads, reserves_gpu("train")
            )
        ),
        # What it is trained on, and the network with its gradients.
        mem_mb=lambda wildcards, attempt: attempt * (8000 + training_data_mb()),
        runtime=minutes(4320),
    params:
        seed=config["seed"],
        network=STUDY.network.plain(),
        training=STUDY.training.used(),
        image_mean=config["dataset"]["image_mean"],
        online=online_examples,
        ranges=config["deformation"],
        outputs="{outputs}",
        intensity="{intensity}",
    script:
        "../scripts/train.py"
