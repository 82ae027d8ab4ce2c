"""Strain and rotation from the positions of discs: the classical method, to compare networks with.

A disc is found where a circle of its radius has the highest radial gradient. The mean of an image f
on a circle of radius r around x, and its derivative, are correlations that are products in
Fourier space,

    C(x; r) = -∂/∂r ⟨f⟩(x; r)    ↔    2πq J₁(2πqr) f̂(q),

so that one transform of the image serves all discs and radii. It is the correlation with a template
of the aperture of which the edge alone is kept, since the inside of a disc is filled unevenly:
Pekin et al., Ultramicroscopy 176 (2017) 170 compare such filters, and Müller et al., Microsc.
Microanal. 18 (2012) 995 look for the highest radial gradient. Discs are searched from the centre
outwards, each order where the lattice of the inner ones predicts it, and the lattice is fitted to
their positions by least squares, as py4DSTEM does (Savitzky et al., Microsc. Microanal. 27 (2021)
712).

What follows is the lattice in pixels. A microscopist calibrates the camera length; here the field
of view of every example is another. Two answers are given: with the scale from the radius of the
discs, which the semi-angle tells, and with the scale known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.fft import irfft2, rfft2
from scipy.special import j1

from pacbed.examples.augment import AugmentationSettings
from pacbed.examples.labels import OUTPUTS
from pacbed.exceptions import PacbedError
from pacbed.specimen.crystal import Crystal
from pacbed.specimen.microscope import wavelength_A

if TYPE_CHECKING:
    import pandas as pd

    from pacbed.examples.dataset import Dataset

MEASURED = OUTPUTS["strain-rotation"]
"""What disc positions tell: tilt moves intensity, not discs."""

# Discs smaller than this have no edge to speak of.
_SMALLEST_RADIUS_PX = 3.5
# Standard deviation of the Gaussian that smooths the edge, as a share of the radius of the discs. A
# smaller one is less biased by uneven filling, a larger one averages more noise. While discs are
# searched it is more than the radius varies with the field of view.
_EDGE, _SEARCH_EDGE = 0.045, 0.1
# Pixels themselves blur an edge by about as much.
_SHARPEST_EDGE_PX = 0.4
# Discs further from the fitted lattice than this many standard deviations are left out.
_OUTLIER = 3.0
# Pixels in a pixel in which the highest contrast is looked for: a parabola fits sharp peaks badly.
_FINER = 2
# Beyond this relative change of a length, what was found is not the lattice that was looked for.
_LARGEST_CHANGE = 0.25
# A lattice through a smaller share of the discs within the image is nearly always a wrong one.
_SMALLEST_SHARE = 0.4
# Layers of a crystal in which reflections are looked for: more than any stacking repeats.
_LAYERS_TO_LOOK_AT = 6


@dataclass(frozen=True)
class Measurement:
    """What the discs of one image tell.

    Parameters
    ----------
    strain
        Strain tensor ε = F - I as fractions, shape (2, 2), in the axes of the undeformed crystal.
    rotation_deg
        Rotation γ of the pattern, counter-clockwise, in degrees.
    discs
        Number of discs to which the lattice was fitted; 0 if no lattice was found, and then the
        crystal is taken to be undeformed.
    field_of_view_mrad
        Width of the image as found or as given, in mrad.
    residual_px
        Root-mean-square distance of these discs from the lattice, in pixels.
    """

    strain: np.ndarray
    rotation_deg: float
    discs: int
    field_of_view_mrad: float
    residual_px: float


def reflections_mrad(material: Crystal, energy_keV: float, largest_mrad: float) -> np.ndarray:
    """Return the reflections of the undeformed crystal, shape (n, 2), x and y, innermost first.

    Without those that no layer has by itself: in the centred cell of a 2H crystal h + k is even, in
    a stack of several lattices each layer has its own. The first is the direct beam.
    """
    wavelength = 1e3 * wavelength_A(energy_keV)
    edges = np.linalg.norm(material.cell_A, axis=1)
    n, m = np.ceil(largest_mrad / wavelength * edges).astype(int)
    h, k = (a.ravel() for a in np.meshgrid(np.arange(-n, n + 1), np.arange(-m, m + 1)))
    hk = np.column_stack([h, k])
    lattice = wavelength * hk @ np.linalg.inv(material.cell_A).T
    near = np.hypot(*lattice.T) <= largest_mrad
    seen = material.visible(hk[near], material.most_layers or _LAYERS_TO_LOOK_AT)
    lattice = lattice[near][seen]
    length = np.hypot(*lattice.T)
    order = np.lexsort((np.arctan2(*lattice.T[::-1]), length.round(6)))
    return np.asarray(lattice[order])


def discs_overlap(
    material: Crystal,
    energy_keV: float,
    semiangle_mrad: float,
    stretch: float | Sequence[float] = 1.0,
) -> bool:
    """Return whether neighbouring discs touch or overlap.

    Of the principal stretches that occur, the largest brings discs together.
    """
    nearest = nearest_reflection_mrad(material, energy_keV)
    return bool(2 * semiangle_mrad * np.max(stretch) >= nearest)


def nearest_reflection_mrad(material: Crystal, energy_keV: float) -> float:
    """Return the diffraction angle of the innermost reflection of the undeformed crystal."""
    # In a cell of many atoms the first ones may be extinct.
    reach = 2.1e3 * wavelength_A(energy_keV) / material.shortest_edge_A
    while len(found := reflections_mrad(material, energy_keV, reach)) < 2:
        reach *= 1.5
    return float(np.hypot(*found[1]))


def obstacle_to_discs(
    material: Crystal,
    energy_keV: float,
    semiangle_mrad: float,
    augmentation: AugmentationSettings,
) -> str | None:
    """Return why a :class:`DiscMethod` cannot measure discs in such images; None if it can."""
    radius_px, field = semiangle_mrad / augmentation.pixel_mrad, augmentation.field_of_view_mrad
    if radius_px < _SMALLEST_RADIUS_PX:
        return (
            f"discs of {semiangle_mrad:g} mrad have a radius of {radius_px:.2g} pixels in "
            f"{augmentation.pixels} pixels of {field:g} mrad: at least "
            f"{_SMALLEST_RADIUS_PX:g} are needed. Make a dataset of more pixels"
        )
    reflections = reflections_mrad(material, energy_keV, augmentation.reach_mrad)
    reach = np.abs(reflections[1:7]).max(initial=0) + semiangle_mrad
    if len(reflections) < 7 or reach > field / 2:
        return (
            f"a field of view of {field:g} mrad does not show the six discs around the central "
            f"one ({semiangle_mrad:g} mrad, {material.name}): make a dataset of a larger field "
            "of view"
        )
    return None


class DiscMethod:
    """Measures images that differ by what the discs tell, by shift and field of view.

    Parameters
    ----------
    material, energy_keV, semiangle_mrad
        The undeformed crystal, the beam, and the radius of the discs.
    augmentation
        Pixels of the images, their nominal field of view, and how far it and the centre vary.
    power
        Positions are those in intensities raised to this power. In a square root the noise of
        counted electrons is the same everywhere, and weak discs are not lost near bright ones.
        The radius is measured in linear intensity: a root makes discs wider.
    rotation_deg
        Rotation of the crystal, counter-clockwise, about which images vary by some degrees.

    Raises
    ------
    PacbedError
        If the discs are too small in pixels, or too few lie within the field of view.
    """

    def __init__(
        self,
        material: Crystal,
        energy_keV: float,
        semiangle_mrad: float,
        augmentation: AugmentationSettings,
        power: float = 0.5,
        rotation_deg: float = 0.0,
    ) -> None:
        self.semiangle_mrad = semiangle_mrad
        self.augmentation = augmentation
        self.power = power
        c, s = math.cos(math.radians(rotation_deg)), math.sin(math.radians(rotation_deg))
        self._turn = np.array([[c, -s], [s, c]])
        n = augmentation.pixels
        self.radius_px = semiangle_mrad / augmentation.pixel_mrad
        if reason := obstacle_to_discs(material, energy_keV, semiangle_mrad, augmentation):
            raise PacbedError(reason)
        self._reflections = reflections_mrad(material, energy_keV, augmentation.reach_mrad)
        length = np.hypot(*self._reflections.T).round(3)
        orders, self._order = np.unique(length, return_inverse=True)
        self._spacing_mrad = float(orders[1])
        self._q = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None, :])
        self._edge_px = max(_EDGE * self.radius_px, _SHARPEST_EDGE_PX)
        search_edge = max(_SEARCH_EDGE * self.radius_px, 2 * _SHARPEST_EDGE_PX)
        self._search = self._template(self.radius_px, search_edge)
        # Radii that occur, in steps over which the peak of the contrast is still a parabola.
        reach = self.radius_px * augmentation.field_of_view_variation
        steps = math.ceil(reach / self._edge_px)
        self._radii = self.radius_px + self._edge_px * np.arange(-steps, steps + 1)
        self._templates = [self._template(r, self._edge_px) for r in self._radii]
        self._bias_px = self._radius_bias()

    def measure(self, image: np.ndarray, field_of_view_mrad: float | None = None) -> Measurement:
        """Measure strain and rotation in an image.

        Parameters
        ----------
        image
            Linear intensity in any unit, shape (pixels, pixels), y and x ascending.
        field_of_view_mrad
            Width of the image where it is known; else it follows from the radius of the discs.

        Raises
        ------
        PacbedError
            If the image has another shape.
        """
        n = self.augmentation.pixels
        if image.shape != (n, n):
            raise PacbedError(
                f"an image of {' × '.join(map(str, image.shape))} pixels was given to a method for "
                f"{n} × {n}: use the settings of its dataset"
            )
        signal = np.maximum(image, 0, dtype=np.float32)
        try:
            spectrum = rfft2(signal**self.power)
            lattice = self._find(spectrum, field_of_view_mrad)
            field = field_of_view_mrad
            if field is None:
                peak, radius = self._radius(rfft2(signal), lattice)
                field = self.semiangle_mrad / radius * n
            else:
                peak = self.semiangle_mrad / field * n
            lattice = self._refine(spectrum, lattice, peak)
            strain, rotation = _strain(lattice.matrix * (field / n))
            return Measurement(strain, rotation, lattice.discs, field, lattice.residual_px)
        except _NoLattice:
            field = field_of_view_mrad or self.augmentation.field_of_view_mrad
            return Measurement(np.zeros((2, 2)), 0.0, 0, field, math.nan)

    def _find(self, spectrum: np.ndarray, field_of_view_mrad: float | None) -> _Lattice:
        """Search the discs from the centre outwards."""
        n = self.augmentation.pixels
        pixel = (field_of_view_mrad or self.augmentation.field_of_view_mrad) / n
        contrast = self._contrast(spectrum, self._search)
        window = math.ceil(self.augmentation.translation_px) + 2
        middle = np.full((1, 2), n // 2, float)
        places, heights, found = _peaks(contrast, middle, window)
        if not found[0]:
            raise _NoLattice
        lattice = _Lattice(places[0], self._turn / pixel, 1, math.nan)
        reflections = self._reflections[:1]
        for order in range(1, self._order.max() + 1):
            candidates = self._reflections[self._order == order]
            candidates = candidates[self._within(lattice.at(candidates))]
            share = 0.3 if order == 1 else 0.08
            window = max(2, math.ceil(share * self._spacing_mrad / pixel))
            more, higher, found = _peaks(contrast, lattice.at(candidates), window)
            reflections = np.concatenate([reflections, candidates[found]])
            places = np.concatenate([places, more[found]])
            heights = np.concatenate([heights, higher[found]])
            # Bright discs must not outweigh all others as long as any may be a wrong one.
            weights = np.minimum(heights, np.median(heights))
            lattice = self._fit(reflections, places, weights)
        return lattice

    def _radius(self, spectrum: np.ndarray, lattice: _Lattice) -> tuple[float, float]:
        """Return at which radius in pixels discs have the highest contrast, and their radius."""
        edge = self._edge_px
        expected = self._visible(lattice)[1]
        maps = [self._contrast(spectrum, template) for template in self._templates]
        near = _highest(self._radii, _total(maps, expected)) + edge * np.array([-1, 0, 1])
        maps = [self._contrast(spectrum, self._template(r, edge)) for r in near]
        peak = _highest(near, _total(maps, expected))
        # Radii beyond the variation of the field of view do not occur.
        variation = self.augmentation.field_of_view_variation
        shortest, longest = self.radius_px / (1 + variation), self.radius_px / (1 - variation)
        return peak, min(max(peak - self._bias_px, shortest), longest)

    def _refine(self, spectrum: np.ndarray, lattice: _Lattice, radius_px: float) -> _Lattice:
        """Measure positions on finer pixels, and fit the lattice again."""
        reflections, expected = self._visible(lattice)
        contrast = self._contrast(spectrum, self._template(radius_px, self._edge_px), _FINER)
        places, heights, found = _peaks(contrast, expected * _FINER, _FINER + 1)
        # Noise alone would give the squares of the heights as weights; but uneven filling moves
        # bright discs as much as weak ones.
        refined = self._fit(reflections[found], places[found] / _FINER, heights[found])
        if refined.discs < _SMALLEST_SHARE * len(self._visible(refined)[0]):
            raise _NoLattice
        return refined

    def _visible(self, lattice: _Lattice) -> tuple[np.ndarray, np.ndarray]:
        """Return the reflections whose discs lie within the image, and where they are."""
        places = lattice.at(self._reflections)
        within = self._within(places)
        return self._reflections[within], places[within]

    def _fit(self, reflections: np.ndarray, places: np.ndarray, weights: np.ndarray) -> _Lattice:
        """Fit a lattice by weighted least squares, without discs that do not belong to it."""
        keep = np.ones(len(reflections), bool)
        for _ in range(5):
            lattice = _least_squares(reflections[keep], places[keep], weights[keep])
            distance = np.hypot(*(places - lattice.at(reflections)).T)
            # The median distance is 1.177 standard deviations; a tenth of a pixel is no outlier.
            spread = max(0.1, float(np.median(distance[keep])) / 1.177)
            new = distance < _OUTLIER * spread
            if np.array_equal(new, keep):
                break
            keep = new
        return lattice

    def _within(self, places: np.ndarray) -> np.ndarray:
        """Return which discs lie within the image, with room for their edge."""
        room = self.radius_px * (1 + self.augmentation.field_of_view_variation) + 1
        last = self.augmentation.pixels - 1
        return np.asarray(((places > room) & (places < last - room)).all(axis=1))

    def _template(self, radius_px: float, edge_px: float) -> np.ndarray:
        q = self._q
        smooth = np.exp(-2 * (math.pi * edge_px * q) ** 2)
        return np.asarray(2 * math.pi * q * j1(2 * math.pi * radius_px * q) * smooth, np.float32)

    def _contrast(self, spectrum: np.ndarray, template: np.ndarray, finer: int = 1) -> np.ndarray:
        """Return C on the pixels of the image, or on finer ones, so many in each."""
        n = self.augmentation.pixels
        product = spectrum * template
        if finer > 1:
            highest = (n - 1) // 2
            padded = np.zeros((finer * n, finer * n // 2 + 1), product.dtype)
            padded[: highest + 1, : highest + 1] = product[: highest + 1, : highest + 1]
            padded[-highest:, : highest + 1] = product[-highest:, : highest + 1]
            product = padded
        return np.asarray(irfft2(product, s=(finer * n, finer * n)))

    def _radius_bias(self) -> float:
        """Return by how much the radius of an evenly filled disc would be found too large.

        Smoothing moves a curved edge inwards.
        """
        n, edge = self.augmentation.pixels, self._edge_px
        radius, q = self.radius_px, np.maximum(self._q, 1e-9)  # 0 cannot be divided by
        disc = radius * j1(2 * math.pi * radius * q) / q
        pixel = np.sinc(np.fft.fftfreq(n))[:, None] * np.sinc(np.fft.rfftfreq(n))[None, :]
        around = radius + edge * np.array([-1, 0, 1])
        maps = [self._contrast(disc * pixel, self._template(r, edge)) for r in around.tolist()]
        return _highest(around, np.array(maps)[:, 0, 0]) - radius


class _NoLattice(Exception):  # noqa: N818
    """Too few discs, or discs of no such lattice."""


@dataclass(frozen=True)
class _Lattice:
    """Places of discs in pixels: origin + matrix @ reflection (in mrad of the undeformed)."""

    origin: np.ndarray
    matrix: np.ndarray
    discs: int
    residual_px: float

    def at(self, reflections: np.ndarray) -> np.ndarray:
        return np.asarray(self.origin + reflections @ self.matrix.T)


def _least_squares(reflections: np.ndarray, places: np.ndarray, weights: np.ndarray) -> _Lattice:
    design = np.column_stack([np.ones(len(reflections)), reflections])
    root = np.sqrt(weights)[:, None]
    solution, _, rank, _ = np.linalg.lstsq(design * root, places * root, rcond=None)
    if rank < 3:
        raise _NoLattice
    residual = places - design @ solution
    rms = math.sqrt(float((residual**2).sum(axis=1).mean()))
    return _Lattice(solution[0], solution[1:].T, len(reflections), rms)


def _strain(matrix: np.ndarray) -> tuple[np.ndarray, float]:
    """Return strain tensor and rotation in degrees of g' = matrix @ g, where matrix = R F⁻ᵀ."""
    if not np.abs(np.linalg.svd(matrix, compute_uv=False) - 1).max() < _LARGEST_CHANGE:
        raise _NoLattice
    left, stretches, right = np.linalg.svd(np.linalg.inv(matrix).T)
    rotation = left @ right
    gradient = right.T @ np.diag(stretches) @ right
    angle = math.degrees(math.atan2(rotation[1, 0], rotation[0, 0]))
    return gradient - np.eye(2), angle


# Least squares of a + b x + c y + d x² + e xy + f y² over 3 × 3 pixels.
_Y, _X = (a.ravel() for a in np.meshgrid([-1.0, 0, 1], [-1.0, 0, 1], indexing="ij"))
_PARABOLOID = np.linalg.pinv(np.column_stack([np.ones(9), _X, _Y, _X**2, _X * _Y, _Y**2]))


def _peaks(
    contrast: np.ndarray, expected: np.ndarray, window: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return places (x, y) of the highest points around those expected, heights, and which are.

    A highest point on the border of its window is the flank of another.
    """
    last = len(contrast) - 1
    start = np.clip(np.rint(expected).astype(int), window + 1, last - window - 1)
    patch = _patches(contrast, start, window).reshape(len(start), (2 * window + 1) ** 2)
    rows, columns = np.divmod(patch.argmax(axis=1), 2 * window + 1)
    offset = np.column_stack([columns, rows]) - window
    found = (np.abs(offset) < window).all(axis=1)
    highest = start + offset
    values = _patches(contrast, highest, 1).reshape(len(start), 9) @ _PARABOLOID.T
    a, b, c, d, e, f = values.T
    determinant = 4 * d * f - e**2
    found &= (d < 0) & (determinant > 0)
    determinant = np.where(found, determinant, 1)
    x = np.clip((e * c - 2 * f * b) / determinant, -1, 1)
    y = np.clip((e * b - 2 * d * c) / determinant, -1, 1)
    height = np.where(found, a + (b * x + c * y) / 2, patch.max(axis=1, initial=0))
    return highest + np.column_stack([x, y]), height, found & (height > 0)


def _patches(contrast: np.ndarray, centres: np.ndarray, window: int) -> np.ndarray:
    steps = np.arange(-window, window + 1)
    rows = centres[:, 1, None, None] + steps[:, None]
    return np.asarray(contrast[rows, centres[:, 0, None, None] + steps])


def _total(maps: Sequence[np.ndarray], expected: np.ndarray) -> np.ndarray:
    """Return the contrast of all discs together in each of several maps."""
    return np.array([_peaks(contrast, expected, 2)[1].sum() for contrast in maps])


def _highest(positions: np.ndarray, values: np.ndarray) -> float:
    """Return where a parabola through the highest value and its neighbours is highest."""
    best = int(np.clip(values.argmax(), 1, len(values) - 2))
    before, here, after = values[best - 1 : best + 2]
    curvature = before - 2 * here + after
    shift = (before - after) / (2 * curvature) if curvature < 0 else 0.0
    step = float(positions[1] - positions[0])
    return float(positions[best] + step * np.clip(shift, -1, 1))


def predict_by_discs(
    data: Dataset,
    material: Crystal,
    energy_keV: float,
    scale_known: bool = False,
    power: float = 0.5,
) -> pd.DataFrame:
    """Measure strain and rotation in every example of a dataset.

    Parameters
    ----------
    data
        The examples; the semi-angle is that of the dataset.
    material, energy_keV
        The undeformed crystal and the beam.
    scale_known
        Take the field of view with which an example was made, as from a perfect calibration, rather
        than that which follows from the radius of the discs.
    power
        As of :class:`DiscMethod`.

    Returns
    -------
    pandas.DataFrame
        As of :func:`pacbed.examples.predictions.prediction_table` for strain and rotation, and
        ``discs``: how many discs the lattice was fitted to. Where it is 0, no lattice was found,
        and the prediction is the undeformed crystal.

    Raises
    ------
    PacbedError
        If the dataset does not say how it was made, or shows too little.
    """
    from pacbed.examples.predictions import prediction_table  # many a job imports this module

    augmentation, semiangle = _made_with(data)
    method = DiscMethod(material, energy_keV, semiangle, augmentation, power)
    fields = data.fields_of_view_mrad if scale_known else [None] * len(data.images)
    found = [method.measure(*one) for one in zip(data.images, fields, strict=True)]
    predicted = [[*m.strain[[0, 1, 0], [0, 1, 1]], m.rotation_deg] for m in found]
    table = prediction_table(data, MEASURED, np.array(predicted))
    return table.assign(discs=[m.discs for m in found])


def _made_with(data: Dataset) -> tuple[AugmentationSettings, float]:
    """Return how the examples of a dataset were made, and their semi-angle."""
    made = data.attributes
    try:
        return AugmentationSettings(**made["augmentation"]), float(made["semiangle_mrad"])
    except (KeyError, TypeError, ValueError) as error:
        raise PacbedError(
            f"the dataset does not say how its examples were made ({error}): make it anew with "
            "pacbed augment or the workflow"
        ) from error
