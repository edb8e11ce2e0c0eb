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

# The residuals of the backward pass: q, k, v, mask, y, L.
_Kept = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


@jax.custom_vjp
def attend(
    q_BSHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array, mask_BHST: jax.Array
) -> jax.Array:
    """Returns y [B, S, heads, K] in the precision of v; logits and softmax are in float32.

    Args:
        q_BSHK: queries.
        k_BTHK: keys.
        v_BTHK: values.
        mask_BHST: added to the logits, float32; any shape that broadcasts to theirs. Every query
            must have a key that is not masked.
    """
    return _forward(q_BSHK, k_BTHK, v_BTHK, mask_BHST)[0]


def _logits(q_BSHK: jax.Array, k_BTHK: jax.Array, mask_BHST: jax.Array) -> jax.Array:
    scaled = q_BSHK * q_BSHK.shape[-1] ** -0.5
    logits = jnp.einsum("bshk,bthk->bhst", scaled, k_BTHK, preferred_element_type=jnp.float32)
    return logits + mask_BHST


def _forward(
    q_BSHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array, mask_BHST: jax.Array
) -> tuple[jax.Array, _Kept]:
    logits_BHST = _logits(q_BSHK, k_BTHK, mask_BHST)
    largest_BHS1 = logits_BHST.max(-1, keepdims=True)
    weights_BHST = jnp.exp(logits_BHST - largest_BHS1)
    sum_BHS = weights_BHST.sum(-1)
    y_BSHK = jnp.einsum(
        "bhst,bthk->bshk",
        weights_BHST.astype(v_BTHK.dtype),
        v_BTHK,
        preferred_element_type=jnp.float32,
    )
    y_BSHK = (y_BSHK / sum_BHS.swapaxes(1, 2)[..., None]).astype(v_BTHK.dtype)
    y_BSHK = checkpoint_name(y_BSHK, "attention_context")
    log_BHS = checkpoint_name(largest_BHS1[..., 0] + jnp.log(sum_BHS), "attention_context")
    return y_BSHK, (q_BSHK, k_BTHK, v_BTHK, mask_BHST, y_BSHK, log_BHS)


def _backward(kept: _Kept, dy_BSHK: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    q_BSHK, k_BTHK, v_BTHK, mask_BHST, y_BSHK, log_BHS = kept
    scale = q_BSHK.shape[-1] ** -0.5
    weights_BHST = jnp.exp(_logits(q_BSHK, k_BTHK, mask_BHST) - log_BHS[..., None])
    dv_BTHK = jnp.einsum("bhst,bshk->bthk", weights_BHST.astype(v_BTHK.dtype), dy_BSHK)
    d_weights_BHST = jnp.einsum(
        "bshk,bthk->bhst", dy_BSHK, v_BTHK, preferred_element_type=jnp.float32
    )
    shift_BHS = jnp.einsum("bshk,bshk->bhs", dy_BSHK, y_BSHK, preferred_element_type=jnp.float32)
    d_logits_BHST = weights_BHST * (d_weights_BHST - shift_BHS[..., None])
    low_BHST = d_logits_BHST.astype(q_BSHK.dtype)
    dq_BSHK = jnp.einsum("bhst,bthk->bshk", low_BHST, k_BTHK) * scale
    dk_BTHK = jnp.einsum("bhst,bshk->bthk", low_BHST, q_BSHK * scale)
    return dq_BSHK, dk_BTHK, dv_BTHK, _sum_to(d_logits_BHST, mask_BHST.shape)


def _sum_to(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Sums x over the axes along which an array of the given shape was broadcast to it."""
    padded = (1,) * (x.ndim - len(shape)) + shape
    axes = tuple(i for i, size in enumerate(padded) if size == 1 and x.shape[i] > 1)
    return x.sum(axes, keepdims=True).reshape(shape)


attend.defvjp(_forward, _backward)
