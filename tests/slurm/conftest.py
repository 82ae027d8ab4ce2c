"""A cluster for the tests of this folder; they are skipped where there can be none."""

import pytest
from cluster import Cluster, missing


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
