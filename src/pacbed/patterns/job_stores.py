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
    outcome, settings = Outcome(), asdict(engine.settings)
    for name, group in groupby(stores, key=lambda store: store.path.name):
        together = list(group)
        try:
            missing = [
                one
                for one in together
                if not holds(waiting(one.path), one.request, engine.name, settings, one.draw)
            ]
            checkpoints = [checkpoint_of(one.path) for one in missing]
            if len(missing) < len(together) or any(c.exists() for c in checkpoints):
                outcome.found = True
            if not missing:
                log(f"{name} is there already")
                continue
            progress = progress_of(name.removesuffix(".zarr.zip"))
            requests = [one.request for one in missing]
            results = engine.simulate_together(requests, progress, checkpoints)
            for one, result in zip(missing, results, strict=True):
                write_patterns(waiting(one.path), one.request, result, provenance, one.draw)
            for checkpoint in checkpoints:  # not before all stores are there
                checkpoint.unlink(missing_ok=True)
        except PacbedError as error:  # the others are worth having
            log(f"error: {name}: {error}")
            outcome.failed.append(name)
    return outcome
