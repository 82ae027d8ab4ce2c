"""Which samples and networks each figure shows: the paper's where they are configured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pacbed.learning.specification import NetworkSpec
from pacbed.reading.discs import discs_overlap, obstacle_to_discs
from pacbed.study.model import Configuration

_GALLERY = (6.35, 18.13)
_SCATTER = {(angle, layers) for angle in (6.35, 18.13, 32.94) for layers in (1, 3, 5, 10, 20)}


def main_variant(networks: Sequence[NetworkSpec]) -> list[NetworkSpec]:
    """Return the networks of the first variant of the configuration, those of Fig. 5."""
    first = networks[0]
    return [n for n in networks if (n.outputs, n.intensity) == (first.outputs, first.intensity)]


def gallery_angles(angles_mrad: Sequence[float]) -> list[float]:
    """Return the two semi-angles of Fig. 2 to 4: the paper's, or the smallest and a middle one."""
    if set(_GALLERY) <= set(angles_mrad):
        return list(_GALLERY)
    ordered = sorted(angles_mrad)
    return sorted({ordered[0], ordered[len(ordered) // 2]})


def gallery_layers(layers: Sequence[int]) -> tuple[int, int]:
    """Return the thin and the thick sample of Fig. 2 to 4, the latter of 10 layers, or the most."""
    return min(layers), 10 if 10 in layers else max(layers)


def scatter(networks: Sequence[NetworkSpec]) -> list[NetworkSpec]:
    """Return the networks of Fig. 6: of the first variant, as many as the paper shows at most.

    The paper's selection, as far as it is there, if there are more.
    """
    main = main_variant(networks)
    chosen = [n for n in main if (n.semiangle_mrad, n.layers) in _SCATTER]
    return main if len(main) <= len(_SCATTER) else chosen or main[: len(_SCATTER)]


def compared_angle(networks: Sequence[NetworkSpec]) -> float:
    """Return the semi-angle of Fig. 7 and 8: that with most variants, the smallest of several."""
    angles = sorted({n.semiangle_mrad for n in networks})
    return max(
        angles,
        key=lambda a: len({(n.outputs, n.intensity) for n in networks if n.semiangle_mrad == a}),
    )


def with_and_without_tilt(networks: Sequence[NetworkSpec]) -> list[NetworkSpec]:
    """Return the networks of Fig. 8, the first of each kind of outputs, of one thickness.

    It is the thinnest for which there are both kinds, or one.
    """
    there = [n for n in networks if n.semiangle_mrad == compared_angle(networks)]
    kinds: dict[int, dict[str, NetworkSpec]] = {}
    for network in there:
        kinds.setdefault(network.layers, {}).setdefault(network.outputs, network)
    chosen = min(kinds, key=lambda layers: (-len(kinds[layers]), layers))
    return list(kinds[chosen].values())


def fitted(networks: Sequence[NetworkSpec]) -> list[NetworkSpec]:
    """Return the networks with which fits begin: of each sample the first that predicts tilt."""
    found: dict[tuple[float, int], NetworkSpec] = {}
    for network in networks:
        if network.outputs == "strain-rotation-tilt":
            found.setdefault((network.semiangle_mrad, network.layers), network)
    return list(found.values())


def classical(study: Configuration, networks: Sequence[NetworkSpec]) -> list[NetworkSpec]:
    """Return with what networks the classical method is compared, as if it were one.

    Those of the first variant, at semi-angles whose discs do not overlap, and at the next one, to
    see the method fail. Images in which discs cannot be looked for at all are left out.
    """
    crystal, energy_keV = study.material.material(), study.microscope.energy_keV
    stretch = study.deformation.principal_stretch
    angles = sorted({n.semiangle_mrad for n in networks})
    apart = [a for a in angles if not discs_overlap(crystal, energy_keV, a, stretch)]
    settings = study.augmentation()
    return [
        replace(n, outputs="strain-rotation", intensity="linear")
        for n in main_variant(networks)
        if n.semiangle_mrad in angles[: len(apart) + 1]
        and obstacle_to_discs(crystal, energy_keV, n.semiangle_mrad, settings) is None
    ]
