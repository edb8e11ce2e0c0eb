"""Keys and values of earlier positions, and attention over them.

A cache is stored as [B, heads, T, head_dim]: the products of one query per row with all keys of a
head then read memory in order. With the heads after the positions, XLA's CPU backend copies the
whole cache in every step.
"""

import dataclasses

import jax
import jax.numpy as jnp

from moe_jax.types import KeysBSHK, QueriesBQHK


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KeyValueCache:
    """Keys and values of the first T positions of a row, [B, heads, T, head_dim].

    Attributes:
        key: the keys; with several layers in one array, their axis is the first.
        value: the values.
    """

    key: jax.Array
    value: jax.Array

    @classmethod
    def of_positions(cls, k_BSHK: KeysBSHK, v_BSHK: KeysBSHK) -> "KeyValueCache":
        """Makes a cache of keys and values in the layout of attention."""
        return cls(k_BSHK.swapaxes(1, 2), v_BSHK.swapaxes(1, 2))

    @property
    def length(self) -> int:
        """Number of positions, T."""
        return int(self.key.shape[-2])

    def padded(self, length: int) -> "KeyValueCache":
        """Returns a cache of this many positions; the further ones are 0."""
        padding = [(0, 0)] * self.key.ndim
        padding[-2] = (0, length - self.length)
        return KeyValueCache(jnp.pad(self.key, padding), jnp.pad(self.value, padding))

    def written(self, new: "KeyValueCache", start_B: jax.Array) -> "KeyValueCache":
        """Returns the cache with new positions at start, start + 1, ... of every row."""
        return KeyValueCache(
            _write(self.key, new.key, start_B), _write(self.value, new.value, start_B)
        )


def attend_with_cache(
    q_BQHK: QueriesBQHK,
    new: KeyValueCache,
    cache: KeyValueCache,
    masks: tuple[jax.Array, jax.Array],
) -> QueriesBQHK:
    """Returns y [B, Q, H, K] of attention over a cache and the new positions.

    The cache is only read, so that no layer copies it. Logits and softmax are in float32, as in
    `moe_jax.models.softmax_attention`.

    Args:
        q_BQHK: queries of the new positions.
        new: keys and values of the new positions.
        cache: keys and values of the earlier positions.
        masks: added to the logits over the cache and over the new positions, [B, H or 1, Q, T]
            and [B, H or 1, Q, Q]. Every query must have a key that is not masked.
    """
    q_BHQK = q_BQHK.swapaxes(1, 2) * q_BQHK.shape[-1] ** -0.5
    keys, values = (cache.key, new.key), (cache.value, new.value)
    logits = [
        jnp.einsum("bhqk,bhtk->bhqt", q_BHQK, key, preferred_element_type=jnp.float32) + mask
        for key, mask in zip(keys, masks, strict=True)
    ]
    largest_BHQ1 = jnp.maximum(*(part.max(-1, keepdims=True) for part in logits))
    weights = [jnp.exp(part - largest_BHQ1) for part in logits]
    y_BHQK = sum(
        jnp.einsum(
            "bhqt,bhtk->bhqk",
            part.astype(value.dtype),
            value,
            preferred_element_type=jnp.float32,
        )
        for part, value in zip(weights, values, strict=True)
    )
    total_BHQ1 = weights[0].sum(-1, keepdims=True) + weights[1].sum(-1, keepdims=True)
    return (y_BHQK / total_BHQ1).astype(new.value.dtype).swapaxes(1, 2)


def _write(cache: jax.Array, new: jax.Array, start_B: jax.Array) -> jax.Array:
    """Writes `new` into each row of the cache at the start position of the row."""
    axis = cache.ndim - 4
    write = jax.vmap(
        lambda row, new, at: jax.lax.dynamic_update_slice_in_dim(row, new, at, row.ndim - 2),
        in_axes=(axis, axis, 0),
        out_axes=axis,
    )
    return write(cache, new.astype(cache.dtype), start_B)
