"""Fixtures of all commands."""

import pytest

from pacbed.cli import main


@pytest.fixture
def complaint(capsys):
    """Run a command that must fail; return its message."""

    def run(*arguments, status=1):
        assert main(arguments) == status
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "Traceback" not in captured.err
        assert captured.err.startswith("error: ")
        return captured.err.strip()

    return run
