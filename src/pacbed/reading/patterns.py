"""Measured patterns: from files, and cleaned of what is not electrons.

What is wrong with a pattern is either mended, counted and said, or the pattern is refused in one
message.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.spatial import ConvexHull
from scipy.special import j1

from pacbed.exceptions import PacbedError
from pacbed.reading.pixels import FEWEST_PIXELS, put_together
from pacbed.storage.zipped import open_store, reading

FORMATS = ".npy, .npz, .tif, .tiff, or a pattern store or dataset (.zarr.zip)"
"""What can be read."""

SMALLEST_RADIUS_PX = 3.5
"""Discs smaller than this have no edge to speak of."""

# Most pixels per axis in which a pattern is compared.
_MOST_PIXELS = 512
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

_Held = tuple[Any, float | None]
"""What a file holds, an array of NumPy or Zarr, and the size of a pixel in mrad if it knows it."""


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


def read_file(path: Path, only: Sequence[int] = ()) -> list[Pattern]:
    """Read the patterns of a file.

    Parameters
    ----------
    path
        Its ending tells its format, one of :data:`FORMATS`.
    only
        Numbers of the patterns that are wanted, from zero; all if not given.

    Raises
    ------
    PacbedError
        If it cannot be read, or holds something else.
    """
    readers = {".npy": _npy, ".npz": _npz, ".tif": _tiff, ".tiff": _tiff, ".zip": _store}
    if path.suffix.lower() not in readers:
        raise PacbedError(f"cannot read {path}: patterns come as {FORMATS}")
    _check_file(path)
    with readers[path.suffix.lower()](path) as (values, pixel):
        shape = _stack_shape(path, values)
        wanted = list(only) or list(range(shape[0]))
        if absent := [n for n in wanted if not 0 <= n < shape[0]]:
            raise PacbedError(f"{path} has patterns 0 to {shape[0] - 1}, not {absent[0]}")
        names = [str(path) if shape[0] == 1 else f"{path}[{n}]" for n in wanted]
        images = [values[n] if values.ndim == 3 else values for n in wanted]
        whole = np.ones(shape[1:], bool)
        return [
            Pattern(name, np.array(image, float), whole, pixel)
            for name, image in zip(names, images, strict=True)
        ]


def read_mask(path: Path) -> np.ndarray:
    """Read which pixels count, from an image that is not zero there.

    Raises
    ------
    PacbedError
        If it cannot be read, is not one image, or leaves no pixel.
    """
    readers = {".npy": _npy, ".tif": _tiff, ".tiff": _tiff}
    if path.suffix.lower() not in readers:
        raise PacbedError(f"cannot read {path}: a mask comes as .npy, .tif or .tiff")
    _check_file(path)
    with readers[path.suffix.lower()](path) as (values, _):
        mask = np.squeeze(values) != 0
    if mask.ndim != 2 or not mask.any():
        raise PacbedError(f"{path} is no mask: it must be one image, not zero where pixels count")
    return mask


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise PacbedError(f"{path} is no file" if path.exists() else f"{path} does not exist")


@contextmanager
def _npy(path: Path) -> Iterator[_Held]:
    with _numpy(path):
        values = np.load(path, allow_pickle=False)
        if not isinstance(values, np.ndarray):
            raise PacbedError(f"{path} is an archive: name it .npz")
    yield values, None


@contextmanager
def _npz(path: Path) -> Iterator[_Held]:
    with _numpy(path), np.load(path, allow_pickle=False) as archive:
        if isinstance(archive, np.ndarray):
            raise PacbedError(f"{path} is no archive: name it .npy")
        if len(archive.files) != 1:
            raise PacbedError(
                f"{path} has {len(archive.files)} arrays ({', '.join(archive.files)}): keep the "
                "patterns in a file of their own"
            )
        values = archive[archive.files[0]]
    yield values, None


@contextmanager
def _numpy(path: Path) -> Iterator[None]:
    """Turn what goes wrong in reading a file of NumPy into an error that names it."""
    try:
        yield
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        if str(error).startswith("Object arrays"):
            raise PacbedError(
                f"{path} holds pickled objects, which could run any program, and is not read: save "
                "the numbers alone with numpy.save"
            ) from error
        why = "it is no file of NumPy" if "pickle" in str(error) else error
        raise PacbedError(f"cannot read {path}: {why}") from error


@contextmanager
def _tiff(path: Path) -> Iterator[_Held]:
    from PIL import Image, ImageSequence, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            pages = [np.array(page) for page in ImageSequence.Iterator(file)]
    except UnidentifiedImageError as error:
        raise PacbedError(f"cannot read {path}: it is no TIFF that is known") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise PacbedError(f"cannot read {path}: {error}") from error
    if {page.ndim for page in pages} != {2}:
        raise PacbedError(f"{path} is a picture in colours: a pattern has one number per pixel")
    if len({page.shape for page in pages}) > 1:
        raise PacbedError(f"{path} has pages of different shapes: save them as several files")
    yield np.stack(pages), None


@contextmanager
def _store(path: Path) -> Iterator[_Held]:
    """Open a pattern store or a dataset of a study."""
    with open_store(path) as group, reading(path):
        if "images" in group:  # every example of a dataset has another field of view
            yield group["images"], None
            return
        if "patterns" not in group:
            raise PacbedError(f"{path} is neither a pattern store nor a dataset")
        axes = [np.asarray(group[f"k{axis}_mrad"]) for axis in "xy"]
        x, y = ((axis[-1] - axis[0]) / (len(axis) - 1) for axis in axes)
        if abs(x / y - 1) > 1e-6:
            raise PacbedError(f"{path} has pixels of {x:.4g} × {y:.4g} mrad, which are no squares")
        yield group["patterns"], float(x)


def _stack_shape(path: Path, values: Any) -> tuple[int, int, int]:
    """Return the shape (patterns, ny, nx) of real numbers."""
    if values.dtype.kind not in "fiu":
        kind = "complex numbers" if values.dtype.kind == "c" else f"'{values.dtype}'"
        raise PacbedError(f"{path} holds {kind}: a pattern has a real number for each pixel")
    if values.ndim not in (2, 3):
        raise PacbedError(
            f"{path} has the shape {values.shape}: a pattern has two dimensions (y, x), several "
            "patterns have three"
        )
    ny, nx = values.shape[-2:]
    count = values.shape[0] if values.ndim == 3 else 1
    if not count or min(ny, nx) < FEWEST_PIXELS:
        raise PacbedError(
            f"{path} has {count} patterns of {ny} × {nx} pixels: at least {FEWEST_PIXELS} along "
            "each side are needed"
        )
    return count, ny, nx


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
