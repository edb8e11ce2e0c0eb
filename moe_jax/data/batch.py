"""The batch of a training step."""

import dataclasses
from typing import Any

import jax

from moe_jax.types import MaskBS, TokensBS

# The id of padding in every vocabulary, and of the first input of a sequence.
PAD = 0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """A batch of sequences, as numpy or JAX arrays.

    Attributes:
        inputs_BS: the targets shifted right by one, `PAD` first (of each packed document).
        targets_BS: the tokens to predict, `PAD` after the end of a sequence.
        weights_BS: float32, 0 for targets that are not in the loss.
        positions_BS: position in the document, None for unpacked sequences.
        segments_BS: index of the document in a packed sequence, 0 for padding; None if unpacked.
        prefix_BS: 1 for inputs of the prefix (seqio's `decoder_causal_attention`); None for plain
            text.
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
