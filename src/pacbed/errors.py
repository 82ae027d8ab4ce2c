"""What can go wrong in a way that the user can mend."""


class PacbedError(Exception):
    """Something a user can mend; the message says what, where and what to do."""


class ConfigError(PacbedError):
    """A configuration value that cannot be used."""


class RequestError(PacbedError):
    """A simulation that cannot be carried out as asked."""


class StoreError(PacbedError):
    """A pattern or dataset store that is damaged, incomplete or of another kind."""
