# One job per semi-angle and draw: the patterns of one deformed crystal after every layer.
# Prismatic wants a whole node; a plane-wave simulation takes seconds on one core.
SIMULATION_THREADS = {"planewave": 1}[config["simulation"]["engine"]]

SIMULATION_PARAMS = dict(
    seed=config["seed"],
    energy_keV=config["microscope"]["energy_keV"],
    aperture_edge_mrad=config["microscope"]["aperture_edge_mrad"],
    material=config["material"],
    simulation=config["simulation"],
)


rule simulate:
    output:
        f"{PATTERNS}/{{draw}}.zarr.zip",
    log:
        f"{RESULTS}/logs/patterns/{{semiangle}}mrad/{{draw}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/patterns/{{semiangle}}mrad/{{draw}}.tsv"
    conda:
        "../envs/simulate-planewave.yaml"
    threads: SIMULATION_THREADS
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 15 * attempt,
    params:
        **SIMULATION_PARAMS,
        semiangle_mrad=semiangle_mrad,
        draw=drawn,
    script:
        "../scripts/simulate.py"


rule simulate_undeformed:
    output:
        f"{PATTERNS}/undeformed.zarr.zip",
    log:
        f"{RESULTS}/logs/patterns/{{semiangle}}mrad/undeformed.log",
    benchmark:
        f"{RESULTS}/benchmarks/patterns/{{semiangle}}mrad/undeformed.tsv"
    conda:
        "../envs/simulate-planewave.yaml"
    threads: SIMULATION_THREADS
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 15 * attempt,
    params:
        **SIMULATION_PARAMS,
        semiangle_mrad=semiangle_mrad,
        draw={"stretch": [1.0, 1.0], "angle_deg": 0.0, "tilt_mrad": [0.0, 0.0]},
    script:
        "../scripts/simulate.py"
