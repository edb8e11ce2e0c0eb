"""Sample the next token: temperature, top-k and nucleus sampling.

No step sorts the vocabulary, which would take most of the time of decoding on CPU: the boundary of
the nucleus is found by bisection over the bits of the probabilities, and a token is drawn by
inverting the cumulative distribution at one uniform number.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from moe_jax.errors import UserError
from moe_jax.registration import configurable
from moe_jax.settings import NonNegative, PositiveInt, Range, Seed, Settings, counted, rule

# Blocks of the vocabulary whose sums are added in a second step; lanes of vector units.
_BLOCK = 128


@configurable
@dataclasses.dataclass(frozen=True)
class SamplingConfig(Settings, called="Sampling"):
    """Settings of text generation.

    Attributes:
        max_new_tokens: maximum number of generated tokens; generation ends with the document.
        temperature: divides the logits; 0 for greedy decoding.
        top_k: sample from the k most likely tokens only; 0 for all.
        top_p: sample from the fewest tokens that together have this probability; 1 for all.
        seed: random seed.
        beams: number of beams of beam search, which needs the temperature 0; 1 for none.
        length_penalty: alpha of beam search: the scores of texts are divided by
            ((5 + tokens) / 6)^alpha (Wu et al. 2016, eq. 14); 0 for none. 0.6 as in T5.
    """

    max_new_tokens: PositiveInt = 128
    temperature: NonNegative = 0.8
    top_k: Annotated[int, counted("all")] = 0
    top_p: Annotated[float, Range(above=0, most=1)] = 0.95
    seed: Seed = 0
    beams: PositiveInt = 1
    length_penalty: NonNegative = 0.6

    @staticmethod
    @rule
    def _beams_are_not_sampled(beams: int, temperature: float) -> None:
        if beams > 1 and temperature:
            raise UserError(
                f"Sampling.beams = {beams} needs Sampling.temperature = 0, not {temperature:g}: "
                "beam search does not sample"
            )


def sample_tokens(logits_BV: jax.Array, key_B: jax.Array, config: SamplingConfig) -> jax.Array:
    """Samples a token for each row, [B] int32; a row's token depends on its own key only.

    Args:
        logits_BV: logits over the vocabulary.
        key_B: a random key for each row.
        config: settings of sampling.
    """

    def sample(row: tuple[jax.Array, jax.Array]) -> jax.Array:
        return _sample(*row, config)

    # XLA's CPU backend reduces the rows of an array slower than the same rows one by one.
    return jax.lax.platform_dependent(
        (logits_BV, key_B), cpu=lambda rows: jax.lax.map(sample, rows), default=jax.vmap(sample)
    )


def _sample(logits_V: jax.Array, key: jax.Array, config: SamplingConfig) -> jax.Array:
    """Samples one token."""
    logits_V = logits_V.astype(jnp.float32)
    if config.temperature == 0:
        return _arg_max(logits_V)
    logits_V, uniform = logits_V / config.temperature, jax.random.uniform(key)
    if 0 < config.top_k < len(logits_V):
        # Sorted, and of equal logits the lower index first.
        best_K, index_K = jax.lax.top_k(logits_V, config.top_k)
        p_K = jax.nn.softmax(best_K)
        before_K = jnp.cumsum(p_K) - p_K
        drawn = _draw(jnp.where(before_K < config.top_p, p_K, 0.0), uniform)
        return index_K[drawn].astype(jnp.int32)
    p_V = jax.nn.softmax(logits_V)
    return _draw(_nucleus(p_V, config.top_p) if config.top_p < 1 else p_V, uniform)


def _arg_max(logits_V: jax.Array) -> jax.Array:
    """Returns the index of the largest logit, the lowest if there are several."""
    blocks = _in_blocks(logits_V, -jnp.inf)
    index = jnp.arange(blocks.size, dtype=jnp.int32).reshape(blocks.shape)
    is_largest = blocks == blocks.max(0).max()
    # No index if the logits are not numbers.
    found = jnp.where(is_largest, index, blocks.size).min(0).min()
    return jnp.where(found < len(logits_V), found, 0)


def _in_blocks(x_V: jax.Array, padding: float) -> jax.Array:
    """Returns x in rows of `_BLOCK`: sums and maxima over rows are vectorised."""
    padded = jnp.pad(x_V, (0, -len(x_V) % _BLOCK), constant_values=padding)
    return padded.reshape(-1, _BLOCK)


def _nucleus(p_V: jax.Array, top_p: float) -> jax.Array:
    """Returns the probabilities of the nucleus, and 0 for other tokens; ties go to the lower index.

    The nucleus is the fewest tokens that together have the probability `top_p` (Holtzman et al.
    2020): those above a boundary, and some of those at the boundary. Floats that are not negative
    are ordered as their bits are, so that bisection finds the boundary exactly.
    """
    blocks = _in_blocks(p_V, 0.0)
    bits = jax.lax.bitcast_convert_type(blocks, jnp.int32)

    def mass(least: jax.Array) -> jax.Array:
        return jnp.where(bits >= least, blocks, 0.0).sum(0).sum()

    def halve(bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        is_enough = mass(middle) >= top_p
        return jnp.where(is_enough, middle, low), jnp.where(is_enough, high, middle)

    # The tokens from `low` on have enough probability, those from `high` on do not.
    bounds = jnp.int32(0), bits.max() + 1
    low, _ = jax.lax.while_loop(lambda b: b[1] - b[0] > 1, halve, bounds)
    missing = top_p - mass(low + 1)
    boundary = jax.lax.bitcast_convert_type(low, jnp.float32)
    bits_V = jax.lax.bitcast_convert_type(p_V, jnp.int32)

    def without_some_ties() -> jax.Array:
        is_tie_V = bits_V == low
        earlier_V = jnp.cumsum(is_tie_V.astype(jnp.int32)) - is_tie_V
        is_needed_V = is_tie_V & (earlier_V.astype(jnp.float32) * boundary < missing)
        return jnp.where((bits_V > low) | is_needed_V, p_V, 0.0)

    # Counting ties takes longer than all else, and nearly always there is one.
    has_ties = (bits == low).sum(0).sum() > 1
    return jax.lax.cond(has_ties, without_some_ties, lambda: jnp.where(bits_V >= low, p_V, 0.0))


def _draw(p_V: jax.Array, uniform: jax.Array) -> jax.Array:
    """Returns the index at which the cumulative sum of p exceeds a share of the total, int32.

    An index with p = 0 is never drawn.
    """
    blocks = _in_blocks(p_V, 0.0)
    sums = blocks.sum(1)
    totals = jnp.cumsum(sums)
    wanted = uniform * totals[-1]
    block = _first_above(totals, wanted, sums > 0)
    inside = blocks[block]
    rest = wanted - (totals[block] - sums[block])
    return block * _BLOCK + _first_above(jnp.cumsum(inside), rest, inside > 0)


def _first_above(totals: jax.Array, wanted: jax.Array, is_possible: jax.Array) -> jax.Array:
    """Returns the first possible index whose total is above the wanted one; else the last."""
    index = jnp.arange(totals.shape[0], dtype=jnp.int32)
    is_found = is_possible & (totals > wanted)
    last = jnp.max(jnp.where(is_possible, index, 0))
    return jnp.where(is_found.any(), jnp.argmax(is_found).astype(jnp.int32), last)
