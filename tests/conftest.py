"""What holds for all tests."""

import gc
import os
import shutil
import signal
from pathlib import Path

import pytest
from filelock import FileLock

HERE = Path(__file__).parent
# Nothing that tests import becomes garbage: it is not looked for while they are collected, nor
# later in what was there by then.
gc.disable()
# What takes more than a few seconds: folders and files of tests.
SLOW = [
    HERE / name
    for name in (
        "slurm",
        "workflow",
        "budget_plugin",
        "cli",
        "engines/test_against_abtem.py",
        "engines/test_against_prismatic.py",
        "engines/test_frozen_phonons.py",
        "engines/test_planewave.py",
        "engines/test_prismatic_process.py",
        "examples/test_dataset.py",
        "examples/test_pool.py",
        "figures/test_error_figures.py",
        "figures/test_map_view.py",
        "learning/test_checkpoint.py",
        "learning/test_coarse_to_fine.py",
        "learning/test_online.py",
        "learning/test_training.py",
        "precision/test_bound.py",
        "reading/test_against_abtem_reading.py",
        "reading/test_fit.py",
        "reading/test_image_model.py",
        "reading/test_point_patterns.py",
        "reading/test_predictions.py",
        "reading/test_reading.py",
        "reading/test_start.py",
        "reading/test_thickness.py",
        "scattering/test_series.py",
    )
]


def pytest_sessionstart() -> None:
    # A shell lets what it runs in the background ignore Ctrl-C, and all tests would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Return a function that makes a folder once for all processes of a run of tests."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # what all processes have in common

    def once(name, make):
        folder, done = base / name, base / f"{name}.done"
        with FileLock(base / f"{name}.lock"):
            if not done.exists():
                # What another process could not finish.
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return once


@pytest.fixture
def wse2(tmp_path):
    """A structure file of WSe2."""
    from ase.spacegroup import crystal as of_spacegroup

    path = tmp_path / "wse2.cif"
    of_spacegroup(
        ["W", "Se"],
        [(1 / 3, 2 / 3, 0.25), (1 / 3, 2 / 3, 0.6211)],
        spacegroup=194,
        cellpar=[3.282, 3.282, 12.96, 90, 90, 120],
    ).write(path)
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(item.path.is_relative_to(place) for place in SLOW):
            item.add_marker(pytest.mark.slow)
