"""``pacbed simulate``, and the options that it shares with ``pacbed converge``."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from pacbed.cli.common import Flat, Threads, changed, progress, stderr
from pacbed.cli.structures import AnyCrystal
from pacbed.engines import Engine, SimulationRequest, SimulationResult, ThermalMotion
from pacbed.engines import Motion as MotionKind
from pacbed.engines import engine as make_engine
from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.prismatic import Execution, PrismaticSettings, native_detector
from pacbed.exceptions import PacbedError, RequestError
from pacbed.machine import Report, usable_cores
from pacbed.specimen.crystal import Crystal as Specimen
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture, Detector

if TYPE_CHECKING:
    from pacbed.scattering.request import SeriesRequest

Slices = Literal["planes"] | int | None


@dataclass(frozen=True)
class Crystal(AnyCrystal):
    """The crystal and the energy of the beam.

    Parameters
    ----------
    energy_keV
        Beam energy in keV; 80, or that of `--series`.
    stretch
        Principal stretches, the largest first.
    theta_deg
        First principal direction in degrees.
    layers
        Number of layers; a pattern is kept after each. 20, or as many as `--series` or a stack has.
    """

    material: Annotated[str | None, Parameter(show_default="that of `--config`, or MoS2")] = None
    energy_keV: Annotated[float | None, Parameter(show_default="80")] = None
    stretch: tuple[float, float] = (1.0, 1.0)
    theta_deg: float = 0.0
    layers: Annotated[int | None, Parameter(show_default="20")] = None

    def request(self, held: SeriesRequest | None = None, **others: Any) -> SimulationRequest:
        """Return a simulation of this crystal; what is not given is as in a series, if any."""
        of_series = held and not (self.material or self.config)
        energy, layers = (held.energy_keV, held.layers) if held else (80.0, 20)
        thermal = others.get("thermal", ThermalMotion())
        made = held.material if held and of_series else self.described(thermal.motion)
        if held is None:
            layers = made.most_layers or layers
        if max(self.stretch) >= 2:
            raise PacbedError("--stretch takes ratios of lengths: 1.03 for 3 %")
        return SimulationRequest(
            material=made,
            deformation=Deformation(*self.stretch, self.theta_deg),
            layers=layers if self.layers is None else self.layers,
            energy_keV=energy if self.energy_keV is None else self.energy_keV,
            **others,
        )

    def described(self, motion: MotionKind = "full") -> Specimen:
        """Return the crystal, that of the configuration or another one."""
        from pacbed.study.configuration import load

        advice = " of a file that you name with --config"
        if self.config:
            found = load(self.config).material.material()
            if self.material in (None, found.name):
                self.section()
                return found
            advice += f" (there, it is {found.name} now)"
        named = replace(self, config=(), material=self.material or "MoS2")
        if not self.material:
            self.section()
        try:
            return named.crystal(motion)
        except RequestError as error:
            raise RequestError(f"{error}{advice if 'unknown' in str(error) else ''}") from None


@dataclass(frozen=True)
class Computation:
    """How any engine computes.

    Parameters
    ----------
    slices
        Number of equal slices per layer, or `planes`: one slice on every atomic plane. The default
        is `planes`, and 3 for Prismatic and with `--band-limit prismatic`.
    device
        Where to compute.
    seed
        Seed of everything random; 0, or that of the configuration in `scatter`.
    """

    slices: Slices = None
    device: Literal["cpu", "gpu"] = "cpu"
    seed: int | None = None
    threads: Threads = field(default_factory=usable_cores)


@dataclass(frozen=True)
class PlaneWaveOptions(PlaneWaveSettings):
    """Settings that are checked when the number of slices is known."""

    def __post_init__(self) -> None:
        """Leave the check to :meth:`settings`."""

    def settings(self, slices: Slices) -> PlaneWaveSettings:
        """Return the settings with a number of slices, by default that of the potential."""
        usual = PrismaticSettings if self.band_limit == "prismatic" else PlaneWaveSettings
        known = usual.slices_per_layer if slices is None else slices
        return PlaneWaveSettings(**{**vars(self), "slices_per_layer": known})


@dataclass(frozen=True)
class PrismaticOptions(PrismaticSettings):
    """Settings in which one number stands for both edges of the box."""

    box_A: float | Literal["auto"] = PrismaticSettings.box_A[0]  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Leave the check to :meth:`settings`."""

    def settings(self, slices: Slices) -> PrismaticSettings:
        """Return the settings with a number of slices, which atomic planes are not."""
        if slices == "planes":
            raise PacbedError(
                "Prismatic has equal slices: give their number per layer (--slices 3)"
            )
        known = self.slices_per_layer if slices is None else slices
        return PrismaticSettings(**{**vars(self), "slices_per_layer": known})


@dataclass(frozen=True)
class Motion:
    """Thermal motion.

    Parameters
    ----------
    phonons
        Number of frozen-phonon configurations for everything; 0 for the exact discs alone, without
        diffuse scattering. By default the discs are exact and the diffuse scattering is sampled, or
        what the series (`--series`) or the configuration (`scatter`) has.
    debye_waller
        Off with `--phonons 0`: static atoms.
    """

    phonons: int | None = None
    debye_waller: bool = True

    def thermal(self) -> ThermalMotion:
        """Return what the engines are asked for.

        Raises
        ------
        RequestError
            If the number is negative, or there are configurations of static atoms.
        """
        if self.phonons:
            if not self.debye_waller:
                raise RequestError(
                    f"--phonons {self.phonons} are frozen phonons, and --no-debye-waller static "
                    "atoms: give one of the two"
                )
            return ThermalMotion(self.phonons)
        if not self.debye_waller:
            return ThermalMotion("none")
        return ThermalMotion("full" if self.phonons is None else "coherent")


PLANE_WAVES = Parameter(name="*", group="Plane-wave engine", parse="^(?!slices)")
_PRISMATIC = Parameter(name="*", group="Prismatic 2.0", parse="^(?!slices|call_limit)")
_PAIR = Parameter(consume_multiple=(1, 2), allow_repeating=False)


def simulate(
    *,
    output: Path,
    crystal: Flat[Crystal] = Crystal(),
    semiangle: tuple[float, ...] = (18.13,),
    tilt: Annotated[tuple[tuple[float, float], ...], Parameter(consume_multiple=False)] = (
        (0.0, 0.0),
    ),
    engine: Literal["planewave", "prismatic"] = "planewave",
    fov: Annotated[tuple[float, ...], _PAIR] = (100.0,),
    pixels: Annotated[tuple[int | Literal["native"], ...], _PAIR] = (256,),
    aperture_edge: float = Aperture.edge_mrad,
    aperture_profile: Literal["erf", "linear"] = Aperture.profile,
    motion: Flat[Motion] = Motion(),
    series: Path | None = None,
    computation: Flat[Computation] = Computation(),
    plane_wave: Annotated[PlaneWaveOptions, PLANE_WAVES] = PlaneWaveOptions(),
    prismatic: Annotated[PrismaticOptions, _PRISMATIC] = PrismaticOptions(),
    execution: Annotated[Execution, _PRISMATIC] = Execution(),
    log: Annotated[Path | None, Parameter(group="Prismatic 2.0")] = None,
) -> None:
    """Compute the patterns of one crystal.

    There is one pattern per layer. They are written into a Zarr store. Several semi-angles and
    tilts share one calculation, and make a store for each pair.

    Parameters
    ----------
    output
        Store, such as mos2.zarr.zip; of several, semi-angle and tilt are added to the name.
    semiangle
        Convergence semi-angles in mrad.
    tilt
        Sample tilt along x and y in mrad; repeat for several.
    engine
        What computes the patterns.
    fov
        Full width of the field in mrad: one number, or two for x and y.
    pixels
        Number of pixels: one number, or two for x and y; zero angle lies on pixel N // 2. `native`
        are those of Prismatic.
    aperture_edge
        Width of a soft aperture edge in mrad; 0 is hard, averaged over the pixel area.
    aperture_profile
        Shape of a soft edge; `linear` is that of Prismatic 2.0.
    series
        Take the patterns from this scattering series (see `pacbed scatter`) instead of an engine,
        without options of how an engine computes.
    log
        Where to write what Prismatic prints.
    """
    from pacbed.patterns.store import write_patterns
    from pacbed.scattering.engine import SeriesEngine
    from pacbed.scattering.series import ScatteringSeries
    from pacbed.storage.files import check_apart, check_writable
    from pacbed.storage.zipped import checkpoint_of

    by_prismatic = engine == "prismatic"
    if series:
        unused = ["--engine prismatic"] if by_prismatic else []
        unused += changed(computation, plane_wave, prismatic, execution)
        unused += ["--log"] if log else []
        if unused:
            raise PacbedError(
                f"--series takes the place of an engine: leave out {_listed(unused)}, or --series"
            )
    known = SeriesEngine(ScatteringSeries(series)) if series else None
    held = known.series.request if known else None
    thermal = ThermalMotion(held.motion) if held and motion == Motion() else motion.thermal()
    settings = (prismatic if by_prismatic else plane_wave).settings(computation.slices)
    detector = _detector(fov, pixels, settings, crystal.energy_keV or 80.0)
    requests = [
        crystal.request(
            held,
            aperture=Aperture(one_angle, aperture_edge, aperture_profile),
            tilt_mrad=one_tilt,
            detector=detector,
            thermal=thermal,
            seed=computation.seed or 0,
        )
        for one_angle, one_tilt in product(semiangle, tilt)
    ]
    pixel = math.sqrt(detector.pixel_mrad2)
    if (smallest := min(semiangle)) < pixel / 2:
        raise PacbedError(
            f"--semiangle {smallest:g} mrad is less than half a pixel of {pixel:.3g} mrad: choose "
            f"smaller pixels; if it is in rad, write {1e3 * smallest:g}"
        )
    outputs = [_store_name(output, request, len(requests)) for request in requests]
    if len(set(outputs)) < len(outputs):
        raise PacbedError("a pair of semi-angle and tilt (to six digits) is asked for twice")
    if execution.scratch_GB is not None and execution.scratch_GB <= 0:
        raise PacbedError(f"--scratch must be greater than 0, not {execution.scratch_GB:g}")
    check_apart([*outputs, log], [series, crystal.file, *crystal.config])
    check_writable(*outputs)
    checkpoints = [checkpoint_of(output) for output in outputs]
    with (
        open(log or os.devnull, "w", buffering=1, encoding="utf-8") as written,
        progress(stderr()) as start,
    ):
        if known:
            results = _one_by_one(known, requests, start("patterns"))
        else:
            chosen = make_engine(
                settings,
                computation.threads,
                computation.device,
                execution,
                partial(print, file=written),
            )
            report = start("probes" if by_prismatic else "plane waves")
            results = chosen.simulate_together(requests, report, checkpoints)
    for path, request, result in zip(outputs, requests, results, strict=True):
        write_patterns(path, request, result)
        noise = result.provenance.get("phonon_noise")
        print(
            f"{path}: {request.layers} pattern{'s' * (request.layers > 1)} of "
            f"{request.detector.pixels[0]} × {request.detector.pixels[1]} pixels"
            + (f", phonon noise up to {100 * max(noise):.2g} %" if noise else "")
        )
    for checkpoint in checkpoints:  # not before all stores are there
        checkpoint.unlink(missing_ok=True)
    seconds = [result.provenance["seconds"] for result in results]
    # Plane waves serve all patterns together.
    total = sum(seconds) if by_prismatic or known else seconds[0]
    print(f"{total:.1f} s. Look at them: pacbed show {quote(str(outputs[0]))}")


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _one_by_one(
    engine: Engine, requests: Sequence[SimulationRequest], report: Report
) -> list[SimulationResult]:
    results = []
    for number, request in enumerate(requests):
        report(number, len(requests))
        results.append(engine.simulate(request))
    report(len(requests), len(requests))
    return results


def _detector(
    fov: tuple[float, ...],
    pixels: tuple[int | Literal["native"], ...],
    settings: PrismaticSettings | PlaneWaveSettings,
    energy_keV: float,
) -> Detector:
    counts = tuple(n for n in pixels if n != "native")
    if len(counts) == len(pixels):
        return Detector((fov[0], fov[-1]), (counts[0], counts[-1]))
    if counts:
        raise PacbedError("--pixels takes numbers or the word 'native', not both")
    if not isinstance(settings, PrismaticSettings):
        raise PacbedError("only Prismatic has native pixels: give a number with --pixels")
    return native_detector(settings, energy_keV)


def _store_name(output: Path, request: SimulationRequest, count: int) -> Path:
    """Return the name of a store; of several, with semi-angle and tilt before the suffixes."""
    if count == 1:
        return output
    suffix = "".join(s for s in (".zarr", ".zip") if s in output.suffixes)
    stem = output.name.removesuffix(suffix)
    x, y = request.tilt_mrad
    name = f"{stem}_{request.aperture.semiangle_mrad:g}mrad_tilt{x:+g}{y:+g}{suffix}"
    return output.with_name(name)
