"""Root-mean-square normalisation without bias (Zhang and Sennrich 2019)."""

import jax
import jax.numpy as jnp
from flax import nnx

from moe_jax.models.parameters import constant
from moe_jax.types import ActivationsBSD

_EPSILON = 1e-6


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x^2) + 1e-6) * scale, computed in float32."""

    def __init__(self, width: int):
        self.scale = constant(1.0, (width,), ("norm",))

    def __call__(self, x_BSD: ActivationsBSD) -> ActivationsBSD:
        """Normalises the last axis."""
        x = x_BSD.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + _EPSILON)
        return (x * self.scale[...]).astype(x_BSD.dtype)
