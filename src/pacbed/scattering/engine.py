"""A scattering series in the place of an engine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from pacbed.engines.request import Engine, Progress, SimulationRequest, SimulationResult
from pacbed.exceptions import RequestError
from pacbed.scattering.series import ScatteringSeries


class SeriesEngine(Engine):
    """Patterns from a scattering series.

    Parameters
    ----------
    series
        The series.
    """

    name = "series"

    def __init__(self, series: ScatteringSeries) -> None:
        self.series, self.settings = series, series.settings

    def simulate_together(
        self,
        requests: Sequence[SimulationRequest],
        progress: Progress | None = None,
        checkpoints: Sequence[Path] | None = None,
    ) -> list[SimulationResult]:
        """Put patterns together; see the base class. No checkpoint is kept."""
        return [self._simulate(request) for request in requests]

    def _simulate(self, request: SimulationRequest) -> SimulationResult:
        own = self.series.request
        if request.material != own.material:
            same = request.material.name == own.material.name
            raise RequestError(
                f"{self.series.path} is of {own.material.name}, not of "
                f"{'one with another lattice' if same else request.material.name}"
            )
        for what, asked, held in (
            ("beam energy (keV)", request.energy_keV, own.energy_keV),
            ("thermal motion", request.thermal.motion, own.motion),
        ):
            if asked != held:
                raise RequestError(f"{self.series.path} has the {what} {held}, not {asked}")
        started = time.perf_counter()
        (xx, xy), (_, yy) = request.deformation.strain
        made = self.series.pattern(
            (xx, yy, xy),
            request.tilt_mrad,
            request.aperture,
            range(1, request.layers + 1),
            request.detector,
        )
        seconds = {"seconds": round(time.perf_counter() - started, 3)}
        found = {**self.series.provenance, **made.quality(), **seconds}
        return SimulationResult(made.patterns, found)
