"""What the tests share that need the TPU's compiler."""

import os
import subprocess
import sys

import pytest

from moe_jax.cost_model.topologies import compiler_environment, parse_topology, require_libtpu
from moe_jax.errors import UserError


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


def run_child(topology: str, code: str, *arguments: object) -> str:
    """Runs Python in a process of its own and returns what it prints.

    libtpu takes what it needs from the environment as it starts.
    """
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | compiler_environment(parse_topology(topology)),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
