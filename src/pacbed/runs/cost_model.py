"""How long a job will take, before any has run.

Arithmetic with constants that were measured once: for a compute budget, not for a race. Prismatic
and the propagation of plane waves are those of an AMD EPYC; what else runs on processors that of an
Intel Xeon (Sapphire Rapids), shared with other jobs, by processor time. Training on a graphics card
is that of the paper (Yankovich et al. 2026, 2.5). See docs/cost.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.library import cone
from pacbed.engines.planewave.waves import IncidentGrid, ReciprocalGrid
from pacbed.engines.prismatic import Layout
from pacbed.engines.request import SimulationRequest
from pacbed.examples.labels import OUTPUTS
from pacbed.specimen.crystal import slab
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import wavelength_A
from pacbed.study.draws import draw as draw_deformation
from pacbed.study.model import Configuration
from pacbed.study.networks import evaluated_splits
from pacbed.study.sections import DrawsSection

# What `benchmark:` of a rule counts besides the work: the imports of its script, best of four, and
# a tenth for the rest; the fastest of 178 simulations of the demo took 1.18 s in all.
_START_s = 1.1
_START_TENSORFLOW_s = 4.6

# --- Prismatic: benchmarks/prismatic.py, docs/cost.md ---
# The potential of an atom: what one lock lets through at a time, and what threads share.
_ATOM_SERIAL_s, _ATOM_SHARED_s = 0.3e-3, 0.3e-3
# Of a probe, slice and grid point: with and without a prime factor above 7 in the length.
_POINT_AWKWARD_s, _POINT_FAST_s = 45e-9, 17e-9

# --- Plane waves: PlaneWaveEngine.scatter and ScatteringLibrary.synthesise timed one by one, best
# of four, sizes from 32 × 48 to 400 × 432 points; benchmarks/engine.py sets the first number ---
# Of a wave, configuration, slice and n log2 n of the n points of a transform. With atoms at rest
# the transmission is at hand; else it costs two transforms of its own.
_PHONON_SLICE_s, _REST_SLICE_s = 1.45e-9, 1.06e-9
_PLANES_PER_LAYER = 3
# Equal slices have the potentials of many planes in each: so much more, with phonons.
_EQUAL_SLICES = 2.0
_DOUBLE_PRECISION = 1.8
# Propagators and displacements, of a wave, configuration and point.
_WAVE_POINT_s = 30e-9
# Putting patterns together: of a disc; of a pixel in a disc, and per layer of it.
_DISC_s, _DISC_PIXEL_s, _DISC_PIXEL_LAYER_s = 0.45e-3, 50e-9, 3e-9
# Of a pixel and layer: checking and writing; with phonons, the diffuse scattering too.
_WRITE_PIXEL_s, _DIFFUSE_PIXEL_s = 30e-9, 65e-9
# The noise of a pattern is estimated on so many pixels per axis, in two more patterns.
_NOISE_PIXELS = 128
# Draws over which a simulation of plane waves is averaged.
_SAMPLE = 8

# --- Pattern stores and datasets: read_patterns, best of several, stored patterns of 32 to 1336
# pixels; benchmarks/dataset.py, processor time, examples of 64 and 256 pixels ---
_READ_STORE_s, _READ_STORE_PIXEL_s, _AVERAGE_PIXEL_s = 4.5e-3, 10e-9, 9e-9
# Of an example and of each of its pixels, compression included.
_EXAMPLE_s, _EXAMPLE_PIXEL_s = 0.05e-3, 50e-9
_READ_DATASET_PIXEL_s = 10e-9
# Size of the compressed chunks over that of the numbers: patterns of 192 and 640 pixels, at rest
# and with phonons, 0.89 to 0.93; datasets of the demo 0.90 to 0.94. And what else is in a file.
_PATTERN_RATIO, _DATASET_RATIO, _STORE_MB = 0.90, 0.92, 0.011

# --- The classical reading of an example of n pixels, for each n log2 n; the bound of a sample, for
# each stored pixel (averaged for 11 states) and each pixel of an example (19 are resampled) ---
_DISCS_s, _DISCS_PIXEL_s = 4e-3, 22e-9
_BOUND_STORED_PIXEL_s, _BOUND_PIXEL_s = 0.4e-6, 12e-6
# The errors of one file of predictions, and of each prediction in it.
_ERROR_FILE_s, _ERROR_s = 0.2, 9e-6

# --- Training: pacbed.learning.training.train and predict with five networks of 3,000 to 35 million
# weights, batches of 16 to 64, processor time ---
_CORE_FLOPS = 105e9
# What a step costs whatever its size and threads (an epoch of the demo takes 7.4 s with one thread,
# 6.0 with two); the end of an epoch; building and tracing a network.
_STEP_s, _EPOCH_s, _TRACE_s, _TRACE_PREDICTION_s = 10e-3, 0.06, 2.1, 0.4
# Of a pixel of an example that is made while a network learns, on a processor.
_ONLINE_PIXEL_s = 45e-9
# A model is its weights in single precision; predictions have so many bytes per example.
_MODEL_MB, _PREDICTION_B, _PREDICTION_OUTPUT_B = 0.06, 8, 10
_PREDICTION_BATCH = 256

# The paper's training: 60 hours on an NVIDIA A100.
_PAPER_h, _PAPER_EPOCHS, _PAPER_TRAINING, _PAPER_VALIDATION = 60, 4000, 128_000, 32_000
_BACKWARD = 2  # of the operations of a forward pass


@dataclass(frozen=True)
class Cost:
    """What a job is expected to take and to write.

    Parameters
    ----------
    seconds
        Wall-clock time of the job on the threads (and the graphics card) that it was asked for,
        start-up included.
    output_MB
        Size of its output files in MB (1e6 bytes).
    source
        Where the numbers come from, one short line.
    """

    seconds: float
    output_MB: float
    source: str


@dataclass(frozen=True)
class Layers:
    """A network as far as its cost goes.

    Parameters
    ----------
    pixels
        Pixels of an image per axis.
    outputs
        Number of predicted parameters.
    filters, dense, pooled_head
        As in :func:`pacbed.learning.network.build_network`.
    """

    pixels: int
    outputs: int
    filters: tuple[int, ...] = (32, 64, 128, 256)
    dense: tuple[int, ...] = (512, 384, 256, 128)
    pooled_head: int | None = None

    def sizes(self) -> tuple[int, float]:
        """Return the number of weights, and of floating-point operations of a forward pass.

        Of convolutions and dense layers; a multiplication and an addition are two operations.
        """
        weights, products = 0, 0
        channels, pixels = 1, self.pixels
        for width in self.filters:
            for _ in range(2):
                weights += (9 * channels + 1) * width
                products += 9 * channels * width * pixels**2
                channels = width
            pixels //= 2
        features = channels * (self.pooled_head or pixels) ** 2
        for width in (*self.dense, self.outputs):
            weights += (features + 1) * width
            products += features * width
            features = width
        return weights, 2.0 * products


def simulation(
    config: Configuration, semiangles_mrad: Sequence[float], threads: int, draws: int = 1
) -> Cost:
    """Estimate one simulation job.

    Parameters
    ----------
    config
        The configuration.
    semiangles_mrad
        Semi-angles that the job simulates, in mrad; several share their strain states.
    threads
        Cores of the job.
    draws
        Draws that it simulates one after another.
    """
    return _simulation(config, tuple(map(float, semiangles_mrad)), threads, draws)


@lru_cache(maxsize=1024)
def _simulation(config: Configuration, angles: tuple[float, ...], threads: int, draws: int) -> Cost:
    section = config.simulation
    planewave = section.engine == "planewave"
    seconds = _START_s + draws * (_planewave_s if planewave else _prismatic_s)(
        config, angles, threads
    )
    pixels = math.prod(config.detector().pixels)
    store_MB = _STORE_MB + 4e-6 * _PATTERN_RATIO * section.layers * pixels
    if planewave:
        phonons = section.planewave.phonon_configurations
        source = (
            f"plane-wave engine: {1e9 * (_PHONON_SLICE_s if phonons else _REST_SLICE_s):g} ns × "
            "n log2 n per wave and slice of n points, one core (benchmarks/engine.py)"
        )
    else:
        source = "Prismatic: arithmetic of docs/cost.md; the paper reports 2.2 times as much"
    if config.execution.device == "gpu":
        source += "; on a graphics card not known: figure of processors"
    return Cost(seconds, draws * len(angles) * store_MB, source)


def _prismatic_s(config: Configuration, angles: Sequence[float], threads: int) -> float:
    """Return the seconds of the undeformed crystal, one semi-angle after another."""
    settings = config.simulation.prismatic.settings()
    seconds = 0.0
    for angle in angles:
        request = config.request(angle, Deformation())
        layout = Layout.of(request, settings)
        cells = math.prod(layout.grid.edges_A) / _cell_A2(request)
        atoms = cells * len(slab(request.material, request.deformation, request.layers))
        potential = atoms * (_ATOM_SERIAL_s + _ATOM_SHARED_s / threads)
        fast = all(_largest_prime(n) <= 7 for n in layout.grid.points)
        points = math.prod(layout.grid.points) * request.layers * settings.slices_per_layer
        waves = layout.total * points * (_POINT_FAST_s if fast else _POINT_AWKWARD_s)
        seconds += len(layout.shares) * potential + waves / threads
    return seconds


def _planewave_s(config: Configuration, angles: Sequence[float], threads: int) -> float:
    """Return the seconds of a draw, all semi-angles together: the mean of the first draws."""
    ranges = config.deformation.draw_ranges()
    settings = config.simulation.planewave.settings()
    total = 0.0
    for index in range(_SAMPLE):
        drawn = [
            draw_deformation(config.seed, angle, index, ranges, len(angles) > 1) for angle in angles
        ]
        requests = [config.request(d.semiangle_mrad, d.deformation, d.tilt_mrad) for d in drawn]
        patterns = [_pattern_s(request) for request in requests]
        total += _waves_s(requests, settings) / threads
        # A thread for each semi-angle: none ends before its longest, nor before its share.
        total += max(sum(patterns) / threads, *patterns) + sum(map(_writing_s, requests))
    return total / _SAMPLE


def _waves_s(requests: Sequence[SimulationRequest], settings: PlaneWaveSettings) -> float:
    """Return the core-seconds of all incident waves of one crystal."""
    first = requests[0]
    configurations = first.thermal.phonon_configurations
    cells = settings.supercell if configurations else (1, 1)
    edges = first.material.in_plane_cell_A(first.deformation) * np.array(cells)[:, None]
    # The place of the band matters little.
    band = settings.band((0.0, 0.0), wavelength_A(first.energy_keV))
    points = math.prod(ReciprocalGrid.for_band(edges, band, *settings.grid_ratios).fft_shape)
    incident = IncidentGrid.over(
        [cone(r.aperture, r.tilt_mrad) for r in requests], settings.incident_step_mrad
    )
    waves = np.count_nonzero(incident.covered) * max(1, configurations)
    on_planes = isinstance(settings.slices_per_layer, str)
    slices = first.layers * (_PLANES_PER_LAYER if on_planes else int(settings.slices_per_layer))
    each = (_PHONON_SLICE_s if configurations else _REST_SLICE_s) * points * math.log2(points)
    if configurations and not on_planes:
        each *= _EQUAL_SLICES
    if settings.precision == "double":
        each *= _DOUBLE_PRECISION
    return float(waves * (slices * each + _WAVE_POINT_s * points))


def _pattern_s(request: SimulationRequest) -> float:
    """Return the seconds in which the patterns of a request are put together by one thread."""
    pixels = request.detector.pixels
    seconds = _discs_s(request, pixels)
    if request.thermal.phonon_configurations:
        nx, ny = (min(n, _NOISE_PIXELS) for n in pixels)
        seconds += 2 * _discs_s(request, (nx, ny))
    return seconds


def _discs_s(request: SimulationRequest, pixels: tuple[int, int]) -> float:
    field, layers = request.detector.field_of_view_mrad, request.layers
    radius = request.aperture.outer_mrad
    # Bragg beams per mrad².
    density = _cell_A2(request) / (1e3 * wavelength_A(request.energy_keV)) ** 2
    discs = density * math.prod(f + 2 * radius for f in field)
    # Each pixel lies in the squares around so many of them.
    lit = density * math.prod(2 * radius + 3 * f / n for f, n in zip(field, pixels, strict=True))
    each = _DISC_PIXEL_s + layers * _DISC_PIXEL_LAYER_s
    return discs * _DISC_s + lit * math.prod(pixels) * each


def _writing_s(request: SimulationRequest) -> float:
    phonons = request.thermal.phonon_configurations
    each = _WRITE_PIXEL_s + (_DIFFUSE_PIXEL_s if phonons else 0)
    return request.layers * math.prod(request.detector.pixels) * each


def _cell_A2(request: SimulationRequest) -> float:
    return float(abs(np.linalg.det(request.material.in_plane_cell_A(request.deformation))))


def _largest_prime(number: int) -> int:
    largest, factor = 1, 2
    while number > 1:
        if number % factor:
            factor += 1
        else:
            largest, number = factor, number // factor
    return largest


def dataset(config: Configuration, split: str, threads: int) -> Cost:
    """Estimate the making of one set of examples of one semi-angle and thickness.

    Parameters
    ----------
    config
        The configuration.
    split
        ``train``, ``validation`` or ``test``.
    threads
        Cores of the job.
    """
    examples, pixels = getattr(config.dataset.examples, split), config.dataset.pixels**2
    stored = config.detector()
    averaging = _draws_of(config, split) * math.prod(stored.pixels) * _AVERAGE_PIXEL_s
    each = _EXAMPLE_s + pixels * _EXAMPLE_PIXEL_s
    making = examples * each / threads
    return Cost(
        _START_TENSORFLOW_s + _reading_stores_s(config, split) + averaging + making,
        _STORE_MB + 2e-6 * _DATASET_RATIO * examples * pixels,
        f"{1e3 * each:.2g} ms per example on one core of an Intel Xeon (benchmarks/dataset.py)",
    )


def _reading_stores_s(config: Configuration, split: str) -> float:
    """Return the seconds in which the patterns of one thickness are read, of the draws of a set."""
    pixels = config.detector().pixels
    return _draws_of(config, split) * (_READ_STORE_s + _READ_STORE_PIXEL_s * math.prod(pixels))


def _draws_of(config: Configuration, split: str) -> int:
    return _draws(config.draws).count(split)


@lru_cache(maxsize=8)
def _draws(section: DrawsSection) -> list[str]:
    return section.splits()


def discs(config: Configuration) -> Cost:
    """Estimate the classical reading of the test set of one semi-angle and thickness."""
    examples, pixels = config.dataset.examples.test, config.dataset.pixels**2
    each = _DISCS_s + pixels * math.log2(pixels) * _DISCS_PIXEL_s
    return Cost(
        _START_s + _reading_s(config, examples) + examples * each,
        2 * (_STORE_MB + 1e-6 * _PREDICTION_B * 12 * examples),
        f"{1e3 * each:.2g} ms per example on one core of an Intel Xeon (pacbed.reading.discs)",
    )


def bounds(config: Configuration) -> Cost:
    """Estimate the bounds of all semi-angles, states and thicknesses, patterns at hand."""
    samples = len(config.microscope.semiangles_mrad) * len(config.dataset.layers)
    samples *= 1 + config.bound.deformed_states
    stored = config.detector()
    each = math.prod(stored.pixels) * _BOUND_STORED_PIXEL_s
    each += config.dataset.pixels**2 * _BOUND_PIXEL_s
    return Cost(
        _START_s + samples * each,
        _STORE_MB + 2e-3 * samples * 66,
        f"{each:.2g} s per semi-angle, thickness and state on one core (pacbed.precision.bound)",
    )


def errors(config: Configuration, networks: int) -> Cost:
    """Estimate the table of errors of so many networks."""
    splits = evaluated_splits(config)
    examples = sum(getattr(config.dataset.examples, split) for split in splits)
    # Rows: of each set, parameter and dose, about 0.4 kB in both files.
    rows = networks * len(splits) * 6 * 11
    return Cost(
        _START_s + networks * (examples * _ERROR_s + len(splits) * _ERROR_FILE_s),
        _STORE_MB + 4e-4 * rows,
        f"{1e6 * _ERROR_s:.2g} µs per prediction on one core (pacbed.precision.metrics)",
    )


def network(config: Configuration, outputs: str) -> Layers:
    """Return the network of a configuration that predicts a set of parameters.

    Parameters
    ----------
    config
        The configuration.
    outputs
        Name of the set, a key of :data:`pacbed.examples.labels.OUTPUTS`.
    """
    section = config.network
    return Layers(
        config.dataset.pixels,
        len(OUTPUTS[outputs]),
        section.filters,
        section.dense,
        section.pooled_head,
    )


@lru_cache(maxsize=1)
def _card_flops() -> float:
    """Return the operations per second at which the paper's training takes the paper's time."""
    _, forward = Layers(256, 6).sizes()
    passes = (1 + _BACKWARD) * _PAPER_TRAINING + _PAPER_VALIDATION
    return _PAPER_EPOCHS * passes * forward / (3600 * _PAPER_h)


def training(config: Configuration, outputs: str, threads: int, gpus: int) -> Cost:
    """Estimate the training of one network.

    Parameters
    ----------
    config
        The configuration.
    outputs
        What it predicts, a key of :data:`pacbed.examples.labels.OUTPUTS`.
    threads
        Cores of the job.
    gpus
        Graphics cards of the job; a network takes no more than one.
    """
    weights, forward = network(config, outputs).sizes()
    section = config.training
    examples, batch = config.dataset.examples, section.examples_per_step
    train, validation = examples.train, examples.validation
    online = section.data == "online"
    steps = math.ceil(train / batch) + math.ceil(validation / batch)
    epoch = _EPOCH_s + _passes_s(
        ((1 + _BACKWARD) * train + validation) * forward, steps, threads, gpus
    )
    if online and not gpus:  # beside the network, a card makes examples in no time
        epoch += train * config.dataset.pixels**2 * _ONLINE_PIXEL_s / threads
    reading = _reading_s(config, validation)
    reading += _reading_stores_s(config, "train") if online else _reading_s(config, train)
    return Cost(
        _START_TENSORFLOW_s + _TRACE_s + reading + section.total_epochs * epoch,
        _MODEL_MB + 4e-6 * weights,
        _training_source(gpus),
    )


def prediction(config: Configuration, outputs: str, threads: int, gpus: int) -> Cost:
    """Estimate what one network takes to predict all three sets.

    Parameters
    ----------
    config, outputs, threads, gpus
        As for :func:`training`.
    """
    _, forward = network(config, outputs).sizes()
    splits = evaluated_splits(config)
    sizes = [getattr(config.dataset.examples, split) for split in splits]
    steps = sum(math.ceil(n / _PREDICTION_BATCH) for n in sizes)
    work = _passes_s(sum(sizes) * forward, steps, threads, gpus)
    start = _START_TENSORFLOW_s + len(sizes) * _TRACE_PREDICTION_s
    each_B = _PREDICTION_B + _PREDICTION_OUTPUT_B * len(OUTPUTS[outputs])
    return Cost(
        start + _reading_s(config, sum(sizes)) + work,
        len(sizes) * _STORE_MB + 1e-6 * each_B * sum(sizes),
        _training_source(gpus),
    )


def _passes_s(operations: float, steps: int, threads: int, gpus: int) -> float:
    """Return the seconds of so many floating-point operations in so many steps."""
    if gpus:
        # The processor prepares steps while the card computes.
        return max(operations / _card_flops(), steps * _STEP_s)
    return operations / (_CORE_FLOPS * threads) + steps * _STEP_s


def _reading_s(config: Configuration, examples: int) -> float:
    return float(examples * config.dataset.pixels**2 * _READ_DATASET_PIXEL_s)


def _training_source(gpus: int) -> str:
    if gpus:
        return (
            f"{_PAPER_h} h of the paper on an A100, scaled by the operations of the network "
            f"({1e-12 * _card_flops():.0f} TFLOP/s)"
        )
    return f"{1e-9 * _CORE_FLOPS:.0f} GFLOP/s per core of an Intel Xeon with AVX-512"
