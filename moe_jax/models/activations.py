"""Activation functions whose values and gradients are materialized instead of fused.

The TPU compiler fuses an activation function into the matrix products that read it, which recompute
it for every tile of their output. On v4 the vector units are then the bottleneck; materializing the
activations reduces the time of the products of a step by 26 of 596 ms (docs/results/pods.md).
"""

from collections.abc import Callable
from typing import Any

import jax


def computed_once(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Wraps a function so that its results and gradients are not fused into their consumers."""

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


# The tanh approximation of GELU.
gelu = computed_once(jax.nn.gelu)
# gelu(gate) * x (Shazeer 2020, section 2).
gated_gelu = computed_once(_gated_gelu)
