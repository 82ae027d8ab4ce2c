"""What every engine takes and returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pacbed.exceptions import RequestError
from pacbed.specimen.crystal import Crystal, crystal_of
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture, Detector, ENERGIES_keV

PHYSICS_VERSION = 2
"""Version of the physics, by which a store of patterns is known to be out of date.

Add one when a mistake in the physics of an engine is mended, or when patterns of the same request
change by more than rounding for another reason: existing patterns are then not what is asked for.
"""

# The propagator of a tilted sample is that of small angles.
MAX_TILT_mrad = 100

Device = Literal["cpu", "gpu"]

Progress = Callable[[int, int], None]
"""Called with the number of steps done and their total."""


Motion = Literal["full", "coherent", "none"] | int


@dataclass(frozen=True)
class ThermalMotion:
    """How thermal motion enters.

    Parameters
    ----------
    motion
        ``full``: the coherent part exact, by mean transmissions, the diffuse part sampled.
        ``coherent``: the former alone. ``none``: static atoms. A number: so many frozen-phonon
        configurations for everything, of each plane wave in the plane-wave engine, of the whole
        crystal elsewhere.

    Raises
    ------
    RequestError
        If it is none of these.
    """

    motion: Motion = "full"

    def __post_init__(self) -> None:
        if isinstance(self.motion, bool) or (
            self.motion not in ("full", "coherent", "none")
            if isinstance(self.motion, str)
            else not isinstance(self.motion, int) or self.motion < 1
        ):
            raise RequestError(
                "thermal motion must be full, coherent, none, or a number of frozen-phonon "
                f"configurations, not {self.motion!r}"
            )

    @staticmethod
    def described(stored: Mapping[str, Any]) -> str:
        """Describe the physics of what a store says; how it is computed is a matter of engines."""
        less = {"coherent": "without diffuse scattering", "none": "static atoms"}
        return less.get(str(stored.get("motion")), "frozen phonons")

    @property
    def configurations(self) -> int:
        """Number of frozen-phonon configurations for everything; 0 without."""
        return self.motion if isinstance(self.motion, int) else 0


@dataclass(frozen=True)
class SimulationRequest:
    """One PACBED simulation, whatever engine carries it out.

    Parameters
    ----------
    material, deformation
        The crystal and its in-plane stretch.
    tilt_mrad
        Sample tilt (φx, φy) in the axes of the undeformed crystal, in mrad.
    layers
        Number of layers; a pattern is returned after each.
    energy_keV
        Kinetic energy of the beam in keV.
    aperture, detector
        Illumination and pixels.
    thermal
        Treatment of thermal motion.
    seed
        Seed of everything random in the simulation (phonons, probe placement).
    """

    material: Crystal
    deformation: Deformation
    tilt_mrad: tuple[float, float]
    layers: int
    energy_keV: float
    aperture: Aperture
    detector: Detector
    thermal: ThermalMotion = field(default_factory=ThermalMotion)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise RequestError(f"at least one layer is needed, not {self.layers}")
        most = self.material.most_layers
        if most and self.layers > most:
            raise RequestError(
                f"{self.material.name} is a stack of {most} layer{'s' * (most > 1)}, which does "
                f"not repeat: ask for at most {most}, not {self.layers} (--layers, "
                "simulation.layers)"
            )
        low, high = ENERGIES_keV
        if not low <= self.energy_keV <= high:
            raise RequestError(
                f"beam energy must lie within {low} to {high} keV, not {self.energy_keV:g}"
            )
        if not all(abs(t) < MAX_TILT_mrad for t in self.tilt_mrad):
            raise RequestError(
                f"tilt must be less than {MAX_TILT_mrad} mrad, not {self.tilt_mrad} mrad"
            )
        if self.seed < 0:
            raise RequestError(f"the seed must be 0 or more, not {self.seed}")
        if self.aperture.semiangle_mrad > self.detector.reach_mrad:
            raise RequestError(
                f"semi-angle {self.aperture.semiangle_mrad:g} mrad lies beyond the detector, whose "
                f"field of {self.detector.field_of_view_mrad[0]:g} × "
                f"{self.detector.field_of_view_mrad[1]:g} mrad reaches "
                f"{self.detector.reach_mrad:.4g} mrad: choose a larger field of view"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the request as nested plain values, for provenance."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SimulationRequest:
        """Make a request from :meth:`to_dict`, with lists or tuples."""
        parts = {
            "material": crystal_of(values["material"]),
            "deformation": Deformation(**values["deformation"]),
            "tilt_mrad": tuple(values["tilt_mrad"]),
            "aperture": Aperture(**values["aperture"]),
            "detector": Detector(**{k: tuple(v) for k, v in values["detector"].items()}),
            "thermal": ThermalMotion(**values["thermal"]),
        }
        return cls(**{**values, **parts})


@dataclass(frozen=True)
class SimulationResult:
    """Patterns per layer and how they came about.

    Parameters
    ----------
    patterns
        Shape (layers, ny, nx), float32, fraction of the incident electrons per pixel. Index 0 is
        the pattern after one layer.
    provenance
        Engine, settings and measured quantities, plain values only.
    """

    patterns: np.ndarray
    provenance: Mapping[str, Any]


class Engine(ABC):
    """Computes the patterns of requests.

    Parameters
    ----------
    name
        As the configuration calls it.
    settings
        Numerical settings, a data class.
    """

    name: str
    settings: Any

    def simulate(
        self,
        request: SimulationRequest,
        progress: Progress | None = None,
        checkpoint: Path | None = None,
    ) -> SimulationResult:
        """Compute the patterns of a request; see :meth:`simulate_together`."""
        checkpoints = None if checkpoint is None else [checkpoint]
        return self.simulate_together([request], progress, checkpoints)[0]

    @abstractmethod
    def simulate_together(
        self,
        requests: Sequence[SimulationRequest],
        progress: Progress | None = None,
        checkpoints: Sequence[Path] | None = None,
    ) -> list[SimulationResult]:
        """Compute the patterns of requests of one crystal.

        Parameters
        ----------
        requests
            They differ in aperture, tilt and detector only.
        progress
            Called with the number of steps done and their total.
        checkpoints
            Files, one per request, in which an engine that takes hours keeps what it has done. To
            be removed when the results are stored.

        Raises
        ------
        RequestError
            If this engine cannot carry out the requests with its settings or on this machine.
        EngineError
            If a program outside fails.
        """
