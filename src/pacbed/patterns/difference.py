"""How far apart the patterns of two stores are, and whether they should be equal at all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from pacbed.engines.request import ThermalMotion
from pacbed.exceptions import PacbedError
from pacbed.patterns.store import PatternStore
from pacbed.storage.nested import differing

SIMULATED = ("material", "deformation", "tilt_mrad", "energy_keV", "aperture")
"""What a request says of crystal and beam; the rest is how to compute it, and on what pixels."""


@dataclass(frozen=True)
class Comparison:
    """Patterns A against patterns B, for every layer that both stores have.

    Parameters
    ----------
    layers
        Number of layers traversed, shape (layers,), as the following.
    change, change_of_shape
        Relative L1 distance of A from B, as they are and with the sums of both scaled to one.
    sum_a, sum_b
        Fraction of the incident electrons in the field.
    """

    layers: np.ndarray
    change: np.ndarray
    change_of_shape: np.ndarray
    sum_a: np.ndarray
    sum_b: np.ndarray


def compare(a: PatternStore, b: PatternStore) -> Comparison:
    """Compare the patterns of two stores.

    Raises
    ------
    PacbedError
        If their detectors differ or no layer is common to both.
    """
    if not all(_same_axis(*axes) for axes in ((a.kx_mrad, b.kx_mrad), (a.ky_mrad, b.ky_mrad))):
        raise PacbedError(
            f"patterns on different detectors cannot be compared: A has {_detector(a)}; "
            f"B has {_detector(b)}"
        )
    layers, index_a, index_b = np.intersect1d(a.layers, b.layers, return_indices=True)
    if not len(layers):
        raise PacbedError(
            f"no layer is common to both: A has {a.layers.tolist()}, B has {b.layers.tolist()}"
        )
    patterns = [s.patterns[i].astype(float) for s, i in ((a, index_a), (b, index_b))]
    sums = [p.sum(axis=(1, 2)) for p in patterns]
    scaled = [p / s[:, None, None] for p, s in zip(patterns, sums, strict=True)]
    return Comparison(layers, relative_l1(*patterns), relative_l1(*scaled), *sums)


def simulated_differently(a: PatternStore, b: PatternStore) -> list[str]:
    """Name what was simulated differently, with both values; engine and settings do not count."""
    found = differing(_simulated(a), _simulated(b))
    return [f"{name} {in_a} in A, {in_b} in B" for name, in_a, in_b in found]


def _simulated(store: PatternStore) -> dict[str, Any]:
    request = store.attributes.get("request", {})
    found = {name: request[name] for name in SIMULATED if name in request}
    if sites := found.get("material", {}).get("sites"):
        # In a word: a list of all atoms is not read.
        places = hashlib.sha256(json.dumps(sites).encode()).hexdigest()[:6]
        found["material"] = {**found["material"], "sites": f"{len(sites)} atoms ({places})"}
    if "thermal" in request:
        found["thermal motion"] = ThermalMotion.described(request["thermal"])
    return found


def _same_axis(a: np.ndarray, b: np.ndarray) -> bool:
    return len(a) == len(b) and np.allclose(a, b, rtol=0, atol=1e-3 * (a[1] - a[0]))


def _detector(store: PatternStore) -> str:
    kx, ky = store.kx_mrad, store.ky_mrad
    return (
        f"{len(kx)} × {len(ky)} pixels, kx {kx[0]:.6g} to {kx[-1]:.6g} mrad, "
        f"ky {ky[0]:.6g} to {ky[-1]:.6g} mrad"
    )


def relative_l1(patterns: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the sum of absolute differences over the sum of the reference, per layer.

    Parameters
    ----------
    patterns, reference
        Shape (layers, ny, nx).

    Examples
    --------
    >>> relative_l1(np.full((1, 2, 2), 0.26), np.full((1, 2, 2), 0.25)).round(3)
    array([0.04])
    """
    difference = np.abs(patterns - reference).sum(axis=(1, 2), dtype=float)
    return np.asarray(difference / reference.sum(axis=(1, 2), dtype=float))
