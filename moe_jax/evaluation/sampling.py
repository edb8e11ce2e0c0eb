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
    if config.temperature == 0:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    logits_BV = logits_BV.astype(jnp.float32) / config.temperature
    uniform_B = jax.vmap(jax.random.uniform)(key_B)
    if 0 < config.top_k < logits_BV.shape[-1]:
        # Sorted, and of equal logits the lower index first.
        best_BK, index_BK = jax.lax.top_k(logits_BV, config.top_k)
        p_BK = jax.nn.softmax(best_BK, axis=-1)
        before_BK = jnp.cumsum(p_BK, axis=-1) - p_BK
        drawn_B = _draw(jnp.where(before_BK < config.top_p, p_BK, 0.0), uniform_B)
        drawn_B = jnp.take_along_axis(index_BK, drawn_B[:, None], axis=1)[:, 0]
        return drawn_B.astype(jnp.int32)
    p_BV = jax.nn.softmax(logits_BV, axis=-1)
    if config.top_p < 1:
        p_BV = jax.lax.platform_dependent(
            p_BV,
            cpu=lambda p: jax.lax.map(lambda p_V: _nucleus(p_V, config.top_p), p),
            default=jax.vmap(lambda p_V: _nucleus(p_V, config.top_p)),
        )
    return _draw(p_BV, uniform_B)


def _nucleus(p_V: jax.Array, top_p: float) -> jax.Array:
    """Returns the probabilities of the nucleus, and 0 for other tokens; ties go to the lower index.

    The nucleus is the fewest tokens that together have the probability `top_p` (Holtzman et al.
    2020): those above a boundary, and some of those at the boundary. Floats that are not negative
    are ordered as their bits are, so that bisection finds the boundary exactly.
    """
    blocks = jnp.pad(p_V, (0, -len(p_V) % _BLOCK)).reshape(-1, _BLOCK)
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
    bits_V = jax.lax.bitcast_convert_type(p_V, jnp.int32)
    missing = top_p - mass(low + 1)
    boundary = jax.lax.bitcast_convert_type(low, jnp.float32)
    is_tie_V = bits_V == low
    earlier_V = jnp.cumsum(is_tie_V.astype(jnp.int32)) - is_tie_V
    is_needed_V = is_tie_V & (earlier_V.astype(jnp.float32) * boundary < missing)
    return jnp.where((bits_V > low) | is_needed_V, p_V, 0.0)


def _draw(p_BV: jax.Array, uniform_B: jax.Array) -> jax.Array:
    """Returns the index at which the cumulative sum of p exceeds a share of the total, [B] int32.

    An index with p = 0 is never drawn.
    """

    def one(p_V: jax.Array, uniform: jax.Array) -> jax.Array:
        blocks = jnp.pad(p_V, (0, -len(p_V) % _BLOCK)).reshape(-1, _BLOCK)
        sums = blocks.sum(1)
        totals = jnp.cumsum(sums)
        wanted = uniform * totals[-1]
        block = _first_above(totals, wanted, sums > 0)
        inside = blocks[block]
        rest = wanted - (totals[block] - sums[block])
        return block * _BLOCK + _first_above(jnp.cumsum(inside), rest, inside > 0)

    return jax.vmap(one)(p_BV, uniform_B)


def _first_above(totals: jax.Array, wanted: jax.Array, is_possible: jax.Array) -> jax.Array:
    """Returns the first possible index whose total is above the wanted one; else the last."""
    index = jnp.arange(totals.shape[0], dtype=jnp.int32)
    is_found = is_possible & (totals > wanted)
    last = jnp.max(jnp.where(is_possible, index, 0))
    return jnp.where(is_found.any(), jnp.argmax(is_found).astype(jnp.int32), last)
