"""The command line."""

from pacbed.cli.app import main

__all__ = ["main"]
