"""``pacbed scatter``: a scattering series, from which patterns of any strain follow."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from pacbed.cli.common import Count, Flat, Overlays, progress, stderr
from pacbed.cli.simulate import PLANE_WAVES, Computation, Motion, PlaneWaveOptions
from pacbed.specimen.crystal import material as known_material


def scatter(
    *,
    output: Path,
    config: Overlays = (),
    material: Annotated[str | None, Parameter(show_default="of the configuration")] = None,
    energy: float | None = None,
    layers: Count | None = None,
    stretch: tuple[float, float] | None = None,
    semiangle: float | None = None,
    tilt: float | None = None,
    fov: float | None = None,
    states: Count = 50,
    degree: Count = 3,
    motion: Flat[Motion] = Motion(),
    computation: Flat[Computation] = Computation(),
    plane_wave: Annotated[PlaneWaveOptions, PLANE_WAVES] = PlaneWaveOptions(),
) -> None:
    """Make a scattering series, from which patterns of any strain follow.

    Some strain states are simulated; polynomials through them replace simulations of all
    others. `simulate --series` makes patterns of any strain, tilt, semi-angle and thickness within
    its ranges, and `design --series` bounds. What is not given is as in the configuration. If it is
    stopped, the same command continues.

    Parameters
    ----------
    output
        File of the series, such as mos2.series.zarr.zip.
    material
        MoS2, MoSe2, WS2, WSe2 or MoTe2.
    energy
        Beam energy in keV.
    layers
        Largest number of layers.
    stretch
        Smallest and largest principal stretch.
    semiangle
        Largest convergence semi-angle in mrad.
    tilt
        Largest sample tilt, in any direction, in mrad.
    fov
        Full width of the field in which patterns are known, in mrad.
    states
        Number of strain states.
    degree
        Degree of the polynomials of the discs.
    """
    from pacbed.engines.planewave.engine import PlaneWaveEngine
    from pacbed.scattering import fit
    from pacbed.scattering.series import ScatteringSeries
    from pacbed.scattering.strain import StrainRange
    from pacbed.study.configuration import load

    given: dict[str, Any] = {
        "material": material and known_material(material),
        "energy_keV": energy,
        "layers": layers,
        "strain": stretch and StrainRange(stretch),
        "semiangle_mrad": semiangle,
        "tilt_mrad": tilt,
        "field_of_view_mrad": fov,
    }
    request = replace(
        load(config).series(),
        states=states,
        degree=degree,
        motion=motion.thermal().motion,
        seed=computation.seed,
        **{name: value for name, value in given.items() if value is not None},
    )
    settings = plane_wave.settings(computation.slices)
    engine = PlaneWaveEngine(settings, computation.threads, computation.device)
    folder = output.with_name(f".{output.name}.states")
    paths = [folder / f"{number:04d}.zarr.zip" for number in range(states)]
    with progress(stderr()) as start:
        report = start("strain states")
        for number, path in enumerate(paths):
            report(number, states)
            if not fit.holds_state(path, request, number, settings):
                fit.write_state(path, request, number, engine)
        report(states, states)
        fit.assemble(output, paths)
    shutil.rmtree(folder, ignore_errors=True)
    errors = ScatteringSeries(output).leave_out_error.mean(axis=1)
    print(
        f"{output}: {request.layers} layers from {states} strain states, "
        f"{output.stat().st_size / 1e6:.2g} MB; beams of a state left out differ by "
        f"{100 * errors[0]:.2g} % (1 layer) to {100 * errors[-1]:.2g} % ({request.layers} layers)"
    )
