"""How much a pattern changes when a numerical setting of the plane-wave engine is refined."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.engines.planewave.library import Synthesis
from pacbed.engines.planewave.settings import PlaneWaveSettings
from pacbed.engines.request import Device, Progress, SimulationRequest
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


def refinements(
    request: SimulationRequest,
    settings: PlaneWaveSettings,
    threads: int = 1,
    device: Device = "cpu",
    progress: Callable[[str], Progress] | None = None,
) -> Iterator[Refinement]:
    """Double every setting of a calculation, one after another.

    Band limit, slices and incident grid are compared with the same thermal displacements in both
    calculations (for the incident grid, the same for all waves), supercell and configurations with
    others: there, a change as large as the phonon noise says nothing. Whole atoms on their planes
    (``slices_per_layer: planes``) are compared with an extrapolation, linear in the thickness, from
    8 and 16 equal slices per layer to infinitely thin ones, all at the doubled band limit.

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
    configurations = request.thermal.phonon_configurations

    def run(
        name: str, *, shared: bool = False, configurations: int = configurations, **changes: Any
    ) -> Synthesis:
        engine = PlaneWaveEngine(replace(settings, **changes), threads, device)
        thermal = replace(request.thermal, phonon_configurations=configurations)
        asked = replace(request, thermal=thermal)
        library, _ = engine.scatter([asked], progress(name) if progress else None, shared)
        return engine.synthesise(library, [asked])[0]

    def change(refined: Synthesis, before: Synthesis) -> np.ndarray:
        return relative_l1(before.patterns, refined.patterns)

    cutoff, step = settings.cutoff_per_A, settings.incident_step_mrad
    slices = settings.slices_per_layer
    # Refused here, before the first calculation, if there is no such limit.
    wider = replace(settings, slices_per_layer=1, band_limit=2 * cutoff).band_limit
    base = run("as given")
    wide = run("band limit", band_limit=wider)
    given = settings.band_limit if isinstance(settings.band_limit, str) else f"{cutoff:.3g}"
    yield Refinement("band limit (1/Å)", given, f"{2 * cutoff:.3g}", change(wide, base))

    if isinstance(slices, str):
        coarse, thin = (
            run(f"{n} slices", band_limit=wider, slices_per_layer=n).patterns.astype(float)
            for n in _THIN_SLICES
        )
        extrapolated = relative_l1(wide.patterns, 2 * thin - coarse)
        yield Refinement("slices per layer", slices, "∞", extrapolated)
    else:
        finer = change(run("slices", slices_per_layer=2 * slices), base)
        yield Refinement("slices per layer", str(slices), str(2 * slices), finer)

    same = run("incident grid, as given", shared=True) if configurations else base
    finer = change(run("incident grid", shared=True, incident_step_mrad=step / 2), same)
    yield Refinement("incident step (mrad)", f"{step:g}", f"{step / 2:g}", finer)
    if not configurations:
        return

    nx, ny = settings.supercell
    larger = run("supercell", supercell=(2 * nx, 2 * ny))
    assert base.phonon_noise is not None
    assert larger.phonon_noise is not None
    yield Refinement(
        "supercell",
        f"{nx} × {ny}",
        f"{2 * nx} × {2 * ny}",
        change(larger, base),
        np.hypot(base.phonon_noise, larger.phonon_noise),
    )
    more = run("configurations", configurations=2 * configurations)
    # The first of these are those of the base: what differs is as large as the noise of all.
    yield Refinement(
        "configurations",
        str(configurations),
        str(2 * configurations),
        change(more, base),
        more.phonon_noise,
    )
