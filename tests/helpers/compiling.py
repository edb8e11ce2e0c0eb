"""How hard XLA tries: little for tests that compile much and run next to nothing.

Compiling takes about half the time. What is left out is the optimisation of machine code. The
passes over the program (fusion, sharding, layout) are the same, and so are the numbers but for the
order of sums. `JAX_DISABLE_MOST_OPTIMIZATIONS=0 scripts/test.sh` tests what users run.
"""

import contextlib
import os
from collections.abc import Iterator

import jax

_SWITCH = "jax_disable_most_optimizations"
# For processes that tests start; not for compilers of TPUs, whose programs are what is tested.
ENVIRONMENT = {_SWITCH.upper(): os.environ.get(_SWITCH.upper(), "1")}


def set_fast(fast: bool) -> None:
    """Leaves most of XLA's optimisations out or in, in this process; the environment decides."""
    if _SWITCH.upper() not in os.environ:
        jax.config.update(_SWITCH, fast)


@contextlib.contextmanager
def optimised() -> Iterator[None]:
    """Compiles as a user's run does, inside: for steps that take longer than their compilation."""
    before = jax.config.values[_SWITCH]
    jax.config.update(_SWITCH, False)
    try:
        yield
    finally:
        jax.config.update(_SWITCH, before)
