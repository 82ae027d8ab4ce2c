"""A scattering series in the place of an engine."""

from __future__ import annotations

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
        for what, asked, held in (
            ("material", request.material, own.material),
            ("energy_keV", request.energy_keV, own.energy_keV),
            ("thermal motion", request.thermal.motion, own.motion),
        ):
            if asked != held:
                raise RequestError(f"{self.series.path} has the {what} {held}, not {asked}")
        (xx, xy), (_, yy) = request.deformation.strain
        made = self.series.pattern(
            (xx, yy, xy),
            request.tilt_mrad,
            request.aperture,
            range(1, request.layers + 1),
            request.detector,
        )
        return SimulationResult(made.patterns, {**self.series.provenance, **made.quality()})
