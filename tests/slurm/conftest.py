"""A cluster for the tests of this folder; they are skipped where there can be none."""

from pathlib import Path

import pytest
from cluster import Cluster, missing

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    """Keep the tests on one worker of pytest-xdist, so that one cluster is enough."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("slurm"))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """A cluster for all tests; jobs of others may be in it."""
    if reasons := missing():
        pytest.skip(" ".join(reasons))
    with Cluster(tmp_path_factory.mktemp("slurm")) as started:
        yield started


@pytest.fixture
def idle_cluster(cluster):
    """The cluster without jobs, before and after a test."""
    cluster.clear()
    yield cluster
    cluster.clear()
