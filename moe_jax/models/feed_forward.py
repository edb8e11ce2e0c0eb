"""Feed-forward networks: the dense one and those of the experts.

The second matrix is stored as [D, F], like the first: XLA's CPU backend computes its gradient about
twice as fast in this layout, and on TPU there is no difference. In decoding, where few tokens are
multiplied, the CPU backend is faster with [F, D]: see `moe_jax.models.decoding`.
"""

import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from moe_jax.dispatch.network import ExpertNetwork
from moe_jax.models.activations import gated_gelu, gelu
from moe_jax.models.config import ModelConfig
from moe_jax.models.dropout import NO_DROPOUT, LayerDropout, Site
from moe_jax.models.parameters import kernel
from moe_jax.types import ActivationsBSD


class FeedForward(nnx.Module):
    """Dense feed-forward without biases.

    `gelu`: gelu(x W_in) W_out. `gated_gelu`: (gelu(x W_gate) * (x W_in)) W_out, as in GLaM and in
    the dense layers of the paper (Zhou et al. 2022, 3.4).

    Attributes:
        is_transposed: the second matrix is [F, D]; set by `Decoder.set_decoding`.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        shape, axes = (config.d_model, config.d_ff), ("embed", "mlp")
        gated = config.feed_forward == "gated_gelu"
        self.gate = kernel(rngs, shape, axes, config.d_model) if gated else None
        self.wi = kernel(rngs, shape, axes, config.d_model)
        self.wo = kernel(rngs, shape, axes, config.d_ff)
        self.is_transposed = False

    def __call__(self, x_BSD: ActivationsBSD, dropout: LayerDropout = NO_DROPOUT) -> ActivationsBSD:
        """Applies the network to every position."""
        dtype = x_BSD.dtype
        # With two axes of tokens, XLA's CPU backend transposes for the weight gradient.
        x_TD = x_BSD.reshape(-1, x_BSD.shape[-1])
        # Only the pre-activations are named: the backward pass needs nothing else of the two.
        hidden_TF = checkpoint_name(x_TD @ self.wi[...].astype(dtype), "ffn_hidden")
        if self.gate is None:
            hidden_TF = gelu(hidden_TF)
        else:
            gate_TF = checkpoint_name(x_TD @ self.gate[...].astype(dtype), "ffn_hidden")
            hidden_TF = gated_gelu(gate_TF, hidden_TF)
        if dropout.rate:
            hidden_BSF = hidden_TF.reshape(*x_BSD.shape[:-1], -1)
            hidden_TF = dropout.units(hidden_BSF, Site.HIDDEN).reshape(hidden_TF.shape)
        equation = "tf,fd->td" if self.is_transposed else "tf,df->td"
        out_TD = jnp.einsum(equation, hidden_TF, self.wo[...].astype(dtype))
        return out_TD.reshape(x_BSD.shape)


class Experts(nnx.Module):
    """E feed-forward networks of two matrices: gelu(x W1) W2^T (Zhou et al. 2022, eq. 3).

    Attributes:
        is_split: the matrices are tuples of arrays, one for each expert, and the second ones are
            transposed; set by `Decoder.set_decoding`.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        shape = (config.num_experts, config.d_model, config.d_ff)
        axes = ("experts", "expert_embed", "expert_mlp")
        self.wi = kernel(rngs, shape, axes, config.d_model)
        self.wo = kernel(rngs, shape, axes, config.d_ff)
        self.is_split = False

    def network(self, dtype: jnp.dtype, dropout: LayerDropout = NO_DROPOUT) -> ExpertNetwork:
        """Returns the experts in the compute precision, as an input of dispatch."""
        if not self.is_split:
            wo_EDF = dropout.expert_units(self.wo[...])
            return ExpertNetwork(self.wi[...].astype(dtype), wo_EDF.astype(dtype), gelu)
        wi, wo = (
            tuple(array.astype(dtype) for array in variable.get_value())
            for variable in (self.wi, self.wo)
        )
        stacked = jnp.stack(wi), jnp.stack(wo).swapaxes(1, 2)
        return ExpertNetwork(*stacked, gelu, each=tuple(zip(wi, wo, strict=True)))
