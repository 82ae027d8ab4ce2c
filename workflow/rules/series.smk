# With strain_states: some strain states instead of one simulation of every training draw. From the
# polynomials through them follow training examples of any deformation, and the bound.

STATE = f"{RESULTS}/series/state{{state}}.zarr.zip"
SERIES_PARAMS = dict(
    physics=PHYSICS_VERSION,
    series=STUDY.series().to_dict() if STRAIN_STATES else None,
    settings=asdict(STUDY.simulation.planewave.settings()) if STRAIN_STATES else None,
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
        POOL,
    log:
        f"{RESULTS}/logs/datasets/{{semiangle}}mrad/{{layers}}layers/pool.log",
    benchmark:
        f"{RESULTS}/benchmarks/datasets/{{semiangle}}mrad/{{layers}}layers/pool.tsv"
    conda:
        f"../envs/simulate-{build('planewave')}.yaml"
    threads: 1
    resources:
        **expected(
            lambda wildcards, threads: costs.pool(STUDY, semiangle_mrad(wildcards))
        ),
        mem_mb=lambda wildcards, attempt: attempt * 3000,
        runtime=minutes(240),
    params:
        **SERIES_PARAMS,
        seed=config["seed"],
        semiangle_mrad=semiangle_mrad,
        layers=lambda wildcards: int(wildcards.layers),
        aperture_edge_mrad=config["microscope"]["aperture_edge_mrad"],
        deformation=DRAWN,
        augmentation=AUGMENTATION,
        images=config["dataset"]["pool"],
    script:
        "../scripts/pool.py"
