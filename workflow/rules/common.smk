# The configuration, checked before any job is planned, and the names of files.
import math
from pathlib import Path

from pacbed.config import (
    SCHEMA,
    canonical,
    detector,
    draw_ranges,
    networks,
    prismatic_memory_MB,
    scientific,
    validate,
)
from pacbed.deformation import SPLITS, assign_splits, simulation_seed
from pacbed.deformation import draw as draw_deformation
from pacbed.errors import ConfigError
from snakemake.exceptions import WorkflowError

try:
    validate(config, Path(workflow.basedir) / SCHEMA)
except ConfigError as error:
    raise WorkflowError(str(error))
whole = canonical(config)
config.clear()
config.update(whole)

RESULTS = config["results"].rstrip("/")
SEMIANGLES = [f"{angle:g}" for angle in config["microscope"]["semiangles_mrad"]]
NETWORKS = networks(config)
SHARED_STRAIN = config["draws"]["shared_strain"]
STORED = detector(config["simulation"], config["microscope"]["energy_keV"])
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


def drawn(wildcards):
    """What a job simulates: deformation and tilt of a draw, for each of its semi-angles."""
    index, seed = int(wildcards.draw), config["seed"]
    draws = [
        draw_deformation(seed, angle, index, draw_ranges(config), SHARED_STRAIN)
        for angle in together(wildcards)
    ]
    return [
        {
            "semiangle_mrad": draw.semiangle_mrad,
            "stretch": [draw.stretch_1, draw.stretch_2],
            "angle_deg": draw.angle_deg,
            "tilt_mrad": list(draw.tilt_mrad),
            "seed": simulation_seed(seed, draw.semiangle_mrad, index, SHARED_STRAIN),
        }
        for draw in draws
    ]


def undeformed(wildcards):
    """The same for the undeformed crystal."""
    return [
        {
            "semiangle_mrad": angle,
            "stretch": [1.0, 1.0],
            "angle_deg": 0.0,
            "tilt_mrad": [0.0, 0.0],
            "seed": simulation_seed(config["seed"], angle, None, SHARED_STRAIN),
        }
        for angle in together(wildcards)
    ]


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
