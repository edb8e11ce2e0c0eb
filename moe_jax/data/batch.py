"""What a step trains on."""

import dataclasses
from typing import Any

import jax

from moe_jax.types import MaskBS, TokensBS

# The id of padding in every vocabulary, and of the token before the first of a row.
PAD = 0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """A batch of rows, as numpy or JAX arrays.

    Attributes:
        inputs_BS: the targets shifted right by one, `PAD` first (of each packed document).
        targets_BS: the tokens to predict; `PAD` where a row has ended.
        weights_BS: float32, 0 for targets that do not count in the loss.
        positions_BS: position in the document, None for rows that are one document each.
        segments_BS: which document of a packed row, 0 for padding; None as above.
        prefix_BS: 1 where the input is part of what the targets follow on from (seqio's
            `decoder_causal_attention`); None for plain text.
    """

    inputs_BS: TokensBS
    targets_BS: TokensBS
    weights_BS: Any
    positions_BS: TokensBS | None = None
    segments_BS: TokensBS | None = None
    prefix_BS: TokensBS | None = None

    @property
    def mask_BS(self) -> MaskBS:
        """True for real tokens: padding is neither routed nor attended to."""
        return self.targets_BS != PAD
