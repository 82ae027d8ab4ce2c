"""The modulation transfer function (MTF) of a camera, as measured."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pacbed.exceptions import PacbedError

ALLOWED = (
    "pairs of cycles per pixel, ascending from 0 to at most 0.5, and MTF, near 1 at first and "
    "between 0 and 1.2"
)

_NYQUIST, _MOST = 0.5, 1.2


@dataclass(frozen=True)
class MTF:
    """What is left of waves of intensity in the images of a camera.

    Images are integrals over pixels, which leaves sin(πf)/(πf) of a wave along an axis. What a
    measured MTF has besides that is taken to be the same in all directions. Where the table ends,
    it falls on exponentially.

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
        if _NYQUIST < frequencies.max() <= 1:
            advice = "; if frequencies are fractions of the Nyquist frequency, halve them"
        elif values.max() > _MOST:
            advice = "; if values are in %, divide them by 100"
        if not (
            np.isfinite(points).all()
            and (np.diff(frequencies) > 0).all()
            and frequencies[0] >= 0
            and 0 < frequencies[-1] <= _NYQUIST
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
        besides, last = values / np.sinc(known), known[-1]
        falling = min(besides[-1], 1.0) ** np.maximum(frequency / last - 1, 0)
        return np.asarray(np.interp(frequency, known, besides) * falling)

    def blurred(self, images: np.ndarray, widths: tuple[float, float] = (1, 1)) -> np.ndarray:
        """Return images as the camera shows them; beyond their edges they are taken as mirrored.

        Parameters
        ----------
        images
            Integrals over pixels, shape (..., ny, nx).
        widths
            As of :meth:`response`.
        """
        from scipy.fft import dctn, idctn

        shape, axes = images.shape[-2:], (-2, -1)
        response = self.response((shape[0], shape[1]), widths).astype(images.dtype)
        return np.asarray(idctn(response * dctn(images, axes=axes), axes=axes))


def read_mtf(path: Path) -> MTF:
    """Read an MTF from a text file.

    Each line has a frequency in cycles per pixel and the MTF there, with a comma, a semicolon or
    blanks between them. Lines before the first such line are a heading, as of a STAR file.

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
        raise PacbedError(f"{path} is no text file: give one with two columns") from error
    for number, line in enumerate(lines, 1):
        words = re.split(r"\s*[,;]\s*|\s+", line.strip())
        if words == [""]:
            continue
        try:
            frequency, value = map(float, words)
        except ValueError as error:
            if points:
                raise PacbedError(
                    f"{path}, line {number}: '{line.strip()}' is not a frequency and a value"
                ) from error
            continue
        points.append((frequency, value))
    try:
        return MTF(tuple(points))
    except PacbedError as error:
        raise PacbedError(f"{path}: {error}") from error
