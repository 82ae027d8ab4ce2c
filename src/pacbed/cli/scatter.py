"""``pacbed scatter``: a scattering series, from which patterns of any strain follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from pacbed.cli.common import Count, Flat, Overlays, progress, say, spent, stderr
from pacbed.cli.simulate import PLANE_WAVES, Computation, Motion, PlaneWaveOptions
from pacbed.cli.structures import Structure
from pacbed.exceptions import PacbedError, StoreError

if TYPE_CHECKING:
    from pacbed.engines.planewave import PlaneWaveSettings
    from pacbed.scattering.request import SeriesRequest
    from pacbed.specimen.crystal import Crystal

# A wider field would cost more than its few electrons tell.
WIDEST_FIELD_mrad = 134.0


def scatter(
    *,
    output: Path,
    config: Overlays = (),
    structure: Flat[Structure] = Structure(),
    energy: float | None = None,
    layers: Count | None = None,
    stretch: tuple[float, float] | None = None,
    semiangle: float | None = None,
    tilt: float | None = None,
    fov: float | None = None,
    states: Annotated[Count | None, Parameter(show_default="of the configuration, or 50")] = None,
    degree: Annotated[
        Count | None, Parameter(show_default="what the states allow, up to 3")
    ] = None,
    motion: Flat[Motion] = Motion(),
    computation: Flat[Computation] = Computation(),
    plane_wave: Annotated[PlaneWaveOptions, PLANE_WAVES] = PlaneWaveOptions(),
) -> None:
    """Make a scattering series, from which patterns of any strain follow.

    Some strain states are simulated; polynomials through them replace simulations of all
    others. `simulate --series` makes patterns of any strain, tilt, semi-angle and thickness within
    its ranges, and `design --series` bounds.

    The configuration gives the crystal, the beam energy, the ranges (layers, stretch, semi-angle,
    tilt, field of view), the number of states, the thermal motion and the seed, each unless an
    option gives it. The numerical settings come from the options alone. If the command is stopped,
    the same command continues. A series that is there already is not made again, and another file
    is not replaced.

    Parameters
    ----------
    output
        File of the series, such as mos2.series.zarr.zip.
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
    from pacbed.scattering.strain import StrainRange
    from pacbed.study.configuration import load

    crystal = structure.crystal() if structure.section() else None
    given: dict[str, Any] = {
        "material": crystal,
        "energy_keV": energy,
        "layers": layers or (crystal and crystal.most_layers),
        "strain": stretch and StrainRange(stretch),
        "semiangle_mrad": semiangle,
        "tilt_mrad": tilt,
        "field_of_view_mrad": fov,
        "states": states,
        "degree": degree,
        "motion": None if motion == Motion() else motion.thermal().motion,
        "seed": computation.seed,
    }
    known = {name: value for name, value in given.items() if value is not None}
    request = load(config).series(**known)
    made = make_series(output, request, plane_wave, computation)
    print(f"{output}{':' if made else ' is this series already:'} {_described(output)}")


def series_request(
    crystal: Crystal,
    energy_keV: float,
    layers: Sequence[int],
    stretch: tuple[float, float],
    semiangle_mrad: float,
    tilt_mrad: float,
    field_of_view_mrad: float,
    states: int,
) -> SeriesRequest:
    """Return the series that reads patterns of such a field; a part of a very wide one is enough.

    Parameters
    ----------
    crystal, energy_keV
        Of the patterns.
    layers
        Numbers of layers that there may be.
    stretch
        Smallest and largest principal stretch.
    semiangle_mrad, tilt_mrad
        Largest ones.
    field_of_view_mrad
        Width of the patterns.
    states
        Number of strain states.
    """
    from pacbed.scattering.request import SeriesRequest, degree_for
    from pacbed.scattering.strain import StrainRange

    return SeriesRequest(
        material=crystal,
        energy_keV=energy_keV,
        layers=max(layers),
        strain=StrainRange(stretch),
        semiangle_mrad=semiangle_mrad,
        tilt_mrad=tilt_mrad,
        field_of_view_mrad=max(2.1 * semiangle_mrad, min(field_of_view_mrad, WIDEST_FIELD_mrad)),
        states=states,
        degree=degree_for(states),
    )


def make_series(
    output: Path,
    request: SeriesRequest,
    plane_wave: PlaneWaveOptions,
    computation: Computation,
    option: str = "--output",
) -> bool:
    """Make a series, unless it is there already, and return whether it was made.

    Raises
    ------
    PacbedError
        If the file is there and holds something else; `option` names it.
    """
    from pacbed.engines.planewave.engine import PlaneWaveEngine
    from pacbed.runs.cost_model import whole_series_s
    from pacbed.scattering.fit import write_series
    from pacbed.storage.files import check_writable

    settings = plane_wave.settings(computation.slices)
    if _holds(output, request, settings):
        return False
    if output.exists():
        raise PacbedError(
            f"{output} is there, and not the series that is asked for: give another name with "
            f"{option}, or remove it"
        )
    check_writable(output)
    if computation.device == "cpu":
        expected_s = whole_series_s(request, settings, computation.threads)
        say(f"{request.states} strain states take {spent(expected_s)}")
    engine = PlaneWaveEngine(settings, computation.threads, computation.device)
    with progress(stderr()) as start:
        write_series(output, request, engine, start("strain states"))
    return True


def _holds(path: Path, request: SeriesRequest, settings: PlaneWaveSettings) -> bool:
    """Return whether a file is a series of a request, with such settings."""
    from pacbed.scattering.series import ScatteringSeries
    from pacbed.storage.zipped import plain

    try:
        found = ScatteringSeries(path).provenance
    except StoreError:
        return False
    asked = {"series": request.to_dict(), "settings": asdict(settings)}
    return all(found[name] == value for name, value in plain(asked).items())


def _described(path: Path) -> str:
    """Return what a series holds and how exact it is."""
    from pacbed.scattering.series import ScatteringSeries

    series = ScatteringSeries(path)
    layers, errors = series.request.layers, 100 * series.leave_out_error.mean(axis=1)
    thickest = f" to {errors[-1]:.2g} % ({layers} layers)" if layers > 1 else ""
    return (
        f"up to {layers} layers from {series.request.states} strain states, "
        f"{path.stat().st_size / 1e6:.2g} MB; beams of a state left out differ by "
        f"{errors[0]:.2g} % (1 layer){thickest}"
    )
