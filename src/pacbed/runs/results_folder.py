"""A study's folder of results: who works on it, and with what configuration."""

from __future__ import annotations

import hashlib
import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from pacbed.engines.request import PHYSICS_VERSION
from pacbed.exceptions import ConfigError, PacbedError
from pacbed.runs.locks import LockedError, lock, this_process
from pacbed.storage.files import write_text
from pacbed.storage.nested import differing
from pacbed.study.configuration import of_record
from pacbed.study.model import Configuration

_PHYSICS = "physics version"
_CRYSTAL = "crystal in the structure file"


def take_lock(results: Path) -> FileLock:
    """Make this process the only one that runs a study, as long as it keeps the lock.

    Raises
    ------
    PacbedError
        If another process runs it, or the folder cannot be written.
    """
    try:
        return lock(results / "run.lock")
    except LockedError as error:
        raise PacbedError(
            f"{error.owner} is running this study already, in {results}: wait until it has ended, "
            "or end it (Ctrl-C, which cancels its jobs)"
        ) from error


@dataclass(frozen=True)
class Submitted:
    """Jobs of the last run that submitted any."""

    name: str  # under which they were submitted
    owner: str  # process that submitted them, in words
    # It is known to, if it had the lock that is held now, on this machine. Not all file systems
    # show machines each other's locks.
    has_ended: bool


def note_jobs(results: Path, name: str) -> None:
    """Write down under what name this process submits jobs, for the next run."""
    write_text(results / "run.jobs", f"{name}\n{this_process()}\n")


def noted_jobs(results: Path, held: FileLock) -> Submitted | None:
    """Return the jobs of an earlier run, if one submitted any."""
    path = results / "run.jobs"
    if not path.is_file():
        return None
    name, owner = path.read_text(encoding="utf-8").splitlines()
    return Submitted(name, owner, held.is_locked and owner.endswith(f" on {socket.gethostname()}"))


def check_results(results: Path, study: Configuration) -> list[str]:
    """Compare a configuration with the one that a folder of results was made with.

    Returns
    -------
    list of str
        Keys that differ, each with both values: what depends on them is made again.

    Raises
    ------
    ConfigError
        If existing patterns would have to be simulated again, which is not done unasked.
    """
    path = results / "config.yaml"
    if not path.is_file():
        return []
    try:
        text = path.read_text(encoding="utf-8")
        before = of_record(yaml.safe_load(text))
    except (OSError, yaml.YAMLError, ConfigError) as error:
        raise ConfigError(
            f"{path} cannot be read, so that it is not known what {results} was made with: "
            f"{error}. Restore it, or choose another folder (key `results`)"
        ) from error
    physics = re.search(rf"^# {_PHYSICS} (\d+)$", text, re.MULTILINE)
    name = f"{_PHYSICS}, raised when a mistake in an engine is mended,"
    earlier = {**before.of_patterns(), name: int(physics[1]) if physics else "unknown"}
    now = {**study.of_patterns(), name: PHYSICS_VERSION}
    if content := re.search(rf"^# {_CRYSTAL} (\w+)$", text, re.MULTILINE):
        earlier[_CRYSTAL], now[_CRYSTAL] = content[1], _crystal_of_file(study)
    changed = _changes(earlier, now)
    patterns = sum(1 for _ in (results / "patterns").glob("*/*.zarr.zip"))
    if changed and patterns:
        raise ConfigError(
            f"{results} has patterns ({patterns:,}) made with another configuration:\n"
            + "\n".join(f"  - {line}" for line in changed)
            + f"\nNothing was started. Choose another folder (key `results`), or delete or move "
            f"{results}/patterns to simulate them again"
        )
    how = {"execution", "results"}  # nothing is made again for these
    return _changes(before.plain(how), study.plain(how))


def keep_config(results: Path, study: Configuration) -> None:
    """Write down with what configuration a folder of results is made.

    Raises
    ------
    PacbedError
        If that cannot be written.
    """
    text = yaml.safe_dump(study.plain(), sort_keys=False, allow_unicode=True)
    # In a comment: the rest is a configuration, to be used as any other.
    known = f"# {_PHYSICS} {PHYSICS_VERSION}\n"
    if content := _crystal_of_file(study):
        known += f"# {_CRYSTAL} {content}\n"
    write_text(results / "config.yaml", f"{known}{text}")


def _crystal_of_file(study: Configuration) -> str | None:
    """Return what changes with the crystal in a structure file; None if it is not from one."""
    if not study.material.is_file:
        return None
    crystal = study.material.material().to_dict()
    return hashlib.sha256(json.dumps(crystal, sort_keys=True).encode()).hexdigest()[:16]


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [f"{key} was {old}, is {new}" for key, old, new in differing(before, now)]
