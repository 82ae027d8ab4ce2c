"""What the patterns of a scan have in common: geometry, camera and orientation of the crystal.

Scale, ellipticity, semi-angle, blur and background are the same at all points. Fitted for each
point, they would take most of what a pattern tells of strain; a fit of the mean pattern, in which
strain varies, would be biased. So they follow from one joint fit of some fifty points, of which
each has its own strain, rotation, tilt, shift and dose.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from pacbed.exceptions import PacbedError
from pacbed.machine import Report
from pacbed.reading.discs import nearest_reflection_mrad
from pacbed.reading.fit import Fit, FitSettings
from pacbed.reading.map_settings import CalibrationSettings, MapSettings
from pacbed.reading.patterns import (
    Pattern,
    Window,
    clean,
    find_centres,
    find_radius_px,
    noise_per_count,
    read_noise,
    window,
)
from pacbed.reading.pixels import finite_mean, put_together, whole
from pacbed.reading.scans import Scan
from pacbed.reading.start import Dictionary, SearchRange, coarse_bins
from pacbed.reading.thickness import ThicknessFit
from pacbed.scattering.image_model import ALWAYS_FREE, COLUMN, TILT, UNKNOWNS, Frame, Noise
from pacbed.scattering.mtf import MTF, read_mtf
from pacbed.scattering.series import ScatteringSeries
from pacbed.specimen.microscope import Aperture
from pacbed.specimen.polytypes import is_hexagonal
from pacbed.storage.files import write_text

LOCAL = tuple(name for name in ALWAYS_FREE if name != "log_scale")
"""What is unknown at each point."""

COMMON = tuple(name for name in UNKNOWNS if name not in LOCAL)
"""What all points have in common."""

NOT_KEPT = (ValueError, TypeError, KeyError, AttributeError)
"""What is raised where JSON holds something else than it should."""

# What is known of these before: mean and standard deviation.
_PRIORS = {
    "ellipticity": (0.0, 0.02),
    "ellipticity_diagonal": (0.0, 0.02),
    "blur_px": (0.7, 0.7),
    "background": (0.0, 0.1),
    "halo": (0.0, 0.1),
}
# Mean and standard deviation of a blur that an MTF does not have.
_BESIDES_MTF = (0.0, 0.3)
# Standard deviation of an unknown that is held, and of the strain of an unstrained region.
_HELD, _UNSTRAINED = 1e-5, 1e-4
# Points that are looked at, and that take part in the joint fit.
_LOOKED_AT, _POINTS = 144, 50
# Electrons that are scattered, over those of the best places, at a point of the crystal.
_CRYSTAL = 0.5
# Radius of the central disc by which scattered electrons are counted, over its own.
_INSIDE = 1.15
# The disc is looked for so many times where its electrons are.
_CENTRINGS = 3
# Turns in which a dictionary looks are so far apart at most.
_TURNS_deg = 20.0
# Points whose χ² is so many times the median do not take part.
_ODD = 1.5
_STEPS, _GAIN = 15, 0.05
# Relative difference between sizes of pixels from which on a calibration is of other ones.
_OTHER_PIXELS = 0.1
# Variance by the model error over that of counted electrons, where the gain is looked for.
_SMALL_PART = 0.05
# A turn by half a circle is told from none if χ² differs by more: three standard deviations.
_TOLD_APART = 9.0
# Residuals so much larger than the noise between neighbours show that the model does not fit.
LARGE_RESIDUALS = 2.0
# Thicknesses by which the orientation is looked for.
_DICTIONARIES = 3


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


@dataclass(frozen=True)
class Cut:
    """The part of all patterns that is compared with a series.

    Parameters
    ----------
    part
        Of the mean pattern.
    frame
        Its pixels; their origin is the centre of the mean pattern.
    """

    part: Window
    frame: Frame

    @classmethod
    def of(
        cls,
        pattern: Pattern,
        series: ScatteringSeries,
        pixel_mrad: float,
        semiangle_mrad: float,
        centre_px: tuple[float, float] | None = None,
        mtf: MTF | None = None,
    ) -> Cut:
        """Cut out what is known around the centre of a mean pattern."""
        request = series.request
        reach = request.field_of_view_mrad / 2
        spacing = spacing_mrad(series)
        part = window(pattern, pixel_mrad, semiangle_mrad, spacing, reach, centre_px)
        x, y = map(float, part.centres[0])
        ny, nx = part.image.shape
        mtf = mtf and mtf.of_pixels(part.bins)
        return cls(part, Frame((ny, nx), part.pixel_mrad, (x, y), mtf=mtf))

    @property
    def bins(self) -> int:
        """Pixels of the camera along each axis that are put together."""
        return self.part.bins

    def pixels(self, patterns: np.ndarray) -> np.ndarray:
        """Return the pixels of the camera that belong to this part."""
        x, y = self.part.corner
        ny, nx = (n * self.bins for n in self.part.image.shape)
        return patterns[..., y : y + ny, x : x + nx]

    def images(self, patterns: np.ndarray) -> np.ndarray:
        """Return this part of patterns, shape (patterns, ny, nx), and 0 where all are masked.

        What is not finite in a pattern is no number.
        """
        part = put_together(self.pixels(patterns), self.bins)
        images = np.where(self.part.mask, np.where(np.isfinite(part), part, np.nan), 0)
        return images.astype(np.float32)

    def masks(self, images: np.ndarray) -> np.ndarray:
        """Return which pixels of such images count, same shape."""
        return np.asarray(self.part.mask & np.isfinite(images))


def spacing_mrad(series: ScatteringSeries) -> float:
    """Return the distance between neighbouring discs in mrad."""
    return nearest_reflection_mrad(series.request.material, series.request.energy_keV)


def mask_without(shape: tuple[int, int], masked_px: Sequence[Sequence[int]]) -> np.ndarray:
    """Return which pixels count, shape (ny, nx), if some, (x, y), do not."""
    mask = np.ones(shape, bool)
    x, y = np.array(masked_px, int).reshape(-1, 2).T
    inside = (x >= 0) & (y >= 0) & (x < shape[1]) & (y < shape[0])
    mask[y[inside], x[inside]] = False
    return mask


class WindowSums:
    """Weighted sums of patterns; those that are mostly no numbers do not count.

    A sum is scaled so that its variance is its mean, as that of counted electrons. A pixel that is
    not finite in some of the patterns is filled up by the others; if these have less than half of
    the weights, it is no number.

    Parameters
    ----------
    shape
        Of all sums: (sums, ky, kx).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._total = np.zeros(shape, np.float32)
        self._weights = np.zeros((2, shape[0]))
        self._missing: np.ndarray | None = None

    def add(self, rows: np.ndarray, patterns: np.ndarray, weight: float) -> None:
        """Add a pattern to each of some sums, with a weight."""
        finite = np.isfinite(patterns)
        good = finite.mean(axis=(-2, -1)) >= 0.5
        rows, patterns, finite = rows[good], patterns[good], finite[good]
        if not finite.all():
            if self._missing is None:
                self._missing = np.zeros_like(self._total)
            self._missing[rows] += np.float32(weight) * ~finite
            patterns = np.where(finite, patterns, 0)
        self._total[rows] += np.float32(weight) * patterns
        self._weights[:, rows] += np.array([[weight], [weight**2]])

    @property
    def sums(self) -> np.ndarray:
        """The sums; not a number where no pattern counts."""
        first, second = self._weights
        scale = np.divide(first, second, out=np.full(len(first), np.nan), where=second > 0)
        sums = self._total * scale.astype(np.float32)[:, None, None]
        if self._missing is not None:
            part = 1 - self._missing / np.maximum(first, 1e-9).astype(np.float32)[:, None, None]
            sums /= np.where(part >= 0.5, part, np.nan)
        return sums


def window_sums(scan: Scan, places: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return :class:`WindowSums` of the patterns of squares of points.

    Parameters
    ----------
    scan
        The scan.
    places
        Row and column of the middle of each square, shape (n, 2); what lies outside of the scan is
        left out.
    weights
        Of the points of a square, shape (window, window).
    """
    found = WindowSums((len(places), *scan.pattern_shape))
    for offset, weight in np.ndenumerate(weights):
        at = places + np.array(offset) - (len(weights) - 1) // 2
        inside = np.flatnonzero(((at >= 0) & (at < scan.shape)).all(axis=1))
        found.add(inside, scan.points(at[inside]), weight)
    return found.sums


def scattered(images: np.ndarray, centre_px: Sequence[float], radius_px: float) -> np.ndarray:
    """Return which part of the electrons lies outside the central disc, shape (patterns,).

    The disc of each pattern may have drifted by half of its radius.
    """
    ny, nx = images.shape[-2:]
    y, x = np.ogrid[:ny, :nx]
    total = np.maximum(images.sum(axis=(-2, -1), dtype=float), 1e-9)
    centre, inside = np.broadcast_to(np.asarray(centre_px, float), (len(images), 2)), total
    for _ in range(_CENTRINGS):
        at_x, at_y = centre.T[:, :, None, None]
        seen = images * (np.hypot(x - at_x, y - at_y) < _INSIDE * radius_px)
        inside = seen.sum(axis=(-2, -1), dtype=float)
        moments = [(seen * axis).sum(axis=(-2, -1), dtype=float) for axis in (x, y)]
        centre = np.where(inside > 0, moments / np.maximum(inside, 1e-9), centre.T).T
    return np.asarray(1 - inside / total)


def calibrate(
    scan: Scan,
    series: ScatteringSeries,
    settings: MapSettings,
    known: CalibrationSettings | None = None,
    report: Report | None = None,
) -> Calibration:
    """Find out what all patterns of a scan have in common.

    Parameters
    ----------
    scan
        The scan; its semi-angle must be known.
    series
        What the crystal does to all waves.
    settings
        How its map is made.
    known
        What is known.
    report
        Receives how far it is.

    Raises
    ------
    PacbedError
        If the semi-angle is not known, there is no crystal, or no disc is seen.
    """
    step = _Steps(report)
    step("mean pattern")
    sample = _sample(scan, settings)
    step("orientation")
    joint = _Joint.begin(sample, series, settings, known or CalibrationSettings())
    step("start of the points")
    joint.start()
    step("joint fit")
    joint.solve()
    joint.learn_noise()
    joint.solve()
    step("turn by 180°")
    told = joint.choose_turn()
    step("done")
    return joint.calibration(scan, told)


class _Steps:
    """Says which step has begun."""

    def __init__(self, report: Report | None) -> None:
        self._report, self._done = report, 0

    def __call__(self, what: str) -> None:
        if self._report:
            self._report(self._done, 5, what)
        self._done += 1


@dataclass
class _Sample:
    """Patterns of some points of the crystal."""

    patterns: np.ndarray
    places: np.ndarray
    mean: Pattern
    pixel_mrad: float
    pixel_known: bool
    semiangle_mrad: float
    centre_px: tuple[float, float]
    radius_px: float
    bins: int


def grid(shape: tuple[int, int], most: int) -> np.ndarray:
    """Return at most about so many places, evenly spread over a scan, shape (n, 2)."""
    spacing = max(1.0, math.sqrt(shape[0] * shape[1] / most))
    axes = [
        np.unique(
            ((np.arange(max(1, round(n / spacing))) + 0.5) * n / max(1, round(n / spacing))).astype(
                int
            )
        )
        for n in shape
    ]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)


def _sample(scan: Scan, settings: MapSettings) -> _Sample:
    """Choose points of the crystal, which scatter as much as the best places do."""
    semiangle = scan.semiangle_mrad
    if semiangle is None:
        raise PacbedError(f"{scan.name} does not say the semi-angle: give it with --semiangle")
    places = grid(scan.shape, _LOOKED_AT)
    if settings.reference is not None and scan.pixel_mrad is None:
        x0, y0, x1, y1 = settings.reference
        inside = grid((y1 - y0, x1 - x0), _POINTS // 2) + np.array([y0, x0])
        places = np.unique(np.concatenate([places, inside]), axis=0)
    patterns = window_sums(scan, places, settings.window_weights)
    known = np.isfinite(patterns).mean(axis=(1, 2)) > 0.5
    if not known.any():
        raise PacbedError(f"{scan.name}: no pattern that was looked at has finite numbers")
    places, patterns = places[known], patterns[known]
    mean = clean(_mean(scan.name, patterns))
    patterns = np.where(mean.mask, patterns, 0).astype(np.float32)
    radius = find_radius_px(mean)
    pixel = scan.pixel_mrad or semiangle / radius
    if scan.pixel_mrad:
        radius = semiangle / pixel
    first = find_centres(mean, radius, 2.5 * radius)[0]
    seen = whole(patterns, np.isfinite(patterns))
    part, total = scattered(seen, first, radius), seen.sum(axis=(1, 2))
    bright = total > 0.3 * np.quantile(total, 0.9)
    if not bright.any():
        raise PacbedError(f"{scan.name} is empty: no pattern has electrons")
    crystal = bright & (part > _CRYSTAL * np.quantile(part[bright], 0.9))
    chosen = np.flatnonzero(crystal)
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(len(chosen), _POINTS)).round().astype(int)]
    own = _mean(scan.name, patterns[chosen])
    usable = mean.mask & np.isfinite(own.image)
    return _Sample(
        patterns[chosen],
        places[chosen],
        replace(own, image=np.where(usable, own.image, 0), mask=usable),
        pixel,
        scan.pixel_mrad is not None,
        semiangle,
        (float(first[0]), float(first[1])),
        radius,
        scan.options.bins,
    )


def _mean(name: str, patterns: np.ndarray) -> Pattern:
    image = finite_mean(patterns)
    return Pattern(name, image, np.ones(image.shape, bool))


@dataclass
class _Joint:
    """The joint fit of some points."""

    sample: _Sample
    settings: MapSettings
    known: CalibrationSettings
    cut: Cut
    fit: Fit
    counts: np.ndarray
    gain: float
    rotation_deg: float
    layers: np.ndarray
    states: np.ndarray
    first_gain: float
    mtf: MTF | None = None
    chi2: np.ndarray = field(default_factory=lambda: np.ones(0))
    covariance: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    response: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0)))

    @classmethod
    def begin(
        cls,
        sample: _Sample,
        series: ScatteringSeries,
        settings: MapSettings,
        given: CalibrationSettings,
    ) -> _Joint:
        """Find the orientation of the crystal by the mean pattern."""
        pixel, angle = sample.pixel_mrad, sample.semiangle_mrad
        mtf = read_mtf(given.mtf).of_pixels(given.mtf_bins * sample.bins) if given.mtf else None
        cut = Cut.of(sample.mean, series, pixel, angle, mtf=mtf)
        counts = cut.images(sample.patterns)
        gain = given.counts_per_electron
        each = list(zip(np.nan_to_num(counts), cut.masks(counts), strict=True))
        first = float(np.median([noise_per_count(one, mask) for one, mask in each]))
        gain = gain or first
        read = float(np.median([read_noise(one, mask) for one, mask in each])) / gain
        known = sample.pixel_known
        held = known or settings.reference is None
        priors = dict(_PRIORS)
        if mtf:
            priors["blur_px"] = _BESIDES_MTF
        priors |= {f"tilt_{axis}_mrad": (0.0, max(series.request.tilt_mrad, 0.1)) for axis in "xy"}
        angle = given.semiangle_uncertainty
        if known:
            priors |= {"log_scale": (0.0, _HELD), "log_semiangle": (0.0, angle)}
        else:
            priors |= {"log_semiangle": (0.0, _HELD if held else angle)}
            priors |= {"log_scale": (0.0, 0.1)}
        unknown = FitSettings(UNKNOWNS, priors, Noise(read, settings.model_error))
        aperture = Aperture(sample.semiangle_mrad)
        fit = Fit(series, aperture, max(settings.layers), cut.frame, unknown)
        states = np.zeros((len(counts), len(UNKNOWNS)))
        layers = np.zeros(len(counts), int)
        joint = cls(sample, settings, given, cut, fit, counts, gain, 0.0, layers, states, first)
        joint.mtf = mtf
        joint._check_crystal(sample)
        joint.rotation_deg = joint._orientation(sample.mean)
        return joint

    @property
    def images(self) -> np.ndarray:
        """Electrons of each pixel, shape (points, ny, nx); no number where it is not finite."""
        return self.counts / self.gain

    @property
    def masks(self) -> np.ndarray:
        """Which pixels count, same shape."""
        return self.cut.masks(self.counts)

    def _check_crystal(self, sample: _Sample) -> None:
        """Refuse patterns that scatter much less than the thinnest crystal would."""
        model = self.fit.for_layers(min(self.settings.layers)).model(coarse_bins(self.fit))
        image = model.images(self._guess()[None]).reshape(1, *model.frame.shape)
        radius = sample.semiangle_mrad / model.frame.pixel_mrad
        thin = scattered(image, model.frame.origin_px, radius)[0]
        patterns = whole(sample.patterns, np.isfinite(sample.patterns))
        seen = np.median(scattered(patterns, sample.centre_px, sample.radius_px))
        if seen < _CRYSTAL * thin:
            raise PacbedError(
                f"{sample.mean.name}: no crystal was found. Of the electrons {seen:.1%} lie "
                f"outside the central disc, with {min(self.settings.layers)} layers it would be "
                f"{thin:.1%}: check --layers, --semiangle, --pixel-mrad and the area"
            )

    def _guess(self) -> np.ndarray:
        state = np.zeros(len(UNKNOWNS))
        state[COLUMN["blur_px"]] = _BESIDES_MTF[1] if self.mtf else _PRIORS["blur_px"][0]
        return state

    def _orientation(self, mean: Pattern) -> float:
        """Return the rotation of the mean pattern; of equal axes, that near the given direction."""
        near = self.known.zigzag_near_deg
        # Zigzag axes are 60° apart; those of a lattice that is not hexagonal repeat after 180°.
        half = 30.0 if is_hexagonal(self.fit.series.request.material) else 90.0
        turns = np.arange(_TURNS_deg / 2 - half, half, _TURNS_deg)
        search = SearchRange(tuple(near + float(turn) for turn in turns))
        image = self.cut.images(mean.image[None]) / self.gain * len(self.counts)
        numbers = np.array(sorted(self.settings.layers))
        few = np.unique(np.linspace(0, len(numbers) - 1, _DICTIONARIES).round().astype(int))
        best, least = near, math.inf
        for layers in numbers[few].tolist():
            fit = self.fit.for_layers(layers)
            book = Dictionary(fit, search, self.cut.part.mask, self._guess())
            starts = book.candidates(image, 4)[0][:, 0]
            many = np.repeat(image, len(starts), axis=0)
            masks = np.broadcast_to(self.cut.part.mask, many.shape)
            found = fit.fit(many, starts, masks=masks, bins=(book.bins,))
            row = int(found.deviance.argmin())
            if found.deviance[row] < least:
                least, best = found.deviance[row], found.column("rotation_deg")[row]
        away = (best - near + half) % (2 * half) - half
        return float(near + away)

    def start(self) -> None:
        """Fit each point by itself, with the common unknowns, too."""
        search = SearchRange((self.rotation_deg,))
        fits = ThicknessFit(
            self.fit, self.settings.layers, search, self.cut.part.mask, self._guess()
        )
        found = fits.fit(self.images, masks=self.masks, fine=False)
        self.layers, self.states = found.layers, found.fit.states
        good = found.fit.chi2_per_pixel < _ODD * np.median(found.fit.chi2_per_pixel)
        good &= found.probabilities.max(axis=1) > 0.5
        self._keep(good if good.sum() >= min(len(good), 5) else np.ones(len(good), bool))

    def _keep(self, rows: np.ndarray) -> None:
        self.counts, self.layers = self.counts[rows], self.layers[rows]
        self.states = self.states[rows]
        self.sample = replace(
            self.sample, patterns=self.sample.patterns[rows], places=self.sample.places[rows]
        )

    def _priors(self) -> tuple[np.ndarray, np.ndarray]:
        """Return means and inverse variances of the unknowns at each point."""
        shape = len(self.states), len(UNKNOWNS)
        mean, weight = np.zeros(shape), np.zeros(shape)
        for name, (middle, sigma) in self.fit.settings.priors.items():
            mean[:, COLUMN[name]], weight[:, COLUMN[name]] = middle, sigma**-2
        common = [COLUMN[name] for name in COMMON]
        weight[:, common] /= len(self.states)  # together they are one
        if self.settings.reference is not None and not self.sample.pixel_known:
            x0, y0, x1, y1 = self.settings.reference
            y, x = self.sample.places.T
            inside = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
            weight[inside, :3] = _UNSTRAINED**-2
        return mean, weight

    def _assess(self, states: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """Return deviance, slopes, information and χ² of each point, priors included."""
        count, unknowns = states.shape
        slopes = np.zeros((count, unknowns))
        information = np.zeros((count, unknowns, unknowns))
        deviance, chi2 = 0.0, np.zeros(count)
        for layers in np.unique(self.layers).tolist():
            rows = np.flatnonzero(self.layers == layers)
            images = np.nan_to_num(self.images[rows]).reshape(len(rows), -1).astype(np.float32)
            masks = self.masks[rows].reshape(images.shape).astype(np.float32)
            model = self.fit.for_layers(layers).model()
            found = model.assess(states[rows], images, np.zeros_like(images), masks)
            deviance += float(found.deviance.sum())
            slopes[rows], information[rows] = found.slopes, found.information
            chi2[rows] = found.chi2 / np.maximum(masks.sum(axis=1), 1)
        mean, weight = self._priors()
        away = states - mean
        deviance += float((weight * away**2).sum())
        slopes -= weight * away
        information += weight[:, :, None] * np.eye(unknowns)
        return deviance, slopes, information, chi2

    def solve(self) -> None:
        """Improve all unknowns at once; local ones are eliminated point by point."""
        local, common = ([COLUMN[n] for n in names] for names in (LOCAL, COMMON))
        self.states[:, common] = np.median(self.states[:, common], axis=0)
        best = self._assess(self.states)
        damping = 1e-4
        for _ in range(_STEPS):
            _, slopes, information, _ = best
            damped = information * (1 + damping * np.eye(len(UNKNOWNS)))
            step, promised = _joint_step(damped, slopes, local, common)
            trial = self.fit.within_range(self.states + step)
            trial[:, common] = trial[0, common]
            new = self._assess(trial)
            if new[0] < best[0]:
                self.states, best, damping = trial, new, max(damping * 0.1, 1e-7)
                if promised < _GAIN:
                    break
            elif damping > 1e3 or promised < _GAIN:
                break
            else:
                damping *= 10
        self.chi2 = best[3]
        self.covariance, self.response = _common_covariance(best[2], local, common)

    def learn_noise(self) -> None:
        """Learn gain and noise of the camera from the residuals of all points."""
        expected = np.concatenate(
            [
                self.fit.for_layers(n).model().images(state[None])
                for n, state in zip(self.layers.tolist(), self.states, strict=True)
            ]
        )
        images = self.images.reshape(len(expected), -1)
        masks = self.masks.reshape(images.shape)
        mean, square = (a[masks] for a in (expected, (images - expected) ** 2))
        error = self.settings.model_error
        # Where the model error is a small part of the noise.
        counted = mean * error**2 < _SMALL_PART
        mean, square = np.maximum(mean[counted], 0), square[counted]
        # Means of groups of pixels that are equally bright, of which the variance is a line.
        groups = np.array_split(np.argsort(mean), 40)
        x, y = (np.array([v[g].mean() for g in groups]) for v in (mean, square))
        weight = 1 / np.maximum(y, 1e-3 * y.max() + 1e-9)
        if self.known.counts_per_electron is None:
            design = np.stack([x, np.ones_like(x)], 1) * weight[:, None]
            slope, offset = np.linalg.lstsq(design, y * weight, rcond=None)[0]
            slope = max(float(slope), 1e-3)
        else:
            slope, dark = 1.0, x <= np.median(x)
            offset = float((y - x)[dark].mean())
        self.gain *= slope
        self.states[:, COLUMN["log_dose"]] -= math.log(slope)
        read = math.sqrt(max(float(offset), 0.0)) / slope
        self.fit = self.fit.with_noise(Noise(read if read > 0.05 else 0.0, error))

    def choose_turn(self) -> bool:
        """Compare with the crystal turned by 180°; return whether it is known how it lies."""
        crystal = self.fit.series.request.material
        if all(crystal.same_after_half_turn(n) for n in np.unique(self.layers).tolist()):
            return True
        other = replace(self, states=self.states.copy())
        other.states[:, COLUMN["rotation_deg"]] += 180
        other.states[:, TILT] *= -1
        before = self._assess(self.states)[0]
        other.solve()
        difference = other._assess(other.states)[0] - before
        unit = max(1.0, float(np.median(self.chi2)))
        if difference < -_TOLD_APART * unit:
            self.states, self.chi2 = other.states, other.chi2
            self.covariance, self.response = other.covariance, other.response
        return abs(difference) > _TOLD_APART * unit

    def calibration(self, scan: Scan, told_apart: bool) -> Calibration:
        """Return what was found."""
        state, semiangle = self.states[0], self.sample.semiangle_mrad
        known = self.sample.pixel_known
        value = {name: float(state[COLUMN[name]]) for name in COMMON}
        index = {name: number for number, name in enumerate(COMMON)}
        covariance = self.covariance
        if known:
            covariance = _with_held(covariance, index["log_scale"], self.known.pixel_uncertainty)
        elif self.settings.reference is None:
            covariance = _with_held(
                covariance, index["log_semiangle"], self.known.semiangle_uncertainty
            )
        sigma = np.sqrt(np.diagonal(covariance))
        local = self.response @ covariance @ self.response.transpose(0, 2, 1)
        shared = np.sqrt(np.diagonal(local, axis1=1, axis2=2).mean(axis=0))
        bins = self.cut.bins
        shift = np.median(self.states[:, COLUMN["shift_x_px"] : COLUMN["shift_y_px"] + 1], axis=0)
        centre = self.cut.part.in_pattern(np.array(self.cut.frame.origin_px) + shift)
        rotation = float(np.median(self.states[:, COLUMN["rotation_deg"]]))
        hidden = np.argwhere(~self.sample.mean.mask)[:, ::-1]
        given = self.known.counts_per_electron is not None
        return Calibration(
            pixel_mrad=self.sample.pixel_mrad * math.exp(value["log_scale"]),
            pixel_uncertainty=float(sigma[index["log_scale"]]),
            semiangle_mrad=semiangle * math.exp(value["log_semiangle"]),
            semiangle_sigma_mrad=float(semiangle * sigma[index["log_semiangle"]]),
            centre_px=(float(centre[0]), float(centre[1])),
            rotation_deg=(rotation + 180) % 360 - 180,
            ellipticity=value["ellipticity"],
            ellipticity_diagonal=value["ellipticity_diagonal"],
            blur_px=value["blur_px"] * bins,
            background=value["background"],
            halo=value["halo"],
            turn_told_apart=told_apart,
            mirrored=scan.options.mirrored,
            counts_per_electron=self.gain,
            read_noise_counts=self.fit.settings.noise.read_electrons * self.gain / bins,
            residuals=float(np.median(self.chi2)) * (1.0 if given else self.gain / self.first_gain),
            masked_px=tuple((int(x), int(y)) for x, y in hidden),
            mtf=self.mtf,
            common_sigma={n: float(s) for n, s in zip(LOCAL[:6], shared, strict=False)},
            points=len(self.states),
            sources={
                "pixel_mrad": "file or option" if known else "fit",
                "semiangle_mrad": "fit" if known or self.settings.reference else "option",
                "counts_per_electron": "option" if given else "fit",
                "mirrored": "not known" if scan.options.mirrored is None else "file or option",
                "others": "fit",
            },
        )


def _joint_step(
    information: np.ndarray, slopes: np.ndarray, local: Sequence[int], common: Sequence[int]
) -> tuple[np.ndarray, float]:
    """Return the step of all unknowns, shape (points, unknowns), and what it promises."""
    own, mixed, shared = _blocks(information, local, common)
    solved = np.linalg.solve(own, np.concatenate([mixed, slopes[:, local, None]], axis=2))
    response, alone = -solved[..., :-1], solved[..., -1]
    left = shared + np.einsum("plc,pld->cd", mixed, response)
    right = slopes[:, common].sum(axis=0) - np.einsum("plc,pl->c", mixed, alone)
    together = np.linalg.solve(left, right)
    step = np.zeros(slopes.shape)
    step[:, common] = together
    step[:, local] = alone + response @ together
    return step, float((step * slopes).sum())


def _common_covariance(
    information: np.ndarray, local: Sequence[int], common: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the covariance of the common unknowns, and how local ones follow them."""
    own, mixed, shared = _blocks(information, local, common)
    response = -np.linalg.solve(own, mixed)
    return np.linalg.inv(shared + np.einsum("plc,pld->cd", mixed, response)), response


def _blocks(
    information: np.ndarray, local: Sequence[int], common: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    own, mixed = information[:, local][:, :, local], information[:, local][:, :, common]
    return own, mixed, information[:, common][:, :, common].sum(axis=0)


def _with_held(covariance: np.ndarray, held: int, uncertainty: float) -> np.ndarray:
    """Return covariances with the uncertainty of an unknown that was held."""
    slope = covariance[:, held] / covariance[held, held]
    more = max(uncertainty**2 - covariance[held, held], 0.0)
    return np.asarray(covariance + more * np.outer(slope, slope))
