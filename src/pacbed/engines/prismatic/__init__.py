"""Prismatic 2.0 as an engine: the paper's protocol, one child process per call.

:mod:`.settings` what can be chosen; :mod:`.specimen` atoms and probes; :mod:`.plan` what a request
comes to, checked; :mod:`.files` what is written for Prismatic and read from it; :mod:`.process` its
processes; :mod:`.checkpoint` what outlives them; :mod:`.engine` puts them together.
"""

from pacbed.engines.prismatic.engine import Execution, PrismaticEngine
from pacbed.engines.prismatic.plan import Plan, memory_bytes, native_detector
from pacbed.engines.prismatic.settings import PrismaticSettings

__all__ = [
    "Execution",
    "Plan",
    "PrismaticEngine",
    "PrismaticSettings",
    "memory_bytes",
    "native_detector",
]
