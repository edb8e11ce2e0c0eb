"""Compiling in about half the time, for tests that compile much and run next to nothing."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def fast() -> Iterator[None]:
    """Leaves out most of XLA's optimisations inside."""
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
