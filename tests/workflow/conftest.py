"""Folders in which the workflow runs."""

import shutil

import pytest
from workspace import Workspace, new_workspace


@pytest.fixture
def workspace(tmp_path):
    """A folder in which nothing has been done yet."""
    return new_workspace(tmp_path / "new")


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder in which everything has been done; not to be changed."""
    made = new_workspace(tmp_path_factory.mktemp("workflow") / "finished")
    outcome = made.run()
    assert outcome.status == 0, outcome.text
    return made


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished folder, for what changes it."""
    shutil.copytree(finished.folder, tmp_path / "copied")
    return Workspace(tmp_path / "copied")
