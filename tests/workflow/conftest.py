"""Folders in which the workflow runs."""

import json
import shutil

import pytest
from workspace import ROOT, Workspace, new_workspace

from pacbed.cli import main


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


@pytest.fixture
def plan(tmp_path, capsys):
    """Plan a run in a folder by the command line; return status, budget, output and errors."""

    def run(folder, profile, *arguments):
        result = tmp_path / "plan.json"
        status = main(
            [
                *("plan", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)),
                *("--profile", str(profile), "--json", str(result), *map(str, arguments)),
            ]
        )
        said = capsys.readouterr()
        budget = json.loads(result.read_text()) if result.exists() else None
        return status, budget, said.out, said.err

    return run
