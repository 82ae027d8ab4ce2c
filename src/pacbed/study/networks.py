"""The networks of a study: which are trained, on what they begin, and on what they are tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pacbed.learning.specification import NetworkSpec
from pacbed.study.draws import SPLITS
from pacbed.study.model import Configuration


def networks(study: Configuration) -> list[NetworkSpec]:
    """List the networks that the variants ask for, each once."""
    angles, layers = study.microscope.semiangles_mrad, study.dataset.layers
    found = {
        NetworkSpec(angle, thickness, variant.outputs, variant.intensity): None
        for variant in study.variants
        for angle in (angles if variant.semiangles_mrad == "all" else variant.semiangles_mrad)
        for thickness in (layers if variant.layers == "all" else variant.layers)
    }
    return list(found)


def neighbour(
    network: NetworkSpec, among: Sequence[NetworkSpec], warm_start: str
) -> NetworkSpec | None:
    """Return the network of the next thickness with whose weights the training of one begins.

    Parameters
    ----------
    network
        The network to be trained.
    among
        All networks of the study.
    warm_start
        ``none``, ``thinner`` or ``thicker``.
    """
    alike = {n.layers: n for n in among if replace(n, layers=network.layers) == network}
    thinner = [layers for layers in alike if layers < network.layers]
    thicker = [layers for layers in alike if layers > network.layers]
    if warm_start == "thinner" and thinner:
        return alike[max(thinner)]
    return alike[min(thicker)] if warm_start == "thicker" and thicker else None


def evaluated_splits(study: Configuration) -> tuple[str, ...]:
    """Return the sets that are predicted: those in files, without online training examples."""
    online = study.training.data == "online"
    return tuple(split for split in SPLITS if split != "train" or not online)
