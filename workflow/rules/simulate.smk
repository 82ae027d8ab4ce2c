# The patterns of a deformed crystal after every layer: one job per semi-angle and draw or, where
# all semi-angles share their strain states, one job per draw with a store for each semi-angle.
ENGINE = config["simulation"]["engine"]
DEVICE = config["execution"]["device"]
BUILD = "prismatic-gpu" if (ENGINE, DEVICE) == ("prismatic", "gpu") else ENGINE
SIMULATION_PARAMS = dict(
    energy_keV=config["microscope"]["energy_keV"],
    aperture_edge_mrad=config["microscope"]["aperture_edge_mrad"],
    material=config["material"],
    simulation=scientific(config["simulation"]),
)
JOB = "shared" if SHARED_STRAIN else "{semiangle}mrad"
JOB_PATTERNS = expand(PATTERNS, semiangle=SEMIANGLES) if SHARED_STRAIN else [PATTERNS]
# What a job needs: the paper's protocol takes 3.8 hours on 32 cores, a plane-wave run minutes on one.
if ENGINE == "prismatic":
    THREADS, RUNTIME_MIN = 32, 480
    MEMORY_MB = 1000 + prismatic_memory_MB(config, THREADS) * 5 // 4
else:
    THREADS, RUNTIME_MIN, MEMORY_MB = 1, 30, 2000


rule simulate:
    output:
        [f"{folder}/{{draw}}.zarr.zip" for folder in JOB_PATTERNS],
    log:
        f"{RESULTS}/logs/patterns/{JOB}/{{draw}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/patterns/{JOB}/{{draw}}.tsv"
    conda:
        f"../envs/simulate-{BUILD}.yaml"
    threads: THREADS
    resources:
        **({"gpu": 1} if DEVICE == "gpu" else {}),
        mem_mb=lambda wildcards, attempt: MEMORY_MB * attempt,
        runtime=lambda wildcards, attempt: RUNTIME_MIN * attempt,
    params:
        **SIMULATION_PARAMS,
        draws=drawn,
    script:
        "../scripts/simulate.py"


use rule simulate as simulate_undeformed with:
    output:
        [f"{folder}/undeformed.zarr.zip" for folder in JOB_PATTERNS],
    log:
        f"{RESULTS}/logs/patterns/{JOB}/undeformed.log",
    benchmark:
        f"{RESULTS}/benchmarks/patterns/{JOB}/undeformed.tsv"
    params:
        **SIMULATION_PARAMS,
        draws=undeformed,
