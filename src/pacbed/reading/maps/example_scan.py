"""A scan that is simulated, with known strain, rotation, tilt and thickness at every point.

A ripple runs along x: strain and tilt are functions of the column, so every column has a strain
state of its own, which is simulated by itself and never by a scattering series. The crystal has a
step from three layers to five, and a corner without any. The camera sees an ellipse instead of a
circle, some background, and a centre that drifts; it counts electrons and adds noise of its own.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.engines.planewave.settings import PlaneWaveSettings
from pacbed.engines.request import Motion, SimulationRequest, ThermalMotion
from pacbed.exceptions import PacbedError
from pacbed.machine import Report, memory_limit_bytes
from pacbed.reading.maps.store import BITS, StrainMap
from pacbed.reading.scans.scan import Scan
from pacbed.scattering.image import Camera
from pacbed.scattering.request import StateRequest
from pacbed.scattering.state import ScatteredState, write_scattered
from pacbed.seeding import stream
from pacbed.specimen.crystal import MATERIALS
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture, Detector, disc_share

STRAINED = ("strain_xx", "strain_yy", "strain_xy", "tilt_x_mrad", "tilt_y_mrad")
"""What is a function of x alone."""

# Part of the width that is flat and not strained, and periods of the ripple in the rest.
_FLAT, _PERIODS = 1 / 6, 2
# Principal stretches up to this share their beams.
_LARGEST_STRETCH = 1.03
# Pixels of a camera of 128 by which the centre drifts over the scan, and jitters.
_DRIFT, _JITTER = 2.0, 0.1
# Pixels without and with too much signal.
_DEAD, _HOT = 3, 2


@dataclass(frozen=True)
class Ripple:
    """A rippled crystal of a few layers, and the scan of it.

    Parameters
    ----------
    points
        Points along y and x.
    pixels
        Pixels of the camera along each axis.
    electrons
        Incident electrons of each pattern.
    seed
        Seed of everything random: thermal displacements, drift, counting, camera.
    field_of_view_mrad
        Width of the camera in mrad.
    material, energy_keV, semiangle_mrad, step_nm
        Formula of the crystal, beam, distance between points.
    layers
        Numbers of layers before and after the step.
    strain, tilt_mrad
        Largest strain and tilt.
    rotation_deg
        Rotation of the crystal on the camera, about which it varies by a degree.
    ellipticity, ellipticity_diagonal
        Of the lenses.
    background
        Spread evenly over the camera, as a fraction of the incident electrons.
    counts_per_electron, read_noise
        Of the camera; standard deviation of the noise in counts.
    motion, settings
        Of the simulation: with a finer grid of incident waves than a scattering series has.
    """

    points: tuple[int, int] = (48, 48)
    pixels: int = 128
    electrons: float = 1e5
    seed: int = 19
    field_of_view_mrad: float = 83.2
    material: str = "MoS2"
    energy_keV: float = 80.0
    semiangle_mrad: float = 6.35
    step_nm: float = 2.0
    layers: tuple[int, int] = (3, 5)
    strain: float = 0.012
    tilt_mrad: float = 2.5
    rotation_deg: float = 17.0
    ellipticity: float = 0.004
    ellipticity_diagonal: float = 0.003
    background: float = 0.02
    counts_per_electron: float = 20.0
    read_noise: float = 2.0
    motion: Motion = "full"
    settings: PlaneWaveSettings = field(
        default=PlaneWaveSettings(incident_step_mrad=1.25, diffuse_waves=96)
    )

    def __post_init__(self) -> None:
        if min(self.points) < 4:
            raise PacbedError(
                f"at least 4 × 4 points are needed, not {self.points[0]} × {self.points[1]}"
            )
        if not 32 <= self.pixels <= 1024:
            raise PacbedError(f"a camera needs 32 to 1024 pixels along each side: {self.pixels}")
        if not self.electrons > 0:
            raise PacbedError(f"electrons must be positive, not {self.electrons:g}")
        if self.seed < 0:
            raise PacbedError(f"a seed is a number from zero on, not {self.seed}")
        patterns_GB = 4e-9 * self.points[0] * self.points[1] * self.pixels**2
        if patterns_GB > 0.5e-9 * memory_limit_bytes():
            raise PacbedError(
                f"patterns of {self.points[0]} × {self.points[1]} points take {patterns_GB:.3g} "
                "GB, more than half of the memory: give fewer points or pixels"
            )

    @cached_property
    def truth(self) -> Mapping[str, np.ndarray]:
        """What each point is, shape (ny, nx), by the names of a map.

        Besides: ``cover``, the part of the probe that meets the crystal, and ``thick``, the part of
        it that meets the thicker one.
        """
        ny, nx = self.points
        y, x = np.mgrid[:ny, :nx].astype(float)
        flat = round(nx * _FLAT)
        period = math.ceil((nx - flat) / _PERIODS)
        phase = 2 * np.pi * np.where(x < flat, 0, (x - flat) % period / period)
        rise = (1 - np.cos(phase)) / 2
        found = {
            "strain_xx": self.strain * np.sin(phase),
            "strain_yy": -0.3 * self.strain * np.sin(phase) + 0.3 * self.strain * rise,
            "strain_xy": 0.5 * self.strain * rise,
            "tilt_x_mrad": self.tilt_mrad * np.sin(phase),
            "tilt_y_mrad": 0.4 * self.tilt_mrad * rise,
            "rotation_deg": self.rotation_deg + 0.6 * np.sin(2 * np.pi * y / ny) + 0.4 * x / nx,
        }
        random = stream(self.seed, "example scan", "drift")
        scale = self.pixels / 128
        for axis, along in (("x", y / ny), ("y", x / nx + y / ny)):
            drift = _DRIFT * (along - 0.5) + _JITTER * random.standard_normal(self.points)
            found[f"shift_{axis}_px"] = scale * drift
        found["electrons"] = self.electrons * (1 + 0.02 * random.standard_normal(self.points))
        beyond = y - ny * (0.4 + 0.2 * x / nx)  # points beyond the step
        inside = (nx - 1 - x + y - 0.35 * min(ny, nx)) / math.sqrt(2)  # and from the edge
        found["thick"] = np.clip(beyond + 0.5, 0, 1)
        found["cover"] = np.clip(inside + 0.5, 0, 1)
        thick, cover = found["thick"], found["cover"]
        found["layers"] = np.where(thick > 0.5, self.layers[1], self.layers[0]) * (cover > 0.5)
        mixed = ((cover > 0) & (cover < 1)) | ((cover > 0) & (thick > 0) & (thick < 1))
        found["flags"] = BITS["vacuum or too few electrons"] * (cover == 0) + (
            BITS["mixed area"] * mixed
        )
        return found

    def truth_map(self) -> StrainMap:
        """Return what a map of the scan should find; nothing in vacuum."""
        ny, nx = self.points
        values = {n: v.copy() for n, v in self.truth.items() if n not in ("cover", "thick")}
        vacuum = self.truth["cover"] == 0
        for name in (*STRAINED, "rotation_deg"):
            values[name][vacuum] = np.nan
        said = {
            "material": self.material,
            "energy_keV": self.energy_keV,
            "semiangle_mrad": self.semiangle_mrad,
            "mirrored": False,
            "axes": "crystal",
            "crystal_axes": MATERIALS[self.material].axes,
            "calibration": {
                "pixel_mrad": self.field_of_view_mrad / self.pixels,
                "rotation_deg": self.rotation_deg,
                "ellipticity": [self.ellipticity, self.ellipticity_diagonal],
                "counts_per_electron": self.counts_per_electron,
                "centre_px": [self.pixels // 2] * 2,
                "background": self.background,
            },
            "provenance": {"example": "ripple", **asdict(self)},
        }
        return StrainMap(values, self.step_nm * np.arange(nx), self.step_nm * np.arange(ny), said)

    def camera(self, row: int, column: int) -> Camera:
        """Return how the pattern of a point lies on the camera."""
        known = {n: float(v[row, column]) for n, v in self.truth.items()}
        return Camera(
            self.pixels,
            self.field_of_view_mrad,
            known["rotation_deg"],
            (known["shift_x_px"], known["shift_y_px"]),
            (self.ellipticity, self.ellipticity_diagonal),
        )

    def simulate(self, progress: Report | None = None) -> Scan:
        """Simulate the scan, in counts of the camera.

        Parameters
        ----------
        progress
            Called with the number of columns done and their total.
        """
        ny, nx = self.points
        reach_mrad = max(
            float(np.abs(self.camera(row, column).directions_mrad()[:, ::edge, ::edge]).max())
            for edge in (self.pixels - 1,)
            for row in (0, ny // 4, ny // 2, 3 * ny // 4, ny - 1)
            for column in (0, nx - 1)
        )
        states = np.stack([self.truth[name][0] for name in STRAINED], axis=1)
        distinct, number = np.unique(states.round(9), axis=0, return_inverse=True)
        counts = np.zeros((ny, nx, self.pixels, self.pixels), np.uint16)
        done = 0
        with tempfile.TemporaryDirectory() as folder:
            for n, state in enumerate(distinct):
                path = Path(folder) / f"{n}.zarr.zip"
                self._scatter(path, state, n, 2.04 * reach_mrad)
                scattered = ScatteredState(path)
                for column in np.flatnonzero(number.ravel() == n):
                    counts[:, column] = self._column(scattered, int(column))
                    done += 1
                    if progress is not None:
                        progress(done, nx)
                path.unlink()
        return Scan.of(
            counts,
            name="ripple",
            pixel_mrad=self.field_of_view_mrad / self.pixels,
            step_nm=self.step_nm,
            energy_keV=self.energy_keV,
            semiangle_mrad=self.semiangle_mrad,
            kind="example",
        )

    def _scatter(self, path: Path, state: np.ndarray, number: int, width_mrad: float) -> None:
        request = SimulationRequest(
            MATERIALS[self.material],
            Deformation.from_strain(*map(float, state[:3])),
            (float(state[3]), float(state[4])),
            max(self.layers),
            self.energy_keV,
            Aperture(self.semiangle_mrad),
            Detector((width_mrad,) * 2, (64, 64)),
            ThermalMotion(self.motion),
            int(stream(self.seed, "example scan", "phonons", number).integers(2**31)),
        )
        kept = tuple(sorted(set(self.layers)))
        state_request = StateRequest((request,), kept, _LARGEST_STRETCH)
        write_scattered(path, state_request, PlaneWaveEngine(self.settings))

    def _column(self, scattered: ScatteredState, column: int) -> np.ndarray:
        """Return what the camera counts at all points of a column, shape (ny, pixels, pixels)."""
        known = {name: values[:, column] for name, values in self.truth.items()}
        tilt = float(known["tilt_x_mrad"][0]), float(known["tilt_y_mrad"][0])
        aperture, found = Aperture(self.semiangle_mrad), []
        for row in range(self.points[0]):
            camera = self.camera(row, column)
            cover, thick = known["cover"][row], known["thick"][row]
            image = (1 - cover) * _undiffracted(aperture, camera) if cover < 1 else 0.0
            for part, layers in zip((1 - thick, thick), self.layers, strict=True):
                if cover * part > 0:
                    image = image + cover * part * scattered.image(tilt, aperture, layers, camera)
            found.append(known["electrons"][row] * (image + self.background / self.pixels**2))
        return self._counted(np.stack(found), column)

    def _counted(self, expected: np.ndarray, column: int) -> np.ndarray:
        """Return counts of the camera for the expected electrons of some patterns."""
        random = stream(self.seed, "example scan", "camera", column)
        counts = self.counts_per_electron * random.poisson(np.maximum(expected, 0))
        counts = counts + self.read_noise * random.standard_normal(counts.shape)
        bad = stream(self.seed, "example scan", "bad pixels").integers(
            self.pixels, size=(_DEAD + _HOT, 2)
        )
        for n, (y, x) in enumerate(bad):
            counts[..., y, x] = 0 if n < _DEAD else 60 * self.counts_per_electron
        return np.clip(np.rint(counts), 0, np.iinfo(np.uint16).max).astype(np.uint16)


def _undiffracted(aperture: Aperture, camera: Camera) -> np.ndarray:
    """Return the beam without a crystal, the fraction of the electrons in each pixel."""
    x, y = camera.directions_mrad()
    share, _ = disc_share(x, y, np.hypot(x, y), aperture.semiangle_mrad, camera.matrix)
    return np.asarray(share * camera.pixel_area_mrad2 / aperture.solid_angle_mrad2())


def small_ripple(**changes: Any) -> Ripple:
    """Return a ripple of 6 × 5 points and 64 pixels, simulated in seconds, for tests."""
    settings = PlaneWaveSettings(incident_step_mrad=2.5, diffuse_waves=16)
    few: dict[str, Any] = {"points": (6, 5), "pixels": 64, "motion": "coherent"}
    return Ripple(**{**few, "settings": settings, **changes})
