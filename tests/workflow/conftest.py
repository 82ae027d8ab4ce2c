"""Folders in which the workflow runs."""

import shutil

import pytest
from workspace import Workspace, new_workspace


@pytest.fixture
def workspace(tmp_path):
    """A folder in which nothing has been done yet."""
    return new_workspace(tmp_path / "new")


def finish(folder):
    outcome = new_workspace(folder / "finished").run()
    assert outcome.status == 0, outcome.text


@pytest.fixture(scope="session")
def finished(made_once, tmp_path_factory):
    """A folder in which everything has been done; not to be changed."""
    # Each process has a copy: planning writes into it.
    folder = tmp_path_factory.mktemp("workflow") / "finished"
    shutil.copytree(made_once("workflow", finish) / "finished", folder)
    return Workspace(folder)


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished folder, for what changes it."""
    shutil.copytree(finished.folder, tmp_path / "copied")
    return Workspace(tmp_path / "copied")
