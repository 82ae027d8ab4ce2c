"""What the simulations of a study take with Prismatic."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pacbed.engines.prismatic import Layout, PrismaticSettings, memory_bytes
from pacbed.engines.prismatic.specimen import probe_counts
from pacbed.engines.request import SimulationRequest
from pacbed.exceptions import RequestError
from pacbed.specimen.deformation import Deformation
from pacbed.study.model import Configuration


def conflicts(study: Configuration) -> Iterator[str]:
    """Yield what Prismatic cannot simulate: key, value, what is allowed."""
    probes = study.simulation.prismatic.probes
    try:
        for request, _ in _layouts(study):
            if probes == "auto":
                continue
            needed = probe_counts(request, PrismaticSettings(probes="auto"))
            if any(n < least for n, least in zip(probes, needed, strict=True)):
                yield (
                    f"simulation.prismatic.probes = {list(probes)}: too few at "
                    f"{request.aperture.semiangle_mrad:g} mrad, where the mean over all positions "
                    f"takes at least {list(needed)}"
                )
                return
    except RequestError as error:
        yield f"simulation.prismatic: {error}"


def memory_MB(study: Configuration, threads: int) -> int:
    """Return the memory that a simulation needs on so many threads, in MB."""
    settings = study.simulation.prismatic.settings()
    needed = (
        memory_bytes(request, settings, layout.grid, threads) for request, layout in _layouts(study)
    )
    return math.ceil(max(needed) / 1e6)


def _layouts(study: Configuration) -> Iterator[tuple[SimulationRequest, Layout]]:
    """Yield what simulations of the undeformed and the most deformed crystals come to."""
    settings = study.simulation.prismatic.settings()
    low, high = study.deformation.principal_stretch
    states = [Deformation(), *(Deformation(*s) for s in ((high, high), (high, low), (low, low)))]
    for angle in study.microscope.semiangles_mrad:
        for deformation in states:
            request = study.request(angle, deformation)
            yield request, Layout.of(request, settings)
