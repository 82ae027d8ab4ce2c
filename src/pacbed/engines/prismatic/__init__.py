"""Prismatic 2.0 as an engine: the paper's protocol, one child process per call.

:mod:`.settings` what can be chosen; :mod:`.specimen` atoms and probes; :mod:`.layout` what a
request comes to, checked; :mod:`.files` what is written for Prismatic and read from it;
:mod:`.process` its processes; :mod:`.checkpoint` what outlives them; :mod:`.engine` puts them
together.
"""

from pacbed.engines.prismatic.layout import Layout, memory_bytes, native_detector
from pacbed.engines.prismatic.settings import Execution, PrismaticSettings

__all__ = ["Execution", "Layout", "PrismaticSettings", "memory_bytes", "native_detector"]
