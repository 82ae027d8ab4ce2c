"""What holds for all tests."""

import signal


def pytest_sessionstart() -> None:
    # A shell lets what it runs in the background ignore Ctrl-C, and all tests would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
