# The patterns of a deformed crystal after every layer: one job per semi-angle and draw or, where
# all semi-angles share their strain states, one job per draw with a store for each semi-angle.
ENGINE = config["simulation"]["engine"]
DEVICE = config["execution"]["device"]
BUILD = "prismatic-gpu" if (ENGINE, DEVICE) == ("prismatic", "gpu") else ENGINE
# The same for all jobs, whose stores tell which draws they are: other batches rerun nothing.
SIMULATION_PARAMS = dict(
    seed=config["seed"],
    shared_strain=SHARED_STRAIN,
    energy_keV=config["microscope"]["energy_keV"],
    aperture_edge_mrad=config["microscope"]["aperture_edge_mrad"],
    material=config["material"],
    simulation=scientific(config["simulation"]),
)
JOB = "shared" if SHARED_STRAIN else "{semiangle}mrad"
JOB_PATTERNS = expand(PATTERNS, semiangle=SEMIANGLES) if SHARED_STRAIN else [PATTERNS]
# A job of several draws has those whose numbers differ in the last digits: 0012x.
LAST_DIGITS = {1: [""], 10: list("0123456789"), 100: [f"{n:02d}" for n in range(100)]}
BATCH = "{draw}" + "x" * len(LAST_DIGITS[DRAWS_PER_JOB][0])
# What a job needs: the paper's protocol takes 3.8 hours on 32 cores, a plane-wave run minutes on one.
if ENGINE == "prismatic":
    THREADS, RUNTIME_MIN = 32, 480
    MEMORY_MB = 1000 + prismatic_memory_MB(config, THREADS) * 5 // 4
else:
    THREADS, RUNTIME_MIN, MEMORY_MB = 1, 30, 2000


rule simulate:
    output:
        # To be updated: Snakemake deletes none before the job, which puts aside what is good.
        [
            update(f"{folder}/{{draw}}{digits}.zarr.zip")
            for digits in LAST_DIGITS[DRAWS_PER_JOB]
            for folder in JOB_PATTERNS
        ],
    log:
        f"{RESULTS}/logs/patterns/{JOB}/{BATCH}.log",
    benchmark:
        f"{RESULTS}/benchmarks/patterns/{JOB}/{BATCH}.tsv"
    conda:
        f"../envs/simulate-{BUILD}.yaml"
    threads: THREADS
    resources:
        **({"gpu": 1} if DEVICE == "gpu" else {}),
        **expected(
            lambda wildcards, threads: costs.simulation(
                config, together(wildcards), threads, number_of_draws(wildcards)
            )
        ),
        mem_mb=lambda wildcards, attempt: MEMORY_MB * attempt,
        runtime=minutes(RUNTIME_MIN, number_of_draws),
    params:
        **SIMULATION_PARAMS,
        deformation={
            key: value
            for key, value in config["deformation"].items()
            if key != "rotation_deg"
        },
    script:
        "../scripts/simulate.py"


use rule simulate as simulate_undeformed with:
    output:
        [update(f"{folder}/undeformed.zarr.zip") for folder in JOB_PATTERNS],
    log:
        f"{RESULTS}/logs/patterns/{JOB}/undeformed.log",
    benchmark:
        f"{RESULTS}/benchmarks/patterns/{JOB}/undeformed.tsv"
    params:
        **SIMULATION_PARAMS,
