"""The ``pacbed`` command: which commands there are, and how an error is reported."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Callable, Collection, Sequence
from inspect import BoundArguments
from pathlib import Path
from typing import Any

from cyclopts import App, ArgumentCollection, CoercionError, CycloptsError, Parameter

from pacbed import __version__
from pacbed.cli.common import option_name, quietly, say, spelled, stderr
from pacbed.exceptions import BudgetExceeded, PacbedError
from pacbed.machine import clear_away_on_sigterm

COMMANDS = {
    "simulate": ("simulate", "Compute the patterns of one crystal."),
    "scatter": ("scatter", "Make a scattering series, from which patterns of any strain follow."),
    "read": ("read", "Read strain, rotation, tilt and thickness of measured patterns."),
    "map": ("map", "Map strain, rotation, tilt and thickness of a scan."),
    "scan": ("scans", "Simulate a scan to try maps on."),
    "inspect": ("scans", "Show what is in the file of a scan."),
    "view": ("view", "Look at a map in the browser."),
    "export": ("view", "Write a map for another program, or as a figure or a report."),
    "show": ("patterns", "Draw the patterns of a store, or a crystal."),
    "compare": ("patterns", "Compare the patterns of two stores."),
    "converge": ("converge", "Find out how much the numerical settings matter."),
    "network": ("learning", "Print the layers of the configured network."),
    "train": ("train", "Train one network of the configuration."),
    "evaluate": ("learning", "Predict the parameters of datasets with a network."),
    "errors": ("learning", "Print a table of prediction errors."),
    "design": ("design", "Find out what it takes to measure strain."),
    "plan": ("workflow", "Estimate what a run of the workflow will cost."),
    "doctor": ("workflow", "Find out what this machine has and what is missing."),
}
"""Module and summary of every command."""

BEGIN = (
    "pacbed simulate --semiangle 6.35 --output mos2.zarr.zip",
    "pacbed show mos2.zarr.zip",
    "pacbed read pattern.npy --material MoS2 --semiangle 6.35 --layers 1-10",
    "pacbed map scan.hspy --material MoS2 --layers 1-10 --output map.zarr.zip",
    "pacbed plan --config config/demo.yaml",
)
"""Commands to begin with."""

FOR_ALL = (
    "Every command takes --quiet (only warnings and errors on stderr) and --verbose (an error with "
    "where it arose)."
)

NEEDED_BY_LEARNING = ("keras", "tensorflow")
"""What an installation without extras does not have."""


def _whole_numbers(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuse 1.5 for a whole number, which cyclopts would round."""
    for argument in arguments:
        kind = str(argument.hint)
        for token in argument.tokens:
            if "." in token.value and "int" in kind and "float" not in kind:
                raise CoercionError(token=token, argument=argument, target_type=int)


def _files_taken(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Say so if an option of several values has taken the file that is missing."""
    missing = [a for a in arguments if a.index == 0 and a.required and not a.tokens]
    for argument in arguments if missing else ():
        taken = [token for token in argument.tokens[1:] if Path(token.value).is_file()]
        if taken:
            raise CycloptsError(
                f"{taken[0].keyword} takes all values that follow it, {taken[0].value} too: write "
                f"{missing[0].name} first."
            )


def application(named: Collection[str]) -> App:
    """Return the application; only modules of named commands are imported to describe them."""
    app = App(
        name="pacbed",
        help="PACBED patterns of deformed 2D materials, and how well a network reads them.",
        help_epilogue=FOR_ALL,
        help_format="markdown",
        version=f"pacbed {__version__}",
        verbose=False,
        config=(_whole_numbers, _files_taken),
        default_parameter=Parameter(
            name_transform=option_name,
            consume_multiple=(1, None),
            allow_repeating=True,
            negative_iterable=(),
            show_default=spelled,
        ),
    )
    for number, (name, (module, summary)) in enumerate(COMMANDS.items()):
        help_text = None if name in named else summary  # None: the docstring
        app.command(f"pacbed.cli.{module}:{name}", name=name, help=help_text, sort_key=number)
    app.register_install_completion_command(help="Let the shell complete commands and options.")
    return app


def parsed(words: Sequence[str]) -> tuple[Callable[..., Any], BoundArguments]:
    """Return the command of a command line and its arguments; it is not called.

    Raises
    ------
    CycloptsError
        If the command line is wrong.
    """
    app = application(words[:1])
    command, bound, _ = app.parse_args(words, print_error=False, exit_on_error=False)
    return command, bound


def main(arguments: Sequence[Any] | None = None) -> int:
    """Run the command line, by default that of the process, and return the exit status.

    It is 0, 1 after an error, 2 if the command line is wrong, 3 over a limit, 130 after Ctrl-C.
    """
    words = [str(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    # Read when a command imports TensorFlow: its remarks are for those who build it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    clear_away_on_sigterm()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # in a locale that knows no σ
    quiet, verbose = "--quiet" in words, "--verbose" in words
    words = [word for word in words if word not in ("--quiet", "--verbose")]
    if not words:
        console = stderr()
        lines = (f"{line}\n      {COMMANDS[line.split()[1]][1]}" for line in BEGIN)
        say("To begin with:\n  " + "\n  ".join(lines) + "\n", console)
        application(()).help_print([], console=console)
        return 2
    with quietly(quiet):
        return _status(words, verbose)


def _status(words: Sequence[str], verbose: bool) -> int:
    """Run a command, report an error, and return the exit status."""
    try:
        command, bound = parsed(words)
        command(*bound.args, **bound.kwargs)
        sys.stdout.flush()
    except CycloptsError as error:
        names = " ".join(["pacbed", *(error.command_chain or ())])
        say(f"error: {error} See {names} --help")
        return 2
    except PacbedError as error:
        if verbose:
            traceback.print_exc()
        say(f"error: {error}")
        return 3 if isinstance(error, BudgetExceeded) else 1
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in NEEDED_BY_LEARNING:
            raise
        say(f"error: {error.name} is not installed: pip install 'pacbed[learning]'")
        return 1
    except OSError as error:
        if error.filename is None and error.errno in (errno.EPIPE, errno.ENOSPC, errno.EDQUOT):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # which Python flushes again in the end
            error.filename = "stdout"
        if error.filename is None:
            raise
        if verbose:
            traceback.print_exc()
        say(f"error: cannot use {error.filename}: {error.strerror}")
        return 1
    except KeyboardInterrupt:
        stderr().print("interrupted")
        return 130
    return 0
