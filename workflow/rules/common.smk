# The configuration, checked before any job is planned, and the names of files.
import math
import sys
from pathlib import Path

from pacbed import costs
from pacbed.config import (
    SCHEMA,
    canonical,
    detector,
    networks,
    prismatic_memory_MB,
    scientific,
    validate,
)
from pacbed.deformation import SPLITS, assign_splits
from pacbed.errors import PacbedError
from snakemake.exceptions import WorkflowError

try:
    validate(config, Path(workflow.basedir) / SCHEMA)
except PacbedError as error:
    raise WorkflowError(str(error))
whole = canonical(config)
config.clear()
config.update(whole)

RESULTS = config["results"].rstrip("/")
SEMIANGLES = [f"{angle:g}" for angle in config["microscope"]["semiangles_mrad"]]
NETWORKS = networks(config)
SHARED_STRAIN = config["draws"]["shared_strain"]
STORED = detector(config["simulation"], config["microscope"]["energy_keV"])
DRAWS_PER_JOB = config["execution"]["draws_per_job"]
DRAW_SPLITS = assign_splits(config["draws"]["count"], config["draws"]["split"])

PATTERNS = f"{RESULTS}/patterns/{{semiangle}}mrad"
DATASETS = f"{RESULTS}/datasets/{{semiangle}}mrad/{{layers}}layers"
NETWORK = "{semiangle}mrad/{layers}layers/{outputs}_{intensity}"
MODELS = f"{RESULTS}/models/{NETWORK}"


wildcard_constraints:
    semiangle=r"\d+(\.\d+)?",
    draw=r"\d+",
    layers=r"\d+",
    split="|".join(SPLITS),
    outputs="strain-rotation-tilt|strain-rotation",
    intensity="linear|sqrt",


def semiangle_mrad(wildcards):
    return float(wildcards.semiangle)


def draws_of(split):
    return [index for index, name in enumerate(DRAW_SPLITS) if name == split]


def pattern_stores(wildcards):
    """The stores of the draws that belong to a set."""
    folder = PATTERNS.format(semiangle=wildcards.semiangle)
    return [f"{folder}/{draw:05d}.zarr.zip" for draw in draws_of(wildcards.split)]


def together(wildcards):
    """The semi-angles that one job simulates."""
    angles = SEMIANGLES if SHARED_STRAIN else [wildcards.semiangle]
    return [float(angle) for angle in angles]


def number_of_draws(wildcards):
    """How many draws one job simulates; it has no number for the undeformed crystal."""
    return DRAWS_PER_JOB if "draw" in wildcards.keys() else 1


def expected(cost):
    """What a budget says of jobs of which none has run: functions of wildcards and threads."""
    return dict(
        expected_s=lambda wildcards, threads: f"{cost(wildcards, threads).seconds:.2f}",
        expected_from=lambda wildcards, threads: cost(wildcards, threads).source,
        output_mb=lambda wildcards, threads: f"{cost(wildcards, threads).output_MB:.3f}",
    )


def minutes(first, draws=lambda wildcards: 1):
    """A time limit that grows with every attempt, to no more than partitions usually allow."""
    return lambda wildcards, attempt: min(
        first * draws(wildcards) * attempt, 3 * 24 * 60
    )


def reserves_gpu(rule):
    """Whether the profile gives the jobs of a rule a graphics card."""
    return not {"gpu", "gres"}.isdisjoint(
        workflow.resource_settings.overwrite_resources.get(rule, {})
    )


def for_networks(pattern, chosen=NETWORKS):
    """The files of networks, in the order of the configuration."""
    return [
        pattern.format(
            semiangle=f"{n.semiangle_mrad:g}",
            layers=n.layers,
            outputs=n.outputs,
            intensity=n.intensity,
        )
        for n in chosen
    ]


# The networks of the main figures: the first variant of the configuration.
MAIN = [
    n
    for n in NETWORKS
    if (n.outputs, n.intensity) == (NETWORKS[0].outputs, NETWORKS[0].intensity)
]

# Fig. 6 shows the paper's selection of networks where all of it is configured, else all.
PAPER_SCATTER = {(a, n) for a in (6.35, 18.13, 32.94) for n in (1, 3, 5, 10, 20)}
SCATTER = [n for n in MAIN if (n.semiangle_mrad, n.layers) in PAPER_SCATTER]
if len(SCATTER) < len(PAPER_SCATTER):
    SCATTER = MAIN
