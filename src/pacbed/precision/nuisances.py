"""What the ignorance of a camera costs: the bound with more, or fewer, nuisance parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from pacbed.examples.labels import PARAMETERS
from pacbed.exceptions import RequestError
from pacbed.precision.bound import standard_deviations
from pacbed.scattering.image_model import ALWAYS_FREE, COLUMN, UNKNOWNS, Frame, ImageModel
from pacbed.scattering.series import ScatteringSeries
from pacbed.specimen.microscope import Aperture

BLUR_PX = 0.5
"""Standard deviation of the point spread with which the price of a blur is computed, in pixels: a
sharp image does not change with the width of a point spread that is zero."""

_MORE = {
    "semi-angle": ("log_semiangle",),
    "ellipticity": ("ellipticity", "ellipticity_diagonal"),
    "background": ("background",),
    "halo": ("halo",),
}

NUISANCES: Mapping[str, tuple[bool, tuple[str, ...]]] = {
    "none": (False, ALWAYS_FREE),
    "known scale": (False, tuple(n for n in ALWAYS_FREE if n != "log_scale")),
    **{name: (False, (*ALWAYS_FREE, *more)) for name, more in _MORE.items()},
    "known blur": (True, ALWAYS_FREE),
    "blur": (True, (*ALWAYS_FREE, "blur_px")),
    "all": (True, (*ALWAYS_FREE, *(n for more in _MORE.values() for n in more), "blur_px")),
}
"""Whether an image is blurred by :data:`BLUR_PX`, and what is unknown of it, by the name of what is
changed. "none" are the usual ten unknowns of an image without blur."""


def price_table(
    series: ScatteringSeries,
    apertures: Iterable[Aperture],
    layers: Sequence[int],
    frame: Frame,
) -> pd.DataFrame:
    """Tabulate the bound at the undeformed crystal for each of :data:`NUISANCES`.

    Noise is that of counted electrons. There is no background besides diffuse scattering.

    Parameters
    ----------
    series
        What the crystal does to all waves.
    apertures
        One for each semi-angle.
    layers
        Numbers of layers.
    frame
        Pixels.

    Returns
    -------
    pandas.DataFrame
        One row per ``semiangle_mrad``, ``layers``, ``nuisance`` and ``parameter``: ``sigma``, the
        smallest standard deviation for one incident electron, which falls as one over the root of
        their number; ``price``, the same divided by that of the nuisance "none".

    Raises
    ------
    RequestError
        If the series does not reach that far, or has no diffuse scattering.
    """
    if series.request.motion != "full":
        raise RequestError(
            f"{series.path} has no diffuse scattering, so that bounds would be too small: make a "
            "series with full thermal motion"
        )
    series.check_layers(layers)
    found = []
    for aperture in apertures:
        series.check_cone(aperture, (0.0, 0.0))
        models = [
            ImageModel(series, aperture, layers[0], frame, free)
            for free in (tuple(n for n in UNKNOWNS if n != "blur_px"), UNKNOWNS)
        ]
        for count in layers:
            information = [_information(model.for_layers(count)) for model in models]
            rows = []
            for name, (blurred, free) in NUISANCES.items():
                names = models[blurred].free
                chosen = [names.index(one) for one in free]
                sigma = standard_deviations(information[blurred][np.ix_(chosen, chosen)])
                at = {one: n for n, one in enumerate(free)}
                rows += [
                    {
                        "semiangle_mrad": float(aperture.semiangle_mrad),
                        "layers": int(count),
                        "nuisance": name,
                        "parameter": parameter,
                        "sigma": float(sigma[at[parameter]]),
                    }
                    for parameter in PARAMETERS
                ]
            table = pd.DataFrame(rows)
            usual = table[table["nuisance"] == "none"].set_index("parameter")["sigma"]
            found.append(table.assign(price=table["sigma"] / table["parameter"].map(usual)))
    return pd.concat(found, ignore_index=True)


def _information(model: ImageModel) -> np.ndarray:
    """Return the Fisher information of one electron about the free unknowns of a model."""
    state = np.zeros((1, len(UNKNOWNS)))
    state[0, COLUMN["blur_px"]] = BLUR_PX
    images, columns = model.images_and_columns(state)
    expected, slopes = images[0].astype(float), columns[0].astype(float)
    # Where next to nothing is expected, single precision knows no derivative.
    lit = expected > 1e-7 * expected.mean()
    scaled = slopes[:, lit] / np.sqrt(expected[lit])
    return np.asarray(scaled @ scaled.T)
