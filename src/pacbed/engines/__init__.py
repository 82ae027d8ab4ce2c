"""Engines: the only place that knows how a pattern is computed."""

from pacbed.engines.base import (
    Engine,
    SimulationRequest,
    SimulationResult,
    ThermalMotion,
    engine,
)

__all__ = ["Engine", "SimulationRequest", "SimulationResult", "ThermalMotion", "engine"]
