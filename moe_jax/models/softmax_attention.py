"""Softmax attention with a custom gradient that saves no [query, key] arrays.

    y = softmax(q k^T / sqrt(K) + mask) v

The backward pass uses q, k, v, y and the logarithm of the softmax's denominator, L: the weights are
w = exp(logits - L), and the gradient of the logits is w (dw - sum_k dy y). The normalisation of the
softmax is applied after the product with v. Both save passes over [B, heads, S, S] arrays, which
dominate the time of this part of a step. The formulas are those of Dao et al. 2022
(FlashAttention), algorithms 1 and 4, without tiling over keys.
"""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from moe_jax.types import KeysBSHK, QueriesBQHK

# q, k, v, mask, y, L.
_Kept = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


@jax.custom_vjp
def attend(
    q_BQHK: QueriesBQHK, k_BSHK: KeysBSHK, v_BSHK: KeysBSHK, mask_BHQS: jax.Array
) -> QueriesBQHK:
    """Returns y [B, Q, H, K] in the precision of v; logits and softmax are in float32.

    Args:
        q_BQHK: queries.
        k_BSHK: keys.
        v_BSHK: values.
        mask_BHQS: added to the logits, float32; any shape that broadcasts to theirs. Every query
            must have a key that is not masked.
    """
    return _forward(q_BQHK, k_BSHK, v_BSHK, mask_BHQS)[0]


def _logits(q_BQHK: jax.Array, k_BSHK: jax.Array, mask_BHQS: jax.Array) -> jax.Array:
    scaled = q_BQHK * q_BQHK.shape[-1] ** -0.5
    logits = jnp.einsum("bqhk,bshk->bhqs", scaled, k_BSHK, preferred_element_type=jnp.float32)
    return logits + mask_BHQS


def _forward(
    q_BQHK: QueriesBQHK, k_BSHK: KeysBSHK, v_BSHK: KeysBSHK, mask_BHQS: jax.Array
) -> tuple[QueriesBQHK, _Kept]:
    logits_BHQS = _logits(q_BQHK, k_BSHK, mask_BHQS)
    largest_BHQ1 = logits_BHQS.max(-1, keepdims=True)
    weights_BHQS = jnp.exp(logits_BHQS - largest_BHQ1)
    sum_BHQ = weights_BHQS.sum(-1)
    y_BQHK = jnp.einsum(
        "bhqs,bshk->bqhk",
        weights_BHQS.astype(v_BSHK.dtype),
        v_BSHK,
        preferred_element_type=jnp.float32,
    )
    y_BQHK = (y_BQHK / sum_BHQ.swapaxes(1, 2)[..., None]).astype(v_BSHK.dtype)
    y_BQHK = checkpoint_name(y_BQHK, "attention_context")
    log_BHQ = checkpoint_name(largest_BHQ1[..., 0] + jnp.log(sum_BHQ), "attention_context")
    return y_BQHK, (q_BQHK, k_BSHK, v_BSHK, mask_BHQS, y_BQHK, log_BHQ)


def _backward(kept: _Kept, dy_BQHK: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    q_BQHK, k_BSHK, v_BSHK, mask_BHQS, y_BQHK, log_BHQ = kept
    scale = q_BQHK.shape[-1] ** -0.5
    weights_BHQS = jnp.exp(_logits(q_BQHK, k_BSHK, mask_BHQS) - log_BHQ[..., None])
    dv_BSHK = jnp.einsum("bhqs,bqhk->bshk", weights_BHQS.astype(v_BSHK.dtype), dy_BQHK)
    d_weights_BHQS = jnp.einsum(
        "bqhk,bshk->bhqs", dy_BQHK, v_BSHK, preferred_element_type=jnp.float32
    )
    shift_BHQ = jnp.einsum("bqhk,bqhk->bhq", dy_BQHK, y_BQHK, preferred_element_type=jnp.float32)
    d_logits_BHQS = weights_BHQS * (d_weights_BHQS - shift_BHQ[..., None])
    low_BHQS = d_logits_BHQS.astype(q_BQHK.dtype)
    dq_BQHK = jnp.einsum("bhqs,bshk->bqhk", low_BHQS, k_BSHK) * scale
    dk_BSHK = jnp.einsum("bhqs,bqhk->bshk", low_BHQS, q_BQHK * scale)
    return dq_BQHK, dk_BSHK, dv_BSHK, _sum_to(d_logits_BHQS, mask_BHQS.shape)


def _sum_to(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Sums x over the axes along which an array of the given shape was broadcast to it."""
    padded = (1,) * (x.ndim - len(shape)) + shape
    axes = tuple(i for i, size in enumerate(padded) if size == 1 and x.shape[i] > 1)
    return x.sum(axes, keepdims=True).reshape(shape)


attend.defvjp(_forward, _backward)
