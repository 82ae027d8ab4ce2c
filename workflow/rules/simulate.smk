# The patterns of a deformed crystal after every layer: one job per semi-angle and draw or, where
# all semi-angles share their strain states, one job per draw with a store for each semi-angle.
from pacbed.engines.request import PHYSICS_VERSION

ENGINE = STUDY.simulation.engine
DEVICE = STUDY.execution.device
# The same for all jobs of a semi-angle, whatever their draws: other batches rerun nothing.
SIMULATION_PARAMS = dict(
    physics=PHYSICS_VERSION,
    semiangles_mrad=together,
    seed=config["seed"],
    shared_strain=SHARED_STRAIN,
    energy_keV=config["microscope"]["energy_keV"],
    aperture_edge_mrad=config["microscope"]["aperture_edge_mrad"],
    material=config["material"],
    simulation=STUDY.simulation.used(),
)
JOB = "shared" if SHARED_STRAIN else "{semiangle}mrad"
JOB_PATTERNS = expand(PATTERNS, semiangle=SEMIANGLES) if SHARED_STRAIN else [PATTERNS]
# A job of several draws has those whose numbers differ in the last digits: 0012x.
LAST_DIGITS = {1: [""], 10: list("0123456789"), 100: [f"{n:02d}" for n in range(100)]}
BATCH = "{draw}" + "x" * len(LAST_DIGITS[DRAWS_PER_JOB][0])
THREADS, RUNTIME_MIN, MEMORY_MB = needs(ENGINE)


rule simulate:
    input:
        STRUCTURE,
    output:
        # To be updated: Snakemake deletes none before the job, which puts aside what is good.
        # The script takes them in this order: all semi-angles of a draw, then those of the next.
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
        f"../envs/simulate-{build(ENGINE)}.yaml"
    threads: THREADS
    resources:
        **({"gpu": 1} if DEVICE == "gpu" else {}),
        **expected(
            lambda wildcards, threads: costs.simulation(
                STUDY, together(wildcards), threads, number_of_draws(wildcards)
            )
        ),
        mem_mb=lambda wildcards, attempt: MEMORY_MB * attempt,
        runtime=minutes(RUNTIME_MIN, number_of_draws),
    params:
        **SIMULATION_PARAMS,
        deformation=DRAWN,
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


# Auxiliary simulations, all semi-angles and states of a kind in one job: what Fig. 2 and 3 show, and
# the steps from which the bound follows.
AUXILIARY_ENGINE = AUXILIARY.simulation.engine
AUXILIARY_THREADS, AUXILIARY_RUNTIME_MIN, AUXILIARY_MEMORY_MB = needs(AUXILIARY_ENGINE)


use rule simulate as simulate_gallery with:
    output:
        [update(file) for state in GALLERY for file in gallery_stores(state)],
    log:
        f"{RESULTS}/logs/patterns/gallery.log",
    benchmark:
        f"{RESULTS}/benchmarks/patterns/gallery.tsv"
    conda:
        f"../envs/simulate-{build(AUXILIARY_ENGINE)}.yaml"
    threads: AUXILIARY_THREADS
    resources:
        **({"gpu": 1} if DEVICE == "gpu" else {}),
        **expected(
            lambda wildcards, threads: costs.simulation(
                AUXILIARY, tuple(GALLERY_ANGLES), threads, len(GALLERY)
            )
        ),
        mem_mb=lambda wildcards, attempt: AUXILIARY_MEMORY_MB * attempt,
        runtime=minutes(AUXILIARY_RUNTIME_MIN, lambda wildcards: len(GALLERY)),
    params:
        **SIMULATION_PARAMS
        | dict(simulation=AUXILIARY.simulation.used(), semiangles_mrad=GALLERY_ANGLES),
        states={name: state.to_dict() for name, state in GALLERY.items()},


use rule simulate_gallery as simulate_bound with:
    output:
        [update(file) for step in STEPS for file in bound_stores("{base}", step)],
    log:
        f"{RESULTS}/logs/patterns/bound_{{base}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/patterns/bound_{{base}}.tsv"
    resources:
        **({"gpu": 1} if DEVICE == "gpu" else {}),
        **expected(
            lambda wildcards, threads: costs.simulation(
                FOR_BOUND, tuple(ALL_ANGLES), threads, len(STEPS)
            )
        ),
        mem_mb=lambda wildcards, attempt: AUXILIARY_MEMORY_MB * attempt,
        runtime=minutes(AUXILIARY_RUNTIME_MIN, lambda wildcards: len(STEPS)),
    params:
        **SIMULATION_PARAMS
        | dict(simulation=FOR_BOUND.simulation.used(), semiangles_mrad=ALL_ANGLES),
        states=lambda wildcards: {
            f"bound_{wildcards.base}_{step}": state.to_dict()
            for step, state in BOUND_STATES[wildcards.base].items()
        },
