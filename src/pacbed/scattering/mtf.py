"""The modulation transfer function (MTF) of a camera, as measured."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pacbed.exceptions import PacbedError

ALLOWED = (
    "two or more pairs of cycles per pixel, ascending, at most 0.5, and MTF, near 1 at first and "
    "between 0 and 1.2"
)

_NYQUIST, _MOST = 0.5, 1.2


@dataclass(frozen=True)
class MTF:
    """What is left of waves of intensity in the images of a camera.

    Images are integrals over pixels, which leaves sin(πf)/(πf) of a wave along an axis. What a
    measured MTF has besides that is taken to be the same in all directions. It is 1 at zero. Where
    the table ends, it falls on exponentially.

    Parameters
    ----------
    points
        Frequencies in cycles per pixel of the camera, and the MTF there.
    width
        Width of the pixels of images in pixels of the camera.

    Raises
    ------
    PacbedError
        If the points are no MTF.
    """

    points: tuple[tuple[float, float], ...]
    width: float = 1.0

    def __post_init__(self) -> None:
        points = tuple((float(f), float(v)) for f, v in self.points)
        object.__setattr__(self, "points", points)
        frequencies, values = np.array(points or [(-1.0, -1.0)]).T
        advice = ""
        if (highest := frequencies.max()) > _NYQUIST:
            advice += "; if frequencies are " + (
                "fractions of the Nyquist frequency, halve them"
                if highest <= 1
                else "line pairs per mm, multiply them by the width of a pixel in mm"
            )
        if values.max() > _MOST:
            advice += "; if values are in %, divide them by 100"
        if not (0 < self.width < math.inf):
            raise PacbedError(f"pixels cannot be {self.width} pixels of the camera wide")
        if not (
            len(points) > 1
            and np.isfinite(points).all()
            and (np.diff(frequencies) > 0).all()
            and frequencies[0] >= 0
            and frequencies[-1] <= _NYQUIST
            and abs(values[0] - 1) <= 1 - 1 / _MOST
            and 0 <= values.min() <= values.max() <= _MOST
        ):
            raise PacbedError(f"an MTF must be {ALLOWED}{advice}")

    def of_pixels(self, width: float) -> MTF:
        """Return what it is for images whose pixels are so many times as wide."""
        return replace(self, width=self.width * width)

    def response(self, shape: tuple[int, int], widths: tuple[float, float] = (1, 1)) -> np.ndarray:
        """Return what is left of each cosine of a discrete cosine transform (DCT-II).

        Parameters
        ----------
        shape
            Pixels (ny, nx).
        widths
            Widths of these (y, x), in pixels of images.
        """
        y, x = (
            np.arange(n) / (2 * n * self.width * width)
            for n, width in zip(shape, widths, strict=True)
        )
        frequency = np.hypot(y[:, None], x)
        known, values = np.array(self.points).T
        if known[0] > 0:
            known, values = np.append(0, known), np.append(1, values)
        besides, last = values / values[0] / np.sinc(known), known[-1]
        falling = min(besides[-1], 1.0) ** np.maximum(frequency / last - 1, 0)
        return np.asarray(np.interp(frequency, known, besides) * falling)

    def blurred(self, images: np.ndarray, widths: tuple[float, float] = (1, 1)) -> np.ndarray:
        """Return images as the camera shows them.

        Beyond their edges they are taken as mirrored. Waves shorter than two pixels, of which sharp
        edges have some, are not told from longer ones: beside an edge the result may be too low.
        It is not below the darkest pixel.

        Parameters
        ----------
        images
            Integrals over pixels, shape (..., ny, nx).
        widths
            As of :meth:`response`.
        """
        darkest = images.min(axis=(-2, -1), keepdims=True)
        return np.maximum(self.filtered(images, widths), darkest)

    def filtered(self, images: np.ndarray, widths: tuple[float, float] = (1, 1)) -> np.ndarray:
        """Return what is linear in images, such as derivatives, as :meth:`blurred` does."""
        from scipy.fft import dctn, idctn

        shape, axes = images.shape[-2:], (-2, -1)
        response = self.response((shape[0], shape[1]), widths).astype(images.dtype)
        return np.asarray(idctn(response * dctn(images, axes=axes), axes=axes))


def read_mtf(path: Path) -> MTF:
    """Read an MTF from a text file.

    Each line has a frequency in cycles per pixel and the MTF there, with a comma, a semicolon or
    blanks between them. Lines that do not begin with a number may be a heading before that, as of a
    STAR file.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    PacbedError
        If it cannot be read, or holds something else.
    """
    points: list[tuple[float, float]] = []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise PacbedError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PacbedError(f"{path} is no text file in UTF-8: give one with two columns") from error
    for number, line in enumerate(lines, 1):
        words = re.split(r"\s*[,;]\s*|\s+", line.strip())
        if words == [""]:
            continue
        try:
            frequency, value = map(float, words)
        except ValueError as error:
            if points or re.match(r"[-+.]*\d", words[0]):
                comma = "; write decimal points" if re.search(r"\d,\d", line) else ""
                raise PacbedError(
                    f"{path}, line {number}: '{line.strip()}' is not a frequency and a value{comma}"
                ) from error
            continue
        points.append((frequency, value))
    try:
        return MTF(tuple(points))
    except PacbedError as error:
        raise PacbedError(f"{path}: {error}") from error
