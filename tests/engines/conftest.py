"""What tests of the engines share."""

import pytest


@pytest.fixture
def quiet_abtem():
    """Without progress, in double precision, and with plans that repeat."""
    import abtem

    settings = {
        "diagnostics.progress_bar": False,
        "dask.lazy": False,
        "precision": "float64",
        "fftw.planning_effort": "FFTW_ESTIMATE",
    }
    with abtem.config.set(settings):
        yield
