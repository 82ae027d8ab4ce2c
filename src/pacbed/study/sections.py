"""The sections of a configuration: every key with its type, limits, default and meaning.

The defaults are the paper's protocol (Yankovich, Röding & Olsson, Ultramicroscopy 279 (2026)
114246). ``config/config.yaml`` repeats them; the JSON schema and the table of keys in
``config/README.md`` are made from them. Methods make the objects of the library. These are imported
where they are made, since every job of a run imports this module.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from pacbed.examples.camera import CameraSettings
from pacbed.examples.labels import LabelScaling
from pacbed.exceptions import PacbedError
from pacbed.learning.sizes import Kind, Precision
from pacbed.precision.steps import Steps
from pacbed.specimen.crystal import Crystal, Material
from pacbed.specimen.deformation import DrawRanges
from pacbed.study.draws import assign_splits

if TYPE_CHECKING:
    from pacbed.engines import Motion
    from pacbed.engines.planewave import PlaneWaveSettings
    from pacbed.engines.prismatic import Execution, PrismaticSettings
    from pacbed.scattering.mtf import MTF
    from pacbed.specimen.microscope import Aperture

T = TypeVar("T")

# Frozen phonons of the paper.
_CONFIGURATIONS_OF_PRISMATIC = 10


def _only(right: Callable[[Any], bool], allowed: str) -> AfterValidator:
    """Refuse values that are not right; in messages, what is allowed follows "must be"."""

    def check(value: Any) -> Any:
        if not right(value):
            raise PydanticCustomError("not_right", allowed)
        return value

    return AfterValidator(check)


Whole = Annotated[int, Field(strict=True)]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
Count = Annotated[Whole, Field(ge=1)]
NoneOrMore = Annotated[Whole, Field(ge=0)]
Positive = Annotated[Real, Field(gt=0)]
NotNegative = Annotated[Real, Field(ge=0)]
Share = Annotated[Real, Field(gt=0, lt=1)]
LessThanOne = Annotated[Real, Field(ge=0, lt=1)]
CellEdge = Annotated[Real, Field(ge=1, le=50)]
Angle = Annotated[Real, Field(ge=-360, le=360)]
Tilt = Annotated[Real, Field(ge=-100, le=100)]
SplineStep = Annotated[Real, Field(ge=0.5, le=50)]
Electrons = Annotated[Real, Field(ge=1e3, le=1e12)]
ImageMean = Annotated[Real, Field(gt=0, le=10)]
SemiAngle = Annotated[
    Positive,
    _only(lambda angle: angle >= 0.5, "at least 0.5 mrad; if it is in rad, write 1000 × as much"),
    _only(
        lambda angle: "e" not in f"{angle:g}" and float(f"{angle:g}") == angle,
        "a number of at most six digits, since it names files",
    ),
]
Range = Annotated[
    tuple[T, T], _only(lambda ends: ends[0] <= ends[1], "a range whose lower end comes first")
]
Stretches = Annotated[
    Range[Real],
    _only(
        lambda ends: ends[0] >= 0.5 and ends[1] <= 1.5,
        "within 0.5 to 1.5 (a stretch of 1 is undeformed; 3 % strain is 1.03)",
    ),
]
Ellipticity = Annotated[Real, Field(ge=0, le=0.05)]
Blur = Annotated[Real, Field(ge=0, le=5)]
OfTheBeam = Annotated[Real, Field(ge=0, le=5)]
SmallPart = Annotated[Real, Field(ge=0, le=0.2)]
Some = Annotated[tuple[T, ...], Field(min_length=1)]
ScanName = Annotated[
    str,
    _only(
        lambda name: re.fullmatch(r"[A-Za-z0-9_-]+", name) is not None,
        "a name of letters, digits, - and _, since it names files",
    ),
]
Option = Annotated[
    Any,
    _only(
        lambda value: all(
            one is None or isinstance(one, str | bool | int | float)
            for one in (value if isinstance(value, list | tuple) else [value])
        ),
        "text, a number, true, false or null, or a list of them",
    ),
]
Different = Annotated[
    Some[T],
    _only(lambda values: len(set(values)) == len(values), "a list of values that differ"),
    Field(json_schema_extra={"uniqueItems": True}),
]


class InOtherUnits(BaseModel):
    """A value in units that are converted at once."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Dose(InOtherUnits):
    """Electrons of a pattern by the dose on the specimen."""

    per_A2: tuple[float, float]
    """Range of the electrons per Å²."""
    area_A2: float
    """Area that the beam, or the scanned area of one pattern, covers, in Å²."""

    def value(self) -> list[float]:
        """Return the range of electrons."""
        return [n * self.area_A2 for n in self.per_A2]


class CameraLength(InOtherUnits):
    """A field of view by the camera length."""

    camera_length_mm: float
    """Distance from specimen to camera, as calibrated, in mm."""
    pixel_um: float
    """Width of a pixel of the camera in µm."""
    pixels: float
    """Pixels of the camera along the field."""

    def value(self) -> float:
        """Return the field of view in mrad."""
        # Near the axis; µm over mm are mrad.
        return self.pixels * self.pixel_um / self.camera_length_mm


def _converted(kind: type[Dose] | type[CameraLength], usual: Any) -> BeforeValidator:
    """Take a mapping of other units besides the usual kind of value."""
    keys = ", ".join(kind.model_fields)

    def convert(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        numbers = [n for one in value.values() for n in (one if isinstance(one, list) else [one])]
        try:
            if not all(math.isfinite(n) and n > 0 for n in numbers):
                raise ValueError
            return kind(**value).value()
        except (TypeError, ValueError) as error:
            raise PydanticCustomError(
                "not_right", "a value, or a mapping of {keys} to positive numbers", {"keys": keys}
            ) from error

    return BeforeValidator(convert, json_schema_input_type=usual | kind)


def _transfer(value: Any) -> Any:
    """Read an MTF from the file that is named, and check it."""
    from pacbed.scattering.mtf import ALLOWED, MTF, read_mtf

    if value is None:
        return None
    try:
        return (read_mtf(Path(value)) if isinstance(value, str) else MTF(value)).points
    except (PacbedError, TypeError, ValueError) as error:
        known = isinstance(error, PacbedError)
        why = str(error).removeprefix("an MTF must be ") if known else ALLOWED
        what = f"the file of an MTF: {why}" if isinstance(value, str) else f"a file, or {why}"
        raise PydanticCustomError("not_right", "{what}", {"what": what}) from error


Transfer = Annotated[
    tuple[tuple[float, float], ...] | None,
    BeforeValidator(_transfer, json_schema_input_type=str | list[tuple[float, float]] | None),
]


class Section(BaseModel):
    """A part of a configuration. It cannot be changed."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True
    )

    def __hash__(self) -> int:
        return hash(repr(self))

    @field_validator("*")
    @classmethod
    def _shortest(cls, value: Any) -> Any:
        """Keep whole numbers as integers, so that 80 and 80.0 are the same in every text."""
        if isinstance(value, tuple):
            return tuple(map(cls._shortest, value))
        if isinstance(value, Mapping):
            return {key: cls._shortest(value[key]) for key in sorted(value)}
        return value if isinstance(value, Section) else canonical(value)

    def plain(self, without: set[str] | None = None) -> dict[str, Any]:
        """Return the section as a mapping of plain values, in canonical form."""
        return dict(canonical({k: v for k, v in self if k not in (without or ())}))


def canonical(value: Any) -> Any:
    """Return plain values with sorted keys, in which whole numbers are integers.

    Snakemake decides on reruns by the text of parameters: 80 and 80.0, or an overlay that repeats
    a default, must not change it.
    """
    if isinstance(value, Section):
        return value.plain()
    if isinstance(value, Mapping):
        return {key: canonical(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [canonical(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


class MaterialSection(Section):
    """The crystal: by name, from a file, or a 2H dichalcogenide MX2 described by numbers."""

    structure: str | None = None
    """Name of a crystal (docs/crystals.md), or a structure file that ASE reads; null for the 2H
    dichalcogenide MX2 that formula, edges and height describe."""
    stacking_axis: Literal["a", "b", "c"] = "c"
    """Of a structure file, the vector of the cell from layer to layer."""
    stack: Flag = False
    """A structure file is a whole stack, such as a heterostructure, and does not repeat."""
    layer_ends_A: tuple[Positive, ...] | None = None
    """Of a structure file, depths below its first atoms at which layers end and patterns are kept,
    in Å; null for every gap without bonds."""
    period_A: Positive | None = None
    """Distance in Å after which a structure file repeats along the beam; null for its cell."""
    formula: str = "MoS2"
    """Chemical formula MX2, the metal first."""
    zigzag_A: CellEdge = 3.1613
    """Edge of the orthogonal cell along x (zigzag) in Å."""
    armchair_A: CellEdge = 5.4755
    """Edge of the orthogonal cell along y (armchair) in Å."""
    stacking_A: CellEdge = 12.3063
    """Edge of the cell along z in Å, two layers."""
    chalcogen_height_A: Positive = 1.5875
    """Distance of the chalcogen planes from the metal plane of their layer in Å."""
    rms_displacement_A: dict[str, NotNegative] = {"Mo": 0.07535, "S": 0.08856}
    """Root-mean-square thermal displacement per axis of each element in Å; with structure, before
    those that are known of it."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """Take `material: graphene` for `material: {structure: graphene}`."""
        return {"structure": value} if isinstance(value, str) else value

    @property
    def name(self) -> str:
        """What the crystal is called in a report."""
        return self.formula if self.structure is None else self.material().name

    @property
    def is_file(self) -> bool:
        """Whether the crystal is that of a structure file."""
        from pacbed.study.structures import is_file

        return self.structure is not None and is_file(self.structure)

    def plain(self, without: set[str] | None = None) -> dict[str, Any]:
        """Return the section as plain values; without a structure, none of what only they have."""
        unused = set(_OF_STRUCTURES) if self.structure is None else set()
        default = {name for name in unused if getattr(self, name) == _OF_STRUCTURES[name]}
        return super().plain((without or set()) | default)

    def beside_structure(self) -> list[str]:
        """Return the keys that differ from the default and do not go with `structure`."""
        described = (f for f in _MX2 if f != "rms_displacement_A")
        wrong = described if self.structure else (f for f in _OF_STRUCTURES if f != "structure")
        fields = type(self).model_fields
        return [name for name in wrong if getattr(self, name) != fields[name].default]

    @property
    def own_displacements_A(self) -> dict[str, float]:
        """Displacements that are said of a structure.

        Names and files know their own, before those of MoS2 that stand in the configuration.
        """
        return {k: u for k, u in self.rms_displacement_A.items() if u != _USUAL_A.get(k)}

    def material(self) -> Crystal:
        """Return the crystal.

        Raises
        ------
        RequestError
            If the formula is not MX2, an element has no displacement, or there is no such
            structure.
        """
        if self.structure is None:
            return Material(**{name: getattr(self, name) for name in _MX2})
        from pacbed.specimen.structure import Layering
        from pacbed.study.structures import find

        return find(self.structure, self.own_displacements_A, Layering.of(self), _USUAL_A)


_USUAL_A: dict[str, float] = MaterialSection.model_fields["rms_displacement_A"].default
_MX2 = tuple(field.name for field in fields(Material))
_OF_STRUCTURES: dict[str, Any] = {
    name: field.default for name, field in MaterialSection.model_fields.items() if name not in _MX2
}


class MicroscopeSection(Section):
    """The electron beam."""

    # As ENERGIES_keV of the microscope, which needs SciPy.
    energy_keV: Annotated[Real, Field(ge=30, le=300)] = 80
    """Beam energy in keV, 30 to 300."""
    semiangles_mrad: Different[SemiAngle] = (6.35, 12.65, 18.13, 25.44, 32.94)
    """Convergence semi-angles in mrad, one set of patterns each."""
    aperture_edge_mrad: NotNegative = 0
    """Width of a soft aperture edge in mrad; 0 is a hard edge, averaged over pixels."""

    def aperture(self, semiangle_mrad: float) -> Aperture:
        """Return the aperture of a convergence semi-angle."""
        from pacbed.specimen.microscope import Aperture

        return Aperture(semiangle_mrad, self.aperture_edge_mrad)


class DeformationSection(Section):
    """Ranges of the uniform random deformations. A range whose ends are equal is one value."""

    principal_stretch: Stretches = (0.95, 1.05)
    """Principal stretches; two are drawn and sorted, λ1 ≥ λ2."""
    principal_angle_deg: Range[Angle] = (0, 180)
    """Angle θ of the first principal direction in degrees."""
    tilt_mrad: Range[Tilt] = (-5, 5)
    """Sample tilts φx and φy in mrad."""
    rotation_deg: Range[Angle] = (-10, 10)
    """Rotation γ, applied to the pattern of every example, in degrees."""

    def draw_ranges(self) -> DrawRanges:
        """Return the ranges from which deformations and tilts are drawn."""
        return DrawRanges(self.principal_stretch, self.principal_angle_deg, self.tilt_mrad)

    def label_scaling(self, outputs: str) -> LabelScaling:
        """Return the scaling of some outputs to the ranges."""
        return LabelScaling.from_ranges(
            outputs, self.principal_stretch, self.rotation_deg, self.tilt_mrad
        )


class SplitSection(Section):
    """Share of the draws in each set; the shares sum to one."""

    train: Share = 0.5
    """Share of the training set."""
    validation: Share = 0.25
    """Share of the validation set."""
    test: Share = 0.25
    """Share of the test set."""


class DrawsSection(Section):
    """Random strain and tilt states per semi-angle."""

    count: Annotated[Count, Field(le=1_000_000)] = 1000
    """Number of draws per semi-angle; a larger number leaves existing ones valid."""
    split: SplitSection = Field(default_factory=SplitSection)
    """Share of the draws in each set; the shares sum to one."""
    shared_strain: Flag = False
    """Give all semi-angles the same strain states, each simulated once for all of them; tilts
    differ. false draws every semi-angle's own."""

    def splits(self) -> list[str]:
        """Return the set of each draw."""
        return assign_splits(self.count, dict(self.split))


class PrismaticSection(Section):
    """Settings of Prismatic."""

    pixel_A: Annotated[Real, Field(ge=0.01, le=0.5)] = 0.15
    """Sampling of the potential in Å."""
    slices_per_layer: Count = 3
    """Number of equal slices per layer."""
    interpolation_factor: Count = 4
    """The points of the grid are a multiple of four times this number; it has no other effect."""
    potential_bound_A: Annotated[Real, Field(ge=1, le=10)] = 3
    """Radius within which the potential of an atom is computed, in Å."""
    box_A: Annotated[Real, Field(ge=10, le=2000)] | Literal["auto"] = 400.0
    """Edge of the box of atoms in Å; auto for the smallest that leaves less than 1 % of a probe
    beyond its edge and has pixels no larger than the stored ones (these decide by default - 202
    Å)."""
    probe_region_A: Annotated[Real, Field(ge=1, le=2000)] = 200
    """Edge of the central square of the box that holds the probes, in Å; an automatic box has its
    own."""
    probes: tuple[Count, Count] | Literal["auto"] = (16, 28)
    """Probe positions along x and y of the deformed cell; auto for the fewest whose mean is that
    over all positions."""
    probes_per_configuration: Literal["all", "split"] = "all"
    """all probes see every phonon configuration, or split, each configuration is seen by its share
    of them."""

    def settings(self) -> PrismaticSettings:
        """Return the settings of the engine."""
        from pacbed.engines.prismatic import PrismaticSettings

        return PrismaticSettings(**self.plain())


_OF_SERIES = {"strain_states", "diffuse_waves_of_draws"}


class PlaneWaveSection(Section):
    """Numerical settings of the plane-wave engine."""

    band_limit: Literal["converged", "prismatic"] | Annotated[Real, Field(ge=0.5, le=10)] = (
        "converged"
    )
    """converged (2.5 1/Å, or more where the field of view or the first HOLZ ring reaches further),
    prismatic for the potential and band limit of Prismatic 2.0 at 0.15 Å, or another limit in
    1/Å."""
    slices_per_layer: Literal["planes"] | Count = "planes"
    """planes for one slice on every atomic plane (three per layer), or a number of equal slices."""
    incident_step_mrad: Annotated[Real, Field(ge=0.1, le=5)] | Literal["auto"] = "auto"
    """Spacing of the incident plane waves in mrad; auto for 2, or less beyond 20 layers."""
    supercell: tuple[Count, Count] = (8, 5)
    """Cells along x and y that have thermal displacements of their own."""
    strain_states: NoneOrMore = 0
    """0 for one simulation of every draw; or the number of strain states, some 50, of a scattering
    series, from which the training examples and the bound are made. Validation and test draws stay
    simulations of their own. All images are exact on the pixels of the camera."""
    diffuse_waves: Annotated[Whole, Field(ge=16)] = 48
    """Plane waves of each aperture that sample the diffuse scattering."""
    diffuse_waves_of_draws: Annotated[Whole, Field(ge=16)] = 192
    """The same for validation and test draws, with strain_states. Nothing else averages their
    noise."""
    diffuse_knots_mrad: tuple[SplineStep, SplineStep] = (3.3, 8)
    """Spacing of the knots of the splines of diffuse scattering, over outgoing and over incident
    directions, in mrad."""
    precision: Literal["single", "double"] = "single"
    """Of the floating-point numbers."""

    def settings(self) -> PlaneWaveSettings:
        """Return the settings of the engine.

        Raises
        ------
        RequestError
            If they do not fit together.
        """
        from pacbed.engines.planewave import PlaneWaveSettings

        return PlaneWaveSettings(**self.plain(_OF_SERIES))

    def settings_of_draws(self) -> PlaneWaveSettings:
        """Return the settings of validation and test draws beside a series."""
        return replace(self.settings(), diffuse_waves=self.diffuse_waves_of_draws)


class SimulationSection(Section):
    """How patterns are computed and stored."""

    engine: Literal["prismatic", "planewave"] = "prismatic"
    """prismatic, the program of the paper, which has to be installed; or planewave, the embedded
    engine."""
    layers: Count = 20
    """Number of layers; a pattern is kept after every layer."""
    thermal_motion: Literal["auto", "full", "coherent", "none"] | Count = "auto"
    """full for exact discs and sampled diffuse scattering, coherent for the discs alone, a number
    of frozen-phonon configurations for everything, none for static atoms. Prismatic and equal
    slices take a number or none. auto is full with plane waves, and 10 with Prismatic."""
    field_of_view_mrad: Positive = 134
    """Full width of the stored pattern in mrad; native pixels have their own."""
    pixels: Annotated[Whole, Field(ge=8, le=65_536)] | Literal["native"] = 640
    """Pixels of the stored pattern per axis; native stores those of Prismatic as they are, as the
    paper does."""
    auxiliary_engine: Literal["planewave", "same"] = "planewave"
    """Engine of the auxiliary simulations: the deformed and the tilted crystals of Fig. 2 and 3,
    and those from which the Cramér–Rao bound is computed. planewave takes core-minutes; same is the
    engine of the draws (Prismatic in the protocol of the paper - some 15,000 core-hours for the
    bound)."""
    prismatic: PrismaticSection = Field(default_factory=PrismaticSection)
    planewave: PlaneWaveSection = Field(default_factory=PlaneWaveSection)

    @property
    def numerics(self) -> PrismaticSection | PlaneWaveSection:
        """The section of the engine."""
        return self.prismatic if self.engine == "prismatic" else self.planewave

    @property
    def motion(self) -> Motion:
        """How thermal motion enters, for the engine."""
        if self.thermal_motion != "auto":
            return self.thermal_motion
        return "full" if self.engine == "planewave" else _CONFIGURATIONS_OF_PRISMATIC

    def used(self) -> dict[str, Any]:
        """Return what patterns depend on, so that other keys make no simulation run again."""
        kept = self.plain({"auxiliary_engine", *({"prismatic", "planewave"} - {self.engine})})
        kept["thermal_motion"] = self.motion
        if self.engine == "planewave":
            for name in _OF_SERIES:
                del kept["planewave"][name]
            if self.motion != "full":
                del kept["planewave"]["diffuse_waves"]
            if self.motion in ("coherent", "none"):
                del kept["planewave"]["supercell"], kept["planewave"]["diffuse_knots_mrad"]
        if self.pixels == "native":
            del kept["field_of_view_mrad"]
        if self.engine == "prismatic" and self.prismatic.box_A == "auto":
            del kept["prismatic"]["probe_region_A"]
        return kept


class ExecutionSection(Section):
    """How simulations are run; with the profiles here, changing it reruns nothing."""

    device: Literal["cpu", "gpu"] = "cpu"
    """cpu, or gpu for one graphics card per simulation."""
    draws_per_job: Literal[1, 10, 100] = 1
    """Draws that a job simulates one after another, 10 or 100 where a site limits the number of
    jobs; each is kept as soon as it is done. draws.count must be a multiple. With strain_states
    it stays 1: there a job simulates ten strain states, which take seconds each."""
    prismatic_python: str | None = None
    """Python interpreter that has pyprismatic 2.0; null for that of the job."""
    scratch_GB: Positive | None = 40
    """Largest part of the scratch folder (TMPDIR) that a simulation fills, in GB; null for most of
    what is free."""
    call_limit_h: Positive | None = 12
    """Time after which a call of Prismatic is taken to hang, in hours; null for none."""

    def of_prismatic(self) -> Execution:
        """Return how Prismatic is run."""
        from pacbed.engines.prismatic import Execution

        return Execution(self.prismatic_python, self.scratch_GB, self.call_limit_h)


class ExamplesSection(Section):
    """Number of examples in each set."""

    train: Count = 128_000
    """Examples of the training set."""
    validation: Count = 32_000
    """Examples of the validation set."""
    test: Count = 16_000
    """Examples of the test set."""


OF_MTF = ("mtf", "mtf_bins")
"""Keys of a camera that say its MTF."""


class CameraSection(Section):
    """What a real camera adds to an example, each uniform within a range; by default nothing."""

    ellipticity: Range[Ellipticity] = (0, 0)
    """0.01: angles are 1 % larger along one direction than the pixels say, and 1 % smaller across
    it. This looks like strain."""
    ellipticity_direction_deg: Range[Angle] = (0, 180)
    """Direction in which they are larger, in degrees counter-clockwise from x; 0 to 180 if it is
    not known."""
    blur_px: Range[Blur] = (0, 0)
    """Standard deviation of the point spread, a Gaussian, in pixels of the example."""
    background: Range[OfTheBeam] = (0, 0)
    """Electrons that are spread evenly over the image, as a fraction of the incident ones."""
    halo: Range[OfTheBeam] = (0, 0)
    """The same for a Gaussian around the middle, with a standard deviation of 25 mrad."""
    beam_stop_mrad: Range[NotNegative] = (0, 0)
    """Radius of a round beam stop around the middle of the image, in mrad."""
    gain_noise: Range[SmallPart] = (0, 0)
    """Relative standard deviation of the gain from pixel to pixel."""
    dead_pixels: Range[SmallPart] = (0, 0)
    """Share of pixels, at random places, that record nothing."""
    mtf: Transfer = None
    """Modulation transfer function: a text file, or pairs of cycles per pixel of the camera and
    MTF; null for pixels that only integrate."""
    mtf_bins: Count = 1
    """Pixels of the camera, along each axis, that make one of the example."""

    def settings(self) -> CameraSettings | None:
        """Return the ranges; None if there is nothing of all this."""
        found = CameraSettings(**self.model_dump(exclude=set(OF_MTF)))
        return None if found.perfect else found

    def transfer(self) -> MTF | None:
        """Return the modulation transfer function; None if none is given."""
        from pacbed.scattering.mtf import MTF

        return MTF(self.mtf).of_pixels(self.mtf_bins) if self.mtf else None


OF_SETS = ("layers", "examples", "pool")
"""Keys of a dataset on which single examples do not depend."""

OF_POOLS = ("pixels", "field_of_view_mrad", "field_of_view_variation", "translation_px")
"""Keys of a dataset on which images without noise depend, besides the camera."""


class DatasetSection(Section):
    """Examples made of the patterns."""

    layers: Different[Count] = (1, 2, 3, 4, 5, 10, 15, 20)
    """Thicknesses, in layers, for which networks are trained."""
    pixels: Annotated[Count, Field(le=65_536)] = 256
    """Pixels of an example per axis."""
    field_of_view_mrad: Annotated[Positive, _converted(CameraLength, Positive)] = 100
    """Full width of an example in mrad; or a mapping of camera_length_mm, pixel_um and pixels, from
    which it follows."""
    field_of_view_variation: LessThanOne = 0.0625
    """Relative variation of the field of view, uniform within ± this."""
    translation_px: NotNegative = 10
    """Shift in x and in y, uniform within ± this many pixels of the example."""
    noise: Literal["lognormal", "poisson"] = "lognormal"
    """lognormal with the mean and variance of a Poisson distribution, or poisson."""
    electrons: Annotated[Range[Electrons], _converted(Dose, Range[Electrons])] = (1e6, 5e7)
    """Electrons of the incident beam per pattern, log-uniform; or a mapping of per_A2, a range of
    electrons per Å², and area_A2, the area of one pattern."""
    image_mean: Range[ImageMean] = (0.2, 0.3)
    """Range of the image mean after normalisation."""
    camera: CameraSection = Field(default_factory=CameraSection)
    pool: Count = 10000
    """With simulation.planewave.strain_states, noise-free images of which training examples are
    made, each of a deformation of its own. For validation and test this number is shared out among
    draws.count draws, rounded up: so many images show a draw, but no more than its examples."""
    examples: ExamplesSection = Field(default_factory=ExamplesSection)
    """Number of examples in each set."""

    def used(self) -> dict[str, Any]:
        """Return what single examples depend on; what a camera does not do is not mentioned."""
        found, camera = self.plain({*OF_SETS, "camera"}), self.camera
        if camera.settings() or camera.mtf:
            found["camera"] = camera.plain(set(() if camera.mtf else OF_MTF))
        return found

    def of_pools(self) -> dict[str, Any]:
        """Return what images without noise depend on."""
        found = {name: value for name, value in self.plain().items() if name in OF_POOLS}
        ellipse = ("ellipticity", "ellipticity_direction_deg") if self.camera.ellipticity[1] else ()
        kept = (*(OF_MTF if self.camera.mtf else ()), *ellipse)
        camera = {k: v for k, v in self.camera.plain().items() if k in kept}
        return found | ({"camera": camera} if camera else {})


class NetworkSection(Section):
    """The convolutional network."""

    kind: Kind = "paper"
    """paper, one network from image to parameters; coarse-to-fine, the same on means of 2 × 2
    pixels or more, and least squares that correct its answer on the image rectified by it."""
    filters: Some[Count] = (32, 64, 128, 256)
    """Filters of each block of two 3 × 3 convolutions and a 2 × 2 average pool."""
    dense: tuple[Count, ...] = (512, 384, 256, 128)
    """Widths of the hidden dense layers."""
    pooled_head: Count | None = None
    """null flattens the last feature maps; n average-pools them to n × n first."""
    uncertainty: Flag = False
    """Whether networks state the standard deviation of each answer too; the answers remain what
    they are."""


class StepSection(Section):
    """A part of a training with one learning rate."""

    epochs: Count
    """Epochs of this step."""
    rate: Positive
    """Learning rate of this step."""


class FastSection(Section):
    """One cycle of the learning rate: it rises linearly and falls along half a cosine."""

    optimizer: Literal["adam", "sgd"] = "adam"
    """adam scales the steps of each weight by the size of its gradients; sgd is the gradient
    descent of the paper, whose highest rate depends on the intensity scale."""
    epochs: Count = 400
    """Length of the training."""
    batch_size: Count = 64
    """Examples per step, instead of training.batch_size."""
    peak_rate: Positive = 1e-3
    """Highest learning rate."""
    warm_up: LessThanOne = 0.15
    """Share of the training in which the highest rate is reached."""
    averaged_epochs: NoneOrMore = 0
    """Validate the mean of the weights after so many last epochs, and keep it if it is best
    (stochastic weight averaging); 0, none."""


class TrainingSection(Section):
    """How networks are trained."""

    data: Literal["materialised", "online"] = "materialised"
    """Training examples. materialised, a fixed set in a file, as in the paper; online, made anew in
    every epoch from the patterns, on the device of the network."""
    schedule: Literal["paper", "fast"] = "paper"
    """Learning rate. paper, the steps of learning_rate_steps; fast, the one cycle of fast."""
    loss: Literal["mse", "fisher"] = "mse"
    """What the training makes small. mse, the mean squared error of parameters in units of their
    ranges; fisher, errors in units of the Cramér–Rao bound of the semi-angle and thickness, for
    network.kind: paper."""
    batch_size: Count = 256
    """Examples per step, with the schedule paper."""
    momentum: LessThanOne = 0.9
    """Momentum of the gradient descent, and of adam."""
    precision: Precision = "float32"
    """Numbers that a network is trained with. The weights, and the network that is kept, are in
    single precision with all; the log says if its validation loss differs."""
    xla: Flag = False
    """Whether steps are compiled with XLA. It makes them faster, but a repeated training need not
    be the same to the last bit on a graphics card."""
    warm_start: Literal["none", "thinner", "thicker"] = "none"
    """Begin with the weights of the trained network of the next thinner or thicker sample, one
    network after the other; none, with random ones."""
    learning_rate_steps: Some[StepSection] = tuple(
        StepSection(epochs=1600 if rate == 1e-3 else 400, rate=rate)
        for rate in (1e-4, 2e-4, 5e-4, 1e-3, 5e-4, 2e-4, 1e-4)
    )
    """Stepped learning rate of the schedule paper, in order; the epochs of the steps add up to the
    length of the training."""
    fast: FastSection = Field(default_factory=FastSection)

    @property
    def total_epochs(self) -> int:
        """Length of the training."""
        if self.schedule == "fast":
            return self.fast.epochs
        return sum(step.epochs for step in self.learning_rate_steps)

    @property
    def examples_per_step(self) -> int:
        """Batch size of the schedule."""
        return self.fast.batch_size if self.schedule == "fast" else self.batch_size

    def used(self) -> dict[str, Any]:
        """Return what a training depends on: keys of the other schedule make none run again."""
        paper = self.schedule == "paper"
        return self.plain({"fast"} if paper else {"learning_rate_steps", "batch_size"})


class BoundSection(Section):
    """The Cramér–Rao bound, which no unbiased reading of a pattern can beat."""

    deformed_states: Annotated[Whole, Field(ge=0, le=1000)] = 4
    """Random deformations and tilts at which it is computed, besides the undeformed crystal; errors
    are compared with the mean over these, or if there are none, with the undeformed crystal."""
    strain_step: Annotated[Real, Field(ge=5e-4, le=0.02)] = 0.002
    """Step of the central differences in strain, a fraction; in single precision, rounding makes
    the bound too small at much finer steps."""
    tilt_step_mrad: Annotated[Real, Field(ge=0.05, le=5)] = 0.2
    """Step of the central differences in tilt, in mrad."""

    def steps(self) -> Steps:
        """Return the half-widths of the central differences."""
        return Steps(self.strain_step, self.tilt_step_mrad)


class FitSection(Section):
    """Test examples that are read by a fit of the scattering series, too."""

    examples: NoneOrMore = 1000
    """Of each test set, with simulation.planewave.strain_states and a network that predicts tilt:
    each is read by two fits, one that begins with what the network predicts and one that begins
    without a network; 0 for none."""


class VariantSection(Section):
    """Networks of some outputs and one intensity scale, for some semi-angles and thicknesses."""

    outputs: Literal["strain-rotation-tilt", "strain-rotation"]
    """What the network predicts."""
    intensity: Literal["linear", "sqrt", "power"]
    """Linear, the square root of the intensity, or a power that the network learns."""
    semiangles_mrad: Literal["all"] | Some[Positive]
    """all, or a list of configured semi-angles."""
    layers: Literal["all"] | Some[Count]
    """all, or a list of configured thicknesses."""


class ScanSection(Section):
    """A measured scan, of which a map is made."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Option]

    file: Annotated[str, Field(min_length=1)]
    """File of the scan, or folder of Zarr."""

    @property
    def options(self) -> dict[str, Any]:
        """Options of ``pacbed map``, by their names; those that are null are not given."""
        given = self.plain({"file"})
        return {name: value for name, value in given.items() if value is not None}
