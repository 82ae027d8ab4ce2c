"""Engines: the only place that knows how a pattern is computed.

An engine is chosen by its name, and imported only then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pacbed.engines.request import (
    Device,
    Engine,
    SimulationRequest,
    SimulationResult,
    ThermalMotion,
)
from pacbed.exceptions import RequestError

__all__ = ["Engine", "SimulationRequest", "SimulationResult", "ThermalMotion", "engine"]


def engine(
    name: str,
    settings: Mapping[str, Any],
    threads: int = 1,
    device: Device = "cpu",
    execution: Mapping[str, Any] | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> Engine:
    """Return an engine by name.

    Parameters
    ----------
    name
        ``planewave`` or ``prismatic``.
    settings
        Keyword arguments of the engine's settings.
    threads
        Number of threads that it may use; results do not depend on it.
    device
        ``cpu`` or ``gpu``.
    execution
        Keyword arguments of :class:`~pacbed.engines.prismatic.engine.Execution`: how a program
        outside is run.
    log
        Called with every line that a program outside prints.

    Raises
    ------
    RequestError
        If there is no such engine, or it cannot use the device.
    """
    if name == "planewave":
        from pacbed.engines.planewave.engine import PlaneWaveEngine
        from pacbed.engines.planewave.settings import PlaneWaveSettings

        return PlaneWaveEngine(PlaneWaveSettings(**settings), threads=threads, device=device)
    if name == "prismatic":
        from pacbed.engines.prismatic import Execution
        from pacbed.engines.prismatic.engine import PrismaticEngine
        from pacbed.engines.prismatic.settings import PrismaticSettings

        return PrismaticEngine(
            PrismaticSettings(**settings), threads, device, Execution(**(execution or {})), log
        )
    raise RequestError(f"unknown engine '{name}': known are planewave and prismatic")
