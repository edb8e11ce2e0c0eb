"""How parameters are made: float32, fan-in scaled, each with logical names for its axes.

The names are what `moe_jax.sharding` maps to mesh axes. A parameter of the stacked blocks has
one more axis in front of the named ones: `layers`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


class RouterStateVariable(nnx.Variable):
    """State of a router that is not trained by gradients, such as thresholds."""


def split(module: nnx.Module) -> tuple[nnx.GraphDef[Any], nnx.State, nnx.State]:
    """Takes a module apart: its structure, its trained parameters, its routers' state."""
    graph, params, router_state = nnx.split(module, nnx.Param, RouterStateVariable)  # type: ignore[misc]
    return graph, params, router_state


def kernel(
    rngs: nnx.Rngs, shape: Sequence[int], axes: tuple[str, ...], fan_in: int
) -> nnx.Param[jax.Array]:
    """Makes a weight from a normal distribution truncated at 2 sigma, variance 1 / fan_in.

    Source: the fan-in initialisation of T5X and Praxis (Shazeer and Stern 2018, 8.1).
    """
    # The standard deviation of a unit normal truncated at +-2.
    scale = fan_in**-0.5 / 0.87962566103423978
    value = jax.random.truncated_normal(rngs.params(), -2.0, 2.0, tuple(shape), jnp.float32)
    return nnx.Param(value * scale, logical_axes=axes)


def constant(value: float, shape: Sequence[int], axes: tuple[str, ...]) -> nnx.Param[jax.Array]:
    """Makes a parameter of one value."""
    return nnx.Param(jnp.full(tuple(shape), value, jnp.float32), logical_axes=axes)
