"""Measured patterns read by a network alone, and what speaks against its answers.

A network answers any image, also one of a kind that it was not trained for. What can be seen in
the image itself is compared with its training: where the central disc lies, and how much light
there is far from the discs. An ellipse is not seen: for a network that was trained without one, it
is strain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pacbed.exceptions import PacbedError
from pacbed.learning.prediction import border_share, predict_with, read_network
from pacbed.reading.discs import nearest_reflection_mrad
from pacbed.reading.patterns import Pattern, clean
from pacbed.reading.window import SMALLEST_RADIUS_PX, find_centres
from pacbed.specimen.crystal import crystal_of

# Centres are found on whole pixels.
_LEEWAY_PX = 1.0


def read_by_network(
    folder: Path,
    images: np.ndarray,
    pixel_mrad: tuple[float, float],
    log: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Predict the parameters of measured patterns, and flag those that the network cannot know.

    Parameters
    ----------
    folder
        Where model.keras and settings.json are, of ``pacbed train`` or of the workflow.
    images, pixel_mrad
        Patterns, and the size (x, y) of their pixels in mrad, as of
        :func:`pacbed.learning.prediction.predict_with`.
    log
        Receives a line about each pattern of which something is to be said.

    Returns
    -------
    pandas.DataFrame
        As of :func:`pacbed.learning.prediction.predict_with`. Among the ``flags`` are ``centre``,
        if the central disc is not seen or lies farther from zero angle than in the training, and
        ``background``, if there is more or less light at the border than there, as in a crystal of
        another thickness too.

    Raises
    ------
    PacbedError
        If the network cannot be read, or the patterns are empty or smaller than those of its
        training.
    """
    network = read_network(folder / "model.keras", folder / "settings.json")
    return predict_with(
        network, images, pixel_mrad, log, lambda image: _doubts(image, network.settings)
    )


def _doubts(image: np.ndarray, settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name of each doubt about an image as the network sees it, and its reason."""
    data, pixels = settings["data"], len(image)
    made = data["augmentation"]
    pixel_mrad, most = made["field_of_view_mrad"] / pixels, made["translation_px"]
    radius_px = data["semiangle_mrad"] / pixel_mrad
    beam = data["simulation"]
    if radius_px >= SMALLEST_RADIUS_PX:
        spacing_mrad = nearest_reflection_mrad(crystal_of(beam["material"]), beam["energy_keV"])
        try:
            pattern = clean(Pattern("it", image, np.ones(image.shape, bool)))
            x, y = find_centres(pattern, radius_px, spacing_mrad / pixel_mrad)[0] - pixels // 2
        except PacbedError:
            yield "centre", f"no disc with a radius of {data['semiangle_mrad']:g} mrad is seen"
        else:
            if max(abs(x), abs(y)) > most + _LEEWAY_PX:
                yield (
                    "centre",
                    f"the central disc lies {x * pixel_mrad:.3g}, {y * pixel_mrad:.3g} mrad from "
                    f"zero angle, in the training at most {most * pixel_mrad:.2g} mrad",
                )
    if known := settings.get("border_share"):
        share, (low, high) = float(border_share(image[None])[0]), known
        if not low - (high - low) <= share <= high + (high - low):
            yield (
                "background",
                f"the border has {share:.2g} of the mean intensity, in the training {low:.2g} to "
                f"{high:.2g}, as with a background or another thickness",
            )
