"""The largest values of a row as a mask, without a sort."""

import jax
import jax.numpy as jnp

from moe_jax.types import CountP, MaskPN, ValuePN

# Bits of a value that are looked at in one pass.
_BITS = 2


def top_mask(value_PN: ValuePN, candidate_PN: MaskPN, count_P: CountP) -> MaskPN:
    """Returns a mask of the `count` largest values among the candidates of each row.

    Radix selection: in 16 passes over the values, 2 bits at a time, values are taken or given up
    until only those are left that equal the lowest taken one. A sort on CPU takes as long as a
    hundred passes. Of equal values, those with the lowest indices are taken. All candidates are
    taken if there are fewer than `count`.

    What is known about a value is carried from pass to pass. A threshold found first and compared
    with the values afterwards would not do: the compiler may then compute the values a second time,
    inside the comparison, with another rounding.

    Args:
        value_PN: the values, float32, not NaN.
        candidate_PN: true for those that may be taken.
        count_P: number of values to take in each row, int32.
    """
    code_PN = _ordered_code(value_PN)
    digits_D = jnp.arange(2**_BITS, dtype=jnp.uint32)
    passes = 32 // _BITS

    def digit(i: jax.Array) -> jax.Array:
        shift = 32 - _BITS * (jnp.clip(i, 0, passes - 1) + 1)
        digit_PN = (code_PN >> shift.astype(jnp.uint32)) & digits_D[-1]
        return jnp.where((i >= 0) & (i < passes), digit_PN, 0)

    def pass_over(
        i: jax.Array, carry: tuple[MaskPN, MaskPN, CountP, jax.Array]
    ) -> tuple[MaskPN, MaskPN, CountP, jax.Array]:
        taken_PN, open_PN, missing_P, lowest_P = carry
        # The digit of the pass before decides here: through the carry, so that the counts that it
        # comes from are not computed again for every value.
        digit_PN, lowest_P1 = digit(i - 1), lowest_P[:, None]
        taken_PN |= open_PN & (digit_PN > lowest_P1)
        open_PN &= digit_PN == lowest_P1
        # Open values with a larger digit than each.
        digit_PN = digit(i)
        above_PD = jnp.stack(
            [(open_PN & (digit_PN > d)).sum(-1, dtype=jnp.int32) for d in digits_D], axis=1
        )
        # The digit of the lowest value to take: the smallest one with fewer above it than missing.
        lowest_P = (above_PD >= missing_P[:, None]).sum(-1, dtype=jnp.uint32)
        taken_P = jnp.where(digits_D == lowest_P[:, None], above_PD, 0).sum(-1)
        return taken_PN, open_PN, missing_P - taken_P, lowest_P

    start = (jnp.zeros_like(candidate_PN), candidate_PN, count_P, jnp.zeros_like(count_P, "uint32"))
    taken_PN, open_PN, missing_P, _ = jax.lax.fori_loop(0, passes + 1, pass_over, start)
    place_PN = jnp.cumsum(open_PN, axis=-1, dtype=jnp.int32)
    return taken_PN | (open_PN & (place_PN <= missing_P[:, None]))


def _ordered_code(value: jax.Array) -> jax.Array:
    """Returns unsigned integers in the same order as float32 values; both zeros are equal."""
    bits = jax.lax.bitcast_convert_type(value.astype(jnp.float32) + 0.0, jnp.int32)
    return jax.lax.bitcast_convert_type(
        jnp.where(bits < 0, ~bits, bits ^ jnp.int32(-(2**31))), jnp.uint32
    )
