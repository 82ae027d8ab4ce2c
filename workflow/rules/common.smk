# The configuration, checked before any job is planned, and the names of files.
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path

from pacbed.runs import cost_model as costs
from pacbed.runs import snakemake_adapter as adapter
from pacbed.figures import selection
from pacbed.study.configuration import of_workflow
from pacbed.learning.specification import NetworkSpec
from pacbed.study.draws import SPLITS
from pacbed.exceptions import PacbedError
from pacbed.figures import TITLES
from pacbed.study import results
from pacbed.study.networks import evaluated_splits, neighbour, networks
from pacbed.study.prismatic import memory_MB
from pacbed.study.states import bound_states, gallery
from snakemake.exceptions import WorkflowError
from snakemake_logger_plugin_budget.jobs import reserved_gpus

try:
    STUDY = of_workflow(config, *adapter.given_configuration(workflow))
except PacbedError as error:
    raise WorkflowError(str(error))
# Parameters of rules are plain values, in a form that is the same for 80 and 80.0.
config.clear()
config.update(STUDY.plain())

RESULTS = STUDY.results.rstrip("/")
SEMIANGLES = [f"{angle:g}" for angle in STUDY.microscope.semiangles_mrad]
NETWORKS = networks(STUDY)
SHARED_STRAIN = STUDY.draws.shared_strain
STORED = STUDY.detector()
# The same study with the settings of the auxiliary simulations: of Fig. 2 and 3, and of the bound.
AUXILIARY, FOR_BOUND = STUDY.auxiliary(), STUDY.for_bound()
GALLERY = gallery(STUDY.seed)
BOUND_STATES = bound_states(
    STUDY.seed,
    STUDY.deformation.draw_ranges(),
    STUDY.bound.deformed_states,
    STUDY.bound.steps(),
)
STEPS = list(BOUND_STATES["undeformed"])
DRAWS_PER_JOB = STUDY.execution.draws_per_job
DRAW_SPLITS = STUDY.draws.splits()
# From which strain and tilt are drawn.
DRAWN = {k: v for k, v in config["deformation"].items() if k != "rotation_deg"}
# With strain states, training examples and bounds are made from a scattering series, and all images
# lie on the pixels of the camera.
STRAIN_STATES = STUDY.simulation.planewave.strain_states
# That a job simulates, seconds each. No option: names of files follow from it, and Snakemake makes
# again what was made of files of other names.
STATES_PER_JOB = 10
# How examples are made of patterns.
ROTATION = {"rotation_deg": config["deformation"]["rotation_deg"]}
AUGMENTATION = {"deformation": ROTATION, "dataset": STUDY.dataset.used()}
# Online, training examples are made while a network learns, and no file holds them.
ONLINE = STUDY.training.data == "online"
EVALUATED = evaluated_splits(STUDY)

# The file that the crystal is read from, if it is from one.
STRUCTURE = [STUDY.material.structure] if STUDY.material.is_file else []
PATTERNS = f"{RESULTS}/{results.PATTERNS}"
DATASETS = f"{RESULTS}/{results.DATASETS}"
SERIES = f"{RESULTS}/series/series.zarr.zip"
POOL = f"{DATASETS}/pool_{{split}}.zarr.zip"
NETWORK = results.NETWORK
MODELS = f"{RESULTS}/{results.MODELS}"
FIGURES = f"{RESULTS}/figures"
FITS = f"{RESULTS}/fits/{{semiangle}}mrad/{{layers}}layers"
CLASSICAL = f"{RESULTS}/classical/{{semiangle}}mrad/{{layers}}layers"


wildcard_constraints:
    semiangle=r"\d+(\.\d+)?",
    draw=r"\d+",
    base="|".join(BOUND_STATES),
    layers=r"\d+",
    split="|".join(SPLITS),
    method=r"network\+fit|fit",
    part=r"\d+",
    batch=r"\d+",
    outputs="strain-rotation-tilt|strain-rotation",
    intensity="linear|sqrt|power",


def table(name, label):
    """A table as text, which Snakemake's report shows, and with its types."""
    shown = report(
        f"{RESULTS}/tables/{name}.csv",
        caption=f"../report/{name}.rst",
        category="Tables",
        labels={"table": label},
    )
    return [shown, f"{RESULTS}/tables/{name}.parquet"]


def build(engine):
    """The environment of an engine."""
    gpu = STUDY.execution.device == "gpu"
    return "prismatic-gpu" if engine == "prismatic" and gpu else engine


def needs(engine):
    """Threads, minutes and MB of a simulation: the paper's protocol takes 3.8 hours on 32 cores, a
    plane-wave run minutes on one."""
    if engine == "planewave":
        return 1, 30, 2000
    return 32, 480, 1000 + memory_MB(STUDY, 32) * 5 // 4


def gallery_stores(state):
    """The stores of a state of Fig. 2 and 3."""
    folders = expand(PATTERNS, semiangle=[f"{angle:g}" for angle in GALLERY_ANGLES])
    return [f"{folder}/{state}.zarr.zip" for folder in folders]


def bound_stores(base, step):
    """The stores of a step from a state at which the bound is computed."""
    folders = expand(PATTERNS, semiangle=SEMIANGLES)
    return [f"{folder}/bound_{base}_{step}.zarr.zip" for folder in folders]


def figure(name, subcategory):
    """A figure as a picture, which Snakemake's report shows, and for print."""
    shown = report(
        f"{FIGURES}/{name}.png",
        caption=f"../report/{name}.rst",
        category="Figures",
        subcategory=subcategory,
        labels={"figure": TITLES[name]},
    )
    return [shown, f"{FIGURES}/{name}.pdf"]


def semiangle_mrad(wildcards):
    return float(wildcards.semiangle)


def draws_of(split):
    return [index for index, name in enumerate(DRAW_SPLITS) if name == split]


def stores_of(semiangle, split):
    return results.stores(PATTERNS.format(semiangle=semiangle), draws_of(split))


def sources(wildcards, split):
    """What the examples of a set are made of: the patterns of its draws, or a pool of images."""
    if STRAIN_STATES:
        return [POOL.format(**{**dict(wildcards.items()), "split": split})]
    return stores_of(wildcards.semiangle, split)


def source_draws(split):
    """The draws of these patterns; None of a pool, which knows its own."""
    return None if STRAIN_STATES else draws_of(split)


def batches(things):
    """The jobs that simulate strain states, some of them each."""
    return range(math.ceil(len(things) / STATES_PER_JOB))


def batch(things, wildcards):
    """Those of which a job simulates the strain states."""
    first = int(wildcards.batch) * STATES_PER_JOB
    return things[first : first + STATES_PER_JOB]


def pool_images(split):
    """The number of images of the pool of a set."""
    if split == "train":
        return STUDY.dataset.pool
    return STUDY.images_per_draw(split) * len(draws_of(split))


def training_examples(wildcards):
    """The set that a network is trained on, or the patterns of which its examples are made."""
    if ONLINE:
        return sources(wildcards, "train")
    return f"{DATASETS}/train.zarr.zip".format(**wildcards)


def online_examples(wildcards):
    """How training examples are made online; nothing if they are in a file."""
    if not ONLINE:
        return None
    return dict(
        address=[config["seed"], semiangle_mrad(wildcards), int(wildcards.layers)],
        draws=source_draws("train"),
        examples=config["dataset"]["examples"]["train"],
        augmentation=AUGMENTATION,
    )


def sources_mb(split):
    """The memory of what the examples of a set are made of, and of its copies."""
    if STRAIN_STATES:  # in half precision
        each, number = 2 * STUDY.dataset.pixels**2, pool_images(split)
    else:
        each, number = 4 * math.prod(STORED.pixels), len(draws_of(split))
    # As read, averaged, and as the framework holds them.
    return 3 * each * number // 1_000_000


def training_data_mb():
    """The memory of training and validation examples, in half precision, or of their sources."""
    return (sources_mb("train") if ONLINE else set_mb("train")) + set_mb("validation")


def set_examples(split):
    """The number of examples of a set."""
    return getattr(STUDY.dataset.examples, split)


def set_mb(split):
    """The memory of the images of a set, in half precision."""
    return 2 * STUDY.dataset.pixels**2 * set_examples(split) // 1_000_000


def part_of_fit(wildcards):
    """The examples that a job fits."""
    first = int(wildcards.part) * FITTED_PER_JOB
    return range(first, min(first + FITTED_PER_JOB, FITTED))


def network_of_fit(wildcards):
    """What the network predicts with which fits begin."""
    sample = semiangle_mrad(wildcards), int(wildcards.layers)
    chosen = [n for n in FITTING if (n.semiangle_mrad, n.layers) == sample]
    return for_networks(f"{MODELS}/predictions_test.parquet", chosen)


def fits_of_examples():
    """The tables of what fits have read: of each method, one for each of their samples."""
    return [
        file
        for method in FIT_METHODS
        for file in for_networks(f"{FITS}/{method}_test.parquet", FITTING)
    ]


def initial_network(wildcards):
    """The network of a neighbouring thickness with which a training begins, if any."""
    one = NetworkSpec(
        semiangle_mrad(wildcards),
        int(wildcards.layers),
        wildcards.outputs,
        wildcards.intensity,
    )
    found = neighbour(one, NETWORKS, STUDY.training.warm_start)
    return for_networks(f"{MODELS}/model.keras", [found] if found else [])


def together(wildcards):
    """The semi-angles that one job simulates."""
    angles = SEMIANGLES if SHARED_STRAIN else [wildcards.semiangle]
    return tuple(map(float, angles))


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
    return reserved_gpus(adapter.set_resources(workflow, rule)) > 0


def for_networks(pattern, chosen=NETWORKS):
    """The files of networks, in the order of the configuration."""
    return [pattern.format(**network.wildcards) for network in chosen]


# What the figures show.
ALL_ANGLES = list(map(float, SEMIANGLES))
GALLERY_ANGLES = selection.gallery_angles(ALL_ANGLES)
THIN, THICK = selection.gallery_layers(STUDY.dataset.layers)
SCATTER = selection.scatter(NETWORKS)
COMPARED_ANGLE = selection.compared_angle(NETWORKS)
WITH_AND_WITHOUT_TILT = selection.with_and_without_tilt(NETWORKS)
DISCS = selection.classical(STUDY, NETWORKS)
# What is read by a fit, and with which networks it begins.
FITTED = min(STUDY.fit.examples, set_examples("test")) if STRAIN_STATES else 0
FITTING = selection.fitted(NETWORKS) if FITTED else []
FITTED_PER_JOB = 250
FIT_PARTS = math.ceil(FITTED / FITTED_PER_JOB)
FIT_METHODS = ["network+fit", "fit"]
STATING = NETWORKS if STUDY.network.uncertainty else []
# Maps of measured scans; nothing of them is imported where there are none.
MAP = f"{RESULTS}/maps/{{scan}}"
MAP_FILES = dict(
    map=f"{MAP}.zarr.zip",
    calibration=f"{MAP}.calibration.json",
    figure=f"{MAP}.png",
    page=f"{MAP}.html",
)
MAP_JOBS = {}
if STUDY.scans:
    from pacbed.cli.map_jobs import check_files, map_jobs

    try:
        MAP_JOBS = map_jobs(STUDY)
        if adapter.plans(workflow):
            check_files(
                MAP_JOBS,
                {
                    scan: [file.format(scan=scan) for file in MAP_FILES.values()]
                    for scan in MAP_JOBS
                },
            )
    except PacbedError as error:
        raise WorkflowError(str(error))


def cost_of_map(wildcards, threads):
    """What the map of a scan is expected to take, by the size of the scan."""
    points, units = MAP_JOBS[wildcards.scan].work
    # Some 25 numbers for each point; figure and page.
    return costs.other("map", units, threads, 60e-6 * points + 2)
