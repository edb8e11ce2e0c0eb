"""Activations whose values and gradients are computed once and written down.

A TPU's compiler puts an activation into the products that read it, where it is computed again for
every tile of the output. On v4, whose vector units then hold up the matrix units, writing it down
takes 26 of 596 ms off the products of a step (docs/results/pods.md).
"""

from collections.abc import Callable
from typing import Any

import jax


def computed_once(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Returns the function with results and gradients that are not fused into their readers."""

    @jax.custom_vjp
    def once(*arrays: jax.Array) -> jax.Array:
        return jax.lax.optimization_barrier(function(*arrays))

    def forward(*arrays: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        return once(*arrays), arrays

    def backward(arrays: tuple[jax.Array, ...], gradient: jax.Array) -> Any:
        return jax.lax.optimization_barrier(jax.vjp(function, *arrays)[1](gradient))

    once.defvjp(forward, backward)
    return once


def _gated_gelu(gate: jax.Array, x: jax.Array) -> jax.Array:
    return jax.nn.gelu(gate) * x


# The approximation by tanh, of one array.
gelu = computed_once(jax.nn.gelu)
# gelu(gate) * x (Shazeer 2020, section 2).
gated_gelu = computed_once(_gated_gelu)
