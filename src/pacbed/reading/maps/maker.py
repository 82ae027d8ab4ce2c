"""Maps of strain, rotation, tilt and thickness: a fit of every point of a calibrated scan.

Some points are fitted first with all thicknesses, from a dictionary. They divide the scan into
regions of one thickness, and every point begins where the nearest of them ended. Points that are
not described well begin again from good neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
from scipy.ndimage import binary_opening, maximum_filter, minimum_filter
from scipy.spatial import cKDTree

from pacbed import __version__
from pacbed.exceptions import PacbedError
from pacbed.reading.fit import AT_EDGE, LARGE_RESIDUALS, Fit, FitSettings
from pacbed.reading.fit import FLAGS as FIT_FLAGS
from pacbed.reading.maps.calibration import LOCAL, Calibration
from pacbed.reading.maps.cut import Cut, mask_without, scattered, spacing_mrad
from pacbed.reading.maps.found import Found
from pacbed.reading.maps.settings import MapSettings
from pacbed.reading.maps.store import BITS, QUANTITIES, RELATIVE, StrainMap
from pacbed.reading.maps.sums import WindowSums, grid, window_sums
from pacbed.reading.patterns import Pattern
from pacbed.reading.pixels import finite_mean, whole
from pacbed.reading.scans.scan import Scan
from pacbed.reading.start import SearchRange
from pacbed.reading.thickness import ThicknessFit
from pacbed.scattering.image_model import COLUMN, SHIFT, TILT, UNKNOWNS
from pacbed.scattering.series import ScatteringSeries
from pacbed.specimen.microscope import Aperture

# At least so many points are fitted with all thicknesses, and one of so many.
_SEEDS, _ONE_OF = 64, 64
# Rotations about that of the crystal in which a dictionary looks, in degrees.
_SEARCH_deg = 8.0
# Bytes of patterns of a part, and patterns that are fitted together.
_PART_BYTES, _TOGETHER = 2**24, 128
# Seeds around a point whose thicknesses it may have.
_AROUND = 4
# What it costs that two neighbouring seeds differ in thickness, in units of χ², and the most that
# the pattern of one can say for its own.
_BORDER, _MOST_SAID = 6.0, 60.0
# Seeds whose χ² is so many times the median are no start for others.
_ODD = 1.5
# Rounds in which doubtful points begin again from neighbours, and how far these may be, in points.
_ROUNDS, _REACH = 2, 2.9
# Part of the points, at most, that are searched for again with all thicknesses.
_FEW = 0.1
# Start with pixels put together.
_BINS = (2, 1)
# χ² per pixel from which the crystal or the microscope may be another one than said.
_WRONG = 1.5
# Part of the points that lie at the edge of the range, from which on this may have a cause.
_MANY = 0.5
_EDGE = (
    "At most points strain or tilt lies at the edge of the range of the series: material, beam "
    "energy or pixel size may be other ones than said, or the range is too narrow (--stretch, "
    "--tilt-mrad)."
)
# A width of the point spread is kept by a prior so narrow: it is applied only if it is unknown.
_KEPT_PX = 1e-6


class MapMaker:
    """Makes the map of a scan.

    Parameters
    ----------
    scan
        The scan.
    series
        What the crystal does to all waves.
    calibration
        What all patterns have in common.
    settings
        How the map is made.

    Raises
    ------
    PacbedError
        If the settings do not fit the scan, or the series does not reach so far.
    """

    def __init__(
        self,
        scan: Scan,
        series: ScatteringSeries,
        calibration: Calibration,
        settings: MapSettings,
    ) -> None:
        self.scan, self.series = scan, series
        self.calibration, self.settings = calibration, settings
        settings.check(scan.shape)
        self.axes = settings.points(scan.shape)
        self.shape = len(self.axes[0]), len(self.axes[1])

    @cached_property
    def cut(self) -> Cut:
        """The part of the patterns that is fitted."""
        own = self.calibration
        mask = mask_without(self.scan.pattern_shape, own.masked_px)
        places = grid(self.scan.shape, 32)
        mean = finite_mean(self.scan.points(places))
        pattern = Pattern(self.scan.name, np.nan_to_num(mean), mask)
        return Cut.of(
            pattern, self.series, own.pixel_mrad, own.semiangle_mrad, own.centre_px, own.mtf
        )

    @cached_property
    def fit(self) -> Fit:
        """The fit of all points."""
        priors = {f"tilt_{a}_mrad": (0.0, max(self.series.request.tilt_mrad, 0.1)) for a in "xy"}
        free: tuple[str, ...] = LOCAL
        blur = self.common[COLUMN["blur_px"]]
        if blur > 0:
            free, priors["blur_px"] = (*LOCAL, "blur_px"), (blur, _KEPT_PX)
        noise = self.calibration.noise(
            self.settings.model_error, self.settings.patterns, self.cut.bins
        )
        return Fit(
            self.series,
            Aperture(self.calibration.semiangle_mrad),
            max(self.settings.layers),
            self.cut.frame,
            FitSettings(free, priors, noise),
        )

    @cached_property
    def common(self) -> np.ndarray:
        """What all states have in common."""
        return self.calibration.common(self.cut.bins)

    @cached_property
    def _thicknesses(self) -> ThicknessFit:
        low, high = self.series.request.strain.stretch
        search = SearchRange(
            (self.calibration.rotation_deg,),
            _SEARCH_deg,
            min(self.series.request.tilt_mrad, SearchRange.tilt_mrad),
            (max(low, SearchRange.stretch[0]), min(high, SearchRange.stretch[1])),
        )
        mask = self.cut.part.mask
        return ThicknessFit(self.fit, self.settings.layers, search, mask, self.common)

    @cached_property
    def _thinnest_scatters(self) -> float:
        """The part of scattered electrons below which there is no crystal."""
        fit = self.fit.for_layers(min(self.settings.layers))
        state = self.common.copy()
        state[COLUMN["rotation_deg"]] = self.calibration.rotation_deg
        ny, nx = self.cut.frame.shape
        image = fit.model().images(state[None]).reshape(ny, nx) * self.cut.part.mask
        thin = self._scattered(image[None])[0]
        more = self.calibration.background + self.calibration.halo
        # Without a crystal, what is spread evenly is scattered, too.
        none = more / (1 + more)
        return float(none + max(thin - none, 0.0) / 2)

    def _scattered(self, images: np.ndarray) -> np.ndarray:
        radius = self.calibration.semiangle_mrad / self.cut.frame.pixel_mrad
        return scattered(images, self.cut.frame.origin_px, radius)

    # What is measured.

    def images(self, places: np.ndarray) -> np.ndarray:
        """Return electrons in each pixel at places of the scan, shape (places, ny, nx).

        They are no numbers where the scan is not finite.
        """
        return self._electrons(window_sums(self.scan, places, self.settings.window_weights))

    def _electrons(self, patterns: np.ndarray) -> np.ndarray:
        images = self.cut.images(patterns) / np.float32(self.calibration.counts_per_electron)
        # A pattern with many values that are no numbers is none.
        lost = np.isfinite(patterns).mean(axis=(1, 2)) < 0.5
        images[lost] = np.nan
        return images

    def crystal(self, images: np.ndarray) -> np.ndarray:
        """Return whether there is a crystal, shape (patterns,)."""
        images = whole(images, self.masks(images)) * self.cut.part.mask
        enough = images.sum(axis=(1, 2)) >= self.settings.least_electrons
        return enough & (self._scattered(images) > self._thinnest_scatters)

    def masks(self, images: np.ndarray) -> np.ndarray:
        """Return which pixels count, shape as the images."""
        return self.cut.masks(images)

    def parts(self) -> Iterator[np.ndarray]:
        """Yield the rows of the map that are computed and kept together."""
        rows = self.axes[0] - (self.settings.window - 1) // 2
        for block in self.scan.blocks(_PART_BYTES):
            own = np.flatnonzero((rows >= block.start) & (rows < block.stop))
            if len(own):
                yield own

    def _of_rows(self, rows: np.ndarray) -> np.ndarray:
        """Return the images of rows of the map, shape (points, ny, nx)."""
        window, weights = self.settings.window, self.settings.window_weights
        columns, points = self.axes[1] - (window - 1) // 2, np.arange(self.shape[1])
        images = []
        for y in (self.axes[0][rows] - (window - 1) // 2).tolist():
            slab = self.scan.patterns(slice(y, y + window))
            found = WindowSums((self.shape[1], *self.scan.pattern_shape))
            for (dy, dx), weight in np.ndenumerate(weights):
                found.add(points, slab[dy, columns + dx], weight)
            images.append(self._electrons(found.sums))
        return np.concatenate(images)

    # What is fitted.

    def seeds(self) -> tuple[np.ndarray, Found]:
        """Fit some points with all thicknesses; return their places in the map, and the fits.

        Raises
        ------
        PacbedError
            If there is no crystal.
        """
        count = self.shape[0] * self.shape[1]
        places = grid(self.shape, max(_SEEDS, count // _ONE_OF))
        images = self.images(self.in_scan(places))
        there = self.crystal(images)
        if not there.any():
            raise PacbedError(
                f"{self.scan.name}: no crystal was found at {len(places)} points that are spread "
                "over the scan: the electrons are few, or they stay in the central disc, as in "
                "vacuum. Check --layers, --counts-per-electron, --pixel-mrad and the area"
            )
        places, images = places[there], images[there]
        found = self._thicknesses.fit(images, masks=self.masks(images), fine=False)
        probability = found.probabilities.max(axis=1)
        seeds = Found(found.fit, found.layers, probability)
        if self.settings.thickness == "by-region" and len(self.settings.layers) > 1:
            self._smooth(places, seeds, found.probabilities, images)
        return places, seeds

    def _smooth(
        self, places: np.ndarray, seeds: Found, probabilities: np.ndarray, images: np.ndarray
    ) -> None:
        """Let seeds have the thickness of their neighbours unless their patterns say otherwise."""
        layers = np.array(self.settings.layers)
        cost = np.minimum(-2 * np.log(np.maximum(probabilities, 1e-30)), _MOST_SAID)
        label = cost.argmin(axis=1)
        distance, near = cKDTree(places).query(places, min(9, len(places)))
        near, distance = near.reshape(len(places), -1), distance.reshape(len(places), -1)
        close = distance <= 2 * np.median(distance[:, 1:2]) if len(places) > 1 else distance < 0
        total = cost.copy()
        for _ in range(10):
            before = label.copy()
            for row in range(len(places)):
                others = label[near[row][close[row] & (near[row] != row)]]
                differ = (others[:, None] != np.arange(len(layers))).sum(axis=0)
                total[row] = cost[row] + _BORDER * differ
                label[row] = int(total[row].argmin())
            if np.array_equal(before, label):
                break
        likely = np.exp(-(total - total.min(axis=1, keepdims=True)) / 2)
        seeds.probability[:] = 1 / likely.sum(axis=1)
        changed = np.flatnonzero(layers[label] != seeds.layers)
        for number in np.unique(layers[label[changed]]).tolist():
            rows = changed[layers[label[changed]] == number]
            found = self._fitted(images[rows], seeds.result.states[rows], number)
            found.probability = seeds.probability[rows]
            seeds.put(rows, found)

    def _fitted(
        self, images: np.ndarray, starts: np.ndarray, layers: int, bins: Sequence[int] = _BINS
    ) -> Found:
        fit = self.fit.for_layers(layers)
        result = fit.fit(images, starts, masks=self.masks(images), bins=bins)
        return Found(result, np.full(len(images), layers), np.ones(len(images)))

    def in_scan(self, places: np.ndarray) -> np.ndarray:
        """Return the places in the scan of places in the map, shape (places, 2)."""
        return np.stack([axis[place] for axis, place in zip(self.axes, places.T, strict=True)], 1)

    def rows(
        self,
        rows: np.ndarray,
        places: np.ndarray,
        seeds: Found,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Found:
        """Fit all points of some rows of the map.

        Raises
        ------
        InterruptedError
            If it was stopped.
        """
        images = self._of_rows(rows)
        found = Found.none(len(images))
        found.result.pixels[:] = self.masks(images).sum(axis=(1, 2))
        there = np.flatnonzero(self.crystal(images))
        at = np.stack(np.meshgrid(rows, np.arange(self.shape[1]), indexing="ij"), -1)
        at = at.reshape(-1, 2)
        for first in range(0, len(there), _TOGETHER):
            if stopped():
                raise InterruptedError
            some = there[first : first + _TOGETHER]
            found.put(some, self._from_seeds(images[some], at[some], places, seeds))
        return found

    def _from_seeds(
        self, images: np.ndarray, at: np.ndarray, places: np.ndarray, seeds: Found
    ) -> Found:
        """Fit points from the nearest seeds, with the thicknesses of these."""
        chi2 = seeds.result.chi2_per_pixel
        good = chi2 <= _ODD * np.median(chi2)
        known, layers = places[good], seeds.layers[good]
        states, probability = seeds.result.states[good], seeds.probability[good]
        near = cKDTree(known).query(at, min(_AROUND, len(known)))[1].reshape(len(at), -1)
        if self.settings.thickness == "by-pattern":
            read = self._thicknesses.fit(images, states[near[:, 0]], masks=self.masks(images))
            return Found(read.fit, read.layers, read.probabilities.max(axis=1))
        found = Found.none(len(images))
        found.result.states[:] = states[near[:, 0]]
        found.layers[:], found.probability[:] = layers[near[:, 0]], probability[near[:, 0]]
        several = np.flatnonzero((layers[near] != layers[near[:, :1]]).any(axis=1))
        if len(several):
            self._choose(found, several, images, near, layers, states)
        for number in np.unique(found.layers).tolist():
            rows = np.flatnonzero(found.layers == number)
            one = self._fitted(images[rows], found.result.states[rows], number)
            found.result.put(rows, one.result)
        return found

    def _choose(
        self,
        found: Found,
        several: np.ndarray,
        images: np.ndarray,
        near: np.ndarray,
        layers: np.ndarray,
        states: np.ndarray,
    ) -> None:
        """Choose between the thicknesses of the nearest seeds, by fits with large pixels."""
        numbers = np.unique(layers[near[several]])
        deviance = np.full((len(several), len(numbers)), np.inf)
        chi2, reached = np.ones(len(several)), found.result.states[several]
        for column, number in enumerate(numbers.tolist()):
            own = layers[near[several]] == number
            rows = np.flatnonzero(own.any(axis=1))
            starts = states[near[several[rows], own[rows].argmax(axis=1)]]
            one = self._fitted(images[several[rows]], starts, number, _BINS[:1]).result
            better = one.deviance < deviance[rows].min(axis=1)
            reached[rows[better]] = one.states[better]
            chi2[rows[better]] = _BINS[0] ** 2 * one.chi2_per_pixel[better]
            deviance[rows, column] = one.deviance
        least = deviance.min(axis=1, keepdims=True)
        weight = np.exp(-(deviance - least) / (2 * np.maximum(chi2, 1)[:, None]))
        found.result.states[several] = reached
        found.layers[several] = numbers[deviance.argmin(axis=1)]
        found.probability[several] = 1 / weight.sum(axis=1)

    def improve(
        self, found: Found, kept: Callable[..., Found], report: Callable[[str], None]
    ) -> None:
        """Begin again where something is wrong: from good neighbours, and with all thicknesses.

        What is fitted is kept, and not fitted again.
        """
        at = np.stack(np.meshgrid(*map(np.arange, self.shape), indexing="ij"), -1).reshape(-1, 2)
        for _ in range(_ROUNDS):
            good = found.good
            bad = np.flatnonzero(~good & (found.layers > 0))
            if not len(bad) or not good.any():
                break
            known = np.flatnonzero(good)
            distance, near = cKDTree(at[known]).query(at[bad])
            bad, near = bad[distance < _REACH], known[near[distance < _REACH]]
            report(f"{len(bad)} from neighbours")
            if not self._again(found, at, bad, near, kept):
                break
        bad = np.flatnonzero(~found.good & (found.layers > 0))
        if 0 < len(bad) <= _FEW * (found.layers > 0).sum():
            report(f"{len(bad)} with all thicknesses")
            for first in range(0, len(bad), _TOGETHER):
                some = bad[first : first + _TOGETHER]
                found.put_better(some, kept(self._searched, at[some]))

    def _searched(self, places: np.ndarray) -> Found:
        images = self.images(self.in_scan(places))
        read = self._thicknesses.fit(images, masks=self.masks(images))
        return Found(read.fit, read.layers, read.probabilities.max(axis=1))

    def _again(
        self,
        found: Found,
        at: np.ndarray,
        bad: np.ndarray,
        near: np.ndarray,
        kept: Callable[..., Found],
    ) -> int:
        """Fit bad points from near ones; return how many became better."""
        better = 0
        for number in np.unique(found.layers[near]).tolist():
            chosen = np.flatnonzero(found.layers[near] == number)
            for first in range(0, len(chosen), _TOGETHER):
                some = chosen[first : first + _TOGETHER]
                starts = found.result.states[near[some]]
                one = kept(self._from_states, at[bad[some]], starts, number)
                one.probability = found.beside(bad[some], one)
                better += found.put_better(bad[some], one)
        return better

    def _from_states(self, places: np.ndarray, starts: np.ndarray, layers: int) -> Found:
        return self._fitted(self.images(self.in_scan(places)), starts, layers)

    # What is said.

    def warnings(self) -> list[str]:
        """Return what one should know before the points are fitted."""
        found, own = [], self.calibration
        spacing = spacing_mrad(self.series)
        if 2 * own.semiangle_mrad > spacing:
            cell = 0.1 * self.series.request.material.shortest_edge_A
            step = f"{self.scan.step_nm:g} nm" if self.scan.step_nm else "of unknown size"
            found.append(
                f"Discs overlap ({2 * own.semiangle_mrad:.3g} mrad wide, {spacing:.3g} mrad "
                f"apart), so patterns must be averaged over whole unit cells ({cell:.2g} nm). "
                f"Steps are {step}, and a window has {self.settings.window} points along each "
                "side: check that it covers whole cells, or many."
            )
        if own.residuals > LARGE_RESIDUALS:
            found.append(_wrong(own.residuals))
        return found

    def _doubts(self, values: dict[str, np.ndarray], missing: np.ndarray) -> list[str]:
        """Return what one should know of the values, and of the missing part of each pattern."""
        found = self.warnings()
        if lost := int((missing == 1).sum()):
            found.append(
                f"{lost} of {missing.size} points are mostly not finite: nothing is claimed."
            )
        if (some := (missing > 0) & (missing < 1)).any():
            found.append(
                f"At {some.sum()} of {missing.size} points {missing[some].mean():.2g} of the "
                "pixels are not finite: they do not count."
            )
        chi2 = float(np.nanmedian(values["chi2_per_pixel"]))
        if chi2 > _WRONG:
            found.append(_wrong(chi2))
        edge = (values["flags"] & BITS[AT_EDGE]) > 0
        if edge.sum() > _MANY * (values["layers"] > 0).sum():
            found.append(_EDGE)
        if not np.isfinite(values[RELATIVE[0]]).any():
            found.append("No fit in the reference region is good: there is no relative strain.")
        return found

    def strain_map(self, found: Found) -> StrainMap:
        """Return the map of all points."""
        settings, own = self.settings, self.calibration
        claimed = found.layers > 0
        states, covariance = found.result.states, found.result.covariance
        common = {name: own.common_sigma.get(name, 0.0) for name in QUANTITIES}
        if settings.axes == "scan":
            turn = np.deg2rad(states[:, COLUMN["rotation_deg"]] - settings.scan_rotation_deg)
            change = _turning(turn)
            states = np.einsum("nij,nj->ni", change, states)
            covariance = change @ covariance @ change.transpose(0, 2, 1)
            typical = turn[claimed][:1] if claimed.any() else np.zeros(1)
            common = _turned_sigma(common, float(typical[0]))
        sigma = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0))
        values: dict[str, np.ndarray] = {}
        for name in QUANTITIES[:-1]:
            scale = self.cut.bins if name.startswith("shift") else 1
            values[name] = scale * states[:, COLUMN[name]]
            values[f"{name}_sigma"] = scale * sigma[:, COLUMN[name]]
        for axis, origin in zip("xy", self._centre, strict=True):
            values[f"shift_{axis}_px"] += origin
        dose = np.exp(states[:, COLUMN["log_dose"]])
        values["electrons"] = dose
        values["electrons_sigma"] = dose * sigma[:, COLUMN["log_dose"]]
        values["layers_probability"] = found.probability
        values["chi2_per_pixel"] = found.result.chi2_per_pixel
        values = {n: np.where(claimed, v, np.nan).reshape(self.shape) for n, v in values.items()}
        values["layers"] = found.layers.reshape(self.shape)
        values["flags"] = self._flags(found).reshape(self.shape)
        self._add_relative(values, found.good.reshape(self.shape))
        step = self.scan.step_nm
        # The middle of a window of an even number of points lies between two of them.
        middle = (self.settings.window - 1) % 2 / 2
        y, x = ((step or 1.0) * (axis + middle) for axis in self.axes)
        attributes = {**self.provenance(), "common_sigma": common}
        attributes["coordinate_units"] = "nm" if step else "points"
        missing = 1 - found.result.pixels / self.cut.part.mask.sum()
        attributes["warnings"] = self._doubts(values, missing)
        return StrainMap(values, x, y, attributes)

    def state(self, values: Mapping[str, float]) -> np.ndarray:
        """Return the state, shape (unknowns,), of a point at which a map has such values."""
        state = self.common.copy()
        for name in QUANTITIES[:-1]:
            state[COLUMN[name]] = values[name]
        state[SHIFT] = (state[SHIFT] - self._centre) / self.cut.bins
        state[COLUMN["log_dose"]] = np.log(values["electrons"])
        if self.settings.axes == "scan":
            turn = self.settings.scan_rotation_deg - state[COLUMN["rotation_deg"]]
            state = _turning(np.deg2rad([turn]))[0] @ state
        return state

    @property
    def _centre(self) -> np.ndarray:
        """Where the origin of the frame lies, from the centre of the calibration, in pixels."""
        origin = self.cut.part.in_pattern(np.array(self.cut.frame.origin_px))
        return np.asarray(origin - np.array(self.calibration.centre_px))

    def _flags(self, found: Found) -> np.ndarray:
        flags = np.zeros(len(found.layers), int)
        for name in FIT_FLAGS:
            flags += BITS[name] * np.array([name in words for words in found.result.flags])
        flags = np.where(found.layers > 0, flags, BITS["vacuum or too few electrons"])
        layers = found.layers.reshape(self.shape)
        border = maximum_filter(layers, 3, mode="nearest") != minimum_filter(
            layers, 3, mode="nearest"
        )
        bad = ((flags & BITS["bad chi2"]) > 0).reshape(self.shape)
        reach = math.ceil(self.settings.window / self.settings.every)
        mixed = (bad & border) | between_sides(layers, reach)
        flags = flags + BITS["mixed area"] * mixed.ravel()
        if not self.calibration.turn_told_apart:
            flags = flags + BITS["turn by 180 degrees undetermined"] * (found.layers > 0)
        return np.asarray(flags, np.uint8)

    def _add_relative(self, values: dict[str, np.ndarray], good: np.ndarray) -> None:
        inside = good
        if self.settings.reference is not None:
            x0, y0, x1, y1 = self.settings.reference
            y, x = np.meshgrid(*self.axes, indexing="ij")
            inside = good & (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
        for name in RELATIVE:
            strain = values[name.removeprefix("relative_")]
            mean = float(strain[inside].mean()) if inside.any() else np.nan
            values[name] = strain - mean

    def provenance(self) -> dict[str, Any]:
        """Return what the map follows from."""
        request, scan = self.series.request, self.scan
        return {
            "calibration": asdict(self.calibration),
            "provenance": {
                "scan": str(scan.path.absolute() if scan.path else scan.name),
                "scan_options": asdict(scan.options),
                "series": str(self.series.path.absolute()),
                "series_request": request.to_dict(),
                "settings": asdict(self.settings),
                "pacbed_version": __version__,
            },
            "reference": self.settings.reference,
            "axes": self.settings.axes,
            "crystal_axes": request.material.axes,
            "material": request.material.name,
            "energy_keV": request.energy_keV,
            "semiangle_mrad": self.calibration.semiangle_mrad,
            "mirrored": self.scan.mirrored,
        }


def between_sides(layers: np.ndarray, reach: int = 1) -> np.ndarray:
    """Return strips whose number of layers lies between those of their two sides.

    A pattern that mixes two thicknesses may look like one between them, and is described well.

    Parameters
    ----------
    layers
        Numbers of layers, 0 where there is no crystal, shape (ny, nx).
    reach
        Points of the map in which a step of the thickness is seen: strips are no wider.

    Returns
    -------
    numpy.ndarray
        Shape (ny, nx), bool.
    """
    layers = np.pad(layers, reach, mode="edge")
    block = np.ones((reach + 1, reach + 1), bool)
    wide = np.any([binary_opening(layers == number, block) for number in np.unique(layers)], axis=0)
    near = 2 * reach + 1
    low = minimum_filter(np.where(wide, layers, layers.max() + 1), near, mode="nearest")
    high = maximum_filter(np.where(wide, layers, -1), near, mode="nearest")
    found = ~wide & (layers > 0) & (low < layers) & (layers < high)
    return np.asarray(found[reach:-reach, reach:-reach])


def _wrong(residuals: float) -> str:
    return (
        f"Residuals are {residuals:.3g} times the noise: material, beam energy, semi-angle, pixel "
        "size, number of layers or handedness may be other ones than said, or the model is too "
        "simple."
    )


def _turning(turn: np.ndarray) -> np.ndarray:
    """Return the matrices that turn strain and tilt of states counter-clockwise."""
    change = np.tile(np.eye(len(UNKNOWNS)), (len(turn), 1, 1))
    change[:, :3, :3] = strain_turn(turn)
    c, s = np.cos(turn), np.sin(turn)
    change[:, TILT, TILT] = np.array([[c, -s], [s, c]]).transpose(2, 0, 1)
    return change


def strain_turn(turn: np.ndarray) -> np.ndarray:
    """Return the matrices that turn (xx, yy, xy) counter-clockwise, shape (n, 3, 3)."""
    c, s = np.cos(turn), np.sin(turn)
    rows = [
        [c * c, s * s, -2 * c * s],
        [s * s, c * c, 2 * c * s],
        [c * s, -c * s, c * c - s * s],
    ]
    return np.array(rows).transpose(2, 0, 1)


def _turned_sigma(sigma: dict[str, float], turn: float) -> dict[str, float]:
    """Return standard deviations in turned axes, of components that are independent."""
    found = dict(sigma)
    strains, tilts = ("strain_xx", "strain_yy", "strain_xy"), ("tilt_x_mrad", "tilt_y_mrad")
    c, s = np.cos(turn), np.sin(turn)
    matrices = strain_turn(np.array([turn]))[0], np.array([[c, -s], [s, c]])
    for names, matrix in zip((strains, tilts), matrices, strict=True):
        squares = matrix**2 @ np.array([sigma[name] ** 2 for name in names])
        found |= {name: float(np.sqrt(v)) for name, v in zip(names, squares, strict=True)}
    return found
