"""Tokens, positions and masks of a batch, which every layer can access."""

import dataclasses

import jax
import jax.numpy as jnp

from moe_jax.types import MaskBS, TokensBS


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BatchContext:
    """Tokens of a batch and their positions, documents and masks; the same in every layer.

    Attributes:
        tokens_BS: input tokens: the targets shifted right by one, starting with 0.
        positions_BS: position of each token in its document; with a cache, in the row.
        mask_BS: false for padding, which is never routed.
        segments_BS: document of each token, 0 for padding; None if every row is one document.
        prefix_BS: nonzero for tokens that attend to each other in both directions (with a cache,
            for the first tokens of the row); None for causal attention.
    """

    tokens_BS: TokensBS
    positions_BS: TokensBS
    mask_BS: MaskBS
    segments_BS: TokensBS | None = None
    prefix_BS: TokensBS | MaskBS | None = None

    @classmethod
    def of_tokens(cls, tokens_BS: TokensBS) -> "BatchContext":
        """Makes the context of rows that consist of one document each, without padding."""
        positions_BS = jnp.broadcast_to(jnp.arange(tokens_BS.shape[1]), tokens_BS.shape)
        return cls(tokens_BS, positions_BS, jnp.ones(tokens_BS.shape, jnp.bool_))
