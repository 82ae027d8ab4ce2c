"""Run by the interpreter that has pyprismatic; needs nothing else, and any Python from 3.6 on.

``child.py --describe`` prints what is installed; ``child.py parameters.json`` runs Prismatic.
"""

import ctypes
import json
import os
import signal
import sys

NOT_INSTALLED, TOO_OLD = 3, 4


def main() -> int:
    """Do what the command line says."""
    try:
        import pyprismatic
        from pyprismatic import Metadata
    except ImportError as error:
        print(f"pyprismatic cannot be imported: {error}")
        return NOT_INSTALLED
    # Version 2 calls itself 1.2.0 or 2.0; what counts is what it can do.
    if "probes_file" not in getattr(Metadata, "fields", ()):
        print(f"pyprismatic is of version 1: {pyprismatic.__file__}")
        return TOO_OLD
    if sys.argv[1] == "--describe":
        with open(pyprismatic.core.__file__, "rb") as file:
            gpu = b"COMPILED FOR GPU" in file.read()
        folder = os.path.dirname(pyprismatic.__file__)
        print(json.dumps({"version": _version(), "path": folder, "gpu": gpu}))
        return 0
    _end_with_job()
    _write_by_line()
    # Only now: pyprismatic may have been found by way of the real one.
    os.environ["HOME"] = os.environ["TMPDIR"] = os.getcwd()
    with open(sys.argv[1]) as file:
        metadata = Metadata()
        for name, value in json.load(file).items():
            setattr(metadata, name, value)
    metadata.go()
    return 0


def _version() -> str:
    try:
        from importlib.metadata import version

        return version("pyprismatic")
    except ImportError:  # an old Python, or a package that was only copied
        return "2"


def _end_with_job() -> None:
    # When the job is killed outright, nobody is left to end this process. Python does not run while
    # Prismatic does, so a second process waits for the end of the job's pipe.
    watched = os.getpid()
    if os.fork() == 0:
        os.close(1)  # or the job would wait for more output
        os.close(2)
        os.read(0, 1)
        os.kill(watched, signal.SIGKILL)
        os._exit(0)


def _write_by_line() -> None:
    # Prismatic writes by way of the C library, which would keep the lines of its progress.
    if sys.platform.startswith("linux"):
        libc = ctypes.CDLL(None)
        IOLBF = 1
        stdout = ctypes.c_void_p.in_dll(libc, "stdout")
        libc.setvbuf(stdout, None, IOLBF, 0)


if __name__ == "__main__":
    sys.exit(main())
