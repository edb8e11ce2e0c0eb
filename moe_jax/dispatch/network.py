"""The feed-forward networks of the experts, with weights that a dispatch can access."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from moe_jax.types import RowsERD, WeightEDF


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ExpertNetwork:
    """E feed-forward networks of two matrices, activation(x W1) W2^T (Zhou et al. 2022, eq. 3).

    Attributes:
        wi_EDF: W1 of every expert, in the compute precision.
        wo_EDF: W2 of every expert, in the same layout as W1.
        activation: the elementwise activation function (static).
        each: W1 [D, F] and transposed W2 [F, D] of each expert in arrays of its own, if there are
            such copies; only `few_tokens` reads them.
    """

    wi_EDF: WeightEDF
    wo_EDF: WeightEDF
    activation: Callable[[jax.Array], jax.Array] = dataclasses.field(
        default=jax.nn.gelu, metadata={"static": True}
    )
    each: tuple[tuple[jax.Array, jax.Array], ...] | None = None

    @jax.named_scope("experts")
    def __call__(self, x_ERD: RowsERD) -> RowsERD:
        """Applies each expert to its rows, as batched products."""
        x_ERD = checkpoint_name(x_ERD, "moe_in")
        # The pre-activations are named: the activation is cheap to recompute.
        hidden_ERF = checkpoint_name(jnp.einsum("erd,edf->erf", x_ERD, self.wi_EDF), "moe_hidden")
        return jnp.einsum("erf,edf->erd", self.activation(hidden_ERF), self.wo_EDF)
