"""The matrix-product rate of the machine, the reference of utilisation."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp


def make_matmul(dtype: str, size: int = 2048) -> tuple[Callable[[], object], float]:
    """Returns a compiled square matrix product on random inputs, and its FLOPs."""
    a, b = (jax.random.normal(jax.random.key(i), (size, size)).astype(dtype) for i in (0, 1))
    multiply = jax.jit(jnp.matmul)
    jax.block_until_ready(multiply(a, b))
    return lambda: jax.block_until_ready(multiply(a, b)), 2.0 * size**3


def seconds(run: Callable[[], object]) -> float:
    """Times one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
