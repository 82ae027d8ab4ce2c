# The configuration, checked before any job is planned, and the names of files.
import math
import sys
from pathlib import Path

from pacbed import costs
from pacbed.config import (
    SCHEMA,
    Network,
    canonical,
    detector,
    evaluated_splits,
    neighbour,
    networks,
    prismatic_memory_MB,
    scientific,
    used_training,
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
# How examples are made of patterns.
AUGMENTATION = {
    "deformation": {"rotation_deg": config["deformation"]["rotation_deg"]},
    "dataset": {
        key: value
        for key, value in config["dataset"].items()
        if key not in ("layers", "examples")
    },
}
# Online, training examples are made while a network learns, and no file holds them.
ONLINE = config["training"]["data"] == "online"
EVALUATED = evaluated_splits(config["training"])

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
    intensity="linear|sqrt|power",


def semiangle_mrad(wildcards):
    return float(wildcards.semiangle)


def draws_of(split):
    return [index for index, name in enumerate(DRAW_SPLITS) if name == split]


def stores_of(semiangle, split):
    folder = PATTERNS.format(semiangle=semiangle)
    return [f"{folder}/{draw:05d}.zarr.zip" for draw in draws_of(split)]


def pattern_stores(wildcards):
    """The stores of the draws that belong to a set."""
    return stores_of(wildcards.semiangle, wildcards.split)


def training_examples(wildcards):
    """The set that a network is trained on, or the patterns of which its examples are made."""
    if ONLINE:
        return stores_of(wildcards.semiangle, "train")
    return f"{DATASETS}/train.zarr.zip".format(**wildcards)


def online_examples(wildcards):
    """How training examples are made online; nothing if they are in a file."""
    if not ONLINE:
        return None
    return dict(
        address=[config["seed"], semiangle_mrad(wildcards), int(wildcards.layers)],
        draws=draws_of("train"),
        examples=config["dataset"]["examples"]["train"],
        augmentation=AUGMENTATION,
    )


def training_data_mb():
    """The memory of training and validation examples, in half precision, or of patterns."""
    examples = config["dataset"]["examples"]
    image = 2 * config["dataset"]["pixels"] ** 2
    # Patterns in single precision: as simulated, averaged, and on the device.
    pattern = 3 * 4 * math.prod(STORED.pixels)
    train = pattern * len(draws_of("train")) if ONLINE else image * examples["train"]
    return (train + image * examples["validation"]) // 1_000_000


def initial_network(wildcards):
    """The network of a neighbouring thickness with which a training begins, if any."""
    one = Network(
        semiangle_mrad(wildcards),
        int(wildcards.layers),
        wildcards.outputs,
        wildcards.intensity,
    )
    found = neighbour(one, NETWORKS, config["training"]["warm_start"])
    return for_networks(f"{MODELS}/model.keras", [found] if found else [])


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
