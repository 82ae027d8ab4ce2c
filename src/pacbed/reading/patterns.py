"""Measured patterns, cleaned of what is not electrons.

What is wrong with a pattern is either mended, counted and said, or the pattern is refused in one
message.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull

from pacbed.exceptions import PacbedError
from pacbed.reading.pixels import put_together

# Standard deviations by which a pixel differs from its neighbours if it is out of order.
_OUTLIER = 8.0
# Fewest pixels of exactly the largest value, and of zero in a bright place, that are no chance.
_PLATEAU, _HOLE = 8, 2
# A hole of so many pixels may be a beam stop, which crosses dark places, too.
_LARGE_HOLE = 30
# Least part of its convex hull that a hole fills, and largest part of the image.
_SOLID, _LARGEST_HOLE = 0.55, 0.25
# Electrons per pixel around a small hole, and around a large one.
_AROUND_HOLE, _AROUND_LARGE_HOLE = 20.0, 3.0
# Blocks of pixels in which noise is estimated.
_BLOCK = 8
# Planes give no response to this mask.
_ROUGHNESS = np.outer([1, -2, 1], [1, -2, 1])


@dataclass(frozen=True)
class Pattern:
    """A measured pattern.

    Parameters
    ----------
    name
        Its file, and its number in it if that holds several.
    image
        What the camera gave, linear, shape (ny, nx), rows in the order of ascending y.
    mask
        Which pixels count, same shape.
    pixel_mrad
        Size of a pixel in mrad if the file knows it.
    notes
        What was mended.
    """

    name: str
    image: np.ndarray
    mask: np.ndarray
    pixel_mrad: float | None = None
    notes: tuple[str, ...] = ()


def clean(pattern: Pattern, mask: np.ndarray | None = None, mirrored: bool = False) -> Pattern:
    """Mask pixels that are not to be trusted, and say so.

    These are pixels that are not finite, isolated ones that are far from all their neighbours,
    saturated ones (many of exactly the largest value), holes of zeros in a bright place, as a beam
    stop makes, and rows and columns of zeros at the edges, as shifting an image makes.

    Parameters
    ----------
    pattern
        As read.
    mask
        Which pixels count besides; all if not given.
    mirrored
        Whether the image is the mirror image of the pattern; then its columns are reversed.

    Raises
    ------
    PacbedError
        If the mask has another shape, or there is no pattern: the image is empty or constant.
    """
    image, valid, notes = pattern.image, pattern.mask.copy(), list(pattern.notes)
    if mask is not None:
        if mask.shape != image.shape:
            ours, theirs = (" × ".join(map(str, one.shape)) for one in (image, mask))
            raise PacbedError(f"{pattern.name} has {ours} pixels, the mask {theirs}")
        valid &= mask
    finite = np.abs(image) < 1e30  # more is no count, but bytes in another order
    if not finite.all():
        notes.append(f"{(~finite).sum()} pixels are not finite and were masked")
    image = np.where(finite, image, 0.0)
    valid &= finite
    seen = image[valid]
    if not seen.size or not (seen > 0).any():
        raise PacbedError(f"{pattern.name} is empty: no pixel that counts is positive")
    if seen.min() == seen.max():
        raise PacbedError(f"{pattern.name} is no pattern: all pixels are {seen[0]:g}")
    for find, what in (
        (_saturated, "are saturated"),
        (_isolated, "differ from all their neighbours"),
        (_margins, "are in rows and columns of zeros at the edges"),
        (_holes, "are zero in a bright place"),
    ):
        found = find(image, valid) & valid
        if found.any():
            notes.append(f"{found.sum()} pixels {what} and were masked")
            valid &= ~found
    if negative := int((image[valid] < 0).sum()):
        notes.append(f"{negative} pixels are negative; they count, with the noise that this shows")
    usable = valid[~_margins(image, valid)].mean()
    if usable < 0.2:
        raise PacbedError(f"{pattern.name}: only {usable:.0%} of the pixels can be used")
    if mirrored:
        image, valid = image[:, ::-1], valid[:, ::-1]
    return replace(pattern, image=image, mask=valid, notes=tuple(notes))


def noise_per_count(image: np.ndarray, mask: np.ndarray) -> float:
    """Return the variance of pixels over their mean: of counted electrons their gain.

    It is seen in differences between neighbours, in the quiet ones of small bright blocks.
    """
    kept = ndimage.binary_erosion(mask, np.ones((3, 3)), border_value=1)
    whole = filled(image, mask)
    squares = ndimage.convolve(whole, _ROUGHNESS) ** 2
    expected = ndimage.convolve(whole, _ROUGHNESS**2)  # if the variance is the mean
    counts, variances = (
        put_together(np.where(kept, values, 0), _BLOCK).ravel() for values in (expected, squares)
    )
    lit = counts > max(0.0, float(np.median(counts)))
    if not lit.any():
        return 1.0
    # Most others have edges of discs in them.
    quiet = np.quantile(variances[lit] / counts[lit], 0.25)
    return float(max(quiet, 1e-12 * image.max()))


def read_noise(image: np.ndarray, mask: np.ndarray) -> float:
    """Return the standard deviation of what is added to the counts, as negative pixels show it."""
    negative = image[mask & (image < 0)]
    return float(np.sqrt(np.mean(negative**2))) if negative.size else 0.0


def filled(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return an image in which masked pixels are as the nearest other one."""
    if mask.all():
        return image
    nearest = ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True)
    return np.asarray(image[tuple(nearest)])


def _saturated(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    values, counts = np.unique(image[mask], return_counts=True)
    if len(values) < 2 or counts[-1] < max(_PLATEAU, 2 * counts[-2]):
        return np.zeros(image.shape, bool)
    return np.asarray(image == values[-1])


def _isolated(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return pixels far above or below all neighbours but one, which may be out of order, too."""
    gain = noise_per_count(image, mask)
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    calm = filled(image, mask)
    second_highest = ndimage.rank_filter(calm, -2, footprint=ring)
    second_lowest = ndimage.rank_filter(calm, 1, footprint=ring)
    floor = gain + read_noise(image, mask) ** 2 / gain

    def noise(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.sqrt(gain * np.maximum(values, floor)))

    hot = image - second_highest > _OUTLIER * noise(second_highest)
    dead = second_lowest - image > _OUTLIER * noise(second_lowest)
    return np.asarray(hot | dead)


def _margins(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return rows and columns of zeros at the edges, if most pixels of the next one have electrons.

    Where they have none, zeros may be the background.
    """
    found = np.zeros(image.shape, bool)
    counts, gain = np.where(mask, image, 0), noise_per_count(image, mask)
    if not counts.any():
        return found
    top, bottom, left, right = (
        end for axis in (1, 0) for end in np.flatnonzero(counts.any(axis=axis))[[0, -1]]
    )
    rows, columns = slice(top, bottom + 1), slice(left, right + 1)
    found[:top] = np.median(counts[top, columns]) > gain / 2
    found[bottom + 1 :] = np.median(counts[bottom, columns]) > gain / 2
    found[:, :left] |= np.median(counts[rows, left]) > gain / 2
    found[:, right + 1 :] |= np.median(counts[rows, right]) > gain / 2
    return found


def _holes(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    gain = noise_per_count(image, mask)
    areas, count = ndimage.label((image == 0) & mask)
    found = np.zeros(image.shape, bool)
    sizes = np.bincount(areas.ravel(), minlength=count + 1)[1:]
    boxes = ndimage.find_objects(areas)
    for number in np.flatnonzero((sizes >= _HOLE) & (sizes <= _LARGEST_HOLE * image.size)):
        # With its rim only: where electrons are few, there are thousands of areas.
        rows, columns = (slice(max(s.start - 2, 0), s.stop + 2) for s in boxes[number])
        part = rows, columns
        area = areas[part] == number + 1
        if sizes[number] / ConvexHull(_corners(area)).volume < _SOLID:
            continue  # the background between discs
        rim = image[part][ndimage.binary_dilation(area, iterations=2) & ~area & mask[part]]
        if not rim.size:
            continue
        large = sizes[number] >= _LARGE_HOLE
        bright, least = (0.5, _AROUND_LARGE_HOLE) if large else (0.05, _AROUND_HOLE)
        if np.quantile(rim, bright) > least * gain:
            found[part] |= area
    return found


def _corners(area: np.ndarray) -> np.ndarray:
    """Return the corners of the pixels of an area."""
    y, x = np.nonzero(area)
    return np.concatenate([np.column_stack([x + i, y + j]) for i in (0, 1) for j in (0, 1)])
