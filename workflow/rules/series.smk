# With strain_states: some strain states instead of one simulation of every training draw. From the
# polynomials through them follow training examples of any deformation, and the bound. Draws for
# validation and test are simulated one by one; their images too lie on the pixels of the camera.

# Folders with the states of a job: of the series, and of the draws of a set, the same for all
# semi-angles that share their strain states.
STATES = f"{RESULTS}/series/states{{batch}}"
DRAW_STATES = f"{RESULTS}/series/{JOB}/{{split}}{{batch}}"
NUMERICS = dict(
    physics=PHYSICS_VERSION,
    settings=asdict(STUDY.simulation.planewave.settings()) if STRAIN_STATES else None,
)
NUMERICS_OF_DRAWS = NUMERICS | dict(
    settings=(
        asdict(STUDY.simulation.planewave.settings_of_draws())
        if STRAIN_STATES
        else None
    ),
)
SERIES_PARAMS = NUMERICS | dict(
    series=STUDY.series().to_dict() if STRAIN_STATES else None
)
POOL_PARAMS = dict(
    seed=config["seed"],
    semiangle_mrad=semiangle_mrad,
    layers=lambda wildcards: int(wildcards.layers),
    aperture_edge_mrad=config["microscope"]["aperture_edge_mrad"],
    augmentation={"deformation": ROTATION, "dataset": STUDY.dataset.of_pools()},
)


rule scatter:
    input:
        STRUCTURE,
    output:
        temp(directory(STATES)),
    log:
        f"{RESULTS}/logs/series/states{{batch}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/series/states{{batch}}.tsv"
    conda:
        f"../envs/simulate-{build('planewave')}.yaml"
    threads: 1
    resources:
        **({"gpu": 1} if DEVICE == "gpu" else {}),
        **expected(
            lambda wildcards, threads: costs.scattering(
                STUDY, threads, len(batch(range(STRAIN_STATES), wildcards))
            )
        ),
        mem_mb=lambda wildcards, attempt: attempt * 2500,
        runtime=minutes(10, lambda wildcards: STATES_PER_JOB),
    params:
        **SERIES_PARAMS,
        states=lambda wildcards: list(batch(range(STRAIN_STATES), wildcards)),
    script:
        "../scripts/scatter.py"


rule series:
    input:
        [STATES.format(batch=number) for number in batches(range(STRAIN_STATES))],
    output:
        SERIES,
    log:
        f"{RESULTS}/logs/series/series.log",
    benchmark:
        f"{RESULTS}/benchmarks/series/series.tsv"
    conda:
        f"../envs/simulate-{build('planewave')}.yaml"
    threads: 1
    resources:
        **expected(lambda wildcards, threads: costs.series(STUDY)),
        mem_mb=lambda wildcards, attempt: attempt * 4000,
        runtime=minutes(30),
    params:
        **SERIES_PARAMS,
    script:
        "../scripts/series.py"


rule pool:
    input:
        SERIES,
    output:
        expand(POOL, split="train", allow_missing=True),
    log:
        f"{RESULTS}/logs/datasets/{{semiangle}}mrad/{{layers}}layers/pool_train.log",
    benchmark:
        f"{RESULTS}/benchmarks/datasets/{{semiangle}}mrad/{{layers}}layers/pool_train.tsv"
    conda:
        "../envs/train-gpu.yaml"
    threads: 1
    resources:
        **expected(
            lambda wildcards, threads: costs.pool(
                STUDY, semiangle_mrad(wildcards), pool_images("train")
            )
        ),
        mem_mb=lambda wildcards, attempt: attempt * 3000,
        runtime=minutes(240),
    params:
        **SERIES_PARAMS,
        **POOL_PARAMS,
        deformation=DRAWN,
        images=config["dataset"]["pool"],
    script:
        "../scripts/pool.py"


use rule scatter as scatter_draw with:
    output:
        temp(directory(DRAW_STATES)),
    log:
        f"{RESULTS}/logs/series/{JOB}/{{split}}{{batch}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/series/{JOB}/{{split}}{{batch}}.tsv"
    resources:
        **({"gpu": 1} if DEVICE == "gpu" else {}),
        **expected(
            lambda wildcards, threads: costs.scattering_of_draw(
                STUDY,
                together(wildcards),
                threads,
                len(batch(draws_of(wildcards.split), wildcards)),
            )
        ),
        mem_mb=lambda wildcards, attempt: attempt * 2500,
        runtime=minutes(10, lambda wildcards: STATES_PER_JOB),
    params:
        **NUMERICS_OF_DRAWS,
        series=None,  # which else is that of `scatter`
        states=lambda wildcards: {
            f"{number:05d}": STUDY.state_of_draw(number, together(wildcards)).to_dict()
            for number in batch(draws_of(wildcards.split), wildcards)
        },


rule pool_of_draws:
    # All thicknesses: they read the same states.
    input:
        lambda wildcards: [
            DRAW_STATES.format(batch=number, **wildcards)
            for number in batches(draws_of(wildcards.split))
        ],
    output:
        expand(POOL, layers=config["dataset"]["layers"], allow_missing=True),
    log:
        f"{RESULTS}/logs/datasets/{{semiangle}}mrad/pool_{{split}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/datasets/{{semiangle}}mrad/pool_{{split}}.tsv"
    wildcard_constraints:
        split="validation|test",
    conda:
        f"../envs/simulate-{build('planewave')}.yaml"
    threads: 1
    resources:
        **expected(
            lambda wildcards, threads: costs.pool_of_draws(
                STUDY,
                semiangle_mrad(wildcards),
                pool_images(wildcards.split) * len(STUDY.dataset.layers),
            )
        ),
        mem_mb=lambda wildcards, attempt: attempt * 2000,
        runtime=minutes(720),
    params:
        **NUMERICS_OF_DRAWS,
        **POOL_PARAMS | dict(layers=config["dataset"]["layers"]),
        images=lambda wildcards: STUDY.images_per_draw(wildcards.split),
    script:
        "../scripts/pool_of_draws.py"
