"""Feed-forward networks: dense, and one for every expert.

All second matrices are stored as [D, F], like the first: XLA's CPU backend computes the weight
gradient in that layout about twice as fast, and on TPU it makes no difference.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from moe_jax.models.config import ModelConfig
from moe_jax.models.parameters import kernel
from moe_jax.types import ActivationsBSD, RowsERD


class FeedForward(nnx.Module):
    """Dense feed-forward without biases.

    `gelu`: gelu(x W_in) W_out. `gated_gelu`: (gelu(x W_gate) * (x W_in)) W_out, the GLaM layer
    that the paper uses where there is no mixture of experts (Zhou et al. 2022, 3.4).
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        shape, axes = (config.d_model, config.d_ff), ("embed", "mlp")
        gated = config.feed_forward == "gated_gelu"
        self.gate = kernel(rngs, shape, axes, config.d_model) if gated else None
        self.wi = kernel(rngs, shape, axes, config.d_model)
        self.wo = kernel(rngs, shape, axes, config.d_ff)

    def __call__(self, x_BSD: ActivationsBSD) -> ActivationsBSD:
        """Applies the network to every position."""
        dtype = x_BSD.dtype
        hidden = x_BSD @ self.wi[...].astype(dtype)
        if self.gate is None:
            hidden = jax.nn.gelu(hidden)
        else:
            hidden = jax.nn.gelu(x_BSD @ self.gate[...].astype(dtype)) * hidden
        hidden = checkpoint_name(hidden, "ffn_hidden")
        return jnp.einsum("bsf,df->bsd", hidden, self.wo[...].astype(dtype))


class Experts(nnx.Module):
    """E feed-forward networks of two matrices: gelu(x W1) W2^T (Zhou et al. 2022, eq. 3)."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        shape = (config.num_experts, config.d_model, config.d_ff)
        axes = ("experts", "embed", "mlp")
        self.wi = kernel(rngs, shape, axes, config.d_model)
        self.wo = kernel(rngs, shape, axes, config.d_ff)

    def __call__(self, x_ERD: RowsERD) -> RowsERD:
        """Applies each expert to its own rows."""
        dtype = x_ERD.dtype
        hidden = jax.nn.gelu(jnp.einsum("erd,edf->erf", x_ERD, self.wi[...].astype(dtype)))
        hidden = checkpoint_name(hidden, "moe_hidden")
        return jnp.einsum("erf,edf->erd", hidden, self.wo[...].astype(dtype))
