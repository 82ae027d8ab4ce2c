"""Calibration of a scan: what its patterns have in common, by a joint fit of some of them.

Scale, ellipticity, semi-angle, blur and background are the same at all points. Fitted for each
point, they would take most of what a pattern tells of strain; a fit of the mean pattern, in which
strain varies, would be biased. So they follow from one joint fit of some fifty points, of which
each has its own strain, rotation, tilt, shift and dose.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pacbed.exceptions import PacbedError
from pacbed.machine import Report
from pacbed.reading.fit import TOLD_APART, Fit, FitSettings
from pacbed.reading.maps.calibration import COMMON, LOCAL, Calibration
from pacbed.reading.maps.cut import Cut, scattered
from pacbed.reading.maps.settings import CalibrationSettings, MapSettings
from pacbed.reading.maps.sums import grid, window_sums
from pacbed.reading.patterns import Pattern, clean, noise_per_count, read_noise
from pacbed.reading.pixels import finite_mean, whole
from pacbed.reading.scans.scan import Scan
from pacbed.reading.start import Dictionary, SearchRange, coarse_bins
from pacbed.reading.thickness import ThicknessFit
from pacbed.reading.window import find_centres, find_radius_px
from pacbed.scattering.image_model import COLUMN, TILT, UNKNOWNS, Noise
from pacbed.scattering.mtf import MTF, read_mtf
from pacbed.scattering.series import ScatteringSeries
from pacbed.specimen.microscope import Aperture
from pacbed.specimen.polytypes import is_hexagonal

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
# Turns in which a dictionary looks are so far apart at most.
_TURNS_deg = 20.0
# Points whose χ² is so many times the median do not take part.
_ODD = 1.5
_STEPS, _GAIN = 15, 0.05
# Variance by the model error over that of counted electrons, where the gain is looked for.
_SMALL_PART = 0.05
# Thicknesses by which the orientation is looked for.
_DICTIONARIES = 3


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
        if difference < -TOLD_APART * unit:
            self.states, self.chi2 = other.states, other.chi2
            self.covariance, self.response = other.covariance, other.response
        return abs(difference) > TOLD_APART * unit

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
