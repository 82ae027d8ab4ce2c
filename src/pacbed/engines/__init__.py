"""Engines: the only place that knows how a pattern is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pacbed.engines.arrays import Device
from pacbed.engines.request import Engine, SimulationRequest, SimulationResult, ThermalMotion
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
        Keyword arguments of :class:`~pacbed.engines.prismatic.Execution`, how a program outside is
        run.
    log
        Called with every line that a program outside prints.

    Raises
    ------
    RequestError
        If there is no such engine, or it cannot use the device.
    """
    if name == "planewave":
        from pacbed.engines.planewave.engine import PlaneWaveEngine, PlaneWaveSettings

        return PlaneWaveEngine(PlaneWaveSettings(**settings), threads=threads, device=device)
    if name == "prismatic":
        from pacbed.engines.prismatic import Execution, PrismaticEngine, PrismaticSettings

        return PrismaticEngine(
            PrismaticSettings(**settings), threads, device, Execution(**(execution or {})), log
        )
    raise RequestError(f"unknown engine '{name}': known are planewave and prismatic")
