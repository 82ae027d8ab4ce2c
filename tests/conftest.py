"""What holds for all tests."""

import signal
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SLOW = HERE / "slurm", HERE / "workflow"


def pytest_sessionstart() -> None:
    # A shell lets what it runs in the background ignore Ctrl-C, and all tests would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(folder in item.path.parents for folder in SLOW):
            item.add_marker(pytest.mark.slow)
