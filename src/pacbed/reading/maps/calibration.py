"""What the patterns of a scan have in common, as it is kept: geometry, camera, orientation."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from pacbed.exceptions import PacbedError
from pacbed.reading.scans.scan import Scan
from pacbed.scattering.image_model import ALWAYS_FREE, COLUMN, UNKNOWNS, Noise
from pacbed.scattering.mtf import MTF
from pacbed.storage.files import write_text

LOCAL = tuple(name for name in ALWAYS_FREE if name != "log_scale")
"""What is unknown at each point."""

COMMON = tuple(name for name in UNKNOWNS if name not in LOCAL)
"""What all points have in common."""

NOT_KEPT = (ValueError, TypeError, KeyError, AttributeError)
"""What is raised where JSON holds something else than it should."""

# Relative difference between sizes of pixels from which on a calibration is of other ones.
_OTHER_PIXELS = 0.1


@dataclass(frozen=True)
class Calibration:
    """What all patterns of a scan have in common.

    Parameters
    ----------
    pixel_mrad
        Size of a pixel in mrad.
    pixel_uncertainty
        Its relative standard deviation.
    semiangle_mrad, semiangle_sigma_mrad
        Semi-angle and its standard deviation in mrad.
    ellipticity, ellipticity_diagonal
        By which part angles are larger along x (and smaller along y) than the pixels say, and the
        same along the diagonals.
    blur_px
        Standard deviation of the point spread in pixels.
    background, halo
        Fractions of the electrons that are spread evenly, and as a broad Gaussian.
    centre_px
        Where zero angle lies in the mean, in pixels (x, y).
    rotation_deg
        Direction of the zigzag axis of the crystal in the patterns, counter-clockwise from x.
    turn_told_apart
        Whether the patterns tell that the crystal is not turned by another 180°, or it would be the
        same then.
    mirrored
        Whether patterns were mirrored; None if nobody knows.
    counts_per_electron
        Gain of the camera.
    read_noise_counts
        Standard deviation of what the camera adds to each pixel.
    residuals
        χ² per pixel that was left, if the gain is that which neighbouring pixels show.
    masked_px
        Pixels (x, y) that do not count.
    mtf
        Modulation transfer function of the camera, if one was given.
    common_sigma
        Standard deviation that all points have in common, of strains, rotation and tilt.
    points
        Number of points of the joint fit.
    sources
        Where values come from: file, option or fit.
    """

    pixel_mrad: float
    pixel_uncertainty: float
    semiangle_mrad: float
    semiangle_sigma_mrad: float
    centre_px: tuple[float, float]
    rotation_deg: float
    ellipticity: float = 0.0
    ellipticity_diagonal: float = 0.0
    blur_px: float = 0.0
    background: float = 0.0
    halo: float = 0.0
    turn_told_apart: bool = True
    mirrored: bool | None = None
    counts_per_electron: float = 1.0
    read_noise_counts: float = 0.0
    residuals: float = 1.0
    masked_px: tuple[tuple[int, int], ...] = ()
    mtf: MTF | None = None
    common_sigma: Mapping[str, float] = field(default_factory=dict)
    points: int = 0
    sources: Mapping[str, str] = field(default_factory=dict)

    def common(self, bins: int = 1) -> np.ndarray:
        """Return the state of an undeformed crystal without tilt, shape (unknowns,)."""
        state = np.zeros(len(UNKNOWNS))
        for name in ("ellipticity", "ellipticity_diagonal", "background", "halo"):
            state[COLUMN[name]] = getattr(self, name)
        state[COLUMN["blur_px"]] = self.blur_px / bins
        return state

    def noise(self, model_error: float, patterns: float = 1, bins: int = 1) -> Noise:
        """Return the noise of sums of so many patterns."""
        read = self.read_noise_counts / self.counts_per_electron
        return Noise(read * math.sqrt(patterns) * bins, model_error)

    def check(self, scan: Scan) -> None:
        """Check that it may be that of the patterns of a scan.

        Raises
        ------
        PacbedError
            If they have pixels of another size, are mirrored otherwise, or end before its centre.
        """
        (x, y), (ny, nx) = self.centre_px, scan.pattern_shape
        why = ""
        if scan.pixel_mrad and abs(scan.pixel_mrad / self.pixel_mrad - 1) > _OTHER_PIXELS:
            why = f"pixels of {self.pixel_mrad:.4g} mrad, not {scan.pixel_mrad:.4g} mrad"
        elif bool(self.mirrored) != bool(scan.mirrored):
            why = f"patterns that are{'' if self.mirrored else ' not'} mirrored"
        elif not (0 <= x < nx and 0 <= y < ny):
            why = f"larger patterns, with the centre at x {x:.4g}, y {y:.4g}"
        if why:
            raise PacbedError(
                f"the calibration is of {why}: check crop, bins, --pixel-mrad and --mirrored, or "
                "leave out --calibration"
            )

    def write(self, path: Path) -> None:
        """Write a small file that can be read, and edited, by people."""
        write_text(path, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Calibration:
        """Read a calibration.

        Raises
        ------
        PacbedError
            If the file is none.
        """
        try:
            return cls.of(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise PacbedError(f"cannot read {path}: {error.strerror}") from error
        except (*NOT_KEPT, PacbedError) as error:
            raise PacbedError(
                f"{path} is no calibration of a scan ({error}): make one with pacbed map"
            ) from error

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Calibration:
        """Return the calibration that JSON keeps; raise one of :data:`NOT_KEPT` if it is none."""
        known = dict(values)
        known["centre_px"] = tuple(map(float, known["centre_px"]))
        known["masked_px"] = tuple((int(x), int(y)) for x, y in known.get("masked_px", ()))
        if mtf := known.get("mtf"):
            known["mtf"] = MTF(**mtf)
        found = cls(**known)
        numbers = [getattr(found, f.name) for f in fields(cls) if f.type == "float"]
        good = all(map(math.isfinite, [*numbers, *found.centre_px]))
        sizes = found.pixel_mrad, found.semiangle_mrad, found.counts_per_electron
        if not good or min(sizes) <= 0:
            raise ValueError("numbers must be finite, sizes and gains positive")
        return found
