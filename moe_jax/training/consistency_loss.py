"""The consistency loss of THOR: the divergence between the predictions of two passes."""

import jax
import jax.numpy as jnp

from moe_jax.training.losses import DEFAULT_CHUNK, log_partition


def consistency_loss(
    hidden_1_TD: jax.Array,
    hidden_2_TD: jax.Array,
    embedding_VD: jax.Array,
    weights_T: jax.Array,
    chunk: int = DEFAULT_CHUNK,
    vocabulary_axis: str | None = None,
) -> jax.Array:
    """Sums the symmetric divergence (KL(p1 || p2) + KL(p2 || p1)) / 2 over tokens, nats.

    Source: Zuo et al. 2021 (THOR), eq. 4. Tokens are processed in chunks whose logits are
    recomputed for the gradient, so that the logits of all tokens are never in memory at once.

    Args:
        hidden_1_TD: final activations of the first pass.
        hidden_2_TD: final activations of the second pass.
        embedding_VD: float32; logits are activations times its transpose.
        weights_T: float32, 0 for tokens that do not count.
        chunk: number of tokens whose logits are in memory at a time.
        vocabulary_axis: inside `jax.shard_map`, the mesh axis that the rows of the embedding are
            sharded along.
    """
    tokens, width = hidden_1_TD.shape
    chunk = min(chunk, tokens)
    padding = -tokens % chunk
    hidden = (jnp.pad(h, ((0, padding), (0, 0))) for h in (hidden_1_TD, hidden_2_TD))
    parts = (
        *(h.reshape(-1, chunk, width) for h in hidden),
        jnp.pad(weights_T, (0, padding)).reshape(-1, chunk),
    )
    embedding = embedding_VD.astype(hidden_1_TD.dtype)

    def log_softmax(hidden_UD: jax.Array) -> jax.Array:
        logits_UV = jnp.einsum(
            "ud,vd->uv", hidden_UD, embedding, preferred_element_type=jnp.float32
        )
        return logits_UV - log_partition(logits_UV, vocabulary_axis)[:, None]

    @jax.checkpoint
    def one_chunk(total: jax.Array, part: tuple) -> tuple[jax.Array, None]:
        *hidden, weights_U = part
        log_p, log_q = (log_softmax(h) for h in hidden)
        divergence_U = 0.5 * jnp.sum((jnp.exp(log_p) - jnp.exp(log_q)) * (log_p - log_q), axis=-1)
        if vocabulary_axis is not None:
            divergence_U = jax.lax.psum(divergence_U, vocabulary_axis)
        return total + jnp.sum(weights_U * divergence_U), None

    return jax.lax.scan(one_chunk, jnp.zeros((), jnp.float32), parts)[0]
