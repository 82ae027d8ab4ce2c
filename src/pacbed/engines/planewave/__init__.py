"""Patterns from incident plane waves, each through a periodic crystal.

:mod:`.settings` what can be chosen; :mod:`.atoms` how single atoms scatter; :mod:`.waves` which
waves are propagated; :mod:`.multislice` their way through the crystal; :mod:`.library` what it does
to them, and the patterns that follow; :mod:`.diffuse` and :mod:`.sampling`
its diffuse part; :mod:`.engine` puts them together.
"""

from pacbed.engines.planewave.settings import PlaneWaveSettings, check_motion

__all__ = ["PlaneWaveSettings", "check_motion"]
