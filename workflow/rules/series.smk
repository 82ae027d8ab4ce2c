# With strain_states: some strain states instead of one simulation of every training draw. From the
# polynomials through them follow training examples of any deformation, and the bound. Draws for
# validation and test are simulated one by one; their images too lie on the pixels of the camera.

STATE = f"{RESULTS}/series/state{{state}}.zarr.zip"
# One for all semi-angles that share their strain states.
DRAW_STATE = f"{RESULTS}/series/{JOB}/{{draw}}.zarr.zip"
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
    augmentation=AUGMENTATION,
)


rule scatter:
    output:
        temp(STATE),
    log:
        f"{RESULTS}/logs/series/state{{state}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/series/state{{state}}.tsv"
    conda:
        f"../envs/simulate-{build('planewave')}.yaml"
    threads: 1
    resources:
        **({"gpu": 1} if DEVICE == "gpu" else {}),
        **expected(lambda wildcards, threads: costs.scattering(STUDY, threads)),
        mem_mb=lambda wildcards, attempt: attempt * 2500,
        runtime=minutes(30),
    params:
        **SERIES_PARAMS,
    script:
        "../scripts/scatter.py"


rule series:
    input:
        [STATE.format(state=f"{number:04d}") for number in range(STRAIN_STATES)],
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
        f"../envs/simulate-{build('planewave')}.yaml"
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


rule scatter_draw:
    output:
        temp(DRAW_STATE),
    log:
        f"{RESULTS}/logs/series/{JOB}/{{draw}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/series/{JOB}/{{draw}}.tsv"
    conda:
        f"../envs/simulate-{build('planewave')}.yaml"
    threads: 1
    resources:
        **({"gpu": 1} if DEVICE == "gpu" else {}),
        **expected(
            lambda wildcards, threads: costs.scattering_of_draw(
                STUDY, together(wildcards), threads
            )
        ),
        mem_mb=lambda wildcards, attempt: attempt * 2500,
        runtime=minutes(30),
    params:
        **NUMERICS_OF_DRAWS,
        state=lambda wildcards: STUDY.state_of_draw(
            int(wildcards.draw), together(wildcards)
        ).to_dict(),
    script:
        "../scripts/scatter_draw.py"


rule pool_of_draws:
    input:
        lambda wildcards: [
            DRAW_STATE.format(draw=f"{number:05d}", semiangle=wildcards.semiangle)
            for number in draws_of(wildcards.split)
        ],
    output:
        POOL,
    log:
        f"{RESULTS}/logs/datasets/{{semiangle}}mrad/{{layers}}layers/pool_{{split}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/datasets/{{semiangle}}mrad/{{layers}}layers/pool_{{split}}.tsv"
    wildcard_constraints:
        split="validation|test",
    conda:
        f"../envs/simulate-{build('planewave')}.yaml"
    threads: 1
    resources:
        **expected(
            lambda wildcards, threads: costs.pool(
                STUDY, semiangle_mrad(wildcards), pool_images(wildcards.split)
            )
        ),
        mem_mb=lambda wildcards, attempt: attempt * 2000,
        runtime=minutes(240),
    params:
        **NUMERICS_OF_DRAWS,
        **POOL_PARAMS,
        images=images_per_draw(),
    script:
        "../scripts/pool_of_draws.py"
