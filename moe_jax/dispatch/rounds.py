"""A differentiable sum over a dynamic number of rounds.

JAX cannot differentiate a loop with a dynamic number of iterations in reverse mode, and a scan over
the maximum number with a condition inside keeps the inputs of every round, including the experts'
weights. Here every round is recomputed in the backward pass, and no residuals are kept.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# A function of (index of the round, differentiated arrays, index arrays) that returns an array.
Round = Callable[[jax.Array, Any, Any], jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def sum_over_rounds(compute: Round, rounds: jax.Array, arrays: Any, indices: Any) -> jax.Array:
    """Returns the sum of `compute(i, arrays, indices)` for i from 0 to `rounds` - 1.

    Args:
        compute: the function of one round; hashable, and must not close over arrays.
        rounds: number of rounds, int32 scalar.
        arrays: a pytree of floating-point arrays, differentiated.
        indices: a pytree of integer arrays.
    """
    shape = jax.eval_shape(compute, rounds, arrays, indices)
    return jax.lax.fori_loop(
        0,
        rounds,
        lambda i, total: total + compute(i, arrays, indices),
        jnp.zeros(shape.shape, shape.dtype),
    )


def _forward(compute: Round, rounds: jax.Array, arrays: Any, indices: Any) -> tuple:
    return sum_over_rounds(compute, rounds, arrays, indices), (rounds, arrays, indices)


def _backward(compute: Round, residuals: tuple, cotangent: jax.Array) -> tuple:
    rounds, arrays, indices = residuals

    def add(i: jax.Array, total: Any) -> Any:
        _, backward = jax.vjp(lambda arrays: compute(i, arrays, indices), arrays)
        return jax.tree.map(jnp.add, total, backward(cotangent)[0])

    zeros = jax.tree.map(jnp.zeros_like, arrays)
    return None, jax.lax.fori_loop(0, rounds, add, zeros), None


sum_over_rounds.defvjp(_forward, _backward)
