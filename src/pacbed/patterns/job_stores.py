"""The stores of a job: those that are good are kept, the others made, and all appear together."""

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
from pacbed.storage.waiting import finish, put_aside, waiting
from pacbed.storage.zipped import checkpoint_of


@dataclass
class Outcome:
    """What became of the draws of a job.

    Parameters
    ----------
    failed
        Names of draws that failed; the others are there, waiting.
    found
        Whether a part of the work had been done before.
    """

    failed: list[str] = field(default_factory=list)
    found: bool = False


@dataclass(frozen=True)
class JobStores:
    """The stores that one job makes, of one draw or several.

    Parameters
    ----------
    stores
        The files; those of a draw have the same name and follow each other.
    request_of
        What a store is to hold.
    log
        Receives a line about each draw that is there already, or fails.
    progress_of
        What is told of the progress of a draw, by its name.
    extra
        Further provenance for the stores.
    """

    stores: Sequence[Path]
    request_of: Callable[[Path], SimulationRequest]
    log: Callable[[str], None] = lambda line: None
    progress_of: Callable[[str], Progress | None] = lambda name: None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def put_aside(self) -> None:
        """Let stores wait that are there, perhaps of another request: before anything may fail."""
        put_aside(self.stores)

    def simulate(self, engine: Engine) -> Outcome:
        """Make what does not wait yet."""
        outcome = Outcome()
        for name, stores in groupby(self.stores, key=lambda store: store.name):
            try:
                outcome.found |= self._simulate_draw(list(stores), engine)
            except PacbedError as error:  # the other draws are worth having
                self.log(f"error: {name}: {error}")
                outcome.failed.append(name)
        return outcome

    def _simulate_draw(self, stores: Sequence[Path], engine: Engine) -> bool:
        """Make the stores of a draw; return whether some of that had been done before."""
        requests = {store: self.request_of(store) for store in stores}
        settings = asdict(engine.settings)
        missing = [s for s in stores if not holds(waiting(s), requests[s], engine.name, settings)]
        if not missing:
            self.log(f"{stores[0].name} is there already")
            return True
        asked = [requests[store] for store in missing]
        checkpoints = [checkpoint_of(store) for store in missing]
        found = len(missing) < len(stores) or any(c.exists() for c in checkpoints)
        progress = self.progress_of(stores[0].name.removesuffix(".zarr.zip"))
        results = engine.simulate_together(asked, progress, checkpoints)
        for store, request, result in zip(missing, asked, results, strict=True):
            write_patterns(waiting(store), request, result, self.extra)
        for checkpoint in checkpoints:  # not before all stores are there
            checkpoint.unlink(missing_ok=True)
        return found

    def finish(self) -> None:
        """Give all stores their names."""
        finish(self.stores)
