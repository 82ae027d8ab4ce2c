"""Strain, rotation, tilt and thickness of measured patterns, by a fit of a scattering series."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from scipy.ndimage import gaussian_filter

from pacbed.exceptions import PacbedError
from pacbed.machine import Report
from pacbed.reading.fit import FLAGS, LARGE_RESIDUALS, TOLD_APART, Fit, FitResult, FitSettings
from pacbed.reading.patterns import noise_per_count, read_noise
from pacbed.reading.pixels import FEWEST_PIXELS, shown
from pacbed.reading.start import Dictionary, SearchRange
from pacbed.reading.thickness import ThicknessFit
from pacbed.reading.window import Window
from pacbed.scattering.image_model import ALWAYS_FREE, COLUMN, SHIFT, TILT, UNKNOWNS, Frame
from pacbed.scattering.mtf import MTF
from pacbed.scattering.series import ScatteringSeries
from pacbed.specimen.microscope import Aperture

FREE: Mapping[str, tuple[str, ...]] = {
    "semiangle": ("log_semiangle",),
    "ellipticity": ("ellipticity", "ellipticity_diagonal"),
    "blur": ("blur_px",),
    "background": ("background", "halo"),
}
"""What may be fitted besides, and which unknowns that are."""

Extra = Literal["semiangle", "ellipticity", "blur", "background"]

READ = UNKNOWNS[:6]
"""What is read of a pattern."""

# Standard deviations of a pixel that is far from a fit, and the largest part of such pixels.
_FAR, _FEW = 8.0, 0.003
# Flags that may be due to the start.
_DOUBTFUL = set(FLAGS)
# Electrons of a pixel from which the gain can be told.
_LIT = 0.5
# A pattern may be turned by this much, or transposed.
_TURN_deg = 90.0
# Thicknesses with which a start is looked for, and candidates of each.
_DICTIONARIES, _CANDIDATES = 4, 2
# A scale that is held has this relative standard deviation in the fit.
_HELD = 1e-5
# Standard deviations of its prior by which a scale may differ from the given one.
_SCALE_DIFFERS = 4.0
# A width of zero has no derivative.
_FIRST_BLUR_PX = 0.7
# Pixels along each axis that are put together at first.
_COARSE = (8, 4)


@dataclass(frozen=True)
class ReadSettings:
    """How patterns are read.

    Parameters
    ----------
    aperture
        Of the beam.
    layers
        Numbers of layers that are tried.
    rotation_deg
        Rotation of the patterns, as far as it is known, in degrees.
    free
        What is fitted besides, of :data:`FREE`.
    pixel_uncertainty
        Relative standard deviation of the size of a pixel; None if it is not known at all. If the
        semi-angle is fitted, the size is kept, and its uncertainty becomes part of that of strain.
    semiangle_uncertainty
        Relative standard deviation of the semi-angle. If the size of a pixel is not known, it
        follows from the radius of the discs, and this becomes part of the uncertainty of strain.
    counts_per_electron
        Gain of the camera.
    electrons
        Incident electrons of each pattern; with it the gain need not be known.
    model_error
        Relative standard deviation of the expected intensity of a pixel: what is not known of the
        potential and of thermal motion. It matters where there are many electrons.
    mtf
        Modulation transfer function of the camera; None for that of perfect pixels.
    """

    aperture: Aperture
    layers: tuple[int, ...]
    rotation_deg: float = 0.0
    free: tuple[Extra, ...] = ()
    pixel_uncertainty: float | None = None
    semiangle_uncertainty: float = 0.03
    counts_per_electron: float | None = None
    electrons: float | None = None
    model_error: float = 0.05
    mtf: MTF | None = None

    def __post_init__(self) -> None:
        if "semiangle" in self.free and self.pixel_uncertainty is None:
            raise PacbedError(
                "semi-angle and scale cannot both be unknown: give the size of a pixel "
                "(--pixel-mrad), or do not fit the semi-angle"
            )
        if self.counts_per_electron is not None and self.electrons is not None:
            raise PacbedError("give --counts-per-electron or --electrons, not both")

    @property
    def scale_held(self) -> bool:
        """Whether the scale is kept as it is given.

        If the semi-angle is fitted, the radius of the discs does not tell the scale. Brightnesses
        would, but they are less certain than a camera length: strain and scale would move to where
        they fit a little better.
        """
        return self.pixel_uncertainty is not None and "semiangle" in self.free

    def fit_settings(self, tilt_mrad: float) -> FitSettings:
        """Return what is unknown of each pattern, and that tilts are about this large.

        A thin crystal does not tell its tilt, which would wander through the range of the series.
        """
        more = [name for extra in self.free for name in FREE[extra]]
        priors = {f"tilt_{axis}_mrad": (0.0, max(tilt_mrad, 0.1)) for axis in "xy"}
        if self.pixel_uncertainty is not None:
            priors["log_scale"] = (0.0, _HELD if self.scale_held else self.pixel_uncertainty)
        if "semiangle" in self.free:
            priors["log_semiangle"] = (0.0, self.semiangle_uncertainty)
        return FitSettings((*ALWAYS_FREE, *more), priors)

    def scale_differs(self, state: np.ndarray) -> bool:
        """Whether the scale of a fitted state is far from the one that is given."""
        if self.pixel_uncertainty is None:
            return False
        return bool(abs(state[COLUMN["log_scale"]]) > _SCALE_DIFFERS * self.pixel_uncertainty)

    def covariance(self, states: np.ndarray, fitted: np.ndarray) -> np.ndarray:
        """Return covariances of unknowns, with what is not known of scale and semi-angle.

        Parameters
        ----------
        states
            Unknowns as fitted, shape (patterns, unknowns).
        fitted
            Covariances of the fit, shape (patterns, unknowns, unknowns).
        """
        scale = COLUMN["log_scale"]
        if self.pixel_uncertainty is None:
            # All angles grow with the semi-angle, and lengths of the crystal shrink.
            grown = np.zeros(states.shape)
            grown[:, scale] = 1
            grown[:, :3] = -states[:, :3] - [1, 1, 0]
            more = self.semiangle_uncertainty**2 * grown[:, :, None] * grown[:, None]
            return np.asarray(fitted + more)
        if not self.scale_held:
            return fitted
        held = fitted[:, scale, scale][:, None, None]
        # By how much each unknown changes with the scale.
        slopes = fitted[:, :, scale : scale + 1] / held
        more = np.maximum(self.pixel_uncertainty**2 - held, 0)
        return np.asarray(fitted + more * slopes * slopes.transpose(0, 2, 1))


@dataclass(frozen=True)
class Reading:
    """What was read from one pattern.

    Parameters
    ----------
    window
        The part of the pattern that was compared.
    state, covariance
        All unknowns, as :data:`pacbed.scattering.image_model.UNKNOWNS`, and their covariance.
    layers
        The likeliest number of layers.
    probabilities
        Of each number of layers that was tried.
    chi2_per_pixel
        Sum of squared residuals over variances, per pixel and degree of freedom. It is at most
        about 1 by construction if the gain follows from it.
    turned_deg
        By how much the pattern is turned besides its rotation: 0, 90, 180 or 270°.
    opposite
        By how much χ² is larger if the pattern is turned by 180°.
    counts_per_electron
        Gain of the camera.
    gain_from
        How the gain is known: ``given``, ``electrons`` or ``residuals``.
    flags
        What may be wrong.
    at_edge
        Names of the unknowns that lie at the edge of their range.
    image, fitted, variance
        Electrons of each pixel, measured and as fitted, and their variance, shape (ny, nx).
    """

    window: Window
    state: np.ndarray
    covariance: np.ndarray
    layers: int
    probabilities: Mapping[int, float]
    chi2_per_pixel: float
    turned_deg: float
    opposite: float
    counts_per_electron: float
    gain_from: str
    flags: tuple[str, ...]
    at_edge: tuple[str, ...]
    image: np.ndarray
    fitted: np.ndarray
    variance: np.ndarray

    def value(self, name: str) -> float:
        """Return an unknown; the rotation without the turn of the pattern."""
        found = float(self.state[COLUMN[name]])
        return found - self.turned_deg if name == "rotation_deg" else found

    def sigma(self, name: str) -> float:
        """Return the standard deviation of an unknown."""
        return math.sqrt(self.covariance[COLUMN[name], COLUMN[name]])

    @property
    def centre_px(self) -> tuple[float, float]:
        """Where zero angle lies in the pattern, in its pixels (x, y)."""
        shift = np.array([self.value("shift_x_px"), self.value("shift_y_px")])
        ny, nx = self.image.shape
        x, y = self.window.in_pattern(shift + np.array([nx // 2, ny // 2]))
        return float(x), float(y)

    @property
    def pixel_mrad(self) -> float:
        """Size of a pixel of the pattern as fitted, in mrad."""
        return self.window.pixel_mrad / self.window.bins * math.exp(self.value("log_scale"))

    def to_dict(self) -> dict[str, Any]:
        """Return the reading as plain values."""
        extras = [n for n in UNKNOWNS[10:] if self.sigma(n) > 0]
        return {
            "pattern": self.window.pattern.name,
            "layers": self.layers,
            **{key: v for n in READ for key, v in self._pair(n).items()},
            "chi2_per_pixel": self.chi2_per_pixel,
            "flags": list(self.flags),
            "at_edge": list(self.at_edge),
            "probability_of_layers": {str(n): p for n, p in self.probabilities.items()},
            "turned_deg": self.turned_deg,
            "delta_chi2_of_opposite_turn": self.opposite,
            "turned_by_180": bool(self.turned_deg >= 180) if self.told_apart else "undetermined",
            "centre_px": list(self.centre_px),
            "pixel_mrad": self.pixel_mrad,
            "pixel_mrad_sigma": self.pixel_mrad * self.sigma("log_scale"),
            "electrons": math.exp(self.value("log_dose")),
            "counts_per_electron": self.counts_per_electron,
            "gain_from": self.gain_from,
            **{key: v for n in extras for key, v in self._pair(n).items()},
            "pixels_compared": int(self.window.mask.sum()),
            "pixels_put_together": self.window.bins,
            "notes": list(self.window.pattern.notes),
        }

    def _pair(self, name: str) -> dict[str, float]:
        return {name: self.value(name), f"{name}_sigma": self.sigma(name)}

    @property
    def told_apart(self) -> bool:
        """Whether the pattern tells that it is not turned by 180°."""
        return self.opposite > TOLD_APART

    @property
    def residuals(self) -> np.ndarray:
        """Measured less fitted, in standard deviations of the noise; NaN where masked."""
        differences = (self.image - self.fitted) / np.sqrt(self.variance)
        return np.where(self.window.mask, differences, np.nan)


_Trial = tuple[int, np.ndarray, np.ndarray]
"""A thickness, numbers of patterns, and where their fits may begin."""


@dataclass
class _Batch:
    """Patterns with pixels of the same shape and size, in electrons as far as is known."""

    windows: Sequence[Window]
    gains: np.ndarray
    images: np.ndarray = field(init=False)
    masks: np.ndarray = field(init=False)
    noise: np.ndarray = field(init=False)
    model_error: float = 0.0

    def __post_init__(self) -> None:
        self.masks = np.stack([one.mask for one in self.windows])
        noise = [read_noise(one.image, one.mask) for one in self.windows]
        self.noise = np.array(noise) / self.gains
        self.set_gains(self.gains)

    def set_gains(self, gains: np.ndarray) -> None:
        """Turn counts into electrons."""
        self.noise = self.noise * self.gains / gains
        self.gains = gains
        self.images = np.stack(
            [one.image / gain for one, gain in zip(self.windows, gains, strict=True)]
        )

    def learn_noise(self, expected: np.ndarray) -> None:
        """Learn from the dark half of a fit how much noise is added to that of the electrons."""
        for row in np.flatnonzero(self.noise):
            dark = self.masks[row] & (expected[row] <= np.median(expected[row]))
            more = (self.images[row] - expected[row]) ** 2 - np.maximum(expected[row], 0)
            self.noise[row] = math.sqrt(max(float(more[dark].mean()), 1e-6))

    def mask_outliers(self, expected: np.ndarray) -> bool:
        """Mask the few pixels that are far from a fit, and return whether there are any."""
        away = (self.images - expected) / np.sqrt(np.maximum(expected, 1))
        noise = [1.48 * np.median(np.abs(a[m])) for a, m in zip(away, self.masks, strict=True)]
        limit = _FAR * np.maximum(noise, 1)[:, None, None]
        far = self.masks & (np.abs(away) > limit)
        # Many are no defects: another crystal, or thickness.
        far &= (far.sum(axis=(1, 2)) <= _FEW * self.masks.sum(axis=(1, 2)))[:, None, None]
        self.masks &= ~far
        windows = []
        for one, mask, count in zip(self.windows, self.masks, far.sum(axis=(1, 2)), strict=True):
            note = f"{count} pixels are far from the fit and were masked"
            notes = (*one.pattern.notes, note) if count else one.pattern.notes
            windows.append(replace(one, mask=mask, pattern=replace(one.pattern, notes=notes)))
        self.windows = windows
        return bool(far.any())

    def chi2(self, expected: np.ndarray) -> np.ndarray:
        """Return mean squared residuals over variances, of pixels that have electrons."""
        noise = self.noise[:, None, None] ** 2
        squares = (self.images - expected) ** 2 / (np.maximum(expected, _LIT / 2) + noise)
        brightest = expected.max(axis=(1, 2), keepdims=True)
        lit = self.masks & (expected > np.minimum(_LIT, brightest / 10))
        return np.array([max(float(s[m].mean()), 1e-12) for s, m in zip(squares, lit, strict=True)])

    def variances(self, expected: np.ndarray) -> np.ndarray | None:
        """Return variances of pixels; None if all are counted electrons without more noise."""
        if not self.noise.any() and not self.model_error:
            return None
        more = self.noise[:, None, None] ** 2 + (self.model_error * expected) ** 2
        return np.asarray(np.maximum(expected, 0.02) + more)


def read_patterns(
    series: ScatteringSeries,
    windows: Sequence[Window],
    settings: ReadSettings,
    starts: np.ndarray | None = None,
    report: Report | None = None,
) -> list[Reading]:
    """Read patterns.

    Parameters
    ----------
    series
        What the crystal does to all waves.
    windows
        The patterns. Those with pixels of one shape and size are fitted together.
    settings
        What is known, and what is fitted.
    starts
        Where to begin, shape (patterns, 6), columns as :data:`READ`, for example as a network
        reads them; a dictionary says it if not given, or not finite, and where these lead to a
        doubtful fit.
    report
        Receives how many patterns are done.

    Raises
    ------
    RequestError
        If the series does not hold what is asked for.
    """
    found: dict[int, Reading] = {}
    groups: dict[Frame, dict[bool, list[int]]] = {}
    for number, one in enumerate(windows):
        known = starts is not None and bool(np.isfinite(starts[number]).all())
        groups.setdefault(_frame(one, settings.mtf), {}).setdefault(known, []).append(number)
    for frame, group in groups.items():
        # Once for pixels of a shape and size: what they compile takes longer than many a fit.
        fits = _Fits(series, settings, frame)
        for known, rows in group.items():
            if report:
                report(len(found), len(windows))
            own = starts[rows] if starts is not None and known else None
            read = _read_batch(fits, [windows[n] for n in rows], own)
            if own is not None:
                read = _read_doubtful_again(fits, read)
            found |= dict(zip(rows, read, strict=True))
    if report:
        report(len(windows), len(windows))
    return [found[number] for number in range(len(windows))]


def _read_doubtful_again(fits: _Fits, read: list[Reading]) -> list[Reading]:
    """Begin again from dictionaries where a known start led to a fit that does not describe all."""
    doubtful = [n for n, one in enumerate(read) if _DOUBTFUL & set(one.flags)]
    if doubtful:
        others = _read_batch(fits, [read[n].window for n in doubtful], None)
        for n, other in zip(doubtful, others, strict=True):
            if _unexplained(other) < _unexplained(read[n]):
                read[n] = other
    return read


def _unexplained(reading: Reading) -> float:
    """Return χ² in counts, of which the gain that was found is a part."""
    return reading.chi2_per_pixel * reading.counts_per_electron


def _read_batch(fits: _Fits, windows: Sequence[Window], starts: np.ndarray | None) -> list[Reading]:
    given = fits.settings.counts_per_electron
    gains = np.array([given or noise_per_count(one.image, one.mask) for one in windows])
    batch = _Batch(windows, gains, fits.settings.model_error)
    found = _fit_thicknesses(fits, batch, starts)
    _choose_turn(fits, batch, found)
    gain_from = _learn_gain(fits, batch, found)
    return _refined(fits, batch, found, gain_from, batch.gains / gains)


@dataclass
class _Found:
    """What was found so far of the patterns of a batch.

    Parameters
    ----------
    states
        Unknowns, shape (patterns, unknowns).
    layers, probabilities
        Likeliest number of layers, and probabilities of all.
    turned_deg
        By how much patterns are turned.
    opposite
        By how much χ² is larger if they are turned by 180°.
    """

    states: np.ndarray
    layers: np.ndarray
    probabilities: list[dict[int, float]]
    turned_deg: np.ndarray
    opposite: np.ndarray


def _fit_thicknesses(fits: _Fits, batch: _Batch, starts: np.ndarray | None) -> _Found:
    """Find where fits begin, and fit all thicknesses."""
    # About what is expected, before any fit.
    variances = batch.variances(gaussian_filter(batch.images, (0, 2, 2)))
    turned, begin = _starts(fits, batch, fits.settings, starts, variances)
    result, layers, probabilities = fits.thicknesses(batch, begin, variances)
    return _Found(result.states, layers, probabilities, turned, np.zeros(len(turned)))


def _choose_turn(fits: _Fits, batch: _Batch, found: _Found) -> None:
    """Compare with the other way round, and mask what is far from the better one.

    A crystal turned by 180° and tilted the other way looks nearly the same.
    """
    other = found.states.copy()
    other[:, COLUMN["rotation_deg"]] += 180
    other[:, TILT] *= -1
    expected = fits.images(found.states, found.layers)
    batch.learn_noise(expected)
    variances = batch.variances(expected)
    one, two = (fits.refine(batch, s, found.layers, variances) for s in (found.states, other))
    opposite = two.deviance - one.deviance
    if fits.settings.counts_per_electron is None:
        # In units of the noise that is there.
        likelier = np.where((opposite < 0)[:, None], two.states, one.states)
        opposite /= batch.chi2(fits.images(likelier, found.layers))
    better = opposite < -TOLD_APART
    found.states = np.where(better[:, None], two.states, one.states)
    found.turned_deg = found.turned_deg + 180.0 * better
    found.opposite = np.abs(opposite)
    if batch.mask_outliers(fits.images(found.states, found.layers)):
        found.states = fits.refine(batch, found.states, found.layers, variances).states


def _learn_gain(fits: _Fits, batch: _Batch, found: _Found) -> str:
    """Set the gains as far as they are not given, and the doses; return how they are known."""
    settings, before = fits.settings, batch.gains
    gain_from = "given"
    if settings.electrons is not None:
        gain_from = "electrons"
        dose = np.exp(found.states[:, COLUMN["log_dose"]])
        batch.set_gains(before * dose / settings.electrons)
    elif settings.counts_per_electron is None:
        gain_from = "residuals"
        batch.set_gains(before * batch.chi2(fits.images(found.states, found.layers)))
    found.states[:, COLUMN["log_dose"]] -= np.log(batch.gains / before)
    return gain_from


def _refined(
    fits: _Fits, batch: _Batch, found: _Found, gain_from: str, scaled: np.ndarray
) -> list[Reading]:
    """Fit a last time, and return what was read.

    Parameters
    ----------
    fits, batch, found
        Of these patterns.
    gain_from
        How the gains are known.
    scaled
        How many times the gains are those that differences between neighbours show.
    """
    settings = fits.settings
    expected = fits.images(found.states, found.layers)
    batch.learn_noise(expected)
    last = fits.refine(batch, found.states, found.layers, batch.variances(expected))
    expected = fits.images(last.states, found.layers)
    covariance = settings.covariance(last.states, last.covariance)
    known = batch.variances(expected)
    noise = np.maximum(expected, 0.02) if known is None else known
    readings = []
    for row, one_window in enumerate(batch.windows):
        opposed = float(found.opposite[row])
        flags = [flag for flag in last.flags[row].split(", ") if flag]
        if gain_from == "residuals":
            flags.append("relative chi2")
            if scaled[row] > LARGE_RESIDUALS:
                flags.append("bad chi2")
        if settings.scale_differs(last.states[row]):
            flags.append("scale differs")
        if opposed <= TOLD_APART:
            flags.append("turn by 180° undetermined")
        readings.append(
            Reading(
                window=one_window,
                state=last.states[row],
                covariance=covariance[row],
                layers=int(found.layers[row]),
                probabilities=found.probabilities[row],
                chi2_per_pixel=float(last.chi2_per_pixel[row]),
                turned_deg=float(found.turned_deg[row] % 360),
                opposite=opposed,
                counts_per_electron=float(batch.gains[row]),
                gain_from=gain_from,
                flags=tuple(dict.fromkeys(flags)),
                at_edge=tuple(n for n in UNKNOWNS if last.at_edge[row, COLUMN[n]]),
                image=batch.images[row],
                fitted=expected[row],
                variance=noise[row],
            )
        )
    return readings


class _Fits:
    """The fits of patterns with the same pixels, of each number of layers."""

    def __init__(self, series: ScatteringSeries, settings: ReadSettings, frame: Frame) -> None:
        self.series, self.settings, self.frame = series, settings, frame
        unknown = settings.fit_settings(series.request.tilt_mrad)
        first = Fit(series, settings.aperture, settings.layers[0], frame, unknown)
        self._fits = {n: first.for_layers(n) for n in settings.layers}

    @property
    def middle(self) -> int:
        """A middle thickness."""
        return sorted(self._fits)[len(self._fits) // 2]

    def dictionaries(self) -> Iterator[tuple[int, Dictionary]]:
        """Yield dictionaries of a few thicknesses."""
        numbers, request = sorted(self._fits), self.series.request
        few = np.unique(np.linspace(0, len(numbers) - 1, _DICTIONARIES).round().astype(int))
        rotation = self.settings.rotation_deg
        search = SearchRange(
            (rotation, rotation + _TURN_deg),
            tilt_mrad=min(request.tilt_mrad, SearchRange.tilt_mrad),
            stretch=(
                max(request.strain.stretch[0], SearchRange.stretch[0]),
                min(request.strain.stretch[1], SearchRange.stretch[1]),
            ),
        )
        for number in few:
            yield numbers[number], Dictionary(self._fits[numbers[number]], search)

    def coarse(
        self,
        batch: _Batch,
        layers: int,
        rows: np.ndarray,
        starts: np.ndarray,
        variances: np.ndarray | None,
    ) -> FitResult:
        """Fit patterns of one thickness with pixels put together."""
        bins = [b for b in (*_COARSE, 2) if min(self.frame.shape) // b >= FEWEST_PIXELS] or [1]
        own = None if variances is None else variances[rows]
        return self._fits[layers].fit(batch.images[rows], starts, own, batch.masks[rows], bins[:2])

    def thicknesses(
        self, batch: _Batch, starts: np.ndarray, variances: np.ndarray | None
    ) -> tuple[FitResult, np.ndarray, list[dict[int, float]]]:
        """Fit all thicknesses; return the best fits, their layers, and probabilities of all."""
        numbers = sorted(self._fits)
        fits = ThicknessFit(self._fits[numbers[-1]], numbers)
        found = fits.fit(batch.images, starts, variances, batch.masks)
        likely = [dict(zip(numbers, row.tolist(), strict=True)) for row in found.probabilities]
        return found.fit, found.layers, likely

    def refine(
        self, batch: _Batch, starts: np.ndarray, layers: np.ndarray, variances: np.ndarray | None
    ) -> FitResult:
        """Fit each pattern with its thickness, with all pixels."""
        total = FitResult.none(starts)
        for n in np.unique(layers).tolist():
            rows = np.flatnonzero(layers == n)
            own = None if variances is None else variances[rows]
            found = self._fits[n].fit(
                batch.images[rows], starts[rows], own, batch.masks[rows], (1,)
            )
            total.put(rows, found)
        return total

    def images(self, states: np.ndarray, layers: np.ndarray) -> np.ndarray:
        """Return expected electrons, shape (patterns, ny, nx)."""
        parts = [
            self._fits[int(n)].model().images(state[None])
            for n, state in zip(layers, states, strict=True)
        ]
        return np.concatenate(parts).reshape(-1, *self.frame.shape)


def _frame(window: Window, mtf: MTF | None) -> Frame:
    """Return the pixels of a pattern, whose middle one is about at zero angle."""
    ny, nx = window.image.shape
    origin, mtf = (float(nx // 2), float(ny // 2)), mtf and mtf.of_pixels(window.bins)
    return Frame((ny, nx), window.pixel_mrad, origin, mtf=mtf)


def _starts(
    fits: _Fits,
    batch: _Batch,
    settings: ReadSettings,
    known: np.ndarray | None,
    variances: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return by how much patterns are turned, and where their fits begin.

    Each place where the central disc may be is tried, and so are two turns and a few thicknesses:
    the nearest states of dictionaries, improved with pixels put together.
    """
    trials = _known_trials(batch, fits, known) if known is not None else _trials(batch, fits)
    begin = np.zeros((len(batch.windows), len(UNKNOWNS)))
    deviance = np.full(len(batch.windows), np.inf)
    for number, rows, states in trials:
        states[:, COLUMN["blur_px"]] = _FIRST_BLUR_PX * ("blur" in settings.free)
        result = fits.coarse(batch, number, rows, states, variances)
        for row, state, left in zip(rows, result.states, result.deviance, strict=True):
            if left < deviance[row]:
                begin[row], deviance[row] = state, left
    turns = (begin[:, COLUMN["rotation_deg"]] - settings.rotation_deg) / _TURN_deg
    return _TURN_deg * np.round(turns), begin


def _known_trials(batch: _Batch, fits: _Fits, known: np.ndarray) -> Iterator[_Trial]:
    """Yield what a network says, for each centre."""
    rows = np.array([row for row, one in enumerate(batch.windows) for _ in one.centres])
    states = np.zeros((len(rows), len(UNKNOWNS)))
    states[:, : len(READ)] = known[rows]
    centres = np.concatenate([one.centres for one in batch.windows])
    states[:, SHIFT] = centres - np.array(fits.frame.origin_px)
    yield fits.middle, rows, states


def _trials(batch: _Batch, fits: _Fits) -> Iterator[_Trial]:
    """Yield a thickness, numbers of patterns, and states of a dictionary that are near to them."""
    rows, shifts, images = [], [], []
    for row, one in enumerate(batch.windows):
        filled = shown(batch.images[row], batch.masks[row])
        for centre in one.centres:
            shift = np.rint(centre - np.array(fits.frame.origin_px)).astype(int)
            rows.append(row)
            shifts.append(shift)
            images.append(np.roll(filled, -shift[::-1], (0, 1)))
    for number, dictionary in fits.dictionaries():
        for states in dictionary.candidates(np.array(images), _CANDIDATES)[0]:
            states[:, SHIFT] += shifts
            yield number, np.array(rows), states
