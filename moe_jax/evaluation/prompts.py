"""Batches of prompts of different lengths, padded to few shapes."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from moe_jax.data.batch import PAD
from moe_jax.models.batch_context import BatchContext
from moe_jax.models.functional import LanguageModel

# The shortest padded prompt. Longer ones are padded to 1.5 and 2 times this, and so on, which
# limits the number of compiled lengths.
_SHORTEST = 32
_SEED_MASK = 0xFFFFFFFF

# Tokens [B, S] with padding at the ends, lengths [B] (0 for rows that pad the batch), seeds [B].
PromptRows = tuple[np.ndarray, np.ndarray, np.ndarray]


def prompt_rows(prompts: Sequence[Sequence[int]], seeds: Sequence[int], shards: int) -> PromptRows:
    """Returns prompts as model inputs, which start with the token 0, in a padded batch.

    The lower 32 bits of the seeds are used.

    Args:
        prompts: tokens of the prompts.
        seeds: a seed for each prompt.
        shards: the number of rows is a multiple of this.
    """
    padded = _padded_length(max(map(len, prompts)) + 1)
    rows = _padded_rows(len(prompts), shards)
    tokens_BS = np.full((rows, padded), PAD, np.int32)
    length_B, seed_B = np.zeros(rows, np.int32), np.zeros(rows, np.uint32)
    for row, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        tokens_BS[row, 1 : len(prompt) + 1] = prompt
        length_B[row], seed_B[row] = len(prompt) + 1, seed & _SEED_MASK
    return tokens_BS, length_B, seed_B


def prompt_context(tokens_BS: jax.Array, length_B: jax.Array, model: LanguageModel) -> BatchContext:
    """Returns the inputs of prompts with padding at their ends; the padding is not routed."""
    position_S = jnp.arange(tokens_BS.shape[1], dtype=jnp.int32)
    positions_BS = jnp.broadcast_to(position_S, tokens_BS.shape)
    is_prompt_BS = position_S < length_B[:, None]
    prefix_BS = is_prompt_BS if model.config.bidirectional_prefix else None
    return BatchContext(tokens_BS, positions_BS, is_prompt_BS, prefix_BS=prefix_BS)


def last_hidden(hidden_BSD: jax.Array, length_B: jax.Array) -> jax.Array:
    """Returns the activations of the last token of each prompt, [B, 1, D]."""
    last_B11 = jnp.maximum(length_B - 1, 0)[:, None, None]
    return jnp.take_along_axis(hidden_BSD, last_B11, axis=1)


def _padded_length(length: int) -> int:
    """Returns the next of 32, 48, 64, 96, 128, 192, ... positions."""
    padded = _SHORTEST
    while padded < length:
        if padded * 3 // 2 >= length:
            return padded * 3 // 2
        padded *= 2
    return padded


def _padded_rows(rows: int, shards: int) -> int:
    """Returns the next power of two times the number of shards."""
    per_shard = -(-rows // shards)
    return shards * (1 << (per_shard - 1).bit_length())
