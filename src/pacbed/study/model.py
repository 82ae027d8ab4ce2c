"""The whole configuration, and the objects that follow from several of its sections.

Engines and what they need are imported where they are used, since every job of a run imports this
module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from pacbed.exceptions import RequestError
from pacbed.specimen.deformation import Deformation
from pacbed.study.draws import draw, simulation_seed
from pacbed.study.sections import (
    OF_SETS,
    BoundSection,
    DatasetSection,
    DeformationSection,
    DrawsSection,
    ExecutionSection,
    FitSection,
    MaterialSection,
    MicroscopeSection,
    NetworkSection,
    ScanName,
    ScanSection,
    Section,
    SimulationSection,
    Some,
    TrainingSection,
    VariantSection,
    Whole,
)

if TYPE_CHECKING:
    from pacbed.engines import Engine, SimulationRequest
    from pacbed.examples.augment import AugmentationSettings
    from pacbed.precision.design import Experiment
    from pacbed.scattering.request import SeriesRequest, StateRequest
    from pacbed.specimen.microscope import Detector


STATES = 50
"""Strain states of a scattering series, if a configuration has none."""


class Configuration(Section):
    """Configuration of the PACBED workflow."""

    seed: Annotated[Whole, Field(ge=0, le=2**32 - 1)] = 2026
    """Seed of everything random; the same seed and configuration give the same numbers."""
    results: Annotated[str, Field(pattern=r"^/*[^{}\s/~\x00][^{}\s\x00]*$")] = "results"
    """Folder for everything that is computed."""
    material: MaterialSection = Field(default_factory=MaterialSection)
    microscope: MicroscopeSection = Field(default_factory=MicroscopeSection)
    deformation: DeformationSection = Field(default_factory=DeformationSection)
    draws: DrawsSection = Field(default_factory=DrawsSection)
    simulation: SimulationSection = Field(default_factory=SimulationSection)
    execution: ExecutionSection = Field(default_factory=ExecutionSection)
    dataset: DatasetSection = Field(default_factory=DatasetSection)
    network: NetworkSection = Field(default_factory=NetworkSection)
    training: TrainingSection = Field(default_factory=TrainingSection)
    fit: FitSection = Field(default_factory=FitSection)
    bound: BoundSection = Field(default_factory=BoundSection)
    variants: Some[VariantSection] = (
        VariantSection(
            outputs="strain-rotation-tilt", intensity="linear", semiangles_mrad="all", layers="all"
        ),
        *(
            VariantSection(
                outputs="strain-rotation",
                intensity=intensity,
                semiangles_mrad=(6.35,),
                layers=(1, 2, 3, 4, 5),
            )
            for intensity in ("linear", "sqrt")
        ),
    )
    """Networks to train, as combinations of outputs and intensity for some semi-angles and
    layers."""
    scans: dict[ScanName, ScanSection] = Field(default={})
    """Measured scans, by name, of which maps are made: a file, and options of pacbed map. See
    docs/scans.md."""

    def changed(self, overlay: Mapping[str, Any]) -> Configuration:
        """Return the configuration with an overlay; what does not fit together is not looked for.

        Raises
        ------
        pydantic.ValidationError
            If a key or a value is not allowed.
        """
        values = self.plain()
        merge(values, overlay)
        return Configuration.model_validate(values)

    def detector(self) -> Detector:
        """Return the pixels in which patterns are stored.

        Raises
        ------
        RequestError
            If the engine has no pixels of its own and they are asked for.
        """
        from pacbed.specimen.microscope import Detector

        section = self.simulation
        if section.pixels != "native":
            return Detector((section.field_of_view_mrad,) * 2, (section.pixels, section.pixels))
        if section.engine != "prismatic":
            raise RequestError("only Prismatic has native pixels: give a number (640 by default)")
        from pacbed.engines.prismatic import native_detector

        return native_detector(section.prismatic.settings(), self.microscope.energy_keV)

    def augmentation(self) -> AugmentationSettings:
        """Return how examples are made of patterns."""
        from pacbed.examples.augment import AugmentationSettings

        given = {name: value for name, value in self.dataset if name not in OF_SETS}
        camera = self.dataset.camera
        given |= {"camera": camera.settings(), "mtf": camera.transfer()}
        return AugmentationSettings(rotation_deg=self.deformation.rotation_deg, **given)

    def images_per_draw(self, split: str) -> int:
        """Return how many images of each draw are in a pool for validation or test."""
        shared = self.dataset.pool / self.draws.count
        needed = getattr(self.dataset.examples, split) / self.draws.splits().count(split)
        return math.ceil(min(shared, needed))

    def request(
        self,
        semiangle_mrad: float,
        deformation: Deformation,
        tilt_mrad: tuple[float, float] = (0.0, 0.0),
        seed: int | None = None,
        discs_only: bool = False,
    ) -> SimulationRequest:
        """Return the request for one simulation; its seed is that of the study if not given.

        Without diffuse scattering if `discs_only` and the engine can.

        Raises
        ------
        RequestError
            If it is impossible.
        """
        from pacbed.engines import SimulationRequest, ThermalMotion

        motion = self.simulation.motion
        return SimulationRequest(
            material=self.material.material(),
            deformation=deformation,
            tilt_mrad=tilt_mrad,
            layers=self.simulation.layers,
            energy_keV=self.microscope.energy_keV,
            aperture=self.microscope.aperture(semiangle_mrad),
            detector=self.detector(),
            thermal=ThermalMotion("coherent" if discs_only and motion == "full" else motion),
            seed=self.seed if seed is None else seed,
        )

    def request_of_draw(self, index: int | None, semiangle_mrad: float) -> SimulationRequest:
        """Return the request for one draw, or for the undeformed crystal if there is no number."""
        shared = self.draws.shared_strain
        seed = simulation_seed(self.seed, semiangle_mrad, index, shared)
        if index is None:
            return self.request(semiangle_mrad, Deformation(), seed=seed)
        one = draw(self.seed, semiangle_mrad, index, self.deformation.draw_ranges(), shared)
        return self.request(semiangle_mrad, one.deformation, one.tilt_mrad, seed)

    def state_of_draw(self, index: int, semiangles_mrad: tuple[float, ...]) -> StateRequest:
        """Return the strain state of a draw, for semi-angles that share it.

        It is simulated as the patterns of the draw are, and kept for the thicknesses of examples.
        """
        from pacbed.scattering.request import StateRequest
        from pacbed.specimen.microscope import Detector

        # Images have pixels of their own.
        detector = Detector((self.simulation.field_of_view_mrad,) * 2, (64, 64))
        simulations = tuple(
            replace(self.request_of_draw(index, angle), detector=detector)
            for angle in semiangles_mrad
        )
        largest_stretch = self.deformation.draw_ranges().stretch[1]
        return StateRequest(simulations, tuple(sorted(self.dataset.layers)), largest_stretch)

    def engine(self, threads: int, log: Callable[[str], None] = lambda line: None) -> Engine:
        """Return the engine on so many threads; a program outside prints its lines to `log`.

        Raises
        ------
        RequestError
            If it cannot use the device.
        """
        from pacbed.engines import engine

        prismatic = self.simulation.engine == "prismatic"
        return engine(
            self.simulation.numerics.settings(),
            threads,
            self.execution.device,
            self.execution.of_prismatic() if prismatic else None,
            log,
        )

    def auxiliary(self) -> Configuration:
        """Return the configuration with which the states of Fig. 2 and 3 are simulated."""
        if self.simulation.auxiliary_engine == "same" or self.simulation.engine == "planewave":
            return self
        own = self.detector()  # of native pixels, which only Prismatic has
        field, pixels = own.field_of_view_mrad[0], own.pixels[0]
        # Equal slices take what Prismatic takes.
        on_planes = self.simulation.planewave.slices_per_layer == "planes"
        moving = on_planes and self.simulation.motion != "none"
        motion = "auto" if moving else self.simulation.motion
        change = {"engine": "planewave", "pixels": pixels, "field_of_view_mrad": field}
        return self.changed({"simulation": {**change, "thermal_motion": motion}})

    def for_bound(self) -> Configuration:
        """Return the configuration with which the states of the bound are simulated.

        Not with frozen phonons for everything: a tilt would move the beam to waves with other
        displacements, and the difference of their speckle looks like information.
        """
        study = self.auxiliary()
        section = study.simulation
        if section.engine == "prismatic" or isinstance(section.motion, str):
            return study
        motion = "full" if section.planewave.slices_per_layer == "planes" else "none"
        return study.changed({"simulation": {"thermal_motion": motion}})

    def series(self, **given: Any) -> SeriesRequest:
        """Return the scattering series that holds all patterns of the study.

        Parameters
        ----------
        given
            Fields of the request that are not as configured; the degree follows from the number of
            states.

        Raises
        ------
        RequestError
            If there is none: strain does not vary, or the states are too few.
        """
        from pacbed.scattering.request import SeriesRequest, degree_for
        from pacbed.scattering.strain import StrainRange

        states = given.get("states") or self.simulation.planewave.strain_states or STATES
        tilt = max(map(abs, self.deformation.tilt_mrad))
        apertures = map(self.microscope.aperture, self.microscope.semiangles_mrad)
        section = self.for_bound().simulation
        values: dict[str, Any] = {
            "material": self.material.material(),
            "energy_keV": self.microscope.energy_keV,
            "layers": section.layers,
            "semiangle_mrad": max(one.outer_mrad for one in apertures),
            "tilt_mrad": math.hypot(tilt, tilt),
            "field_of_view_mrad": section.field_of_view_mrad,
            "states": states,
            "degree": degree_for(states),
            "motion": section.motion,
            "seed": self.seed,
            **given,
        }
        if "strain" not in given:  # one that does not vary is no range
            values["strain"] = StrainRange(self.deformation.principal_stretch)
        return SeriesRequest(**values)

    def experiment(self) -> Experiment:
        """Return the experiment whose bound can be simulated without a run of the workflow."""
        from pacbed.precision.design import Experiment

        angles = self.microscope.semiangles_mrad
        return Experiment(
            request=self.request(angles[0], Deformation()),
            apertures=tuple(map(self.microscope.aperture, angles)),
            examples=self.augmentation(),
            ranges=self.deformation.draw_ranges(),
            steps=self.bound.steps(),
            engine=self.simulation.planewave.settings(),
        )

    def of_patterns(self) -> dict[str, Any]:
        """Return what existing patterns depend on: not how many there are, nor for what angles."""
        return {
            "seed": self.seed,
            "material": self.material.plain(),
            "microscope": self.microscope.plain({"semiangles_mrad"}),
            "deformation": self.deformation.plain({"rotation_deg"}),
            "draws": {"shared_strain": self.draws.shared_strain},
            "simulation": self.simulation.used(),
        }


def merge(target: dict[str, Any], overlay: Mapping[str, Any]) -> None:
    """Lay a configuration over another, mappings key by key."""
    for key, value in overlay.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = value
