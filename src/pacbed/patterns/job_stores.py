"""The stores of a job: those that are good are kept, the others made; all of them wait.

See :mod:`pacbed.storage.waiting` for how they appear together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from pacbed.engines import Engine, SimulationRequest
from pacbed.engines.request import Progress
from pacbed.exceptions import PacbedError
from pacbed.patterns.store import holds, write_patterns
from pacbed.storage.waiting import waiting
from pacbed.storage.zipped import checkpoint_of


@dataclass(frozen=True)
class WantedStore:
    """A store that a job makes.

    Parameters
    ----------
    path
        The file.
    request
        What it is to hold.
    draw
        Number of the draw; none for other states.
    """

    path: Path
    request: SimulationRequest
    draw: int | None = None


@dataclass
class Outcome:
    """What became of the stores of a job.

    Parameters
    ----------
    failed
        Names of stores that failed; the others are there, waiting.
    found
        Whether a part of the work had been done before.
    """

    failed: list[str] = field(default_factory=list)
    found: bool = False


def make_waiting(
    stores: Sequence[WantedStore],
    engine: Engine,
    log: Callable[[str], None] = lambda line: None,
    progress_of: Callable[[str], Progress | None] = lambda name: None,
    provenance: Mapping[str, Any] | None = None,
) -> Outcome:
    """Make the stores of a job that do not wait yet.

    Parameters
    ----------
    stores
        Those of one strain state, for several semi-angles, have the same file name and follow each
        other: they are computed together.
    engine
        Makes them.
    log
        Receives a line about each name that is there already, or fails.
    progress_of
        Makes, from a name, a function to be called with the progress of its simulation.
    provenance
        More of it for the stores.
    """
    outcome = Outcome()
    for name, group in groupby(stores, key=lambda store: store.path.name):
        try:
            outcome.found |= _make_together(name, list(group), engine, log, progress_of, provenance)
        except PacbedError as error:  # the others are worth having
            log(f"error: {name}: {error}")
            outcome.failed.append(name)
    return outcome


def _make_together(
    name: str,
    stores: Sequence[WantedStore],
    engine: Engine,
    log: Callable[[str], None],
    progress_of: Callable[[str], Progress | None],
    provenance: Mapping[str, Any] | None,
) -> bool:
    """Make the stores of one name; return whether some of that had been done before."""
    settings = asdict(engine.settings)
    missing = [
        s for s in stores if not holds(waiting(s.path), s.request, engine.name, settings, s.draw)
    ]
    if not missing:
        log(f"{name} is there already")
        return True
    checkpoints = [checkpoint_of(store.path) for store in missing]
    found = len(missing) < len(stores) or any(c.exists() for c in checkpoints)
    progress = progress_of(name.removesuffix(".zarr.zip"))
    results = engine.simulate_together([s.request for s in missing], progress, checkpoints)
    for store, result in zip(missing, results, strict=True):
        write_patterns(waiting(store.path), store.request, result, provenance, store.draw)
    for checkpoint in checkpoints:  # not before all stores are there
        checkpoint.unlink(missing_ok=True)
    return found
