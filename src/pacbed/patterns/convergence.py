"""How much a pattern changes when a numerical setting of the plane-wave engine is refined."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.engines.planewave.library import Synthesis
from pacbed.engines.planewave.settings import PlaneWaveSettings
from pacbed.engines.request import (
    Device,
    Motion,
    Progress,
    SimulationRequest,
    ThermalMotion,
)
from pacbed.patterns.difference import relative_l1

# Equal slices from whose patterns that of infinitely thin ones is extrapolated.
_THIN_SLICES = (8, 16)


@dataclass(frozen=True)
class Refinement:
    """What refining one setting changes.

    Parameters
    ----------
    setting
        Name of the setting.
    before, after
        Its value and the refined one.
    change
        Relative L1 change of the pattern, per layer.
    noise
        Per layer, what the phonon noise alone would make of it; None where both patterns have the
        same thermal displacements.
    """

    setting: str
    before: str
    after: str
    change: np.ndarray
    noise: np.ndarray | None = None


@dataclass(frozen=True)
class Run:
    """A pattern and how it came about."""

    made: Synthesis
    provenance: Mapping[str, Any]


def refinements(
    request: SimulationRequest,
    settings: PlaneWaveSettings,
    threads: int = 1,
    device: Device = "cpu",
    progress: Callable[[str], Progress] | None = None,
) -> Iterator[Refinement]:
    """Refine every setting of a calculation, one after another.

    Band limit and incident grid are compared with the same thermal displacements in both
    calculations (for the incident grid, the same for all waves), what describes the diffuse
    scattering and configurations with others: there, a change as large as the phonon noise says
    nothing. Whole atoms on their planes (``slices_per_layer: planes``), static ones, are compared
    with an extrapolation, linear in the thickness, from 8 and 16 equal slices per layer to
    infinitely thin ones, all at the doubled band limit.

    Parameters
    ----------
    request
        What is simulated.
    settings
        Settings to refine.
    threads, device
        As for the engine.
    progress
        Makes, from the name of a calculation, a function to be called with the number of waves
        done and their total.

    Yields
    ------
    Refinement
        As soon as it is known.
    """
    asked_motion = request.thermal.motion

    def run(
        name: str, *, shared: bool = False, motion: Motion = asked_motion, **changes: Any
    ) -> Run:
        engine = PlaneWaveEngine(replace(settings, **changes), threads, device)
        asked = replace(request, thermal=ThermalMotion(motion))
        library, provenance = engine.scatter([asked], progress(name) if progress else None, shared)
        return Run(engine.synthesise(library, [asked])[0], provenance)

    def change(refined: Run, before: Run) -> np.ndarray:
        return relative_l1(before.made.patterns, refined.made.patterns)

    base = run("as given")
    cutoff, step = (base.provenance[name] for name in ("cutoff_per_A", "incident_step_mrad"))
    slices = settings.slices_per_layer
    # A number, even where the band limit as given is that of Prismatic.
    wider = replace(settings, slices_per_layer=1, band_limit=2 * cutoff).band_limit
    yield Refinement(
        "band limit (1/Å)",
        f"{cutoff:.3g}",
        f"{2 * cutoff:.3g}",
        change(run("band limit", band_limit=wider), base),
    )

    if isinstance(slices, str):
        on_planes = run("planes", band_limit=wider, motion="none")
        coarse, thin = (
            run(f"{n} slices", band_limit=wider, slices_per_layer=n, motion="none")
            for n in _THIN_SLICES
        )
        limit = 2 * thin.made.patterns.astype(float) - coarse.made.patterns
        yield Refinement(
            "slices per layer", slices, "∞", relative_l1(on_planes.made.patterns, limit)
        )
    else:
        finer = change(run("slices", slices_per_layer=2 * slices), base)
        yield Refinement("slices per layer", str(slices), str(2 * slices), finer)

    configurations = request.thermal.configurations
    same = run("incident grid, as given", shared=True) if configurations else base
    finer = change(run("incident grid", shared=True, incident_step_mrad=step / 2), same)
    yield Refinement("incident step (mrad)", f"{step:g}", f"{step / 2:g}", finer)
    noise = base.made.phonon_noise
    if noise is None:
        return

    def both(other: Run) -> np.ndarray:
        return np.hypot(noise, np.asarray(other.made.phonon_noise))

    nx, ny = settings.supercell
    larger = run("supercell", supercell=(2 * nx, 2 * ny))
    yield Refinement(
        "supercell",
        f"{nx} × {ny}",
        f"{2 * nx} × {2 * ny}",
        change(larger, base),
        both(larger),
    )
    knots = settings.diffuse_knots_mrad
    closer = run("knots", diffuse_knots_mrad=tuple(k / 2 for k in knots))
    yield Refinement(
        "knots of diffuse scattering (mrad)",
        " and ".join(f"{k:g}" for k in knots),
        " and ".join(f"{k / 2:g}" for k in knots),
        change(closer, base),
        # Closer knots smooth less of it.
        closer.made.phonon_noise,
    )
    if configurations:
        more = run("configurations", motion=2 * configurations)
        # The first of these are those of the base: what differs is as large as the noise of all.
        name, number, apart = "configurations", configurations, more.made.phonon_noise
    else:
        more = run("waves", diffuse_waves=2 * settings.diffuse_waves)
        name, number = "waves of diffuse scattering", settings.diffuse_waves
        apart = both(more)
    yield Refinement(name, str(number), str(2 * number), change(more, base), apart)
