"""Where the discs of a pattern lie, and the part of it that is compared with a series."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.special import j1

from pacbed.exceptions import PacbedError
from pacbed.reading.patterns import Pattern, filled
from pacbed.reading.pixels import put_together

SMALLEST_RADIUS_PX = 3.5
"""Discs smaller than this have no edge to speak of."""

# Most pixels per axis in which a pattern is compared.
_MOST_PIXELS = 512
# Width of the edge that is looked for, of the radius; lowest contrast of a disc; and how much less
# contrast than the best place another one has that may be the centre, too.
_EDGE, _LOWEST_CONTRAST, _RIVAL = 0.08, 8.0, 0.6
# Where the radius is not known: how far from the middle of the electrons a disc may be, in radii;
# so many times this is looked at; and in pixels of which size a radius is seen well.
_REACH, _NEAR, _ROUND_PX = 2.5, 4.0, 14.0
# A disc of which less than this can be used does not show where it is.
_MOSTLY_HIDDEN = 0.6
# Relative difference of the radius of the discs from the expected one that is worth a word.
_OTHER_RADIUS = 0.2


def _root(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(np.maximum(filled(image, mask), 0)))


def _contrast(root: np.ndarray, radius_px: float) -> np.ndarray:
    """Return how much darker it becomes across a circle around each pixel, shape (ny, nx).

    Of the root of an image, in which noise is even, and with an edge as wide as a share of the
    radius: circles of any radius can be compared.
    """
    room = math.ceil(1.2 * radius_px)
    more = [next_fast_len(n + 2 * room, real=True) - n - room for n in root.shape]
    wide = np.pad(root, [(room, after) for after in more], mode="edge")
    q = np.hypot(np.fft.fftfreq(wide.shape[0])[:, None], np.fft.rfftfreq(wide.shape[1]))
    edge = _EDGE * radius_px
    template = edge * 2 * np.pi * q * j1(2 * np.pi * radius_px * q)
    contrast = irfft2(rfft2(wide) * template * np.exp(-2 * (np.pi * edge * q) ** 2), wide.shape)
    return np.asarray(contrast[room : room + root.shape[0], room : room + root.shape[1]])


def find_radius_px(pattern: Pattern) -> float:
    """Return the radius of the discs in pixels, that of the circle of the highest contrast.

    Raises
    ------
    PacbedError
        If no circle stands out.
    """
    largest = 0.48 * min(pattern.image.shape)
    radii = np.geomspace(SMALLEST_RADIUS_PX, largest, 40)
    root, middle = _root(pattern.image, pattern.mask), _middle_of_electrons(pattern)
    highest = [_highest_contrast(root, middle, r) for r in radii]
    best = int(np.argmax(highest))
    if not 0 < best < len(radii) - 1:
        raise PacbedError(
            f"{pattern.name}: the radius of the discs was not found: say with --pixel-mrad how "
            "large a pixel is"
        )
    near, step = np.array(highest[best - 1 : best + 2]), np.log(radii[1] / radii[0])
    bend = near[0] - 2 * near[1] + near[2]
    return float(radii[best] * np.exp(step * (near[0] - near[2]) / (2 * min(bend, -1e-30))))


def _highest_contrast(root: np.ndarray, middle: np.ndarray, radius_px: float) -> float:
    """Return the highest contrast of circles near the middle of the electrons.

    Only the part is looked at in which it counts, and large circles with pixels put together.
    """
    bins, reach = max(1, int(radius_px / _ROUND_PX)), math.ceil(_NEAR * _REACH * radius_px)
    first = np.maximum(np.rint(middle).astype(int) - reach, 0)
    part = root[tuple(slice(n, n + 2 * reach + 1) for n in first[::-1])]
    contrast = _contrast(put_together(part, bins) / bins**2, radius_px / bins)
    x, y = np.meshgrid(*(bins * np.arange(n) + (bins - 1) / 2 for n in contrast.shape[::-1]))
    return float((contrast * _nearness(middle - first, x, y, _REACH * radius_px)).max())


def find_centres(pattern: Pattern, radius_px: float, spacing_px: float) -> np.ndarray:
    """Return where the central disc may be, the likeliest place first, shape (places, 2), x and y.

    Parameters
    ----------
    pattern
        A clean one.
    radius_px, spacing_px
        Radius of the discs, and distance between neighbouring ones, in pixels.

    Raises
    ------
    PacbedError
        If no disc is seen.
    """
    contrast = _contrast(_root(pattern.image, pattern.mask), radius_px)
    x, y = np.meshgrid(*(np.arange(n) for n in contrast.shape[::-1]))
    middle = _middle_of_electrons(pattern)
    weighted = contrast * _nearness(middle, x, y, spacing_px)
    window = 2 * max(1, round(0.5 * spacing_px)) + 1
    peaks = (ndimage.maximum_filter(weighted, window) == weighted) & (weighted > 0)
    rows, columns = np.nonzero(peaks)
    order = np.argsort(-weighted[rows, columns])[:3]
    spread = 1.48 * float(np.median(np.abs(contrast - np.median(contrast))))
    if not len(order) or contrast[rows[order[0]], columns[order[0]]] < _LOWEST_CONTRAST * spread:
        raise PacbedError(
            f"{pattern.name}: no disc with a radius of {radius_px:.3g} pixels is seen: check the "
            "semi-angle and the size of a pixel; pacbed read also takes --centre, where zero "
            "angle lies"
        )
    heights = weighted[rows[order], columns[order]]
    order = order[heights > _RIVAL * heights[0]]
    places = np.column_stack([columns[order], rows[order]]).astype(float)
    hidden = _hidden_centre(pattern.mask, contrast, middle, radius_px, spacing_px)
    return np.vstack([*hidden, places])


def _hidden_centre(
    mask: np.ndarray, contrast: np.ndarray, middle: np.ndarray, radius_px: float, spacing_px: float
) -> list[np.ndarray]:
    """Return the centre of symmetry of the discs, if a beam stop hides the disc that is there."""
    if mask.all():
        return []
    seen, wide = np.maximum(contrast, 0), [2 * n for n in contrast.shape]
    pairs = irfft2(rfft2(seen, wide) ** 2, wide)  # whose middle lies at half of these pixels
    y, x = np.indices(pairs.shape) / 2
    likely = pairs * _nearness(middle, x, y, spacing_px)
    centre = np.array(np.unravel_index(likely.argmax(), likely.shape))[::-1] / 2
    y, x = np.indices(seen.shape)
    disc = np.hypot(x - centre[0], y - centre[1]) < radius_px
    return [centre] if mask[disc].mean() < _MOSTLY_HIDDEN else []


def _middle_of_electrons(pattern: Pattern) -> np.ndarray:
    """Return the mean place (x, y) of the electrons."""
    light = np.maximum(filled(pattern.image, pattern.mask), 0)
    rows, columns = np.indices(light.shape)
    return np.array([(light * along).sum() / light.sum() for along in (columns, rows)])


def _nearness(middle: np.ndarray, x: np.ndarray, y: np.ndarray, reach_px: float) -> np.ndarray:
    """Return a weight of places, which falls with the distance from where the electrons are."""
    squares = (x - middle[0]) ** 2 + (y - middle[1]) ** 2
    return np.asarray(np.exp(-squares / (2 * reach_px**2)))


@dataclass(frozen=True)
class Window:
    """The part of a pattern that is compared with a series, and where it may lie.

    Parameters
    ----------
    pattern
        The pattern.
    image, mask
        The part, shape (ny, nx), and which of its pixels count.
    pixel_mrad
        Nominal size of its pixels in mrad.
    corner
        First column and row in the pattern.
    bins
        Pixels of the pattern along each axis that were put together.
    centres
        Where zero angle may lie in the part, the likeliest place first, shape (places, 2).
    """

    pattern: Pattern
    image: np.ndarray
    mask: np.ndarray
    pixel_mrad: float
    corner: tuple[int, int]
    bins: int
    centres: np.ndarray

    def in_pattern(self, place: np.ndarray) -> np.ndarray:
        """Return a place (x, y) of the part in pixels of the pattern."""
        return np.asarray(self.corner + self.bins * np.asarray(place) + (self.bins - 1) / 2)


def window(
    pattern: Pattern,
    pixel_mrad: float,
    semiangle_mrad: float,
    spacing_mrad: float,
    reach_mrad: float,
    centre: tuple[float, float] | None = None,
) -> Window:
    """Cut out what is known around the centre of a pattern.

    Parameters
    ----------
    pattern
        A clean one.
    pixel_mrad, semiangle_mrad, spacing_mrad
        Size of a pixel, radius of the discs, and distance between neighbouring ones, in mrad.
    reach_mrad
        Angle from the centre up to which patterns are known, in mrad.
    centre
        Where zero angle lies, in pixels (x, y); found if not given.

    Raises
    ------
    PacbedError
        If no disc is seen, or pixels are too large or the field is too small.
    """
    radius = semiangle_mrad / pixel_mrad
    if radius < SMALLEST_RADIUS_PX:
        raise PacbedError(
            f"{pattern.name}: discs of {semiangle_mrad:g} mrad have a radius of {radius:.2g} "
            f"pixels of {pixel_mrad:.3g} mrad; at least {SMALLEST_RADIUS_PX:g} are needed: check "
            "the size of a pixel, or use a longer camera length"
        )
    width = np.array(pattern.image.shape[::-1])
    if max(width) * pixel_mrad < 2 * spacing_mrad:
        raise PacbedError(
            f"{pattern.name} shows {width[0] * pixel_mrad:.3g} × {width[1] * pixel_mrad:.3g} mrad: "
            f"neighbouring discs, {spacing_mrad:.3g} mrad apart, lie outside. Check the size of a "
            "pixel, or use a shorter camera length"
        )
    with suppress(PacbedError):
        seen = find_radius_px(pattern)
        if abs(seen / radius - 1) > _OTHER_RADIUS:
            note = (
                f"the discs seem to have a radius of {seen:.3g} pixels, not {radius:.3g}: check "
                "the semi-angle and the size of a pixel"
            )
            pattern = replace(pattern, notes=(*pattern.notes, note))
    if centre is None:
        places = find_centres(pattern, radius, spacing_mrad / pixel_mrad)
    else:
        places = np.array([centre], float)
        if not ((places >= 0) & (places <= width - 1)).all():
            raise PacbedError(f"{pattern.name}: --centre {centre} lies outside of its pixels")
    size = np.minimum(width, 2 * math.ceil(reach_mrad / pixel_mrad) + 1)
    bins = max(1, min(math.ceil(max(size) / _MOST_PIXELS), int(radius / SMALLEST_RADIUS_PX)))
    size -= size % bins
    corner = np.clip(np.round(places[0] - size / 2).astype(int), 0, width - size)
    part = slice(corner[1], corner[1] + size[1]), slice(corner[0], corner[0] + size[0])
    y, x = np.ogrid[part]
    known = np.hypot(x - places[0, 0], y - places[0, 1]) * pixel_mrad <= reach_mrad
    mask = pattern.mask[part] & known
    if mask.sum() < np.pi * radius**2:
        raise PacbedError(
            f"{pattern.name}: around its centre ({places[0, 0]:.4g}, {places[0, 1]:.4g}) only "
            f"{mask.sum()} pixels can be used, less than one disc: check --centre and --mask"
        )
    return Window(
        pattern,
        put_together(np.where(mask, pattern.image[part], 0), bins),
        put_together(mask, bins) == bins**2,
        pixel_mrad * bins,
        (int(corner[0]), int(corner[1])),
        bins,
        (places - corner - (bins - 1) / 2) / bins,
    )


def centred(part: Window) -> np.ndarray:
    """Return the largest square around the likeliest centre, which lies on pixel ``n // 2``."""
    x, y = np.round(part.centres[0]).astype(int)
    ny, nx = part.image.shape
    half = min(x, y, nx - x, ny - y)
    whole = filled(part.image, part.mask)
    return whole[y - half : y + half, x - half : x + half]
