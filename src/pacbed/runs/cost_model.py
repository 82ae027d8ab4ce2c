"""How long simulations and trainings take, before any has run; for other jobs one number each.

Arithmetic with constants that were measured once: for a compute budget, not for a race. Prismatic
and the propagation of plane waves are those of an AMD EPYC; all else that runs on processors is
processor time of an Intel Xeon (Sapphire Rapids) that other jobs shared. Training on a graphics
card is that of the paper (Yankovich et al. 2026, 2.5). See docs/cost.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.library import cone
from pacbed.engines.planewave.sampling import sample_cones
from pacbed.engines.planewave.waves import IncidentGrid, ReciprocalGrid
from pacbed.engines.prismatic import Layout
from pacbed.engines.request import SimulationRequest
from pacbed.examples.labels import NUISANCES, OUTPUTS
from pacbed.learning.sizes import (
    COMPONENTS,
    FITTED_EPOCHS,
    LOOKS,
    binning,
    corrected_by,
    rectified_size,
)
from pacbed.scattering.request import SeriesRequest
from pacbed.specimen.crystal import slab
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import wavelength_A
from pacbed.study.draws import draw as draw_deformation
from pacbed.study.model import Configuration
from pacbed.study.sections import NetworkSection

# What `benchmark:` of a rule counts besides the work: the imports of its script, best of four, and
# a tenth for the rest; building a network too.
_START_s, _START_TENSORFLOW_s = 1.1, 6.7

# --- Prismatic: benchmarks/prismatic.py, docs/cost.md ---
# The potential of an atom: what one lock lets through at a time, and what threads share.
_ATOM_SERIAL_s, _ATOM_SHARED_s = 0.3e-3, 0.3e-3
# Of a probe, slice and grid point: with and without a prime factor above 7 in the length.
_POINT_AWKWARD_s, _POINT_FAST_s = 45e-9, 17e-9

# --- Plane waves: parts timed one by one, best of four, sizes from 32 × 48 to 400 × 432 points;
# benchmarks/engine.py sets the first number ---
# Of a wave, configuration, slice and n log2 n of the n points of a transform. Where atoms have
# definite places the transmission is at hand; with frozen phonons it costs two transforms of its
# own, or, for the diffuse scattering, a few waves share it.
_PHONON_SLICE_s, _DEFINITE_SLICE_s, _DIFFUSE_SLICE_s = 1.45e-9, 0.45e-9, 1.15e-9
# Equal slices have the potentials of many planes in each: so much more, with phonons.
_EQUAL_SLICES = 2.0
_DOUBLE_PRECISION = 1.8
# Propagators and displacements, of a wave, configuration and point.
_WAVE_POINT_s = 30e-9
# Putting patterns together: of a disc; of a pixel in a disc, and per layer of it.
_DISC_s, _DISC_PIXEL_s, _DISC_PIXEL_LAYER_s = 0.2e-3, 20e-9, 3e-9
# Of a pixel and layer: checking and writing; with phonons, the diffuse scattering too.
_WRITE_PIXEL_s, _DIFFUSE_PIXEL_s = 15e-9, 25e-9
# What single atoms do, of a crystal.
_ATOMS_s = 0.5
# The noise of discs is estimated on so many pixels per axis, in one more pattern.
_NOISE_PIXELS = 128
# Scattering series: of a strain state and layer, of its fit, of an image, of a disc and of a pixel
# of a disc in it.
_STATE_s, _FIT_s = 0.08, 0.045
_IMAGE_s, _IMAGE_DISC_s, _IMAGE_PIXEL_s = 0.04, 0.2e-3, 0.1e-6
# The same of a series, of which TensorFlow makes many at a time.
_MODEL_s, _MODEL_PIXEL_s, _MODEL_DISC_s = 2.2e-3, 0.16e-6, 0.031e-6
# Fits: of a pixel, and of a disc over it; compiling the model for each size of pixels.
_FITTED_PIXEL_s, _FITTED_DISC_s, _COMPILE_s = 2e-6, 1e-6, 25.0
_SERIES = "scattering series (docs/cost.md)"
# Draws over which a simulation of plane waves is averaged.
_SAMPLE = 8

# --- Training: train and predict with five networks of 3,000 to 35 million weights, batches of 16
# to 64, processor time ---
_CORE_FLOPS = 105e9
# What a step costs whatever its size and threads; the end of an epoch.
_STEP_s, _EPOCH_s = 10e-3, 0.06
# How much longer operations in double precision take.
_DOUBLE = 4
# Of a pixel of an example: made while a network learns, on a processor; read from a file.
_ONLINE_PIXEL_s, _READ_PIXEL_s = 45e-9, 10e-9
_BACKWARD = 2  # of the operations of a forward pass
# The paper's training: 60 hours on an NVIDIA A100.
_PAPER_h, _PAPER_EPOCHS, _PAPER_TRAINING, _PAPER_VALIDATION = 60, 4000, 128_000, 32_000

# What the numbers of a pattern are compressed to; the rest of a store; a model without its weights.
_PATTERN_RATIO, _STORE_MB, _MODEL_MB = 0.90, 0.011, 0.06

OTHER = {
    "dataset": (_START_TENSORFLOW_s, 0.026, "MB of images (benchmarks/dataset.py)"),
    "prediction": (_START_TENSORFLOW_s, 0.5, "MB of images (benchmarks/training.py)"),
    "prediction on a card": (_START_TENSORFLOW_s, 0.025, "MB of images, most of it reading"),
    "discs": (_START_s, 0.2, "MB of images (the demo)"),
    "bounds": (_START_s, 0.95, "semi-angle, thickness and state (the demo)"),
    "errors": (_START_s, 12.0, "million predictions (the demo)"),
    "map": (90.0, 0.1, "point with 128 × 128 pixels (pacbed map)"),
}
"""Other jobs: the start in seconds, core-seconds of a unit on the Xeon, and what a unit is."""


@dataclass(frozen=True)
class Cost:
    """What a job is expected to take and to write."""

    seconds: float  # wall-clock time on its threads and graphics card, start-up included
    output_MB: float  # size of its output files, 1e6 bytes
    source: str  # where the numbers come from, one short line


@lru_cache(maxsize=1024)
def simulation(
    config: Configuration, semiangles_mrad: tuple[float, ...], threads: int, draws: int = 1
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
    section = config.simulation
    if section.engine == "planewave":
        each = _planewave_s(config, semiangles_mrad, threads)
        constants = (_PHONON_SLICE_s, _DEFINITE_SLICE_s, _DIFFUSE_SLICE_s)
        source = (
            f"plane-wave engine: {1e9 * min(constants):.2g} to {1e9 * max(constants):.2g} ns × "
            "n log2 n per wave and slice of n points, one core (benchmarks/engine.py)"
        )
    else:
        each = _prismatic_s(config, semiangles_mrad, threads)
        source = "Prismatic: arithmetic of docs/cost.md; the paper reports 2.2 times as much"
    if config.execution.device == "gpu":
        source += "; on a graphics card not known: figure of processors"
    pixels = math.prod(config.detector().pixels)
    store_MB = _STORE_MB + 4e-6 * _PATTERN_RATIO * section.layers * pixels
    return Cost(_START_s + draws * each, draws * len(semiangles_mrad) * store_MB, source)


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
        fast = all(pow(2 * 3 * 5 * 7, 64, n) == 0 for n in layout.grid.points)
        points = math.prod(layout.grid.points) * request.layers * settings.slices_per_layer
        waves = layout.total * points * (_POINT_FAST_s if fast else _POINT_AWKWARD_s)
        seconds += len(layout.shares) * potential + waves / threads
    return seconds


def _planewave_s(config: Configuration, angles: Sequence[float], threads: int) -> float:
    """Return the seconds of a draw, all semi-angles together: the mean of the first draws."""
    ranges, settings = config.deformation.draw_ranges(), config.simulation.planewave.settings()
    total = 0.0
    for index in range(_SAMPLE):
        drawn = [
            draw_deformation(config.seed, angle, index, ranges, len(angles) > 1) for angle in angles
        ]
        requests = [config.request(d.semiangle_mrad, d.deformation, d.tilt_mrad) for d in drawn]
        patterns = [_pattern_s(request) for request in requests]
        # A thread for each semi-angle: none ends before its longest, nor before its share.
        total += max(sum(patterns) / threads, *patterns) + sum(map(_writing_s, requests))
        total += _waves_s(requests, settings) / threads
    return total / _SAMPLE


def _waves_s(requests: Sequence[SimulationRequest], settings: PlaneWaveSettings) -> float:
    """Return the core-seconds of all incident waves of one crystal."""
    first = requests[0]
    cones = [cone(r.aperture, r.tilt_mrad) for r in requests]
    numbers = settings.numbers(
        first.energy_keV,
        first.material.thickness_A(first.layers),
        first.material.period_A,
        first.detector.reach_mrad + max(abs(t) for r in requests for t in r.tilt_mrad),
    )
    incident = IncidentGrid.over(cones, numbers.incident_step_mrad)
    configurations = first.thermal.configurations
    # (waves, cells of the crystal, seconds of a slice)
    if configurations:
        waves = int(np.count_nonzero(incident.covered)) * configurations
        parts = [(waves, settings.supercell, _PHONON_SLICE_s)]
    else:
        parts = [(incident.covered.size, (1, 1), _DEFINITE_SLICE_s)]
    if first.thermal.motion == "full":
        sampled = len(sample_cones(cones, settings.diffuse_waves))
        parts.append((sampled, settings.supercell, _DIFFUSE_SLICE_s))
    on_planes = isinstance(settings.slices_per_layer, str)
    per_layer = first.material.planes_per_layer if on_planes else int(settings.slices_per_layer)
    slices = first.layers * per_layer
    # The place and strain of the band matter little.
    band, cell = numbers.band((0.0, 0.0)), first.material.in_plane_cell_A(first.deformation)
    seconds = _ATOMS_s
    for waves, cells, each in parts:
        edges = cell * np.array(cells)[:, None]
        ratios = numbers.grid_ratios(exact=cells == (1, 1))
        points = math.prod(ReciprocalGrid.for_band(edges, band, *ratios, cells).fft_shape)
        each *= _EQUAL_SLICES if configurations and not on_planes else 1
        seconds += waves * points * (slices * each * math.log2(points) + _WAVE_POINT_s)
    return seconds * (_DOUBLE_PRECISION if settings.precision == "double" else 1)


def _pattern_s(request: SimulationRequest) -> float:
    """Return the seconds in which the patterns of a request are put together by one thread."""
    pixels = request.detector.pixels
    seconds = _discs_s(request, pixels)
    if request.thermal.configurations:
        nx, ny = (min(n, _NOISE_PIXELS) for n in pixels)
        seconds += _discs_s(request, (nx, ny))
    return seconds


def _writing_s(request: SimulationRequest) -> float:
    each = _WRITE_PIXEL_s + (_DIFFUSE_PIXEL_s if _is_noisy(request) else 0)
    return request.layers * math.prod(request.detector.pixels) * each


def _is_noisy(request: SimulationRequest) -> bool:
    return request.thermal.motion not in ("coherent", "none")


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


def _cell_A2(request: SimulationRequest) -> float:
    return float(abs(np.linalg.det(request.material.in_plane_cell_A(request.deformation))))


def scattering(config: Configuration, threads: int, states: int = 1) -> Cost:
    """Estimate the simulation of some strain states of a scattering series, one after another."""
    series = config.series()
    settings = config.for_bound().simulation.planewave.settings()
    seconds = _START_s + states * _state_s(series, settings, threads)
    return Cost(seconds, states * 2.6 * series.layers, _SERIES)


def _state_s(request: SeriesRequest, settings: PlaneWaveSettings, threads: int) -> float:
    return _waves_s(request.requests(0), settings) / threads + _STATE_s * request.layers


def whole_series_s(request: SeriesRequest, settings: PlaneWaveSettings, threads: int) -> float:
    """Return the seconds in which the states and the polynomials of a series are computed."""
    each = _state_s(request, settings, threads) + _FIT_s * request.layers
    return request.states * each


def series(config: Configuration) -> Cost:
    """Estimate the polynomials of a scattering series."""
    asked = config.series()
    seconds = _FIT_s * asked.states * asked.layers
    return Cost(_START_s + seconds, 40.0 * asked.layers, _SERIES)


@lru_cache(maxsize=1024)
def scattering_of_draw(
    config: Configuration, semiangles_mrad: tuple[float, ...], threads: int, draws: int = 1
) -> Cost:
    """Estimate the strain states of some draws for some semi-angles, like the first draws."""
    settings = config.simulation.planewave.settings_of_draws()
    states = [config.state_of_draw(index, semiangles_mrad) for index in range(_SAMPLE)]
    waves = sum(_waves_s(one.simulations, settings) for one in states) / (_SAMPLE * threads)
    layers = len(states[0].kept)
    seconds = _START_s + draws * (waves + _STATE_s * layers)
    return Cost(seconds, draws * 2.6 * layers, _SERIES)


def pool(config: Configuration, semiangle_mrad: float, images: int) -> Cost:
    """Estimate a pool of so many images of a series, of one semi-angle and thickness."""
    pixels = config.dataset.pixels**2
    overlapping = _discs_per_mrad2(config) * math.pi * semiangle_mrad**2
    each = _MODEL_s + pixels * (_MODEL_PIXEL_s + overlapping * _MODEL_DISC_s)
    return Cost(_START_TENSORFLOW_s + images * each, _pool_MB(config, images), _SERIES)


def pool_of_draws(config: Configuration, semiangle_mrad: float, images: int) -> Cost:
    """Estimate so many images of the states of draws, of one semi-angle."""
    section, density = config.dataset, _discs_per_mrad2(config)
    discs = density * (section.field_of_view_mrad + 2 * semiangle_mrad) ** 2
    overlapping = density * math.pi * semiangle_mrad**2
    each = _IMAGE_s + discs * _IMAGE_DISC_s + overlapping * section.pixels**2 * _IMAGE_PIXEL_s
    return Cost(_START_s + images * each, _pool_MB(config, images), _SERIES)


def _pool_MB(config: Configuration, images: int) -> float:
    return 2e-6 * 0.9 * config.dataset.pixels**2 * images


def _discs_per_mrad2(config: Configuration) -> float:
    request = config.for_bound().request(config.microscope.semiangles_mrad[0], Deformation())
    return _cell_A2(request) / (1e3 * wavelength_A(request.energy_keV)) ** 2


def fits(config: Configuration, semiangle_mrad: float, patterns: int) -> Cost:
    """Estimate two fits of so many patterns each, begun with a network and with a search."""
    pixels = config.dataset.pixels**2
    overlapping = _discs_per_mrad2(config) * math.pi * semiangle_mrad**2
    # A search takes as long as a fit.
    each = 3 * pixels * (_FITTED_PIXEL_s + overlapping * _FITTED_DISC_s)
    start = _START_TENSORFLOW_s + _COMPILE_s
    return Cost(start + patterns * each, 2 * 150e-6 * patterns, _SERIES)


def network_size(
    network: NetworkSection, pixels: int, outputs: int, by_steps: bool = False
) -> tuple[int, float]:
    """Return the number of weights, and of floating-point operations of a forward pass.

    Of convolutions and dense layers of :func:`pacbed.learning.network.build_network`; a
    multiplication and an addition are two operations. With `by_steps`, only of the part that
    steps of the optimizer train.
    """
    weights, products, channels = 0, 0, 1
    fine = rectified_size(pixels) ** 2
    pixels //= binning(pixels, network.kind)
    for width in network.filters:
        for _ in range(2):
            weights += (9 * channels + 1) * width
            products += 9 * channels * width * pixels**2
            channels = width
        pixels //= 2
    features = channels * (network.pooled_head or pixels) ** 2
    if network.kind == "paper":
        chains = [(features, (*network.dense, outputs))]
    else:
        told = outputs + len(NUISANCES)
        looks = LOOKS * [(fine, (COMPONENTS,)), (corrected_by(told), (told,))]
        chains = [(features, (*network.dense, told)), *([] if by_steps else looks)]
    for features, widths in chains:
        for width in widths:
            weights += (features + 1) * width
            products += features * width
            features = width
    return weights, 2.0 * products


@lru_cache(maxsize=1)
def _card_flops() -> float:
    """Return the operations per second at which the paper's training takes the paper's time."""
    _, forward = network_size(NetworkSection(), 256, 6)
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
    section, pixels = config.training, config.dataset.pixels**2
    size = config.network, config.dataset.pixels, len(OUTPUTS[outputs])
    weights, _ = network_size(*size)
    _, forward = network_size(*size, by_steps=True)
    train, validation = config.dataset.examples.train, config.dataset.examples.validation
    steps = sum(math.ceil(n / section.examples_per_step) for n in (train, validation))
    operations = ((1 + _BACKWARD) * train + validation) * forward
    if gpus:
        # The processor prepares steps while the card computes.
        epoch = _EPOCH_s + max(operations / _card_flops(), steps * _STEP_s)
        source = (
            f"{_PAPER_h} h of the paper on an A100, scaled by the operations of the network "
            f"({1e-12 * _card_flops():.0f} TFLOP/s)"
        )
    else:
        epoch = _EPOCH_s + operations / (_CORE_FLOPS * threads) + steps * _STEP_s
        source = f"{1e-9 * _CORE_FLOPS:.0f} GFLOP/s per core of an Intel Xeon with AVX-512"
    read = train + validation
    if section.data == "online":
        read = validation  # the patterns of the others are few
        if not gpus:  # a card makes examples in no time while its network learns
            epoch += train * pixels * _ONLINE_PIXEL_s / threads
    start = _START_TENSORFLOW_s + read * pixels * _READ_PIXEL_s
    seconds = start + section.total_epochs * epoch + _after_steps_s(config, outputs, threads, gpus)
    return Cost(seconds, _MODEL_MB + 4e-6 * weights, source)


def _after_steps_s(config: Configuration, outputs: str, threads: int, gpus: int) -> float:
    """Return the time of what is not trained by the steps: corrections, and the uncertainty."""
    section, network, pixels = config.training, config.network, config.dataset.pixels
    online, looks = section.data == "online", LOOKS * (network.kind == "coarse-to-fine")
    examples = (FITTED_EPOCHS if online else 1) * config.dataset.examples.train
    _, forward = network_size(network, pixels, len(OUTPUTS[outputs]))
    seen_s = forward / (_card_flops() if gpus else _CORE_FLOPS * threads)
    seen_s += _STEP_s / section.examples_per_step
    if online and not gpus:
        seen_s += pixels**2 * _ONLINE_PIXEL_s / threads
    # Normal equations, on one core.
    sums = 2 * corrected_by(len(OUTPUTS[outputs]) + len(NUISANCES)) ** 2
    sums_s = _DOUBLE * sums / _CORE_FLOPS
    return examples * (looks * (seen_s + sums_s) + network.uncertainty * seen_s)


def other(kind: str, units: float, threads: int = 1, output_MB: float = 0.0) -> Cost:
    """Estimate a job of another kind, a key of :data:`OTHER`, by the number of its units."""
    start_s, each_s, unit = OTHER[kind]
    source = f"{each_s:.2g} core-seconds per {unit}"
    return Cost(start_s + units * each_s / threads, _STORE_MB + output_MB, source)
