"""Fixtures of the tests of metric writers."""

import pytest
from etils import epath


@pytest.fixture
def directory(tmp_path):
    """Returns an empty run directory."""
    return epath.Path(tmp_path)
