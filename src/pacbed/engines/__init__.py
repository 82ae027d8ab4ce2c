"""Engines: the only place that knows how a pattern is computed.

An engine is chosen by its settings, and imported only then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pacbed.engines.request import (
    Device,
    Engine,
    Motion,
    SimulationRequest,
    SimulationResult,
    ThermalMotion,
)

if TYPE_CHECKING:
    from pacbed.engines.planewave import PlaneWaveSettings
    from pacbed.engines.prismatic import Execution, PrismaticSettings

__all__ = ["Engine", "Motion", "SimulationRequest", "SimulationResult", "ThermalMotion", "engine"]


def engine(
    settings: PlaneWaveSettings | PrismaticSettings,
    threads: int = 1,
    device: Device = "cpu",
    execution: Execution | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> Engine:
    """Return the engine that some settings are of.

    Parameters
    ----------
    settings
        Numerical settings.
    threads
        Number of threads that it may use; results do not depend on it.
    device
        ``cpu`` or ``gpu``.
    execution
        How Prismatic is run.
    log
        Called with every line that Prismatic prints.

    Raises
    ------
    RequestError
        If it cannot use the device.

    Examples
    --------
    The pattern of strained graphene, as a fraction of the incident electrons.

    >>> from pacbed.engines.planewave import PlaneWaveSettings
    >>> from pacbed.specimen.deformation import Deformation
    >>> from pacbed.specimen.microscope import Aperture, Detector
    >>> from pacbed.specimen.polytypes import crystal
    >>> request = SimulationRequest(
    ...     crystal("graphene"),
    ...     Deformation(1.02, 0.99, 30),
    ...     tilt_mrad=(1.0, 0.0),
    ...     layers=1,
    ...     energy_keV=80,
    ...     aperture=Aperture(6.35),
    ...     detector=Detector((100, 100), (32, 32)),
    ...     thermal=ThermalMotion("coherent"),
    ... )
    >>> result = engine(PlaneWaveSettings(incident_step_mrad=3)).simulate(request)
    >>> result.patterns.shape, round(float(result.patterns.sum()), 3)
    ((1, 32, 32), 0.996)
    """
    from pacbed.engines.planewave import PlaneWaveSettings

    if isinstance(settings, PlaneWaveSettings):
        from pacbed.engines.planewave.engine import PlaneWaveEngine

        return PlaneWaveEngine(settings, threads, device)
    from pacbed.engines.prismatic.engine import PrismaticEngine

    return PrismaticEngine(settings, threads, device, execution, log)
