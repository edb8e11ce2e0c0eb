"""Marks of the tests that need the TPU's compiler."""

import pytest

from moe_jax.errors import UserError
from moe_jax.pods.topologies import require_libtpu


def _is_missing() -> bool:
    try:
        require_libtpu()
    except UserError:
        return True
    return False


NEEDED = [
    pytest.mark.tpu_compile,
    pytest.mark.slow,
    pytest.mark.skipif(_is_missing(), reason="libtpu is not installed: pip install 'moe_jax[tpu]'"),
]


def needed(test):
    """Marks a single test."""
    for mark in NEEDED:
        test = mark(test)
    return test
