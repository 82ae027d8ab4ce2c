"""Errors that a user can correct."""

from pathlib import Path


class PacbedError(Exception):
    """An error that a user can correct; the message says what, where and what to do."""


class ConfigError(PacbedError):
    """A configuration value that cannot be used."""


class RequestError(PacbedError):
    """A simulation that cannot be carried out as asked."""


class EngineError(PacbedError):
    """An engine that failed or wrote unusable output."""


class BudgetExceeded(PacbedError):  # noqa: N818
    """A run that would cost more than its limit."""


class OtherPartsError(PacbedError):
    """A folder with parts of another map than the one that is wanted."""


class StoreError(PacbedError):
    """A store that cannot be read or written."""


class MissingStoreError(StoreError):
    """A store that does not exist."""


class DamagedStoreError(StoreError):
    """A store whose contents are not as they were written: a broken archive, a missing chunk.

    Parameters
    ----------
    path
        The store.
    why
        What is wrong with it.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} is damaged or incomplete: {why}.")
        self.path = path
