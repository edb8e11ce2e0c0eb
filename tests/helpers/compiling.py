"""How hard XLA tries: little for tests, which compile much and run next to nothing.

tests/conftest.py sets `JAX_DISABLE_MOST_OPTIMIZATIONS` for the tests and the processes that they
start: compiling takes about half the time. What is left out is the optimisation of machine code.
The passes over the program (fusion, sharding, layout) are the same, and so are the numbers but for
the order of sums. `JAX_DISABLE_MOST_OPTIMIZATIONS=0 scripts/test.sh` tests what users run.
"""

import contextlib
from collections.abc import Iterator

import jax

_SWITCH = "jax_disable_most_optimizations"


@contextlib.contextmanager
def optimised() -> Iterator[None]:
    """Compiles as a user's run does, inside: for steps that take longer than their compilation."""
    before = getattr(jax.config, _SWITCH)
    jax.config.update(_SWITCH, False)
    try:
        yield
    finally:
        jax.config.update(_SWITCH, before)
