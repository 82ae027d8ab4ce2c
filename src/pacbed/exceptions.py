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


class StoreError(PacbedError):
    """A pattern or dataset store that is damaged, incomplete or of another kind."""


class DamagedStoreError(StoreError):
    """A store that exists but cannot be read completely.

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
