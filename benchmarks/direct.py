"""Strain states simulated by themselves, from which others than the series are judged.

With a finer grid of incident waves, more diffuse waves and other thermal displacements than a
scattering series. And what benchmarks that print tables have in common.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from pacbed.engines import SimulationRequest, ThermalMotion
from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.scattering.request import StateRequest
from pacbed.scattering.series import ScatteringSeries
from pacbed.scattering.state import ScatteredState, write_scattered
from pacbed.specimen.deformation import DrawRanges
from pacbed.specimen.microscope import Aperture, Detector
from pacbed.study.draws import draw

SEED = 91
STRETCH, TILT_mrad = (0.97, 1.03), 5.0
ROTATION_deg, SCALE, SHIFT_px = 10.0, 0.03, 2.0
"""Largest rotation, relative change of the field and shift at which 256 pixels see a state."""
FIELD_mrad = 100.0
REACH_mrad = 1.27 * FIELD_mrad  # full width in which such images lie
DIRECT = PlaneWaveSettings(incident_step_mrad=1.25, diffuse_waves=260)


def direct_states(
    folder: Path,
    series: ScatteringSeries,
    angles: Sequence[float],
    layers: Sequence[int],
    count: int,
    *,
    stretch: tuple[float, float] = STRETCH,
    field_of_view_mrad: float = REACH_mrad,
    thickest: int | None = None,
) -> list[ScatteredState]:
    """Return strain states of a folder, and simulate those that are not there.

    They have principal stretches within `stretch`, are known in a square `field_of_view_mrad`
    wide, and have `thickest` layers (by default those of the series), of which `layers` are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{n:03d}.zarr.zip" for n in range(count)]
    for number, file in enumerate(track(files, "strain states", console=Console(stderr=True))):
        if not file.exists():
            simulate(file, series, angles, layers, number, stretch, field_of_view_mrad, thickest)
    return [ScatteredState(file) for file in files]


def simulate(
    path: Path,
    series: ScatteringSeries,
    angles: Sequence[float],
    layers: Sequence[int],
    index: int,
    stretch: tuple[float, float],
    field_of_view_mrad: float,
    thickest: int | None,
) -> Path:
    """Simulate a strain state by itself."""
    own = series.request
    ranges = DrawRanges(stretch, (0, 180), (-TILT_mrad, TILT_mrad))
    drawn = [draw(SEED, angle, index, ranges, True) for angle in angles]
    requests = tuple(
        SimulationRequest(
            own.material,
            one.deformation,
            one.tilt_mrad,
            thickest or own.layers,
            own.energy_keV,
            Aperture(angle),
            Detector((field_of_view_mrad,) * 2, (64, 64)),
            ThermalMotion(own.motion),
            SEED + index,
        )
        for angle, one in zip(angles, drawn, strict=True)
    )
    state = StateRequest(requests, tuple(layers), own.strain.stretch[1])
    write_scattered(path, state, PlaneWaveEngine(DIRECT), draw=index)
    return path


def core_seconds(work: Callable[[], Any]) -> float:
    """Return the time of all cores that something takes."""
    started = time.process_time()
    work()
    return time.process_time() - started


def titled(title: str, *columns: str) -> Table:
    """Make a table of numbers."""
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="right")
    return table
