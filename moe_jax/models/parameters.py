"""Parameter initialization: float32, fan-in scaled, with logical names of the axes.

`moe_jax.sharding` maps the names to mesh axes. Stacked parameters have an additional first axis,
`layers`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


class RouterStateVariable(nnx.Variable):
    """Router state that is not trained by gradients, such as thresholds."""


def split(module: nnx.Module) -> tuple[nnx.GraphDef[Any], nnx.State, nnx.State]:
    """Splits a module into its structure, trained parameters and router state."""
    graph, params, router_state = nnx.split(module, nnx.Param, RouterStateVariable)  # type: ignore[misc]
    return graph, params, router_state


def kernel(
    rngs: nnx.Rngs, shape: Sequence[int], axes: tuple[str, ...], fan_in: int
) -> nnx.Param[jax.Array]:
    """Initializes a weight from a normal distribution truncated at 2 sigma, variance 1 / fan_in.

    Source: the fan-in initialization of T5X and Praxis (Shazeer and Stern 2018, 8.1).
    """
    # 0.8796... is the standard deviation of a unit normal distribution truncated at +-2.
    scale = fan_in**-0.5 / 0.87962566103423978
    value = jax.random.truncated_normal(rngs.params(), -2.0, 2.0, tuple(shape), jnp.float32)
    return nnx.Param(value * scale, logical_axes=axes)


def constant(value: float, shape: Sequence[int], axes: tuple[str, ...]) -> nnx.Param[jax.Array]:
    """Initializes a parameter with a constant value."""
    return nnx.Param(jnp.full(tuple(shape), value, jnp.float32), logical_axes=axes)
