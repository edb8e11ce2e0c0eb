"""A sum over a number of turns that is only known when it runs, with a gradient.

JAX's loops with a dynamic number of turns have none, and a scan over the worst case with a
condition inside keeps every turn's inputs, the experts' weights among them. Here each turn is
computed again in the backward pass, and nothing is kept.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# From (turn, arrays with a gradient, arrays without) to an array.
Work = Callable[[jax.Array, Any, Any], jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def sum_over_turns(work: Work, turns: jax.Array, arrays: Any, indices: Any) -> jax.Array:
    """Returns the sum of `work(i, arrays, indices)` for i from 0 to `turns` - 1.

    Args:
        work: hashable, and without arrays of its own.
        turns: how many, int32 scalar.
        arrays: a tree of floating-point arrays, differentiated.
        indices: a tree of integer arrays.
    """
    shape = jax.eval_shape(work, turns, arrays, indices)
    return jax.lax.fori_loop(
        0,
        turns,
        lambda i, total: total + work(i, arrays, indices),
        jnp.zeros(shape.shape, shape.dtype),
    )


def _forward(work: Work, turns: jax.Array, arrays: Any, indices: Any) -> tuple:
    return sum_over_turns(work, turns, arrays, indices), (turns, arrays, indices)


def _backward(work: Work, residuals: tuple, cotangent: jax.Array) -> tuple:
    turns, arrays, indices = residuals

    def turn(i: jax.Array, total: Any) -> Any:
        _, backward = jax.vjp(lambda arrays: work(i, arrays, indices), arrays)
        return jax.tree.map(jnp.add, total, backward(cotangent)[0])

    zeros = jax.tree.map(jnp.zeros_like, arrays)
    return None, jax.lax.fori_loop(0, turns, turn, zeros), None


sum_over_turns.defvjp(_forward, _backward)
