# One job per semi-angle and draw: the patterns of one deformed crystal after every layer.
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
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 15 * attempt,
    params:
        **SIMULATION_PARAMS,
        semiangle_mrad=semiangle_mrad,
        draw=drawn,
    script:
        "../scripts/simulate.py"


use rule simulate as simulate_undeformed with:
    output:
        f"{PATTERNS}/undeformed.zarr.zip",
    log:
        f"{RESULTS}/logs/patterns/{{semiangle}}mrad/undeformed.log",
    benchmark:
        f"{RESULTS}/benchmarks/patterns/{{semiangle}}mrad/undeformed.tsv"
    params:
        **SIMULATION_PARAMS,
        semiangle_mrad=semiangle_mrad,
        draw={"stretch": [1.0, 1.0], "angle_deg": 0.0, "tilt_mrad": [0.0, 0.0]},
