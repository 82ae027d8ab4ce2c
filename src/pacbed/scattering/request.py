"""What a scattering series is to hold, and the simulations that it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pacbed.engines.request import Motion, SimulationRequest, ThermalMotion
from pacbed.exceptions import RequestError
from pacbed.scattering.strain import StrainRange, deformation_of, exponents
from pacbed.seeding import stream
from pacbed.specimen.crystal import Crystal, crystal_of
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture, Detector

# Cones in which the diffuse scattering is sampled, over the largest: densest near the axis, for the
# small apertures.
_CONES = (1.0, 0.6, 0.3)
# States per term of a polynomial: fewer would follow the states and not what lies between.
_STATES_PER_TERM = 1.5


def degree_for(states: int) -> int:
    """Return the degree, three at most, that so many strain states allow."""
    fit = [d for d in (3, 2) if states >= _STATES_PER_TERM * len(exponents(d))]
    return fit[0] if fit else 1


@dataclass(frozen=True)
class StateRequest:
    """One strain state, and what is wanted of it.

    Parameters
    ----------
    simulations
        What is simulated together, one for each cone of incidence. They differ in aperture, tilt
        and detector only; of the detector only the field of view matters.
    kept
        Numbers of layers that are kept.
    largest_stretch
        Largest principal stretch of all states that are to have the same beams.
    """

    simulations: tuple[SimulationRequest, ...]
    kept: tuple[int, ...]
    largest_stretch: float

    @property
    def material(self) -> Crystal:
        """The crystal."""
        return self.simulations[0].material

    @property
    def deformation(self) -> Deformation:
        """Its deformation."""
        return self.simulations[0].deformation

    @property
    def energy_keV(self) -> float:
        """Beam energy in keV."""
        return self.simulations[0].energy_keV

    @property
    def motion(self) -> Motion:
        """Thermal motion."""
        return self.simulations[0].thermal.motion

    @property
    def reach_mrad(self) -> float:
        """Largest angle, along x or y and in the frame of the crystal, of a pixel in mrad."""
        return max(
            max(one.detector.field_of_view_mrad) / 2 + max(map(abs, one.tilt_mrad))
            for one in self.simulations
        )

    def tilt_mrad(self, aperture: Aperture) -> tuple[float, float]:
        """Return the sample tilt (φx, φy) in mrad that was simulated with an aperture.

        Raises
        ------
        RequestError
            If none was.
        """
        for one in self.simulations:
            if one.aperture == aperture:
                return one.tilt_mrad
        raise RequestError(
            f"the strain state was not simulated for a semi-angle of {aperture.semiangle_mrad:g} "
            "mrad: simulate it again"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the request as nested plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StateRequest:
        """Make a request from :meth:`to_dict`."""
        simulations = tuple(map(SimulationRequest.from_dict, values["simulations"]))
        return cls(simulations, tuple(values["kept"]), values["largest_stretch"])


@dataclass(frozen=True)
class SeriesRequest:
    """What a scattering series is to hold.

    Parameters
    ----------
    material
        The crystal.
    energy_keV
        Beam energy in keV.
    layers
        Largest number of layers; the series holds all thicknesses up to it.
    strain
        Range of strain.
    semiangle_mrad
        Largest angle of an aperture, its soft edge included, in mrad.
    tilt_mrad
        Largest angle between the beam and the normal of the crystal, in mrad.
    field_of_view_mrad
        Full width of the square in which patterns are known, in mrad.
    states
        Number of strain states that are simulated.
    degree
        Degree of the polynomials of the Bragg beams.
    motion
        Thermal motion: ``full``, ``coherent`` or ``none``.
    seed
        Seed of the thermal displacements, different in each state.

    Raises
    ------
    RequestError
        If there are too few states for the degree, or frozen phonons are asked for.
    """

    material: Crystal
    energy_keV: float
    layers: int
    strain: StrainRange
    semiangle_mrad: float
    tilt_mrad: float
    field_of_view_mrad: float
    states: int = 50
    degree: int = 3
    motion: Motion = "full"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.degree <= 5:
            raise RequestError(f"the degree of a series must lie within 1 to 5, not {self.degree}")
        terms = len(exponents(self.degree))
        needed = math.ceil(_STATES_PER_TERM * terms)
        if self.states < needed:
            raise RequestError(
                f"{self.states} strain states are too few for polynomials of degree "
                f"{self.degree}, which have {terms} terms: choose at least {needed} states or a "
                "smaller degree"
            )
        if isinstance(self.motion, int):
            raise RequestError(
                "a series needs smooth beams: thermal motion full, coherent or none, not a number "
                "of frozen-phonon configurations"
            )
        if self.tilt_mrad < 0:
            raise RequestError(f"the largest tilt must be 0 or more, not {self.tilt_mrad} mrad")
        if self.semiangle_mrad > self.field_of_view_mrad / 2:
            raise RequestError(
                f"the semi-angle of {self.semiangle_mrad:g} mrad lies beyond the field of view of "
                f"{self.field_of_view_mrad:g} mrad: choose a larger one"
            )
        self.requests(0)

    def strains(self) -> np.ndarray:
        """Return the strains (xx, yy, xy) of the states, shape (states, 3)."""
        return self.strain.states(self.states)

    def requests(self, state: int) -> list[SimulationRequest]:
        """Return what is simulated together for a strain state.

        Raises
        ------
        RequestError
            If it is impossible.
        """
        width = self.field_of_view_mrad + 2 * self.tilt_mrad
        # The pixels are not used, but for how far they reach.
        detector = Detector((width, width), (64, 64))
        seed = int(stream(self.seed, "series", state).integers(2**31))
        return [
            SimulationRequest(
                self.material,
                deformation_of(self.strains()[state]),
                (0.0, 0.0),
                self.layers,
                self.energy_keV,
                Aperture(share * (self.semiangle_mrad + self.tilt_mrad)),
                detector,
                ThermalMotion(self.motion),
                seed,
            )
            for share in _CONES
        ]

    def state(self, number: int) -> StateRequest:
        """Return a strain state."""
        layers = tuple(range(1, self.layers + 1))
        return StateRequest(tuple(self.requests(number)), layers, self.strain.stretch[1])

    @property
    def reach_mrad(self) -> float:
        """Largest angle, along x or y and in the frame of the crystal, of a pixel in mrad."""
        return self.field_of_view_mrad / 2 + self.tilt_mrad

    def to_dict(self) -> dict[str, Any]:
        """Return the request as nested plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SeriesRequest:
        """Make a request from :meth:`to_dict`."""
        material, strain = crystal_of(values["material"]), StrainRange(**values["strain"])
        return cls(**{**values, "material": material, "strain": strain})
