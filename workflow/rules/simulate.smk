# The patterns of a deformed crystal after every layer: one job per semi-angle and draw or, where
# all semi-angles share their strain states, one job per draw with a store for each semi-angle.
SIMULATION_PARAMS = dict(
    energy_keV=config["microscope"]["energy_keV"],
    aperture_edge_mrad=config["microscope"]["aperture_edge_mrad"],
    material=config["material"],
    simulation=config["simulation"],
)
JOB = "shared" if SHARED_STRAIN else "{semiangle}mrad"
JOB_PATTERNS = expand(PATTERNS, semiangle=SEMIANGLES) if SHARED_STRAIN else [PATTERNS]


rule simulate:
    output:
        [f"{folder}/{{draw}}.zarr.zip" for folder in JOB_PATTERNS],
    log:
        f"{RESULTS}/logs/patterns/{JOB}/{{draw}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/patterns/{JOB}/{{draw}}.tsv"
    conda:
        "../envs/simulate-planewave.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
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
