"""A common home for all runs, which share the run without a fault and the compiled programs."""

import pytest
from harness import Home


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    return Home(tmp_path_factory.mktemp("faults"))
